"""Series in NetCDF: variables over time are channels, what they also run over names the series."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from core.runtime.errors import UserError
from domains.series.config import Data
from domains.series.data.files import read_bytes
from domains.series.data.table import Column, Table, make_table

if TYPE_CHECKING:
    import xarray

NEEDED = "xarray h5netcdf h5py scipy"
TIMES = ("time", "t", "date", "datetime", "valid_time", "times")


def read(path: Path, options: Data) -> tuple[Table, Data]:
    """Read the variables over time as a table, and say which of its columns is what.

    A variable over time alone is a channel of one series; over time and, say, a station, of one
    series for each; over several dimensions more, of one for each combination.

    Raises:
        UserError: If a library is missing, the file is damaged, or has no variable over time.
    """
    dataset = _open(path)
    time = _time_dimension(path, dataset, options)
    names = _variables(path, dataset, time, options)
    others = [str(d) for d in dataset[names].dims if d != time]
    shape = [dataset.sizes[dimension] for dimension in (*others, time)]
    columns: dict[str, Column] = {}
    if others:
        columns[",".join(others)] = Column(_identifiers(dataset, others, dataset.sizes[time]))
    if time in dataset.coords:
        cells = dataset[time].to_numpy()
        _refuse_calendars(path, time, cells)
        columns[time] = _column(np.tile(cells, int(np.prod(shape[:-1]))), dataset[time])
    for name in names:
        full = dataset[name].broadcast_like(dataset[names]).transpose(*others, time)
        columns[name] = _column(full.to_numpy().ravel(), dataset[name])
    told = {
        "time": time if time in columns else "",
        "identifier": ",".join(others),
        "values": tuple(names),
        "label": "" if options.label is None else options.label,
    }
    return make_table(path, columns, None), options.model_copy(update=told)


def _open(path: Path) -> xarray.Dataset:
    data = read_bytes(path)
    engine = {b"CDF": "scipy", b"\x89HD": "h5netcdf"}.get(data[:3])
    if engine is None:
        raise UserError(f"{path}: no NetCDF file; expected NetCDF 3 or 4; check what it is")
    try:
        import xarray

        if engine == "h5netcdf":
            import h5netcdf  # noqa: F401
            import h5py  # noqa: F401
        return xarray.load_dataset(path, engine=engine)
    except ImportError as error:
        raise UserError(
            f"{path}: NetCDF needs {error.name or 'a library'}; install it: pip install {NEEDED}"
        ) from error
    except (ValueError, OSError, KeyError, TypeError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"{path}: not a readable NetCDF file ({reason}); write it again"
        ) from error


def _time_dimension(path: Path, dataset: xarray.Dataset, options: Data) -> str:
    dimensions = [str(dimension) for dimension in dataset.dims]
    if options.time:
        found = [options.time] if options.time in dimensions else []
    else:
        dated = [d for d in dimensions if d in dataset.coords and dataset[d].dtype.kind == "M"]
        named = [d for d in dimensions if d.lower() in TIMES]
        found = dated or named or (dimensions if len(dimensions) == 1 else [])
    if not found:
        given = f"no dimension {options.time!r}" if options.time else "no dimension of time"
        raise UserError(
            f"{path}: {given} (dimensions: {', '.join(dimensions) or 'none'}); expected one; name "
            "it in data.time"
        )
    return found[0]


def _variables(path: Path, dataset: xarray.Dataset, time: str, options: Data) -> list[str]:
    over_time = [
        str(name)
        for name, variable in dataset.data_vars.items()
        if time in variable.dims and variable.dtype.kind in "fiub"
    ]
    chosen = over_time if options.values is None else list(options.values)
    wrong = [name for name in chosen if name not in over_time]
    if wrong or not chosen:
        given = f"no variable {wrong[0]!r}" if wrong else "no variable of numbers"
        raise UserError(
            f"{path}: {given} over {time!r} (there are: {', '.join(over_time) or 'none'}); "
            "expected one; correct data.values"
        )
    return chosen


def _identifiers(dataset: xarray.Dataset, others: Sequence[str], steps: int) -> np.ndarray:
    """The name of the series in each row."""
    labels = [
        [_word(cell) for cell in dataset[d].to_numpy()]
        if d in dataset.coords
        else [str(place) for place in range(dataset.sizes[d])]
        for d in others
    ]
    if len(others) > 1:
        labels = [[f"{d}={w}" for w in words] for d, words in zip(others, labels, strict=True)]
    grid = np.meshgrid(*[np.array(words, dtype=object) for words in labels], indexing="ij")
    names = [", ".join(words) for words in zip(*(part.ravel() for part in grid), strict=True)]
    return np.repeat(np.array(names, dtype=object), steps)


def _word(cell: Any) -> str:
    if isinstance(cell, bytes):
        return cell.decode("utf-8", "replace")
    return f"{cell:g}" if isinstance(cell, (float, np.floating)) else str(cell)


def _refuse_calendars(path: Path, time: str, cells: np.ndarray) -> None:
    if cells.dtype == object:
        raise UserError(
            f"{path}: times of {time!r} are in a calendar of their own ({type(cells[0]).__name__}"
            "); expected the standard one; convert it with xarray's convert_calendar"
        )


def _column(cells: np.ndarray, variable: xarray.DataArray) -> Column:
    if cells.dtype.kind == "M":
        return Column(cells, cells.dtype.name)
    return Column(cells.astype(np.float64), _dtype(variable.encoding, cells))


def _dtype(encoding: Mapping[Any, Any], cells: np.ndarray) -> str:
    """The dtype in the file, where values were not scaled on the way."""
    kept = encoding.get("dtype", cells.dtype)
    scaled = encoding.get("scale_factor", 1) != 1 or encoding.get("add_offset", 0) != 0
    name = cells.dtype.name if scaled else np.dtype(kept).name
    missing = cells.dtype.kind == "f" and np.isnan(cells).any()
    return name.replace("int", "Int").replace("uI", "UI") if missing else name
