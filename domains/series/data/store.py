"""From the source to the run's own folder and back: read, split, scale, write, load."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from core.contract import DataCard, Split
from core.runtime.errors import UserError
from core.runtime.folder import write_atomic
from core.runtime.order import generator
from domains.series.config import Config, Data
from domains.series.data import masks, scaling
from domains.series.data.records import Array, Clock, Dataset, Mask, Panel, Scaler, Series
from domains.series.data.seasons import season
from domains.series.data.sources import Source, find
from domains.series.data.splits import SPLITS, Stretches, rows_of, split
from domains.series.data.windows import Starts, cut, thin

FORMAT = 1
FEWEST_WINDOWS = 50
LONGEST = 10  # series that are looked at for a season
PANEL = ("channels", "dtypes", "identifier", "notes", "label")
CARD, ARRAYS, NAMES = "card.json", "series.npz", "series.json"
UNITS = (("day", 86_400.0), ("h", 3_600.0), ("min", 60.0), ("s", 1.0))


def prepare(config: Config, folder: Path) -> DataCard:
    """Read, check, split and scale the series, and write them if they are not there already.

    Raises:
        UserError: If the source is missing, damaged or too short.
    """
    source = find(config.data, config.seed)
    key = _key(config, source)
    if (card := _finished(folder, key)) is not None:
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
    write_atomic(folder / NAMES, _json(names))
    write_atomic(folder / CARD, _json({"key": key, "card": asdict(card)}))  # last: all is there
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


def build(panel: Panel, data: Data, seed: int, place: str) -> tuple[Dataset, tuple[str, ...]]:
    """Split, hide, cut and scale a panel.

    Args:
        panel: As read.
        data: The settings.
        seed: Of the split by series and of what is hidden.
        place: What messages call the source.

    Returns:
        The dataset, and a line for everything a reader should know.

    Raises:
        UserError: If there is too little to train, choose or test on.
    """
    lengths = [len(one.times) for one in panel.series]
    _check_lengths(panel, lengths, data, place)
    stretches = split(lengths, data, seed)
    hidden = _hidden(panel, data, seed)
    visible = [
        np.isfinite(one.values) & ~mask for one, mask in zip(panel.series, hidden, strict=True)
    ]
    windows, notes = _windows(stretches, visible, data)
    _check_windows(windows, stretches, panel, data, place)
    train = rows_of(stretches["train"], lengths)
    learnt = _learnt(panel, hidden, train)
    scaler = scaling.fit(np.concatenate(learnt), data.scaling, panel.channels)
    dataset = Dataset(
        panel=panel,
        hidden=hidden,
        scaler=scaler,
        window=data.window,
        windows=windows,
        train_rows=train,
        season=_season(learnt),
        spacing=_spacing(data),
    )
    return dataset, (*_notes(dataset, data, np.concatenate(learnt)), *notes)


def _spacing(data: Data) -> Any:
    return data.spacing or ("rows" if data.source == "google-stock" else "clock")


def _check_lengths(panel: Panel, lengths: Sequence[int], data: Data, place: str) -> None:
    """Refuse series that are shorter than a window."""
    short = [
        (one.name, rows)
        for one, rows in zip(panel.series, lengths, strict=True)
        if rows < data.window
    ]
    if not short or data.pad:
        return
    named = ", ".join(f"{name!r} {rows} rows" for name, rows in short[:3])
    more = f" and {len(short) - 3} more" if len(short) > 3 else ""
    raise UserError(
        f"{place}: {len(short)} of {len(lengths)} series are shorter than data.window "
        f"{data.window} ({named}{more}); set data.window to {min(lengths)} or less, or "
        "data.pad to true"
    )


def _hidden(panel: Panel, data: Data, seed: int) -> tuple[Mask, ...]:
    """Choose what is hidden of each series."""
    kind, fraction, length = data.hide.kind, data.hide.fraction, data.hide.length
    return tuple(
        masks.hide(generator(seed, "hide", k), one.values, kind, fraction, length)
        for k, one in enumerate(panel.series)
    )


def _windows(
    stretches: Mapping[Split, Stretches], visible: Sequence[Mask], data: Data
) -> tuple[dict[str, Starts], tuple[str, ...]]:
    """Cut the windows of each split, without those in which nothing can be seen."""
    sums = np.concatenate([[0], np.cumsum(np.concatenate(visible).any(axis=1))])
    first = np.concatenate([[0], np.cumsum([len(mask) for mask in visible])])
    found: dict[str, Starts] = {}
    dropped = 0
    for name in SPLITS:
        starts = cut(stretches[name], data.window, data.stride, data.pad)
        begin = first[starts[:, 0]] + starts[:, 1]
        end = np.minimum(begin + data.window, first[starts[:, 0] + 1])
        kept = sums[end] > sums[begin]
        dropped += int((~kept).sum())
        found[name] = starts[kept]
    total = (
        sum(len(starts) for starts in found.values())
        if data.split != "windows"
        else len(found["train"])
    )
    if data.windows and total > data.windows:
        found = {
            name: thin(starts, max(data.windows * len(starts) // total, 1))
            for name, starts in found.items()
        }
    notes = (f"{dropped} windows without any value left out",) if dropped else ()
    return found, notes


def _check_windows(
    windows: Mapping[str, Starts],
    stretches: Mapping[Split, Stretches],
    panel: Panel,
    data: Data,
    place: str,
) -> None:
    """Refuse a split that leaves too little to train on, or nothing to choose or test on."""
    one_window = data.split == "chronological" and len(panel.series) > 2
    hint = ", or data.split to 'series'" if one_window else ""
    if len(windows["train"]) < FEWEST_WINDOWS:
        raise UserError(
            f"{place}: {len(windows['train'])} train windows of {data.window} rows; at least "
            f"{FEWEST_WINDOWS} are needed to learn from; give longer series, set data.window or "
            f"data.stride to less{hint}"
        )
    for name in ("valid", "test"):
        if len(windows[name]):
            continue
        longest = int(np.diff(stretches[name][:, 1:]).max(initial=0))
        raise UserError(
            f"{place}: no window of {data.window} rows fits into the {name} part, of which the "
            f"longest stretch is {longest} rows; set data.{name}_fraction to more or data.window "
            f"to less{hint}"
        )


def _learnt(panel: Panel, hidden: Sequence[Mask], train: Sequence[Mask]) -> list[Array]:
    """Return of each series the train rows, hidden values as NaN."""
    return [
        np.where(mask, np.nan, one.values)[rows]
        for one, mask, rows in zip(panel.series, hidden, train, strict=True)
    ]


def _season(learnt: Sequence[Array]) -> int:
    """Return the season that most of the longest series agree on."""
    longest = sorted(learnt, key=len, reverse=True)[:LONGEST]
    found = np.bincount([season(values) for values in longest])
    return int(found.argmax())


def _notes(dataset: Dataset, data: Data, learnt: Array) -> tuple[str, ...]:
    """Say what a reader of the report should know."""
    notes = []
    if data.split == "windows":
        notes.append(
            "split 'windows' (TimeGAN's protocol): train, valid and test are the same windows and "
            "the scaling is fitted on all rows; scores say nothing about unseen data"
        )
    if dataset.spacing == "rows" and dataset.panel.clock.kind != "index":
        notes.append("each row counts as one step, however far apart their times are")
    names = [
        name for name, flat in zip(dataset.channels, scaling.constant(learnt), strict=True) if flat
    ]
    if names:
        notes.append(f"constant in the train part, not scaled: {', '.join(names)}")
    return tuple(notes)


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
            return f"{clock.interval / seconds:g} {unit}"
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
        scaler=Scaler(arrays["shift"], arrays["scale"]),
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
    digest = hashlib.sha256(_json({"format": FORMAT, "seed": config.seed, **settings}))
    for path in source.files:
        digest.update(f"{path.name}\n".encode())
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def _finished(folder: Path, key: str) -> DataCard | None:
    """Return the card of what is in the folder, if that is complete and was made from the same."""
    try:
        found = json.loads((folder / CARD).read_bytes())
        if found["key"] != key:
            return None
        load(folder)
        return DataCard(**{**found["card"], "notes": tuple(found["card"]["notes"])})
    except (OSError, ValueError, KeyError, TypeError, UserError):
        return None


def _fingerprint(arrays: Mapping[str, np.ndarray], names: Mapping[str, Any]) -> str:
    """Return a SHA-256 of all numbers, masks, windows and names: equal on any machine."""
    digest = hashlib.sha256(_json(names))
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


def _json(value: object) -> bytes:
    return (json.dumps(value, ensure_ascii=False, sort_keys=True, indent=1) + "\n").encode()
