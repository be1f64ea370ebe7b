"""A file of series → a panel, whatever its form."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from core.runtime.errors import UserError
from domains.series.config import Data
from domains.series.data import arrays, netcdf, table, ts_format
from domains.series.data.checks import problems, remarks
from domains.series.data.files import NETCDF, PARQUET, SUFFIXES, TEXT, existing, suffix_of
from domains.series.data.records import Array, Clock, Panel, Series
from domains.series.data.roles import Roles, find_roles, read_identifiers, read_times
from domains.series.data.table import Table
from domains.series.data.times import LARGEST_EXACT, Stamps


def read_panel(path: Path, options: Data) -> Panel:
    """Read a file to train on: what a model cannot learn from is refused.

    CSV and its kin (.csv, .tsv, .txt, also .gz), parquet, .ts of sktime and aeon, .npz and NetCDF;
    `describe` says what was found in it.

    Raises:
        UserError: If the file is missing, damaged or ambiguous, its times repeat, go back or
            change their frequency, or a value is infinite or a channel constant or empty.
    """
    return _checked(path, options, ("times", "numbers", "channels", "frequency"))


def read_input(path: Path, options: Data) -> Panel:
    """Read a file to use a trained model on: a channel may be constant or empty there.

    Raises:
        UserError: If the file is missing, damaged or ambiguous, its times repeat or go back, or a
            value is infinite.
    """
    return _checked(path, options, ("times", "numbers"))


def read_unchecked(path: Path, options: Data) -> Panel:
    """Read a file to look at: times may repeat or go back, values be infinite.

    Raises:
        UserError: If the file is missing, damaged or ambiguous.
    """
    panel = _without_codes(_read(path, options), options)
    panel = _merged(_forward(panel), options)
    return replace(panel, clock=replace(panel.clock, interval=usual_interval(panel)))


def _checked(path: Path, options: Data, kinds: tuple[str, ...]) -> Panel:
    panel = read_unchecked(path, options)
    first = next((problems(panel, path, kinds)), None)
    if first is not None:
        raise UserError(first)
    return replace(panel, notes=(*panel.notes, *remarks(panel)))


def _read(path: Path, options: Data) -> Panel:
    suffix = suffix_of(existing(path))
    if suffix == ".ts":
        return chosen(ts_format.read(path), options, path)
    if suffix == ".npz":
        return chosen(arrays.read(path, options), options, path)
    if suffix in NETCDF:
        return panel_of(*netcdf.read(path, options))
    readers: dict[str, Callable[[Path], Table]] = {
        **dict.fromkeys(TEXT, table.read_delimited),
        **dict.fromkeys(PARQUET, table.read_parquet),
    }
    if suffix not in readers:
        raise UserError(
            f"{path}: {suffix!r} is no ending that is known; expected one of "
            f"{', '.join(SUFFIXES)}, the first four also with .gz; rename the file"
        )
    return panel_of(readers[suffix](path), options)


# A table → a panel


def panel_of(table: Table, options: Data) -> Panel:
    """Return the series in a table.

    Raises:
        UserError: If a column is not there or not what it should be.
    """
    roles = find_roles(table, options)
    stamps = read_times(table, roles, options)
    values = np.stack([_channel(table, name) for name in roles.values], axis=1)
    label = _label(table, roles.label) if roles.label else None
    dtypes = tuple(table.numbers(name).dtype for name in roles.values)
    series = []
    for name, rows in _groups(table, roles.identifier):
        times = stamps.times[rows] if roles.time else np.arange(len(rows), dtype=np.float64)
        part = None if label is None else label[rows]
        series.append(Series(name, times, values[rows], part, table.lines[rows]))
    return Panel(
        series=tuple(series),
        channels=roles.values,
        dtypes=dtypes,
        clock=_clock(stamps, roles),
        identifier=roles.identifier,
        notes=(*roles.notes, *stamps.notes, *_inexact(table, roles)),
        label=roles.label,
        columns=_kinds(table, roles, stamps),
    )


def _channel(table: Table, name: str) -> Array:
    """A column of numbers, every cell of it."""
    numbers = table.numbers(name)
    if numbers.bad.any():
        row = int(numbers.bad.argmax())
        cell = str(table.columns[name].cells[row])
        raise UserError(
            f"{table.where(row)}, column {name!r}: {cell!r} is not a number; expected one, or "
            "nothing where it is missing; correct the cell"
        )
    return numbers.values


def _label(table: Table, name: str) -> np.ndarray:
    values = _channel(table, name)
    odd = ~np.isin(values, (0, 1))
    if odd.any():
        row = int(odd.argmax())
        raise UserError(
            f"{table.where(row)}, column {name!r}: label {values[row]:g}; expected 0, or 1 for an "
            "anomaly; correct it, or name another column in data.label"
        )
    return values.astype(np.int64)


def _groups(table: Table, identifier: str) -> Iterator[tuple[str, np.ndarray]]:
    """The rows of each series, in the order in which series come first."""
    if not identifier:
        yield "", np.arange(len(table.lines))
        return
    codes, names = pd.factorize(read_identifiers(table, identifier))
    order = np.argsort(codes, kind="stable")
    borders = np.cumsum(np.bincount(codes))[:-1]
    yield from zip(map(str, names), np.split(order, borders), strict=True)


def _clock(stamps: Stamps, roles: Roles) -> Clock:
    return Clock(
        kind=stamps.kind,
        column="+".join(roles.time),
        zone=stamps.zone,
        form=stamps.form,
        interval=1.0,
    )


def _kinds(table: Table, roles: Roles, stamps: Stamps) -> dict[str, str]:
    """Every column that was taken, in the table's order, with its dtype.

    Datetimes in a text file have none of their own; those that are text in a typed file stay text.
    """
    numeric = {*roles.values, roles.label, *(roles.time if stamps.kind == "number" else ())}
    dated = len(roles.time) == 1 and stamps.kind == "datetime" and suffix_of(table.path) in TEXT
    kinds = {}
    for name, column in table.columns.items():
        if name in numeric:
            kinds[name] = table.numbers(name).dtype
        elif name in roles.time:
            kinds[name] = "datetime64[us]" if dated else column.dtype
        elif name == roles.identifier:
            kinds[name] = column.dtype
    return kinds


def _inexact(table: Table, roles: Roles) -> Iterator[str]:
    for name in roles.values:
        numbers = table.numbers(name)
        if "int" in numbers.dtype.lower() and np.nanmax(np.abs(numbers.values)) >= LARGEST_EXACT:
            yield f"channel {name!r}: numbers above 2^53 are kept to 16 digits"


# What the settings ask for


def chosen(panel: Panel, options: Data, path: Path) -> Panel:
    """Return the channels that the settings name, of a file that is no table.

    Raises:
        UserError: If one is not there.
    """
    if options.values is None:
        return panel
    columns = {name: table.Column(np.zeros(0)) for name in panel.channels}
    known = Table(path, columns, np.zeros(0, dtype=np.int64), {})
    places = [panel.channels.index(known.require(name, "data.values")) for name in options.values]
    return replace(
        panel,
        series=tuple(replace(one, values=one.values[:, places]) for one in panel.series),
        channels=tuple(options.values),
        dtypes=tuple(panel.dtypes[place] for place in places),
    )


def _without_codes(panel: Panel, options: Data) -> Panel:
    """Take the numbers in ``na_values`` as missing."""
    if not options.na_values:
        return panel
    codes = np.array(options.na_values)
    masks = [np.isin(one.values, codes) for one in panel.series]
    count = sum(int(mask.sum()) for mask in masks)
    series = tuple(
        replace(one, values=np.where(mask, np.nan, one.values))
        for one, mask in zip(panel.series, masks, strict=True)
    )
    named = ", ".join(f"{code:g}" for code in options.na_values)
    return replace(
        panel, series=series, notes=(*panel.notes, f"{count:,} values of {named} taken as missing")
    )


def _forward(panel: Panel) -> Panel:
    """Turn round the series that are written from the last row to the first."""
    backward = [
        len(one.times) > 1 and bool((np.diff(one.times) < 0).all()) for one in panel.series
    ]
    if not any(backward):
        return panel
    series = tuple(
        take(one, np.arange(len(one.times))[::-1]) if turn else one
        for one, turn in zip(panel.series, backward, strict=True)
    )
    note = "rows were from the last time to the first, and have been turned round"
    return replace(panel, series=series, notes=(*panel.notes, note))


def take(series: Series, rows: np.ndarray) -> Series:
    """Return some rows of a series."""
    return Series(
        series.name,
        series.times[rows],
        series.values[rows],
        None if series.label is None else series.label[rows],
        None if series.lines is None else series.lines[rows],
    )


def _merged(panel: Panel, options: Data) -> Panel:
    """Make one of rows of the same time, if the settings say how."""
    if options.merge is None:
        return panel
    merged = [_merge(one, options.merge) for one in panel.series]
    gone = sum(len(one.times) for one in panel.series) - sum(len(one.times) for one in merged)
    if not gone:
        return panel
    rows = "1 row" if gone == 1 else f"{gone:,} rows"
    note = f"{rows} of a time that was there already, merged ({options.merge})"
    panel = replace(panel, series=tuple(merged), notes=(*panel.notes, note))
    return _with_true_dtypes(panel)


def _with_true_dtypes(panel: Panel) -> Panel:
    """Whole numbers may have a mean that is none."""
    with np.errstate(invalid="ignore"):
        parts = [(np.mod(one.values, 1) > 0).any(axis=0) for one in panel.series]
    broken = np.any(np.stack(parts), axis=0).tolist()
    dtypes = tuple(
        "float64" if odd and "float" not in dtype else dtype
        for dtype, odd in zip(panel.dtypes, broken, strict=True)
    )
    new = zip(panel.channels, dtypes, strict=True)
    columns = {**panel.columns} | {name: kind for name, kind in new if name in panel.columns}
    return replace(panel, dtypes=dtypes, columns=columns)


def _merge(series: Series, how: str) -> Series:
    first = np.concatenate([[True], np.diff(series.times) != 0])
    if first.all():
        return series
    if how != "mean":
        last = np.concatenate([np.diff(series.times) != 0, [True]])
        return take(series, np.flatnonzero(first if how == "first" else last))
    starts = np.flatnonzero(first)
    known = ~np.isnan(series.values)
    sums = np.add.reduceat(np.where(known, series.values, 0), starts)
    counts = np.add.reduceat(known.astype(np.float64), starts)
    means = np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)
    label = None if series.label is None else np.maximum.reduceat(series.label, starts)
    return replace(take(series, starts), values=means, label=label)


def usual_interval(panel: Panel) -> float:
    """Return the median of the times between two rows of a series; 1 if there is none."""
    steps = np.concatenate([np.diff(one.times) for one in panel.series])
    steps = steps[steps > 0]
    return float(np.median(steps)) if len(steps) else 1.0
