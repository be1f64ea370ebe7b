"""Pictures in tiles, so that only a part of a large one is worked on at once.

The latents are those of the whole picture: a tile is analysed with pixels around it, of which only
the inner part's latents are coded, and rendered with the latents of its neighbours around. No bits
go into an overlap and nothing has to be blended; only what predicts the latents stops at a tile's
border.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import UInt8
from torch import Tensor

from domains.compression.model.errors import CorruptBitstream
from domains.compression.model.frozen import Coded, Frozen, Halo, Latents

Place = tuple[int, int]
Pixels = UInt8[Tensor, "colour height width"]


@dataclass(frozen=True)
class Box:
    """A part of a picture, in pixels from its top left; its end is outside."""

    top: int
    left: int
    bottom: int
    right: int

    @property
    def height(self) -> int:
        """In pixels."""
        return self.bottom - self.top

    @property
    def width(self) -> int:
        """In pixels."""
        return self.right - self.left

    def __and__(self, other: Box) -> Box:
        return Box(
            max(self.top, other.top),
            max(self.left, other.left),
            min(self.bottom, other.bottom),
            min(self.right, other.right),
        )

    def within(self, outer: Box, stride: int = 1) -> tuple[slice, slice, slice]:
        """Return where it lies in all channels of something of ``outer`` at a stride."""
        rows = slice((self.top - outer.top) // stride, (self.bottom - outer.top) // stride)
        columns = slice((self.left - outer.left) // stride, (self.right - outer.left) // stride)
        return slice(None), rows, columns


@dataclass(frozen=True, kw_only=True)
class Grid:
    """How a picture is cut into tiles.

    Args:
        height: Of the picture, padded: a multiple of the model's stride.
        width: Likewise.
        side: Of a tile, a multiple of the stride; the last of a row or column may be smaller.
        halo: Pixels that are looked at on each side of a tile, a multiple of the stride.

    Example:
        >>> grid = Grid(height=96, width=64, side=64, halo=32)
        >>> grid.inner((1, 0)), grid.outer((1, 0)).top, grid.halo_of((1, 0)).top
        (Box(top=64, left=0, bottom=96, right=64), 32, 32)
    """

    height: int
    width: int
    side: int
    halo: int

    @classmethod
    def of(cls, frozen: Frozen, height: int, width: int, side: int) -> Grid:
        """Cut a picture of this size for a model; a side of 0 makes it one tile."""
        padded = [-(-size // frozen.stride) * frozen.stride for size in (height, width)]
        return cls(height=padded[0], width=padded[1], side=side or max(padded), halo=frozen.halo)

    @property
    def places(self) -> list[Place]:
        """Row and column of each tile, row by row."""
        rows, columns = -(-self.height // self.side), -(-self.width // self.side)
        return [(row, column) for row in range(rows) for column in range(columns)]

    def inner(self, place: Place) -> Box:
        """Return what is coded of a tile."""
        top, left = place[0] * self.side, place[1] * self.side
        return self._whole & Box(top, left, top + self.side, left + self.side)

    def outer(self, place: Place) -> Box:
        """Return what is looked at: the inner part and as much around as there is."""
        box, halo = self.inner(place), self.halo
        wide = Box(box.top - halo, box.left - halo, box.bottom + halo, box.right + halo)
        return self._whole & wide

    def halo_of(self, place: Place) -> Halo:
        """Return what of the outer part is not in the inner one."""
        inner, outer = self.inner(place), self.outer(place)
        return Halo(
            top=inner.top - outer.top,
            left=inner.left - outer.left,
            bottom=outer.bottom - inner.bottom,
            right=outer.right - inner.right,
        )

    def touching(self, box: Box) -> list[Place]:
        """Return the tiles that a part of the picture has something of."""
        rows = range(box.top // self.side, -(-box.bottom // self.side))
        columns = range(box.left // self.side, -(-box.right // self.side))
        return [(row, column) for row in rows for column in columns]

    @property
    def _whole(self) -> Box:
        return Box(0, 0, self.height, self.width)


def encode(
    frozen: Frozen, pixels: Pixels, grid: Grid, rate: int, effort: int = 0
) -> Iterator[Coded]:
    """Code a picture tile by tile, row by row.

    Args:
        frozen: The model.
        pixels: Of the whole picture, not padded.
        grid: How it is cut.
        rate: Rate index.
        effort: How hard a better code is looked for, 0 to 3.
    """
    for place in grid.places:
        seen = cut(pixels, grid.outer(place))
        yield frozen.encode(seen, rate, effort, grid.halo_of(place))


def cut(pixels: Pixels, box: Box) -> Pixels:
    """Return a part of a picture, whose last row and column go on for ever."""
    rows = torch.arange(box.top, box.bottom).clamp(max=pixels.shape[1] - 1)
    columns = torch.arange(box.left, box.right).clamp(max=pixels.shape[2] - 1)
    return pixels[:, rows][:, :, columns]


def decode(
    frozen: Frozen,
    payloads: Mapping[Place, bytes],
    grid: Grid,
    rate: int,
    level: int | None = None,
) -> Iterator[tuple[Place, Latents]]:
    """Read the latents of tiles, in the order given.

    Raises:
        CorruptBitstream: If a stream cannot be of this model and size; it names the tile.
    """
    for place, payload in payloads.items():
        box = grid.inner(place)
        try:
            latents = frozen.decode(payload, box.height, box.width, rate, level)
        except CorruptBitstream as error:
            raise error.within(f"tile {place[0]},{place[1]}") from error
        yield place, latents


def render(
    frozen: Frozen,
    tiles: Iterable[tuple[Place, Latents]],
    grid: Grid,
    rate: int,
    wanted: Iterable[Place] | None = None,
) -> Iterator[tuple[Box, Pixels]]:
    """Render tiles as soon as their neighbours are there, and forget who is needed no more.

    Args:
        frozen: The model.
        tiles: Latents of each tile, row by row; of some tiles only, their neighbours too.
        grid: How the picture is cut.
        rate: Rate index.
        wanted: Which tiles to render, row by row; all if not given.

    Returns:
        Where each tile is in the padded picture, and its pixels.
    """
    coming, held = iter(tiles), dict[Place, Latents]()
    for place in grid.places if wanted is None else wanted:
        outer, inner = grid.outer(place), grid.inner(place)
        near = grid.touching(outer)
        while not held.keys() >= set(near):
            there, latents = next(coming)
            held[there] = latents
        for row, column in [there for there in held if there[0] < near[0][0]]:
            del held[row, column]
        picture = frozen.render(_joined({there: held[there] for there in near}, grid, outer), rate)
        yield inner, picture[inner.within(outer)].cpu()


def _joined(tiles: Mapping[Place, Latents], grid: Grid, outer: Box) -> Latents:
    """Return the latents of a part of the picture that lies in several tiles."""
    first, latents = next(iter(tiles.items()))
    joined: dict[str, Tensor] = {}
    for name, group in latents.items():
        stride = grid.inner(first).height // group.shape[1]
        size = (group.shape[0], outer.height // stride, outer.width // stride)
        joined[name] = group.new_empty(size)
        for place, there in tiles.items():
            box = grid.inner(place)
            part = box & outer
            joined[name][part.within(outer, stride)] = there[name][part.within(box, stride)]
    return joined


def assemble(parts: Iterable[tuple[Box, Pixels]], box: Box) -> Pixels:
    """Return a part of a picture from tiles that cover it."""
    whole = torch.empty(3, box.height, box.width, dtype=torch.uint8)
    for place, pixels in parts:
        part = place & box
        whole[part.within(box)] = pixels[part.within(place)]
    return whole
