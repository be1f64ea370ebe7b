"""Which rows of which series belong to train, valid and test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from core.contract import Split
from core.runtime.errors import UserError
from core.runtime.order import generator
from domains.series.config import Data
from domains.series.data.records import Mask

SPLITS: tuple[Split, ...] = ("train", "valid", "test")
Stretches = NDArray[np.int64]  # (stretch, 3): series, first row, row after the last


def split(lengths: Sequence[int], data: Data, seed: int) -> Mapping[Split, Stretches]:
    """Give stretches of rows to each split.

    Args:
        lengths: Rows of each series.
        data: The settings.
        seed: Of the assignment of whole series.

    Returns:
        For each split its stretches, ordered by series; no row is in two splits, but for
        ``windows``, where every split holds all rows.

    Raises:
        UserError: If there are too few series to split by.
    """
    rows = np.asarray(lengths, dtype=np.int64)
    if data.split == "windows":
        whole = _stretches(np.arange(len(rows)), np.zeros_like(rows), rows)
        return dict.fromkeys(SPLITS, whole)
    return _by_time(rows, data) if data.split == "chronological" else _by_series(rows, data, seed)


def _by_time(rows: NDArray[np.int64], data: Data) -> Mapping[Split, Stretches]:
    """Cut each series into train, valid and test, in this order."""
    test = np.rint(rows * data.test_fraction).astype(np.int64)
    valid = np.rint(rows * data.valid_fraction).astype(np.int64)
    borders = [np.zeros_like(rows), rows - valid - test, rows - test, rows]
    index = np.arange(len(rows))
    return {
        name: _stretches(index, first, end)
        for name, first, end in zip(SPLITS, borders[:-1], borders[1:], strict=True)
    }


def _by_series(rows: NDArray[np.int64], data: Data, seed: int) -> Mapping[Split, Stretches]:
    """Give whole series to a split at random; each split has at least one."""
    count = len(rows)
    if count < len(SPLITS):
        raise UserError(
            f"data.split 'series': {count} series; at least 3 are needed, one for each split; use "
            "'chronological'"
        )
    test = max(round(count * data.test_fraction), 1)
    valid = max(round(count * data.valid_fraction), 1)
    while valid + test >= count:  # one is left to train on
        valid, test = (valid, test - 1) if test > 1 else (valid - 1, test)
    order = generator(seed, "split").permutation(count)
    parts = np.split(order, [count - valid - test, count - test])
    return {
        name: _stretches(chosen, np.zeros_like(chosen), rows[chosen])
        for name, chosen in zip(SPLITS, map(np.sort, parts), strict=True)
    }


def _stretches(
    series: NDArray[np.int64], first: NDArray[np.int64], end: NDArray[np.int64]
) -> Stretches:
    found = np.stack([series, first, end], axis=1)
    return found[end > first]


def rows_of(stretches: Stretches, lengths: Sequence[int]) -> tuple[Mask, ...]:
    """Say for each series which of its rows some stretches hold."""
    masks = tuple(np.zeros(length, dtype=bool) for length in lengths)
    for series, first, end in stretches.tolist():
        masks[series][first:end] = True
    return masks
