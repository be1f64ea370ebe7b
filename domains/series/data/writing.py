"""A panel → a file of its form: original columns, order, dtypes and times."""

from __future__ import annotations

import gzip
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from core.runtime.errors import UserError
from core.runtime.folder import write_atomic
from domains.series.data import arrays, ts_format
from domains.series.data.files import PARQUET, suffix_of
from domains.series.data.records import Array, Clock, Panel
from domains.series.data.times import format_times, local_times

WRITERS: dict[str, Callable[[Panel], bytes]] = {
    ".csv": lambda panel: delimited(panel, ","),
    ".tsv": lambda panel: delimited(panel, "\t"),
    ".parquet": lambda panel: parquet(panel),
    ".pq": lambda panel: parquet(panel),
    ".npz": arrays.bytes_of,
    ".ts": lambda panel: ts_format.text_of(panel).encode(),
}


def write_panel(path: Path, panel: Panel) -> None:
    """Write a whole file or nothing; what is read again is the same panel.

    Columns come in the order of the file that they were read from, new ones behind. A channel of
    whole numbers is rounded and written as such, an unknown value as nothing. Times are in the
    form, zone and resolution that they had; where that is too coarse for them, in ISO 8601. The
    format .ts has no place for names, .npz and .ts none for an order of columns in a table.

    Args:
        path: Its ending says how: .csv, .tsv (also .gz), .parquet, .npz or .ts (also .gz).
        panel: Series in original units.

    Raises:
        UserError: If the ending is another.
        RunFailed: If the disk is full or not writable.
    """
    suffix = suffix_of(path)
    packed = path.suffix.lower() == ".gz"
    if suffix not in WRITERS or (packed and suffix in (*PARQUET, ".npz")):
        raise UserError(
            f"{path}: {''.join(path.suffixes[-2:])!r} is no ending that series are written in; "
            "expected .csv, .tsv, .ts (these also with .gz), .parquet or .npz"
        )
    data = WRITERS[suffix](panel)
    write_atomic(path, gzip.compress(data, mtime=0) if packed else data)


# Columns


def frame_of(panel: Panel) -> pd.DataFrame:
    """Return the rows of all series, in the order in which they stood in their file.

    Datetimes are in the clock's form as text, channels in their dtypes.
    """
    names = _times_columns(panel.clock)
    columns: dict[str, Any] = {}
    counts = [len(one.times) for one in panel.series]
    if panel.identifier:
        texts = np.array([one.name for one in panel.series], dtype=object)
        columns[panel.identifier] = pd.Series(np.repeat(texts, counts), dtype="str")
    times = np.concatenate([one.times for one in panel.series])
    columns |= _times(panel.clock, times, names)
    values = np.concatenate([one.values for one in panel.series])
    for place, channel in enumerate(panel.channels):
        columns[channel] = as_dtype(values[:, place], panel.dtypes[place])
    labels = [one.label for one in panel.series if one.label is not None]
    if panel.label and len(labels) == len(panel.series):
        kind = panel.columns.get(panel.label, "int64")
        columns[panel.label] = as_dtype(np.concatenate(labels).astype(np.float64), kind)
    known = [name for name in panel.columns if name in columns]
    order = [*known, *(name for name in columns if name not in known)]
    return pd.DataFrame(columns)[order].iloc[_rows(panel)]


def _rows(panel: Panel) -> np.ndarray:
    """The order of rows in the file, where all have a line of their own."""
    lines = [one.lines for one in panel.series if one.lines is not None]
    rows = sum(len(one.times) for one in panel.series)
    if len(lines) < len(panel.series):
        return np.arange(rows)
    together = np.concatenate(lines)
    unique = len(np.unique(together)) == rows
    return np.argsort(together, kind="stable") if unique else np.arange(rows)


def _times_columns(clock: Clock) -> list[str]:
    """The columns of a time; those that make up one are named with a + between them."""
    joined = clock.form.count("+") and clock.column.count("+") >= clock.form.count("+")
    return clock.column.split("+") if joined else [clock.column]


def _times(clock: Clock, times: Array, names: list[str]) -> dict[str, Any]:
    if not clock.column:
        return {}
    if len(names) > 1:
        rows = [stamp.split("+") for stamp in format_times(clock, times)]
        if all(len(row) == len(names) for row in rows):
            return dict(zip(names, map(list, zip(*rows, strict=True)), strict=True))
        return {clock.column: [" ".join(row) for row in rows]}
    if clock.kind == "number":
        return {clock.column: as_times(times, clock.form)}
    return {clock.column: format_times(clock, times)}


def as_times(times: Array, dtype: str) -> Any:
    """Return times as whole numbers, if they are and the file has them so."""
    whole = "int" in dtype.lower() and bool(np.all(times == np.rint(times)))
    return times.astype(dtype) if whole else times


def as_dtype(values: Array, dtype: str) -> Any:
    """Return values in their dtype; rounded to it, in its nullable form where some are unknown.

    Example:
        >>> as_dtype(np.array([1.2, -3.0, np.nan]), "uint8").tolist()
        [1, 0, <NA>]
    """
    missing = np.isnan(values)
    kind = dtype.lower()
    if kind in ("bool", "boolean"):
        truths = pd.array(np.where(missing, 0, values >= 0.5).astype(bool), dtype="boolean")
        truths[missing] = pd.NA
        return truths if missing.any() or dtype == "boolean" else truths.to_numpy(dtype=bool)
    if "int" not in kind:
        return values.astype(dtype) if kind in ("float32", "float16") else values
    limits = np.iinfo(kind)
    low, high = float(limits.min), float(np.nextafter(float(limits.max), 0))
    high = float(limits.max) if float(limits.max) <= 2.0**53 else high
    whole = np.rint(np.where(missing, 0, np.clip(values, low, high))).astype(kind)
    if not missing.any() and dtype == kind:
        return whole
    array = pd.array(whole, dtype=kind.replace("int", "Int").replace("uI", "UI"))
    array[missing] = pd.NA
    return array


# Files


def delimited(panel: Panel, delimiter: str) -> bytes:
    """Write a table of text."""
    return frame_of(panel).to_csv(index=False, sep=delimiter, lineterminator="\n").encode()


def parquet(panel: Panel) -> bytes:
    """Write a table of typed columns; datetimes as such, unless the file had them as text."""
    import pyarrow
    import pyarrow.parquet

    frame = frame_of(panel).reset_index(drop=True)
    clock = panel.clock
    table = pyarrow.Table.from_pandas(frame, preserve_index=False)
    as_text = panel.columns.get(clock.column) == "text"
    if clock.kind == "datetime" and clock.column in frame and not as_text:
        times = np.concatenate([one.times for one in panel.series])[_rows(panel)]
        place = table.column_names.index(clock.column)
        table = table.set_column(place, clock.column, _typed(clock, times))
    if panel.identifier and "int" in panel.columns.get(panel.identifier, "text").lower():
        place = table.column_names.index(panel.identifier)
        whole = table.column(place).cast(panel.columns[panel.identifier].lower())
        table = table.set_column(place, panel.identifier, whole)
    file = io.BytesIO()
    pyarrow.parquet.write_table(table.replace_schema_metadata(None), file)
    return file.getvalue()


def _typed(clock: Clock, times: Array) -> Any:
    """Datetimes in the unit that they had, if it holds them; microseconds otherwise."""
    import pyarrow

    local = local_times(clock, times)
    naive = local.tz_convert("UTC").tz_localize(None) if clock.zone else local
    ticks = naive.as_unit("us").asi8
    typed = pyarrow.array(ticks, type=pyarrow.timestamp("us", tz=clock.zone or None))
    unit = clock.form.removeprefix("datetime64[").removesuffix("]")
    if clock.form == "date" and not (ticks % 86_400_000_000).any():
        return typed.cast(pyarrow.date32())
    coarse = {"s": 1_000_000, "ms": 1_000}.get(unit, 1)
    if unit in ("s", "ms", "ns") and not (ticks % coarse).any():
        return typed.cast(pyarrow.timestamp(unit, tz=clock.zone or None))
    return typed
