"""Parts of pictures side by side at equal rate, since a PSNR is not a look."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from core.contract import Plot
from domains.compression.plots.drawing import figure_of, panels, show_picture

SIDE = 112
WIDTH = 6.4  # inches


@dataclass(frozen=True, kw_only=True, eq=False)
class Shown:
    """What a codec makes of a picture.

    Args:
        codec: Its name.
        pixels: The decoded picture.
        bpp: Bits of the whole file per pixel.
        psnr_db: Of the whole picture.
    """

    codec: str
    pixels: Tensor
    bpp: float
    psnr_db: float


def draw_crops(pictures: Sequence[tuple[str, Tensor, Sequence[Shown]]], side: int = SIDE) -> Plot:
    """Draw the busiest part of each picture, and what each codec makes of it at the same rate.

    Args:
        pictures: Name, pixels, and the codecs' pictures, the same codecs for each.
        side: Of the part, in pixels.
    """
    columns = 1 + max(len(shown) for _, _, shown in pictures)
    axes = panels(len(pictures), columns, height=WIDTH / columns + 0.22, width=WIDTH)
    for line, (name, pixels, shown) in zip(axes, pictures, strict=True):
        top, left = busiest(pixels, side)
        part = (slice(None), slice(top, top + side), slice(left, left + side))
        show_picture(line[0], pixels[part], f"{name}\noriginal")
        for panel, each in zip(line[1:], shown, strict=True):
            numbers = f"{each.bpp:.3f} bpp, {each.psnr_db:.2f} dB"
            show_picture(panel, each.pixels[part], f"{each.codec}\n{numbers}")
    return Plot(
        figure=figure_of(axes),
        caption=f"The busiest {side} × {side} pixels of test pictures: the original, then each "
        "codec at the quality whose whole file comes nearest to the size of the first one's. "
        "Rate and PSNR are those of the whole picture; a PSNR is not how it looks.",
    )


def busiest(pixels: Tensor, side: int) -> tuple[int, int]:
    """Return top and left of the part with the most gradient, at places that are multiples of 16.

    Example:
        >>> flat = torch.zeros(3, 64, 64)
        >>> flat[:, 32:48, 48:] = torch.rand(3, 16, 16) * 255
        >>> busiest(flat, 16)
        (32, 48)
    """
    grey = pixels.double().mean(0)
    change = torch.zeros_like(grey)
    change[1:] += (grey[1:] - grey[:-1]).abs()
    change[:, 1:] += (grey[:, 1:] - grey[:, :-1]).abs()
    total = torch.zeros(grey.shape[0] + 1, grey.shape[1] + 1, dtype=torch.float64)
    total[1:, 1:] = change.cumsum(0).cumsum(1)
    tops = range(0, max(grey.shape[0] - side, 0) + 1, 16)
    lefts = range(0, max(grey.shape[1] - side, 0) + 1, 16)

    def inside(place: tuple[int, int]) -> float:
        top, left = place
        bottom, right = (
            min(start + side, size) for start, size in zip(place, grey.shape, strict=True)
        )
        return float(
            total[bottom, right] - total[top, right] - total[bottom, left] + total[top, left]
        )

    return max(((top, left) for top in tops for left in lefts), key=inside)
