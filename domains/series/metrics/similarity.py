"""How alike real and generated windows are, without a judge: marginals, dependence, neighbours."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

Array = NDArray[np.float64]
BINS = 50
QUERIES = 2000  # windows whose nearest neighbour is looked for, spread evenly
DISTANCES_AT_A_TIME = 2**24


def correlational_score(
    real: Float[np.ndarray, "real time channel"],
    generated: Float[np.ndarray, "generated time channel"],
) -> float:
    r"""Return how far the correlations between channels differ, as the field's tables do.

    .. math:: \frac{1}{10} \sum_{i \ge j} |\rho_{ij} - \hat\rho_{ij}|

    of the correlations at one time over all windows and times. It grows with the number of pairs
    of channels: compare it on one data set only. A constant channel correlates with none.

    References:
        Ni et al., "Conditional Sig-Wasserstein GANs for Time Series Generation", 2020
        (arXiv:2006.05421); divided by 10 by Yuan and Qiao, "Diffusion-TS", ICLR 2024.

    Args:
        real: Windows.
        generated: Windows.

    Example:
        >>> one = np.random.default_rng(0).random((5, 4, 2))
        >>> correlational_score(one, one)
        0.0
    """
    difference = np.abs(_correlations(real) - _correlations(generated))
    return float(np.tril(difference).sum() / 10)


def _correlations(windows: Array) -> Array:
    flat = _standardised(windows).reshape(-1, windows.shape[2])
    return flat.T @ flat / len(flat)


def _standardised(windows: Array) -> Array:
    """Mean 0 and deviation 1 over windows and times; 0 for a constant channel."""
    centred = windows - windows.mean((0, 1))
    deviation = centred.std((0, 1))
    small = deviation <= 1e-12 * np.abs(windows).max((0, 1))
    return np.where(small, 0, centred / np.where(small, 1, deviation))


def marginal_distance(
    real: Float[np.ndarray, "real time channel"],
    generated: Float[np.ndarray, "generated time channel"],
    bins: int = BINS,
) -> float:
    r"""Return how far the histograms of each time and channel differ, 0 to 1.

    .. math:: \frac{1}{T D} \sum_{t, j} \frac12 \sum_b |p_{tjb} - \hat p_{tjb}|

    the total variation of the histograms, ``bins / 2`` times their mean absolute difference. The
    bins are equally wide over the real range of a time and channel; values outside are in the
    outermost.

    References:
        The marginal distribution difference of Ang et al., "TSGBench", VLDB 2024, which divides by
        the width of the bins and so depends on the unit.

    Args:
        real: Windows.
        generated: Windows.
        bins: Of each histogram.
    """
    low, high = real.min(0), real.max(0)
    width = np.where(high > low, high - low, 1.0) / bins
    shares = [_histograms((windows - low) / width, bins) for windows in (real, generated)]
    return float(np.abs(shares[0] - shares[1]).sum(2).mean() / 2)


def _histograms(places: Array, bins: int) -> Float[np.ndarray, "time channel bin"]:
    """Share of each bin; places are counted in bins from the lower end."""
    count, *shape = places.shape
    cells = np.prod(shape)
    bin_of = np.clip(places, 0, bins - 1).astype(np.int64).reshape(count, cells)
    flat = (bin_of + bins * np.arange(cells)).ravel()
    return np.bincount(flat, minlength=bins * cells).reshape(*shape, bins) / count


def wasserstein_distances(
    real: Float[np.ndarray, "real time channel"],
    generated: Float[np.ndarray, "generated time channel"],
) -> Float[np.ndarray, " channel"]:
    r"""Return the Wasserstein-1 distance of each channel's values, pooled over times.

    .. math:: \int |F(x) - \hat F(x)| \, dx

    Args:
        real: Windows.
        generated: Windows.

    Returns:
        In the unit of the windows.

    Example:
        >>> wasserstein_distances(np.zeros((3, 2, 1)), np.full((5, 2, 1), 0.25))
        array([0.25])
    """
    pairs = zip(_channels(real), _channels(generated), strict=True)
    return np.array([_wasserstein(np.sort(a), np.sort(b)) for a, b in pairs])


def _channels(windows: Array) -> Iterator[Array]:
    yield from windows.reshape(-1, windows.shape[2]).T


def _wasserstein(a: Array, b: Array) -> float:
    """Of sorted values."""
    both = np.sort(np.concatenate([a, b]))
    below = [np.searchsorted(each, both[:-1], side="right") / len(each) for each in (a, b)]
    return float((np.abs(below[0] - below[1]) * np.diff(both)).sum())


def autocorrelation_distance(
    real: Float[np.ndarray, "real time channel"],
    generated: Float[np.ndarray, "generated time channel"],
) -> float:
    r"""Return the mean difference of the autocorrelations over channels and lags, 0 to 2.

    .. math:: \frac{1}{D (T - 1)} \sum_{j, k \ge 1} |\rho_{jk} - \hat\rho_{jk}|

    of the autocorrelation over all windows, mean and variance being those of the channel over all
    windows and times.

    Args:
        real: Windows.
        generated: Windows.
    """
    return float(np.abs(autocorrelations(real) - autocorrelations(generated))[1:].mean())


def autocorrelations(windows: Float[np.ndarray, "window time channel"]) -> Array:
    """Return the autocorrelation of each channel at all lags from 0, ``(lag, channel)``.

    Products are averaged over the windows and the ``time - lag`` pairs of a window, by the fast
    Fourier transform.
    """
    length = windows.shape[1]
    power: Array = np.zeros((length + 1, windows.shape[2]))
    standardised = _standardised(windows)
    rows = max(1, DISTANCES_AT_A_TIME // standardised[0].size)
    for start in range(0, len(windows), rows):
        spectrum = np.fft.rfft(standardised[start : start + rows], 2 * length, axis=1)
        power += (spectrum.real**2 + spectrum.imag**2).sum(0)
    products = np.fft.irfft(power, axis=0)[:length]
    return products / (len(windows) * (length - np.arange(length)))[:, None]


@dataclass(frozen=True)
class Neighbours:
    """How near generated windows are to real ones; distances are Euclidean over a whole window.

    Args:
        real: Median distance of a real window to the nearest other one.
        generated: Median distance of a generated window to the nearest real one.
        closer: Share of the generated windows that are closer to a real one than that is to any
            other real one.
        n: Generated windows that were looked at.
    """

    real: float
    generated: float
    closer: float
    n: int

    @property
    def ratio(self) -> float:
        """Distance generated–real over real–real; well below 1 the training set is copied."""
        return self.generated / self.real if self.real > 0 else float("nan")


def memorisation(
    real: Float[np.ndarray, "real time channel"],
    generated: Float[np.ndarray, "generated time channel"],
) -> float:
    """Return the ratio of nearest-neighbour distances; see `neighbours`."""
    return neighbours(real, generated).ratio


def neighbours(
    real: Float[np.ndarray, "real time channel"],
    generated: Float[np.ndarray, "generated time channel"],
) -> Neighbours:
    """Find the nearest real window of generated and of real windows, by trying all.

    Of more than 2,000 generated or real windows so many, spread evenly, are looked at, each among
    all real ones. Give the windows that the model was trained on, each channel in units of its
    range.

    Args:
        real: Windows.
        generated: Windows.

    Raises:
        ValueError: If there are fewer than two real windows or none generated.
    """
    if len(real) < 2 or not len(generated):
        raise ValueError(
            f"{len(real)} real and {len(generated)} generated windows; 2 and 1 needed"
        )
    pool, queries = (
        torch.from_numpy(each.astype(np.float64)).flatten(1)
        for each in (real, generated[_spread(len(generated))])
    )
    place_of, to_real = nearest(queries, pool)
    own = torch.from_numpy(_spread(len(real)))
    _, between = nearest(pool[own], pool, own)
    matched, place = place_of.unique(return_inverse=True)
    _, own_distance = nearest(pool[matched], pool, matched)
    closer = to_real < own_distance[place]
    return Neighbours(
        float(between.median()),
        float(to_real.median()),
        float(closer.double().mean()),
        len(queries),
    )


def _spread(count: int) -> NDArray[np.int64]:
    return np.unique(np.linspace(0, count - 1, min(count, QUERIES)).round().astype(np.int64))


def nearest(
    queries: Float[Tensor, "query value"],
    pool: Float[Tensor, "real value"],
    own: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    r"""Place and distance of the nearest window of the pool, other than ``own``.

    Found in single precision by :math:`|b|^2 - 2 a \cdot b` of centred windows; the distance is
    then taken in double, as it is lost in rounding where a window is nearly copied.
    """
    centre = pool.mean(0)
    single = (pool - centre).float()
    half_norms = single.square().sum(1) / 2
    size = max(1, DISTANCES_AT_A_TIME // len(pool))
    places = []
    for start in range(0, len(queries), size):
        part = (queries[start : start + size] - centre).float()
        score = torch.addmm(half_norms, part, single.T, alpha=-1)
        if own is not None:
            score.scatter_(1, own[start : start + size, None], float("inf"))
        places.append(score.argmin(1))
    place = torch.cat(places)
    return place, (queries - pool[place]).square().sum(1).sqrt()
