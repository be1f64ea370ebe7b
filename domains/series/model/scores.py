"""How surprising each row of a series is to a model: scores to find anomalies by."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from domains.series.data import Dataset, Panel, Windows
from domains.series.data.records import Array
from domains.series.data.windows import Rows, gather, rows, step_of
from domains.series.model.base import SeriesModel
from domains.series.model.structured import StructuredKoopmanVAE

Task = Literal["generate", "impute", "forecast"]
PARTS = 8  # of a window, of which one is judged by the rest
AT_ONCE = 2_000_000  # numbers drawn at once


@torch.no_grad()
def row_scores(
    model: SeriesModel,
    dataset: Dataset,
    panel: Panel,
    task: Task = "impute",
    horizon: int = 1,
    samples: int = 16,
) -> list[Array]:
    r"""Score each row by its surprise in nats, the sum over its channels.

    A structured model that filters row by row scores by :math:`-\log p(x_t \mid x_{<t})` of the
    whole series, exactly if it is a linear dynamical system: the channels jointly, at a cost
    linear in the length. Any other is shown windows around the row, and scores
    :math:`-\sum_j \log p(x_{tj} \mid \text{seen})` where what it sees is what its task is about:

    * ``generate``: the whole window, the row included (An and Cho's reconstruction probability);
    * ``impute``: the window without an eighth in its middle that holds the row;
    * ``forecast``: the rows before, as many as a window has.

    References:
        An and Cho, "Variational Autoencoder based Anomaly Detection using Reconstruction
        Probability", SNU Data Mining Center, 2015-2 Special Lecture on IE, 2015.

    Args:
        model: In evaluation mode.
        dataset: What it was trained on.
        panel: Series of the same channels.
        task: What the model was trained for.
        horizon: Rows that a task of forecasting explains.
        samples: Posterior draws behind each density.

    Returns:
        Of each series, ``(time,)``; NaN where a row has no value.
    """
    given = rows(panel, None, dataset.scaler, step_of(dataset, panel))
    if isinstance(model, StructuredKoopmanVAE) and model.filters:
        return [_ahead(model, given, place, samples) for place in range(len(panel.series))]
    layout = _Layout.of(task, dataset.window, horizon)
    return [_hidden(model, given, place, layout, samples) for place in range(len(panel.series))]


def _ahead(model: StructuredKoopmanVAE, given: Rows, series: int, samples: int) -> Array:
    length = int(given.first[series + 1] - given.first[series])
    whole = gather(given, np.array([[series, 0]]), length, given.known, given.known)
    surprise = model.surprise_ahead(whole, samples)[0]
    return _nan_without(surprise, whole.known[0].any(-1))


def _nan_without(surprise: Tensor, known: Tensor) -> Array:
    return torch.where(known, surprise.double(), torch.nan).numpy()


@dataclass(frozen=True)
class _Layout:
    """Where in a window the rows that it judges are, and whether the model sees them."""

    window: int
    first: int
    rows: int
    seen: bool

    @classmethod
    def of(cls, task: Task, window: int, horizon: int) -> _Layout:
        """Return the layout of a task."""
        if task == "forecast":
            return cls(window, window - horizon, horizon, seen=False)
        rows = max(window // PARTS, 1)
        return cls(window, (window - rows) // 2, rows, seen=task == "generate")


def _hidden(model: SeriesModel, given: Rows, series: int, layout: _Layout, samples: int) -> Array:
    """Judge one series part by part, each in the window that holds it where the layout says."""
    length = int(given.first[series + 1] - given.first[series])
    score = np.full(length, np.nan)
    starts = np.arange(0, length, layout.rows)
    channels = given.values.shape[1]
    count = max(AT_ONCE // (layout.window * channels * samples), 1)
    for chunk in np.split(starts, range(count, len(starts), count)):
        last = max(length - layout.window, 0)
        origin = np.clip(chunk - layout.first, 0, last)
        windows, judged = _judging(given, series, origin, chunk, layout)
        surprise = torch.where(windows.known, model.surprise(windows, samples), 0.0).sum(-1)
        known = windows.known.any(-1) & judged
        rows_ = torch.from_numpy(origin)[:, None] + torch.arange(layout.window)
        score[rows_[known].numpy()] = surprise[known].double().numpy()
    return score


def _judging(
    given: Rows, series: int, origin: NDArray[np.int64], parts: NDArray[np.int64], layout: _Layout
) -> tuple[Windows, Tensor]:
    """Return windows from these first rows, and which of their rows they judge."""
    starts = np.stack([np.full_like(origin, series), origin], axis=1)
    windows = gather(given, starts, layout.window, given.known, given.known)
    row = torch.from_numpy(origin)[:, None] + torch.arange(layout.window)
    part = torch.from_numpy(parts)[:, None]
    judged = (row >= part) & (row < part + layout.rows) & windows.present
    if layout.seen:
        return windows, judged
    return windows.seeing(windows.known & ~judged[:, :, None]), judged
