"""How many rows a season has, if there is one."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from domains.series.data.records import Array

PERIODS = 4  # that a series must hold for its season to be told
DEVIATIONS = 4.0  # above what chance gives
SMALLEST = 0.1  # difference of correlation, however long the series
MULTIPLES = 8  # of a season at which it is looked at to find its length
ROUNDING = 1e-12  # of a channel's variance: what is left of a straight line


def season(values: Array) -> int:
    r"""Find the season in the autocorrelation of a series; 0 if there is none.

    A season of :math:`L` rows shows as a peak at :math:`L` above the correlations at
    :math:`L/2` and :math:`3L/2`, and again at :math:`2L`. Chance makes such peaks too, the higher
    the longer the memory of the series, so it must exceed four standard deviations by Bartlett's
    formula, with the correlations before :math:`L/2` as that memory. Of several seasons it is the
    one with the highest peak, the shortest of equals. Straight lines are taken out first. Of
    several channels at least a quarter must agree, up to a row or 2 %.

    References:
        Bartlett, "On the theoretical specification and sampling properties of autocorrelated
        time-series", Supplement to the Journal of the Royal Statistical Society 8, 1946.

    Args:
        values: Of shape ``(time, channel)``, NaN where not known.

    Returns:
        Rows in a season, at most a quarter of the series.

    Example:
        >>> season(np.sin(2 * np.pi * np.arange(200) / 12)[:, None])
        12
    """
    longest = len(values) // PERIODS
    if longest < 2:
        return 0
    correlations = [autocorrelation(column, 5 * longest // 2 + 1) for column in values.T]
    varying = [found for found in correlations if found is not None]
    lags = np.array([_peak(found, len(values)) for found in varying], dtype=np.int64)
    return _agreed(lags[lags > 0], len(lags) / 4)


def _agreed(lags: NDArray[np.int64], least: float) -> int:
    """Return the lag that most agree on, 0 if they are fewer than ``least``."""
    if not len(lags):
        return 0
    votes = (np.abs(lags[:, None] - lags) <= np.maximum(1, 0.02 * lags)).sum(axis=0)
    counts = np.bincount(lags[votes == votes.max()])
    return int(counts.argmax()) if votes.max() >= least else 0


def _peak(correlation: Array, count: int) -> int:
    """Return the season that the autocorrelation of so many rows shows, 0 for none."""
    lags = np.arange(2, count // PERIODS + 1)
    memory = 1 + 2 * np.cumsum(correlation**2)[lags // 2]
    least = np.maximum(SMALLEST, DEVIATIONS * np.sqrt(memory / count))
    here = correlation[lags]
    peak = (here > correlation[lags - 1]) & (here >= correlation[lags + 1])
    rise, again = _rise(correlation, lags, lags), _rise(correlation, 2 * lags, lags)
    found = peak & (rise > least) & (again > least)
    if not found.any():
        return 0
    high = here[found] >= here[found].max() - 0.1 * rise[found].max()
    return _refined(correlation, int(lags[found][high][0]))


def autocorrelation(column: Array, most: int) -> Array | None:
    """Return the autocorrelation of a channel at 0 to ``most`` rows, over its gaps.

    A straight line is taken out first.

    Args:
        column: NaN where not known.
        most: Largest lag.

    Returns:
        Of shape ``(most + 1,)``; None if nothing is left beside the line.
    """
    known = np.isfinite(column)
    if known.sum() < 3:
        return None
    scale = np.abs(column[known]).max() or 1.0  # squares of wild values stay finite
    time = np.linspace(-1, 1, len(column))
    line = np.polyfit(time[known], column[known] / scale, 1)
    left = np.where(known, column / scale - np.polyval(line, time), 0)
    variance = (left**2).sum() / known.sum()
    if variance <= ROUNDING:
        return None
    pairs = np.maximum(np.rint(_products(known.astype(np.float64), most)), 1)
    return _products(left, most) / pairs / variance


def _products(values: Array, most: int) -> Array:
    """Return the sums of products of values 0 to ``most`` rows apart, by Fourier transform."""
    size = 1 << (len(values) + most).bit_length()
    power = np.abs(np.fft.rfft(values, size)) ** 2
    return np.fft.irfft(power, size)[: most + 1]


def _rise(correlation: Array, lags: NDArray[np.int64], period: NDArray[np.int64]) -> Array:
    """Say how far a correlation lies above those half a period before and after."""
    places = np.arange(len(correlation))
    before, after = (np.interp(lags + side * period / 2, places, correlation) for side in (-1, 1))
    return correlation[lags] - (before + after) / 2


def _refined(correlation: Array, lag: int) -> int:
    """Return the lag near a peak at whose multiples the correlation is highest.

    A season that is one row wrong has drifted by a few rows after some periods.
    """
    near = np.arange(-(-4 * lag // 5), 5 * lag // 4 + 1)
    count = min(MULTIPLES, (len(correlation) - 1) // near[-1])
    heights = correlation[np.arange(1, count + 1)[:, None] * near].mean(axis=0)
    return int(near[heights.argmax()])
