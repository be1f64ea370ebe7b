"""Whether a file holds more than 8 bits of each colour, which decoding would lose unsaid."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image

BITS_PER_SAMPLE = 258  # tag of TIFF
HEAD = 65_536  # bytes in which the boxes of a header are looked for


def problem(image: Image, data: bytes) -> str | None:
    """Return what is wrong with a picture of more than 8 bits; None if nothing is.

    Args:
        image: Opened, not decoded.
        data: The bytes of its file.
    """
    if image.mode == "F":
        return (
            "floating-point pixels; expected 8 bits of each colour; scale and convert it first, "
            "or save it as a .npy array with values from 0 to 1"
        )
    bits = bits_of(image, data)
    if bits > 8:
        return (
            f"{bits} bits of each colour; expected 8, to which nothing is cut unasked; convert it "
            "first, with ImageMagick: magick IN -depth 8 OUT.png"
        )
    return None


def bits_of(image: Image, data: bytes) -> int:
    """Return the bits of each colour that a file holds."""
    if image.mode.startswith("I"):
        return 32 if image.mode == "I" and image.format == "TIFF" else 16
    read = {"PNG": _png, "TIFF": _tiff, "PPM": _ppm, "JPEG2000": _jpeg2000, "AVIF": _avif}
    of = read.get(image.format or "")
    return 8 if of is None else of(image, data)


def _png(image: Image, data: bytes) -> int:
    return data[24]


def _tiff(image: Image, data: bytes) -> int:
    tags = getattr(image, "tag_v2", {})
    return max(tags.get(BITS_PER_SAMPLE, (8,)))


def _ppm(image: Image, data: bytes) -> int:
    """The largest value is the third number of the header."""
    if data[:2] not in (b"P2", b"P3", b"P5", b"P6"):
        return 8
    lines = (line.split(b"#")[0] for line in data[:HEAD].split(b"\n"))
    words = b" ".join(lines).split(maxsplit=4)
    return max(int(words[3]).bit_length(), 8)


def _jpeg2000(image: Image, data: bytes) -> int:
    """The size marker, which comes first in a code stream, says bits less one, and a sign."""
    start = data.find(b"\xff\x4f\xff\x51")
    return 8 if start < 0 else (data[start + 42] & 0x7F) + 1


def _avif(image: Image, data: bytes) -> int:
    """The configuration of AV1 has two flags for more than 8 bits."""
    start = data[:HEAD].find(b"av1C")
    if start < 0 or not data[start + 6] & 0x40:
        return 8
    return 12 if data[start + 6] & 0x20 else 10
