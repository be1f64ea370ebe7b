"""What was prepared, line by line, and how it is known to be unchanged."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.contract import DataCard, Split
from core.runtime.errors import UserError
from core.runtime.files import json_bytes
from core.runtime.folder import write_atomic
from core.runtime.prepared import CARD, write_card

MANIFEST, CROPS, WHOLE = "manifest.json", "crops.npy", "test"
CHUNK = 64  # crops that are hashed at a time


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One photograph, or one picture of the test.

    Args:
        name: Of its source.
        licence: ``unknown`` if it could not be found out.
        sha256: Of its file.
        split: Which split it is in, the whole of it.
        width: Of the file upright, in pixels.
        height: Likewise.
        scales: That crops were taken at.
        first: Index of its first crop.
        crops: How many it has, one after the other.
        detail: Of each crop, see `domains.compression.data.crops.detail`.
        pixels: SHA-256 of the pixels that it is tested with; empty where it is not.
    """

    name: str
    licence: str
    sha256: str
    split: Split
    width: int
    height: int
    scales: tuple[float, ...]
    first: int
    crops: int
    detail: tuple[float, ...]
    pixels: str = ""


@dataclass(frozen=True, eq=False)
class Dataset:
    """Prepared crops.

    Args:
        crops: All of them, ``(crop, colour, height, width)``, as they lie on the disk.
        entries: Where each photograph's are.
        folder: Where all is.
        sha256: Of the crops, as the manifest says.
    """

    crops: NDArray[np.uint8]
    entries: tuple[Entry, ...]
    folder: Path
    sha256: str

    def indices(self, split: Split) -> NDArray[np.int64]:
        """Return the indices of the crops of a split."""
        ranges = [
            np.arange(one.first, one.first + one.crops)
            for one in self.entries
            if one.split == split
        ]
        return np.concatenate([np.arange(0), *ranges])

    @property
    def detail(self) -> NDArray[np.float64]:
        """How much there is to see in each crop."""
        return np.array([value for one in self.entries for value in one.detail])

    @property
    def tested(self) -> tuple[tuple[Entry, Path], ...]:
        """The pictures of the test and their files."""
        entries = [one for one in self.entries if one.split == "test"]
        return tuple((one, whole_path(self.folder, place)) for place, one in enumerate(entries))


def whole_path(folder: Path, place: int) -> Path:
    """Return where a whole picture of the test lies."""
    return folder / WHOLE / f"{place:04d}.png"


def describe(entries: Sequence[Entry], shape: Sequence[int], sha256: str) -> dict[str, Any]:
    """Return the content of the manifest."""
    lines = [asdict(one) for one in entries]
    return {"crops": {"shape": list(shape), "sha256": sha256}, "photographs": lines}


def fingerprint(manifest: Mapping[str, Any]) -> str:
    """Return a SHA-256 of all names, licences, splits and hashes of pixels."""
    return hashlib.sha256(json_bytes(manifest)).hexdigest()


def write(folder: Path, manifest: Mapping[str, Any], card: DataCard, key: str) -> None:
    """Write the manifest, and the card last: where it is, all is."""
    write_atomic(folder / MANIFEST, json_bytes(manifest))
    write_card(folder, card, key)


def load(folder: Path) -> Dataset:
    """Open the prepared crops, which stay on the disk.

    The manifest is checked against the card, the array's shape against the manifest. That every
    byte of the array is as written, `verify` checks.

    Raises:
        UserError: If there are none, or the manifest has been changed.
    """
    try:
        card = json.loads((folder / CARD).read_bytes())["card"]
        manifest = json.loads((folder / MANIFEST).read_bytes())
        crops = np.load(folder / CROPS, mmap_mode="r", allow_pickle=False)
        entries = tuple(_entry(line) for line in manifest["photographs"])
        said, shape = card["fingerprint"], tuple(manifest["crops"]["shape"])
    except (OSError, ValueError, KeyError, TypeError, EOFError) as error:
        raise UserError(
            f"{folder}: no prepared photographs; run the ingest stage first"
        ) from error
    dataset = Dataset(crops, entries, folder, manifest["crops"]["sha256"])
    whole = all(path.is_file() for _, path in dataset.tested)
    if fingerprint(manifest) != said or crops.shape != shape or not whole:
        raise UserError(
            f"{folder}: the prepared photographs have been changed; run the ingest stage again"
        )
    return dataset


def _entry(line: Mapping[str, Any]) -> Entry:
    return Entry(**{**line, "scales": tuple(line["scales"]), "detail": tuple(line["detail"])})


def verify(dataset: Dataset) -> None:
    """Read all crops and check that they are as written.

    Raises:
        UserError: If they are not.
    """
    digest = hashlib.sha256()
    for start in range(0, len(dataset.crops), CHUNK):
        digest.update(np.ascontiguousarray(dataset.crops[start : start + CHUNK]).data)
    if digest.hexdigest() != dataset.sha256:
        raise UserError(
            f"{dataset.folder / CROPS}: changed since it was written; run the ingest stage again"
        )
