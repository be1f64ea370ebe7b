"""Times that go on or start somewhere, and how they are written."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, tzinfo
from zoneinfo import ZoneInfo

import numpy as np
from numpy.typing import NDArray

from core.runtime.errors import UserError
from domains.series.data import Clock

Array = NDArray[np.float64]
DAY = 86400.0


def following(clock: Clock, times: Array, count: int) -> Array:
    """The times of the next rows at the clock's interval."""
    return times[-1] + clock.interval * np.arange(1, count + 1)


def first_time(clock: Clock, start: str | None, end: float) -> float:
    """When new series start: as told, else on the day after the data's end.

    Data without dates start again at 0.

    Args:
        clock: What the times mean.
        start: A date, or a number where the times are numbers.
        end: The last time of the data.

    Raises:
        UserError: If ``start`` is no such date or number.
    """
    if start is None:
        return _next_day(clock, end) if clock.kind == "datetime" else 0.0
    try:
        if clock.kind != "datetime":
            return float(start)
        given = datetime.fromisoformat(start)
    except ValueError as error:
        wanted = "a date such as 2026-01-01" if clock.kind == "datetime" else "a number"
        raise UserError(f"--start: got {start!r}, expected {wanted}") from error
    return (given if given.tzinfo else given.replace(tzinfo=_zone(clock))).timestamp()


def _next_day(clock: Clock, end: float) -> float:
    if clock.interval >= DAY:
        return end + clock.interval
    last = datetime.fromtimestamp(end, _zone(clock))
    midnight = last.replace(hour=0, minute=0, second=0, microsecond=0, tzinfo=None)
    return (midnight + timedelta(days=1)).replace(tzinfo=last.tzinfo).timestamp()


def _zone(clock: Clock) -> tzinfo:
    return ZoneInfo(clock.zone) if clock.zone else UTC


def stamp(clock: Clock, time: float) -> str:
    """A time as a person reads it."""
    if clock.kind != "datetime":
        return f"{time:g}"
    moment = datetime.fromtimestamp(time, _zone(clock))
    return moment.isoformat(sep=" ") if clock.zone else moment.replace(tzinfo=None).isoformat(" ")
