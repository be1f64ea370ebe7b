"""What the figures of series share: panels, times and durations in words, how much is drawn."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, to_rgba
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter, date2num
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator
from numpy.typing import NDArray

from core.runtime.figures import COLOURS
from core.runtime.wording import number
from domains.series.data import Clock
from domains.series.data.times import time_zone

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
Grid = NDArray[Any]  # of Axes
WIDTH = 4.4  # inches; a phone shows it at its full width
MOST_POINTS = 400  # of a curve
MOST_DOTS = 500  # of a cloud
REAL, GENERATED, TRUTH = COLOURS[0], COLOURS[1], COLOURS[1]
HUES = LinearSegmentedColormap.from_list("hues", [COLOURS[place] for place in (0, 2, 4, 1)])
# Nothing in the middle, so that it is right on light and on dark paper.
SIGNED = LinearSegmentedColormap.from_list(
    "signed",
    [to_rgba(COLOURS[0]), to_rgba(COLOURS[0], 0), to_rgba(COLOURS[1], 0), to_rgba(COLOURS[1])],
)
UNITS = (
    (86400 * 365.25, "year"),
    (86400, "day"),
    (3600, "h"),
    (60, "min"),
    (1, "s"),
    (1e-3, "ms"),
)
SPELLED = ("year", "day", "row")


def panels(rows: int, columns: int, height: float = 1.15, **options: object) -> Grid:
    """Return the axes of a new figure of the report's width, ``(row, column)``."""
    figure = Figure(figsize=(WIDTH, 0.35 + height * rows))
    axes = figure.subplots(rows, columns, squeeze=False, **options)  # type: ignore[arg-type]
    for each in axes.flat:
        each.xaxis.set_major_locator(MaxNLocator(4))
        each.yaxis.set_major_locator(MaxNLocator(3))
        for axis in (each.xaxis, each.yaxis):
            axis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))
        each.tick_params(labelsize=7.5)
    return axes


def figure_of(axes: Grid) -> Figure:
    """The figure that holds the panels."""
    return axes.flat[0].figure


def spread(count: int, most: int) -> NDArray[np.int64]:
    """Return at most so many of ``count`` places, evenly spread, both ends kept.

    Example:
        >>> spread(10, 4), spread(2, 4)
        (array([0, 3, 6, 9]), array([0, 1]))
    """
    if count <= most:
        return np.arange(count)
    if most == 1:
        return np.array([count // 2])
    return np.unique(np.linspace(0, count - 1, most).round().astype(np.int64))


def short(value: float) -> str:
    """Return a number of an axis in few letters: ``20M``, ``1.5k``, ``0.25``.

    Example:
        >>> short(2e7), short(1500), short(0.25), short(-3.0)
        ('20M', '1.5k', '0.25', '−3')
    """
    for size, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size and (size > 1e3 or abs(value) >= 1e4 or value % 100 == 0):
            return number(float(f"{value / size:.4g}")) + letter
    return number(float(f"{value:.4g}"))


def duration(steps: float, clock: Clock) -> str:
    """Return a time in words, in the clock's units.

    Args:
        steps: In steps of the clock's interval.
        clock: Of the file.

    Example:
        >>> daily = Clock(kind="datetime", column="date", zone="", form="iso", interval=86400.0)
        >>> duration(1, daily), duration(2.5, daily), duration(0.25, daily)
        ('1 day', '2.5 days', '6 h')
        >>> duration(3, Clock(kind="index", column="", zone="", form="", interval=1.0))
        '3 rows'
    """
    if clock.kind == "index":
        return _counted(steps, "row")
    size = steps * clock.interval
    if clock.kind == "number":
        return _digits(size)
    for unit, name in UNITS:
        if abs(size) >= unit * (2 if name == "year" else 0.9995):
            return _counted(size / unit, name)
    return _counted(size / UNITS[-1][0], UNITS[-1][1])


def time_unit(longest: float, clock: Clock) -> tuple[float, str]:
    """Return the size of a step and its unit, fit for an axis that ends at ``longest`` steps.

    Example:
        >>> time_unit(72, Clock(kind="datetime", column="t", zone="", form="iso", interval=300.0))
        (0.08333333333333333, 'h')
    """
    if clock.kind == "index":
        return 1.0, "rows"
    if clock.kind == "number":
        return clock.interval, clock.column or "time"
    fitting = [unit for unit in UNITS if unit[0] <= longest * clock.interval / 2]
    size, name = (fitting or UNITS[-1:])[0]
    return clock.interval / size, name + ("s" if name in SPELLED else "")


def unit_of_times(clock: Clock) -> str:
    """Return a sentence that says what durations without a unit are in; empty if all have one."""
    if clock.kind != "number":
        return ""
    return f" Times are in the unit of {clock.column or 'time'}."


def time_axis(axes: Axes, times: Array, clock: Clock) -> Array:
    """Return places of times on an axis, which is made to show them as the file has them."""
    if clock.kind != "datetime":
        return times
    zone = zone_of(clock)
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    moments = [epoch + timedelta(seconds=float(time)) for time in times]
    locator = AutoDateLocator(tz=zone, minticks=2, maxticks=4)
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator, tz=zone))
    axes.xaxis.get_offset_text().set_fontsize(7.5)
    return np.asarray(date2num(moments))


def zone_of(clock: Clock) -> tzinfo:
    """The time zone of a clock."""
    return time_zone(clock.zone) if clock.zone else UTC


def outlined(
    axes: Axes, counts: Array, edges: Array, colour: str, label: str, filled: bool = True
) -> None:
    """Draw a histogram as an outline, if ``filled`` over a pale ground."""
    if filled:
        axes.stairs(counts, edges, color=colour, fill=True, alpha=0.22, linewidth=0)
    axes.stairs(counts, edges, color=colour, label=label, linewidth=1.2)


def named(axes: Axes, name: str, limit: int = 26) -> None:
    """Title a panel by a name, cut if it is long."""
    axes.set_title(name if len(name) <= limit else name[: limit - 1] + "…", fontsize=8, pad=3)


def left_out(count: int) -> str:
    """Return a sentence on channels that are not shown; empty for none."""
    if count < 1:
        return ""
    return f" {count} more channel{'s are' if count > 1 else ' is'} not shown."


def listed(names: Sequence[str]) -> str:
    """Join names as a sentence does.

    Example:
        >>> listed(["a", "b", "c"]), listed(["a"])
        ('a, b and c', 'a')
    """
    return " and ".join(filter(None, (", ".join(names[:-1]), *names[-1:])))


def _counted(value: float, unit: str) -> str:
    text = _digits(value)
    return f"{text} {unit}{'s' if unit in SPELLED and text != '1' else ''}"


def _digits(value: float) -> str:
    """Three digits that matter; whole from 100."""
    return number(float(f"{value:.3g}")) if abs(value) < 100 else number(round(value))
