r"""Pictures of magnitude → k-space of several coils with known truth: phase, coils, noise.

.. math:: y_c = M \left( F (s_c \, x) + n_c \right), \qquad n \sim \mathcal{CN}(0, \Sigma)
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Complex64, Complex128, Float32
from torch import Tensor

from core.runtime.errors import UserError
from core.runtime.order import generator
from domains.mri.config import Axis, Data
from domains.mri.data.coils import loops, plane, sensitivities
from domains.mri.data.fourier import fft2
from domains.mri.data.records import Affine, Scan
from domains.mri.data.sources import subject_of
from domains.mri.data.volumes import (
    NORMALS,
    Grid,
    affine_of,
    field_of_view,
    fine_enough,
    positions,
    read_volume,
    slices,
)

CYCLES = 2  # of the random part of the phase over the field of view
POWERS = [(row, column) for row in range(4) for column in range(4 - row) if row + column > 0]
WAVES = [
    (row, column)
    for row in range(CYCLES + 1)
    for column in range(-CYCLES, CYCLES + 1)
    if (row, column) > (0, 0)
]
TISSUE = 0.1  # of the brightest pixel: what is brighter is tissue
SPREAD = 0.1  # of the logarithm of the noise's strength between coils, where it is coloured
DATA_CRIME = (
    "simulated from pictures of magnitude that were averaged, filtered and stored by others: "
    "absolute numbers are optimistic, only differences between methods on the same data count "
    "(Shimron et al., PNAS 2022)"
)
Picture = Float32[np.ndarray, "height width"]
Covariance = Complex128[np.ndarray, "coil coil"]


def phase(shape: tuple[int, int], amplitude: float, random: np.random.Generator) -> Picture:
    r"""Draw a smooth phase: a polynomial of degree 3 and waves of few cycles, half of each.

    Args:
        shape: Rows and columns.
        amplitude: Root mean square over the field of view around its mean, in radians; the mean
            is anything.
        random: Where it is drawn from.
    """
    columns, rows = np.moveaxis(plane(shape)[..., :2], -1, 0)
    powers = [rows**down * columns**right for down, right in POWERS]
    turns = random.uniform(0, 2 * np.pi, len(WAVES))
    waves = [
        np.cos(np.pi * (down * rows + right * columns) + turn)
        for (down, right), turn in zip(WAVES, turns, strict=True)
    ]
    parts = [_combined(powers, random), _combined(waves, random)]
    total = parts[0] + parts[1]
    deviation = total.std()
    scaled = (total - total.mean()) * (amplitude / deviation if deviation > 0 else 0)
    return (scaled + random.uniform(-np.pi, np.pi)).astype(np.float32)


def _combined(basis: list[np.ndarray], random: np.random.Generator) -> np.ndarray:
    """Return a random combination of standard deviation 1."""
    total = np.tensordot(random.normal(size=len(basis)), np.stack(basis), 1)
    return total / max(float(total.std()), 1e-12)


def tissue_mean(picture: Picture) -> float:
    """Return the mean of a picture over what is brighter than a tenth of its brightest pixel."""
    bright = picture > TISSUE * picture.max(initial=0)
    return float(picture[bright].mean()) if bright.any() else 0.0


def noise_covariance(
    coils: int, deviation: float, correlation: float, random: np.random.Generator
) -> Covariance:
    r"""Draw the covariance :math:`\mathbb E\, n n^H` of the noise of coils on a ring.

    .. math:: \Sigma_{ij} = \sigma_i \sigma_j \, r^{d(i, j)} e^{\mathrm i (\varphi_i - \varphi_j)}

    with the distance :math:`d` along the ring. The mean of the diagonal is the variance asked.

    Args:
        coils: How many.
        deviation: Root mean square of the absolute value of the noise of a coil.
        correlation: :math:`r` of neighbours; 0 gives :math:`\sigma^2` times the identity.
        random: Where strengths and phases are drawn from.
    """
    strengths, turns = random.normal(0, SPREAD, coils), random.uniform(0, 2 * np.pi, coils)
    if correlation == 0:
        return np.eye(coils, dtype=np.complex128) * deviation**2
    steps = np.abs(np.subtract.outer(np.arange(coils), np.arange(coils)))
    ring = np.minimum(steps, coils - steps)
    factors = np.exp(strengths + 1j * turns)
    covariance = np.outer(factors, factors.conj()) * correlation**ring
    return covariance * (deviation**2 * coils / np.trace(covariance).real)


def noise(
    covariance: Covariance, shape: tuple[int, int], random: np.random.Generator
) -> Complex64[np.ndarray, "coil height width"]:
    """Draw complex normal noise, independent between positions.

    Args:
        covariance: Of the coils.
        shape: Rows and columns.
        random: Where it is drawn from.
    """
    coils = len(covariance)
    drawn = random.standard_normal((coils, *shape, 2), dtype=np.float32)
    white = drawn.view(np.complex64)[..., 0] * np.float32(np.sqrt(0.5))
    if np.array_equal(covariance, covariance[0, 0] * np.eye(coils)):
        return white * np.float32(np.sqrt(covariance[0, 0].real))
    root = np.linalg.cholesky(covariance).astype(np.complex64)
    return np.tensordot(root, white, 1).astype(np.complex64)


def deviation_of(picture: Picture, snr_db: float) -> float:
    r"""Return the standard deviation :math:`\sigma` of noise that gives a signal-to-noise ratio.

    .. math:: \text{SNR} = 20 \log_{10} \frac{\bar x}{\sigma}

    of the mean :math:`\bar x` of the tissue, with :math:`\sigma^2 = \mathbb E |n_c|^2`, in the
    picture of a coil; the orthonormal transform leaves it the same in k-space.

    Args:
        picture: Magnitude.
        snr_db: Asked for.
    """
    return tissue_mean(picture) / 10 ** (snr_db / 20)


def with_phase(picture: Picture, turn: Picture) -> Complex64[np.ndarray, "height width"]:
    """Give a picture of magnitude a phase."""
    return (picture * np.exp(1j * turn)).astype(np.complex64)


def measured(
    truth: Complex64[Tensor, "*slice height width"],
    maps: Complex64[Tensor, "*slice coil height width"],
    drawn: Complex64[Tensor, "*slice coil height width"],
    mask: Bool[Tensor, "*slice height width"],
) -> Complex64[Tensor, "*slice coil height width"]:
    """Return what coils measure of a picture, with noise, zero where nothing is sampled.

    Args:
        truth: The picture.
        maps: What coils see of it.
        drawn: Noise in k-space.
        mask: What is sampled.
    """
    return (fft2(maps * truth.unsqueeze(-3)) + drawn) * mask.unsqueeze(-3)


def scan_of(
    path: Path,
    mask: Bool[Tensor, "height width"],
    data: Data,
    snr_db: float,
    axis: Axis = "axial",
    seed: int = 0,
) -> Scan:
    """Scan the slices of a volume of magnitude along one axis.

    Args:
        path: Of a NIfTI file.
        mask: Sampled positions, of as many rows and columns as ``data.size``.
        data: Settings of matrix, field of view, slices, coils, noise and phase.
        snr_db: See `deviation_of`.
        axis: Across which the slices lie.
        seed: Of coils, phase and noise.

    Raises:
        UserError: If the file is no volume, or too coarse for the matrix.
    """
    volume = read_volume(path)
    grid = Grid(size=data.size, fov_mm=field_of_view(volume, data.fov_mm))
    if not fine_enough(volume, axis, grid):
        raise UserError(
            f"{path}: voxels of {' x '.join(f'{one:.2g}' for one in volume.spacing_mm)} mm are "
            f"too coarse for {axis} slices of {data.size} x {data.size} pixels in a field of "
            f"{grid.fov_mm:.0f} mm; expected none larger than {grid.pixel_mm:.2g} mm; make the "
            "matrix smaller or the field larger"
        )
    where = positions(volume, axis, data.span, data.step)
    return simulated_scan(
        np.concatenate(list(slices(volume, axis, where, grid))),
        mask,
        name=volume.name,
        subject=subject_of(volume.name, {}),
        coils=data.coils,
        snr_db=snr_db,
        noise_correlation=data.noise_correlation,
        phase_rad=data.phase_rad,
        spacing_mm=(
            volume.spacing_mm[NORMALS[axis]] * data.step,
            grid.pixel_mm,
            grid.pixel_mm,
        ),
        random=generator(seed, "scan", volume.name),
        affine=affine_of(volume, axis, where, grid),
    )


def simulated_scan(
    pictures: Float32[np.ndarray, "slice height width"],
    mask: Bool[Tensor, "height width"],
    *,
    name: str,
    subject: str,
    coils: int,
    snr_db: float,
    noise_correlation: float,
    phase_rad: float,
    spacing_mm: tuple[float, float, float],
    random: np.random.Generator,
    affine: Affine | None = None,
    contrast: str = "",
) -> Scan:
    """Scan the parallel slices of one head with one arrangement of loops.

    The noise is the same in all slices: that of the mean of their tissue.

    Args:
        pictures: Magnitude, all of one field of view.
        mask: Sampled positions, for all slices.
        name: Of the scan.
        subject: Whose head.
        coils: Loops around it.
        snr_db: See `deviation_of`.
        noise_correlation: See `noise_covariance`.
        phase_rad: See `phase`.
        spacing_mm: Of slice, row, column.
        random: Where everything is drawn from.
        affine: From (column, row, slice) to millimetres.
        contrast: As it is called.
    """
    shape = (pictures.shape[1], pictures.shape[2])
    found = loops(coils, random)
    half_mm = spacing_mm[2] * shape[1] / 2
    heights = (np.arange(len(pictures)) - (len(pictures) - 1) / 2) * spacing_mm[0] / half_mm
    deviation = float(np.mean([deviation_of(one, snr_db) for one in pictures]))
    covariance = noise_covariance(coils, deviation, noise_correlation, random)
    kspace = torch.empty((len(pictures), coils, *shape), dtype=torch.complex64)
    maps = torch.empty_like(kspace)
    for place, (picture, height) in enumerate(zip(pictures, heights, strict=True)):
        truth = torch.from_numpy(with_phase(picture, phase(shape, phase_rad, random)))
        maps[place] = torch.from_numpy(sensitivities(found, shape, float(height)))
        drawn = torch.from_numpy(noise(covariance, shape, random))
        kspace[place] = measured(truth, maps[place], drawn, mask)
    return Scan(
        name=name,
        subject=subject,
        kspace=kspace,
        mask=mask[None],
        maps=maps,
        target=torch.from_numpy(np.ascontiguousarray(pictures)),
        noise_covariance=torch.from_numpy(covariance.astype(np.complex64)),
        spacing_mm=spacing_mm,
        affine=affine,
        contrast=contrast,
        header={"note": DATA_CRIME},
    )
