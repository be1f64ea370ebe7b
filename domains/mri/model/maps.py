"""Coil sensitivities from the fully sampled middle of k-space."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Bool, Complex64
from torch import Tensor

from domains.mri.data.fourier import ifft2
from domains.mri.model.espirit import SMALLEST, espirit

Method = Literal["espirit", "rss", "unit"]
MOST_LINES = 24  # of calibration that ESPIRiT looks at along an axis; more only cost
INSIDE = 0.9  # agreement above which a pixel is of the body


class TooFewLines(ValueError):
    """There is no calibration region that maps could be made of."""


def calibration_box(sampled: Bool[Tensor, "height width"]) -> tuple[int, int]:
    """Return rows and columns of the largest box around frequency 0 that is fully sampled.

    Of boxes whose middle is that of k-space, ``size // 2``; (0, 0) if frequency 0 is missing.

    Example:
        >>> sampled = torch.zeros(8, 8, dtype=torch.bool)
        >>> sampled[2:6, :] = True
        >>> calibration_box(sampled)
        (4, 8)
    """
    height, width = sampled.shape
    best = (0, 0)
    columns = width
    for rows in range(1, height + 1):
        columns = _columns(sampled[_middle(height, rows)], columns)
        if columns == 0:
            break
        if rows * columns > best[0] * best[1]:
            best = rows, columns
    return best


@torch.no_grad()
def maps(
    kspace: Complex64[Tensor, "batch coil height width"],
    box: tuple[int, int],
    method: Method = "espirit",
    inside: float = INSIDE,
) -> Complex64[Tensor, "batch coil height width"]:
    r"""Return sensitivities with :math:`\sum_c |S_c|^2 = 1` in the body; 0 elsewhere (ESPIRiT).

    Args:
        kspace: Centred; of it only the box is looked at.
        box: Rows and columns that are fully sampled, see `calibration_box`.
        method: ``"espirit"``; ``"rss"`` divides the windowed low-resolution pictures by their root
            sum of squares, everywhere; ``"unit"`` is for a single coil.
        inside: Least agreement of a pixel of the body (ESPIRiT).

    Raises:
        TooFewLines: If the box is too small for the method.
    """
    coils, height, width = kspace.shape[1:]
    if method == "unit" or coils == 1:
        return torch.ones_like(kspace)
    if min(box) < SMALLEST:
        raise TooFewLines(
            f"{box[0]} x {box[1]} calibration lines around frequency 0; maps need at least "
            f"{SMALLEST} x {SMALLEST}"
        )
    if method == "rss":
        return low_resolution(kspace, box)
    rows, columns = (min(size, MOST_LINES) for size in box)
    part = kspace[..., _middle(height, rows), :][..., _middle(width, columns)]
    found, agreement = espirit(part, (height, width))
    return found * (agreement > inside)[:, None]


def low_resolution(
    kspace: Complex64[Tensor, "batch coil height width"], box: tuple[int, int]
) -> Complex64[Tensor, "batch coil height width"]:
    """Return windowed low-resolution pictures over their root sum of squares."""
    height, width = kspace.shape[-2:]
    window = torch.zeros(height, width, device=kspace.device)
    rows, columns = (torch.hann_window(n + 2, periodic=False)[1:-1] for n in box)
    inner = torch.outer(rows, columns).to(window)
    window[_middle(height, box[0]), _middle(width, box[1])] = inner
    pictures = ifft2(kspace * window)
    squares = pictures.abs().square().sum(1, keepdim=True)
    tiny = 1e-12 * squares.amax((-2, -1), keepdim=True)
    return pictures * torch.rsqrt((squares + tiny).clamp(min=torch.finfo(squares.dtype).tiny))


def _middle(size: int, count: int) -> slice:
    """The ``count`` places around ``size // 2``."""
    start = size // 2 - count // 2
    return slice(start, start + count)


def _columns(rows: Tensor, most: int) -> int:
    """How many columns around the middle are True in all rows, at most ``most``."""
    full = rows.all(0)
    width = full.shape[0]
    while most and not bool(full[_middle(width, most)].all()):
        most -= 1
    return most
