"""Pictures to the bytes of an `.lwc` file and back, by a frozen model."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from core.runtime.errors import UserError
from domains.compression.data.pictures import MAX_PIXELS
from domains.compression.data.records import Picture
from domains.compression.model import container, targets, tiles
from domains.compression.model.errors import CorruptBitstream, ModelMismatch
from domains.compression.model.frozen import Coded, Frozen, Latents
from domains.compression.model.rates import FINE, LAST, index_of
from domains.compression.model.sides import (
    pack_alpha,
    pack_profile,
    unpack_alpha,
    unpack_profile,
)
from domains.compression.model.tiles import Box, Grid, Place

QUALITY = 32
TILE = 1024
_BLOCK = 8  # pixels on a side of a place of the rate map


@dataclass(frozen=True)
class Request:
    """What is asked of a file; of ``rate``, ``quality`` and the targets one, or quality 32.

    Args:
        rate: Rate index, 0 to 252.
        target_bpp: Bits per pixel that the file should have, within 1 %.
        target_bytes: Bytes that it should have, within 1 %.
        target_psnr: PSNR in dB that the decoded picture should have, within 0.05.
        effort: How hard the encoder looks for a better code, 0 to 3.
        tile: Side of the tiles, a multiple of the model's stride, of pictures that are larger;
            1024 if not given.
        quality: 0 to 63: four rate indices each.

    Raises:
        ValueError: If more than one is asked, or out of range.
    """

    rate: int | None = None
    target_bpp: float | None = None
    target_bytes: int | None = None
    target_psnr: float | None = None
    effort: int = 0
    tile: int | None = None
    quality: int | None = None

    def __post_init__(self) -> None:
        wanted = (self.rate, self.quality, self.target_bpp, self.target_bytes, self.target_psnr)
        if sum(value is not None for value in wanted) > 1:
            raise ValueError(f"request: {self}; one of rate, quality and the targets")
        if not (0 <= self.index <= LAST and 0 <= self.effort <= 3):
            raise ValueError(f"request: {self}; rate 0 to {LAST}, effort 0 to 3")

    @property
    def index(self) -> int:
        """The rate index, where there is no target."""
        if self.rate is not None:
            return self.rate
        return index_of(QUALITY if self.quality is None else self.quality)

    @property
    def target(self) -> targets.Target | None:
        """What is to be searched for, or nothing."""
        if self.target_bpp is not None:
            return targets.Target("bpp", self.target_bpp)
        if self.target_bytes is not None:
            return targets.Target("bytes", self.target_bytes)
        if self.target_psnr is not None:
            return targets.Target("psnr", self.target_psnr)
        return None


@dataclass(frozen=True, kw_only=True, eq=False)
class Encoded:
    """A picture as a file, with what is known of it.

    Args:
        data: The bytes of the file.
        rate: Its rate index.
        bits_estimate: What the frozen tables say that all streams cost, in bits.
        header_bytes: Of the file, beside the streams, opacity and profile.
        bits: The estimate by group.
        rate_map: The same by blocks of 8 x 8 pixels; None if the model does not say.
        trials: How many times the picture was encoded.
        reached: What it has of what was the target, in the target's unit; None without one.
    """

    data: bytes
    rate: int
    bits_estimate: float
    header_bytes: int
    bits: Mapping[str, float]
    rate_map: Float[Tensor, "row column"] | None = None
    trials: int = 1
    reached: float | None = None


def encode(frozen: Frozen, picture: Picture, request: Request = Request()) -> Encoded:
    """Write a picture to the bytes of a file.

    Raises:
        UserError: If the tiles do not fit the model, or a target is out of reach.
    """
    work = _Work.of(frozen, picture, request)
    target = request.target
    if target is None:
        return work.encoded(request.index, request.effort)[0]
    return _searched(work, target)


def decode(
    frozen: Frozen,
    data: bytes,
    level: int | None = None,
    tile: Place | None = None,
    max_pixels: int = MAX_PIXELS,
) -> Picture:
    """Return the picture that the bytes of a file hold.

    Args:
        frozen: The model that wrote it.
        data: The whole file.
        level: How many levels to read, from the coarsest; all if not given.
        tile: Row and column of the one tile to return; only it and its neighbours are read.
        max_pixels: Of the whole picture, that are allowed.

    Raises:
        CorruptBitstream: If the file is damaged; it names the section. The check of the latents
            needs all of them: of a part of the file only the sections are checked.
        ModelMismatch: If another model wrote it.
        TooLarge: If the picture has more pixels than allowed.
        UserError: If there is no such level or tile.
    """
    file, grid = _opened(frozen, data, max_pixels)
    levels = _level(frozen, level)
    box, wanted, near = _part(file.header, grid, tile)
    alpha, profile = _sides(file)
    read = tiles.decode(frozen, _payloads(file, grid, near), grid, file.header.rate, levels)
    check = _Check()
    rendered = tiles.render(frozen, check.along(read), grid, file.header.rate, wanted)
    pixels = tiles.assemble(rendered, box)
    if tile is None and levels is None:
        check.require(file.check)
    return Picture(
        pixels=grey_of(pixels) if file.header.grey else pixels,
        grey=file.header.grey,
        alpha=None if alpha is None else alpha[box.top : box.bottom, box.left : box.right],
        profile=profile,
    )


def verify(frozen: Frozen, data: bytes, max_pixels: int = MAX_PIXELS) -> None:
    """Check all of a file, its latents included, without making a picture.

    Raises:
        CorruptBitstream: If the file is damaged; it names the section.
        ModelMismatch: If another model wrote it.
        TooLarge: If the picture has more pixels than allowed.
    """
    file, grid = _opened(frozen, data, max_pixels)
    _sides(file)
    check = _Check()
    for _ in check.along(
        tiles.decode(frozen, _payloads(file, grid, grid.places), grid, file.header.rate)
    ):
        pass
    check.require(file.check)


def info(data: bytes, frozen: Frozen | None = None) -> dict[str, Any]:
    """Return what a file holds: size, rate, sections and their bytes.

    Args:
        data: The whole file.
        frozen: The model that wrote it, to name its levels too.

    Raises:
        CorruptBitstream: If the file is damaged; it names the section.
        ModelMismatch: If another model wrote it.
    """
    header = container.read_header(data)
    file = container.read(data, header.width * header.height)
    sections = dict(zip(header.sections, map(len, file.payloads), strict=True))
    found: dict[str, Any] = {
        "version": header.version,
        "model": header.model.hex(),
        "width": header.width,
        "height": header.height,
        "rate_index": header.rate,
        "quality": header.rate / FINE,
        "grey": header.grey,
        "alpha": header.alpha,
        "profile": header.profile,
        "tile_side": header.tile,
        "tiles": list(header.grid),
        "bytes": len(data),
        "bpp": 8 * len(data) / (header.width * header.height),
        "sections": sections,
        "container_bytes": len(data) - sum(sections.values()),
    }
    if frozen is not None:
        _require_own(frozen, header)
        found["levels"] = list(frozen.levels)
    return found


def grey_of(pixels: UInt8[Tensor, "3 height width"]) -> UInt8[Tensor, "3 height width"]:
    """Return the nearest picture without colour: the mean of red, green and blue.

    Example:
        >>> grey_of(torch.tensor([9, 10, 12], dtype=torch.uint8).view(3, 1, 1)).flatten()
        tensor([10, 10, 10], dtype=torch.uint8)
    """
    total = pixels[0].to(torch.int16) + pixels[1] + pixels[2]
    return ((total + 1) // 3).to(torch.uint8).expand(3, -1, -1)


class _Check:
    """The check of latents that pass by."""

    def __init__(self) -> None:
        self.value = 0

    def along(self, read: Iterable[tuple[Place, Latents]]) -> Iterator[tuple[Place, Latents]]:
        for place, latents in read:
            self.value = container.check_of(latents, self.value)
            yield place, latents

    def require(self, wanted: int) -> None:
        if self.value != wanted:
            raise CorruptBitstream(
                "latents",
                f"decoded to {self.value:08x}, written were {wanted:08x}; the file is damaged or "
                "was written by another release; make it again",
            )


@dataclass(eq=False)
class _Streams:
    """What is kept of the tiles as they are coded: all but their latents."""

    payloads: list[bytes] = field(default_factory=list)
    bits: dict[str, float] = field(default_factory=dict)
    maps: list[Tensor | None] = field(default_factory=list)
    check: _Check = field(default_factory=_Check)

    def along(
        self, coded: Iterable[Coded], places: Iterable[Place]
    ) -> Iterator[tuple[Place, Latents]]:
        for tile, place in zip(coded, places, strict=True):
            self.payloads.append(tile.payload)
            self.maps.append(tile.rate_map)
            for name, bits in tile.bits.items():
                self.bits[name] = self.bits.get(name, 0.0) + bits
            yield from self.check.along([(place, tile.latents)])

    def rate_map(self, grid: Grid) -> Tensor | None:
        whole = torch.zeros(grid.height // _BLOCK, grid.width // _BLOCK)
        for place, part in zip(grid.places, self.maps, strict=True):
            if part is None:
                return None
            inner = grid.inner(place)
            _, rows, columns = inner.within(Box(0, 0, grid.height, grid.width), _BLOCK)
            whole[rows, columns] = part.float().cpu()
        return whole


@dataclass(frozen=True, kw_only=True, eq=False)
class _Work:
    """A picture about to be encoded, at one rate or at several."""

    frozen: Frozen
    picture: Picture
    header: container.Header
    grid: Grid
    alpha: bytes | None
    profile: bytes | None
    effort: int

    @classmethod
    def of(cls, frozen: Frozen, picture: Picture, request: Request) -> _Work:
        if picture.pixels.dtype != torch.uint8 or picture.pixels.shape[0] != 3:
            raise ValueError(f"picture: {picture.pixels.dtype} {tuple(picture.pixels.shape)}")
        height, width = picture.height, picture.width
        side = _side(frozen, request.tile)
        header = container.Header(
            model=frozen.identity,
            width=width,
            height=height,
            rate=0,
            tile=side if max(height, width) > side else 0,
            grey=picture.grey,
        )
        if problem := header.problem():
            raise UserError(f"picture: {problem}")
        return cls(
            frozen=frozen,
            picture=picture,
            header=header,
            grid=Grid.of(frozen, height, width, header.tile),
            alpha=None if picture.alpha is None else pack_alpha(picture.alpha),
            profile=None if picture.profile is None else pack_profile(picture.profile),
            effort=request.effort,
        )

    def encoded(self, rate: int, effort: int, compare: bool = False) -> tuple[Encoded, float]:
        """Encode it at a rate; return the PSNR of what it decodes to also, where asked."""
        streams, grid = _Streams(), self.grid
        coded = tiles.encode(self.frozen, self.picture.pixels, grid, rate, effort)
        latents = streams.along(coded, grid.places)
        psnr_db = math.nan
        if compare:
            psnr_db = self._psnr_db(tiles.render(self.frozen, latents, grid, rate))
        else:
            for _ in latents:
                pass
        file = container.File(
            header=replace(self.header, rate=rate),
            tiles=tuple(streams.payloads),
            alpha=self.alpha,
            profile=self.profile,
            check=streams.check.value,
        )
        return _encoded(file, streams, grid), psnr_db

    def _psnr_db(self, parts: Iterable[tuple[Box, Tensor]]) -> float:
        whole = Box(0, 0, self.picture.height, self.picture.width)
        error = 0
        for place, pixels in parts:
            part = place & whole
            found = pixels[part.within(place)]
            found = grey_of(found) if self.picture.grey else found
            difference = found.int() - self.picture.pixels[part.within(whole)]
            error += int(difference.square().sum())
        return targets.psnr_db(error / (3 * whole.height * whole.width))


def _encoded(file: container.File, streams: _Streams, grid: Grid) -> Encoded:
    data = container.write(file)
    return Encoded(
        data=data,
        rate=file.header.rate,
        bits_estimate=math.fsum(streams.bits.values()),
        header_bytes=len(data) - sum(map(len, file.payloads)),
        bits=streams.bits,
        rate_map=streams.rate_map(grid),
    )


def _side(frozen: Frozen, tile: int | None) -> int:
    stride = frozen.stride
    if tile is None:
        return -(-TILE // stride) * stride
    if tile < stride or tile % stride:
        down = max(tile // stride, 1) * stride
        raise UserError(
            f"--tile: got {tile}, expected a multiple of {stride}, the stride of this model; "
            f"take {down} or {down + stride}"
        )
    return tile


def _opened(frozen: Frozen, data: bytes, max_pixels: int) -> tuple[container.File, Grid]:
    file = container.read(data, max_pixels)
    header = file.header
    _require_own(frozen, header)
    if header.tile % frozen.stride:
        raise CorruptBitstream(
            "header", f"tiles of {header.tile} pixels, not a multiple of {frozen.stride}"
        )
    return file, Grid.of(frozen, header.height, header.width, header.tile)


def _require_own(frozen: Frozen, header: container.Header) -> None:
    if header.model != frozen.identity:
        raise ModelMismatch(header.model, frozen.identity)


def _sides(file: container.File) -> tuple[Tensor | None, bytes | None]:
    header = file.header
    alpha = file.alpha
    return (
        None if alpha is None else unpack_alpha(alpha, header.height, header.width),
        None if file.profile is None else unpack_profile(file.profile),
    )


def _payloads(file: container.File, grid: Grid, places: list[Place]) -> dict[Place, bytes]:
    streams = dict(zip(grid.places, file.tiles, strict=True))
    return {place: streams[place] for place in places}


def _level(frozen: Frozen, level: int | None) -> int | None:
    """Return how many levels are to be read, or nothing for all."""
    count = len(frozen.levels)
    if level is not None and not 1 <= level <= count:
        raise UserError(f"--level: got {level}, expected 1 to {count}: {', '.join(frozen.levels)}")
    return None if level == count else level


def _part(
    header: container.Header, grid: Grid, tile: Place | None
) -> tuple[Box, list[Place], list[Place]]:
    """Return what is to be shown, which tiles to render for it, and which to read."""
    whole = Box(0, 0, header.height, header.width)
    if tile is None:
        return whole, grid.places, grid.places
    rows, columns = header.grid
    if rows * columns == 1 and tile != (0, 0):
        raise UserError(f"--tile: got {tile[0]},{tile[1]}; the whole picture is one tile, 0,0")
    if not (0 <= tile[0] < rows and 0 <= tile[1] < columns):
        raise UserError(
            f"--tile: got {tile[0]},{tile[1]}, expected rows 0 to {rows - 1} and columns 0 to "
            f"{columns - 1}"
        )
    return grid.inner(tile) & whole, [tile], grid.touching(grid.outer(tile))


def _searched(work: _Work, target: targets.Target) -> Encoded:
    """Encode at one rate after another until a target is met.

    Where effort is asked for, the first trials are without: it moves the result by little.
    """
    found: dict[tuple[int, int], Encoded] = {}
    values: dict[tuple[int, int], float] = {}
    pixels = work.picture.height * work.picture.width

    def measure(rate: int, effort: int) -> float:
        if (rate, effort) not in found:
            encoded, psnr_db = work.encoded(rate, effort, compare=target.kind == "psnr")
            size = len(encoded.data)
            each = {"bpp": 8 * size / pixels, "bytes": float(size), "psnr": psnr_db}
            found[rate, effort], values[rate, effort] = encoded, each[target.kind]
        return values[rate, effort]

    most = targets.MOST_TRIALS if work.effort == 0 else targets.TRIALS_WITHOUT_EFFORT
    result = targets.search(lambda rate: measure(rate, 0), target, most=most)
    if work.effort:
        left = targets.MOST_TRIALS - result.trials
        result = targets.search(
            lambda rate: measure(rate, work.effort), target, start=result.rate, most=left
        )
    if result.outside:
        targets.refuse(target, measure(0, work.effort), measure(LAST, work.effort))
    encoded = found[result.rate, work.effort]
    return replace(encoded, trials=len(found), reached=result.value)
