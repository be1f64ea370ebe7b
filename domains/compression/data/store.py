"""From photographs to crops in the run's own folder: read, cut, split, write."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from core.contract import DataCard
from core.runtime.errors import UserError
from core.runtime.files import key_of
from core.runtime.progress import Progress
from domains.compression.config import Config, Data
from domains.compression.data import manifest
from domains.compression.data.arrays import GrowingArray
from domains.compression.data.crops import busiest, downscale, scales_of
from domains.compression.data.manifest import Dataset, Entry
from domains.compression.data.pictures import read_picture
from domains.compression.data.records import Picture
from domains.compression.data.sources import Photograph, Source, few, find, folder_of
from domains.compression.data.splits import split

FORMAT = 1


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
    tested = None if data.test is None else folder_of(Path(data.test), "data.test")
    _refuse_shared(source, tested)
    key = _key(config, source, tested)
    if (card := manifest.finished(folder, key)) is not None:
        return card
    folder.mkdir(parents=True, exist_ok=True)
    (folder / manifest.CARD).unlink(missing_ok=True)
    entries, content, notes = _written(config, source, tested, folder)
    card = DataCard(
        source=source.title if tested is None else f"{source.title}; tested on {tested.title}",
        licence=_licences(entries),
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
    settings = config.data.model_dump(mode="json", exclude={"path", "test", "window", "flips"})
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
        pixels: That were decoded.
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
        if scales[-1] != self.data.scales[-1] or len(scales) < len(self.data.scales):
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
        pixels = picture.pixels.permute(1, 2, 0).numpy()
        for scale in scales:
            smaller = downscale(pixels, scale)
            self.array.append(busiest(smaller, self.data.crop, self.data.crops))
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
        )

    def notes(self) -> tuple[str, ...]:
        """Return a line for everything a reader should know."""
        lines = list(few(self.left_out))
        if self.raised:
            lines.append(
                f"{len(self.raised)} photographs are too small for a crop at every scale and used "
                f"at larger ones: {', '.join(few(self.raised))}"
            )
        if self.grey:
            lines.append(f"{self.grey} photographs are grey")
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
            hashes, config.seed, data.valid_fraction, share, source.place, work.left_out
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
