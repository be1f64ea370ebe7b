"""What a model cannot learn from, and what a person should look at, each in one line."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from domains.series.data.files import place
from domains.series.data.records import Array, Mask, Panel, Series
from domains.series.data.times import format_times, span

LARGEST = float(np.finfo(np.float32).max)  # of a number that a model can hold
CODES = (
    *(-1.0, -9.0, -99.0, -200.0, -999.0, -9999.0, -99999.0, -32768.0, -99.9, -999.9, -9999.9),
    *(99.0, 999.0, 9999.0, 99999.0, 999999.0, 32767.0, 65535.0, 99.9, 999.9, 9999.9),
    *(1e20, 1e30, 9.96921e36, -1e30),
)
WILD = 1e6  # ratio of the widest channel to the narrowest
CHANGE = 1.5  # ratio of intervals that are two frequencies
BLOCK = 10  # intervals at least that make a frequency
STEADY = 0.8  # share of intervals near the median that makes a stretch regular


def problems(panel: Panel, path: Path, kinds: Sequence[str]) -> Iterator[str]:
    """Say what stands in the way, one line each.

    Args:
        panel: As read.
        path: For messages.
        kinds: ``times`` must increase; ``numbers`` must be finite; ``channels`` must vary;
            the ``frequency`` must stay.
    """
    checks = {
        "times": _times,
        "numbers": _numbers,
        "channels": _channels,
        "frequency": _frequencies,
    }
    for kind in kinds:
        yield from checks[kind](panel, path)


def remarks(panel: Panel) -> Iterator[str]:
    """Say what a reader should know of data that can be learnt from."""
    for channel, values in zip(panel.channels, pooled(panel).T, strict=True):
        for code, count in suspected_codes(values):
            yield (
                f"channel {channel!r}: {code:g} comes {count:,} times, far from the rest; if it "
                "stands for missing values, give it in data.na_values"
            )
    yield from _twins(panel)
    yield from _scales(panel)
    yield from _irregular(panel)
    yield from _different_intervals(panel)


def pooled(panel: Panel) -> Array:
    """Return the rows of all series, one after the other."""
    return np.concatenate([one.values for one in panel.series])


def _where(panel: Panel, series: Series, row: int, path: Path) -> str:
    line = None if series.lines is None else int(series.lines[row])
    named = f", series {series.name!r}" if series.name else ""
    numbered = "" if line is not None and _lines_differ(series) else f", row {row + 1}"
    return f"{place(path, line)}{named}{numbered}"


def _lines_differ(series: Series) -> bool:
    lines = series.lines
    return lines is not None and (len(lines) < 2 or bool(lines[0] != lines[-1]))


# Times


def _times(panel: Panel, path: Path) -> Iterator[str]:
    for series in panel.series:
        steps = np.diff(series.times)
        if (steps > 0).all():
            continue
        row = int((steps <= 0).argmax()) + 1
        stamps = format_times(panel.clock, series.times[row - 1 : row + 1])
        where = f"{_where(panel, series, row, path)}, column {panel.clock.column!r}"
        if steps[row - 1] == 0:
            yield (
                f"{where}: time {stamps[1]!r} twice; expected one row a time; set data.merge "
                f"(--merge) to mean, first or last{_name_series(panel)}"
            )
        else:
            yield (
                f"{where}: time {stamps[1]!r} after {stamps[0]!r}; expected increasing times; "
                f"sort the file by them{_name_series(panel)}"
            )


def _name_series(panel: Panel) -> str:
    return "" if panel.identifier else ", or name the column of several series: data.identifier"


@dataclass(frozen=True)
class Change:
    """Where the frequency of a series changes.

    Args:
        row: The first row after it.
        before: The usual interval before it.
        after: The usual interval after it.
    """

    row: int
    before: float
    after: float


def frequency_change(times: Array) -> Change | None:
    """Find the row from which a series is sampled at another interval; None if there is none.

    Blocks of intervals are compared with the next; only regular ones count (four in five intervals
    within a tenth of their median), so that gaps and irregular sampling are no change.

    Example:
        >>> times = np.concatenate([np.arange(100.0), 100 + 2 * np.arange(100.0)])
        >>> frequency_change(times)
        Change(row=101, before=1.0, after=2.0)
    """
    steps = np.diff(times)
    size = max(BLOCK, len(steps) // 50)
    starts = range(0, len(steps) - size + 1, size)
    steady = [
        (start, float(np.median(block)))
        for start in starts
        if _is_steady(block := steps[start : start + size])
    ]
    for (_, before), (start, after) in pairwise(steady):
        if not 1 / CHANGE <= after / before <= CHANGE:
            return Change(_first_row(steps, start, size, before, after), before, after)
    return None


def _is_steady(block: Array) -> bool:
    middle = np.median(block)
    return bool((np.abs(block - middle) <= 0.1 * middle).mean() >= STEADY)


def _first_row(steps: Array, start: int, size: int, before: float, after: float) -> int:
    """The row after the last interval that is nearer the old one than the new."""
    low = max(start - size, 0)
    logs = np.abs(np.log(steps[low : start + size] / before))
    old = np.flatnonzero(logs < np.abs(np.log(steps[low : start + size] / after)))
    return low + (int(old[old < start - low + size // 2][-1]) if len(old) else -1) + 2


def _frequencies(panel: Panel, path: Path) -> Iterator[str]:
    for series in panel.series:
        increasing = bool((np.diff(series.times) > 0).all())
        change = frequency_change(series.times) if increasing else None
        if change is None:
            continue
        stamp = format_times(panel.clock, series.times[[change.row - 1]])[0]
        after, before = (span(step, panel.clock.kind) for step in (change.after, change.before))
        yield (
            f"{_where(panel, series, change.row - 1, path)}, column {panel.clock.column!r}: from "
            f"{stamp!r} on rows are {after} apart, before {before}; "
            "expected one frequency; resample the file, or split it there into two series"
        )


def irregularity(steps: Array) -> float:
    """Return the share of intervals that are not near the median or, as gaps are, a multiple.

    Example:
        >>> irregularity(np.array([1.0, 1.0, 1.0, 3.0, 1.0])), irregularity(np.array([1.0, 1.5]))
        (0.0, 1.0)
    """
    middle = np.median(steps)
    if middle <= 0:
        return float((steps != middle).mean())
    multiples = np.maximum(np.rint(steps / middle), 1)
    return float((np.abs(steps / middle - multiples) > 0.1).mean())


def _irregular(panel: Panel) -> Iterator[str]:
    steps = np.concatenate([np.diff(one.times) for one in panel.series])
    if len(steps) and irregularity(steps) > 1 - STEADY:
        kind = panel.clock.kind
        low, middle, high = (span(step, kind) for step in np.quantile(steps, [0.05, 0.5, 0.95]))
        yield f"times are irregular: usually {middle} apart, nine in ten {low} to {high}"


def _different_intervals(panel: Panel) -> Iterator[str]:
    usual = [float(np.median(np.diff(one.times))) for one in panel.series if len(one.times) > 2]
    if usual and max(usual) > CHANGE * min(usual):
        least, most = (span(step, panel.clock.kind) for step in (min(usual), max(usual)))
        yield f"series differ in their usual interval: {least} to {most}"


# Numbers


def _numbers(panel: Panel, path: Path) -> Iterator[str]:
    for series in panel.series:
        yield from _first_of(panel, series, np.isinf(series.values), path, "is not finite")
        with np.errstate(invalid="ignore"):
            wild = np.isfinite(series.values) & (np.abs(series.values) > LARGEST)
        yield from _first_of(panel, series, wild, path, f"is beyond {LARGEST:.2g}")


def _first_of(panel: Panel, series: Series, mask: Mask, path: Path, what: str) -> Iterator[str]:
    if mask.any():
        row, column = np.argwhere(mask)[0]
        yield (
            f"{_where(panel, series, int(row), path)}, column {panel.channels[column]!r}: "
            f"{series.values[row, column]:g} {what}; expected a number, or nothing where it is "
            "missing; correct the cell"
        )


def _channels(panel: Panel, path: Path) -> Iterator[str]:
    values = pooled(panel)
    for channel, column in zip(panel.channels, values.T, strict=True):
        known = column[~np.isnan(column)]
        if len(known) and known.min() < known.max():
            continue
        what = f"{known[0]:g} throughout" if len(known) else "missing throughout"
        others = [name for name in panel.channels if name != channel]
        fix = "leave it out: name the others in data.values" if others else "there is no other"
        yield f"{path}, column {channel!r}: {what}; expected values that vary; {fix}"


def suspected_codes(values: Array) -> list[tuple[float, int]]:
    """Find numbers that may stand for missing, with how often they come.

    Such a number is one of the usual codes, the smallest or largest, comes more than once, and is
    farther from the next value than a tenth of the range that nine in ten others keep to.

    Example:
        >>> suspected_codes(np.array([3.0, 4.0, 5.0, -999.0, 6.0, -999.0]))
        [(-999.0, 2)]
    """
    found: list[tuple[float, int]] = []
    known = values[np.isfinite(values)]
    for extreme in (np.min, np.max, np.min, np.max):  # again, as one may have hidden the other
        code = float(extreme(known)) if len(known) else 0.0
        others = known[known != code]
        count = len(known) - len(others)
        if code in CODES and count > 1 and len(others) and _is_far(code, others):
            found.append((code, count))
            known = others
    return sorted(found)


def _is_far(code: float, others: Array) -> bool:
    low, high = np.quantile(others, [0.05, 0.95])
    return bool(low < high and np.abs(others - code).min() > 0.1 * (high - low))


def _twins(panel: Panel) -> Iterator[str]:
    first: dict[bytes, str] = {}
    for channel, column in zip(panel.channels, pooled(panel).T, strict=True):
        same = first.setdefault(column.tobytes(), channel)
        if same != channel:
            yield f"channels {same!r} and {channel!r} are the same in every row"


def _scales(panel: Panel) -> Iterator[str]:
    values = pooled(panel)
    known = [column[np.isfinite(column)] for column in values.T]
    ranges = np.array([np.ptp(column) if len(column) else 0.0 for column in known])
    ranges = np.where(ranges > 0, ranges, np.nan)
    if (ranges > 0).any() and np.nanmax(ranges) > WILD * np.nanmin(ranges):
        wide, narrow = int(np.nanargmax(ranges)), int(np.nanargmin(ranges))
        yield (
            f"channel {panel.channels[wide]!r} ranges over {ranges[wide]:.3g}, "
            f"{panel.channels[narrow]!r} over {ranges[narrow]:.3g}: more than a million times as "
            "far; are the units right?"
        )
