"""How well surprise finds labelled anomalies.

There is no point-adjusted F1: it counts a whole labelled stretch as found if one of its rows is,
so that random scores beat published detectors (Kim et al., "Towards a Rigorous Evaluation of
Time-Series Anomaly Detection", AAAI 2022, arXiv:2109.05257).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from torch import Tensor

from domains.series.data import Windows

Array = NDArray[np.float64]
Labels = NDArray[Any]
SLACK = 100  # rows, of the UCR archive
FOLDS = 4  # parts of a window; a model that imputes judges each by the others


def average_precision(labels: Labels, scores: Array) -> float:
    r"""Return the area under the precision-recall curve (AUC-PR), as a sum of steps.

    .. math:: \sum_k (R_k - R_{k-1}) P_k

    over the distinct scores, highest first. The share of anomalies is what random scores get.

    Args:
        labels: 1 for an anomaly, 0 for none.
        scores: The higher, the more anomalous.

    Raises:
        ValueError: If the labels are not 0 and 1, or none is 1.

    Example:
        >>> average_precision(np.array([0, 1, 0]), np.array([0.1, 0.9, 0.5]))
        1.0
    """
    truth = np.asarray(labels, dtype=np.float64)
    if truth.shape != scores.shape or not np.isin(truth, (0, 1)).all() or not truth.any():
        raise ValueError(
            f"average precision: labels of shape {truth.shape}, scores of {scores.shape}; labels "
            "come first, are 0 or 1, and one at least is 1"
        )
    order = np.argsort(-scores, kind="stable")
    ordered, found = scores[order], truth[order].cumsum()
    last = np.flatnonzero(np.append(ordered[1:] != ordered[:-1], True))
    precision, recall = found[last] / (last + 1), found[last] / found[-1]
    return float((np.diff(recall, prepend=0) * precision).sum())


def hit(labels: Labels, scores: Array, slack: int = SLACK) -> bool:
    """Return whether the highest score is in a labelled stretch or at most ``slack`` rows off.

    References:
        Wu and Keogh, "Current Time Series Anomaly Detection Benchmarks are Flawed and are Creating
        the Illusion of Progress", IEEE TKDE 35 (2023), 2421-2429 (arXiv:2009.13807).

    Args:
        labels: 1 for an anomaly, 0 for none; the rows of one series.
        scores: NaN for a row without one.
        slack: In rows.

    Raises:
        ValueError: If nothing is labelled.

    Example:
        >>> hit(np.array([0, 0, 1, 0]), np.array([5.0, 1, 2, 3]), slack=2)
        True
    """
    anomalous = np.flatnonzero(labels)
    if not len(anomalous):
        raise ValueError("a hit needs a labelled row, there is none")
    return bool(np.abs(anomalous - np.nanargmax(scores)).min() <= slack)


def row_scores(
    surprise: Float[np.ndarray, "window time channel"],
    judged: Bool[np.ndarray, "window time channel"],
    rows: NDArray[np.int64],
    count: int,
) -> Float[np.ndarray, " row"]:
    """Return the surprise of each row, mean over its values, each the mean over its windows.

    Args:
        surprise: Of values, in nats.
        judged: Which count.
        rows: First row of each window.
        count: Rows of the series.

    Returns:
        NaN for a row of which no value was judged.
    """
    _, length, channels = surprise.shape
    places = (rows[:, None] + np.arange(length))[:, :, None] * channels + np.arange(channels)
    places, size = places[judged], count * channels
    total = np.bincount(places, weights=surprise[judged], minlength=size).reshape(count, channels)
    times = np.bincount(places, minlength=size).reshape(count, channels)
    value = np.divide(total, times, out=np.zeros_like(total), where=times > 0)
    known = (times > 0).sum(1)
    return np.where(known > 0, value.sum(1) / np.maximum(known, 1), np.nan)


def judged_by_the_rest(
    batch: Windows, task: str, horizon: int = 0
) -> Iterator[tuple[Windows, Bool[Tensor, "batch time channel"]]]:
    """Pair windows that a model may see with the values it is to judge by them.

    What is seen is what the task trained for: ``generate`` judges a window of which all is seen
    (the reconstruction probability of An and Cho, 2015), ``impute`` each quarter by the other
    three, ``forecast`` the last rows by those before.

    Args:
        batch: Windows.
        task: Kind of the task.
        horizon: Of a forecast.
    """
    length = batch.values.shape[1]
    rows = torch.arange(length, device=batch.values.device)
    if task == "generate":
        yield batch.seeing(batch.known), batch.known
        return
    size = -(-length // FOLDS)
    folds = rows // size if task == "impute" else (rows < length - horizon).long()
    for fold in range(int(folds.max()) + 1 if task == "impute" else 1):
        hidden = (folds == fold)[None, :, None] & batch.known
        yield batch.seeing(~hidden), hidden
