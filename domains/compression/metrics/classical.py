"""The codecs that one would use instead: JPEG, WebP, AVIF, JPEG 2000 and JPEG XL.

Colours are coded at the resolution that gives the better PSNR for the bits: JPEG at 4:2:0, AVIF at
4:4:4. Every encoder runs on one thread, so that it writes the same bytes each time.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from core.runtime.errors import UserError
from domains.compression.config import Baseline

Pixels = UInt8[Tensor, "3 height width"]

FORMATS: Mapping[str, tuple[str, dict[str, Any]]] = {
    "jpeg": ("JPEG", {"optimize": True, "progressive": True, "subsampling": "4:2:0"}),
    "webp": ("WEBP", {"method": 6}),
    "avif": ("AVIF", {"speed": 6, "subsampling": "4:4:4", "max_threads": 1}),
    "jpeg2000": (
        "JPEG2000",
        {"quality_mode": "dB", "irreversible": True, "mct": 1, "codeblock_size": (64, 64)},
    ),
}
FEATURES: Mapping[str, str] = {
    "jpeg": "jpg", "webp": "webp", "avif": "avif", "jpeg2000": "jpg_2000",
}  # fmt: skip
JXL_EFFORT = 7
GRADUAL = ("jpeg2000", "jxl")  # whose quality is no whole number
TRIALS = 7  # what it takes to tell 100 qualities apart

# Quality of JPEG, WebP and AVIF, PSNR of JPEG 2000, distance of JPEG XL; lowest rate first.
QUALITIES: Mapping[str, tuple[float, ...]] = {
    "jpeg": (5, 8, 12, 16, 22, 30, 40, 50, 60, 70, 80, 88, 94),
    "webp": (1, 5, 15, 30, 45, 60, 75, 85, 92, 96),
    "avif": (10, 20, 30, 40, 50, 60, 70, 80, 88, 94),
    "jpeg2000": (26, 28, 30, 32, 34, 36, 38, 40, 42),
    "jxl": (15.0, 10.0, 7.0, 5.0, 3.5, 2.5, 1.7, 1.2, 0.8, 0.5),
}
SETTINGS: Mapping[str, str] = {
    "jpeg": "JPEG, optimised and progressive, 4:2:0",
    "webp": "WebP, method 6",
    "avif": "AVIF, speed 6, 4:4:4",
    "jpeg2000": "JPEG 2000, irreversible, blocks of 64",
    "jxl": f"JPEG XL, effort {JXL_EFFORT}",
}


def require(codecs: Iterable[Baseline]) -> None:
    """Make sure that codecs can be run.

    Raises:
        UserError: If a library is not installed.
    """
    from PIL import features

    for codec in codecs:
        if codec == "jxl":
            _jxl()
        elif not features.check(FEATURES[codec]):
            raise UserError(
                f"{codec}: this Pillow was built without it; leave it out of the baselines, or "
                "install Pillow's own wheel: pip install --force-reinstall --no-deps pillow"
            )


def encode(codec: Baseline, pixels: Pixels, quality: float) -> bytes:
    """Return the file that a codec makes of a picture.

    Args:
        codec: Its name.
        pixels: The picture.
        quality: As `QUALITIES` has them.

    Raises:
        UserError: If JPEG XL's library is not installed.
    """
    array = np.ascontiguousarray(pixels.permute(1, 2, 0).cpu().numpy())
    if codec == "jxl":
        return bytes(_jxl().jpegxl_encode(
            array, distance=quality, effort=JXL_EFFORT, numthreads=1, usecontainer=False
        ))  # fmt: skip
    from PIL import Image

    kind, options = FORMATS[codec]
    asked = {"quality_layers": [quality]} if codec == "jpeg2000" else {"quality": int(quality)}
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, kind, **options, **asked)
    return buffer.getvalue()


def of_size(codec: Baseline, pixels: Pixels, size: int) -> bytes:
    """Return the file of a picture that comes nearest to a size, by bisection of the quality.

    Args:
        codec: Its name.
        pixels: The picture.
        size: Bytes; one that no quality of `QUALITIES` spans gives the file of the nearer end.

    Raises:
        UserError: If JPEG XL's library is not installed.
    """
    small, large = QUALITIES[codec][0], QUALITIES[codec][-1]
    found = [encode(codec, pixels, quality) for quality in (small, large)]
    for _ in range(TRIALS):
        quality = (small + large) / 2 if codec in GRADUAL else (small + large) // 2
        if quality in (small, large):
            break
        found.append(encode(codec, pixels, quality))
        if len(found[-1]) < size:
            small = quality
        else:
            large = quality
    return min(found, key=lambda data: abs(len(data) - size))


def decode(codec: Baseline, data: bytes) -> Pixels:
    """Return the picture of a file that `encode` made."""
    if codec == "jxl":
        array = _jxl().jpegxl_decode(data, numthreads=1)[..., :3]
    else:
        from PIL import Image

        array = np.array(Image.open(io.BytesIO(data)).convert("RGB"))
    return torch.from_numpy(np.ascontiguousarray(array)).permute(2, 0, 1)


def _jxl() -> Any:
    try:
        import imagecodecs
    except ImportError as error:
        raise UserError(
            "jxl: needs 'imagecodecs'; install it: pip install 'latentworks[compression-jxl]'"
        ) from error
    return imagecodecs
