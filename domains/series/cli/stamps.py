"""When new series start, and times as a file writes them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, tzinfo

import numpy as np
from numpy.typing import NDArray

from core.runtime.errors import UserError
from domains.series.data import Clock
from domains.series.data.times import following, format_times, local_times

Array = NDArray[np.float64]
DAY = 86400.0


def new_times(clock: Clock, start: str | None, known: Array, count: int) -> Array:
    """Times of new rows at the clock's interval, in the calendar that the known ones keep to.

    Args:
        clock: What the times mean.
        start: The first, a date, or a number where the times are numbers. None for the day after
            the data's end (the next row where rows are a day or more apart), for 0 without dates.
        known: Times of the data.
        count: How many.

    Raises:
        UserError: If ``start`` is no such date or number.
    """
    if start is None and clock.kind == "datetime" and clock.interval >= DAY:
        return following(clock, known, count)
    first = _first(clock, start, float(known[-1]))
    if count == 1:
        return np.array([first])
    return np.append(first, following(clock, np.append(known, first), count - 1))


def _first(clock: Clock, start: str | None, end: float) -> float:
    if start is None:
        return _next_midnight(clock, end) if clock.kind == "datetime" else 0.0
    try:
        if clock.kind != "datetime":
            return float(start)
        given = datetime.fromisoformat(start)
    except ValueError as error:
        wanted = "a date such as 2026-01-01" if clock.kind == "datetime" else "a number"
        raise UserError(f"--start: got {start!r}, expected {wanted}") from error
    return (given if given.tzinfo else given.replace(tzinfo=_zone(clock))).timestamp()


def _next_midnight(clock: Clock, end: float) -> float:
    last = datetime.fromtimestamp(end, _zone(clock))
    midnight = last.replace(hour=0, minute=0, second=0, microsecond=0)
    return (midnight + timedelta(days=1)).timestamp()


def _zone(clock: Clock) -> tzinfo:
    return local_times(clock, np.zeros(1)).tz or UTC


def stamp(clock: Clock, time: float) -> str:
    """A time as the file writes it.

    Example:
        >>> stamp(Clock(kind="datetime", column="t", zone="", form="%d.%m.%y", interval=DAY), 0.0)
        '01.01.70'
    """
    if not clock.column:
        return f"{time:g}"
    return format_times(clock, np.array([time]))[0].replace("+", " ")
