"""Change some cells of a text file and nothing else in it."""

from __future__ import annotations

import csv
import gzip
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from core.runtime.folder import write_atomic
from domains.series.cli.tables import is_whole
from domains.series.data import Panel, write_panel
from domains.series.data.files import read_text, suffix_of
from domains.series.data.table import DECIMAL_COMMA, DELIMITERS

TEXTS = (".csv", ".tsv", ".txt")
REAL = ("float64", "float32", "float16")


@dataclass(frozen=True)
class Change:
    """Another value of one cell.

    Args:
        line: Of the file, from 1.
        channel: Name of its column.
        text: What is to stand there.
    """

    line: int
    channel: str
    text: str


def write_like(source: Path, out: Path, before: Panel, after: Panel) -> None:
    """Write a panel as the file it was read from, with other values in the cells that changed.

    Between two text files of one kind every other byte stays: columns that are no channels, the
    spelling of numbers, the order of rows, the line ends. To another format, and where rows of the
    file were merged, the panel is written anew.

    Args:
        source: The file.
        out: The file to write.
        before: The panel as read.
        after: The same series with other values.
    """
    text = None
    if suffix_of(source) == suffix_of(out) and suffix_of(out) in TEXTS:
        text = changed_text(read_text(source), list(changes(before, after)), before)
    if text is None:
        write_panel(out, after)
        return
    data = text.encode()
    write_atomic(out, gzip.compress(data, mtime=0) if out.suffix.lower() == ".gz" else data)


def changes(before: Panel, after: Panel) -> Iterator[Change]:
    """The cells in which two panels of the same rows differ."""
    for old, new in zip(before.series, after.series, strict=True):
        same = (old.values == new.values) | (np.isnan(old.values) & np.isnan(new.values))
        for row, channel in np.argwhere(~same):
            text = spelled(float(new.values[row, channel]), after.dtypes[channel])
            line = -1 if old.lines is None else int(old.lines[row])
            yield Change(line, before.channels[channel], text)


def spelled(value: float, dtype: str) -> str:
    """A number as text: nothing for a missing one, no point in a whole one.

    Example:
        >>> spelled(3.0, "Int64"), spelled(0.5, "float64"), spelled(float("nan"), "int64")
        ('3', '0.5', '')
    """
    if np.isnan(value):
        return ""
    return str(round(value)) if is_whole(dtype) else repr(value)


def changed_text(text: str, wanted: Sequence[Change], panel: Panel) -> str | None:
    """The text of a table with other cells; None if it is none whose cells can be told apart."""
    lines = text.splitlines(keepends=True)
    delimiter = _delimiter(lines, panel)
    held = sum(len(one.times) for one in panel.series)
    rows = [line for line in lines if _is_row(line)]
    plain = all(dtype in REAL or is_whole(dtype) for dtype in panel.dtypes)
    if delimiter is None or held != len(rows) - 1 or not plain:
        return None
    names = _cells(rows[0], delimiter)
    places = {name.strip(): place for place, name in enumerate(names)}
    comma = delimiter != "," and _has_decimal_commas(rows[1:], places, panel, delimiter)
    for change in wanted:
        line = lines[change.line - 1]
        cells = _cells(line, delimiter)
        cells[places[change.channel]] = change.text.replace(".", "," if comma else ".")
        lines[change.line - 1] = _joined(cells, delimiter, line)
    return "".join(lines)


def _is_row(line: str) -> bool:
    return bool(line.strip(" \t\r\n,;|\"'")) and not line.lstrip().startswith("#")


def _delimiter(lines: Sequence[str], panel: Panel) -> str | None:
    """What separates the names of the header, if all channels are among them."""
    header = next((line for line in lines if _is_row(line)), "")
    for delimiter in DELIMITERS:
        names = {name.strip() for name in _cells(header, delimiter)}
        if {*panel.channels} <= names and len(names) > 1:
            return delimiter
    return None


def _has_decimal_commas(
    rows: Sequence[str], places: dict[str, int], panel: Panel, delimiter: str
) -> bool:
    columns = [places[name] for name in panel.channels]
    cells = (_cells(row, delimiter) for row in rows)
    return any(DECIMAL_COMMA.fullmatch(row[place].strip()) for row in cells for place in columns)


def _cells(line: str, delimiter: str) -> list[str]:
    bare = line.rstrip("\r\n")
    if '"' not in bare:
        return bare.split(delimiter)
    return next(csv.reader([bare], delimiter=delimiter, skipinitialspace=True))


def _joined(cells: Sequence[str], delimiter: str, line: str) -> str:
    ending = line[len(line.rstrip("\r\n")) :]
    if '"' not in line:
        return delimiter.join(cells) + ending
    buffer = io.StringIO()
    csv.writer(buffer, delimiter=delimiter, lineterminator="").writerow(cells)
    return buffer.getvalue() + ending
