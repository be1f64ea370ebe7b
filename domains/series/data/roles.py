"""Which column of a table is what: time, identifier, values, label; found, or told."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from core.runtime.errors import UserError
from domains.series.config import Data
from domains.series.data.records import Array
from domains.series.data.table import Column, Table
from domains.series.data.times import (
    JOIN,
    Source,
    Stamps,
    looks_like_times,
    parse_calendar,
    parse_numbers,
    parse_texts,
    parse_typed,
)

TIMES = {
    *("time", "timestamp", "timestamps", "date", "datetime", "ds", "dateutc", "datetimeutc"),
    *("utc", "localtime", "timelocal", "timeutc", "unixtime", "epoch", "datestamp", "timestep"),
    *("yyyymmdd", "yyyymm", "dateandtime"),
}
ROWS = {"id", "index", "row", "rownumber", "no", "number", "unnamed"}
COUNTERS = {"t", "year", "month", "day", "hour", "step", "sample", "cycle"} | ROWS
IDENTIFIERS = {
    *("id", "uniqueid", "series", "seriesid", "item", "itemid", "ticker", "symbol", "name"),
    *("subject", "subjectid", "patient", "patientid", "station", "stationid", "site", "siteid"),
    *("sensor", "sensorid", "device", "deviceid", "unit", "unitid", "unitnumber", "entity"),
    *("case", "caseid", "engine", "engineid", "entityid", "userid", "recordid", "icustayid"),
}
WHOLE_IDENTIFIERS = {"unit", "subject", "patient", "station", "case", "series", "engine", "site"}
LABELS = {"isanomaly", "anomaly", "anomalylabel", "isoutlier", "outlier", "label", "labels"}
CALENDAR = ("year", ("quarter", "month", "day", "hour", "minute"))


@dataclass(frozen=True)
class Roles:
    """The columns of a table by what they are; ``()`` and ``""`` where there is none.

    Args:
        time: One column, or several that make up one time.
        identifier: Of the series' names.
        values: The channels.
        label: Of anomaly labels.
        notes: What was decided without being told.
    """

    time: tuple[str, ...]
    identifier: str
    values: tuple[str, ...]
    label: str
    notes: tuple[str, ...] = ()


def find_roles(table: Table, options: Data) -> Roles:
    """Find which column is what, where the settings do not say.

    Raises:
        UserError: If a named column is not there or is none of its kind, or none is left to be a
            channel.
    """
    identifier = _identifier(table, options)
    time = _time(table, options, identifier)
    notes = []
    if options.identifier is None and not identifier and time:
        identifier = _names_of_repeats(table, time, options)
        if identifier:
            notes.append(
                f"column {identifier!r} names the series, as times repeat; set data.identifier "
                "to say otherwise"
            )
    if options.time is None and not time:
        notes += [
            f"column {name!r} does not go on from row to row, so it is no time: rows are counted; "
            "set data.time to say otherwise"
            for name in table.columns
            if (normalised(name) in TIMES or name == "t") and name not in (options.values or ())
        ]
    label = _label(table, options, {identifier, *time})
    values, left_out = _values(table, options, {identifier, label, *time})
    return Roles(time, identifier, values, label, (*notes, *left_out))


def normalised(name: str) -> str:
    """Return a column's name without case, unit and signs.

    Example:
        >>> normalised("Unique_ID"), normalised("time (UTC)")
        ('uniqueid', 'time')
    """
    return re.sub(r"[^a-z0-9]", "", re.sub(r"[(\[].*", "", name.lower()))


# Identifier


def _identifier(table: Table, options: Data) -> str:
    if options.identifier is not None:
        return options.identifier and table.require(options.identifier, "data.identifier")
    named = (name for name in table.columns if normalised(name) in IDENTIFIERS)
    taken = {options.time, options.label, *(options.values or ())}
    return next((name for name in named if name not in taken and _may_name(table, name)), "")


def _may_name(table: Table, name: str) -> bool:
    """Whether a column so called may name series: words, or whole numbers, that repeat."""
    column, plain = table.columns[name], normalised(name)
    numbers = table.numbers(name)
    if column.is_datetime or (not column.is_text and np.isnan(numbers.values).any()):
        return False
    if not numbers.bad.any():
        whole = "int" in numbers.dtype.lower()
        if not whole or not (plain.endswith("id") or plain in WHOLE_IDENTIFIERS):
            return False
    distinct = pd.Series(column.cells).nunique()
    return len(column.cells) > distinct


def _names_of_repeats(table: Table, time: tuple[str, ...], options: Data) -> str:
    """The one column of words with which repeated times become unique, if there is one."""
    times = pd.Series(list(zip(*(table.columns[name].cells for name in time), strict=True)))
    if times.is_unique:
        return ""
    taken = {options.label, *(options.values or ()), *time}
    words = (
        name
        for name, column in table.columns.items()
        if name not in taken and column.is_text and _mostly_words(table, name)
    )
    found = [
        name
        for name in words
        if not pd.DataFrame({"time": times, "name": table.columns[name].cells}).duplicated().any()
    ]
    return found[0] if len(found) == 1 else ""


def _mostly_words(table: Table, name: str) -> bool:
    numbers = table.numbers(name)
    return bool(numbers.bad.sum() > 0.5 * (numbers.bad | ~np.isnan(numbers.values)).sum())


# Time


def _time(table: Table, options: Data, identifier: str) -> tuple[str, ...]:
    if options.time is not None:
        return _told_time(table, options.time)
    taken = {identifier, options.label, *(options.values or ())}
    free = [name for name in table.columns if name not in taken]
    together = _joined(table, free)
    if together:
        return together
    return _named_time(table, free) or _date_like(table, free) or _counter(table, free, identifier)


def _told_time(table: Table, told: str) -> tuple[str, ...]:
    if told in table.columns or "+" not in told:
        return (table.require(told, "data.time"),) if told else ()
    return tuple(table.require(name.strip(), "data.time") for name in told.split("+"))


def _joined(table: Table, free: Sequence[str]) -> tuple[str, ...]:
    """Columns that make up one time: date and time of day; year and quarter; year, month, day."""
    plain = {normalised(name): name for name in reversed(free)}
    if "date" in plain and "time" in plain and _is_time_of_day(table.columns[plain["time"]]):
        return plain["date"], plain["time"]
    first, units = CALENDAR
    if first not in plain or not _in_range(table, plain[first], 1000, 3000):
        return ()
    if "quarter" in plain and _in_range(table, plain["quarter"], 1, 4):
        return plain[first], plain["quarter"]
    ranges = {"month": (1, 12), "day": (1, 31), "hour": (0, 23), "minute": (0, 59)}
    found = [plain[first]]
    for unit in units[1:]:
        if unit not in plain or not _in_range(table, plain[unit], *ranges[unit]):
            break
        found.append(plain[unit])
    return tuple(found) if len(found) > 1 else ()


def _is_time_of_day(column: Column) -> bool:
    return column.is_text and all(
        re.fullmatch(r"\d{1,2}[:.]\d{2}([:.]\d{2}([.,]\d+)?)?( ?[AaPp][Mm])?", cell)
        for cell in column.cells[:100]
    )


def _in_range(table: Table, name: str, low: int, high: int) -> bool:
    numbers = table.numbers(name)
    values = numbers.values
    return bool(
        not numbers.bad.any()
        and np.all((values >= low) & (values <= high) & (values == np.rint(values)))
    )


def _named_time(table: Table, free: Sequence[str]) -> tuple[str, ...]:
    for name in free:
        if normalised(name) in TIMES and _may_be_time(table, name):
            return (name,)
    return ()


def _may_be_time(table: Table, name: str) -> bool:
    column = table.columns[name]
    if column.is_datetime or (column.is_text and looks_like_times(column.cells, compact=True)):
        return True
    return not _mostly_words(table, name) and not np.isnan(table.numbers(name).values).all()


def _date_like(table: Table, free: Sequence[str]) -> tuple[str, ...]:
    for name in free:
        column = table.columns[name]
        if column.is_datetime:
            return (name,)
        if column.is_text and _mostly_words(table, name) and looks_like_times(column.cells):
            return (name,)
    return ()


def _counter(table: Table, free: Sequence[str], identifier: str) -> tuple[str, ...]:
    """A column so called whose numbers never go back in any series, nor always stay."""
    for name in free:
        if normalised(name) not in COUNTERS or name == "T":  # which is a temperature
            continue
        numbers = table.numbers(name)
        if numbers.bad.any() or not np.isfinite(numbers.values).all():
            continue
        names = table.columns[identifier].cells if identifier else np.zeros(len(table.lines))
        grouped = pd.Series(numbers.values).groupby(names, sort=False)
        steps = grouped.diff().dropna()
        if ((steps >= 0).all() and (steps > 0).any()) or (len(steps) and (steps < 0).all()):
            return (name,)
    return ()


def read_times(table: Table, roles: Roles, options: Data) -> Stamps:
    """Return the time of each row; the row's number where no column holds it.

    Raises:
        UserError: If a cell is no time, or zones differ and none is set.
    """
    if not roles.time:
        return Stamps(np.zeros(0), "index")
    source = Source("+".join(roles.time), table.where, options.zone)
    columns = [table.columns[name] for name in roles.time]
    if len(columns) > 1:
        return _read_joined(table, roles.time, source)
    column, numbers = columns[0], table.numbers(roles.time[0])
    if column.is_datetime:
        return parse_typed(column.cells, column.dtype, column.zone, source)
    texts = _compact_texts(column, numbers.values, normalised(roles.time[0]) in TIMES)
    if texts is not None and looks_like_times(texts, compact=True):
        return parse_texts(texts, source)
    if column.is_text and numbers.bad.mean() > 0.5:
        return parse_texts(column.cells, source)
    if numbers.bad.any():
        row = int(numbers.bad.argmax())
        raise UserError(
            f"{table.where(row)}, column {source.name!r}: {column.cells[row]!r} is no number like "
            "the other times; correct the cell, or name another column in data.time"
        )
    return parse_numbers(numbers.values, numbers.dtype, source)


def _compact_texts(column: Column, values: Array, named: bool) -> np.ndarray | None:
    """The cells as text if they may be dates without signs, such as 19580329."""
    if not named or np.isnan(values).any() or not np.all(values == np.rint(values)):
        return None
    texts = column.cells if column.is_text else np.array([f"{v:.0f}" for v in values], object)
    fits = all(
        len(text) in (6, 8, 12, 14) and "1600" <= text[:4] <= "2261" and text.isdecimal()
        for text in texts
    )
    return texts if fits else None


def _read_joined(table: Table, names: tuple[str, ...], source: Source) -> Stamps:
    plain = [normalised(name) for name in names]
    calendar = ("year", *CALENDAR[1])
    if plain[0] == "year" and all(name in calendar for name in plain):
        return parse_calendar(plain, [table.numbers(name).values for name in names], source)
    cells = zip(*(table.columns[name].cells for name in names), strict=True)
    return parse_texts(np.array([JOIN.join(map(str, row)) for row in cells], dtype=object), source)


# Label and values


def _label(table: Table, options: Data, taken: set[str]) -> str:
    if options.label is not None:
        return options.label and table.require(options.label, "data.label")
    chosen = set(options.values or ())
    free = (name for name in table.columns if name not in taken | chosen)
    return next(
        (name for name in free if normalised(name) in LABELS and _in_range(table, name, 0, 1)), ""
    )


def _values(table: Table, options: Data, taken: set[str]) -> tuple[tuple[str, ...], list[str]]:
    """The channels, and a note on the columns that are none."""
    if options.values is not None:
        values = tuple(table.require(name, "data.values") for name in options.values)
        if len(set(values)) < len(values) or not values:
            raise UserError("data.values: expected names of columns, each once; correct it")
        return values, []
    free = [name for name in table.columns if name not in taken]
    words = [name for name in free if _is_none(table, name)]
    rows = [name for name in free if name not in words and _numbers_rows(table, name)]
    values = tuple(name for name in free if name not in {*words, *rows})
    if not values:
        raise UserError(
            f"{table.path}: no column of numbers to model (columns: {', '.join(table.columns)}); "
            "expected at least one; name it in data.values"
        )
    left_out = (("no numbers", words), ("numbers of the rows", rows))
    return values, [f"left out, as {why}: {', '.join(names)}" for why, names in left_out if names]


def _numbers_rows(table: Table, name: str) -> bool:
    values = table.numbers(name).values
    return normalised(name) in ROWS and len(values) > 1 and bool((np.diff(values) == 1).all())


def _is_none(table: Table, name: str) -> bool:
    column = table.columns[name]
    return column.is_datetime or (column.is_text and _mostly_words(table, name))


def read_identifiers(table: Table, name: str) -> np.ndarray:
    """Return the series' name in each row, as text.

    Raises:
        UserError: If one is missing.
    """
    column = table.columns[name]
    cells = column.cells
    if not column.is_text:
        cells = np.array([f"{cell:.0f}" for cell in cells], dtype=object)
    empty = np.array([cell == "" for cell in cells])
    if empty.any():
        raise UserError(
            f"{table.where(int(empty.argmax()))}, column {name!r}: no name of a series; expected "
            "one in each row; fill it in, or set data.identifier"
        )
    return cells
