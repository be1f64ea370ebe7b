"""Cutting rows into windows, and gathering windows from rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from domains.series.data.records import Array, Dataset, Mask, Panel, Scaler, Windows
from domains.series.data.splits import Stretches

EVEN, SAME = 0.1, 0.03  # of a step: from an even grid, and between its step and the interval
FEWEST_EVEN = 10  # rows of which that can be said
Starts = NDArray[np.int64]  # (window, 2): series, first row


def cut(stretches: Stretches, window: int, stride: int, pad: bool) -> Starts:
    """Cut stretches of rows into windows, none over a border.

    Args:
        stretches: Series, first row and the row after the last of each, ``(stretch, 3)``.
        window: Rows of a window.
        stride: Rows between the starts of two windows of a stretch.
        pad: Whether a stretch shorter than a window gives one, padded at its end, or none.

    Returns:
        Series and first row of each window, in the order of the stretches.

    Example:
        >>> cut(np.array([[0, 2, 9]]), window=4, stride=2, pad=False).tolist()
        [[0, 2], [0, 4]]
    """
    series, first, end = stretches.T
    counts = np.maximum((end - first - window) // stride + 1, 1 if pad else 0)
    place = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    return np.stack([np.repeat(series, counts), np.repeat(first, counts) + stride * place], axis=1)


def thin(starts: Starts, most: int) -> Starts:
    """Keep at most so many windows, spread evenly.

    Example:
        >>> thin(np.array([[0, row] for row in range(10)]), 4)[:, 1].tolist()
        [0, 3, 6, 9]
    """
    if len(starts) <= most:
        return starts
    return starts[np.linspace(0, len(starts) - 1, most).round().astype(np.int64)]


@dataclass(frozen=True, eq=False)
class Rows:
    """All rows of a panel one below the other, as windows are gathered from them.

    Args:
        values: Scaled, of shape ``(row, channel)``, 0 where not known.
        known: Where they are known.
        hidden: Where they are known and hidden from every model.
        steps: Times in steps since the first row of their series, ``(row,)``.
        first: Index of the first row of each series, and one more: the number of rows.
    """

    values: NDArray[np.float32]
    known: Mask
    hidden: Mask
    steps: Array
    first: NDArray[np.int64]

    def index(self, starts: Starts, window: int) -> tuple[NDArray[np.int64], Mask]:
        """Return the row of each place of some windows, and which places are no padding.

        Args:
            starts: Series and first row of each window.
            window: Rows of a window.

        Returns:
            Both of shape ``(window, time)``; padding repeats the last row of the series.
        """
        series, row = starts.T
        index = (self.first[series] + row)[:, None] + np.arange(window)
        last = self.first[series + 1][:, None] - 1
        return np.minimum(index, last), index <= last


def rows(
    panel: Panel, hidden: Sequence[Mask] | None, scaler: Scaler, interval: float | None
) -> Rows:
    """Lay the rows of a panel one below the other.

    Args:
        panel: The series.
        hidden: What is hidden of each series; None for nothing.
        scaler: Of its channels.
        interval: Time of one step in the clock's unit; None where each row is one step.
    """
    values = np.concatenate([one.values for one in panel.series])
    known = np.isfinite(values)
    masks = np.concatenate(list(hidden)) if hidden else np.zeros_like(known)
    scaled = np.where(known, scaler.apply(np.where(known, values, 1.0)), 0)
    lengths = [len(one.times) for one in panel.series]
    return Rows(
        values=scaled.astype(np.float32),
        known=known,
        hidden=masks & known,
        steps=np.concatenate([steps_of(one.times, interval) for one in panel.series]),
        first=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
    )


def rows_of_dataset(dataset: Dataset) -> Rows:
    """Lay the rows of a prepared dataset one below the other."""
    return rows(dataset.panel, dataset.hidden, dataset.scaler, step_of(dataset, dataset.panel))


def step_of(dataset: Dataset, panel: Panel) -> float | None:
    """Return the time of one step of a run in a panel, None where each row is one step."""
    kinds = (dataset.panel.clock.kind, panel.clock.kind)
    by_row = dataset.spacing == "rows" or "index" in kinds
    return None if by_row else dataset.panel.clock.interval


def steps_of(times: Array, interval: float | None) -> Array:
    """Count steps since the first row of a series.

    Times that lie within a tenth of a step of an even grid count as even: months are as long as
    each other, and milliseconds in which 64 Hz are written do not make them uneven. If the grid's
    step is the usual interval up to 3 %, the steps are 0, 1, 2, ….

    Args:
        times: Of one series, in the clock's unit.
        interval: Time of one step; None where each row is one step.

    Example:
        >>> steps_of(np.array([0.0, 31, 59, 90, 120, 151, 181, 212, 243, 273]), 31.0)[-2:].tolist()
        [8.0, 9.0]
    """
    count = np.arange(len(times), dtype=np.float64)
    if interval is None:
        return count
    steps = (times - times[0]) / interval
    if len(times) < FEWEST_EVEN:
        return steps
    step = steps[-1] / count[-1]
    if np.abs(steps - step * count).max() > EVEN * step:
        return steps
    return count if abs(step - 1) <= SAME else step * count


def gather(rows: Rows, starts: Starts, window: int, seen: Mask, targets: Mask) -> Windows:
    """Gather windows from rows, with masks that are given row by row.

    Args:
        rows: Of the panel.
        starts: Series and first row of each window.
        window: Rows of a window.
        seen: What a model may see, ``(row, channel)``.
        targets: What it explains, ``(row, channel)``.
    """
    index, present = rows.index(starts, window)
    place, inside = torch.from_numpy(index.ravel()), torch.from_numpy(present)
    shape = (*index.shape, rows.values.shape[1])

    def take(array: np.ndarray) -> torch.Tensor:
        found = torch.from_numpy(array).index_select(0, place).view(shape)
        return found if present.all() else found * inside[:, :, None]

    return Windows(
        values=take(rows.values),
        known=take(rows.known),
        seen=take(seen),
        targets=take(targets),
        times=torch.from_numpy(_times(rows, index, present)),
        present=inside,
        origin=torch.from_numpy(starts.astype(np.int64)),
    )


def _times(rows: Rows, index: NDArray[np.int64], present: Mask) -> NDArray[np.float32]:
    """Return steps since a window's first row; padding goes on with one step a row.

    Rounded to a millionth of a step, so that a regular series has 0, 1, 2, … exactly, wherever
    its clock begins.
    """
    steps = rows.steps[index]
    steps = np.round(steps - steps[:, :1], 6)
    if not present.all():
        steps = steps + np.cumsum(~present, axis=1)
    return steps.astype(np.float32)
