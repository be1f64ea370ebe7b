"""Receive coils: loops of wire around a head and what they see of it (Biot–Savart)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Complex64, Float64
from numpy.typing import NDArray

Maps = Complex64[np.ndarray, "coil height width"]
Vectors = Float64[np.ndarray, "*point 3"]
WIRE = 0.02  # thickness of a wire in halves of the field of view: no field is infinite


@dataclass(frozen=True, eq=False)
class Loops:
    """Circular loops, in halves of the field of view: its edges are at -1 and 1.

    Args:
        centres: Towards the columns, the rows, and out of the picture.
        normals: Unit vectors along their axes.
        radii: Of the loops.
        phases: Of what each receives, in radians.
    """

    centres: Float64[np.ndarray, "coil 3"]
    normals: Float64[np.ndarray, "coil 3"]
    radii: Float64[np.ndarray, " coil"]
    phases: Float64[np.ndarray, " coil"]


def loops(coils: int, random: np.random.Generator) -> Loops:
    """Draw loops on an ellipse around the middle, each facing it, with jitter.

    Args:
        coils: How many.
        random: Where they are drawn from.
    """
    start = random.uniform(0, 2 * np.pi)
    spread = random.uniform(-0.2, 0.2, coils)
    angles = start + 2 * np.pi * (np.arange(coils) + spread) / coils
    half_axes = random.uniform(1.0, 1.35, 2) * random.uniform(0.95, 1.05, (coils, 2))
    heights = random.uniform(-0.3, 0.3, coils)
    centres = np.column_stack(
        [half_axes[:, 0] * np.cos(angles), half_axes[:, 1] * np.sin(angles), heights]
    )
    facing = -centres + random.normal(0, 0.1, (coils, 3))
    return Loops(
        centres=centres,
        normals=facing / np.linalg.norm(facing, axis=1, keepdims=True),
        radii=random.uniform(0.45, 0.75, coils),
        phases=random.uniform(0, 2 * np.pi, coils),
    )


def loop_field(
    offset: Vectors, normal: Float64[np.ndarray, 3], radius: float, wire: float = WIRE
) -> Vectors:
    r"""Return the magnetic field of a circular loop of current, in units of :math:`\mu_0 I`.

    With the distance :math:`\rho` from the axis, the height :math:`z` over the plane of the loop,
    :math:`\alpha^2 = (a - \rho)^2 + z^2`, :math:`\beta^2 = (a + \rho)^2 + z^2` and the complete
    elliptic integrals at :math:`m = 1 - \alpha^2 / \beta^2`:

    .. math::
        B_z = \frac{1}{2 \pi \beta} \left[ K(m) + \frac{a^2 - \rho^2 - z^2}{\alpha^2} E(m) \right],
        \quad
        B_\rho = \frac{z}{2 \pi \rho \beta}
            \left[ \frac{a^2 + \rho^2 + z^2}{\alpha^2} E(m) - K(m) \right]

    References:
        Smythe, "Static and Dynamic Electricity", 3rd ed. (1968), section 7.10.

    Args:
        offset: Points, from the middle of the loop.
        normal: Unit vector along the axis.
        radius: Of the loop.
        wire: Its thickness, of which the square is added to both squared distances.
    """
    from scipy.special import ellipe, ellipkm1

    height = offset @ normal
    outward = offset - height[..., None] * normal
    across = np.linalg.norm(outward, axis=-1)
    near = (radius - across) ** 2 + height**2 + wire**2
    far = (radius + across) ** 2 + height**2 + wire**2
    ratio = near / far
    first, second = ellipkm1(ratio), ellipe(1 - ratio)
    square = across**2 + height**2
    scale = 1 / (2 * np.pi * np.sqrt(far))
    along = scale * (first + (radius**2 - square) / near * second)
    away = scale * height * ((radius**2 + square) / near * second - first)
    safe = np.maximum(across, 1e-9)  # on the axis the bracket is 0 as well
    radial = np.where(across > 1e-6, away / safe, 0)
    return along[..., None] * normal + (radial / safe)[..., None] * outward


def sensitivities(found: Loops, shape: tuple[int, int], height: float = 0.0) -> Maps:
    r"""Return what the loops receive from each pixel, of unit root sum of squares.

    By reciprocity a loop receives :math:`B_x - i B_y`, the transverse part of the field that a
    current in it would make; the main field points out of the picture, whichever way it is cut.

    References:
        Hoult and Richards, "The signal-to-noise ratio of the nuclear magnetic resonance
        experiment", Journal of Magnetic Resonance 24 (1976).

    Args:
        found: The loops.
        shape: Rows and columns of the picture, which fills the field of view.
        height: Of its plane, in halves of the field of view.
    """
    points = plane(shape, height)
    maps = np.empty((len(found.radii), *shape), np.complex128)
    for coil, (centre, normal, radius, phase) in enumerate(
        zip(found.centres, found.normals, found.radii, found.phases, strict=True)
    ):
        field = loop_field(points - centre, normal, float(radius))
        maps[coil] = (field[..., 0] - 1j * field[..., 1]) * np.exp(1j * phase)
    return normalised(maps)


def normalised(maps: NDArray[np.complexfloating]) -> Maps:
    """Divide by the root sum of squares over coils; where that is 0 maps stay 0."""
    root = np.sqrt((np.abs(maps) ** 2).sum(0))
    return (maps / np.where(root > 0, root, 1)).astype(np.complex64)


def plane(shape: tuple[int, int], height: float = 0.0) -> Vectors:
    """Return the place of each pixel in halves of the field of view; the middle is at 0."""
    rows, columns = ((np.arange(size) - size // 2) * (2 / size) for size in shape)
    down, right = np.meshgrid(rows, columns, indexing="ij")
    return np.stack([right, down, np.full(shape, height)], -1)


def low_resolution_maps(kspace: Complex64[np.ndarray, "coil height width"], acs: int) -> Maps:
    """Estimate maps from the middle of k-space: its pictures over their root sum of squares.

    A Hann window takes the ringing off.

    Args:
        kspace: Centred.
        acs: Side of the square in the middle that is used; larger than either side means all.
    """
    import torch

    from domains.mri.data.fourier import ifft2

    window = np.outer(*(_hann(size, acs) for size in kspace.shape[1:]))
    windowed = torch.from_numpy((kspace * window).astype(np.complex64))
    return normalised(ifft2(windowed).numpy())


def _hann(size: int, width: int) -> Float64[np.ndarray, " position"]:
    """Return a Hann window around the middle, 0 outside."""
    away = np.abs(np.arange(size) - size // 2) / (min(width, size) / 2 + 1)
    return np.where(away < 1, 0.5 + 0.5 * np.cos(np.pi * np.minimum(away, 1)), 0)
