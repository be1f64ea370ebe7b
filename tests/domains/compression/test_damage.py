"""Nothing that happens to a file ends in a picture, a crash or a hang: a typed error, always."""

from __future__ import annotations

import io
import struct
import tracemalloc
import zlib
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy import ndarray
from PIL import Image
from torch import Tensor

from core.runtime.errors import UserError
from domains.compression.model.coder import Decoder, Encoder, Tables
from domains.compression.model.container import File, Header, check_of, crc32c, read, write
from domains.compression.model.errors import CorruptBitstream
from domains.compression.model.program import SCALES, scale_of

LIMIT = 1 << 24
TABLES = Tables.gaussian()
SIGMA = scale_of(torch.arange(SCALES).double()).numpy()
SHAPE = (6, 40, 40)


def tables_of(tile: int) -> ndarray:
    """The table of each latent of a tile, as a model would say it."""
    return np.random.default_rng(tile).integers(0, 45, SHAPE)


def latents_of(tile: int) -> ndarray:
    table = tables_of(tile)
    drawn = np.random.default_rng(99 + tile).normal(size=SHAPE) * SIGMA[table] * 1.2
    return np.where(table == 0, 0, np.rint(drawn)).astype(np.int32)


def encoded(tiled: bool, sides: bool) -> bytes:
    tiles, check = [], 0
    for tile in range(4 if tiled else 1):
        encoder = Encoder(TABLES)
        encoder.put(latents_of(tile), tables_of(tile))
        tiles.append(encoder.finish())
        check = check_of({"y": torch.from_numpy(latents_of(tile))}, check)
    header = Header(
        model=b"thismodl", width=300, height=301, rate=100, tile=256 * tiled, grey=sides
    )
    extra = zlib.compress(bytes(range(256))) if sides else None
    return write(File(header=header, tiles=tuple(tiles), alpha=extra, profile=extra, check=check))


def decoded(data: bytes) -> list[Tensor]:
    """All that decoding does before a picture is rendered."""
    file, latents, check = read(data, LIMIT), [], 0
    for tile, payload in enumerate(file.tiles):
        decoder = Decoder(TABLES, payload)
        latents.append(torch.from_numpy(decoder.take(tables_of(tile))))
        decoder.finish()
        check = check_of({"y": latents[-1]}, check)
    if check != file.check:
        raise CorruptBitstream("latents", "other latents than were coded")
    return latents


WHOLE = [encoded(tiled, sides) for tiled in (False, True) for sides in (False, True)]
Damage = Callable[[bytes, np.random.Generator], bytes]


def cut(data: bytes, rng: np.random.Generator) -> bytes:
    return data[: rng.integers(len(data))]


def flip(data: bytes, rng: np.random.Generator) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.choice([1, 1, 1, 2, 8])):
        # As often in the 60 bytes at either end as anywhere.
        changed[rng.choice([rng.integers(len(data)), rng.integers(-60, 60)])] ^= 1 << rng.integers(
            8
        )
    return bytes(changed)


def overwrite(data: bytes, rng: np.random.Generator) -> bytes:
    place, length = int(rng.integers(len(data))), int(rng.integers(1, 200))
    return data[:place] + rng.bytes(length) + data[place + length :]


def insert(data: bytes, rng: np.random.Generator) -> bytes:
    place = int(rng.integers(len(data) + 1))
    return data[:place] + rng.bytes(int(rng.integers(1, 40))) + data[place:]


def remove(data: bytes, rng: np.random.Generator) -> bytes:
    place = int(rng.integers(len(data)))
    return data[:place] + data[place + int(rng.integers(1, 40)) :]


def repeat(data: bytes, rng: np.random.Generator) -> bytes:
    place = int(rng.integers(1, len(data)))
    return data[:place] + data[: rng.integers(1, len(data))] + data[place:]


def splice(data: bytes, rng: np.random.Generator) -> bytes:
    other = WHOLE[rng.integers(len(WHOLE))]
    return data[: rng.integers(len(data))] + other[rng.integers(len(other)) :]


def zeroed(data: bytes, rng: np.random.Generator) -> bytes:
    """As a disk leaves a file whose end was not written."""
    kept = int(rng.integers(len(data)))
    return data[:kept] + bytes(len(data) - kept)


def as_text(data: bytes, rng: np.random.Generator) -> bytes:
    """As a transfer in text mode changes line ends, or the eighth bit."""
    if rng.random() < 0.5:
        return data.replace(b"\n", b"\r\n")
    return bytes(byte & 0x7F for byte in data)


def foreign(data: bytes, rng: np.random.Generator) -> bytes:
    kind = rng.choice(["JPEG", "PNG", "WEBP", "random", "headed", "text"])
    if kind == "random":
        return rng.bytes(int(rng.integers(0, 500)))
    if kind == "headed":
        return data[: rng.integers(4, 30)] + rng.bytes(int(rng.integers(0, 500)))
    if kind == "text":
        return b"latents\n" * int(rng.integers(1, 50))
    stream = io.BytesIO()
    pixels = rng.integers(0, 256, (9, 9, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(stream, kind)
    return stream.getvalue()


KINDS = [cut, flip, overwrite, insert, remove, repeat, splice, zeroed, as_text, foreign]


@pytest.mark.parametrize("whole", WHOLE)
def test_what_is_whole_decodes_to_what_was_coded(whole: bytes) -> None:
    for tile, latents in enumerate(decoded(whole)):
        assert np.array_equal(latents.numpy(), latents_of(tile))


@pytest.mark.parametrize("damage", KINDS)
def test_each_of_a_thousand_damaged_files_is_a_typed_error(damage: Damage) -> None:
    rng = np.random.default_rng(KINDS.index(damage))
    for trial in range(100):
        whole = WHOLE[trial % len(WHOLE)]
        changed = damage(whole, rng)
        while changed in WHOLE:
            changed = damage(whole, rng)
        with pytest.raises(CorruptBitstream) as raised:
            decoded(changed)
        assert raised.value.section.split()[0] in {
            "magic", "version", "header", "section", "tile", "alpha", "profile", "trailer",
        }  # fmt: skip


@pytest.mark.parametrize("damage", KINDS)
def test_a_damaged_stream_that_no_check_guards_is_an_error_or_other_symbols(
    damage: Damage,
) -> None:
    rng = np.random.default_rng(100 + KINDS.index(damage))
    encoder = Encoder(TABLES)
    encoder.put(latents_of(0), tables_of(0))
    stream = encoder.finish()
    noticed = [section_of_damage(damage(stream, rng)) for _ in range(60)]
    assert set(noticed) <= {None, "stream"}
    assert any(noticed) or damage in (flip, as_text)


def section_of_damage(stream: bytes) -> str | None:
    decoder = Decoder(TABLES, stream)
    try:
        assert decoder.take(tables_of(0)).shape == SHAPE
        decoder.finish()
    except CorruptBitstream as error:
        return error.section
    return None


def test_latents_that_another_model_decodes_are_noticed() -> None:
    file = read(WHOLE[0], LIMIT)
    changed = write(
        File(header=file.header, tiles=file.tiles, alpha=None, profile=None, check=file.check ^ 1)
    )
    with pytest.raises(CorruptBitstream, match="latents: other"):
        decoded(changed)


def leb128(value: int) -> bytes:
    groups = [value >> shift & 0x7F for shift in range(0, max(1, value.bit_length()), 7)]
    return bytes([*(group | 0x80 for group in groups[:-1]), groups[-1]])


def hostile(flags: int, numbers: list[int], rate: int, entries: bytes, rest: bytes) -> bytes:
    """A file of any claims with all checks right, as only a person would make it."""
    head = b"\x89LWC\x01" + bytes([flags]) + bytes(8)
    head += leb128(numbers[0]) + leb128(numbers[1]) + bytes([rate])
    head += b"".join(map(leb128, numbers[2:]))
    start = head + struct.pack("<I", crc32c(head))[:2] + entries
    data = start + struct.pack("<I", crc32c(entries))[:2] + rest
    return data + struct.pack("<I", crc32c(data))


numbers = st.one_of(
    st.integers(0, 300),
    st.sampled_from([2**16, 2**24 - 1, 2**24, 2**24 + 1, 2**32, 2**35 - 1, 2**63]),
)


@st.composite
def claims(draw: st.DrawFn) -> bytes:
    lengths = draw(st.lists(numbers, max_size=6))
    body = draw(st.binary(max_size=60))
    right = draw(st.booleans())
    entries = b"".join(
        leb128(length) + struct.pack("<I", crc32c(body[:length]) if right else length % 2**32)
        for length in lengths
    )
    return hostile(
        draw(st.one_of(st.integers(0, 15), st.integers(0, 255))),
        draw(st.lists(numbers, min_size=2, max_size=3)),
        draw(st.integers(0, 255)),
        draw(st.one_of(st.just(entries), st.binary(max_size=40))),
        draw(st.one_of(st.just(body + bytes(4)), st.binary(max_size=200))),
    )


@settings(max_examples=1500, deadline=None)
@given(claims())
def test_claims_with_right_checks_are_refused_or_kept(data: bytes) -> None:
    try:
        file = read(data, LIMIT)
    except UserError:
        return
    assert write(file) == data


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (hostile(0, [2**24, 2**24], 0, b"", b""), "--max-pixels"),
        (hostile(0, [2**35 - 1, 1], 0, b"", b""), "header: 34359738367 x 1 pixels"),
        (hostile(0, [2**36, 1], 0, b"", b""), "header: damaged, a number has too many bytes"),
        (hostile(0, [0, 9], 0, b"", b""), "header: 0 x 9 pixels"),
        (hostile(0, [9, 9], 253, b"", b""), "header: rate index 253; 0 to 252"),
        (hostile(0x80, [9, 9], 0, b"", b""), "header: flags 0x80"),
        (hostile(1, [9, 9, 0], 0, b"", b""), "header: flags 0x01"),
        (hostile(1, [4096, 4096, 1], 0, b"", b""), "header: 4096 x 4096 tiles"),
        (hostile(1, [4096, 4096, 16], 0, b"", b""), "section table: .* 65536 sections"),
        (hostile(0, [9, 9], 0, leb128(2**35 - 1) + bytes(4), b""), "tile 0,0: .* of 343597384"),
        (hostile(0, [9, 9], 0, leb128(2**35) + bytes(4), b""), "section table: damaged"),
        (hostile(0, [9, 9], 0, b"\x80\x00" + bytes(4), bytes(8)), "section table: damaged"),
        (hostile(0, [9, 9], 0, leb128(0) + bytes(4), bytes(5)), "trailer: 1 byte"),
    ],
)
def test_a_hostile_claim_takes_no_memory_and_is_named(data: bytes, message: str) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(UserError, match=message):
            read(data, LIMIT)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_escapes_without_end_take_no_more_memory_than_the_stream_has_bits() -> None:
    # A damaged stream may ask for an escape with 32 more bits at every symbol.
    frequencies = np.array([1, 1, (1 << 16) - 2])
    tables = Tables(frequencies, np.array([3]), np.array([0]), np.array([1]))
    table = np.zeros(200_000, np.int64)
    assert len(tables.models) == 1  # made before it is measured
    tracemalloc.start()
    try:
        with pytest.raises(CorruptBitstream, match="ends after 2000 bytes"):
            Decoder(tables, np.random.default_rng(0).bytes(2000)).take(table)
        assert tracemalloc.get_traced_memory()[1] < 60 * len(table)
    finally:
        tracemalloc.stop()
