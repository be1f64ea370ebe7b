"""What a model is given: windows of photographs, each with the rate that is asked of it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

LAST_RATE = 252  # rates are indices from 0


@dataclass(frozen=True, eq=False)
class Images:
    """Pictures of one size, each with its rate.

    Args:
        pixels: Red, green and blue, 0 to 255.
        rate: Index of the rate asked of each picture, 0 to `LAST_RATE`.
    """

    pixels: UInt8[Tensor, "batch colour height width"]
    rate: Int64[Tensor, " batch"]

    def __len__(self) -> int:
        return len(self.pixels)

    def to(self, device: torch.device | str) -> Images:
        """Move to a device."""
        return replace(self, pixels=self.pixels.to(device), rate=self.rate.to(device))


@dataclass(frozen=True, kw_only=True, eq=False)
class Picture:
    """A picture as a file holds it, upright and in 8 bits.

    Args:
        pixels: Red, green and blue, 0 to 255; of a grey one three times the same.
        grey: Whether it is to be written as a grey picture.
        alpha: Opacity of each pixel, 0 to 255; None if it is opaque.
        profile: ICC profile of its colours; None for sRGB.
        notes: What was done to it on reading: turned upright, converted from CMYK.
    """

    pixels: UInt8[Tensor, "3 height width"]
    grey: bool = False
    alpha: UInt8[Tensor, "height width"] | None = None
    profile: bytes | None = None
    notes: tuple[str, ...] = ()

    @property
    def height(self) -> int:
        """In pixels."""
        return self.pixels.shape[1]

    @property
    def width(self) -> int:
        """In pixels."""
        return self.pixels.shape[2]
