"""Intervals around a number: bootstrap over examples, paired bootstrap, Student's t over seeds."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]
Interval = tuple[float, float]

JACKKNIFE_GROUPS = 200
BLOCK_ELEMENTS = 4_000_000
MOST_UNDEFINED = 0.05
_NORMAL = NormalDist()


def bootstrap_interval(
    statistic: Callable[..., float],
    *arrays: ArrayLike,
    resamples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    r"""Return the bias-corrected and accelerated (BCa) bootstrap interval of a statistic.

    Examples are drawn with replacement, the same ones from every array. With bias :math:`z_0` from
    the share of resamples below the estimate and acceleration :math:`a` of the jackknife, the ends
    are the quantiles of the resamples at

    .. math:: \Phi\!\left(z_0 + \frac{z_0 + z_\alpha}{1 - a (z_0 + z_\alpha)}\right)

    which is second-order accurate and stays inside a bounded range, unlike a normal interval. From
    201 examples on the jackknife leaves out groups (every 200th example), not single examples.

    References:
        Efron, "Better Bootstrap Confidence Intervals", JASA 82 (1987), 171-185.

    Args:
        statistic: Function of the arrays. One with a parameter ``axis`` is called with
            ``axis=-1`` on blocks of resamples, which is much faster.
        arrays: One value per example along the first dimension.
        resamples: Number of bootstrap samples.
        seed: Of the resamples.
        level: Probability that the interval covers the truth.

    Raises:
        ValueError: If the arrays are empty or unequal in length, or the statistic is undefined.
    """
    data = _aligned(arrays)
    estimate = float(statistic(*data))
    if not math.isfinite(estimate):
        raise ValueError(f"the statistic of {len(data[0])} examples is {estimate}")
    values = _resampled(statistic, data, resamples, seed)
    tails = ((1 - level) / 2, (1 + level) / 2)
    low, high = np.quantile(values, _corrected(tails, values, estimate, statistic, data))
    return float(low), float(high)


def difference_interval(
    statistic: Callable[..., float],
    a: Sequence[ArrayLike],
    b: Sequence[ArrayLike],
    resamples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """Return the paired bootstrap interval of ``statistic(*b) - statistic(*a)``.

    Both sides hold the same examples in the same order and every resample takes the same ones from
    both, so that what makes an example hard for both models cancels.

    Args:
        statistic: As in `bootstrap_interval`.
        a: Arrays of the one model.
        b: Arrays of the other.
        resamples: Number of bootstrap samples.
        seed: Of the resamples.
        level: Probability that the interval covers the truth.
    """

    def difference(*both: Array) -> float:
        return statistic(*both[len(a) :]) - statistic(*both[: len(a)])

    def difference_along(*both: Array, axis: int = -1) -> Any:
        return statistic(*both[len(a) :], axis=axis) - statistic(*both[: len(a)], axis=axis)

    chosen = difference_along if _takes_axis(statistic) else difference
    return bootstrap_interval(chosen, *a, *b, resamples=resamples, seed=seed, level=level)


def t_interval(values: ArrayLike, level: float = 0.95) -> Interval:
    r"""Return Student's interval of the mean of a few independent values, such as one per seed.

    .. math:: \bar x \pm t_{n-1} \, s / \sqrt n

    Raises:
        ValueError: If there are fewer than two values.

    Example:
        >>> [round(end, 3) for end in t_interval([1.0, 2.0, 3.0])]
        [-0.484, 4.484]
    """
    sample = np.asarray(values, dtype=np.float64).ravel()
    if sample.size < 2:
        raise ValueError(f"an interval needs two values or more, got {sample.size}")
    half = (
        t_quantile((1 + level) / 2, sample.size - 1) * sample.std(ddof=1) / math.sqrt(sample.size)
    )
    return float(sample.mean() - half), float(sample.mean() + half)


def t_quantile(probability: float, degrees: int) -> float:
    """Return the quantile of Student's t for whole degrees of freedom, by bisection of its CDF.

    References:
        Abramowitz and Stegun, Handbook of Mathematical Functions, 26.7.3 and 26.7.4.
    """
    if probability < 0.5:
        return -t_quantile(1 - probability, degrees)
    low, high = 0.0, math.pi / 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if _t_cdf(middle, degrees) > probability else (middle, high)
    return math.tan(low) * math.sqrt(degrees)


def _t_cdf(angle: float, degrees: int) -> float:
    """The CDF of t at ``tan(angle) * sqrt(degrees)``, a finite series in the cosine."""
    sine, cosine = math.sin(angle), math.cos(angle)
    odd = degrees % 2
    term, total = (cosine, 0.0) if odd else (1.0, 0.0)
    for power in range(odd, degrees - 1, 2):
        total += term
        term *= cosine**2 * (power + 1) / (power + 2)
    within = (angle + sine * total) * 2 / math.pi if odd else sine * total
    return 0.5 + within / 2


def _aligned(arrays: Sequence[ArrayLike]) -> list[Array]:
    data = [np.asarray(array) for array in arrays]
    lengths = {array.shape[0] if array.ndim else 0 for array in data}
    if len(lengths) != 1 or lengths == {0}:
        raise ValueError(f"expected arrays of one length above 0, got lengths {sorted(lengths)}")
    return data


def _takes_axis(statistic: Callable[..., float]) -> bool:
    return "axis" in inspect.signature(statistic).parameters


def _resampled(
    statistic: Callable[..., float], data: list[Array], resamples: int, seed: int
) -> Array:
    """The statistic of every resample that defines it."""
    examples = data[0].shape[0]
    generator = np.random.default_rng(seed)
    vectorised = _takes_axis(statistic) and all(array.ndim == 1 for array in data)
    rows = max(1, BLOCK_ELEMENTS // examples)
    values = []
    for start in range(0, resamples, rows):
        chosen = generator.integers(examples, size=(min(rows, resamples - start), examples))
        if vectorised:
            values.append(np.asarray(statistic(*(array[chosen] for array in data), axis=-1)))
        else:
            values.append(np.array([statistic(*(array[row] for array in data)) for row in chosen]))
    everything = np.concatenate(values).astype(np.float64)
    defined = everything[np.isfinite(everything)]
    if defined.size < (1 - MOST_UNDEFINED) * resamples:
        undefined = resamples - defined.size
        raise ValueError(f"the statistic is undefined in {undefined} of {resamples} resamples")
    return defined


def _corrected(
    tails: Interval,
    values: Array,
    estimate: float,
    statistic: Callable[..., float],
    data: list[Array],
) -> Interval:
    """Move the tail probabilities by bias and acceleration, where these are defined."""
    below = float(np.mean(values < estimate) + np.mean(values == estimate) / 2)
    if not 0 < below < 1:
        return tails
    bias, acceleration = _NORMAL.inv_cdf(below), _acceleration(statistic, data)
    moved = []
    for tail in tails:
        shift = bias + _NORMAL.inv_cdf(tail)
        scale = 1 - acceleration * shift
        if scale <= 0:
            return tails
        moved.append(_NORMAL.cdf(bias + shift / scale))
    return moved[0], moved[1]


def _acceleration(statistic: Callable[..., float], data: list[Array]) -> float:
    """A sixth of the skewness of the jackknife."""
    examples = data[0].shape[0]
    if examples < 2:
        return 0.0
    groups = min(examples, JACKKNIFE_GROUPS)
    group = np.arange(examples) % groups
    left = (group != index for index in range(groups))
    values = np.array([float(statistic(*(array[kept] for array in data))) for kept in left])
    if not np.isfinite(values).all():
        return 0.0
    deviation = values.mean() - values
    spread = float((deviation**2).sum()) ** 1.5
    return float((deviation**3).sum()) / (6 * spread) if spread > 0 else 0.0
