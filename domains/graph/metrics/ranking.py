"""Ranking links above non-links: AUC, average precision, ranks among corruptions.

All scores of one ranking are in one float64 array of logits. Probabilities saturate and tie;
positives in one precision and negatives in another give an AUC of 0 or 1 to a model that says
nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.runtime.errors import RunFailed
from core.runtime.statistics import bootstrap_interval

Array = NDArray[np.float64]
Places = NDArray[Any]  # whole numbers; the bootstrap hands them on as floats
MOST_TIED = 0.01


def require_few_ties(scores: Array, what: str) -> None:
    """Refuse scores whose order is left to chance.

    Raises:
        RunFailed: If more than 1 % of the scores equal another one.
    """
    _, counts = np.unique(scores, return_counts=True)
    tied = counts[counts > 1].sum() / max(len(scores), 1)
    if tied > MOST_TIED:
        raise RunFailed(
            f"{what}: {tied:.1%} of {len(scores)} scores are tied; at most {MOST_TIED:.0%} may "
            "be, or AUC and AP are an artefact of rounding; a collapsed model (all latents equal) "
            "or probabilities in place of logits do this"
        )


def area_under_curve(labels: Array, scores: Array) -> float:
    """Return the area under the ROC curve; half of a tie counts.

    Example:
        >>> area_under_curve(np.array([1, 1, 0]), np.array([3.0, 1.0, 2.0]))
        0.5
    """
    return float(Order(labels, scores).area_under_curve())


def average_precision(labels: Array, scores: Array) -> float:
    r"""Return :math:`\sum_k (R_k - R_{k-1}) P_k` over the distinct scores, highest first."""
    return float(Order(labels, scores).average_precision())


class Order:
    """Examples sorted by score once, so that a resample only needs counting.

    The statistics take places in that order, of shape ``(..., resampled)``; none for each once.

    Args:
        labels: 1 for a link, 0 for none.
        scores: One float64 array.
    """

    def __init__(self, labels: Array, scores: Array) -> None:
        if labels.shape != scores.shape:
            raise ValueError(f"labels of shape {labels.shape}, scores of shape {scores.shape}")
        order = np.argsort(scores, kind="stable")
        self.labels = np.asarray(labels, dtype=np.float64)[order]
        ordered = np.asarray(scores, dtype=np.float64)[order]
        self.starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
        self.places: Places = np.arange(len(ordered), dtype=np.int64)

    def _counts(self, given: Places | None) -> tuple[Array, Array]:
        """Links and non-links of each distinct score, lowest first."""
        size = len(self.labels)
        places = self.places if given is None else np.asarray(given, dtype=np.int64)
        rows = places.reshape(-1, places.shape[-1])
        offsets = size * np.arange(len(rows))[:, None]
        drawn = np.bincount((rows + offsets).ravel(), minlength=size * len(rows))
        drawn = drawn.reshape(*places.shape[:-1], size).astype(np.float64)
        links = np.add.reduceat(drawn * self.labels, self.starts, axis=-1)
        return links, np.add.reduceat(drawn, self.starts, axis=-1) - links

    def area_under_curve(self, places: Places | None = None) -> Any:
        """The area under the ROC curve, of each row of resamples."""
        links, others = self._counts(places)
        below = others.cumsum(axis=-1) - others / 2
        pairs = links.sum(-1) * others.sum(-1)
        with np.errstate(invalid="ignore", divide="ignore"):
            return (links * below).sum(-1) / pairs

    def average_precision(self, places: Places | None = None) -> Any:
        """The average precision, of each row of resamples."""
        links, others = (counts[..., ::-1] for counts in self._counts(places))
        found = links.cumsum(-1)
        seen = np.maximum(found + others.cumsum(-1), 1)
        with np.errstate(invalid="ignore", divide="ignore"):
            return (links * found / seen).sum(-1) / links.sum(-1)

    def interval(
        self, statistic: Callable[..., Any], resamples: int, seed: int
    ) -> tuple[float, float]:
        """The bootstrap interval of one of its statistics, e.g. ``order.area_under_curve``."""
        places = self.places.astype(np.float64)

        def of_places(drawn: Places, axis: int = -1) -> Any:
            return statistic(drawn)

        return bootstrap_interval(of_places, places, resamples=resamples, seed=seed)


def mean(values: Array, axis: int = -1) -> Any:
    """Return the mean, of each row of resamples at once."""
    return values.mean(axis=axis)


def ranks(own: Array, corrupted: Array) -> Array:
    """Return the rank of each score among its corruptions, 1 for the best; ties count half.

    Args:
        own: ``(link,)``.
        corrupted: ``(link, corruption)``.
    """
    better = (corrupted > own[:, None]).sum(1)
    equal = (corrupted == own[:, None]).sum(1)
    return 1.0 + better + equal / 2
