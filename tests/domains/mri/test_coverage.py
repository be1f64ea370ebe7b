"""Intervals hold what they promise, where what they promise is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from domains.mri.metrics.coverage import (
    FACTORS,
    Errors,
    calibrate,
    coverage,
    errors_of,
    fewest,
    relative_width,
    reliability,
    threshold,
    together,
)

Array = NDArray[np.float64]
seeds = st.integers(0, 2**16)


def drawn(slices: int, pixels: int, seed: int = 0, family: str = "laplace") -> Errors:
    """Errors of the very distribution of which the scale is given."""
    random = np.random.default_rng(seed)
    scale = np.exp(random.normal(size=(slices, pixels)))
    error = scale * getattr(random, family)(size=(slices, pixels))
    return Errors(error=tuple(np.abs(error)), width=tuple(scale))


def pictures(seed: int = 0, slices: int = 3) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    target = torch.rand(slices, 12, 10, generator=generator)
    width = 0.2 * torch.rand(slices, 12, 10, generator=generator)
    noise = torch.randn(slices, 12, 10, generator=generator)
    return target + width * noise, width, target


def test_errors_are_those_inside_the_mask() -> None:
    picture, width, target = pictures()
    mask = torch.zeros(3, 12, 10, dtype=torch.bool)
    mask[0, :4], mask[2, 5, 5] = True, True
    found = errors_of(picture, width, target, mask, ["a", "b", "b"])
    assert [len(each) for each in found.error] == [40, 1]
    assert found.subjects == ("a", "b")
    assert found.error[1][0] == pytest.approx(float((picture - target)[2, 5, 5].abs()))
    assert found.width[1][0] == pytest.approx(float(width[2, 5, 5]))


def test_coverage_is_the_share_of_pixels_within() -> None:
    picture, width, target = pictures()
    found = coverage(errors_of(picture, width, target), 0.7)
    held = (picture - target).abs() <= width
    assert found.share == pytest.approx(float(held.double().mean()))
    assert found.width == pytest.approx(float(width.mean()), rel=1e-6)
    assert found.interval is not None
    assert found.interval[0] <= found.share <= found.interval[1]
    assert (found.unit, found.n, found.pixels) == ("slice", 3, 360)


def test_correlations_are_those_of_scipy() -> None:
    from scipy.stats import pearsonr, spearmanr

    errors = errors_of(*pictures(slices=1))
    found = coverage(errors, 0.9)
    assert found.pearson == pytest.approx(pearsonr(errors.error[0], errors.width[0]).statistic)
    assert found.spearman == pytest.approx(spearmanr(errors.error[0], errors.width[0]).statistic)
    assert found.interval is None


def test_the_brightness_of_slices_makes_no_correlation() -> None:
    """Errors and widths of all slices together correlate by brightness; within none does."""
    random = np.random.default_rng(0)
    bright = [1.0, 10.0, 100.0, 1000.0]
    errors = Errors(
        error=tuple(f * random.random(4000) for f in bright),
        width=tuple(f * random.random(4000) for f in bright),
    )
    together_r = np.corrcoef(np.concatenate(errors.error), np.concatenate(errors.width))[0, 1]
    found = coverage(errors, 0.9)
    assert together_r > 0.5
    assert abs(found.pearson) < 0.05
    assert abs(found.spearman) < 0.05


def test_constant_widths_and_blank_slices_have_finite_values() -> None:
    blank = torch.zeros(2, 8, 8)
    found = coverage(errors_of(blank, blank, blank), 0.9)
    assert (found.share, found.width, found.pearson, found.spearman) == (1.0, 0.0, 0.0, 0.0)


@settings(max_examples=20, deadline=None)
@given(st.floats(1e-150, 1e150))
def test_correlations_do_not_depend_on_the_unit(unit: float) -> None:
    errors = drawn(2, 50)
    scaled = Errors(
        error=tuple(unit * each for each in errors.error),
        width=tuple(unit * each for each in errors.width),
    )
    assert coverage(scaled, 0.9).pearson == pytest.approx(coverage(errors, 0.9).pearson)


@pytest.mark.parametrize("family", list(FACTORS))
def test_the_true_distribution_is_reliable_at_every_level(family: str) -> None:
    found = reliability(drawn(20, 2000, family=family), FACTORS[family])
    assert found.gap < 0.005
    for share, level, interval in zip(found.shares, found.levels, found.intervals, strict=True):
        assert share == pytest.approx(level, abs=0.012)
        assert interval is not None
        assert interval[0] < share < interval[1]


def test_a_wrong_distribution_is_not_until_it_is_calibrated() -> None:
    seen, unseen = (drawn(60, 500, seed, "laplace").scaled(0.5) for seed in (1, 2))
    assert reliability(unseen, FACTORS["laplace"]).gap > 0.1
    found = reliability(unseen, lambda level: calibrate(seen, level).factor)
    assert found.gap < 0.01


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 60), st.floats(0.05, 0.95), seeds)
def test_of_single_pixels_it_is_split_conformal_prediction(
    slices: int, level: float, seed: int
) -> None:
    errors = drawn(slices, 1, seed)
    if slices >= fewest(level):
        ratios = sorted(
            float(e[0] / w[0]) for e, w in zip(errors.error, errors.width, strict=True)
        )
        place = math.ceil((slices + 1) * level - 1e-9)
        assert calibrate(errors, level).factor == ratios[place - 1]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 7), min_size=9, max_size=14), st.booleans(), seeds)
def test_the_factor_is_the_least_that_holds_enough(
    sizes: list[int], named: bool, seed: int
) -> None:
    """Against the definition, by trying every ratio."""
    random = np.random.default_rng(seed)
    errors = Errors(
        error=tuple(random.integers(0, 5, size) / 4 for size in sizes),
        width=tuple(random.integers(1, 3, size) / 1.0 for size in sizes),
        subjects=tuple(str(place // 2) for place in range(len(sizes))) if named else None,
    )
    units = [
        np.concatenate([errors.error[i] / errors.width[i] for i in unit]) for unit in errors.units
    ]
    level = 0.6
    enough = [
        t for t in np.unique(np.concatenate(units))
        if sum((unit <= t).mean() for unit in units) / (len(units) + 1) >= level - 1e-9
    ]  # fmt: skip
    found = calibrate(errors, level)
    assert found.factor == min(enough)
    assert (found.unit, found.n) == ("subject" if named else "slice", len(units))


def test_a_new_slice_is_held_at_the_level_though_its_pixels_err_together() -> None:
    """Each slice errs by a factor of its own: the pooled quantile of pixels holds too little."""
    random = np.random.default_rng(0)
    trials, slices, pixels, level = 1500, 10, 30, 0.9
    held, naive = np.zeros(trials), np.zeros(trials)
    for trial in range(trials):
        strength = np.exp(random.normal(size=(slices + 1, 1)))
        ratios = strength * np.abs(random.laplace(size=(slices + 1, pixels)))
        seen, new = ratios[:-1], ratios[-1]
        factor = calibrate(
            Errors(error=tuple(seen), width=tuple(np.ones_like(seen))), level
        ).factor
        held[trial] = (new <= factor).mean()
        naive[trial] = (new <= np.quantile(seen, level)).mean()
    noise = 3 * held.std() / math.sqrt(trials)
    assert level - noise <= held.mean() <= level + 2 / (slices + 1)
    assert naive.mean() < level - 0.02


def test_calibrated_intervals_scale_with_the_factor() -> None:
    seen, unseen = drawn(200, 100, 1), drawn(200, 100, 2)
    found = calibrate(seen, 0.9)
    assert found.factor == pytest.approx(FACTORS["laplace"](0.9), rel=0.05)
    assert coverage(unseen.scaled(found.factor), 0.9).share == pytest.approx(0.9, abs=0.01)
    assert coverage(unseen.scaled(found.factor), 0.9).pearson > 0.5
    assert "expected share of pixels held is at least 90 %" in found.words
    assert "200 calibration slices" in found.words


def test_subjects_count_alike_whatever_their_slices() -> None:
    held, missed = np.zeros(10), np.full(10, 2.0)
    errors = Errors(
        error=(held, held, held, missed),
        width=(np.ones(10),) * 4,
        subjects=("a", "a", "a", "b"),
    )
    found = coverage(errors, 0.9)
    assert (found.share, found.unit, found.n) == (0.5, "subject", 2)
    alone = Errors(error=errors.error, width=errors.width)
    assert coverage(alone, 0.9).share == 0.75


def test_volumes_of_different_sizes_join() -> None:
    a, b = drawn(2, 30, 1), drawn(3, 12, 2)
    both = together([a, b])
    assert [len(each) for each in both.error] == [30, 30, 12, 12, 12]
    expected = (2 * coverage(a, 0.5).share + 3 * coverage(b, 0.5).share) / 5
    assert coverage(both, 0.5).share == pytest.approx(expected)
    named = Errors(error=a.error, width=a.width, subjects=("x", "x"))
    assert together([named, named]).subjects == ("x",) * 4
    with pytest.raises(ValueError, match="1 of 2 parts"):
        together([named, b])


@given(st.integers(1, 60), st.floats(0.05, 0.9))
def test_as_few_units_as_it_needs_and_no_fewer(units: int, level: float) -> None:
    if units < fewest(level):
        with pytest.raises(ValueError, match=f"need {fewest(level)} or more"):
            calibrate(drawn(units, 3), level)
    else:
        errors = drawn(units, 3)
        highest = max((e / w).max() for e, w in zip(errors.error, errors.width, strict=True))
        assert calibrate(errors, level).factor <= highest


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 30), st.floats(0.1, 0.5))
def test_a_threshold_flags_at_most_the_rate_of_exchangeable_scans(n: int, rate: float) -> None:
    """Each of n + 1 distinct values is left out once: exactly the probability."""
    if n < fewest(1 - rate):
        with pytest.raises(ValueError, match=f"{fewest(1 - rate)} or more"):
            threshold("residual", range(n), rate)
        return
    values = np.random.default_rng(n).permutation(n + 1).astype(float)
    flagged = [
        threshold("residual", np.delete(values, place), rate).flags(values[place])
        for place in range(n + 1)
    ]
    assert np.mean(flagged) <= rate + 1e-9
    assert np.mean(flagged) > rate - 1 / (n + 1) - 1e-9


def test_what_is_no_number_is_flagged() -> None:
    found = threshold("residual", range(1, 20), 0.1)
    assert [found.flags(value) for value in (18.0, 18.1, math.nan)] == [False, True, True]


def test_the_relative_width_does_not_depend_on_the_unit() -> None:
    picture, width, _ = pictures()
    found = relative_width(picture.abs(), width)
    np.testing.assert_allclose(relative_width(7 * picture.abs(), 7 * width), found, rtol=1e-5)
    assert found[0] == pytest.approx(float(width[0].mean() / picture[0].abs().mean()), rel=1e-5)
    blank = torch.zeros(1, 12, 10)
    assert relative_width(blank, blank)[0] == 0
    assert relative_width(blank, blank + 1)[0] == math.inf


def test_what_makes_no_interval_is_refused() -> None:
    picture, width, target = pictures()
    with pytest.raises(ValueError, match="expected 0 or more"):
        errors_of(picture, width - 1, target)
    with pytest.raises(ValueError, match="slice 0 holds NaN"):
        errors_of(picture, width * math.nan, target)
    with pytest.raises(ValueError, match="2 subjects of 3 slices"):
        errors_of(picture, width, target, subjects=["a", "b"])
    with pytest.raises(ValueError, match="level 90"):
        coverage(errors_of(picture, width, target), 90)
    with pytest.raises(ValueError, match="no errors"):
        coverage(Errors(error=(), width=()), 0.9)
    with pytest.raises(ValueError, match="scale of 0"):
        calibrate(errors_of(picture, 0 * width, target), 0.5)
    with pytest.raises(ValueError, match="finite values"):
        threshold("residual", [1.0, math.nan], 0.5)
