"""Times of many forms → seconds since 1970, and back to the same form."""

from __future__ import annotations

import calendar
import datetime
import re
import zoneinfo
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from core.runtime.errors import UserError, did_you_mean
from domains.series.data.records import Array, Clock, Mask

Cells = NDArray[Any]
Ticks = NDArray[np.int64]  # microseconds since 1970, UTC unless said otherwise
SECOND = 1_000_000
DAY = 86_400 * SECOND
LARGEST_EXACT = 2.0**53  # from here on float64 does not hold every whole number
JOIN = "\x1f"  # between the cells of columns that make up one time; a + in a form
UNITS = ((86_400.0, "d"), (3_600.0, "h"), (60.0, "min"), (1.0, "s"), (1e-3, "ms"), (1e-6, "µs"))
MONTHS = r"[A-Za-z]{3,9}\.?"
DATES = (
    r"\d{4}[-/.]\d{1,2}(?:[-/.]\d{1,2})?",
    r"\d{1,2}[-/.]\d{1,2}[-/.](?:\d{4}|\d{2})",
    rf"\d{{1,2}}[- ]?{MONTHS}[- ,]{{0,2}}(?:\d{{4}}|\d{{2}})",
    rf"{MONTHS} \d{{1,2}},? \d{{4}}",
    rf"{MONTHS}[- ]\d{{4}}",
)
STAMP = re.compile(
    rf"(?P<date>{'|'.join(DATES)})"
    rf"(?:(?P<sep>[ T{JOIN}])"
    r"(?P<clock>(?P<h>\d{1,2})[:.](?P<m>\d{2})(?:[:.](?P<s>\d{2})"
    r"(?:[.,](?P<f>\d{1,9}))?)?(?: ?(?P<half>[AaPp][Mm]))?)"
    r"(?P<zone> ?(?:Z|UTC|GMT|[+-]\d{2}(?::?\d{2})?))?)?"
)
COMPACT = re.compile(
    rf"(?P<date>\d{{8}}|\d{{6}}$)(?:(?P<sep>[T_ {JOIN}]?)"
    r"(?P<clock>(?P<h>\d{2})(?P<m>\d{2})(?P<s>\d{2})?"
    r"(?:[.](?P<f>\d{1,9}))?(?P<half>(?!))?)(?P<zone>Z)?)?"
)
FORMS = (
    *("%Y-%m-%d", "%Y/%m/%d", "%Y.%m.%d", "%Y%m%d"),
    *("%d.%m.%Y", "%d.%m.%y"),  # with points the day is always first
    *(form.replace("-", sign) for sign in "-/" for form in ("%d-%m-%Y", "%m-%d-%Y")),
    *(form.replace("-", sign) for sign in "-/" for form in ("%d-%m-%y", "%m-%d-%y")),
    *("%Y-%m", "%Y/%m", "%Y.%m", "%Y%m", "%d-%b-%Y", "%d %b %Y"),
    *("%d %B %Y", "%d-%B-%Y", "%d%b%Y", "%d-%b-%y", "%b %d, %Y", "%B %d, %Y", "%b %d %Y"),
    *("%B %d %Y", "%b-%Y", "%b %Y", "%B %Y"),
)
ISO = re.compile(
    r"\d{4}-\d{2}-\d{2}(?:(?P<sep>[ T])\d{2}:\d{2}(?P<s>:\d{2}(?:\.(?P<f>\d{1,6}))?)?)?"
    r"(?P<zone>(?<=:..)Z|(?<=\.\d{3})Z|(?<=\.\d{6})Z|)"
)
ISO_FORM = re.compile(
    r"%Y-%m-%d(?:(?P<sep>[ T])%H:%M(?P<s>:%S(?:\.%(?P<f>[1-6])f)?)?)?(?P<zone>Z?)"
)
TOKEN = re.compile(r"%-?[YymdHIMSpbB]|%\df|%:?z|[^%]+")
RESOLUTION = (("%S", SECOND), ("%M", 60 * SECOND), ("%H", 3600 * SECOND), ("%I", 3600 * SECOND))


@dataclass(frozen=True, eq=False)
class Stamps:
    """The times of rows, in the file's order.

    Args:
        times: As in `Clock`.
        kind: As in `Clock`.
        zone: As in `Clock`.
        form: As in `Clock`; of a number its dtype.
        notes: What a reader should know.
    """

    times: Array
    kind: Literal["datetime", "number", "index"]
    zone: str = ""
    form: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Source:
    """What a message says of the column that times come from.

    Args:
        name: The column's.
        where: Place of a row, such as ``a.csv:3``.
        zone: The setting ``data.zone``.
    """

    name: str
    where: Callable[[int], str]
    zone: str | None = None


# Text → seconds


def looks_like_times(cells: Cells, compact: bool = False) -> bool:
    """Whether most first cells of a column of text are dates, with or without a time of day.

    Args:
        cells: The text.
        compact: Whether digits alone may be a date, such as 19580329.

    Example:
        >>> looks_like_times(np.array(["2016-07-01T00:00Z"], dtype=object))
        True
    """
    known = [cell for cell in cells[:1000] if cell][:20]
    if not known:
        return False
    dates = [match["date"] for match in (_match(cell, compact) for cell in known) if match]
    fits = max(_count_dates(dates, form) for form in FORMS) if dates else 0
    return fits > 0 and 2 * fits >= len(known)  # a few may be wrong, which is said later


def _count_dates(texts: Sequence[str], form: str) -> int:
    return int(pd.to_datetime(list(texts), format=form, errors="coerce").notna().sum())


def _match(text: str, compact: bool) -> re.Match[str] | None:
    return STAMP.fullmatch(text) or (COMPACT.fullmatch(text) if compact else None)


def parse_texts(cells: Cells, source: Source) -> Stamps:
    """Read text of one form as datetimes.

    Raises:
        UserError: If a cell is none, day and month cannot be told apart, or zones differ and
            none is set.
    """
    fixed = _fixed(cells)
    if fixed is not None:
        local, form, mark = fixed
        ticks, zone, suffix = _to_utc(local, [mark] * len(local), source)
        return _datetimes(ticks, zone, form + suffix, source)
    matches = [_match(cell, compact=True) for cell in cells]
    for row, match in enumerate(matches):
        if match is None:
            raise UserError(_no_time(source, row, cells[row]))
    parts = [match.groupdict() for match in matches if match is not None]
    days, date_form = _days([part["date"] for part in parts], cells, source)
    local = days + _time_of_day(parts, cells, source)
    order = np.flatnonzero([part["clock"] is not None for part in parts])
    form = date_form + (_clock_form(parts[order[0]]) if len(order) else "")
    texts = [part["zone"] or "" for part in parts]
    ticks, zone, suffix = _to_utc(local, texts, source)
    form = _checked_form((form + suffix).replace(JOIN, "+"), ticks, zone, cells)
    finer = any((part["f"] or "")[6:].strip("0") for part in parts)
    return _datetimes(ticks, zone, form, source, exact=not finer)


def _datetimes(ticks: Ticks, zone: str, form: str, source: Source, exact: bool = True) -> Stamps:
    """Times in seconds, and a note if these are not all of the time."""
    times = ticks / SECOND
    notes = [] if exact else [f"column {source.name!r}: times are kept to a microsecond"]
    if (to_ticks(times) != ticks).any():
        notes.append(f"column {source.name!r}: so far from 1970 microseconds are lost")
    return Stamps(times, "datetime", zone, form, tuple(notes))


def _fixed(cells: Cells) -> tuple[Ticks, str, str] | None:
    """Times, form and mark of the zone of text in ISO 8601 of one length, which is read fast."""
    match = ISO.fullmatch(cells[0])
    if match is None:
        return None
    letters = np.array(cells, dtype=str)
    length = len(cells[0])
    if letters.dtype.itemsize != 4 * length:
        return None
    letters = letters.view("U1").reshape(len(cells), length)
    signs = [place for place, sign in enumerate(cells[0]) if not sign.isdigit()]
    if not all((letters[:, place] == cells[0][place]).all() for place in signs):
        return None
    if match["sep"]:
        letters[:, 10] = "T"
    kept = np.ascontiguousarray(letters[:, : length - len(match["zone"])])
    try:
        read = kept.view(f"U{kept.shape[1]}").ravel().astype("datetime64[us]")
    except ValueError:
        return None
    form = "%Y-%m-%d" + (f"{match['sep']}%H:%M" if match["sep"] else "")
    form += (":%S" if match["s"] else "") + (f".%{len(match['f'])}f" if match["f"] else "")
    return read.astype(np.int64), form, match["zone"]


def _no_time(source: Source, row: int, cell: str) -> str:
    given = f"{cell.replace(JOIN, ' ')!r} is no time" if cell else "no time"
    return (
        f"{source.where(row)}, column {source.name!r}: {given}; expected one like "
        "'2016-07-01 00:00:00' or a number; correct the cell, or name another column in data.time"
    )


def _fitting_forms(dates: Sequence[str]) -> list[tuple[str, Ticks]]:
    """The forms in which all of these texts are dates, and the dates."""
    fitting = []
    for form in FORMS:
        if not _count_dates(dates[:1], form):
            continue
        read = pd.DatetimeIndex(pd.to_datetime(list(dates), format=form, errors="coerce"))
        if not read.isna().any():
            fitting.append((form, read.as_unit("us").asi8))
            if form.startswith("%Y"):
                break
    return fitting


def _days(dates: Sequence[str], cells: Cells, source: Source) -> tuple[Ticks, str]:
    """Midnight of each row, and the form of its date."""
    codes, unique = pd.factorize(np.array(dates, dtype=object))
    fitting = _fitting_forms([*map(str, unique)])
    if not fitting:
        row = _first_misfit(dates)
        raise UserError(_no_time(source, row, cells[row]))
    backward = [int((np.diff(days[codes]) < 0).sum()) for _, days in fitting]
    best = np.flatnonzero(np.array(backward) == min(backward))
    distinct = {fitting[index][1].tobytes() for index in best}
    if len(distinct) > 1:
        raise UserError(
            f"{source.where(0)}, column {source.name!r}: {cells[0].split(JOIN)[0]!r} may begin "
            "with the day or the month; expected dates such as 2016-07-31; write them so"
        )
    form, days = fitting[best[0]]
    if any(re.search(r"(?<!\d)\d(?!\d)", date) for date in unique):
        form = form.replace("%m", "%-m").replace("%d", "%-d")
    return days[codes], form


def _first_misfit(dates: Sequence[str]) -> int:
    """The row up to which some form fits longest."""
    reached = []
    for form in FORMS:
        read = pd.DatetimeIndex(pd.to_datetime(list(dates), format=form, errors="coerce"))
        reached.append(int(read.isna().argmax()))
    return max(reached)


def _time_of_day(parts: Sequence[dict[str, str | None]], cells: Cells, source: Source) -> Ticks:
    ticks = np.zeros(len(parts), dtype=np.int64)
    for row, part in enumerate(parts):
        if part["clock"] is None:
            continue
        hour, minute, second = (int(part[key] or 0) for key in "hms")
        if part["half"]:
            twelve = 1 <= hour <= 12
            hour = hour % 12 + (12 if part["half"].lower() == "pm" else 0) if twelve else 24
        if hour > 23 or minute > 59 or second > 59:
            raise UserError(_no_time(source, row, cells[row]))
        fraction = round(float(f"0.{part['f'] or 0}") * SECOND)
        ticks[row] = ((hour * 60 + minute) * 60 + second) * SECOND + fraction
    return ticks


def _clock_form(part: dict[str, str | None]) -> str:
    """The form of the separator and the time of day of one row."""
    clock, sep = part["clock"] or "", part["sep"] or ""
    if part["half"]:
        space = " " if " " in clock else ""
        hour = "%I" if clock[1].isdigit() else "%-I"
        return f"{sep}{hour}:%M" + (":%S" if part["s"] else "") + f"{space}%p"
    mark = next((sign for sign in ":." if sign in clock[:3]), "")
    hour = "%H" if clock[1].isdigit() else "%-H"
    fraction = f"{clock[-len(part['f']) - 1]}%{len(part['f'])}f" if part["f"] else ""
    return f"{sep}{hour}{mark}%M" + (f"{mark}%S" if part["s"] else "") + fraction


# Zones


def checked_zone(zone: str) -> str:
    """Return the name of a time zone that there is.

    Raises:
        UserError: If there is none of that name.
    """
    try:
        time_zone(zone)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError) as error:
        hint = did_you_mean(zone, zoneinfo.available_timezones())
        raise UserError(
            f"data.zone: no time zone {zone!r}{hint}; expected one such as 'UTC', "
            "'Europe/Berlin' or '+01:00'"
        ) from error
    return zone


def time_zone(zone: str) -> datetime.tzinfo:
    """Return the time zone of a clock: a name such as Europe/Berlin, or an offset.

    Example:
        >>> time_zone("+05:30").utcoffset(None)
        datetime.timedelta(seconds=19800)
    """
    match = re.fullmatch(r"([+-])(\d{2}):?(\d{2})", zone)
    if match is None:
        return zoneinfo.ZoneInfo(zone)
    minutes = int(match[2]) * 60 + int(match[3])
    return datetime.timezone(datetime.timedelta(minutes=minutes if match[1] == "+" else -minutes))


def _to_utc(local: Ticks, texts: Sequence[str], source: Source) -> tuple[Ticks, str, str]:
    """Times in UTC, the zone to write them in, and the form of its mark."""
    codes, unique = pd.factorize(np.array(texts, dtype=object))
    offsets = [_offset(text) for text in unique]
    if len(set(offsets)) > 1:
        if source.zone is None:
            second = int(np.flatnonzero(codes != codes[0])[0])
            names = [text.strip() or "none" for text in (texts[0], texts[second])]
            raise UserError(
                f"{source.where(second)}, column {source.name!r}: time zone {names[1]}, but "
                f"{names[0]} at {source.where(0)}; expected one; set data.zone, such as "
                "Europe/Berlin, to bring them to it"
            )
        naive = np.array([offset is None for offset in offsets])[codes]
        shift = np.array([offset or 0 for offset in offsets], dtype=np.int64)[codes]
        ticks = local - shift * 60 * SECOND
        ticks[naive] = _localised(local[naive], source, np.flatnonzero(naive))
        mark = next((text for text, offset in zip(unique, offsets, strict=True) if offset), "")
        return ticks, checked_zone(source.zone), _mark_form(mark or "+00:00")
    if offsets[0] is None:
        ticks = _localised(local, source, np.arange(len(local)))
        return ticks, source.zone or "", ""
    zone = unique[0].strip()
    minutes = offsets[0]
    named = "UTC" if zone in ("Z", "UTC", "GMT") else _offset_name(minutes)
    return local - minutes * 60 * SECOND, named, _mark_form(unique[0])


def _offset(text: str) -> int | None:
    """Minutes east of UTC; None for a time without a zone."""
    text = text.strip()
    if not text:
        return None
    if text in ("Z", "UTC", "GMT"):
        return 0
    digits = text[1:].replace(":", "").ljust(4, "0")
    minutes = int(digits[:2]) * 60 + int(digits[2:])
    return -minutes if text[0] == "-" else minutes


def _offset_name(minutes: int) -> str:
    sign = "-" if minutes < 0 else "+"
    return f"{sign}{abs(minutes) // 60:02d}:{abs(minutes) % 60:02d}"


def _mark_form(text: str) -> str:
    """The form of a zone's mark: itself where it is a word, else an offset."""
    if text.strip() in ("Z", "UTC", "GMT"):
        return text
    space = " " if text.startswith(" ") else ""
    return space + ("%:z" if ":" in text else "%z")


def _localised(local: Ticks, source: Source, rows: NDArray[np.int64]) -> Ticks:
    """Times in UTC of times that are local to the zone that is set, if one is."""
    if source.zone is None:
        return local
    zone = time_zone(checked_zone(source.zone))
    naive = pd.DatetimeIndex(local.view("datetime64[us]"))
    try:
        aware = naive.tz_localize(zone, ambiguous="infer", nonexistent="NaT")
    except ValueError:  # an hour that comes twice in the year, once in the file
        aware = naive.tz_localize(zone, ambiguous="NaT", nonexistent="NaT")
    lost = np.asarray(aware.isna())
    if lost.any():
        row = int(lost.argmax())
        raise UserError(
            f"{source.where(int(rows[row]))}, column {source.name!r}: {naive[row]} comes twice or "
            f"never in {source.zone} (the clock is changed); expected times in UTC or with their "
            "offset; write them so"
        )
    return aware.tz_convert("UTC").tz_localize(None).as_unit("us").asi8


# Typed and joined columns → times


def parse_typed(cells: Cells, dtype: str, zone: str, source: Source) -> Stamps:
    """Read a column that the file itself holds as datetimes.

    Raises:
        UserError: If one is missing.
    """
    missing = np.isnat(cells)
    if missing.any():
        raise UserError(_no_time(source, int(missing.argmax()), ""))
    index = pd.DatetimeIndex(cells)
    ticks = index.round("us").as_unit("us").asi8
    exact = np.array_equal(pd.DatetimeIndex(ticks.view("datetime64[us]")), index)
    if not zone and source.zone is not None:
        ticks, zone = _localised(ticks, source, np.arange(len(ticks))), source.zone
    return _datetimes(ticks, zone, dtype, source, exact)


def parse_numbers(values: Array, dtype: str, source: Source) -> Stamps:
    """Read a column of numbers as times in a unit of its own.

    Raises:
        UserError: If one is missing, infinite, or too large to be told from the next.
    """
    finite = np.isfinite(values)
    if not finite.all():
        row = int((~finite).argmax())
        cell = "" if np.isnan(values[row]) else str(values[row])
        raise UserError(_no_time(source, row, cell))
    if not dtype.startswith("float") and np.abs(values).max() > LARGEST_EXACT:
        row = int(np.abs(values).argmax())
        raise UserError(
            f"{source.where(row)}, column {source.name!r}: {values[row]:.0f} is too large a "
            "number to be told from the next; expected a date, or at most 2^53; divide it by 1000"
        )
    return Stamps(values, "number", form=dtype)


def parse_calendar(names: Sequence[str], columns: Sequence[Array], source: Source) -> Stamps:
    """Read columns of year and quarter or month as years; of year, month, day … as datetimes.

    Years, not seconds, as quarters and months then are of one length.

    Raises:
        UserError: If there is no such date.
    """
    whole = np.stack(columns)
    bad = ~(np.isfinite(whole) & (whole == np.rint(whole))).all(0)
    if bad.any():
        raise UserError(_no_time(source, int(bad.argmax()), ""))
    if len(names) == 2:
        parts = 4 if names[1] == "quarter" else 12
        _refuse_outside(whole[1], parts, source)
        form = "%Y+%q" if parts == 4 else "%Y+%-m"
        return Stamps(whole[0] + (whole[1] - 1) / parts, "number", form=form)
    units = dict(zip(("year", "month", "day", "hour", "minute"), whole, strict=False))
    read = pd.DatetimeIndex(pd.to_datetime(pd.DataFrame(units), errors="coerce"))
    if read.isna().any():
        row = int(read.isna().argmax())
        raise UserError(_no_time(source, row, "+".join(f"{part:g}" for part in whole[:, row])))
    local = read.as_unit("us").asi8
    ticks, zone, _ = _to_utc(local, [""] * len(local), source)
    form = "+".join(("%Y", "%-m", "%-d", "%-H", "%-M")[: len(names)])
    return Stamps(ticks / SECOND, "datetime", zone, form)


def _refuse_outside(values: Array, parts: int, source: Source) -> None:
    outside = (values < 1) | (values > parts)
    if outside.any():
        row = int(outside.argmax())
        raise UserError(_no_time(source, row, f"{values[row]:g}"))


# Seconds → text


def format_times(clock: Clock, times: Array) -> list[str]:
    """Write times as the file does; where its form is too coarse for them, in ISO 8601.

    Columns that make up one time together (``date+time``) stand with a ``+`` between them.

    Example:
        >>> clock = Clock(kind="datetime", column="t", zone="+01:00", form="%d.%m.%Y %H:%M%:z",
        ...               interval=60)
        >>> format_times(clock, np.array([0.0, 60.0]))
        ['01.01.1970 01:00+01:00', '01.01.1970 01:01+01:00']
    """
    if clock.kind == "datetime":
        ticks = to_ticks(times)
        return _render(_exact_form(clock.form, ticks, clock.zone), ticks, clock.zone)
    if clock.form in ("%Y+%q", "%Y+%-m"):
        parts = 4 if clock.form == "%Y+%q" else 12
        months = np.rint(times * parts).astype(np.int64)
        return [f"{month // parts}+{month % parts + 1}" for month in months.tolist()]
    if np.all(times == np.rint(times)) and not clock.form.startswith("float"):
        return [str(int(time)) for time in times.tolist()]
    return [repr(time) for time in times.tolist()]


def to_ticks(times: Array) -> Ticks:
    """Return the nearest whole microseconds; those that were read, from 1698 to 2242."""
    whole = np.floor(times)
    return whole.astype(np.int64) * SECOND + np.rint((times - whole) * SECOND).astype(np.int64)


def local_times(clock: Clock, times: Array) -> pd.DatetimeIndex:
    """Return datetimes in the clock's zone, aware of it if it has one."""
    return _local(to_ticks(times), clock.zone)


def _local(ticks: Ticks, zone: str) -> pd.DatetimeIndex:
    index = pd.DatetimeIndex(ticks.view("datetime64[us]"))
    return index.tz_localize("UTC").tz_convert(time_zone(zone)) if zone else index


def _checked_form(form: str, ticks: Ticks, zone: str, cells: Cells) -> str:
    """The form, if it gives back every cell; else ISO 8601."""
    given = [cell.replace(JOIN, "+") for cell in cells]
    iso = "iso+" if given[0] != cells[0] else "iso"
    return form if _render(form, ticks, zone) == given else iso


def _exact_form(form: str, ticks: Ticks, zone: str) -> str:
    """The form, or a finer one if it would lose a part of the times."""
    local = _local(ticks, zone).tz_localize(None).as_unit("us").asi8
    if form.startswith("%") and not (local % _resolution(form)).any():
        return form
    between = "+" if "+" in form else " "
    if not (local % DAY).any() and not zone and between == " ":
        return "%Y-%m-%d"
    digits = next(n for n in (0, 3, 6) if not (local % 10 ** (6 - n)).any())
    return (
        f"%Y-%m-%d{between}%H:%M:%S" + (f".%{digits}f" if digits else "") + ("%:z" if zone else "")
    )


def _resolution(form: str) -> int:
    """Microseconds between two times that a form can write."""
    fraction = re.search(r"%(\d)f", form)
    if fraction:
        return 10 ** max(6 - int(fraction[1]), 0)
    plain = form.replace("%-", "%")
    return next((ticks for token, ticks in RESOLUTION if token in plain), DAY)


def _render(form: str, ticks: Ticks, zone: str) -> list[str]:
    aware = _local(ticks, zone)
    local = aware.tz_localize(None) if zone else aware
    match = ISO_FORM.fullmatch(form)
    if match is not None and (local.year >= 0).all() and (local.year < 10_000).all():
        return _render_fixed(match, local)
    fraction = local.as_unit("us").asi8 % SECOND
    offsets = (local.as_unit("us").asi8 - ticks) // (60 * SECOND)
    parts = [_token(token, local, fraction, offsets) for token in TOKEN.findall(form)]
    return ["".join(words) for words in zip(*parts, strict=True)]


def _render_fixed(match: re.Match[str], local: pd.DatetimeIndex) -> list[str]:
    """Write ISO 8601 of one length, fast."""
    length = 20 + int(match["f"]) if match["f"] else 19 if match["s"] else 16
    full = np.datetime_as_string(local.to_numpy(), unit="us").tolist()
    if not match["sep"]:
        return [text[:10] for text in full]
    sep, zone = match["sep"], match["zone"]
    return [f"{text[:10]}{sep}{text[11:length]}{zone}" for text in full]


def _token(
    token: str, local: pd.DatetimeIndex, fraction: NDArray[np.int64], offsets: NDArray[np.int64]
) -> list[str]:
    if not token.startswith("%"):
        return [token] * len(local)
    if token.endswith("f"):
        return [f"{part:06d}".ljust(9, "0")[: int(token[1])] for part in fraction.tolist()]
    if token.endswith("z"):
        names = [_offset_name(minutes) for minutes in offsets.tolist()]
        return names if ":" in token else [name.replace(":", "") for name in names]
    if token == "%p":
        return ["PM" if hour >= 12 else "AM" for hour in local.hour]
    if token in ("%b", "%B"):
        months = calendar.month_abbr if token == "%b" else calendar.month_name
        return [months[month] for month in local.month]
    if token == "%Y":
        return [f"{year:04d}" for year in local.year]
    numbers = {
        "y": lambda: local.year % 100,
        "m": lambda: local.month,
        "d": lambda: local.day,
        "H": lambda: local.hour,
        "I": lambda: (local.hour + 11) % 12 + 1,
        "M": lambda: local.minute,
        "S": lambda: local.second,
    }[token[-1]]()
    return [str(n) for n in numbers] if "-" in token else [f"{n:02d}" for n in numbers]


def span(duration: float | None, kind: str) -> str:
    """Write a duration in its largest unit.

    Example:
        >>> span(900.0, "datetime"), span(0.016, "datetime"), span(2.0, "number")
        ('15 min', '16 ms', '2')
    """
    if duration is None:
        return ""
    if kind != "datetime":
        return f"{duration:.6g}"
    unit, name = next((pair for pair in UNITS if duration >= 0.999999 * pair[0]), UNITS[-1])
    return f"{duration / unit:.4g} {name}"


# Beyond the last row


def following(clock: Clock, times: Array, count: int) -> Array:
    """Return the next ``count`` times after those of a series.

    They go on by the clock's interval, but in the calendar where the series keeps to it: whole
    months on the same day (or at the month's end), days without Saturdays and Sundays.

    Example:
        >>> clock = Clock(kind="number", column="year", zone="", form="int64", interval=1.0)
        >>> following(clock, np.array([1999.0, 2000.0]), 2)
        array([2001., 2002.])
    """
    if clock.kind == "datetime" and len(times) >= 3:
        local = local_times(clock, times)
        naive = local.tz_localize(None) if clock.zone else local
        offset = _calendar_step(naive, bool(clock.zone))
        if offset is not None:
            steps = pd.DatetimeIndex([naive[-1] + offset * (k + 1) for k in range(count)])
            if clock.zone:
                steps = steps.tz_localize(
                    time_zone(clock.zone),
                    ambiguous=np.zeros(count, bool),
                    nonexistent="shift_forward",
                ).tz_convert("UTC")
                steps = steps.tz_localize(None)
            return steps.as_unit("us").asi8 / SECOND
    return times[-1] + clock.interval * np.arange(1, count + 1)


def _calendar_step(naive: pd.DatetimeIndex, zoned: bool) -> Any | None:
    """The step of a series of whole months, days or working days, None for another."""
    months = np.asarray(naive.year * 12 + naive.month)
    step = np.diff(months)
    same_time = len({*(naive - naive.normalize())}) == 1
    if not same_time:
        return None
    if step.min() > 0:
        usual = int(np.median(step))
        if np.asarray(naive.is_month_end).all():
            return pd.offsets.MonthEnd(usual)
        return pd.DateOffset(months=usual) if len({*naive.day}) == 1 else None
    days = np.diff(naive.normalize().as_unit("us").asi8) // DAY
    if np.median(days) == 1 and not _weekend(naive).any() and (days > 1).any():
        return pd.offsets.BDay(1)
    return pd.DateOffset(days=int(np.median(days))) if zoned else None


def _weekend(naive: pd.DatetimeIndex) -> Mask:
    return np.asarray(naive.day_of_week >= 5)
