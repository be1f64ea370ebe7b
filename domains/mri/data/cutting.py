"""Heads → slices of every split, one head in memory at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from jaxtyping import Float16, Float32
from numpy.typing import NDArray

from core.runtime.errors import UserError
from domains.mri.config import Axis, Data
from domains.mri.data.manifest import Entry
from domains.mri.data.sources import Source
from domains.mri.data.splits import Plan, parted, spread_out
from domains.mri.data.volumes import (
    NORMALS,
    Grid,
    Volume,
    field_of_view,
    fine_enough,
    positions,
    read_volume,
    slices,
)

DARK = 1e-6  # mean below which a slice is blank whatever the settings say
Pictures = Float32[np.ndarray, "slice height width"]
Shares = Float16[np.ndarray, "slice tissue height width"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Cut:
    """Slices of one head along one axis, in one split.

    Args:
        entry: Their line of the manifest, without their place in the arrays.
        pictures: Magnitude.
        tissues: Shares of grey and white matter, if they are known.
    """

    entry: Entry
    pictures: Pictures
    tissues: Shares | None

    def only(self, kept: NDArray[np.integer]) -> Cut:
        """Return some of the slices."""
        where = tuple(self.entry.positions[place] for place in kept)
        return replace(
            self,
            entry=replace(self.entry, positions=where),
            pictures=self.pictures[kept],
            tissues=None if self.tissues is None else self.tissues[kept],
        )


@dataclass
class Cutter:
    """Cuts one head after the other.

    Args:
        data: The settings.
        plan: What each head is for.
        notes: A line for everything a reader should know.
        blank: Slices that were left out as blank.
        fields: Field of view of each head, in mm.
    """

    data: Data
    plan: Plan
    notes: list[str] = field(default_factory=list)
    blank: int = 0
    fields: dict[str, float] = field(default_factory=dict)
    _seen: set[str] = field(default_factory=set)

    def cut(self, source: Source) -> list[Cut]:
        """Cut a head along every axis that its split asks for.

        Raises:
            UserError: If the file cannot be read.
        """
        shared = source.subject == self.plan.shared
        if shared and source.subject in self._seen:
            self.notes.append(f"{source.name}: left out; another file of the same head is parted")
            return []
        self._seen.add(source.subject)
        volume = read_volume(source.path)
        grid = Grid(size=self.data.size, fov_mm=field_of_view(volume, self.data.fov_mm))
        self._note_field(source, grid)
        tissues = [_tissue(path, volume) for path in source.tissues]
        found = []
        for axis in self._axes(source):
            if not fine_enough(volume, axis, grid):
                self.notes.append(f"{source.name}: too coarse for {grid.pixel_mm:.2g} mm {axis}")
                continue
            whole = self._whole(source, volume, axis, grid)
            found += [
                self._with_tissues(one, tissues, axis, grid)
                for one in self._parts(whole, volume.spacing_mm[NORMALS[axis]])
            ]
        return [one for one in found if one.entry.positions]

    def _axes(self, source: Source) -> tuple[Axis, ...]:
        if source.subject == self.plan.shared:
            return self.data.test_axes[:1]
        trained = self.plan.splits[source.subject] == "train"
        return self.data.axes if trained else self.data.test_axes

    def _whole(self, source: Source, volume: Volume, axis: Axis, grid: Grid) -> Cut:
        """Cut a head along one axis, and leave out what is blank."""
        where = positions(volume, axis, self.data.span, self.data.step)
        pictures = np.concatenate(list(slices(volume, axis, where, grid)))
        kept = np.flatnonzero(pictures.mean((1, 2)) >= max(self.data.blank, DARK))
        self.blank += len(where) - len(kept)
        entry = Entry(
            name=source.name,
            subject=source.subject,
            licence=source.licence,
            sha256=source.sha256,
            split=self.plan.splits[source.subject],
            axis=axis,
            positions=tuple(where.tolist()),
            fov_mm=grid.fov_mm,
        )
        return Cut(entry=entry, pictures=pictures, tissues=None).only(kept)

    def _parts(self, whole: Cut, spacing_mm: float) -> list[Cut]:
        """Part the slices of a head that is in several splits."""
        if whole.entry.subject != self.plan.shared:
            return [whole]
        where = np.array(whole.entry.positions, np.int64)
        parts = parted(where, spacing_mm, self.plan, self.data, whole.entry.name)
        found = [
            (split, whole.only(np.flatnonzero(np.isin(where, own))))
            for split, own in parts.items()
        ]
        return [replace(one, entry=replace(one.entry, split=split)) for split, one in found]

    def _with_tissues(self, cut: Cut, tissues: Sequence[Volume], axis: Axis, grid: Grid) -> Cut:
        """Add the shares of tissues to slices that are trained on."""
        where = cut.entry.positions
        if not tissues or not where or cut.entry.split != "train":
            return cut
        shares = [np.concatenate(list(slices(one, axis, where, grid))) for one in tissues]
        return replace(cut, tissues=np.stack(shares, 1).astype(np.float16))

    def _note_field(self, source: Source, grid: Grid) -> None:
        self.fields[source.name] = grid.fov_mm
        if grid.fov_mm != self.data.fov_mm:
            asked = f"{self.data.fov_mm:g} mm"
            self.notes.append(
                f"{source.name}: a field of view of {grid.fov_mm:.0f} mm instead of {asked}"
            )


def _tissue(path: Path, volume: Volume) -> Volume:
    """Read a map of a tissue of the same head.

    Raises:
        UserError: If it is not on the grid of the head.
    """
    found = read_volume(path, scale=False)
    if found.values.shape != volume.values.shape:
        raise UserError(
            f"{path}: a map of {found.values.shape} voxels, but {volume.name} has "
            f"{volume.values.shape}; expected the same; take the map out of the folder"
        )
    top = float(found.values.max())
    return replace(found, values=found.values / np.float32(top)) if top > 1 else found


def thinned(cuts: Sequence[Cut], most: int | None) -> list[Cut]:
    """Keep at most so many slices of all, evenly spread.

    Args:
        cuts: In order.
        most: Kept in all; None keeps all.
    """
    count = sum(len(one.entry.positions) for one in cuts)
    kept = spread_out(count, most)
    found, first = [], 0
    for one in cuts:
        last = first + len(one.entry.positions)
        own = kept[(kept >= first) & (kept < last)] - first
        if len(own):
            found.append(one.only(own))
        first = last
    return found
