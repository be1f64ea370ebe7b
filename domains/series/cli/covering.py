"""Windows that cover whole series, a part of them at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray

from domains.series.data import Dataset, Panel, Windows
from domains.series.data.unseen import covering, most_central
from domains.series.data.windows import Rows, gather, rows, step_of

Array = NDArray[np.float64]
Places = NDArray[np.int64]
MOST_CELLS = 2**23  # values drawn at once


@dataclass(frozen=True, eq=False)
class Covered:
    """Windows that cover all rows of a panel; rows are counted through all series.

    Args:
        dataset: Of the run.
        panel: Series of its channels.
        stride: Rows between the starts of two windows, at most.
    """

    dataset: Dataset
    panel: Panel
    stride: int

    @cached_property
    def lengths(self) -> list[int]:
        """Rows of each series."""
        return [len(one.times) for one in self.panel.series]

    @cached_property
    def ends(self) -> Places:
        """Where one series ends and the next begins."""
        return np.cumsum(self.lengths)[:-1]

    @cached_property
    def starts(self) -> Places:
        """Series and first row of each window, ``(window, 2)``."""
        return covering(self.lengths, self.dataset.window, self.stride)

    @cached_property
    def owners(self) -> Places:
        """Of each row the window with most rows around it and its place there, ``(row, 2)``."""
        return np.concatenate(most_central(self.starts, self.lengths, self.dataset.window))

    def windows(self, numbers: Places) -> Windows:
        """Some of the windows, of which every known value is seen."""
        known = self._rows.known
        return gather(self._rows, self.starts[numbers], self.dataset.window, known, known)

    def rows(self, numbers: Places) -> Places:
        """The rows that they hold, ``(window, time)``; padding repeats the last of a series."""
        return self._rows.index(self.starts[numbers], self.dataset.window)[0]

    @cached_property
    def _rows(self) -> Rows:
        step = step_of(self.dataset, self.panel)
        return rows(self.panel, None, self.dataset.scaler, step)

    def split(self, values: np.ndarray, axis: int = 0) -> list[np.ndarray]:
        """Part values of all rows by series."""
        return np.split(values, self.ends, axis=axis)


def windows_of(values: Array, times: Array, origin: Places) -> Windows:
    """Windows of scaled values, of which every known one is seen; NaN is unknown.

    Args:
        values: Of shape ``(batch, time, channel)``.
        times: Of shape ``(batch, time)``, in steps.
        origin: Series and first row of each window.
    """
    known = torch.from_numpy(~np.isnan(values))
    return Windows(
        values=torch.from_numpy(np.nan_to_num(values)).float(),
        known=known,
        seen=known,
        targets=known,
        times=torch.from_numpy(np.round(times - times[:, :1], 6)).float(),
        present=torch.ones(times.shape, dtype=torch.bool),
        origin=torch.from_numpy(origin),
    )


def chunks(windows: Places, cells: int) -> Iterator[Places]:
    """Parts of numbers of windows, each of which takes ``cells`` values of memory."""
    count = max(1, MOST_CELLS // cells)
    for first in range(0, len(windows), count):
        yield windows[first : first + count]
