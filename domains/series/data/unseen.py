"""Windows of series that a run has not seen, as its model sees its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from core.runtime.errors import UserError, did_you_mean
from domains.series.data.records import Dataset, Mask, Panel, Windows
from domains.series.data.scaling import logarithms
from domains.series.data.windows import Starts, gather, rows, step_of

KINDS = {"datetime": "dates", "number": "numbers as times", "index": "no times"}


def panel_windows(
    dataset: Dataset,
    panel: Panel,
    window: int | None = None,
    starts: Starts | None = None,
    seen: Sequence[Mask] | None = None,
    place: str = "the new series",
) -> Windows:
    """Cut another panel into windows, scaled and timed as those of a run.

    Where each came from is in ``origin`` (series and first row) and ``present``; `most_central`
    says which of the overlapping windows to take a row's result from.

    Args:
        dataset: Of the run.
        panel: Series that hold at least its channels.
        window: Rows of a window; those of the run's if left out.
        starts: Series and first row of each; if left out, windows that overlap by half and cover
            all rows. A series shorter than a window is padded.
        seen: What may be seen of each series, ``(time, channel)`` in the order of the run's
            channels; all that is known if left out. What is known and not seen is a target.
        place: What messages call the panel.

    Raises:
        UserError: If a channel is missing or its times are of another kind.
    """
    panel = of_channels(panel, dataset, place)
    window = window or dataset.window
    found = rows(panel, None, dataset.scaler, step_of(dataset, panel))
    if starts is None:
        starts = covering([len(one.times) for one in panel.series], window, -(-window // 2))
    if seen is None:
        return gather(found, starts, window, found.known, found.known)
    shown = np.concatenate(list(seen)) & found.known
    return gather(found, starts, window, shown, found.known & ~shown)


def of_channels(panel: Panel, dataset: Dataset, place: str) -> Panel:
    """Return the channels of a run, in its order.

    Raises:
        UserError: If one is missing, the times are of another kind, or there is no logarithm.
    """
    names, kind = dataset.channels, dataset.panel.clock.kind
    missing = [name for name in names if name not in panel.channels]
    if missing:
        hint = did_you_mean(missing[0], panel.channels) if len(missing) == 1 else ""
        raise UserError(
            f"{place}: no channel {', '.join(map(repr, missing))}; the run was trained on "
            f"{', '.join(names)}{hint}"
        )
    if step_of(dataset, panel) is not None and panel.clock.kind != kind:
        raise UserError(
            f"{place}: has {KINDS[panel.clock.kind]}, the run was trained on {KINDS[kind]}; bring "
            "the time column to that form"
        )
    if dataset.scaler.logs is not None:
        logged = [name for name, log in zip(names, dataset.scaler.logs, strict=True) if log]
        logarithms(panel, logged, place)
    order = [panel.channels.index(name) for name in names]
    return replace(
        panel,
        series=tuple(replace(one, values=one.values[:, order]) for one in panel.series),
        channels=names,
        dtypes=tuple(panel.dtypes[index] for index in order),
    )


def covering(lengths: Sequence[int], window: int, stride: int) -> Starts:
    """Return windows that cover all rows; the last of a series ends with it.

    Example:
        >>> covering([10, 3], 4, 4).tolist()
        [[0, 0], [0, 4], [0, 6], [1, 0]]
    """
    found = []
    for series, length in enumerate(lengths):
        last = max(length - window, 0)
        found += [(series, first) for first in (*range(0, last, stride), last)]
    return np.array(found, dtype=np.int64).reshape(-1, 2)


def most_central(starts: Starts, lengths: Sequence[int], window: int) -> list[NDArray[np.int64]]:
    """Say for each row of each series which window has most rows around it, and where it is there.

    Args:
        starts: Series and first row of each window; together they cover all rows.
        lengths: Rows of each series.
        window: Rows of a window.

    Returns:
        For each series ``(time, 2)``: number of the window and the row's place in it, so that
        ``result[found[:, 0], found[:, 1]]`` puts results back.

    Example:
        >>> most_central(np.array([[0, 0], [0, 2]]), [6], 4)[0].tolist()
        [[0, 0], [0, 1], [0, 2], [1, 1], [1, 2], [1, 3]]
    """
    found = []
    for series, length in enumerate(lengths):
        numbers = np.flatnonzero(starts[:, 0] == series)
        inside = np.arange(length)[:, None] - starts[numbers, 1]
        best = np.minimum(inside, window - 1 - inside).argmax(axis=1)
        found.append(np.stack([numbers[best], inside[np.arange(length), best]], axis=1))
    return found
