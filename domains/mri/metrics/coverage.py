"""Whether intervals hold the truth as often as they say, and how they are made to.

An interval is a picture ± a width. Slices count alike, however many pixels of each are compared;
where slices of one head are alike, name the subject of each, and subjects count alike instead.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist, fmean
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from core.runtime.statistics import Interval, bootstrap_interval
from core.variational.diagnostics.calibration import LEVELS
from domains.mri.metrics import quality

Pictures = Float[Tensor, "slice height width"]
Mask = Bool[Tensor, "slice height width"] | None
Array = NDArray[np.float64]

ROUNDING = 1e-9  # of levels that are no exact binary numbers

FACTORS: Mapping[str, Callable[[float], float]] = {
    "laplace": lambda level: -math.log1p(-level),
    "normal": lambda level: NormalDist().inv_cdf((1 + level) / 2),
}
"""Half-width of a central interval over the scale of the distribution, from its level."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Errors:
    """Errors of pixels beside what was predicted of them, slice by slice; sizes may differ.

    Args:
        error: Magnitude of the error of each compared pixel.
        width: Half-width of its interval or scale of its distribution, in the same unit.
        subjects: Whose head each slice is of; None where each slice counts by itself.
    """

    error: tuple[Array, ...]
    width: tuple[Array, ...]
    subjects: tuple[str, ...] | None = None

    @property
    def unit(self) -> Literal["slice", "subject"]:
        """What counts alike, is drawn in the bootstrap and is taken to be exchangeable."""
        return "slice" if self.subjects is None else "subject"

    @property
    def units(self) -> list[list[int]]:
        """Places of the slices of each unit."""
        if self.subjects is None:
            return [[place] for place in range(len(self.error))]
        found: dict[str, list[int]] = {}
        for place, subject in enumerate(self.subjects):
            found.setdefault(subject, []).append(place)
        return list(found.values())

    def scaled(self, factor: float) -> Errors:
        """Return the same with all widths times a factor."""
        return replace(self, width=tuple(factor * each for each in self.width))


@dataclass(frozen=True, kw_only=True)
class Coverage:
    """What intervals are worth.

    Args:
        nominal: Share of pixels that they are to hold.
        share: That they hold: mean over units of the share of each.
        interval: 95 % bootstrap interval of that over units; None of a single one.
        width: Mean half-width, in the unit of the pictures; narrower is better at equal share.
        pearson: Correlation of error and width within a slice, mean over slices.
        spearman: Of their ranks, likewise.
        unit: What was counted alike and resampled.
        n: Number of them.
        pixels: Number of pixels.
    """

    nominal: float
    share: float
    interval: Interval | None
    width: float
    pearson: float
    spearman: float
    unit: Literal["slice", "subject"]
    n: int
    pixels: int


@dataclass(frozen=True, kw_only=True)
class Reliability:
    """Shares that intervals of several levels hold.

    Args:
        levels: Nominal.
        shares: Observed.
        intervals: 95 % bootstrap intervals of those; None of a single unit.
        gap: Mean magnitude of the difference of both.
    """

    levels: tuple[float, ...]
    shares: tuple[float, ...]
    intervals: tuple[Interval | None, ...]
    gap: float


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """A factor of scales that makes intervals, from errors that no training has seen.

    Args:
        level: Share of pixels to hold.
        factor: Half-width of the interval over the scale.
        unit: What is taken to be exchangeable.
        n: Number of them.
    """

    level: float
    factor: float
    unit: Literal["slice", "subject"]
    n: int

    @property
    def words(self) -> str:
        """What is promised and what isn't, for a report."""
        return (
            f"{100 * self.level:g} % intervals from {self.n} calibration {self.unit}s: of a new "
            f"{self.unit} exchangeable with them, the expected share of pixels held is at least "
            f"{100 * self.level:g} %, on average over calibrations. Not promised: that share for "
            f"each {self.unit}, organ, lesion or brightness; anything of another scanner, "
            "contrast, acceleration or target; that all pixels are held at once."
        )


@dataclass(frozen=True, kw_only=True)
class Threshold:
    """What a statistic of a scan hardly exceeds where it is like those of the calibration.

    Args:
        name: Of the statistic.
        value: Above it a scan is flagged.
        rate: Share of scans like those of the calibration that are flagged, at most, on average.
        n: Number of values it was taken from.
    """

    name: str
    value: float
    rate: float
    n: int

    def flags(self, value: float) -> bool:
        """Say whether a value is larger; one that isn't a number is flagged."""
        return not value <= self.value


def errors_of(
    picture: Pictures,
    width: Pictures,
    target: Pictures,
    mask: Mask = None,
    subjects: Sequence[str] | None = None,
) -> Errors:
    """Return the errors of pixels beside their widths; slices with an empty mask are left out.

    Args:
        picture: Magnitudes.
        width: Half-width of the interval or scale of the distribution of each, in their unit.
        target: What pictures should be.
        mask: Where they are compared; everywhere by default.
        subjects: Whose head each slice is of.

    Raises:
        ValueError: If shapes differ, or values aren't finite or widths below 0.
    """
    quality.check(picture, target, mask)
    quality.check(picture, width)
    if bool((width < 0).any()):
        raise ValueError(f"a width of {float(width.min())}; expected 0 or more")
    if subjects is not None and len(subjects) != len(picture):
        raise ValueError(
            f"{len(subjects)} subjects of {len(picture)} slices; expected one of each"
        )
    magnitude = (picture.double() - target.double()).abs()
    inside = [slice(None) if mask is None else mask[place] for place in range(len(picture))]
    kept = [place for place in range(len(picture)) if mask is None or bool(mask[place].any())]
    return Errors(
        error=tuple(_flat(magnitude[place][inside[place]]) for place in kept),
        width=tuple(_flat(width[place][inside[place]]) for place in kept),
        subjects=None if subjects is None else tuple(subjects[place] for place in kept),
    )


def together(parts: Sequence[Errors]) -> Errors:
    """Return the errors of several volumes as one.

    Raises:
        ValueError: If subjects are known of some only.
    """
    known = [part.subjects is not None for part in parts]
    if any(known) != all(known):
        raise ValueError(f"subjects known of {sum(known)} of {len(parts)} parts; name all or none")
    return Errors(
        error=tuple(each for part in parts for each in part.error),
        width=tuple(each for part in parts for each in part.width),
        subjects=tuple(name for part in parts for name in part.subjects or ())
        if all(known)
        else None,
    )


def coverage(errors: Errors, level: float, resamples: int = 1000, seed: int = 0) -> Coverage:
    """Return how often intervals hold the truth, how wide they are and whether width tells error.

    Where errors or widths of a slice are all the same, its correlations are 0: the width then says
    nothing about where errors are.

    Args:
        errors: With half-widths of intervals.
        level: What share of pixels they are to hold.
        resamples: Of the bootstrap over units.
        seed: Of the bootstrap.

    Raises:
        ValueError: If there are no errors, or the level isn't between 0 and 1.
    """
    _check(errors, level)
    shares = _shares(errors, 1.0)
    pairs = list(zip(errors.error, errors.width, strict=True))
    widths = [np.concatenate([errors.width[i] for i in unit]).mean() for unit in errors.units]
    return Coverage(
        nominal=level,
        share=float(shares.mean()),
        interval=_interval(shares, resamples, seed),
        width=float(np.mean(widths)),
        pearson=fmean(_correlation(a, b) for a, b in pairs),
        spearman=fmean(_correlation(_ranks(a), _ranks(b)) for a, b in pairs),
        unit=errors.unit,
        n=len(shares),
        pixels=sum(map(len, errors.error)),
    )


def reliability(
    errors: Errors,
    factor: Callable[[float], float],
    levels: Sequence[float] = LEVELS,
    resamples: int = 1000,
    seed: int = 0,
) -> Reliability:
    """Return what share of pixels intervals of several levels hold.

    Args:
        errors: With scales of distributions.
        factor: From a level to half-width over scale: one of `FACTORS` shows what the distribution
            is worth as it is; ``lambda level: calibrate(held_out, level).factor`` after
            calibration.
        levels: Nominal.
        resamples: Of the bootstrap over units.
        seed: Of the bootstrap.

    Raises:
        ValueError: If there are no errors, or a level isn't between 0 and 1.
    """
    found = []
    for level in levels:
        _check(errors, level)
        found.append(_shares(errors, factor(level)))
    shares = [float(each.mean()) for each in found]
    return Reliability(
        levels=tuple(levels),
        shares=tuple(shares),
        intervals=tuple(_interval(each, resamples, seed) for each in found),
        gap=fmean(abs(share - level) for share, level in zip(shares, levels, strict=True)),
    )


def calibrate(errors: Errors, level: float) -> Calibration:
    r"""Return the factor of scales with which intervals hold a share of a new unit's pixels.

    With :math:`F_k(t)` the share of pixels of unit :math:`k` of which :math:`|x - y| / s \le t`,
    it is the least :math:`t` for which

    .. math:: \frac{1}{K + 1} \sum_{k=1}^{K} F_k(t) \ge \text{level}

    the new unit counting as if it held nothing. Of units of a single pixel this is split conformal
    prediction, the :math:`\lceil (K + 1) \, \text{level} \rceil`-th smallest ratio.

    What is guaranteed: if the :math:`K` units and the new one are exchangeable, the expectation of
    the new one's share is the level or more, over draws of all of them, whatever the model and
    however pixels of a unit depend on each other, inside the mask that errors were taken in. It is
    at most :math:`2 / (K + 1)` more where ratios don't tie.
    What isn't: the share given this calibration (it varies as :math:`1 / \sqrt K`), of each unit,
    or of part of the pixels; and nothing where units aren't exchangeable, as slices of a few heads
    and those of a new head: name subjects, or say that heads of the calibration stand for it.

    References:
        Lei et al., "Distribution-Free Predictive Inference for Regression", JASA 113, 2018, for
        errors over a scale; Romano, Patterson and Candès, "Conformalized Quantile Regression",
        NeurIPS 2019; Angelopoulos et al., "Conformal Risk Control", ICLR 2024, of which this is
        the case of the share of pixels missed.

    Args:
        errors: With scales, of slices that no training and no choice of model has seen.
        level: Share of pixels to hold.

    Raises:
        ValueError: If there are fewer units than `fewest` says, a scale is 0, or the level isn't
            between 0 and 1.
    """
    _check(errors, level)
    units = errors.units
    if len(units) < fewest(level):
        raise ValueError(
            f"{len(units)} {errors.unit}s to calibrate on; intervals of {100 * level:g} % need "
            f"{fewest(level)} or more"
        )
    if any((each <= 0).any() for each in errors.width):
        raise ValueError("a scale of 0; expected scales above 0 of all pixels to calibrate on")
    ratios = [error / width for error, width in zip(errors.error, errors.width, strict=True)]
    pooled = [np.concatenate([ratios[place] for place in unit]) for unit in units]
    weights = np.concatenate([np.full(len(each), 1 / len(each)) for each in pooled])
    everything = np.concatenate(pooled)
    order = np.argsort(everything)
    held = np.cumsum(weights[order]) / (len(units) + 1)
    place = int(np.searchsorted(held, level - ROUNDING))
    return Calibration(
        level=level,
        factor=float(everything[order[min(place, len(order) - 1)]]),
        unit=errors.unit,
        n=len(units),
    )


def fewest(level: float) -> int:
    """Return how many units a calibration needs: with fewer, intervals would have to be infinite.

    Example:
        >>> fewest(0.5), fewest(0.9), fewest(0.95)
        (1, 9, 19)
    """
    return math.ceil(level / (1 - level) - ROUNDING)


def threshold(name: str, values: ArrayLike, rate: float) -> Threshold:
    r"""Return what a statistic exceeds in at most a share of scans like those of the calibration.

    It is the :math:`\lceil (1 - \text{rate}) (n + 1) \rceil`-th smallest of the values, so that
    for one more value exchangeable with them the probability to exceed it is the rate at most. A
    scan below it isn't shown to be like them. Of several statistics the rates add up.

    Args:
        name: Of the statistic, such as the residual of data consistency or `relative_width`.
        values: Of scans of the calibration, one each.
        rate: Share of false alarms.

    Raises:
        ValueError: If values aren't finite, or too few for the rate.

    Example:
        >>> threshold("residual", range(1, 20), 0.1).value
        18.0
    """
    sample = np.sort(np.asarray(values, dtype=np.float64).ravel())
    if not 0 < rate < 1 or not np.isfinite(sample).all():
        raise ValueError(f"{name}: rate {rate} of {sample.size} values; expected a rate between 0 "
                         "and 1, and finite values")  # fmt: skip
    place = math.ceil((1 - rate) * (sample.size + 1) - ROUNDING)
    if place > sample.size:
        raise ValueError(
            f"{name}: {sample.size} values; a rate of {rate} needs {fewest(1 - rate)} or more"
        )
    return Threshold(name=name, value=float(sample[place - 1]), rate=rate, n=sample.size)


def relative_width(picture: Pictures, width: Pictures, mask: Mask = None) -> Array:
    """Return the mean width over the mean magnitude of each slice, a statistic to flag scans by.

    It is infinite where a picture is blank and the width isn't, 0 where both are.

    Raises:
        ValueError: If shapes differ, or values aren't finite.
    """
    quality.check(picture, width, mask)
    inside = 1.0 if mask is None else mask.double()
    wide, bright = ((each.abs().double() * inside).sum((1, 2)) for each in (width, picture))
    found = (wide / bright).where(wide > 0, wide)
    return found.detach().cpu().numpy()


def _check(errors: Errors, level: float) -> None:
    if not errors.error:
        raise ValueError("no errors; expected those of one slice or more")
    if not 0 < level < 1:
        raise ValueError(f"level {level}; expected one between 0 and 1")


def _shares(errors: Errors, factor: float) -> Array:
    """Of each unit, the share of pixels that widths times a factor hold."""
    held = [e <= factor * w for e, w in zip(errors.error, errors.width, strict=True)]
    return np.array([np.concatenate([held[i] for i in unit]).mean() for unit in errors.units])


def _interval(shares: Array, resamples: int, seed: int) -> Interval | None:
    if len(shares) < 2:
        return None
    return bootstrap_interval(_mean, shares, resamples=resamples, seed=seed)


def _mean(values: Array, axis: int = -1) -> Any:
    return values.mean(axis)


def _correlation(a: Array, b: Array) -> float:
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        return 0.0
    a, b = a - a.mean(), b - b.mean()
    a, b = a / np.abs(a).max(), b / np.abs(b).max()  # squares of tiny values would vanish
    return float((a * b).sum() / np.sqrt((a * a).sum() * (b * b).sum()))


def _ranks(values: Array) -> Array:
    from scipy.stats import rankdata

    return rankdata(values)


def _flat(values: Tensor) -> Array:
    return values.detach().double().flatten().cpu().numpy()
