"""Intervals against scipy, against mathematics, and against their promise to cover the truth."""

from __future__ import annotations

import numpy as np
import pytest

from core.runtime.statistics import bootstrap_interval, difference_interval, t_interval, t_quantile

stats = pytest.importorskip("scipy.stats")


def _mean(values: np.ndarray) -> float:
    return float(values.mean())


def test_it_agrees_with_scipys_bca() -> None:
    values = np.random.default_rng(1).gamma(2.0, size=120)
    ours = bootstrap_interval(np.mean, values, resamples=20_000)
    theirs = stats.bootstrap(
        (values,), np.mean, n_resamples=20_000, method="BCa", rng=np.random.default_rng(2)
    ).confidence_interval
    assert ours == pytest.approx((theirs.low, theirs.high), abs=0.01)


def test_pairs_are_drawn_together() -> None:
    generator = np.random.default_rng(3)
    x = generator.normal(size=150)
    y = 0.8 * x + 0.6 * generator.normal(size=150)

    def correlation(a: np.ndarray, b: np.ndarray) -> float:
        return float(np.corrcoef(a, b)[0, 1])

    ours = bootstrap_interval(correlation, x, y, resamples=4000)
    theirs = stats.bootstrap(
        (x, y),
        correlation,
        paired=True,
        vectorized=False,
        n_resamples=4000,
        method="BCa",
        rng=np.random.default_rng(4),
    ).confidence_interval
    assert ours == pytest.approx((theirs.low, theirs.high), abs=0.015)


def test_the_interval_covers_the_mean_as_often_as_it_says() -> None:
    generator = np.random.default_rng(5)
    inside = 0
    for trial in range(400):
        low, high = bootstrap_interval(
            np.mean, generator.normal(size=80), resamples=500, seed=trial, level=0.9
        )
        inside += low <= 0 <= high
    assert 0.86 <= inside / 400 <= 0.94


def test_a_statistic_with_an_axis_gives_the_same_as_one_without() -> None:
    values = np.random.default_rng(6).normal(size=50)
    assert bootstrap_interval(np.mean, values) == pytest.approx(bootstrap_interval(_mean, values))


def test_blocks_do_not_change_the_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(6).normal(size=50)
    whole = bootstrap_interval(np.mean, values)
    monkeypatch.setattr("core.runtime.statistics.BLOCK_ELEMENTS", 700)
    assert bootstrap_interval(np.mean, values) == whole


def test_grouped_jackknife_stays_close_to_the_full_one(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(7).exponential(size=1000)
    grouped = bootstrap_interval(np.mean, values)
    monkeypatch.setattr("core.runtime.statistics.JACKKNIFE_GROUPS", 1000)
    assert bootstrap_interval(np.mean, values) == pytest.approx(grouped, abs=0.002)


def test_the_seed_decides_and_nothing_else() -> None:
    values = np.random.default_rng(8).normal(size=30)
    np.random.seed(1)
    first = bootstrap_interval(np.mean, values, seed=4)
    np.random.seed(2)
    assert bootstrap_interval(np.mean, values, seed=4) == first
    assert bootstrap_interval(np.mean, values, seed=5) != first


def test_a_perfect_score_stays_inside_its_range() -> None:
    assert bootstrap_interval(np.mean, np.ones(20)) == (1.0, 1.0)
    low, high = bootstrap_interval(np.mean, np.r_[np.ones(99), 0.0])
    assert 0.9 < low < 0.99
    assert high <= 1


def test_one_example_has_no_width() -> None:
    assert bootstrap_interval(np.mean, [3.0]) == (3.0, 3.0)


def test_a_pairing_narrows_the_interval_of_a_difference() -> None:
    generator = np.random.default_rng(9)
    hard = generator.normal(size=200)
    a, b = hard + 0.1 * generator.normal(size=200), hard + 0.5 + 0.1 * generator.normal(size=200)
    low, high = difference_interval(np.mean, [a], [b])
    assert low < 0.5 < high
    assert high - low < 0.05
    assert difference_interval(_mean, [a], [b]) == pytest.approx((low, high))


def test_equal_models_differ_by_exactly_nothing() -> None:
    values = np.random.default_rng(10).normal(size=40)
    assert difference_interval(np.mean, [values], [values]) == (0.0, 0.0)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (([],), "one length above 0"),
        (([1.0, 2.0], [1.0]), "one length above 0"),
        (([np.nan, 1.0],), "is nan"),
    ],
)
def test_what_cannot_be_resampled_is_refused(arrays: tuple, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        bootstrap_interval(lambda *values: float(np.mean(values[0])), *arrays)


def test_a_statistic_undefined_in_many_resamples_is_refused() -> None:
    def ratio(values: np.ndarray) -> float:
        return float(values.mean()) if values.any() else float("nan")

    with pytest.raises(ValueError, match="undefined in"):
        bootstrap_interval(ratio, [0.0, 0.0, 1.0])


@pytest.mark.parametrize("degrees", [1, 2, 3, 4, 5, 9, 10, 29, 100])
@pytest.mark.parametrize("probability", [0.025, 0.5, 0.9, 0.975, 0.9995])
def test_students_quantile_agrees_with_scipy(degrees: int, probability: float) -> None:
    expected = stats.t.ppf(probability, degrees)
    assert t_quantile(probability, degrees) == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_the_interval_over_seeds_agrees_with_scipy() -> None:
    values = [0.95, 0.96, 0.94, 0.955, 0.958]
    expected = stats.t.interval(0.95, 4, np.mean(values), stats.sem(values))
    assert t_interval(values) == pytest.approx(expected, rel=1e-9)


def test_one_seed_has_no_interval() -> None:
    with pytest.raises(ValueError, match="two values or more, got 1"):
        t_interval([0.95])
