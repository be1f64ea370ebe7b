"""Fill what a file lacks with draws of the predictive distribution."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from core.runtime.progress import Progress
from domains.series.cli.covering import Places, all_seen, chunks, firsts, most_central, table
from domains.series.cli.opened import Trained
from domains.series.cli.tables import beside, rounded, rows_with, with_values
from domains.series.data import Panel

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Filled:
    """A panel without gaps, and what is behind each filled value.

    Args:
        panel: The medians where values were missing; the others untouched.
        cells: The rows in which something was filled, NaN where nothing was: for each channel
            ``_lower`` and ``_upper``, then ``_draw1``, ``_draw2``, …
        count: How many values were filled.
    """

    panel: Panel
    cells: Panel
    count: int


@dataclass(frozen=True, eq=False)
class Gap:
    """A window with rows that are filled from it.

    Args:
        series: Place of the series in its panel.
        first: First row of the window.
        rows: Rows of the series to fill.
    """

    series: int
    first: int
    rows: Places


def fill(opened: Trained, panel: Panel, samples: int, interval: float, draws: int) -> Filled:
    """Fill every missing value with the median of its predictive distribution.

    Windows overlap by half; a row is taken from the window that has most around it, so that the
    draws of neighbouring rows belong together.

    Args:
        opened: The run.
        panel: Series of its channels, NaN where a value is missing.
        samples: Draws behind the median and the interval.
        interval: Probability between lower and upper.
        draws: How many draws to keep.
    """
    window, scaler = opened.dataset.window, opened.dataset.scaler
    levels = [0.5, 0.5 - interval / 2, 0.5 + interval / 2]
    columns = [np.full((3 + draws, *one.values.shape), np.nan) for one in panel.series]
    given, found, done = table(opened.dataset, panel), gaps(panel, window), 0
    with Progress("imputing", len(found)) as progress:
        for part in chunks(found, samples * window * len(panel.channels)):
            starts = np.array([(gap.series, gap.first) for gap in part])
            drawn = scaler.invert(opened.predict(all_seen(given, starts, window), samples))
            numbers = np.concatenate([np.quantile(drawn, levels, axis=0), drawn[:draws]])
            for place, gap in enumerate(part):
                columns[gap.series][:, gap.rows] = numbers[:, place, gap.rows - gap.first]
            done += len(part)
            progress.show(done, {})
    return _filled(panel, columns)


def gaps(panel: Panel, window: int) -> list[Gap]:
    """The windows from which something is filled; each row with a gap is in one."""
    found = []
    for place, one in enumerate(panel.series):
        length, lacking = len(one.times), np.isnan(one.values).any(1)
        first = firsts(length, window, -(-window // 2))
        owner = most_central(first, length, window)
        for number in np.unique(owner[lacking]):
            rows = np.flatnonzero(lacking & (owner == number))
            found.append(Gap(place, int(first[number]), rows))
    return found


def _filled(panel: Panel, columns: Sequence[Array]) -> Filled:
    missing: list[Mask] = [np.isnan(one.values) for one in panel.series]
    columns = [rounded(each, panel.dtypes) for each in columns]
    values = [
        np.where(lacking, each[0], one.values)
        for one, lacking, each in zip(panel.series, missing, columns, strict=True)
    ]
    others = [
        np.where(lacking, each[1:], np.nan) for lacking, each in zip(missing, columns, strict=True)
    ]
    names = ["lower", "upper", *(f"draw{number}" for number in range(1, len(columns[0]) - 2))]
    return Filled(
        panel=with_values(panel, values),
        cells=rows_with(beside(panel, others, names), missing),
        count=sum(int(each.sum()) for each in missing),
    )
