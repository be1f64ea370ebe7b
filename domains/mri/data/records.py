"""What one scan is, before and after reconstruction."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, Complex64, Float, Float32
from torch import Tensor

Affine = Float[np.ndarray, "4 4"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Scan:
    """Multi-coil k-space of the slices of one volume, with what is known beside it.

    A single coil is a coil axis of 1. Nothing is scaled: units are those of the file.

    Args:
        name: Of the file or the volume, without folders.
        subject: Whose head; splits never part a subject.
        kspace: Centred (zero frequency at ``size // 2``), orthonormal; zero where not sampled.
        mask: Which positions were sampled; its first axis is 1 where all slices share it.
        maps: Coil sensitivities, of unit root sum of squares inside the body and zero outside.
        target: Magnitude of the true or fully sampled picture, if there is one.
        noise_covariance: Of the complex noise of the coils.
        spacing_mm: Of slice, row, column.
        affine: From (column, row, slice) to millimetres in RAS+, as NIfTI has it.
        contrast: As the file says it, e.g. ``"T1"``.
        header: Other facts of the file that a writer may want.
    """

    name: str
    subject: str
    kspace: Complex64[Tensor, "slice coil height width"]
    mask: Bool[Tensor, "one_or_slice height width"]
    maps: Complex64[Tensor, "slice coil height width"] | None = None
    target: Float32[Tensor, "slice height width"] | None = None
    noise_covariance: Complex64[Tensor, "coil coil"] | None = None
    spacing_mm: tuple[float, float, float] = (1.0, 1.0, 1.0)
    affine: Affine | None = None
    contrast: str = ""
    header: Mapping[str, str | float | int] = field(default_factory=dict)

    @property
    def acceleration(self) -> float:
        """Positions divided by sampled positions."""
        return self.mask.numel() / max(1, int(self.mask.sum()))


@dataclass(frozen=True, kw_only=True, eq=False)
class Reconstruction:
    """Slices of one volume as a method made them.

    Args:
        name: Of the scan.
        method: Which made it, e.g. ``"cg-sense"``.
        image: Magnitude, in the units of the scan.
        width: Half-width of the interval of each pixel, in the same units, if there is one.
        coverage: What share of pixels the interval is to hold.
        spacing_mm: Of slice, row, column.
        affine: As the scan's.
        header: Of the scan.
    """

    name: str
    method: str
    image: Float32[Tensor, "slice height width"]
    width: Float32[Tensor, "slice height width"] | None = None
    coverage: float | None = None
    spacing_mm: tuple[float, float, float] = (1.0, 1.0, 1.0)
    affine: Affine | None = None
    header: Mapping[str, str | float | int] = field(default_factory=dict)
