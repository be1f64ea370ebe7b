from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.variational.schedules import (
    SCHEDULES,
    Capacity,
    Constant,
    Cosine,
    Cyclical,
    Exponential,
    Linear,
    Schedule,
    constant,
    cosine,
    learning_rate_factor,
    linear_warmup,
)

FRACTIONS = st.floats(0, 1)
WARMUPS = st.floats(0, 0.99)
ENDS = st.floats(-1e6, 1e6)
POSITIVE = st.floats(1e-6, 1e6)
MONOTONE = st.one_of(
    st.builds(Constant, ENDS),
    st.builds(Linear, WARMUPS, ENDS, ENDS),
    st.builds(Cosine, WARMUPS, ENDS, ENDS),
    st.builds(Exponential, WARMUPS, POSITIVE, POSITIVE),
    st.builds(Capacity, POSITIVE, WARMUPS, POSITIVE),
)
ANY = st.one_of(MONOTONE, st.builds(Cyclical, st.integers(1, 50), st.floats(0.01, 1), ENDS, ENDS))


@given(WARMUPS)
def test_a_warmup_reaches_its_target_and_stays(warmup: float) -> None:
    assert linear_warmup(1.0, warmup) == 1.0
    assert linear_warmup(warmup, warmup) == 1.0


@given(FRACTIONS, FRACTIONS, WARMUPS)
def test_a_warmup_never_falls_and_stays_between_0_and_1(
    one: float, other: float, warmup: float
) -> None:
    low, high = sorted((one, other))
    assert 0 <= linear_warmup(low, warmup) <= linear_warmup(high, warmup) <= 1


def test_a_warmup_is_half_way_up_half_way_through() -> None:
    assert linear_warmup(0.0, 0.2) == 0.0
    assert linear_warmup(0.1, 0.2) == 0.5
    assert linear_warmup(0.0, 0.0) == 1.0


@pytest.mark.parametrize("warmup", [1.0, 1.5, 10.0, -0.1, float("nan")])
def test_a_warmup_that_does_not_end_inside_the_training_is_refused(warmup: float) -> None:
    with pytest.raises(ValueError, match="does not end inside"):
        linear_warmup(0.5, warmup)
    with pytest.raises(ValueError, match="does not end inside"):
        learning_rate_factor("cosine", warmup, 0.5)


@pytest.mark.parametrize(
    "schedule", [constant, cosine, lambda fraction: linear_warmup(fraction, 0.0)]
)
@pytest.mark.parametrize("fraction", [-0.01, 1.01, float("nan")])
def test_a_fraction_outside_the_training_is_refused(
    schedule: Callable[[float], float], fraction: float
) -> None:
    with pytest.raises(ValueError, match="runs from 0 to 1"):
        schedule(fraction)


def test_half_a_cosine_goes_from_1_to_0() -> None:
    assert [cosine(0.0), cosine(0.5), cosine(1.0)] == pytest.approx([1.0, 0.5, 0.0])


@given(FRACTIONS, FRACTIONS)
def test_a_cosine_never_rises(one: float, other: float) -> None:
    low, high = sorted((one, other))
    assert 1 >= cosine(low) >= cosine(high) >= 0


@given(WARMUPS)
def test_the_learning_rate_is_full_where_the_warmup_ends(warmup: float) -> None:
    assert learning_rate_factor("cosine", warmup, warmup) == 1.0
    assert learning_rate_factor("cosine", warmup, 1.0) == pytest.approx(0.0)
    assert learning_rate_factor("constant", warmup, 1.0) == 1.0


@given(ANY)
def test_a_schedule_ends_at_its_target(schedule: Any) -> None:
    assert schedule(1.0) == schedule.end


@given(ANY, FRACTIONS)
def test_a_schedule_stays_in_its_range(schedule: Any, fraction: float) -> None:
    low, high = schedule.range
    ends = {getattr(schedule, "start", schedule.end), schedule.end}
    assert {low, high} == ends
    assert low <= schedule(fraction) <= high


@given(MONOTONE, FRACTIONS, FRACTIONS)
def test_a_warmup_never_turns_back(schedule: Any, one: float, other: float) -> None:
    earlier, later = (schedule(fraction) for fraction in sorted((one, other)))
    if earlier != later:
        assert (earlier < later) == (schedule.start < schedule.end)


@given(ANY, FRACTIONS, st.floats(0, 1))
def test_a_resumed_schedule_is_where_it_was(
    schedule: Any, fraction: float, elsewhere: float
) -> None:
    expected = schedule(fraction)
    schedule(elsewhere)
    resumed = type(schedule)(**dataclasses.asdict(schedule))
    assert schedule(fraction) == resumed(fraction) == expected


@given(st.integers(1, 20), st.floats(0.01, 1), st.integers(0, 19), st.floats(0.01, 0.99))
def test_every_cycle_rises_alike(cycles: int, ratio: float, cycle: int, phase: float) -> None:
    schedule = Cyclical(cycles, ratio)
    first, later = (schedule((k + phase) / cycles) for k in (0, cycle % cycles))
    assert first == pytest.approx(min(1, phase / ratio))
    assert later == pytest.approx(first, abs=1e-9)


def test_a_cyclical_schedule_falls_back_as_often_as_it_has_cycles() -> None:
    values = [Cyclical(cycles=4, ratio=0.5)(step / 1000) for step in range(1001)]
    falls = sum(later < earlier for earlier, later in itertools.pairwise(values))
    assert falls == 3


def test_one_cycle_is_a_linear_warmup() -> None:
    fractions = [step / 64 for step in range(65)]
    cyclical, linear = Cyclical(cycles=1, ratio=0.25), Linear(warmup=0.25)
    assert [cyclical(t) for t in fractions] == [linear(t) for t in fractions]


def test_half_way_through_its_warmup_a_schedule_is_half_way() -> None:
    assert Linear(0.5, start=2.0, end=6.0)(0.25) == pytest.approx(4.0)
    assert Cosine(0.5, start=2.0, end=6.0)(0.25) == pytest.approx(4.0)
    assert Exponential(0.5, start=4.0, end=1.0)(0.25) == pytest.approx(2.0)
    assert Capacity(end=25.0, warmup=0.5)(0.25) == pytest.approx(12.5)


def test_a_cosine_warmup_is_flat_at_both_ends() -> None:
    schedule = Cosine(warmup=0.5)
    assert schedule(0.001) < 0.01 * 0.001 / 0.5 + 1e-5
    assert 1 - schedule(0.499) < 1e-5 + 0.01 * 0.001 / 0.5


@pytest.mark.parametrize("kind", SCHEDULES)
def test_a_schedule_of_the_table_is_a_factor_that_ends_at_1(kind: str) -> None:
    needed = {"warmup": 0.3} if kind in ("linear", "cosine") else {}
    schedule: Schedule = SCHEDULES[kind](**needed)
    assert schedule(1.0) == 1.0
    assert all(0 <= schedule(step / 100) <= 1 for step in range(101))


@pytest.mark.parametrize("warmup", [1.0, 1.5, -0.1, math.nan])
@pytest.mark.parametrize(
    "build",
    [
        Linear,
        Cosine,
        lambda warmup: Exponential(warmup, 1.0, 0.5),
        lambda warmup: Capacity(25.0, warmup),
    ],
)
def test_a_warmup_longer_than_the_training_is_refused_when_it_is_built(
    build: Callable[[float], Schedule], warmup: float
) -> None:
    with pytest.raises(ValueError, match="does not end inside"):
        build(warmup)


@pytest.mark.parametrize(
    ("build", "reason"),
    [
        (lambda: Cyclical(cycles=0), "at least 1 cycle"),
        (lambda: Cyclical(ratio=1.1), "at most 1"),
        (lambda: Cyclical(ratio=0.0), "at most 1"),
        (lambda: Cyclical(ratio=math.nan), "at most 1"),
        (lambda: Exponential(0.1, start=0.0, end=1.0), "above 0"),
        (lambda: Capacity(end=-1.0, warmup=0.1), "never below 0"),
        (lambda: Constant(math.inf), "finite"),
        (lambda: Linear(0.1, end=math.nan), "finite"),
    ],
)
def test_a_setting_out_of_range_is_refused(build: Callable[[], Schedule], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        build()


@given(ANY, st.sampled_from([-0.01, 1.01, math.nan]))
def test_no_schedule_takes_a_fraction_outside_the_training(
    schedule: Schedule, fraction: float
) -> None:
    with pytest.raises(ValueError, match="runs from 0 to 1"):
        schedule(fraction)
