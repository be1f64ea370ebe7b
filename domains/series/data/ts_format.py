"""The .ts text format of sktime and aeon: a case a line, a channel between colons."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from core.runtime.errors import UserError
from domains.series.data.files import read_text
from domains.series.data.records import Array, Clock, Panel, Series
from domains.series.data.table import MISSING
from domains.series.data.times import Source, format_times, parse_numbers, parse_texts

INDEX = Clock(kind="index", column="", zone="", form="", interval=1.0)
PAIR = re.compile(r"\(([^()]*),([^,()]*)\)")
CASE = "case"  # column of the series' names when they are written into a table


@dataclass(frozen=True)
class Header:
    """What the lines that begin with @ say.

    Args:
        settings: Their words in lower case, by the first of them without @.
        data: Number of the first line after ``@data``.
    """

    settings: dict[str, list[str]]
    data: int

    def says(self, name: str) -> bool:
        """Whether a setting is true."""
        return self.settings.get(name, ["false"])[:1] == ["true"]

    @property
    def has_target(self) -> bool:
        """Whether a class or a number to predict ends each case."""
        return self.says("classlabel") or self.says("targetlabel")


def read(path: Path) -> Panel:
    """Read every case as a series; classes are left out, as no model sees them.

    Cases are named by their number from 1, channels ``x1``, ``x2``, …. With timestamps, channels
    of one case are brought together on the union of their times, missing where one has none.

    Raises:
        UserError: If the file is not of the format, or a number is none.
    """
    lines = read_text(path).splitlines()
    header = _header(path, lines)
    numbered = [
        (number, line.strip())
        for number, line in enumerate(lines[header.data :], start=header.data + 1)
        if line.strip() and not line.startswith("#")
    ]
    if not numbered:
        raise UserError(f"{path}: no cases after @data; expected one a line")
    cases = [_channels(path, number, line, header) for number, line in numbered]
    width = len(cases[0])
    for (number, _), case in zip(numbered, cases, strict=True):
        if len(case) != width:
            raise UserError(
                f"{path}:{number}: {len(case)} channels, the first case has {width}; expected as "
                "many in each, between colons"
            )
    notes = ("the class of each case is left out",) if header.has_target else ()
    if header.says("timestamps"):
        series, clock = _with_times(path, numbered, cases)
    else:
        series, clock = (
            [_without_times(path, n, c) for (n, _), c in zip(numbered, cases, strict=True)],
            INDEX,
        )
    names = [""] if len(series) == 1 else [str(number) for number in range(1, len(series) + 1)]
    return Panel(
        series=tuple(
            Series(name, times, values, None, np.full(len(times), line))
            for name, (times, values), (line, _) in zip(names, series, numbered, strict=True)
        ),
        channels=tuple(f"x{number}" for number in range(1, width + 1)),
        dtypes=("float64",) * width,
        clock=clock,
        identifier=CASE if len(series) > 1 else "",
        notes=notes,
    )


def _header(path: Path, lines: Sequence[str]) -> Header:
    settings = {}
    for number, line in enumerate(lines):
        words = line.strip().lower().split()
        if words[:1] == ["@data"]:
            return Header(settings, number + 1)
        if words and words[0].startswith("@"):
            settings[words[0][1:]] = words[1:]
        elif words and not words[0].startswith(("#", "%")):
            raise UserError(
                f"{path}:{number + 1}: {line.strip()[:20]!r} before @data; expected lines that "
                "begin with @ or #; is it a .ts file?"
            )
    raise UserError(f"{path}: no line @data; expected the .ts format of sktime and aeon")


def _channels(path: Path, number: int, line: str, header: Header) -> list[str]:
    """The text of each channel of a case, without its class."""
    if header.says("timestamps"):  # a time of day has colons too
        parts = re.split(r":(?![^()]*\))", line)
    else:
        parts = line.split(":")
    if header.has_target:
        parts = parts[:-1]
    if not parts or not all(part.strip() for part in parts):
        raise UserError(
            f"{path}:{number}: an empty channel; expected numbers between commas, channels "
            "between colons" + (", a class at the end" if header.has_target else "")
        )
    return parts


def _numbers(path: Path, line: int, channel: int, cells: Sequence[str]) -> Array:
    try:
        return np.array(
            [math.nan if cell.strip().lower() in MISSING else float(cell) for cell in cells]
        )
    except ValueError as error:
        cell = str(error).partition(": ")[2]
        raise UserError(
            f"{path}:{line}, channel {channel + 1}: {cell} is not a number; expected one, or ? "
            "where it is missing; correct it"
        ) from error


def _without_times(path: Path, line: int, case: Sequence[str]) -> tuple[Array, Array]:
    """Times and values of a case without timestamps; shorter channels are missing at the end."""
    columns = [_numbers(path, line, j, text.split(",")) for j, text in enumerate(case)]
    values = np.full((max(map(len, columns)), len(columns)), np.nan)
    for channel, column in enumerate(columns):
        values[: len(column), channel] = column
    return np.arange(len(values), dtype=np.float64), values


def _with_times(
    path: Path, numbered: Sequence[tuple[int, str]], cases: Sequence[Sequence[str]]
) -> tuple[list[tuple[Array, Array]], Clock]:
    pairs = [[PAIR.findall(text) for text in case] for case in cases]
    flat = [
        (c, j, t, v) for c, case in enumerate(pairs) for j, ps in enumerate(case) for t, v in ps
    ]
    if not flat:
        raise UserError(f"{path}: @timeStamps true; expected (time,value) pairs in each channel")
    cells = np.array([time.strip().strip("\"'") for _, _, time, _ in flat], dtype=object)
    source = Source("time", lambda row: f"{path}:{numbered[flat[row][0]][0]}")
    numeric = all(re.fullmatch(r"[+-]?\d+(\.\d*)?([eE][+-]?\d+)?", cell) for cell in cells)
    if numeric:
        whole = all("." not in cell and "e" not in cell.lower() for cell in cells)
        stamps = parse_numbers(cells.astype(np.float64), "int64" if whole else "float64", source)
    else:
        stamps = parse_texts(cells, source)
    clock = Clock(
        kind=stamps.kind, column="time", zone=stamps.zone, form=stamps.form, interval=1.0
    )
    at = iter(stamps.times)
    return [
        _union(path, line, [[(next(at), value) for _, value in channel] for channel in case])
        for (line, _), case in zip(numbered, pairs, strict=True)
    ], clock


def _union(
    path: Path, line: int, case: Sequence[Sequence[tuple[float, str]]]
) -> tuple[Array, Array]:
    """Channels on the union of their times; the order of the file where all have the same."""
    own = [[time for time, _ in channel] for channel in case]
    same = all(times == own[0] for times in own)
    times = np.array(own[0]) if same else np.unique(np.concatenate([*map(np.array, own)]))
    values = np.full((len(times), len(case)), np.nan)
    for channel, pairs in enumerate(case):
        rows = np.arange(len(times)) if same else np.searchsorted(times, own[channel])
        values[rows, channel] = _numbers(path, line, channel, [value for _, value in pairs])
    return times, values


def text_of(panel: Panel) -> str:
    """Write a panel in the format; names of series and channels have no place in it."""
    lengths = {len(one.times) for one in panel.series}
    timed = panel.clock.kind != "index"
    settings = {
        "problemName": "latentworks",
        "timeStamps": timed,
        "missing": any(np.isnan(one.values).any() for one in panel.series),
        "univariate": len(panel.channels) == 1,
        "dimensions": len(panel.channels),
        "equalLength": len(lengths) == 1,
        **({"seriesLength": max(lengths)} if len(lengths) == 1 else {}),
        "classLabel": False,
    }
    header = [f"@{name} {str(value).replace('True', 'true')}" for name, value in settings.items()]
    header = [line.replace("False", "false") for line in header]
    named = f"# channels: {', '.join(panel.channels)}"
    return "\n".join(
        [named, *header, "@data", *(_line(panel, one, timed) for one in panel.series), ""]
    )


def _line(panel: Panel, series: Series, timed: bool) -> str:
    texts = [
        ["?" if math.isnan(value) else repr(value) for value in column]
        for column in series.values.T.tolist()
    ]
    if timed:
        stamps = format_times(_plain(panel.clock), series.times)
        texts = [
            [f"({time},{value})" for time, value in zip(stamps, column, strict=True)]
            for column in texts
        ]
    return ":".join(",".join(column) for column in texts)


def _plain(clock: Clock) -> Clock:
    """A clock whose times stand in one cell, without a comma, and are not taken for others."""
    if clock.kind == "number":
        return replace(clock, form="float64" if "%" in clock.form else clock.form)
    odd = "+" in clock.form or "," in clock.form or clock.form.startswith("%Y%m")
    return replace(clock, form="iso") if odd else clock
