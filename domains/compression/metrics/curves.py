"""Points of rate and distortion: one for each file, and their means over pictures as curves."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from statistics import fmean

from domains.compression.metrics.bd_rate import Saving, bd_rate
from domains.compression.metrics.quality import decibels, psnr_of

COLUMNS = (
    "codec", "quality", "picture", "bytes", "bpp", "psnr_db", "ms_ssim", "squared_error",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Point:
    """A picture written to a file by a codec.

    Args:
        codec: Its name.
        quality: What it was asked for, in the codec's own numbers.
        picture: Name of the picture.
        bytes: Of the whole file.
        bpp: Bits of the whole file per pixel.
        squared_error: Mean over 8-bit values, in squared grey levels.
        ms_ssim: Of 8-bit values.
        bits_estimate: What the model's tables say that it costs; None if the codec has none.
        encode_s: CPU-seconds it took; no part of what a point is.
        decode_s: Likewise.
    """

    codec: str
    quality: float
    picture: str
    bytes: int
    bpp: float
    squared_error: float
    ms_ssim: float
    bits_estimate: float | None = None
    encode_s: float = field(default=0.0, compare=False)
    decode_s: float = field(default=0.0, compare=False)

    @property
    def psnr_db(self) -> float:
        """PSNR of 8-bit values."""
        return psnr_of(self.squared_error)


@dataclass(frozen=True, kw_only=True)
class Curve:
    """Points of a codec, each the mean over the same pictures, in order of quality asked for.

    Rates, PSNR and MS-SSIM are each averaged over pictures, as is usual.

    Args:
        codec: Its name.
        qualities: What it was asked for.
        bpp: Bits of the whole file per pixel.
        psnr_db: PSNR of 8-bit values.
        squared_error: In squared grey levels.
        ms_ssim: Of 8-bit values.
        pictures: Over which the means are.
    """

    codec: str
    qualities: tuple[float, ...]
    bpp: tuple[float, ...]
    psnr_db: tuple[float, ...]
    squared_error: tuple[float, ...]
    ms_ssim: tuple[float, ...]
    pictures: tuple[str, ...]

    @property
    def ms_ssim_db(self) -> tuple[float, ...]:
        """MS-SSIM of each point in decibels."""
        return tuple(map(decibels, self.ms_ssim))


def curves_of(points: Iterable[Point]) -> dict[str, Curve]:
    """Return a curve for each codec, in order of appearance.

    Raises:
        ValueError: If not every picture was written at every quality of a codec.
    """
    grouped: dict[str, list[Point]] = {}
    for point in points:
        grouped.setdefault(point.codec, []).append(point)
    return {codec: _curve(codec, own) for codec, own in grouped.items()}


def _curve(codec: str, points: Sequence[Point]) -> Curve:
    rows: dict[float, dict[str, Point]] = {}
    for point in points:
        rows.setdefault(point.quality, {})[point.picture] = point
    pictures = [*dict.fromkeys(point.picture for point in points)]
    missing = [(q, name) for q, row in rows.items() for name in pictures if name not in row]
    if missing:
        raise ValueError(f"{codec}: no point at quality {missing[0][0]} of {missing[0][1]!r}")

    def means(quantity: str) -> tuple[float, ...]:
        return tuple(
            fmean(getattr(row[name], quantity) for name in pictures) for row in rows.values()
        )

    return Curve(
        codec=codec,
        qualities=tuple(rows),
        bpp=means("bpp"),
        psnr_db=means("psnr_db"),
        squared_error=means("squared_error"),
        ms_ssim=means("ms_ssim"),
        pictures=tuple(pictures),
    )


def saving(anchor: Curve, other: Curve) -> Saving | None:
    """Return what another codec saves over an anchor at equal PSNR, see `bd_rate`."""
    return bd_rate(anchor.bpp, anchor.psnr_db, other.bpp, other.psnr_db)


def csv_text(points: Iterable[Point]) -> str:
    """Return a table of points, a row for each file."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(COLUMNS)
    for point in points:
        numbers = (point.bpp, point.psnr_db, point.ms_ssim, point.squared_error)
        written = (f"{number:.6f}" for number in numbers)
        writer.writerow([point.codec, f"{point.quality:g}", point.picture, point.bytes, *written])
    return buffer.getvalue()
