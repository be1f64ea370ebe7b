"""Edge lists and feature tables: CSV, TSV and their kin, parquet, npz."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse

from core.runtime.errors import UserError
from domains.graph.data.files import existing, read_text
from domains.graph.data.npz import csr, read_archive
from domains.graph.data.records import RawGraph

DELIMITERS = ("\t", ",", ";", "|", " ")
SOURCES = ("source", "src", "from", "u", "node1", "node_1", "head", "start")
TARGETS = ("target", "dst", "to", "v", "node2", "node_2", "tail", "end", "destination")
WEIGHTS = ("weight", "w", "value", "strength", "count")
KEYS = ("node", "name", "id", "node_id", "nodeid", "index", "key")
WHOLE = re.compile(r"-?\d+")


@dataclass(frozen=True)
class Table:
    """The cells of a text file with the line of each row; the first row may be a header."""

    path: Path
    lines: list[int]
    rows: list[list[str]]

    def where(self, row: int, column: int | None = None) -> str:
        """``file:line``, and the column counted from one."""
        return f"{self.path}:{self.lines[row]}" + (
            "" if column is None else f", column {column + 1}"
        )


def read_table(path: Path) -> Table:
    """Split a text file into cells; blank lines and those that begin with # or % are passed over.

    Raises:
        UserError: If it is not UTF-8 text, is empty, or its rows differ in length.
    """
    numbered = enumerate(io.StringIO(read_text(path), newline=None), start=1)
    kept = [(number, line.rstrip("\n")) for number, line in numbered]
    kept = [(number, line) for number, line in kept if line.strip() and line[0] not in "#%"]
    if not kept:
        raise UserError(f"{path}: only comments; expected rows")
    lines = [number for number, _ in kept]
    delimiter = next((mark for mark in DELIMITERS if mark in kept[0][1].strip()), ",")
    if delimiter == " ":
        rows = [line.split() for _, line in kept]
    else:
        rows = list(csv.reader((line for _, line in kept), delimiter=delimiter))
        if len(rows) < len(kept):
            raise UserError(
                f"{path}: a quoted cell goes over several lines; remove the line break"
            )
        rows = [[cell.strip() for cell in row] for row in rows]
    table = Table(path, lines, rows)
    for place, row in enumerate(rows):
        if len(row) != len(rows[0]):
            raise UserError(
                f"{table.where(place)}: {len(row)} columns, the first row has {len(rows[0])}; "
                "expected as many in each"
            )
    return table


def read(path: Path, features: Path | None) -> RawGraph:
    """Read an edge list, ``source,target[,weight]``, and the features of its nodes.

    Nodes are ordered by number if all names are whole numbers, else by name, so that the order of
    lines does not matter. A link is there or not: weights are checked, but not used, and a link
    of weight 0 is left out.

    Raises:
        UserError: If a cell is not what it should be, or the features do not fit the nodes.
    """
    table = read_table(path)
    header, source, target, weight = _columns(table)
    body = range(1 if header else 0, len(table.rows))
    ends = [_names(table, body, column) for column in (source, target)]
    notes = _first_row_note(table, ends) if not header else []
    if weight is not None:
        weights = numbers(table, body, [weight])[:, 0]
        present = np.flatnonzero(weights)
        notes.append("weights were checked and are not used")
        if len(present) < len(weights):
            notes.append(f"{len(weights) - len(present)} links of weight 0 left out")
            ends = [[end[row] for row in present] for end in ends]
    listed = set(ends[0]) | set(ends[1])
    names, matrix = order_names(listed), None
    if features is not None:
        keys, matrix = read_features(features)
        names, matrix, remarks = _fit(names, keys, matrix, path, features)
        notes += remarks
    index = {name: place for place, name in enumerate(names)}
    return RawGraph(
        names=names,
        pairs=np.array([[index[name] for name in end] for end in ends], dtype=np.int64),
        directed=None,
        source=f"edge list {path.name}" + (f" with {features.name}" if features else ""),
        place=str(path),
        features=matrix,
        features_place=None if features is None else str(features),
        notes=tuple(notes),
    )


def read_pairs(path: Path) -> list[list[str]]:
    """Read the two columns of names of an edge list, line by line, whatever they name.

    Raises:
        UserError: If the file is missing, is no table with such columns, or pairs a node with
            itself.
    """
    table = read_table(existing(path, "pairs"))
    header, source, target, _ = _columns(table)
    body = range(1 if header else 0, len(table.rows))
    ends = [_names(table, body, column) for column in (source, target)]
    for row, one, other in zip(body, *ends, strict=True):
        if one == other:
            raise UserError(
                f"{table.where(row)}: pairs {one!r} with itself; expected two nodes; leave it out"
            )
    return ends


def _columns(table: Table) -> tuple[bool, int, int, int | None]:
    """Whether there is a header, and where source, target and weight are."""
    first = [cell.lower() for cell in table.rows[0]]
    width = len(first)
    if width < 2:
        raise UserError(
            f"{table.where(0)}: one column; expected source,target or source,target,weight, "
            "separated by comma, tab, "
            "semicolon, | or space"
        )
    found = [
        next((first.index(name) for name in known if name in first), None)
        for known in (SOURCES, TARGETS, WEIGHTS)
    ]
    if found[0] is not None and found[1] is not None:
        return True, found[0], found[1], found[2]
    header = _is_header(table)
    if width > 3:
        raise UserError(
            f"{table.where(0)}: {width} columns; expected source,target[,weight]; name the "
            "columns in a first line "
            "to choose two of them"
        )
    return header, 0, 1, 2 if width == 3 else None


def _is_header(table: Table) -> bool:
    """A first row of words over columns of numbers."""
    if len(table.rows) < 2:
        return False
    first, rest = table.rows[0], table.rows[1:]
    if len(first) == 3 and not _is_number(first[2]):
        return all(_is_number(row[2]) for row in rest)
    return not any(WHOLE.fullmatch(cell) for cell in first[:2]) and all(
        WHOLE.fullmatch(cell) for row in rest for cell in row[:2]
    )


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _names(table: Table, body: range, column: int) -> list[str]:
    names = [table.rows[row][column] for row in body]
    if "" in names:
        place = table.where(body[names.index("")], column)
        raise UserError(f"{place}: no node name; expected one; fill it in or remove the line")
    return names


def _first_row_note(table: Table, ends: list[list[str]]) -> list[str]:
    """A remark if the first row could be a header that was not recognised."""
    first = {end[0] for end in ends}
    if len(first) < 2 or first & (set(ends[0][1:]) | set(ends[1][1:])):
        return []
    names = " and ".join(repr(end[0]) for end in ends)
    return [
        f"line {table.lines[0]} was read as a link of {names}, which no other line names; if it "
        "is a header, call "
        "its columns source,target"
    ]


def numbers(table: Table, body: range, columns: Sequence[int]) -> np.ndarray:
    """The cells of some columns as finite numbers, ``(row, column)``.

    Raises:
        UserError: If one is not, with its line and column.
    """
    try:
        values = np.array(
            [[table.rows[row][column] for column in columns] for row in body], dtype=np.float64
        ).reshape(len(body), len(columns))
    except ValueError:
        values = np.array(
            [[_float_or_nan(table.rows[row][column]) for column in columns] for row in body]
        )
    if not np.isfinite(values).all():
        row, column = np.argwhere(~np.isfinite(values))[0]
        cell = table.rows[body[row]][columns[column]]
        name = f" ({table.rows[0][columns[column]]})" if body.start else ""
        raise UserError(
            f"{table.where(body[row], columns[column])}{name}: {cell!r} is not a finite number; "
            "expected one; correct it "
            "or remove the column"
        )
    return values


def _float_or_nan(cell: str) -> float:
    return float(cell) if _is_number(cell) else np.nan


def order_names(names: set[str]) -> list[str]:
    """Names in numerical order if all are whole numbers, else in alphabetical order."""
    if all(WHOLE.fullmatch(name) for name in names):
        return sorted(names, key=lambda name: (int(name), name))
    return sorted(names)


def read_features(path: Path) -> tuple[list[str] | None, Any]:
    """Read node features from CSV or its kin, parquet or npz.

    Returns:
        The node name of each row, None if rows are in the order of the nodes; and the matrix.

    Raises:
        UserError: If a value is not a finite number, or a name comes twice.
    """
    readers = {".npz": _npz_features, ".parquet": _parquet_features, ".pq": _parquet_features}
    keys, matrix = readers.get(path.suffix, _text_features)(path)
    if keys is not None and len(set(keys)) < len(keys):
        twice = next(key for key in keys if keys.count(key) > 1)
        raise UserError(f"{path}: node {twice!r} has more than one row; expected one")
    return keys, matrix


def _text_features(path: Path) -> tuple[list[str] | None, np.ndarray]:
    table = read_table(path)
    first = table.rows[0]
    keyed = first[0].lower() in KEYS
    header = keyed or not any(_is_number(cell) for cell in first[1:] or first)
    body = range(1 if header else 0, len(table.rows))
    keyed = keyed or any(not _is_number(table.rows[row][0]) for row in body)
    columns = range(1 if keyed else 0, len(first))
    if not len(columns) or not len(body):
        raise UserError(f"{path}: no feature columns; expected node,feature,… with a row a node")
    return (_names(table, body, 0) if keyed else None), numbers(table, body, columns)


def _parquet_features(path: Path) -> tuple[list[str] | None, np.ndarray]:
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(path)
    except (pyarrow.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{path}: not a readable parquet file ({reason})") from error
    names = table.column_names
    key = next((name for name in names if name.lower() in KEYS), None)
    if key is None and "__index_level_0__" in names:
        key = "__index_level_0__"
    keys = None if key is None else [str(value) for value in table[key].to_pylist()]
    columns = []
    for name in (name for name in names if name != key):
        kind = table.schema.field(name).type
        if not (
            pyarrow.types.is_integer(kind)
            or pyarrow.types.is_floating(kind)
            or pyarrow.types.is_boolean(kind)
        ):
            raise UserError(
                f"{path}, column {name!r}: {kind}; expected numbers; remove the column"
            )
        column = table[name].to_pandas().to_numpy(dtype=np.float64, na_value=np.nan)
        if not np.isfinite(column).all():
            row = int(np.flatnonzero(~np.isfinite(column))[0])
            raise UserError(
                f"{path}, column {name!r}, row {row + 1}: {column[row]}; expected a finite "
                "number; fill it in or remove "
                "the column"
            )
        columns.append(column)
    if not columns:
        raise UserError(f"{path}: no feature columns; expected numbers, a row a node")
    return keys, np.stack(columns, axis=1)


def _npz_features(path: Path) -> tuple[list[str] | None, Any]:
    archive = read_archive(path, allow_pickle=False)
    parts = [archive.get(part) for part in ("data", "indices", "indptr")]
    matrix = next((archive[key] for key in ("features", "x") if key in archive), None)
    if matrix is None and all(part is not None for part in parts):
        matrix = csr([part for part in parts if part is not None], archive.get("shape"), path)
    if matrix is None or matrix.ndim != 2 or matrix.dtype.kind not in "biuf":
        raise UserError(
            f"{path}: holds {', '.join(archive)}; expected a matrix 'features', or the data, "
            "indices, indptr and shape "
            "of a csr matrix"
        )
    keys = next((archive[key] for key in ("names", "nodes") if key in archive), None)
    if keys is not None and keys.shape != (matrix.shape[0],):
        raise UserError(
            f"{path}: {keys.size} names for {matrix.shape[0]} rows; expected one a row"
        )
    return (None if keys is None else [str(key) for key in keys.tolist()]), matrix


def _fit(
    names: list[str], keys: list[str] | None, matrix: Any, edges: Path, features: Path
) -> tuple[list[str], Any, list[str]]:
    """Nodes and their rows in one order; nodes that only the features name have no links."""
    if keys is None:
        if matrix.shape[0] != len(names):
            raise UserError(
                f"{features}: {matrix.shape[0]} rows for the {len(names)} nodes of {edges}; "
                "expected a row for each, or "
                "a first column 'node' with their names"
            )
        if names != [str(place) for place in range(len(names))]:
            raise UserError(
                f"{features}: rows have no node names and the nodes of {edges} are not numbered "
                "from 0 "
                f"(the first is {names[0]!r}); add a first column 'node'"
            )
        return names, matrix, []
    row = {key: place for place, key in enumerate(keys)}
    missing = [name for name in names if name not in row]
    if missing:
        raise UserError(
            f"{features}: no row for node {missing[0]!r}{_others(missing)} of {edges}; expected "
            "one for each; add it or "
            "remove its links"
        )
    everyone = order_names(set(keys))
    alone = len(everyone) - len(names)
    notes = [f"{alone} nodes have features and no links"] if alone else []
    matrix = sparse.csr_matrix(matrix) if sparse.issparse(matrix) else matrix
    return everyone, matrix[[row[name] for name in everyone]], notes


def _others(names: list[str]) -> str:
    return f" and {len(names) - 1} more" if len(names) > 1 else ""
