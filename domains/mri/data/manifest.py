"""What was prepared, line by line, and how it is known to be unchanged."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.contract import DataCard, Split
from core.runtime.errors import UserError
from core.runtime.files import json_bytes
from core.runtime.folder import atomic_file, write_atomic
from core.runtime.prepared import CARD, write_card

MANIFEST = "manifest.json"
IMAGES, TISSUES, COILS = "images.npy", "tissues.npy", "coils.npy"
CHUNK = 64  # rows that are hashed at a time


@dataclass(frozen=True, kw_only=True)
class Entry:
    """Slices of one file, cut along one axis, in one split.

    Args:
        name: Of the file.
        subject: Whose head.
        licence: ``unknown`` if it could not be found out.
        sha256: Of the file.
        split: Which split they are in.
        axis: Along which they were cut; empty for k-space.
        positions: Index of each along the axis.
        array: File of the prepared folder that holds them.
        first: Index of the first in it.
        tissues: Index of the first in the array of tissues, None if these are not known.
        fov_mm: Side of the field of view.
    """

    name: str
    subject: str
    licence: str
    sha256: str
    split: Split
    axis: str
    positions: tuple[int, ...]
    array: str = IMAGES
    first: int = 0
    tissues: int | None = None
    fov_mm: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Item:
    """One slice: its line of the manifest and its place in it."""

    entry: Entry
    place: int

    @property
    def name(self) -> str:
        """What a report calls it."""
        parts = (self.entry.name, self.entry.axis, str(self.entry.positions[self.place]))
        return " ".join(part for part in parts if part)


@dataclass(frozen=True, eq=False)
class Dataset:
    """Prepared slices, coils and masks, which stay on the disk.

    Args:
        folder: Where they are.
        entries: What slices there are.
        shapes: Of each array, by the name of its file.
        hashes: Of each array's bytes.
    """

    folder: Path
    entries: tuple[Entry, ...]
    shapes: Mapping[str, tuple[int, ...]]
    hashes: Mapping[str, str]
    _open: dict[str, NDArray[Any]] = field(default_factory=dict, repr=False)

    def array(self, name: str) -> NDArray[Any]:
        """Open an array."""
        if name not in self._open:
            self._open[name] = np.load(self.folder / name, mmap_mode="r", allow_pickle=False)
        return self._open[name]

    def items(self, split: Split) -> list[Item]:
        """Return the slices of a split, in order."""
        return [
            Item(entry=entry, place=place)
            for entry in self.entries
            if entry.split == split
            for place in range(len(entry.positions))
        ]

    @cached_property
    def simulated(self) -> bool:
        """Whether k-space is simulated from pictures."""
        return IMAGES in self.shapes

    def shape(self, item: Item) -> tuple[int, ...]:
        """Return rows and columns of a slice, and its coils in front if it is k-space."""
        return self.shapes[item.entry.array][1:]


def masks_of(shape: tuple[int, int], trained: bool) -> str:
    """Return the name of the file of masks of one shape: ``(acceleration, mask, row, column)``."""
    return f"masks-{'train' if trained else 'test'}-{shape[0]}x{shape[1]}.npy"


def save(path: Path, array: NDArray[Any]) -> str:
    """Write a whole array or nothing; return the SHA-256 of its bytes.

    Raises:
        RunFailed: If the disk is full.
    """
    with atomic_file(path) as file:
        np.save(file, array, allow_pickle=False)
    return digest(array)


def digest(array: NDArray[Any]) -> str:
    """Return a SHA-256 of the shape, kind and values of an array."""
    found = hashlib.sha256(f"{array.dtype.str} {array.shape}".encode())
    for start in range(0, len(array), CHUNK):
        found.update(np.ascontiguousarray(array[start : start + CHUNK]).data)
    return found.hexdigest()


def describe(
    entries: Sequence[Entry], shapes: Mapping[str, Sequence[int]], hashes: Mapping[str, str]
) -> dict[str, Any]:
    """Return the content of the manifest."""
    arrays = {
        name: {"shape": list(shapes[name]), "sha256": hashes[name]} for name in sorted(shapes)
    }
    return {"arrays": arrays, "slices": [asdict(one) for one in entries]}


def fingerprint(manifest: Mapping[str, Any]) -> str:
    """Return a SHA-256 of all names, splits and hashes."""
    return hashlib.sha256(json_bytes(manifest)).hexdigest()


def write(folder: Path, manifest: Mapping[str, Any], card: DataCard, key: str) -> None:
    """Write the manifest, and the card last: where it is, all is."""
    write_atomic(folder / MANIFEST, json_bytes(manifest))
    write_card(folder, card, key)


def load(folder: Path) -> Dataset:
    """Open prepared data.

    The manifest is checked against the card, the arrays' shapes against the manifest. That every
    byte is as written, `verify` checks.

    Raises:
        UserError: If there are none, or they have been changed.
    """
    try:
        said = json.loads((folder / CARD).read_bytes())["card"]["fingerprint"]
        manifest = json.loads((folder / MANIFEST).read_bytes())
        arrays = manifest["arrays"]
        dataset = Dataset(
            folder,
            tuple(_entry(line) for line in manifest["slices"]),
            {name: tuple(one["shape"]) for name, one in arrays.items()},
            {name: one["sha256"] for name, one in arrays.items()},
        )
        shapes = {name: dataset.array(name).shape for name in arrays}
    except (OSError, ValueError, KeyError, TypeError, EOFError) as error:
        raise UserError(f"{folder}: no prepared slices; run the ingest stage first") from error
    if fingerprint(manifest) != said or shapes != dataset.shapes:
        raise UserError(
            f"{folder}: the prepared slices have been changed; run the ingest stage again"
        )
    return dataset


def _entry(line: Mapping[str, Any]) -> Entry:
    return Entry(**{**line, "positions": tuple(line["positions"])})


def verify(dataset: Dataset) -> None:
    """Read all arrays and check that they are as written.

    Raises:
        UserError: If one is not.
    """
    for name, said in dataset.hashes.items():
        if digest(dataset.array(name)) != said:
            raise UserError(
                f"{dataset.folder / name}: changed since it was written; run the ingest stage "
                "again"
            )
