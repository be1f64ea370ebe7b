"""The file, against a second writer that follows the table of its description."""

from __future__ import annotations

import io
import pickle
import struct

import numpy as np
import pytest
import safetensors.numpy
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from core.runtime.errors import UserError
from domains.compression.model.container import (
    LONGEST_SIDE,
    MAGIC,
    File,
    Header,
    check_of,
    crc32c,
    read,
    read_header,
    write,
)
from domains.compression.model.errors import CorruptBitstream, ModelMismatch, TooLarge
from domains.compression.model.rates import LAST

LIMIT = 1 << 31
MODEL = bytes(range(8))


def bitwise_crc32c(data: bytes) -> int:
    """The CRC-32C bit by bit, as its polynomial is written in RFC 3720."""
    register = 0xFFFFFFFF
    for byte in data:
        register ^= byte
        for _ in range(8):
            register = (register >> 1) ^ (0x82F63B78 if register & 1 else 0)
    return register ^ 0xFFFFFFFF


def leb128(value: int) -> bytes:
    groups = [value >> shift & 0x7F for shift in range(0, max(1, value.bit_length()), 7)]
    return bytes([*(group | 0x80 for group in groups[:-1]), groups[-1]])


def low_half(data: bytes) -> bytes:
    return struct.pack("<H", bitwise_crc32c(data) & 0xFFFF)


def parts_of(file: File) -> list[tuple[str, bytes]]:
    """Every field of a file with the section that damage to it belongs to."""
    header = file.header
    names = [f"tile {row},{column}" for row in range(2) for column in range(2)]
    sections = list(zip(names if header.tile else ["tile 0,0"], file.tiles, strict=True))
    sections += [("alpha", file.alpha)] if file.alpha is not None else []
    sections += [("profile", file.profile)] if file.profile is not None else []
    flags = (header.tile > 0) | header.grey << 1 | header.alpha << 2 | header.profile << 3
    head = bytes([flags]) + header.model + leb128(header.width) + leb128(header.height)
    head += bytes([header.rate]) + (leb128(header.tile) if header.tile else b"")
    table = b"".join(leb128(len(s)) + struct.pack("<I", bitwise_crc32c(s)) for _, s in sections)
    parts = [("magic", b"\x89LWC"), ("version", b"\x01"), ("header", head)]
    parts += [("header", low_half(b"\x89LWC\x01" + head))]
    parts += [("section table", table), ("section table", low_half(table)), *sections]
    parts += [("trailer", struct.pack("<I", file.check))]
    return [*parts, ("trailer", struct.pack("<I", bitwise_crc32c(joined(parts))))]


def joined(parts: list[tuple[str, bytes]]) -> bytes:
    return b"".join(part for _, part in parts)


def a_file(seed: int = 0, tiled: bool = True, size: int = 40) -> File:
    rng = np.random.default_rng(seed)
    return File(
        header=Header(
            model=MODEL, width=300, height=200, rate=77, tile=160 if tiled else 0, grey=True
        ),
        tiles=tuple(rng.bytes(size + index) for index in range(4 if tiled else 1)),
        alpha=rng.bytes(9),
        profile=rng.bytes(200),
        check=0x12345678,
    )


def error_of(data: bytes) -> CorruptBitstream:
    with pytest.raises(CorruptBitstream) as raised:
        read(data, LIMIT)
    assert str(raised.value).startswith(f"{raised.value.section}: ")
    assert "\n" not in str(raised.value)
    return raised.value


def test_the_check_is_the_crc_of_the_standard() -> None:
    assert crc32c(b"123456789") == 0xE3069283
    assert crc32c(bytes(32)) == 0x8A9136AA  # RFC 3720, B.4
    assert crc32c(b"\xff" * 32) == 0x62A8AB43
    assert crc32c(bytes(range(32))) == 0x46DD794E


def test_the_check_goes_on_where_it_stopped() -> None:
    data = np.random.default_rng(0).bytes(1000)
    assert crc32c(data) == bitwise_crc32c(data)
    assert crc32c(data[300:], crc32c(data[:300])) == crc32c(data)


@pytest.mark.parametrize("tiled", [False, True])
def test_a_file_is_laid_out_as_its_description_says(tiled: bool) -> None:
    file = a_file(tiled=tiled)
    assert write(file) == joined(parts_of(file))
    assert read(write(file), LIMIT) == file


def test_a_file_never_changes() -> None:
    header = Header(model=MODEL, width=768, height=512, rate=126)
    data = write(File(header=header, tiles=(b"stream",), check=0xAABBCCDD))
    assert data.hex() == (
        "894c574301000001020304050607800680047e0e87"  # to the check of the header
        "062b3c1a1173b3"  # the table, its check
        "73747265616dddccbbaa56e1a057"
    )


@pytest.mark.parametrize("size", [(768, 512), (512, 768)])
@pytest.mark.parametrize("length", [200, 20_000, 400_000])
def test_a_kodak_picture_has_at_most_40_bytes_beside_its_stream(
    size: tuple[int, int], length: int
) -> None:
    header = Header(model=MODEL, width=size[0], height=size[1], rate=126)
    assert len(write(File(header=header, tiles=(bytes(length),), check=1))) - length <= 38


sides = st.one_of(st.integers(1, 2000), st.integers(1, LONGEST_SIDE))


@st.composite
def files(draw: st.DrawFn) -> File:
    width, height = draw(sides), draw(sides)
    tile = draw(st.sampled_from([0, max(1, min(width, height) // 2), 1024, LONGEST_SIDE]))
    header = Header(
        model=draw(st.binary(min_size=8, max_size=8)),
        width=width,
        height=height,
        rate=draw(st.integers(0, LAST)),
        tile=0 if tile and -(-width // tile) * -(-height // tile) > 60 else tile,
        grey=draw(st.booleans()),
    )
    rows, columns = header.grid
    tiles = tuple(draw(st.binary(max_size=300)) for _ in range(rows * columns))
    part = st.none() | st.binary(max_size=300)
    check = draw(st.integers(0, 2**32 - 1))
    return File(header=header, tiles=tiles, alpha=draw(part), profile=draw(part), check=check)


@settings(max_examples=150, deadline=None)
@given(files())
def test_every_file_is_read_as_it_was_written(file: File) -> None:
    data = write(file)
    assert read(data, 1 << 48) == file
    assert read_header(data) == file.header
    assert len(file.header.sections) == len(file.payloads)


def test_a_part_of_no_bytes_is_not_a_part_that_is_not_there() -> None:
    header = Header(model=MODEL, width=1, height=1, rate=0)
    file = File(header=header, tiles=(b"",), alpha=b"", check=0)
    again = read(write(file), LIMIT)
    assert (again.alpha, again.profile, again.tiles) == (b"", None, (b"",))


@pytest.mark.parametrize("tiled", [False, True])
def test_a_flipped_bit_names_the_section_that_it_is_in(tiled: bool) -> None:
    parts = parts_of(a_file(tiled=tiled))
    data, place = bytearray(joined(parts)), 0
    for section, part in parts:
        for byte in range(place, place + len(part)):
            for bit in range(8):
                data[byte] ^= 1 << bit
                assert error_of(bytes(data)).section == section, (byte, bit)
                data[byte] ^= 1 << bit
        place += len(part)
    assert read(bytes(data), LIMIT)


def test_a_truncated_file_says_where_it_ends_and_should_end() -> None:
    parts = parts_of(a_file())
    data, place = joined(parts), 0
    for section, part in parts:
        for length in range(max(1, place), place + len(part)):
            error = error_of(data[:length])
            assert error.section == section
            assert f"the file ends after {length}" in error.problem
            known = section not in ("magic", "version", "header", "section table")
            assert (f"of {len(data)} bytes" in error.problem) == known
        place += len(part)


def test_the_section_before_the_end_of_a_truncated_file_is_checked_first() -> None:
    parts = parts_of(a_file())
    data = bytearray(joined(parts))
    place = sum(len(part) for _, part in parts[:6])
    data[place + 3] ^= 4
    assert error_of(bytes(data[:-20])).section == "tile 0,0"


def test_bytes_after_the_end_are_counted() -> None:
    error = error_of(write(a_file()) + b"abc")
    assert (error.section, "3 bytes follow" in error.problem) == ("trailer", True)


def test_bytes_between_belong_to_the_section_that_they_are_in() -> None:
    file = a_file(tiled=False)
    data = write(file)
    assert error_of(data.replace(file.tiles[0], file.tiles[0] + b"x")).section == "alpha"
    assert error_of(data.replace(file.tiles[0], b"x" + file.tiles[0])).section == "tile 0,0"


def test_an_empty_file_is_said_to_be_empty() -> None:
    error = error_of(b"")
    assert (error.section, "the file is empty" in error.problem) == ("magic", True)


def picture(form: str) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (16, 16), (200, 30, 70)).save(stream, form)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("form", "said"),
    [
        ("JPEG", "a JPEG picture"),
        ("PNG", "a PNG picture"),
        ("WEBP", "a WebP picture"),
        ("AVIF", "an AVIF picture"),
        ("GIF", "a GIF picture"),
        ("BMP", "a BMP picture"),
        ("TIFF", "a TIFF picture"),
        ("JPEG2000", "a JPEG 2000 picture"),
        ("PPM", "a PPM picture"),
        ("PDF", "a PDF document"),
    ],
)
def test_a_foreign_file_is_called_by_its_name(form: str, said: str) -> None:
    error = error_of(picture(form))
    assert error.section == "magic"
    assert error.problem == f"this is {said}; expected an .lwc file"


def test_a_model_is_not_taken_for_a_picture() -> None:
    data = safetensors.numpy.save({"weight": np.zeros(3, np.float32)})
    assert "a model (safetensors)" in error_of(data).problem


def test_an_unknown_file_is_shown_by_its_first_bytes() -> None:
    assert "starts with 68 65 6c 6c" in error_of(b"hello, world").problem


def test_a_later_version_is_no_riddle() -> None:
    data = bytearray(write(a_file()))
    data[4] = 7
    error = error_of(bytes(data))
    assert (error.section, "later release" in error.problem) == ("version", True)


def test_too_many_pixels_are_refused_and_the_flag_named() -> None:
    data = write(a_file())
    assert read(data, 300 * 200)
    with pytest.raises(TooLarge, match=r"300 x 200 is 60,000 .* --max-pixels 60000"):
        read(data, 300 * 200 - 1)
    assert read_header(data).width == 300


@pytest.mark.parametrize(
    "change",
    [
        {"width": 0},
        {"height": LONGEST_SIDE + 1},
        {"rate": LAST + 1},
        {"rate": -1},
        {"tile": -1},
        {"width": LONGEST_SIDE, "height": LONGEST_SIDE, "tile": 64},
        {"model": b"short"},
        {"version": 2},
    ],
)
def test_what_no_file_can_hold_is_not_written(change: dict[str, object]) -> None:
    given = {"model": MODEL, "width": 8, "height": 8, "rate": 0} | change
    with pytest.raises(ValueError, match="container: "):
        write(File(header=Header(**given), tiles=(b"",), check=0))  # pyright: ignore[reportArgumentType]


def test_a_stream_for_each_tile_must_be_given() -> None:
    header = Header(model=MODEL, width=100, height=70, rate=0, tile=64)
    with pytest.raises(ValueError, match="3 streams for 2 x 2 tiles"):
        write(File(header=header, tiles=(b"", b"", b""), check=0))


def test_the_check_of_latents_is_that_of_their_bytes_by_name() -> None:
    y, z = torch.tensor([[[3, -1], [0, 70000]]]), torch.tensor([[[-(2**31), 2**31 - 1]]])
    expected = bitwise_crc32c(struct.pack("<6i", 3, -1, 0, 70000, -(2**31), 2**31 - 1))
    assert check_of({"z": z, "y": y}) == expected
    assert check_of({"y": y.double(), "z": z.double()}) == expected
    assert check_of({"z": z}, check_of({"y": y.int()})) == expected
    assert check_of({"y": y + 1, "z": z}) != expected


def test_the_check_of_latents_does_not_depend_on_how_they_lie_in_memory() -> None:
    latent = torch.arange(24).view(2, 3, 4)
    turned = latent.permute(2, 1, 0).contiguous().permute(2, 1, 0)
    assert check_of({"y": turned}) == check_of({"y": latent})


@pytest.mark.parametrize("value", [0.5, 2.0**31, -(2.0**40), float("nan"), float("inf")])
def test_latents_that_are_no_integers_of_32_bits_are_refused(value: float) -> None:
    with pytest.raises(CorruptBitstream, match="latents: no integers of 32 bits"):
        check_of({"y": torch.tensor([1.0, value], dtype=torch.float64)})


def test_errors_are_told_in_one_line_and_survive_a_process() -> None:
    errors = [
        CorruptBitstream("stream", "damaged").within("tile 1,2"),
        ModelMismatch(MODEL, bytes(8)),
        TooLarge(10, 20, 30),
    ]
    for error in errors:
        again = pickle.loads(pickle.dumps(error))
        assert isinstance(error, UserError)
        assert (type(again), str(again)) == (type(error), str(error))
    assert str(errors[0]) == "tile 1,2: damaged"
    assert MODEL.hex() in str(errors[1])
    assert bytes(8).hex() in str(errors[1])


def test_the_first_bytes_are_no_text() -> None:
    assert MAGIC[0] >= 0x80
