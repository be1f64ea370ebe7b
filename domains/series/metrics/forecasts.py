r"""How good predicted distributions of single values are: errors, proper scores, calibration.

There is no percentage error: it is not defined where a value is 0, and it rewards predicting too
little.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from torch import Tensor

from core.variational.diagnostics import central_coverage, probability_integral

Array = NDArray[np.float64]
LEVELS = (0.5, 0.9)
INTERVAL = 0.9  # level of the interval score


def crps(
    draws: Float[Tensor, " sample *value"], observed: Float[Tensor, "*value"], fair: bool = True
) -> Float[Tensor, "*value"]:
    r"""Return the continuous ranked probability score of each value, from draws.

    .. math:: E|X - y| - \tfrac12 E|X - X'| = \int (F(x) - 1[x \ge y])^2 \, dx

    The mean over pairs is exact, by sorting:
    :math:`\sum_{s, s'} |x_s - x_{s'}| = 2 \sum_s (2 s - S - 1) x_{(s)}`, in
    :math:`O(S \log S)`.

    References:
        Gneiting and Raftery, "Strictly Proper Scoring Rules, Prediction, and Estimation", JASA 102
        (2007), 359-378, eq. 20-21; Ferro, "Fair Scores for Ensemble Forecasts", Quarterly Journal
        of the Royal Meteorological Society 140 (2014), 1917-1923.

    Args:
        draws: From the predictive distribution.
        observed: What came, in the same unit as the score.
        fair: Divide the pairs by :math:`S(S-1)` and not :math:`S^2`, which makes the score of few
            draws that of their distribution on average; otherwise it is that of the draws alone.

    Raises:
        ValueError: If a fair score is asked of fewer than two draws.

    Example:
        >>> crps(torch.tensor([0.0, 1.0]), torch.tensor(0.0), fair=False)
        tensor(0.2500)
    """
    return _crps(draws.sort(0).values, observed, fair)


def _crps(ordered: Tensor, observed: Tensor, fair: bool = True) -> Tensor:
    count = len(ordered)
    if fair and count < 2:
        raise ValueError(f"a fair score needs two draws or more, got {count}")
    weight = 2 * torch.arange(1, count + 1, dtype=ordered.dtype, device=ordered.device) - count - 1
    spread = torch.tensordot(weight, ordered, dims=1) / (count * (count - 1 if fair else count))
    return (ordered - observed).abs().mean(0) - spread


def interval_score(
    draws: Float[Tensor, " sample *value"], observed: Float[Tensor, "*value"], level: float
) -> Float[Tensor, "*value"]:
    r"""Return the score of a central interval: its width, and a fine for a value outside.

    .. math:: (u - l) + \frac{2}{\alpha} (l - y)^+ + \frac{2}{\alpha} (y - u)^+, \quad
        \alpha = 1 - \text{level}

    The ends are the :math:`(S + 1) p`-th of the ordered draws, between which one more draw lies
    with just that probability; with fewer than :math:`2 / \alpha - 1` draws, the outermost ones.

    References:
        Gneiting and Raftery (2007), eq. 43.

    Args:
        draws: From the predictive distribution.
        observed: What came.
        level: Of the interval.
    """
    return _interval_score(draws.sort(0).values, observed, level)


def _interval_score(ordered: Tensor, observed: Tensor, level: float) -> Tensor:
    low, high = (_quantile(ordered, tail) for tail in ((1 - level) / 2, (1 + level) / 2))
    outside = (low - observed).clamp(min=0) + (observed - high).clamp(min=0)
    return high - low + 2 / (1 - level) * outside


def _quantile(ordered: Tensor, probability: float) -> Tensor:
    place = min(max(probability * (len(ordered) + 1) - 1, 0), len(ordered) - 1)
    below = int(place)
    return torch.lerp(ordered[below], ordered[min(below + 1, len(ordered) - 1)], place - below)


def coverage(
    draws: Float[Tensor, " sample *value"],
    observed: Float[Tensor, "*value"],
    levels: Sequence[float] = LEVELS,
) -> list[float]:
    """Return the share of values in central predictive intervals, one for each level.

    From ranks with random places between the draws, so that it is exact for few draws too; the
    random numbers come from the stream of the caller.

    Args:
        draws: From the predictive distribution.
        observed: What came.
        levels: Of the intervals, 0 to 1.
    """
    found = central_coverage(probability_integral(draws, observed), levels)
    return [float(share.value) for share in found.observed if share.value is not None]


@dataclass(frozen=True, eq=False)
class Errors:
    """Errors of predicted values, one entry for each that was predicted; values are scaled.

    Args:
        absolute: Of the predictive median.
        squared: Of the predictive mean.
        crps: Fair, from draws.
        interval: Score of the 90 % interval.
        rank: Of the true value among the draws, 0 to 1.
        channel: Which channel.
        window: Which window.
    """

    absolute: Array
    squared: Array
    crps: Array
    interval: Array
    rank: Array
    channel: NDArray[np.int64]
    window: NDArray[np.int64]

    def __len__(self) -> int:
        """Number of predicted values."""
        return len(self.absolute)

    @property
    def mae(self) -> float:
        """Mean absolute error."""
        return float(self.absolute.mean())

    @property
    def rmse(self) -> float:
        """Root of the mean squared error."""
        return float(np.sqrt(self.squared.mean()))

    def covered(self, level: float) -> Array:
        """1 for each value inside the central interval of a level."""
        return (np.abs(2 * self.rank - 1) <= level).astype(np.float64)

    def of_channel(self, channel: int) -> Errors:
        """Return those of one channel."""
        kept = self.channel == channel
        return Errors(*(getattr(self, field.name)[kept] for field in fields(self)))


def joined(parts: Sequence[Errors]) -> Errors:
    """Return those of several batches as one."""
    names = [field.name for field in fields(Errors)]
    return Errors(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


def forecast_errors(
    draws: Float[Tensor, "sample batch time channel"],
    median: Float[Tensor, "batch time channel"],
    mean: Float[Tensor, "batch time channel"],
    observed: Float[Tensor, "batch time channel"],
    targets: Bool[Tensor, "batch time channel"],
    first: int = 0,
) -> Errors:
    """Return the errors of predicted windows.

    Args:
        draws: From the predictive distribution.
        median: The point that the absolute error is taken of.
        mean: The point that the squared error is taken of.
        observed: The truth.
        targets: Which values count.
        first: Number of the first window.
    """
    window, _, channel = targets.nonzero(as_tuple=True)
    drawn, truth = draws[:, targets].double(), observed[targets].double()
    ordered = drawn.sort(0).values
    scores = (
        (median[targets] - truth).abs(),
        (mean[targets] - truth).square(),
        _crps(ordered, truth),
        _interval_score(ordered, truth, INTERVAL),
        probability_integral(drawn, truth),
    )
    places = (channel, window + first)
    return Errors(
        *(score.double().cpu().numpy() for score in scores),
        *(place.cpu().numpy() for place in places),
    )
