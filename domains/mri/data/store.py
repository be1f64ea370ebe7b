"""Heads → prepared slices, arrangements of coils and masks, written once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.contract import DataCard, Split
from core.runtime.errors import UserError
from core.runtime.files import key_of
from core.runtime.order import derive, generator
from core.runtime.prepared import CARD, finished
from core.runtime.progress import Progress
from domains.mri.config import Config, Data
from domains.mri.data import manifest
from domains.mri.data.coils import loops, sensitivities
from domains.mri.data.cutting import Cut, Cutter, thinned
from domains.mri.data.manifest import COILS, IMAGES, TISSUES, Entry
from domains.mri.data.masks import mask
from domains.mri.data.records import Scan
from domains.mri.data.simulation import DATA_CRIME
from domains.mri.data.sources import Found, Source, find
from domains.mri.data.splits import SPLITS, Plan, parted, plan, spread_out

FORMAT = 1
TEST_COILS = 8  # arrangements of coils that only validation and test see
FULL = 0.99  # share of sampled positions from which a scan counts as fully sampled
UNPREPARED = {  # settings that the files do not depend on
    "path", "snr_db", "test_snr_db", "noise_correlation", "phase_rad", "contrast", "not_monotone",
    "flips",
}  # fmt: skip
FEW = 12  # notes that are shown


def prepare(config: Config, folder: Path) -> DataCard:
    """Read every head, cut and split, and write what batches are made of if it is not there.

    The folder then holds ``images.npy`` (slices of magnitude, or files ``kspace-….npy`` for
    measured k-space), ``tissues.npy``, ``coils.npy`` (maps of the arrangements of coils; the last
    are of validation and test), ``masks-….npy``, ``manifest.json`` and ``card.json``.

    Raises:
        UserError: If heads are missing, too few or cannot be read.
    """
    data = config.data
    found = find(data)
    chosen = plan(found.subjects, data, found.place)
    key = _key(data, found)
    if (card := finished(folder, key, manifest.load)) is not None:
        return card
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CARD).unlink(missing_ok=True)
    for path in folder.glob("*.npy"):
        path.unlink()
    writing = _Writing(data, folder, found, chosen)
    if data.source == "kspace":
        writing.scans()
    else:
        writing.heads()
    writing.masks()
    writing.check()
    content = manifest.describe(writing.entries, writing.shapes, writing.hashes)
    card = DataCard(
        source=found.title,
        licence=_licences(writing.entries),
        fingerprint=manifest.fingerprint(content),
        facts=_facts(writing.entries, data, writing.shapes),
        notes=(*writing.caveats(), *chosen.notes, *found.notes, *_few(writing.notes)),
    )
    manifest.write(folder, content, card, key)
    return card


class _Writing:
    """One writing of a folder.

    Args:
        data: The settings.
        folder: Where all goes.
        found: The heads.
        chosen: What each is for.
    """

    def __init__(self, data: Data, folder: Path, found: Found, chosen: Plan) -> None:
        self.data, self.folder, self.found, self.plan = data, folder, found, chosen
        self.entries: list[Entry] = []
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.hashes: dict[str, str] = {}
        self.notes: list[str] = []

    def save(self, name: str, array: NDArray[Any]) -> None:
        """Write one array."""
        self.hashes[name] = manifest.save(self.folder / name, array)
        self.shapes[name] = array.shape

    def heads(self) -> None:
        """Cut all heads, and draw the coils."""
        cutter = Cutter(self.data, self.plan)
        cuts: list[Cut] = []
        with Progress("heads", len(self.found.sources)) as progress:
            for done, source in enumerate(self.found.sources, 1):
                cuts += cutter.cut(source)
                progress.show(done, {})
        kept = [one for one in cuts if one.entry.split == "train"]
        kept += thinned(
            [one for one in cuts if one.entry.split == "valid"], self.data.valid_slices
        )
        tested = [one for one in cuts if one.entry.split == "test"]
        for subject in dict.fromkeys(one.entry.subject for one in tested):
            own = [one for one in tested if one.entry.subject == subject]
            kept += thinned(own, self.data.test_slices)
        self.notes += cutter.notes
        if cutter.blank:
            self.notes.append(f"blank slices left out: {cutter.blank}")
        self._keep(kept)
        self.save(COILS, _coils(self.data))

    def _keep(self, cuts: Sequence[Cut]) -> None:
        first = known = 0
        for one in cuts:
            count = len(one.entry.positions)
            tissues = None if one.tissues is None else known
            self.entries.append(replace(one.entry, first=first, tissues=tissues))
            first, known = first + count, known + (0 if one.tissues is None else count)
        self._check_splits()
        self.save(IMAGES, np.concatenate([one.pictures for one in cuts]))
        if shares := [one.tissues for one in cuts if one.tissues is not None]:
            self.save(TISSUES, np.concatenate(shares))

    def scans(self) -> None:
        """Read measured k-space, one file at a time."""
        with Progress("scans", len(self.found.sources)) as progress:
            for done, source in enumerate(self.found.sources, 1):
                self._scan(source)
                progress.show(done, {})
        self._check_splits()

    def _scan(self, source: Source) -> None:
        scan = read_full(source.path)
        array = f"kspace-{len(self.shapes):04d}.npy"
        self.save(array, np.ascontiguousarray(scan.kspace.numpy()))
        power = np.array([float(one.abs().square().sum()) for one in scan.kspace])
        where = np.flatnonzero(power > 0)
        if len(where) < len(power):
            self.notes.append(f"{source.name}: {len(power) - len(where)} empty slices left out")
        for split, indices in self._parts(source, where, scan.spacing_mm[0]).items():
            for start, stop in _runs(indices):
                self.entries.append(
                    Entry(
                        name=source.name,
                        subject=source.subject,
                        licence=source.licence,
                        sha256=source.sha256,
                        split=split,
                        axis="",
                        positions=tuple(range(start, stop)),
                        array=array,
                        first=start,
                        fov_mm=scan.spacing_mm[2] * scan.kspace.shape[-1],
                    )
                )

    def _parts(
        self, source: Source, where: NDArray[np.int64], spacing_mm: float
    ) -> dict[Split, NDArray[np.int64]]:
        if source.subject != self.plan.shared:
            split = self.plan.splits[source.subject]
            most = {"train": None, "valid": self.data.valid_slices, "test": self.data.test_slices}
            return {split: where[spread_out(len(where), most[split])]}
        if any(one.subject == source.subject for one in self.entries):
            self.notes.append(f"{source.name}: left out; another file of the same head is parted")
            return {}
        return parted(where, spacing_mm, self.plan, self.data, source.name)

    def masks(self) -> None:
        """Draw masks for every shape that there is, of each acceleration."""
        shapes = sorted({self.shapes[one.array][-2:] for one in self.entries})
        counts = {True: self.data.masks, False: self.data.test_masks}
        total = len(shapes) * len(self.data.accelerations) * sum(counts.values())
        with Progress("masks", total) as progress:
            done = 0
            for shape in shapes:
                for trained, count in counts.items():
                    drawn = np.empty((len(self.data.accelerations), count, *shape), bool)
                    for place in np.ndindex(drawn.shape[:2]):
                        drawn[place] = _mask(self.data, shape, trained, *place)
                        progress.show(done := done + 1, {})
                    self.save(manifest.masks_of((shape[0], shape[1]), trained), drawn)

    def _check_splits(self) -> None:
        for split in SPLITS:
            if not any(one.split == split for one in self.entries):
                why = "; ".join(self.notes[:3])
                raise UserError(
                    f"{self.found.place}: no usable slice for {split}{why and f' ({why})'}; "
                    "expected one at least; add heads, or change data.size, data.span, data.blank "
                    "or the subjects of data.valid_subjects and data.test_subjects"
                )

    def check(self) -> None:
        """Make sure of what everything else rests on: no head in two splits, unless said."""
        where: dict[str, set[str]] = {}
        for one in self.entries:
            where.setdefault(one.subject, set()).add(one.split)
        both = {one for one, splits in where.items() if len(splits) > 1}
        assert both <= {self.plan.shared}

    def caveats(self) -> tuple[str, ...]:
        """Return what must be said with every absolute number."""
        if self.data.source == "kspace":
            return (
                "truth is what the coils of the fully sampled scan say together, with its noise",
            )
        return (DATA_CRIME,)


def read_full(path: Path) -> Scan:
    """Read a fully sampled scan.

    Raises:
        UserError: If it is not fully sampled.
    """
    from domains.mri.data.formats import read_scan

    scan = read_scan(path)
    share = float(scan.mask.float().mean())
    if share < FULL:
        raise UserError(
            f"{path}: {share:.1%} of k-space is sampled; expected all of it, there is no truth to "
            "learn from else; take the file out of the folder"
        )
    return scan


def _runs(indices: NDArray[np.integer]) -> list[tuple[int, int]]:
    """Return first and last plus one of every run of indices that follow each other.

    Example:
        >>> _runs(np.array([0, 1, 4]))
        [(0, 2), (4, 5)]
    """
    if not len(indices):
        return []
    parts = np.split(indices, np.flatnonzero(np.diff(indices) != 1) + 1)
    return [(int(one[0]), int(one[-1]) + 1) for one in parts]


def _coils(data: Data) -> NDArray[np.complex64]:
    """Draw arrangements of coils; the last are of validation and test."""
    count, shape = data.coil_sets + TEST_COILS, (data.size, data.size)
    maps = np.empty((count, data.coils, *shape), np.complex64)
    with Progress("coils", count) as progress:
        for place in range(count):
            kept = place - data.coil_sets
            who = ("train", place) if kept < 0 else ("test", kept)
            maps[place] = sensitivities(
                loops(data.coils, generator(data.seed, "coils", *who)), shape
            )
            progress.show(place + 1, {})
    return maps


def _mask(
    data: Data, shape: Sequence[int], trained: bool, acceleration: int, place: int
) -> NDArray[np.bool_]:
    seed = derive(data.seed, "mask", "train" if trained else "test", acceleration, place)
    found = mask(
        data.sampling, (shape[0], shape[1]), data.accelerations[acceleration], data.acs, seed
    )
    return found.numpy()


def _key(data: Data, found: Found) -> str:
    """Return what the prepared files are a function of: settings, heads, format."""
    settings = data.model_dump(mode="json", exclude=UNPREPARED)
    lines = [[one.name, one.subject, one.licence, one.sha256] for one in found.sources]
    maps = sorted({path for one in found.sources for path in one.tissues})
    return key_of({"format": FORMAT, "title": found.title, "heads": lines, **settings}, maps)


# What a report says


def _licences(entries: Sequence[Entry]) -> str:
    names = dict.fromkeys((one.name, one.licence) for one in entries)
    counts = Counter(licence for _, licence in names)
    return ", ".join(
        f"{name} ({count})"
        for name, count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    )


def _facts(
    entries: Sequence[Entry], data: Data, shapes: dict[str, tuple[int, ...]]
) -> dict[str, float | int | str]:
    facts: dict[str, float | int | str] = {}
    for split in SPLITS:
        own = [one for one in entries if one.split == split]
        facts[f"{split} subjects"] = ", ".join(sorted({one.subject for one in own}))
        facts[f"{split} slices"] = sum(len(one.positions) for one in own)
    facts["matrix"] = ", ".join(
        f"{height} x {width}"
        for height, width in sorted({shapes[one.array][-2:] for one in entries})
    )
    simulated = IMAGES in shapes
    if simulated:
        facts["coils"] = f"{data.coils} loops, {data.coil_sets} arrangements"
        facts["noise"] = (
            f"{data.snr_db[0]:g} to {data.snr_db[1]:g} dB, test {data.test_snr_db:g} dB"
        )
    else:
        coils = sorted({shapes[one.array][1] for one in entries})
        facts["coils"] = ", ".join(map(str, coils))
    accelerations = ", ".join(f"{one:g}" for one in data.accelerations)
    facts["sampling"] = f"{data.sampling}, accelerations {accelerations}, ACS {data.acs}"
    return facts


def _few(lines: Sequence[str]) -> tuple[str, ...]:
    more = len(lines) - FEW
    return (*lines[:FEW], *([f"and {more} more like that"] if more > 0 else []))
