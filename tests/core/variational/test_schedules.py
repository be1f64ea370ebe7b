from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.variational.schedules import constant, cosine, learning_rate_factor, linear_warmup

FRACTIONS = st.floats(0, 1)
WARMUPS = st.floats(0, 0.99)


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
