"""Tables: CSV and its kin, and parquet, as columns with the line of each row."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from core.runtime.errors import UserError, did_you_mean
from domains.series.data.files import place, read_bytes, read_text, suffix_of
from domains.series.data.records import Array, Mask

DELIMITERS = ("\t", ",", ";", "|")
MISSING = frozenset(
    (
        "",
        "na",
        "n/a",
        "<na>",
        "#n/a",
        "nan",
        "nat",
        "null",
        "nil",
        "none",
        "missing",
        "?",
        "-",
        ".",
    )
)
NUMBER = re.compile(r"[+-]?(\d+[.,]?\d*|[.,]\d+)([eE][+-]?\d+)?")
DECIMAL_COMMA = re.compile(r"[+-]?\d+,\d+([eE][+-]?\d+)?")
Cells = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Column:
    """One column as a file holds it.

    Args:
        cells: Text as Python strings; numbers as float64 with NaN where missing; or datetimes as
            ``datetime64``, in UTC if they have a zone.
        dtype: As the file calls it; ``text`` for text.
        zone: Time zone of datetimes, ``""`` for naive ones.
    """

    cells: Cells
    dtype: str = "text"
    zone: str = ""

    @property
    def is_text(self) -> bool:
        """Whether its cells are strings."""
        return self.cells.dtype == object

    @property
    def is_datetime(self) -> bool:
        """Whether the file itself says that its cells are datetimes."""
        return self.cells.dtype.kind == "M"


@dataclass(frozen=True, eq=False)
class Numbers:
    """A column read as numbers.

    Args:
        values: NaN where missing or no number.
        bad: Which cells are neither missing nor a number.
        dtype: The narrowest dtype that text allows; ``Int64`` and ``boolean`` are those of pandas,
            which know missing values.
    """

    values: Array
    bad: Mask
    dtype: str


@dataclass(frozen=True, eq=False)
class Table:
    """Columns of equal length, by name.

    Args:
        path: The file.
        columns: In the file's order.
        lines: Line of each row in a text file, its number from 1 in another.
        numbers: Cache of columns that were read as numbers.
    """

    path: Path
    columns: Mapping[str, Column]
    lines: NDArray[np.int64]
    _numbers: dict[str, Numbers]

    def where(self, row: int) -> str:
        """Return the place of a row, as a message begins."""
        return place(self.path, int(self.lines[row]))

    def numbers(self, name: str) -> Numbers:
        """Return a column read as numbers."""
        if name not in self._numbers:
            self._numbers[name] = as_numbers(self.columns[name])
        return self._numbers[name]

    def require(self, name: str, setting: str) -> str:
        """Return the name of a column that there is.

        Raises:
            UserError: If there is no such column.
        """
        if name in self.columns:
            return name
        raise UserError(
            f"{self.path}: {setting}: no column {name!r}{did_you_mean(name, self.columns)}; "
            f"there are: {', '.join(self.columns)}"
        )


def make_table(path: Path, columns: Mapping[str, Column], lines: Sequence[int] | None) -> Table:
    """Return a table; without ``lines`` its rows are numbered from 1."""
    rows = len(next(iter(columns.values())).cells)
    numbers = np.arange(1, rows + 1) if lines is None else np.asarray(lines, dtype=np.int64)
    return Table(path, columns, numbers.astype(np.int64), {})


# Numbers


def as_numbers(column: Column) -> Numbers:
    """Read a column as numbers; a datetime is none."""
    if column.is_datetime:
        nothing = np.full(len(column.cells), np.nan)
        return Numbers(nothing, ~np.isnat(column.cells), column.dtype)
    if not column.is_text:
        return Numbers(column.cells, np.zeros(len(column.cells), dtype=bool), column.dtype)
    read = pd.to_numeric(pd.Series(column.cells, dtype=object), errors="coerce")
    values = np.array(read, dtype=np.float64)
    unread = np.isnan(values)
    words = pd.Series(column.cells[unread], dtype=object).str.lower()
    missing = unread.copy()
    missing[unread] = words.isin(MISSING)
    truths = words.map({"true": 1.0, "false": 0.0}).to_numpy(dtype=np.float64)
    if unread.all() and not np.isnan(truths[~missing]).any() and not missing.all():
        return Numbers(truths, np.zeros_like(missing), "boolean" if missing.any() else "bool")
    return Numbers(values, unread & ~missing, _text_dtype(column.cells, values, missing))


def _text_dtype(cells: Cells, values: Array, missing: Mask) -> str:
    """Whole numbers, if they were written without a point."""
    known = ~np.isnan(values)
    if not known.any() or not np.all(values[known] == np.rint(values[known])):
        return "float64"
    if np.abs(values[known]).max() >= 2**63 or not all(
        cell.lstrip("+-").isdecimal() for cell in cells[known]
    ):
        return "float64"
    return "Int64" if missing.any() else "int64"


# Text


def read_delimited(path: Path) -> Table:
    """Split a text file into columns.

    Blank lines and lines that begin with # are passed over, but for a last one before the rows
    that names the columns, as numpy writes it. Columns are separated by tab, comma, semicolon, |
    or space; with another separator than a comma, numbers may have a decimal comma.

    Raises:
        UserError: If it is no text, has no header or no rows, or its rows differ in length.
    """
    numbered = enumerate(read_text(path).splitlines(), start=1)
    filled = [(number, line) for number, line in numbered if line.strip()]
    kept = [(number, line) for number, line in filled if not line.lstrip().startswith("#")]
    if not kept:
        raise UserError(f"{path}: only comments; expected names of columns and rows of numbers")
    delimiter = _delimiter(path, [line for _, line in kept[:2]])
    rows = _split(path, [line for _, line in kept], delimiter)
    lines = [number for number, _ in kept]
    header = _header(path, rows[0], lines[0], filled, delimiter)
    if header is rows[0]:
        rows, lines = rows[1:], lines[1:]
    if not rows:
        raise UserError(f"{path}: names of columns and no rows; expected rows of numbers")
    _refuse_ragged(path, header, rows, lines)
    columns = [
        np.array([*map(str.strip, cells)], dtype=object) for cells in zip(*rows, strict=True)
    ]
    if delimiter != ",":
        columns = [_with_points(cells) for cells in columns]
    rest = _rows_before_tail(columns)
    columns = [cells[:rest] for cells in columns]
    return make_table(path, _named(path, header, columns), lines[:rest])


def _delimiter(path: Path, lines: Sequence[str]) -> str:
    """The sign that comes most in the first line; spaces if they make as many columns below."""
    if suffix_of(path) == ".tsv":
        return "\t"
    first = lines[0]
    if any(map(first.count, DELIMITERS)):
        return max(DELIMITERS, key=first.count)
    words = {len(line.split()) for line in lines}
    return " " if len(words) == 1 and words != {1} else ","


def _split(path: Path, lines: list[str], delimiter: str) -> list[list[str]]:
    if delimiter == " " and not any('"' in line for line in lines):
        return [line.split() for line in lines]
    try:
        rows = list(csv.reader(lines, delimiter=delimiter, skipinitialspace=True))
    except csv.Error as error:
        raise UserError(f"{path}: not a table ({error}); save it as CSV again") from error
    if len(rows) < len(lines):
        raise UserError(f"{path}: a quoted cell goes over several lines; remove the line break")
    return rows


def _header(
    path: Path, first: list[str], line: int, filled: list[tuple[int, str]], delimiter: str
) -> list[str]:
    """The first row, or a commented line above it, if it names the columns."""
    if not all(_is_value(cell) for cell in first):
        return first
    above = [text.lstrip("# \t") for number, text in filled if number < line]
    named = [row for row in _split(path, above[-1:], delimiter) if len(row) == len(first)]
    if not named:
        raise UserError(
            f"{place(path, line)}: the first line holds values ({', '.join(first[:3])}…); "
            "expected the columns' names; add a first line with them"
        )
    return named[0]


def _is_value(cell: str) -> bool:
    """A number, or something with a date's digits and signs only."""
    cell = cell.strip()
    return bool(NUMBER.fullmatch(cell) or re.fullmatch(r"\d[\d\s:/.TZ+-]*", cell))


def _refuse_ragged(path: Path, header: list[str], rows: list[list[str]], lines: list[int]) -> None:
    for row, line in zip(rows, lines, strict=True):
        if len(row) != len(header):
            raise UserError(
                f"{place(path, line)}: {len(row)} columns, the header has {len(header)}; expected "
                "as many in each line"
            )


def _with_points(cells: Cells) -> Cells:
    """A column of numbers with decimal commas, written with points; another as it is."""
    first = next((cell for cell in cells if cell.lower() not in MISSING), "")
    whole = re.fullmatch(r"[+-]?\d+", first) is not None
    if not whole and not DECIMAL_COMMA.fullmatch(first):
        return cells
    return np.array(
        [cell.replace(",", ".") if DECIMAL_COMMA.fullmatch(cell) else cell for cell in cells],
        dtype=object,
    )


def _rows_before_tail(columns: Sequence[Cells]) -> int:
    """How many rows there are without those at the end that hold nothing but separators.

    Such rows are values that are missing, unless a column of words, as dates are, goes up to them.
    """
    empty = np.all([cells == "" for cells in columns], axis=0)
    rows = len(empty) - int(np.argmin(empty[::-1])) if not empty.all() else len(empty)
    words = (
        not NUMBER.fullmatch(cells[0]) and bool(np.all(cells[:rows] != "")) for cells in columns
    )
    return rows if any(words) else len(empty)


def _named(path: Path, header: list[str], columns: list[Cells]) -> dict[str, Column]:
    names = [name.strip() for name in header]
    empty = {
        index
        for index, name in enumerate(names)
        if not name and all(cell == "" for cell in columns[index])
    }
    if names[0] == "" and 0 not in empty:
        names[0] = "index"  # as pandas leaves it unnamed
    named: dict[str, Column] = {}
    for index, name in enumerate(names):
        if index in empty:
            continue
        if name == "" or name in named:
            given = f"name {name!r} twice" if name else "no name"
            raise UserError(
                f"{path}: column {index + 1} has {given}; expected a name of its own for each"
            )
        named[name] = Column(columns[index])
    return named


# Parquet


def read_parquet(path: Path) -> Table:
    """Read a parquet file, and the index that pandas may have written into it.

    Raises:
        UserError: If it is damaged or has no rows.
    """
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(pyarrow.BufferReader(read_bytes(path)))
    except (pyarrow.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{path}: not a readable parquet file ({reason})") from error
    if not table.num_rows or not table.num_columns:
        raise UserError(f"{path}: no rows; expected rows of a series")
    names = ["index" if name == "__index_level_0__" else name for name in table.column_names]
    if len(set(names)) < len(names):
        raise UserError(f"{path}: two columns have the same name; expected one of its own each")
    return make_table(
        path, {name: _arrow_column(table.column(i)) for i, name in enumerate(names)}, None
    )


def _arrow_column(column: Any) -> Column:
    from pyarrow import types

    kind = column.type
    if types.is_dictionary(kind):
        column = column.cast(kind.value_type)
        kind = column.type
    if types.is_date(kind):
        return Column(column.cast("timestamp[s]").to_numpy(), "date")
    if types.is_timestamp(kind):
        return Column(
            column.cast(f"timestamp[{kind.unit}]").to_numpy(),
            f"datetime64[{kind.unit}]",
            kind.tz or "",
        )
    if types.is_boolean(kind) or types.is_integer(kind) or types.is_floating(kind):
        cells = column.to_pandas().to_numpy(dtype=np.float64, na_value=np.nan)
        return Column(cells, _arrow_dtype(kind, column.null_count))
    if types.is_decimal(kind):
        return Column(column.cast("float64").to_numpy(zero_copy_only=False), "float64")
    texts = column.to_pylist()
    return Column(np.array(["" if cell is None else str(cell) for cell in texts], dtype=object))


def _arrow_dtype(kind: Any, missing: int) -> str:
    """The dtype of pandas; its nullable form where values are missing."""
    name = {"bool": "bool", "halffloat": "float16", "float": "float32", "double": "float64"}.get(
        str(kind), str(kind)
    )
    if not missing or name.startswith("float"):
        return name
    return "boolean" if name == "bool" else name.replace("int", "Int").replace("uI", "UI")
