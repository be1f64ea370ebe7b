"""From the source to the run's own folder and back: read, split, scale, write, load."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from core.contract import DataCard
from core.runtime.errors import UserError
from core.runtime.files import json_bytes, key_of
from core.runtime.folder import write_atomic
from core.runtime.prepared import CARD, finished, write_card
from domains.series.config import Config
from domains.series.data.build import build
from domains.series.data.records import Clock, Dataset, Panel, Scaler, Series
from domains.series.data.sources import Source, find
from domains.series.data.splits import SPLITS

FORMAT = 1
PANEL = ("channels", "dtypes", "identifier", "notes", "label")
ARRAYS, NAMES = "series.npz", "series.json"
UNITS = (("day", 86_400.0), ("h", 3_600.0), ("min", 60.0), ("s", 1.0))


def prepare(config: Config, folder: Path) -> DataCard:
    """Read, check, split and scale the series, and write them if they are not there already.

    Raises:
        UserError: If the source is missing, damaged or too short.
    """
    source = find(config.data, config.seed)
    key = _key(config, source)
    if (card := finished(folder, key, load)) is not None:
        return card
    dataset, notes = build(source.read(), config.data, config.seed, source.place)
    arrays, names = _arrays(dataset), _names(dataset)
    card = DataCard(
        source=source.title,
        licence=source.licence,
        fingerprint=_fingerprint(arrays, names),
        facts=_facts(dataset),
        notes=(*dataset.panel.notes, *notes),
    )
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(folder / ARRAYS, _npz(arrays))
    write_atomic(folder / NAMES, json_bytes(names))
    write_card(folder, card, key)
    return card


def load(folder: Path) -> Dataset:
    """Read the prepared series.

    Raises:
        UserError: If there are none, or a file is damaged or has been changed.
    """
    try:
        fingerprint = json.loads((folder / CARD).read_bytes())["card"]["fingerprint"]
        names = json.loads((folder / NAMES).read_bytes())
        with np.load(folder / ARRAYS, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"{folder}: no prepared series; run the ingest stage first") from error
    if _fingerprint(arrays, names) != fingerprint:
        raise UserError(
            f"{folder}: the prepared series have been changed; run the ingest stage again"
        )
    return _dataset(arrays, names)


def _facts(dataset: Dataset) -> dict[str, float | int | str]:
    """Count what there is."""
    values = np.concatenate([one.values for one in dataset.panel.series])
    known = np.isfinite(values)
    hidden = np.concatenate(dataset.hidden)
    return {
        "series": len(dataset.panel.series),
        "channels": len(dataset.channels),
        "rows": len(values),
        "window": dataset.window,
        **{f"{name} windows": len(dataset.windows[name]) for name in SPLITS},
        "interval": interval_words(dataset.panel.clock),
        "missing share": round(1 - float(known.mean()), 6),
        "hidden share": round(float(hidden.sum() / max(known.sum(), 1)), 6),
        "season": f"{dataset.season} rows" if dataset.season else "none found",
    }


def interval_words(clock: Clock) -> str:
    """Write the usual time between two rows with its unit.

    Example:
        >>> interval_words(Clock(kind="datetime", column="t", zone="", form="iso", interval=900.0))
        '15 min'
    """
    if clock.kind == "index":
        return "1 row"
    if clock.kind == "number":
        return f"{clock.interval:g}"
    for unit, seconds in UNITS:
        if clock.interval >= seconds:
            count = clock.interval / seconds
            return f"{count:g} {unit}{'s' if unit == 'day' and count != 1 else ''}"
    return f"{clock.interval:g} s"


def _arrays(dataset: Dataset) -> dict[str, np.ndarray]:
    """Everything of a dataset that is an array, its series one below the other."""
    series = dataset.panel.series
    arrays = {
        "lengths": np.array([len(one.times) for one in series], dtype=np.int64),
        "times": np.concatenate([one.times for one in series]),
        "values": np.concatenate([one.values for one in series]),
        "hidden": np.concatenate(dataset.hidden),
        "train_rows": np.concatenate(dataset.train_rows),
        "shift": dataset.scaler.shift,
        "scale": dataset.scaler.scale,
        "logs": _logs(dataset),
        **{f"windows.{name}": dataset.windows[name] for name in SPLITS},
    }
    for name in ("label", "lines"):
        parts = [getattr(one, name) for one in series]
        if all(part is not None for part in parts):
            arrays[name] = np.concatenate(parts)
    return {name: np.ascontiguousarray(array) for name, array in arrays.items()}


def _names(dataset: Dataset) -> dict[str, Any]:
    """Everything else."""
    panel = dataset.panel
    return {
        "series": [one.name for one in panel.series],
        "panel": {
            **{name: getattr(panel, name) for name in PANEL},
            "clock": asdict(panel.clock),
            "columns": list(panel.columns.items()),  # their order counts
        },
        "window": dataset.window,
        "season": dataset.season,
        "spacing": dataset.spacing,
    }


def _dataset(arrays: Mapping[str, np.ndarray], names: Mapping[str, Any]) -> Dataset:
    borders = np.cumsum(arrays["lengths"])[:-1]
    parts = {
        name: np.split(arrays[name], borders)
        for name in ("times", "values", "hidden", "train_rows", "label", "lines")
        if name in arrays
    }
    none = [None] * len(names["series"])
    series = map(
        Series,
        names["series"],
        parts["times"],
        parts["values"],
        parts.get("label", none),
        parts.get("lines", none),
    )
    found = names["panel"]
    panel = Panel(
        series=tuple(series),
        **{name: _frozen(found[name]) for name in PANEL},
        clock=Clock(**found["clock"]),
        columns=dict(found["columns"]),
    )
    return Dataset(
        panel=panel,
        hidden=tuple(parts["hidden"]),
        scaler=Scaler(arrays["shift"], arrays["scale"], _some(arrays["logs"])),
        window=names["window"],
        windows={str(name): arrays[f"windows.{name}"] for name in SPLITS},
        train_rows=tuple(parts["train_rows"]),
        season=names["season"],
        spacing=names["spacing"],
    )


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _key(config: Config, source: Source) -> str:
    """Return what the prepared files are a function of: settings, bytes read, format."""
    settings = config.data.model_dump(mode="json", exclude={"path"})
    facts = {"format": FORMAT, "seed": config.seed, **settings}
    return key_of(facts, source.files)


def _fingerprint(arrays: Mapping[str, np.ndarray], names: Mapping[str, Any]) -> str:
    """Return a SHA-256 of all numbers, masks, windows and names: equal on any machine."""
    digest = hashlib.sha256(json_bytes(names))
    for name, array in sorted(arrays.items()):
        little = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
        digest.update(f"{name} {little.dtype.str} {little.shape}\n".encode())
        digest.update(little.data)
    return digest.hexdigest()


def _npz(arrays: Mapping[str, np.ndarray]) -> bytes:
    """Pack arrays; numpy dates every entry 1980, so that the same arrays are the same bytes."""
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()


def _logs(dataset: Dataset) -> np.ndarray:
    logs = dataset.scaler.logs
    return np.zeros(len(dataset.channels), dtype=bool) if logs is None else logs


def _some(logs: np.ndarray) -> np.ndarray | None:
    return logs if logs.any() else None
