"""Windows that cover whole series, and what to take from where they overlap."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from domains.series.data import Dataset, Panel, Windows
from domains.series.data.windows import Rows, gather, rows, step_of

Array = NDArray[np.float64]
Places = NDArray[np.int64]
ItemT = TypeVar("ItemT")
MOST_CELLS = 2**23  # values drawn at once


def firsts(length: int, window: int, stride: int) -> Places:
    """First rows of windows that cover ``length`` rows; the last ends with them.

    Example:
        >>> firsts(10, 4, 4).tolist(), firsts(3, 4, 2).tolist()
        ([0, 4, 6], [0])
    """
    last = max(0, length - window)
    return np.array([*range(0, last, stride), last], dtype=np.int64)


def most_central(first: Places, length: int, window: int) -> Places:
    """For each row the place of the window that has most rows around it, the first of equals.

    Example:
        >>> most_central(np.array([0, 2]), length=6, window=4).tolist()
        [0, 0, 0, 1, 1, 1]
    """
    inside = np.arange(length)[:, None] - first
    margin = np.minimum(inside, window - 1 - inside)
    return margin.argmax(1)


def table(dataset: Dataset, panel: Panel) -> Rows:
    """The rows of a panel, scaled and timed as the run's are."""
    return rows(panel, None, dataset.scaler, step_of(dataset, panel))


def all_seen(given: Rows, starts: Places, window: int) -> Windows:
    """Windows of which a model may see every known value.

    Args:
        given: The rows of a panel.
        starts: Series and first row of each window.
        window: Rows of a window.
    """
    return gather(given, starts, window, seen=given.known, targets=given.known)


def windows_of(values: Array, times: Array) -> Windows:
    """Windows of scaled values, of which every known one is seen; NaN is unknown.

    Args:
        values: Of shape ``(batch, time, channel)``.
        times: Of shape ``(batch, time)``, in steps.
    """
    known = torch.from_numpy(~np.isnan(values))
    return Windows(
        values=torch.from_numpy(np.nan_to_num(values)).float(),
        known=known,
        seen=known,
        targets=known,
        times=torch.from_numpy(np.round(times - times[:, :1], 6)).float(),
        present=torch.ones(times.shape, dtype=torch.bool),
        origin=torch.full((len(values), 2), -1),
    )


def chunks(windows: Sequence[ItemT], cells: int) -> Iterator[Sequence[ItemT]]:
    """Parts of a list of windows, each of which takes ``cells`` values of memory."""
    count = max(1, MOST_CELLS // cells)
    for first in range(0, len(windows), count):
        yield windows[first : first + count]
