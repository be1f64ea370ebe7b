"""Make a benchmark of a file: hide known values, and keep which."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from core.runtime.order import generator
from domains.series.cli.tables import rows_with, with_values
from domains.series.data import Panel, hide


@dataclass(frozen=True, eq=False)
class Hidden:
    """A panel with values hidden, and those values.

    Args:
        panel: NaN where a value is hidden.
        truth: The rows with hidden values, NaN where nothing is hidden.
        count: How many values are hidden.
        known: How many were known before.
    """

    panel: Panel
    truth: Panel
    count: int
    known: int


def hide_values(panel: Panel, kind: Any, fraction: float, length: int, seed: int) -> Hidden:
    """Hide known values of a panel, each series with random numbers of its own.

    Args:
        panel: The series.
        kind: Which values, as in `domains.series.config.Hide`.
        fraction: Share of the known values that is hidden.
        length: Rows of a hidden block.
        seed: The same seed hides the same values.
    """
    masks = []
    for place, one in enumerate(panel.series):
        rng = generator(seed, "mask", place)
        masks.append(hide(rng, one.values, kind, fraction, length) & ~np.isnan(one.values))
    values = [one.values for one in panel.series]
    left = [np.where(mask, np.nan, each) for mask, each in zip(masks, values, strict=True)]
    kept = [np.where(mask, each, np.nan) for mask, each in zip(masks, values, strict=True)]
    return Hidden(
        panel=with_values(panel, left),
        truth=rows_with(with_values(panel, kept), masks),
        count=sum(int(mask.sum()) for mask in masks),
        known=sum(int((~np.isnan(each)).sum()) for each in values),
    )
