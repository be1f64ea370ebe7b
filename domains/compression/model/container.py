r"""The file `.lwc`: what is in it, and what is wrong with one.

All numbers are little-endian; a varint holds seven bits a byte, the lowest first, and the top bit
of each byte says whether another follows (LEB128, as short as possible).

=================  ======  =====================================================================
field              bytes   meaning
=================  ======  =====================================================================
magic              4       ``89 4C 57 43``: not text, then "LWC"
version            1       1
flags              1       1 tiled, 2 grey, 4 alpha, 8 colour profile; no others
model              8       identity of the frozen model, `Frozen.identity`
width              varint  pixels, 1 to 2^24
height             varint  likewise
rate               1       rate index, 0 to 252
tile               varint  side of a tile in pixels, 1 to 2^24; only if tiled
header check       2       low half of the CRC-32C of all before it
section table      each    a varint: length in bytes; 4 bytes: CRC-32C of the section. Tiles row by
                           row, then alpha, then profile. An untiled picture is one tile
table check        2       low half of the CRC-32C of the section table
sections                   in the order of the table
latents            4       CRC-32C of what the tiles decode to, `check_of` one after the other
trailer            4       CRC-32C of all before it
=================  ======  =====================================================================

A Kodak picture takes 38 bytes beside its stream. The two short checks only tell which part is
damaged; whether the file is whole is for the trailer to say.

References:
    Castagnoli, Bräuer and Herrmann, "Optimization of Cyclic Redundancy-Check Codes with 24 and 32
    Parity Bits", IEEE Transactions on Communications 41, 1993; RFC 3720, appendix B.4, for the
    CRC-32C and its examples.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import google_crc32c
import numpy as np

from domains.compression.model.errors import CorruptBitstream, TooLarge
from domains.compression.model.rates import LAST

if TYPE_CHECKING:
    from torch import Tensor

MAGIC = b"\x89LWC"
VERSION = 1
LONGEST_SIDE = 1 << 24
MOST_TILES = 1 << 16

_TILED, _GREY, _ALPHA, _PROFILE = 1, 2, 4, 8
_MODEL_BYTES = 8
_VARINT_BYTES = 5
_ENTRY_BYTES = 5  # of a section in the table, at least
_END_BYTES = 8
_AGAIN = "copy or make the file again"
_KINDS = (
    (0, b"\xff\xd8\xff", "a JPEG picture"),
    (0, b"\x89PNG", "a PNG picture"),
    (0, b"GIF8", "a GIF picture"),
    (8, b"WEBP", "a WebP picture"),
    (4, b"ftypavi", "an AVIF picture"),
    (4, b"ftyphei", "a HEIF picture"),
    (4, b"ftypmif1", "a HEIF picture"),
    (0, b"\xff\x0a", "a JPEG XL picture"),
    (4, b"JXL ", "a JPEG XL picture"),
    (4, b"jP  ", "a JPEG 2000 picture"),
    (0, b"\xff\x4f\xff\x51", "a JPEG 2000 picture"),
    (0, b"II*\0", "a TIFF picture"),
    (0, b"MM\0*", "a TIFF picture"),
    (0, b"BM", "a BMP picture"),
    (0, b"8BPS", "a Photoshop picture"),
    (0, b"qoif", "a QOI picture"),
    (0, b"BPG\xfb", "a BPG picture"),
    (0, b"P5", "a PGM picture"),
    (0, b"P6", "a PPM picture"),
    (0, b"%PDF", "a PDF document"),
    (0, b"PK\x03\x04", "a ZIP archive"),
    (0, b"\x1f\x8b", "a gzip file"),
    (8, b'{"', "a model (safetensors)"),
    (0, b"LWC", "an .lwc file whose first byte is lost"),
)


@dataclass(frozen=True, kw_only=True)
class Header:
    """What a file says before its sections.

    Args:
        model: Identity of the model that wrote it, 8 bytes.
        width: In pixels.
        height: In pixels.
        rate: Rate index.
        tile: Side of a tile in pixels; 0 if the picture is not tiled.
        grey: Whether the picture is to be written as a grey one.
        alpha: Whether there is a section of its opacity; `File` sets it.
        profile: Whether there is one of its ICC profile; `File` sets it.
        version: Of the format.
    """

    model: bytes
    width: int
    height: int
    rate: int
    tile: int = 0
    grey: bool = False
    alpha: bool = False
    profile: bool = False
    version: int = VERSION

    @property
    def flags(self) -> int:
        """The byte of flags."""
        given = (self.tile > 0, self.grey, self.alpha, self.profile)
        return sum(int(value) << bit for bit, value in enumerate(given))

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of tiles."""
        side = self.tile or LONGEST_SIDE
        return -(-self.height // side), -(-self.width // side)

    @property
    def sections(self) -> list[str]:
        """Names of the sections, in the order of the file."""
        rows, columns = self.grid
        names = [f"tile {row},{column}" for row in range(rows) for column in range(columns)]
        return names + ["alpha"] * self.alpha + ["profile"] * self.profile

    def problem(self) -> str:
        """Return what is out of range, or nothing."""
        rows, columns = self.grid
        if not 1 <= min(self.width, self.height) <= max(self.width, self.height) <= LONGEST_SIDE:
            return f"{self.width} x {self.height} pixels; sides are 1 to {LONGEST_SIDE}"
        if not 0 <= self.rate <= LAST:
            return f"rate index {self.rate}; 0 to {LAST}"
        if not 0 <= self.tile <= LONGEST_SIDE:
            return f"tiles of {self.tile} pixels; 1 to {LONGEST_SIDE}"
        if rows * columns > MOST_TILES:
            return f"{rows} x {columns} tiles; at most {MOST_TILES} in all, make them larger"
        return ""


@dataclass(frozen=True, kw_only=True, eq=True)
class File:
    """All that a file holds.

    Args:
        header: Its header, whose ``alpha`` and ``profile`` follow from what is given here.
        tiles: A stream for each tile, row by row; of an untiled picture one.
        alpha: Opacity, as it was packed; None if the picture is opaque.
        profile: ICC profile, as it was packed; None for sRGB.
        check: Of the latents that all tiles decode to, by `check_of`.
    """

    header: Header
    tiles: tuple[bytes, ...]
    alpha: bytes | None = None
    profile: bytes | None = None
    check: int

    def __post_init__(self) -> None:
        has = {"alpha": self.alpha is not None, "profile": self.profile is not None}
        object.__setattr__(self, "header", replace(self.header, **has))

    @property
    def payloads(self) -> list[bytes]:
        """The sections, in the order of the file."""
        return [*self.tiles, *(part for part in (self.alpha, self.profile) if part is not None)]


def write(file: File) -> bytes:
    """Return the bytes of a file.

    Raises:
        ValueError: If something in it is out of range, or there is not one stream a tile.

    Example:
        >>> header = Header(model=bytes(8), width=768, height=512, rate=126)
        >>> len(write(File(header=header, tiles=(bytes(20000),), check=0))) - 20000
        38
    """
    header, payloads = file.header, file.payloads
    if problem := header.problem():
        raise ValueError(f"container: {problem}")
    rows, columns = header.grid
    if len(file.tiles) != rows * columns:
        raise ValueError(f"container: {len(file.tiles)} streams for {rows} x {columns} tiles")
    if header.version != VERSION or len(header.model) != _MODEL_BYTES:
        raise ValueError(
            f"container: version {header.version}, model {header.model!r}; version {VERSION} is "
            f"written, a model's identity has {_MODEL_BYTES} bytes"
        )
    head = _packed(header)
    table = b"".join(_varint(len(part)) + struct.pack("<I", crc32c(part)) for part in payloads)
    body = [head, _short_check(head), table, _short_check(table), *payloads]
    whole = b"".join([*body, struct.pack("<I", file.check)])
    return whole + struct.pack("<I", crc32c(whole))


def read(data: bytes, limit_pixels: int) -> File:
    """Return what the bytes of a file hold, checked.

    Args:
        data: The whole file.
        limit_pixels: How many pixels are allowed.

    Raises:
        CorruptBitstream: If anything is wrong with it; it names the section.
        TooLarge: If the picture has more pixels than allowed.
    """
    cursor = _Cursor(data)
    header = _header(cursor)
    if header.width * header.height > limit_pixels:
        raise TooLarge(header.width, header.height, limit_pixels)
    table = _table(cursor, header)
    total = cursor.place + sum(length for _, length, _ in table) + _END_BYTES
    parts = [_section(cursor, *entry, total) for entry in table]
    check = _end(cursor, total)
    tiles = len(table) - header.alpha - header.profile
    return File(
        header=header,
        tiles=tuple(parts[:tiles]),
        alpha=parts[tiles] if header.alpha else None,
        profile=parts[-1] if header.profile else None,
        check=check,
    )


def read_header(data: bytes) -> Header:
    """Return what a file says before its sections; the rest need not be there.

    Raises:
        CorruptBitstream: If it is no such file, or its header is damaged.
    """
    return _header(_Cursor(data))


def crc32c(data: bytes, value: int = 0) -> int:
    """Return the CRC-32C of bytes, or go on with one.

    Example:
        >>> hex(crc32c(b"123456789"))
        '0xe3069283'
    """
    return google_crc32c.extend(value, data)


def check_of(latents: Mapping[str, Tensor], value: int = 0) -> int:
    """Return the CRC-32C of decoded latents: by the name of their group, 32 bits each.

    Args:
        latents: Integers, of any type that holds them.
        value: The check of the tiles before, to go on with.

    Raises:
        CorruptBitstream: If a value is no integer of 32 bits.
    """
    for _, group in sorted(latents.items()):
        values = group.detach().cpu().numpy()
        with np.errstate(invalid="ignore"):  # what does not fit is found below
            integers = np.ascontiguousarray(values.astype("<i4"))
        if not np.array_equal(integers, values):
            raise CorruptBitstream("latents", f"no integers of 32 bits; {_AGAIN}")
        value = crc32c(integers.tobytes(), value)
    return value


class _Cursor:
    """A place in the bytes; to read beyond their end is an error of the section read.

    Args:
        data: All bytes.
    """

    def __init__(self, data: bytes) -> None:
        self.data, self.place = data, 0

    def take(self, count: int, section: str) -> bytes:
        """Return the next bytes."""
        if self.place + count > len(self.data):
            raise CorruptBitstream(section, f"the file ends after {_bytes(self.data)}; {_AGAIN}")
        self.place += count
        return self.data[self.place - count : self.place]

    def byte(self, section: str) -> int:
        """Return the next byte."""
        return self.take(1, section)[0]

    def varint(self, section: str) -> int:
        """Return the next varint."""
        value = 0
        for index in range(_VARINT_BYTES):
            byte = self.byte(section)
            value |= (byte & 0x7F) << (7 * index)
            if byte < 0x80:
                if byte == 0 and index:
                    break
                return value
        raise CorruptBitstream(section, f"damaged, a number has too many bytes; {_AGAIN}")

    def short_check(self, start: int, section: str) -> None:
        """Compare the next two bytes with the check of what was read since a place."""
        wanted = _short_check(self.data[start : self.place])
        if self.take(2, section) != wanted:
            raise CorruptBitstream(section, f"damaged, its check differs; {_AGAIN}")


def _packed(header: Header) -> bytes:
    sides = _varint(header.width) + _varint(header.height)
    tile = _varint(header.tile) if header.tile else b""
    start = MAGIC + bytes([header.version, header.flags]) + header.model
    return start + sides + bytes([header.rate]) + tile


def _header(cursor: _Cursor) -> Header:
    if (magic := cursor.data[: len(MAGIC)]) != MAGIC:
        raise CorruptBitstream("magic", _foreign(cursor.data, magic))
    cursor.take(len(MAGIC), "magic")
    version = cursor.byte("version")
    if version != VERSION:
        raise CorruptBitstream(
            "version", f"{version}; {VERSION} is read; the file is damaged or of a later release"
        )
    flags = cursor.byte("header")
    header = Header(
        model=cursor.take(_MODEL_BYTES, "header"),
        width=cursor.varint("header"),
        height=cursor.varint("header"),
        rate=cursor.byte("header"),
        tile=cursor.varint("header") if flags & _TILED else 0,
        grey=bool(flags & _GREY),
        alpha=bool(flags & _ALPHA),
        profile=bool(flags & _PROFILE),
        version=version,
    )
    cursor.short_check(0, "header")
    if flags != header.flags:
        raise CorruptBitstream("header", f"flags {flags:#04x}, not known or not fitting; {_AGAIN}")
    if problem := header.problem():
        raise CorruptBitstream("header", f"{problem}; {_AGAIN}")
    return header


def _foreign(data: bytes, magic: bytes) -> str:
    if not data:
        return f"the file is empty; {_AGAIN}"
    if len(data) < len(MAGIC) and MAGIC.startswith(data):
        return f"the file ends after {_bytes(data)}; {_AGAIN}"
    for offset, mark, kind in _KINDS:
        if data[offset : offset + len(mark)] == mark:
            return f"this is {kind}; expected an .lwc file"
    return f"starts with {magic.hex(' ')}; expected an .lwc file, which starts with " + MAGIC.hex(
        " "
    )


def _table(cursor: _Cursor, header: Header) -> list[tuple[str, int, int]]:
    """Return name, length and check of each section."""
    section, start = "section table", cursor.place
    rows, columns = header.grid
    count = rows * columns + header.alpha + header.profile
    if count * _ENTRY_BYTES > len(cursor.data) - start:
        raise CorruptBitstream(
            section,
            f"the file ends after {_bytes(cursor.data)}, too few for {count} sections; {_AGAIN}",
        )
    table = [(name, *_entry(cursor, section)) for name in header.sections]
    cursor.short_check(start, section)
    return table


def _entry(cursor: _Cursor, section: str) -> tuple[int, int]:
    return cursor.varint(section), int.from_bytes(cursor.take(4, section), "little")


def _section(cursor: _Cursor, name: str, length: int, check: int, total: int) -> bytes:
    found = cursor.data[cursor.place : cursor.place + length]
    if len(found) < length:
        raise CorruptBitstream(name, _ends(cursor.data, total))
    if crc32c(found) != check:
        raise CorruptBitstream(name, f"damaged, its check differs; {_AGAIN}")
    cursor.place += length
    return found


def _end(cursor: _Cursor, total: int) -> int:
    """Return the check of the latents."""
    if len(cursor.data) < total:
        raise CorruptBitstream("trailer", _ends(cursor.data, total))
    if len(cursor.data) > total:
        more = len(cursor.data) - total
        raise CorruptBitstream("trailer", f"{more} bytes follow the end at {total}; {_AGAIN}")
    check, trailer = struct.unpack("<II", cursor.take(_END_BYTES, "trailer"))
    if crc32c(cursor.data[:-4]) != trailer:
        raise CorruptBitstream("trailer", f"damaged, the check of the file differs; {_AGAIN}")
    return check


def _ends(data: bytes, total: int) -> str:
    return f"the file ends after {len(data)} of {total} bytes; {_AGAIN}"


def _bytes(data: bytes) -> str:
    return f"{len(data)} byte" + "s" * (len(data) != 1)


def _varint(value: int) -> bytes:
    parts = bytearray()
    while value >= 0x80:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*parts, value])


def _short_check(data: bytes) -> bytes:
    return struct.pack("<I", crc32c(data))[:2]
