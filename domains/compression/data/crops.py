"""A photograph → crops at several scales, the busiest first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]  # (height, width, colour)
LUMA = np.array([299, 587, 114], dtype=np.int32)  # thousandths; sums of integers are exact


@dataclass(frozen=True, eq=False)
class Crops:
    """Crops of one picture with how much there is to see in each.

    Args:
        pixels: Of each.
        detail: The mean absolute gradient of each, in grey levels a pixel.
    """

    pixels: UInt8[np.ndarray, "tile 3 crop crop"]
    detail: tuple[float, ...]


def scales_of(width: int, height: int, crop: int, scales: Sequence[float]) -> tuple[float, ...]:
    """Return the scales that a photograph is used at, each once.

    A scale at which a crop does not fit into it is raised to the smallest at which one does; a
    photograph that is smaller than a crop has none.

    Example:
        >>> scales_of(640, 427, 256, (1.0, 0.5, 0.25)), scales_of(300, 200, 256, (0.5,))
        ((1.0, 0.5995316159250585), ())
    """
    least = crop / min(width, height)
    if least > 1:
        return ()
    return tuple(dict.fromkeys(max(scale, least) for scale in scales))


def downscale(pixels: Pixels, scale: float) -> Pixels:
    r"""Make a picture smaller by a Lanczos filter of three lobes, stretched to the new grid.

    The filter works on the values as they are stored, not on light. In light, its negative lobes
    put black rims around every glint of the sun, of a depth that no camera writes; on stored
    values an overshoot is a few grey levels. The price is that fine texture of high contrast
    comes out a little darker, which no codec cares about.

    Args:
        pixels: A picture.
        scale: Above 0, up to 1; each side is rounded to whole pixels.

    Example:
        >>> downscale(np.full((10, 7, 3), 9, np.uint8), 0.5).shape
        (5, 4, 3)
    """
    if scale == 1:
        return pixels
    from PIL import Image

    height, width = (max(round(side * scale), 1) for side in pixels.shape[:2])
    image = Image.fromarray(pixels)
    return np.asarray(image.resize((width, height), Image.Resampling.LANCZOS))


def tiles_of(pixels: Pixels, crop: int) -> UInt8[np.ndarray, "tile crop crop 3"]:
    """Cut the whole tiles of a grid out of a picture, as much left out on one side as the other.

    Example:
        >>> tiles_of(np.zeros((9, 13, 3), np.uint8), 4).shape
        (6, 4, 4, 3)
    """
    rows, columns = pixels.shape[0] // crop, pixels.shape[1] // crop
    top = (pixels.shape[0] - rows * crop) // 2
    left = (pixels.shape[1] - columns * crop) // 2
    inner = pixels[top : top + rows * crop, left : left + columns * crop]
    grid = inner.reshape(rows, crop, columns, crop, 3).swapaxes(1, 2)
    return grid.reshape(rows * columns, crop, crop, 3)


def detail(tile: Pixels) -> float:
    """Return the mean absolute difference of neighbours in luma, both ways, in grey levels.

    Example:
        >>> steps = np.repeat(np.arange(4, dtype=np.uint8)[:, None, None] * 10, 4, axis=1)
        >>> detail(np.repeat(steps, 3, axis=2))
        5.0
    """
    luma = tile @ LUMA
    steps = [np.abs(np.diff(luma, axis=axis)) for axis in (0, 1)]
    total = sum(int(step.sum(dtype=np.int64)) for step in steps)
    return round(total / max(sum(step.size for step in steps), 1) / int(LUMA.sum()), 3)


def busiest(pixels: Pixels, crop: int, most: int | None) -> Crops:
    """Return the tiles of a picture with the most detail; of equal ones the first."""
    tiles = tiles_of(pixels, crop)
    found = np.array([detail(tile) for tile in tiles])
    order = np.argsort(-found, kind="stable")[:most]
    planes = np.ascontiguousarray(tiles[order].transpose(0, 3, 1, 2))
    return Crops(planes, tuple(found[order].tolist()))
