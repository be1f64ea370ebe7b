"""Windows of a split to be looked at, no more than fit in memory."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
from torch import Tensor

from core.contract import Split
from domains.series.config import Config
from domains.series.data import Dataset, WindowBatches, Windows

MOST_VALUES = 2**27


def some_windows(
    config: Config, dataset: Dataset, split: Split, most: int | None = None
) -> Windows:
    """Return windows of a split, masked as for the test, in order and spread evenly.

    Args:
        config: The settings.
        dataset: The prepared series.
        split: Which part.
        most: How many at most; as many as fit in memory if not given.
    """
    starts = dataset.windows[split]
    room = max(1, MOST_VALUES // (dataset.window * len(dataset.channels)))
    count = min(len(starts), room, most or room)
    return WindowBatches(dataset, split, config).evaluated(starts[spread(len(starts), count)])


def spread(count: int, most: int) -> np.ndarray:
    """Return at most so many places below ``count``, spread evenly.

    Example:
        >>> spread(10, 4)
        array([0, 3, 6, 9])
    """
    if count <= most:
        return np.arange(count)
    return np.linspace(0, count - 1, most).round().astype(np.int64)


def taken(windows: Windows, places: Tensor) -> Windows:
    """Return the windows at some places."""
    return Windows(*(getattr(windows, field.name)[places] for field in fields(windows)))
