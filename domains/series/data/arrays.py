"""Series in .npz files: plain arrays, nothing pickled."""

from __future__ import annotations

import io
import json
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from core.runtime.errors import UserError
from domains.series.config import Data
from domains.series.data.files import read_bytes
from domains.series.data.records import Array, Clock, Panel, Series
from domains.series.data.times import (
    Source,
    Stamps,
    parse_numbers,
    parse_texts,
    parse_typed,
    to_ticks,
)

VALUES = ("X", "values", "data", "x", "series")
AXES = {
    "case": ("case", "cases", "n_cases", "n", "batch", "sample", "series"),
    "time": ("time", "times", "n_timepoints", "timepoint", "t", "step"),
    "channel": ("channel", "channels", "n_channels", "c", "d", "feature", "dimension"),
}
ORDER = ("case", "time", "channel")


@dataclass(frozen=True, eq=False)
class About:
    """What arrays alone do not say: kept as JSON in the array ``about`` of files that we write."""

    clock: Mapping[str, str]
    identifier: str = ""
    label: str = ""
    dtypes: tuple[str, ...] = ()
    columns: Mapping[str, str] | None = None


def read(path: Path, options: Data) -> Panel:
    """Read series from arrays.

    * ``X`` (or ``values``, ``data``, or the only array of numbers with two or more axes): of shape
      ``(case, time, channel)`` as PyPOTS and TimeGAN have it, ``(time, channel)`` for one series,
      or ``(time,)``; NaN where missing.
    * ``axes``: names of its axes where they are others, such as
      ``["n_cases", "n_channels", "n_timepoints"]`` of sktime and aeon, or ``"NCT"``.
    * ``times``: ``(time,)`` or ``(case, time)``, of numbers, ``datetime64`` or text.
    * ``channels`` and ``names``: names of channels and series; ``lengths``: how many rows of each
      case are its own; ``label``: 1 where an anomaly is, ``(case, time)``.

    Raises:
        UserError: If the file is damaged, holds pickled objects, or its arrays do not fit.
    """
    held = _archive(path)
    values = _values(path, held)
    cases, steps, width = values.shape
    about = _about(path, held)
    lengths = _fitting(path, held, "lengths", (cases,), np.full(cases, steps)).astype(np.int64)
    if (lengths < 1).any() or (lengths > steps).any():
        raise UserError(
            f"{path}: lengths from {lengths.min()} to {lengths.max()}; expected 1 to "
            f"{steps}, the rows of a case"
        )
    own = np.arange(steps) < lengths[:, None]
    clock, times = _times(path, held, own, options, about)
    label = held.get("label")
    if label is not None:
        label = _fitting(path, held, "label", (cases, steps), label).astype(np.int64)
    default = [""] if cases == 1 else [str(case) for case in range(cases)]
    names = _fitting(path, held, "names", (cases,), np.array(default))
    channels = _fitting(
        path, held, "channels", (width,), np.array([f"x{j + 1}" for j in range(width)])
    )
    return Panel(
        series=tuple(
            Series(
                str(names[case]),
                times[case, :length],
                values[case, :length].astype(np.float64),
                None if label is None else label[case, :length],
            )
            for case, length in enumerate(lengths)
        ),
        channels=tuple(map(str, channels)),
        dtypes=about.dtypes if len(about.dtypes) == width else (values.dtype.name,) * width,
        clock=clock,
        identifier=about.identifier or ("case" if cases > 1 else ""),
        label=about.label or ("label" if label is not None else ""),
        columns=about.columns or {},
    )


def _archive(path: Path) -> dict[str, np.ndarray]:
    data = read_bytes(path)
    if not zipfile.is_zipfile(io.BytesIO(data)):
        raise UserError(f"{path}: no .npz file; expected one that numpy.savez wrote")
    held: dict[str, np.ndarray] = {}
    name = ""
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as archive:
            for name in archive.files:
                held[name] = archive[name]
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError) as error:
        raise UserError(f"{path}: not a readable .npz file ({error})") from error
    except ValueError as error:
        raise UserError(
            f"{path}: array {name!r} is damaged or holds Python objects; expected numbers or "
            "text; write it again with numpy.savez"
        ) from error
    return held


def _values(path: Path, held: Mapping[str, np.ndarray]) -> np.ndarray:
    """The values with axes (case, time, channel)."""
    numeric = [n for n, array in held.items() if array.ndim >= 2 and array.dtype.kind in "fiub"]
    name = next((name for name in VALUES if name in held), numeric[0] if len(numeric) == 1 else "")
    if not name:
        raise UserError(
            f"{path}: holds {', '.join(held) or 'nothing'}; expected an array 'X' of shape (case, "
            "time, channel) or (time, channel); name it so"
        )
    values = held[name]
    if values.dtype.kind not in "fiub" or not 1 <= values.ndim <= 3 or not values.size:
        raise UserError(
            f"{path}: {name!r} is {values.dtype} of shape {values.shape}; expected numbers of "
            "shape (case, time, channel) or (time, channel)"
        )
    axes = _axes(path, held, values.ndim)
    values = np.moveaxis(values, range(values.ndim), np.argsort(np.argsort(_places(axes))))
    for place, axis in enumerate(ORDER):
        if axis not in axes:
            values = np.expand_dims(values, place)
    return values


def _places(axes: tuple[str, ...]) -> list[int]:
    return [ORDER.index(axis) for axis in axes]


def _axes(path: Path, held: Mapping[str, np.ndarray], count: int) -> tuple[str, ...]:
    """What each axis of the values is."""
    usual = {1: ("time",), 2: ("time", "channel"), 3: ORDER}[count]
    if "axes" not in held:
        return usual
    given = held["axes"]
    words = [str(word) for word in given.ravel()]
    if len(words) == 1:
        words = words[0].replace(",", " ").split() if len(words[0]) > count else [*words[0]]
    found = tuple(
        next((axis for axis, names in AXES.items() if word.lower() in names), word)
        for word in words
    )
    if len(found) != count or len({*found}) < count or not {*found} <= {*ORDER}:
        raise UserError(
            f"{path}: axes {', '.join(words)} for an array of {count} axes; expected each of "
            f"{', '.join(usual)} once, or n_cases, n_channels, n_timepoints"
        )
    return found


def _fitting(
    path: Path,
    held: Mapping[str, np.ndarray],
    name: str,
    shape: tuple[int, ...],
    default: np.ndarray,
) -> np.ndarray:
    array = held.get(name, default)
    if shape[:1] == (1,) and array.shape == shape[1:]:
        array = array[None]
    if array.shape != shape:
        raise UserError(
            f"{path}: {name!r} has shape {array.shape}; expected {shape}, as the values have it"
        )
    return array


def _times(
    path: Path, held: Mapping[str, np.ndarray], own: np.ndarray, options: Data, about: About
) -> tuple[Clock, Array]:
    cases, steps = own.shape
    counted = np.broadcast_to(np.arange(steps, dtype=np.float64), (cases, steps))
    given = held.get("times")
    known = {"column": "", "zone": "", "form": "", **about.clock}
    if given is None:
        return Clock(kind="index", column="", zone="", form="", interval=1.0), counted
    if given.shape == (steps,):
        given = np.broadcast_to(given, (cases, steps))
    if given.shape != (cases, steps):
        raise UserError(
            f"{path}: 'times' has shape {given.shape}; expected ({steps},) or ({cases}, {steps})"
        )
    stamps = _stamps(path, given[own], options)
    times = counted.copy()
    times[own] = stamps.times
    clock = Clock(
        kind=stamps.kind,
        column=known["column"] or "time",
        zone=known["zone"] or stamps.zone,
        form=known["form"] or stamps.form,
        interval=1.0,
    )
    return clock, times


def _stamps(path: Path, cells: np.ndarray, options: Data) -> Stamps:
    source = Source("times", lambda row: f"{path}, time {row + 1}", options.zone)
    if cells.dtype.kind == "M":
        return parse_typed(cells, cells.dtype.name, "", source)
    if cells.dtype.kind in "fiu":
        return parse_numbers(cells.astype(np.float64), cells.dtype.name, source)
    return parse_texts(np.array([str(cell) for cell in cells], dtype=object), source)


def _about(path: Path, held: Mapping[str, np.ndarray]) -> About:
    if "about" not in held:
        return About({})
    try:
        found: dict[str, Any] = json.loads(str(held["about"]))
        return About(
            clock={str(key): str(value) for key, value in found["clock"].items()},
            identifier=str(found["identifier"]),
            label=str(found["label"]),
            dtypes=tuple(map(str, found["dtypes"])),
            columns={str(name): str(dtype) for name, dtype in found["columns"]},
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{path}: 'about' is not as we write it ({error}); leave that array out"
        ) from error


def bytes_of(panel: Panel) -> bytes:
    """Write a panel as arrays, (case, time, channel), padded with NaN."""
    lengths = np.array([len(one.times) for one in panel.series])
    steps = int(lengths.max())
    own = np.arange(steps) < lengths[:, None]
    narrow = {*panel.dtypes} == {"float32"}
    values = np.full(
        (*own.shape, len(panel.channels)), np.nan, np.float32 if narrow else np.float64
    )
    values[own] = np.concatenate([one.values for one in panel.series])
    clock = panel.clock
    about = {
        "clock": {"column": clock.column, "zone": clock.zone, "form": clock.form},
        "identifier": panel.identifier,
        "label": panel.label,
        "dtypes": panel.dtypes,
        "columns": [*panel.columns.items()],
    }
    held: dict[str, Any] = {
        "X": values,
        "channels": np.array(panel.channels),
        "names": np.array([one.name for one in panel.series]),
        "lengths": lengths,
        "about": np.array(json.dumps(about, sort_keys=True)),
    }
    if clock.kind != "index":
        times = np.zeros(own.shape)
        times[own] = np.concatenate([one.times for one in panel.series])
        held["times"] = _typed(times) if clock.kind == "datetime" else times
    if panel.label and all(one.label is not None for one in panel.series):
        held["label"] = np.zeros(own.shape, dtype=np.int64)
        held["label"][own] = np.concatenate([one.label for one in panel.series])  # type: ignore
    file = io.BytesIO()
    np.savez_compressed(file, **held)
    return file.getvalue()


def _typed(times: Array) -> np.ndarray:
    return to_ticks(times).view("datetime64[us]")
