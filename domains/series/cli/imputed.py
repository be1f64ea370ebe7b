"""Fill what a file lacks with draws of the predictive distribution."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from core.runtime.progress import Progress
from domains.series.cli.covering import Covered, chunks
from domains.series.cli.draws import central, quantiles
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


def fill(opened: Trained, panel: Panel, samples: int, interval: float, draws: int) -> Filled:
    """Fill every missing value with the median of its predictive distribution.

    Windows overlap by half; a row is taken from the window that has most rows around it, so that
    the draws of neighbouring rows belong together.

    Args:
        opened: The run.
        panel: Series of its channels, NaN where a value is missing.
        samples: Draws behind the median and the interval.
        interval: Probability between lower and upper.
        draws: How many draws to keep.
    """
    covered = Covered(opened.dataset, panel, -(-opened.dataset.window // 2))
    missing = [np.isnan(one.values) for one in panel.series]
    lacking: Mask = np.concatenate(missing).max(1)
    found = np.full((3 + draws, len(lacking), len(panel.channels)), np.nan)
    wanted, done = np.unique(covered.owners[lacking, 0]), 0
    with Progress("imputing", len(wanted)) as progress:
        for part in chunks(wanted, samples * opened.dataset.window * len(panel.channels)):
            drawn = opened.predict(covered.windows(part), samples)
            numbers = np.concatenate([quantiles(drawn, central(interval)), drawn[:draws]])
            rows = np.flatnonzero(lacking & np.isin(covered.owners[:, 0], part))
            window, place = covered.owners[rows].T
            found[:, rows] = numbers[:, np.searchsorted(part, window), place]
            done += len(part)
            progress.show(done, {})
    found = rounded(opened.dataset.scaler.invert(found), panel.dtypes)
    return _filled(panel, missing, covered.split(found, axis=1))


def _filled(panel: Panel, missing: list[Mask], found: list[Array]) -> Filled:
    values, others = [], []
    for one, lacking, each in zip(panel.series, missing, found, strict=True):
        values.append(np.where(lacking, each[0], one.values))
        others.append(np.where(lacking, each[1:], np.nan))
    names = ["lower", "upper", *(f"draw{number}" for number in range(1, len(found[0]) - 2))]
    return Filled(
        panel=with_values(panel, values),
        cells=rows_with(beside(panel, others, names), missing),
        count=sum(int(each.sum()) for each in missing),
    )
