"""Pictures written to real files by a model and by other codecs, and read again."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

from torch import Tensor

from domains.compression.config import Baseline
from domains.compression.data.records import Picture
from domains.compression.metrics import classical
from domains.compression.metrics.curves import Point
from domains.compression.metrics.quality import mean_squared_error, ms_ssim
from domains.compression.model import codec
from domains.compression.model.frozen import Frozen
from domains.compression.model.rates import index_of

Named = tuple[str, Picture]
T = TypeVar("T")


def measure(
    frozen: Frozen,
    pictures: Iterable[Named],
    qualities: Sequence[int],
    baselines: Sequence[Baseline] = (),
    effort: int = 0,
) -> Iterator[Point]:
    """Write each picture at each quality and by each baseline at its own, and read it again.

    Only colours count: a picture is measured without its opacity and its profile, which other
    codecs would write differently or not at all.

    Args:
        frozen: The model.
        pictures: With their names.
        qualities: 0 to 63.
        baselines: Other codecs, each at the qualities of `classical.QUALITIES`.
        effort: How hard the model's encoder looks for a better code, 0 to 3.

    Yields:
        A point for each file, picture after picture.

    Raises:
        UserError: If a baseline's library is not installed, before anything is written.
    """
    classical.require(baselines)
    for name, picture in pictures:
        plain = Picture(pixels=picture.pixels, grey=picture.grey)
        yield from of_model(frozen, name, plain, qualities, effort)
        for baseline in baselines:
            yield from of_baseline(baseline, name, plain)


def of_model(
    frozen: Frozen, name: str, picture: Picture, qualities: Sequence[int], effort: int = 0
) -> Iterator[Point]:
    """Write a picture with a model."""
    for quality in qualities:
        request = codec.Request(rate=index_of(quality), effort=effort)
        encoded, encode_s = _timed(lambda asked=request: codec.encode(frozen, picture, asked))
        decoded, decode_s = _timed(lambda data=encoded.data: codec.decode(frozen, data))
        yield _point(
            frozen.kind,
            quality,
            name,
            (picture.pixels, decoded.pixels),
            len(encoded.data),
            (encode_s, decode_s),
            encoded.bits_estimate,
        )


def of_baseline(baseline: Baseline, name: str, picture: Picture) -> Iterator[Point]:
    """Write a picture with another codec."""
    for quality in classical.QUALITIES[baseline]:
        data, encode_s = _timed(
            lambda asked=quality: classical.encode(baseline, picture.pixels, asked)
        )
        decoded, decode_s = _timed(lambda written=data: classical.decode(baseline, written))
        pixels = (picture.pixels, decoded)
        yield _point(baseline, quality, name, pixels, len(data), (encode_s, decode_s))


def _timed(work: Callable[[], T]) -> tuple[T, float]:
    """Do it, and say how many CPU-seconds it took."""
    began = time.process_time()
    return work(), time.process_time() - began


def _point(
    kind: str,
    quality: float,
    name: str,
    pixels: tuple[Tensor, Tensor],
    size: int,
    seconds: tuple[float, float],
    bits_estimate: float | None = None,
) -> Point:
    original, decoded = (each.cpu() for each in pixels)
    _, height, width = original.shape
    return Point(
        codec=kind,
        quality=quality,
        picture=name,
        bytes=size,
        bpp=8 * size / (height * width),
        squared_error=mean_squared_error(original, decoded),
        ms_ssim=ms_ssim(original, decoded),
        bits_estimate=bits_estimate,
        encode_s=seconds[0],
        decode_s=seconds[1],
    )
