"""Tiles cover a picture once, and show no seams."""

from __future__ import annotations

import pytest
import torch
from block_means import BlockMeans, photograph
from hypothesis import given, settings
from hypothesis import strategies as st

from domains.compression.data.records import Picture
from domains.compression.model import container, tiles
from domains.compression.model.codec import Request, decode, encode
from domains.compression.model.tiles import Box, Grid

MODEL = BlockMeans()

grids = st.builds(
    lambda rows, columns, side, halo: Grid(
        height=16 * rows, width=16 * columns, side=16 * side, halo=16 * halo
    ),
    st.integers(1, 12),
    st.integers(1, 12),
    st.integers(1, 5),
    st.integers(0, 7),
)


def counted(boxes: list[Box], grid: Grid) -> torch.Tensor:
    count = torch.zeros(grid.height, grid.width, dtype=torch.int64)
    for box in boxes:
        count[box.top : box.bottom, box.left : box.right] += 1
    return count


@given(grids)
def test_tiles_cover_each_pixel_once(grid: Grid) -> None:
    inner = [grid.inner(place) for place in grid.places]
    assert (counted(inner, grid) == 1).all()
    assert all(0 < box.height <= grid.side and 0 < box.width <= grid.side for box in inner)


@given(grids)
def test_around_a_tile_as_much_is_looked_at_as_the_picture_has(grid: Grid) -> None:
    for place in grid.places:
        inner, outer, halo = grid.inner(place), grid.outer(place), grid.halo_of(place)
        assert outer.top == max(inner.top - grid.halo, 0)
        assert outer.right == min(inner.right + grid.halo, grid.width)
        assert (halo.top, halo.left) == (inner.top - outer.top, inner.left - outer.left)
        assert outer.height == halo.top + inner.height + halo.bottom
        assert outer.width == halo.left + inner.width + halo.right


@given(grids, st.data())
def test_the_tiles_that_a_part_touches_are_those_that_share_pixels_with_it(
    grid: Grid, data: st.DataObject
) -> None:
    box = grid.outer(data.draw(st.sampled_from(grid.places)))
    found = set(grid.touching(box))
    for place in grid.places:
        part = grid.inner(place) & box
        assert (place in found) == (part.height > 0 and part.width > 0)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 120), st.integers(1, 120), st.sampled_from([16, 32, 48]))
def test_a_file_has_as_many_streams_as_there_are_tiles(height: int, width: int, side: int) -> None:
    grid = Grid.of(MODEL, height, width, side)
    header = container.Header(model=bytes(8), width=width, height=height, rate=0, tile=side)
    rows, columns = header.grid
    assert grid.places == [(row, column) for row in range(rows) for column in range(columns)]


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 120), st.integers(1, 120), st.sampled_from([16, 32, 48]), st.integers(0, 252)
)
def test_tiled_or_not_the_picture_is_the_same(
    height: int, width: int, side: int, rate: int
) -> None:
    # The model looks less far than its halo, so that a tile shows what the whole would.
    picture = Picture(pixels=photograph(height, width, seed=side))
    whole = decode(MODEL, encode(MODEL, picture, Request(rate=rate)).data)
    tiled = decode(MODEL, encode(MODEL, picture, Request(rate=rate, tile=side)).data)
    assert torch.equal(tiled.pixels, whole.pixels)


class Near(BlockMeans):
    """The same, but it is not shown anything around a tile."""

    def __init__(self) -> None:
        super().__init__()
        self.halo = 0


def test_without_a_halo_there_would_be_seams() -> None:
    picture, model = Picture(pixels=photograph(64, 64)), Near()
    whole = decode(model, encode(model, picture, Request(rate=200)).data)
    tiled = decode(model, encode(model, picture, Request(rate=200, tile=32)).data)
    assert not torch.equal(tiled.pixels, whole.pixels)


class Far(BlockMeans):
    """The same, but it asks to be shown more around a tile than a tile is large."""

    def __init__(self) -> None:
        super().__init__()
        self.halo = 48


def test_a_halo_may_be_larger_than_a_tile() -> None:
    picture, model = Picture(pixels=photograph(100, 120)), Far()
    whole = decode(model, encode(model, picture, Request(rate=200)).data)
    tiled = encode(model, picture, Request(rate=200, tile=16)).data
    assert torch.equal(decode(model, tiled).pixels, whole.pixels)
    part = decode(model, tiled, tile=(3, 2))
    assert torch.equal(part.pixels, whole.pixels[:, 48:64, 32:48])


@settings(max_examples=30, deadline=None)
@given(st.integers(33, 120), st.integers(33, 120), st.data())
def test_one_tile_is_decoded_as_a_part_of_the_picture_with_its_opacity(
    height: int, width: int, data: st.DataObject
) -> None:
    alpha = (torch.arange(height)[:, None] + torch.arange(width)).to(torch.uint8)
    picture = Picture(pixels=photograph(height, width), alpha=alpha, profile=b"colours")
    file = encode(MODEL, picture, Request(rate=150, tile=32)).data
    row = data.draw(st.integers(0, (height - 1) // 32))
    column = data.draw(st.integers(0, (width - 1) // 32))
    part = decode(MODEL, file, tile=(row, column))
    place = (slice(32 * row, 32 * row + 32), slice(32 * column, 32 * column + 32))
    assert torch.equal(part.pixels, decode(MODEL, file).pixels[:, *place])
    assert part.alpha is not None
    assert torch.equal(part.alpha, alpha[place])
    assert part.profile == b"colours"


@pytest.mark.parametrize(("tile", "neighbours"), [((0, 0), 4), ((2, 1), 9), ((4, 4), 4)])
def test_of_one_tile_only_its_neighbours_are_read_too(
    tile: tuple[int, int], neighbours: int
) -> None:
    model = BlockMeans()
    file = encode(model, Picture(pixels=photograph(160, 160)), Request(tile=32)).data
    decode(model, file, tile=tile)
    assert len(model.read) == neighbours
    model.read.clear()
    decode(model, file)
    assert len(model.read) == 25


def test_no_more_than_three_rows_of_tiles_are_held() -> None:
    picture = photograph(160, 64)
    grid = Grid.of(MODEL, 160, 64, 32)
    rows: list[int] = []

    def coming():  # noqa: ANN202
        coded = tiles.encode(MODEL, picture, grid, 100)
        for place, tile in zip(grid.places, coded, strict=True):
            rows.append(place[0])
            yield place, tile.latents

    for box, _ in tiles.render(MODEL, coming(), grid, 100):
        assert rows[-1] <= box.top // 32 + 1
