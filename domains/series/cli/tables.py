"""Panels as results: other values of the same series, chosen rows, columns beside a channel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from domains.series.data import Panel, Series

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]


def with_values(panel: Panel, values: Sequence[Array], **changes: Any) -> Panel:
    """The same series at the same times with other values."""
    series = tuple(replace(one, values=new) for one, new in zip(panel.series, values, strict=True))
    return replace(panel, series=series, **changes)


def put_back(panel: Panel, own: Panel) -> Panel:
    """A panel with the values of those of its channels that another one has."""
    places = [panel.channels.index(name) for name in own.channels]
    values = [one.values.copy() for one in panel.series]
    for each, new in zip(values, own.series, strict=True):
        each[:, places] = new.values
    return with_values(panel, values)


def beside(panel: Panel, columns: Sequence[Array], names: Sequence[str], **changes: Any) -> Panel:
    """A panel with several columns for each channel: ``price_lower``, ``price_upper``, ….

    Args:
        panel: The series.
        columns: For each series an array ``(name, time, channel)``.
        names: Suffixes of the columns; ``""`` is the channel itself.
    """
    values = [each.transpose(1, 2, 0).reshape(each.shape[1], -1) for each in columns]
    channels = [
        f"{channel}_{name}" if name else channel for channel in panel.channels for name in names
    ]
    dtypes = [dtype if not name else "float64" for dtype in panel.dtypes for name in names]
    return with_values(
        panel, values, channels=(*channels,), dtypes=(*dtypes,), columns={}, **changes
    )


def rows_with(panel: Panel, cells: Sequence[Mask]) -> Panel:
    """The rows of each series in which there is such a cell; series without one are left out.

    Args:
        panel: The series.
        cells: For each series ``(time, channel)``.
    """
    kept = [
        _some(one, np.flatnonzero(chosen.any(1)))
        for one, chosen in zip(panel.series, cells, strict=True)
        if chosen.any()
    ]
    return replace(panel, series=(*kept,))


def _some(series: Series, rows: NDArray[np.intp]) -> Series:
    label, lines = series.label, series.lines
    return Series(
        series.name,
        series.times[rows],
        series.values[rows],
        None if label is None else label[rows],
        None if lines is None else lines[rows],
    )


def rounded(values: Array, dtypes: Sequence[str]) -> Array:
    """Whole numbers where the channel's dtype holds whole numbers only, and within its range.

    Args:
        values: Of shape ``(…, channel)``.
        dtypes: As numpy or pandas spells them: ``int64`` and ``Int64`` alike.

    Example:
        >>> rounded(np.array([[1.6, 1.6, -300.0]]), ["float64", "Int64", "uint8"]).tolist()
        [[1.6, 2.0, 0.0]]
    """
    rounded = values.copy()
    for place, dtype in enumerate(dtypes):
        if is_whole(dtype):
            limits = np.iinfo(dtype.lower())
            rounded[..., place] = np.clip(np.rint(values[..., place]), limits.min, limits.max)
    return rounded


def is_whole(dtype: str) -> bool:
    """Whether a dtype holds whole numbers only."""
    return dtype.lower().startswith(("int", "uint"))
