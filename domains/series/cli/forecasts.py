"""Go on with series past their end."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from core.runtime.errors import UserError
from core.runtime.progress import Progress
from domains.series.cli.covering import Places, chunks, windows_of
from domains.series.cli.draws import central, quantiles
from domains.series.cli.opened import Trained
from domains.series.cli.tables import beside, rounded
from domains.series.data import Panel, Series
from domains.series.data.times import following
from domains.series.data.windows import step_of

Array = NDArray[np.float64]
COLUMNS = ("", "mean", "lower", "upper")


@dataclass(frozen=True)
class Plan:
    """How far a model sees at once.

    Args:
        past: Rows of a window that it sees.
        step: Rows after them that it predicts.
        rolls: How many times; from the second on it sees its own draws.
    """

    past: int
    step: int
    rolls: int


def plan(opened: Trained, horizon: int) -> Plan:
    """A model of task forecast predicts its horizon, others at most half a window at once.

    Raises:
        UserError: If the horizon is longer than all that the model has seen of one series.
    """
    longest = max(len(one.times) for one in opened.dataset.panel.series)
    if not 1 <= horizon <= longest:
        raise UserError(
            f"--horizon: got {horizon}, expected 1 to {longest}, the rows of the longest series "
            "of the run"
        )
    window, task = opened.dataset.window, opened.config.task
    step = task.horizon if task.kind == "forecast" else min(horizon, window // 2)
    return Plan(window - step, step, -(-horizon // step))


def forecast(opened: Trained, panel: Panel, horizon: int, samples: int, interval: float) -> Panel:
    """Median, mean, lower and upper of the rows after the end of each series.

    Args:
        opened: The run.
        panel: Series of its channels.
        horizon: How many rows.
        samples: Paths behind the numbers.
        interval: Probability between lower and upper.
    """
    steps = plan(opened, horizon)
    cells = samples * opened.dataset.window * len(panel.channels)
    columns: list[Array] = []
    with Progress("forecasting", len(panel.series)) as progress:
        for part in chunks(np.arange(len(panel.series)), cells):
            paths = draw(opened, panel, part, steps, samples)[:, :, :horizon]
            numbers = opened.dataset.scaler.invert(_numbers(paths, interval))
            columns += [*numbers.swapaxes(0, 1)]
            progress.show(len(columns), {})
    dtypes = panel.dtypes
    columns = [
        np.stack([rounded(each, dtypes) if name != "mean" else each for name, each in named])
        for named in (zip(COLUMNS, column, strict=True) for column in columns)
    ]
    future = tuple(_future(one, panel, horizon) for one in panel.series)
    return beside(replace(panel, series=future, notes=(), label=""), columns, COLUMNS)


def draw(opened: Trained, panel: Panel, places: Places, steps: Plan, samples: int) -> Array:
    """Draw scaled paths ``(sample, series, row, channel)``, each going on from its own past.

    Past rows that a series lacks come first and are not seen.

    Args:
        opened: The run.
        panel: Series of its channels.
        places: Which of them.
        steps: How far the model sees.
        samples: Paths of each.
    """
    past = _past(opened, panel, places, steps.past)
    first = _predict(opened, past, steps.step, samples)
    past = past.of_paths(samples)
    drawn, paths = first.reshape(-1, *first.shape[2:]), [first]
    for _ in range(1, steps.rolls):
        past = past.after(drawn)
        drawn = _predict(opened, past, steps.step, 1)[0]
        paths.append(drawn.reshape(first.shape))
    return np.concatenate(paths, axis=2)


@dataclass(frozen=True, eq=False)
class Past:
    """What a model sees before what it predicts.

    Args:
        values: Scaled, ``(path, row, channel)``, NaN where not known.
        times: In steps, ``(path, row)``.
        origin: Series and first row of each, ``(path, 2)``.
    """

    values: Array
    times: Array
    origin: Places

    def of_paths(self, samples: int) -> Past:
        """As many paths of each, the first path of all series before the second."""
        values = np.tile(self.values, (samples, 1, 1))
        return Past(values, np.tile(self.times, (samples, 1)), np.tile(self.origin, (samples, 1)))

    def after(self, drawn: Array) -> Past:
        """The same number of rows, which end with those drawn."""
        step, rows = drawn.shape[1], self.values.shape[1]
        values = np.concatenate([self.values, drawn], axis=1)[:, -rows:]
        times = np.concatenate([self.times, self.ahead(step)], axis=1)[:, -rows:]
        return Past(values, times, self.origin + np.array([0, step]))

    def ahead(self, step: int) -> Array:
        """The times of the next rows."""
        return self.times[:, -1:] + np.arange(1, step + 1)


def _predict(opened: Trained, past: Past, step: int, samples: int) -> Array:
    paths, _, channels = past.values.shape
    whole = np.concatenate([past.values, np.full((paths, step, channels), np.nan)], axis=1)
    times = np.concatenate([past.times, past.ahead(step)], axis=1)
    batch = windows_of(whole, times, past.origin)
    return opened.predict(batch, samples)[:, :, -step:].astype(np.float64)


def _past(opened: Trained, panel: Panel, places: Places, rows: int) -> Past:
    step = step_of(opened.dataset, panel)
    parts = [_end(opened, panel.series[place], step, rows) for place in places]
    values, times = (np.stack(column) for column in zip(*parts, strict=True))
    first = [len(panel.series[place].times) - rows for place in places]
    return Past(values, times, np.stack([places, first], axis=1))


def _end(opened: Trained, series: Series, step: float | None, rows: int) -> tuple[Array, Array]:
    """Scaled values and times in steps of the last rows, those that it lacks first."""
    values = opened.dataset.scaler.apply(series.values[-rows:])
    times = np.arange(len(values), dtype=np.float64)
    if step is not None:
        times = series.times[-rows:] / step
    lacking = rows - len(times)
    values = np.concatenate([np.full((lacking, values.shape[1]), np.nan), values])
    return values, np.concatenate([times[0] - np.arange(lacking, 0, -1), times])


def _numbers(paths: Array, interval: float) -> Array:
    """The columns, first."""
    median, low, high = quantiles(paths, central(interval))
    return np.stack([median, paths.mean(0), low, high])


def _future(series: Series, panel: Panel, horizon: int) -> Series:
    times = following(panel.clock, series.times, horizon)
    return Series(series.name, times, np.empty((horizon, 0)))
