"""A body of ellipses seen by eight coils, with all that is known of it."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from core.variational.inverse import fourier


def scanned(
    size: int = 64, coils: int = 8, noise: float = 0.0, seed: int = 0
) -> tuple[Tensor, Tensor, Tensor]:
    """Return full k-space ``(coil, size, size)``, maps of the whole field, and the picture."""
    generator = torch.Generator().manual_seed(seed)
    line = torch.linspace(-1, 1, size)
    y, x = torch.meshgrid(line, line, indexing="ij")
    body = ((x / 0.7) ** 2 + (y / 0.85) ** 2 < 1).float() * (
        1 + 0.3 * (9 * x).sin() * (7 * y).cos()
    )
    body = body - 0.5 * (((x - 0.2) / 0.2) ** 2 + ((y + 0.3) / 0.15) ** 2 < 1).float()
    picture = torch.polar(body, 0.7 * x * y + 0.3 * x)
    maps = []
    for place in range(coils):
        angle = 2 * math.pi * place / coils
        away = (x - 1.2 * math.cos(angle)) ** 2 + (y - 1.2 * math.sin(angle)) ** 2
        maps.append(torch.polar((-away / 1.5).exp(), 0.5 * place + 0.8 * x * math.sin(place)))
    found = torch.stack(maps)
    found = found / found.abs().square().sum(0).sqrt()
    drawn = torch.randn(found.shape, dtype=torch.complex64, generator=generator)
    kspace = fourier((size, size), (-2, -1))(found * picture) + noise * drawn
    return kspace, found, picture


def sampled(size: int, acceleration: float, middle: int, seed: int = 0) -> Tensor:
    """Return positions at random, with a full square in the middle."""
    generator = torch.Generator().manual_seed(seed)
    mask = torch.rand(size, size, generator=generator) < 1 / acceleration
    start = size // 2 - middle // 2
    mask[start : start + middle, start : start + middle] = True
    return mask
