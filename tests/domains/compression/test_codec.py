"""Pictures to files and back: what is kept, what is estimated, what is refused."""

from __future__ import annotations

import zlib
from dataclasses import replace
from typing import Any

import pytest
import torch
from block_means import BlockMeans, photograph
from hypothesis import given, settings
from hypothesis import strategies as st

from core.runtime.errors import UserError
from domains.compression.data.records import Picture
from domains.compression.model import container
from domains.compression.model.codec import (
    Encoded,
    Request,
    decode,
    encode,
    grey_of,
    info,
    verify,
)
from domains.compression.model.errors import CorruptBitstream, ModelMismatch, TooLarge
from domains.compression.model.sides import pack_alpha, pack_profile, unpack_alpha, unpack_profile

MODEL = BlockMeans()


def alpha_of(height: int, width: int) -> torch.Tensor:
    return (torch.arange(height)[:, None] * 7 + torch.arange(width) % 5).to(torch.uint8)


def picture_of(height: int, width: int, grey: bool = False, more: bool = False) -> Picture:
    pixels = photograph(height, width, seed=height * width)
    return Picture(
        pixels=grey_of(pixels) if grey else pixels,
        grey=grey,
        alpha=alpha_of(height, width) if more else None,
        profile=b"a profile" * 20 if more else None,
    )


@settings(max_examples=60, deadline=None)
@given(
    st.one_of(st.just(1), st.integers(1, 70)),
    st.one_of(st.just(1), st.integers(1, 70)),
    st.integers(0, 252),
    st.sampled_from([16, 32, 1024]),
    st.booleans(),
    st.booleans(),
)
def test_a_picture_of_any_size_comes_back_with_all_that_belongs_to_it(
    height: int, width: int, rate: int, tile: int, grey: bool, more: bool
) -> None:
    picture = picture_of(height, width, grey, more)
    encoded = encode(MODEL, picture, Request(rate=rate, tile=tile))
    back = decode(MODEL, encoded.data)
    assert back.pixels.shape == (3, height, width)
    assert back.pixels.dtype == torch.uint8
    assert back.grey == grey
    assert back.profile == picture.profile
    assert (back.alpha is None) == (picture.alpha is None)
    if back.alpha is not None and picture.alpha is not None:
        assert torch.equal(back.alpha, picture.alpha)
    if grey:
        assert torch.equal(back.pixels, grey_of(back.pixels))
    verify(MODEL, encoded.data)


def test_decoding_renders_what_the_latents_of_the_whole_picture_say() -> None:
    picture = picture_of(61, 83)
    padded = torch.nn.functional.pad(picture.pixels[None].double(), (0, 13, 0, 3), "replicate")[0]
    coded = MODEL.encode(padded.to(torch.uint8), 200)
    rendered = MODEL.render(coded.latents, 200)[:, :61, :83]
    back = decode(MODEL, encode(MODEL, picture, Request(rate=200)).data)
    assert torch.equal(back.pixels, rendered)


@pytest.mark.parametrize("tile", [1024, 64])
def test_a_file_weighs_what_the_tables_say_and_its_header(tile: int) -> None:
    encoded = encode(MODEL, picture_of(300, 420), Request(rate=252, tile=tile))
    file = container.read(encoded.data, 10**6)
    streams = sum(map(len, file.tiles))
    assert encoded.header_bytes == len(encoded.data) - streams
    assert encoded.bits_estimate == pytest.approx(sum(encoded.bits.values()))
    assert 8 * streams == pytest.approx(encoded.bits_estimate, rel=0.005, abs=9 * len(file.tiles))


def test_the_header_of_an_untiled_picture_is_45_bytes_at_most() -> None:
    assert encode(MODEL, picture_of(512, 768)).header_bytes <= 45


@pytest.mark.parametrize("tile", [1024, 32])
def test_the_rate_map_holds_the_bits_of_all_groups(tile: int) -> None:
    encoded = encode(MODEL, picture_of(70, 90), Request(tile=tile))
    assert encoded.rate_map is not None
    assert encoded.rate_map.shape == (80 // 8, 96 // 8)
    assert float(encoded.rate_map.sum()) == pytest.approx(encoded.bits_estimate, rel=1e-5)


def test_more_levels_come_closer_and_all_levels_are_the_picture() -> None:
    picture = picture_of(90, 90)
    data = encode(MODEL, picture, Request(rate=252)).data
    errors = []
    for level in (1, 2):
        back = decode(MODEL, data, level=level).pixels
        errors.append(float((back.double() - picture.pixels).square().mean()))
    assert errors[1] < errors[0]
    assert torch.equal(decode(MODEL, data, level=2).pixels, decode(MODEL, data).pixels)


def test_equal_requests_give_equal_bytes() -> None:
    picture = picture_of(50, 70, more=True)
    assert encode(MODEL, picture).data == encode(MODEL, picture).data


def test_without_a_request_a_picture_has_quality_32() -> None:
    picture = picture_of(20, 20)
    assert encode(MODEL, picture).data == encode(MODEL, picture, Request(quality=32)).data
    assert encode(MODEL, picture).rate == 128


def test_another_models_file_is_refused_with_both_identities() -> None:
    data = encode(MODEL, picture_of(20, 20)).data
    other = BlockMeans(b"another.")
    for refuse in (decode, verify):
        with pytest.raises(ModelMismatch) as caught:
            refuse(other, data)
        assert (caught.value.wanted, caught.value.present) == (b"blockmns", b"another.")
    with pytest.raises(ModelMismatch):
        info(data, other)


def changed(encoded: Encoded, **values: Any) -> bytes:
    """The same file with other content, all of its own checks right."""
    file = container.read(encoded.data, 10**6)
    return container.write(replace(file, **values))


@pytest.mark.parametrize("tile", [1024, 32])
def test_other_latents_than_were_written_are_named_though_all_sections_are_whole(
    tile: int,
) -> None:
    encoded = encode(MODEL, picture_of(40, 50), Request(tile=tile))
    check = container.read(encoded.data, 10**6).check
    data = changed(encoded, check=check ^ 1)
    for refuse in (decode, verify):
        with pytest.raises(CorruptBitstream, match="latents") as caught:
            refuse(MODEL, data)
        assert caught.value.section == "latents"


def test_a_stream_that_is_none_is_named_by_its_tile() -> None:
    encoded = encode(MODEL, picture_of(40, 50), Request(tile=32))
    tiles = list(container.read(encoded.data, 10**6).tiles)
    tiles[3] = b"\xff"
    with pytest.raises(CorruptBitstream) as caught:
        verify(MODEL, changed(encoded, tiles=tuple(tiles)))
    assert caught.value.section == "tile 1,1"


@pytest.mark.parametrize(
    ("section", "values"),
    [
        ("alpha", {"alpha": b""}),
        ("alpha", {"alpha": b"\x07abc"}),
        ("alpha", {"alpha": b"\0abc"}),
        ("alpha", {"alpha": b"\0" + zlib.compress(bytes(19 * 20))}),
        ("alpha", {"alpha": b"\0" + zlib.compress(bytes(21 * 20))}),
        ("alpha", {"alpha": b"\0" + zlib.compress(bytes(20 * 20)) + b"more"}),
        ("profile", {"profile": b"abc"}),
        ("profile", {"profile": zlib.compress(bytes(1 << 25))}),
    ],
)
def test_what_is_packed_wrongly_is_named(section: str, values: dict[str, bytes]) -> None:
    data = changed(encode(MODEL, picture_of(20, 20, more=True)), **values)
    for refuse in (decode, verify):
        with pytest.raises(CorruptBitstream) as caught:
            refuse(MODEL, data)
        assert caught.value.section == section


def test_tiles_that_do_not_fit_the_model_are_an_error_of_the_header() -> None:
    encoded = encode(MODEL, picture_of(20, 20))
    header = replace(container.read(encoded.data, 400).header, tile=24)
    with pytest.raises(CorruptBitstream, match="header"):
        decode(MODEL, changed(encoded, header=header))


def test_no_more_pixels_are_decoded_than_allowed() -> None:
    data = encode(MODEL, picture_of(20, 30)).data
    for refuse in (decode, verify):
        with pytest.raises(TooLarge, match="600"):
            refuse(MODEL, data, max_pixels=599)
    assert decode(MODEL, data, max_pixels=600).width == 30


@pytest.mark.parametrize(
    ("level", "tile"), [(0, None), (3, None), (None, (0, 1)), (None, (-1, 0))]
)
def test_a_level_or_tile_that_is_not_there_is_a_users_error(
    level: int | None, tile: tuple[int, int] | None
) -> None:
    data = encode(MODEL, picture_of(20, 20)).data
    with pytest.raises(UserError, match="level: got" if level is not None else "tile: got"):
        decode(MODEL, data, level=level, tile=tile)


@pytest.mark.parametrize("tile", [0, 8, 24, -16])
def test_tiles_are_multiples_of_the_models_stride(tile: int) -> None:
    with pytest.raises(UserError, match="multiple of 16"):
        encode(MODEL, picture_of(20, 20), Request(tile=tile))


@pytest.mark.parametrize(
    "asked",
    [{"rate": 3, "quality": 2}, {"target_bpp": 1.0, "rate": 0}, {"rate": 253}, {"effort": 4}],
)
def test_a_request_is_of_one_thing_and_in_range(asked: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="request"):
        Request(**asked)


def test_a_file_says_what_is_in_it() -> None:
    encoded = encode(MODEL, picture_of(40, 50, more=True), Request(rate=101, tile=32))
    found = info(encoded.data, MODEL)
    assert (found["width"], found["height"], found["rate_index"]) == (50, 40, 101)
    assert (found["tiles"], found["tile_side"]) == ([2, 2], 32)
    assert list(found["sections"]) == [
        *("tile 0,0", "tile 0,1", "tile 1,0", "tile 1,1"), "alpha", "profile",
    ]  # fmt: skip
    assert found["container_bytes"] == encoded.header_bytes
    assert sum(found["sections"].values()) + found["container_bytes"] == len(encoded.data)
    assert found["levels"] == ["coarse", "fine"]


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 20), st.integers(1, 20), st.data())
def test_opacity_comes_back_to_the_last_bit(height: int, width: int, data: st.DataObject) -> None:
    values = data.draw(st.binary(min_size=height * width, max_size=height * width))
    alpha = torch.tensor(list(values), dtype=torch.uint8).view(height, width)
    assert torch.equal(unpack_alpha(pack_alpha(alpha), height, width), alpha)


def test_a_smooth_opacity_takes_few_bytes() -> None:
    ramp = torch.arange(256).expand(200, 256).to(torch.uint8)
    assert len(pack_alpha(ramp)) < 300
    assert len(pack_alpha(ramp.T)) < 300


def test_a_profile_comes_back_and_an_endless_one_is_refused() -> None:
    profile = bytes(range(256)) * 12
    assert unpack_profile(pack_profile(profile)) == profile
    with pytest.raises(UserError, match="profile"):
        pack_profile(bytes((1 << 24) + 1))
