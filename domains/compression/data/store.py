"""From photographs to crops in the run's own folder: read, cut, split, write."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from core.contract import DataCard
from core.runtime.errors import UserError
from core.runtime.files import key_of
from core.runtime.prepared import CARD, finished
from core.runtime.progress import Progress
from domains.compression.config import Config, Data
from domains.compression.data import manifest
from domains.compression.data.arrays import GrowingArray
from domains.compression.data.crops import Pixels, busiest, downscale, scales_of
from domains.compression.data.manifest import Dataset, Entry
from domains.compression.data.pictures import read_picture, tensor, write_picture
from domains.compression.data.records import Picture
from domains.compression.data.sources import Photograph, Source, few, find
from domains.compression.data.sources import folder as below
from domains.compression.data.splits import SPLITS, split

FORMAT = 1
UNPREPARED = {
    "path",
    "test",
    "window",
    "flips",
    "busy",
}  # settings that the files do not depend on


def prepare(config: Config, folder: Path) -> DataCard:
    """Read every photograph, cut and split, and write the crops if they are not there already.

    One photograph at a time is in memory. The folder then holds ``crops.npy`` (an array of
    ``uint8``, ``(crop, 3, side, side)``), ``manifest.json`` (a line for each photograph, and the
    hash of the array), ``test/`` (the pictures of the test, whole, as PNG) and ``card.json``.

    A file that cannot be read, has opacity or is smaller than a crop is left out with a note; in
    the folder of the test a file that cannot be read is an error.

    Raises:
        UserError: If the photographs are missing or too few, or one of the test is among them.
    """
    data = config.data
    source = find(data)
    tested = None if data.test is None else below(Path(data.test), "data.test")
    _refuse_shared(source, tested)
    key = _key(config, source, tested)
    if (card := finished(folder, key, manifest.load)) is not None:
        return card
    folder.mkdir(parents=True, exist_ok=True)
    _clear(folder)
    entries, content, notes = _written(config, source, tested, folder)
    card = DataCard(
        source=source.title if tested is None else f"{source.title}; tested on {tested.title}",
        licence=_licences([one for one in entries if tested is None or one.split != "test"]),
        fingerprint=manifest.fingerprint(content),
        facts=_facts(entries, data),
        notes=notes,
    )
    manifest.write(folder, content, card, key)
    return card


def photographs(dataset: Dataset) -> list[dict[str, str]]:
    """Return a line for each photograph: name, licence, hash of its file, split."""
    return [
        {"name": one.name, "licence": one.licence, "sha256": one.sha256, "split": one.split}
        for one in dataset.entries
    ]


def test_pictures(config: Config, folder: Path) -> list[tuple[str, Picture]]:
    """Return the whole pictures of the test with their names.

    Args:
        config: The settings.
        folder: Of prepared data.

    Raises:
        UserError: If there are none, or one has been changed.
    """
    found = []
    for entry, path in manifest.load(folder).tested:
        picture = read_picture(path)
        if _hash(picture) != entry.pixels:
            raise UserError(f"{path}: changed since it was written; run the ingest stage again")
        found.append((entry.name, picture))
    return found


# Before anything is read


def _clear(folder: Path) -> None:
    """Take away what was prepared before, the card first."""
    (folder / CARD).unlink(missing_ok=True)
    for path in (folder / manifest.WHOLE).glob("*.png"):
        path.unlink()


def _refuse_shared(source: Source, tested: Source | None) -> None:
    """Refuse to train on a picture of the test."""
    if tested is None:
        return
    trained = {one.sha256: one.name for one in source.photographs}
    for one in tested.photographs:
        if one.sha256 in trained:
            raise UserError(
                f"{tested.place}: {one.name} is the same file as {trained[one.sha256]} of "
                f"{source.place}; expected pictures that are not trained on; take it out of one"
            )


def _key(config: Config, source: Source, tested: Source | None) -> str:
    """Return what the prepared files are a function of: settings, photographs, format."""
    settings = config.data.model_dump(mode="json", exclude=UNPREPARED)
    found = [source, *([] if tested is None else [tested])]
    lines = [[one.name, one.licence, one.sha256] for each in found for one in each.photographs]
    titles = [each.title for each in found]
    facts = {"format": FORMAT, "seed": config.seed, "photographs": lines, "titles": titles}
    return key_of({**facts, **settings}, ())


# Reading and cutting


@dataclass
class _Pass:
    """One reading of all photographs, one after the other.

    Args:
        data: The settings.
        array: Where crops go.
        progress: What a person sees.
        left_out: A line for each photograph that is not used.
        raised: Names of those for which a scale was too small.
        grey: How many are grey.
    """

    data: Data
    array: GrowingArray
    progress: Progress
    left_out: list[str] = field(default_factory=list)
    raised: list[str] = field(default_factory=list)
    grey: int = 0

    def photograph(self, one: Photograph) -> Entry | None:
        """Cut a photograph at every scale; None if it is left out."""
        try:
            picture = read_picture(one.path)
        except UserError as error:
            self.left_out.append(f"{str(error).replace(str(one.path), one.name)}; left out")
            return None
        finally:
            self._step()
        scales = scales_of(picture.width, picture.height, self.data.crop, self.data.scales)
        if picture.alpha is not None:
            self.left_out.append(f"{one.name}: has opacity; left out")
            return None
        if not scales:
            size, crop = f"{picture.width} x {picture.height}", self.data.crop
            self.left_out.append(f"{one.name}: {size} is smaller than a crop of {crop}; left out")
            return None
        if scales != tuple(dict.fromkeys(self.data.scales)):
            self.raised.append(one.name)
        self.grey += picture.grey
        return self._cut(one, picture, scales)

    def picture(self, one: Photograph, place: int, folder: Path) -> Entry:
        """Keep a picture of the test whole, and cut it as it is."""
        picture = read_picture(one.path)
        self._step()
        keep(folder, place, picture)
        fits = min(picture.width, picture.height) >= self.data.crop
        entry = self._cut(one, picture, (1.0,) if fits else ())
        return replace(entry, split="test", pixels=_hash(picture))

    def _step(self) -> None:
        self.progress.done += 1
        self.progress.show(self.progress.done, {})

    def _cut(self, one: Photograph, picture: Picture, scales: tuple[float, ...]) -> Entry:
        first = self.array.count
        pixels, detail = rows(picture), []
        for scale in scales:
            found = busiest(downscale(pixels, scale), self.data.crop, self.data.crops)
            self.array.append(found.pixels)
            detail += found.detail
        return Entry(
            name=one.name,
            licence=one.licence,
            sha256=one.sha256,
            split="train",
            width=picture.width,
            height=picture.height,
            scales=scales,
            first=first,
            crops=self.array.count - first,
            detail=tuple(detail),
        )

    def notes(self) -> tuple[str, ...]:
        """Return a line for everything a reader should know."""
        lines = list(few(self.left_out))
        if self.raised:
            lines.append(
                "too small for a crop at every scale, and so used at larger ones: "
                f"{', '.join(few(self.raised))}"
            )
        if self.grey:
            lines.append(f"grey photographs: {self.grey}")
        return tuple(lines)


def _written(
    config: Config, source: Source, tested: Source | None, folder: Path
) -> tuple[tuple[Entry, ...], dict[str, object], tuple[str, ...]]:
    """Cut all and write the array and the whole pictures; return lines, manifest and notes."""
    data, count = config.data, len(source.photographs)
    count += 0 if tested is None else len(tested.photographs)
    shape = (3, data.crop, data.crop)
    with (
        GrowingArray(folder / manifest.CROPS, shape) as array,
        Progress("photographs", count) as progress,
    ):
        work = _Pass(data, array, progress)
        found = [work.photograph(one) for one in source.photographs]
        usable = [
            (one, entry) for one, entry in zip(source.photographs, found, strict=True) if entry
        ]
        share = data.test_fraction if tested is None else None
        hashes = [one.sha256 for one, _ in usable]
        splits = split(
            hashes, config.seed, data.valid_fraction, share, source.place, few(work.left_out)
        )
        entries = [
            replace(entry, split=name) for (_, entry), name in zip(usable, splits, strict=True)
        ]
        if tested is None:
            entries = _whole([one for one, _ in usable], entries, folder)
        else:
            entries += [work.picture(one, i, folder) for i, one in enumerate(tested.photographs)]
            _check_crops(entries, data, tested)
    content = manifest.describe(entries, (array.count, *shape), array.sha256)
    return (
        tuple(entries),
        content,
        (*source.notes, *(tested.notes if tested else ()), *work.notes()),
    )


def rows(picture: Picture) -> Pixels:
    """Return the pixels of a picture by rows."""
    return np.ascontiguousarray(picture.pixels.permute(1, 2, 0).numpy())


def _check_crops(entries: Sequence[Entry], data: Data, tested: Source) -> None:
    if not any(one.crops for one in entries if one.split == "test"):
        raise UserError(
            f"{tested.place}: no picture is as large as data.crop {data.crop}; expected one at "
            "least; make the crop smaller or add pictures"
        )


# Whole pictures of the test


def keep(folder: Path, place: int, picture: Picture) -> None:
    """Write a picture of the test."""
    path = manifest.whole_path(folder, place)
    path.parent.mkdir(exist_ok=True)
    write_picture(path, picture, force=True)


def _whole(
    photographs: Sequence[Photograph], entries: Sequence[Entry], folder: Path
) -> list[Entry]:
    """Keep the photographs of the test whole, each at the first of its scales."""
    found: list[Entry] = []
    place = 0
    for one, entry in zip(photographs, entries, strict=True):
        if entry.split == "test":
            picture = read_picture(one.path)
            smaller = tensor(downscale(rows(picture), entry.scales[0]))
            picture = replace(picture, pixels=smaller, notes=())
            keep(folder, place, picture)
            entry, place = replace(entry, pixels=_hash(picture)), place + 1
        found.append(entry)
    return found


def _hash(picture: Picture) -> str:
    """Return a SHA-256 of everything that is tested: size, pixels and opacity."""
    digest = hashlib.sha256(f"{picture.width} x {picture.height}".encode())
    for plane in (picture.pixels, picture.alpha):
        digest.update(b"" if plane is None else plane.numpy().tobytes())
    return digest.hexdigest()


# What a report says


def _licences(entries: Sequence[Entry]) -> str:
    """Name every licence with how many photographs have it, the commonest first."""
    counts = Counter(one.licence for one in entries)
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{name} ({count})" for name, count in ordered)


def _facts(entries: Sequence[Entry], data: Data) -> dict[str, float | int | str]:
    """Count what there is."""
    facts: dict[str, float | int | str] = {}
    for name in SPLITS:
        there = [one for one in entries if one.split == name]
        facts[f"{name} photographs"] = len(there)
        facts[f"{name} crops"] = sum(one.crops for one in there)
    trained = [value for one in entries if one.split == "train" for value in one.detail]
    return {
        **facts,
        "crop": f"{data.crop} x {data.crop} pixels",
        "scales": ", ".join(f"{scale:g}" for scale in data.scales),
        "median detail": f"{float(np.median(trained)):.2f} grey levels a pixel",
    }
