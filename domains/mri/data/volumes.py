"""Volumes of magnitude in NIfTI → slices of N × N as a scanner of that resolution has them."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float32
from numpy.typing import NDArray

from core.runtime.errors import UserError
from domains.mri.config import Axis
from domains.mri.data.fourier import fft2, ifft2

ENDINGS = (".nii", ".nii.gz")
PERCENTILE = 99.5
SMALL = 0.5  # share of the field of view below which a head has a smaller field
ROOM = 1.1  # that field, as a multiple of the volume
NORMALS: dict[Axis, int] = {"sagittal": 0, "coronal": 1, "axial": 2}  # in RAS+
Pictures = Float32[np.ndarray, "slice height width"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Volume:
    """A head whose axes point to its right, its front and its top (RAS+).

    Args:
        name: Of its file.
        values: Magnitude; the 99.5th percentile of what is above zero is 1.
        spacing_mm: Of its three axes.
        affine: From its indices to millimetres in RAS+.
    """

    name: str
    values: Float32[np.ndarray, "right front top"]
    spacing_mm: tuple[float, float, float]
    affine: Float32[np.ndarray, "4 4"] | NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Grid:
    """What a slice becomes: how many positions of k-space of which field of view.

    Args:
        size: Positions of each side.
        fov_mm: Side of the field of view.
    """

    size: int
    fov_mm: float

    @property
    def pixel_mm(self) -> float:
        """Side of a pixel."""
        return self.fov_mm / self.size


def read_volume(path: Path, scale: bool = True) -> Volume:
    """Read a NIfTI file, turn it to RAS+ and scale it.

    Args:
        path: Of the file.
        scale: Off for a map of a tissue, which is a share already.

    Raises:
        UserError: If it is no readable volume of real numbers with something above zero.
    """
    values, affine, spacing = _canonical(path)
    if not np.isfinite(values).all():
        share = 1 - np.isfinite(values).mean()
        raise UserError(
            f"{path}: {share:.2%} of the voxels are NaN or infinite; expected numbers; replace "
            "them"
        )
    positive = values[values > 0]
    if not positive.size:
        raise UserError(f"{path}: no voxel is above 0; expected a volume of magnitude")
    top = np.percentile(positive, PERCENTILE) if scale else 1.0
    return Volume(
        name=name_of(path),
        values=np.maximum(values / np.float32(top), 0),
        spacing_mm=spacing,
        affine=affine,
    )


def _canonical(
    path: Path,
) -> tuple[NDArray[np.float32], NDArray[np.float64], tuple[float, float, float]]:
    import nibabel
    from nibabel.filebasedimages import ImageFileError

    try:
        image = nibabel.load(path)  # pyright: ignore[reportPrivateImportUsage]
        image = nibabel.funcs.squeeze_image(image)  # pyright: ignore
        if len(image.shape) != 3 or image.get_data_dtype().kind not in "iuf":
            raise UserError(
                f"{path}: {image.get_data_dtype()} of shape {image.shape}; expected a volume of "
                "real numbers with three axes; take one of its volumes"
            )
        image = nibabel.funcs.as_closest_canonical(image)  # pyright: ignore
        values = np.asarray(image.dataobj, np.float32)
    except (ImageFileError, OSError, EOFError, ValueError, zlib.error) as error:
        why = (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(
            f"{path}: cannot be read as NIfTI ({why}); make or copy it again"
        ) from error
    right, front, top = (float(size) for size in image.header.get_zooms()[:3])
    return values, np.asarray(image.affine, np.float64), (right, front, top)


def name_of(path: Path) -> str:
    """Return the name of a file without ``.nii`` or ``.nii.gz``.

    Example:
        >>> name_of(Path("heads/ch2.nii.gz"))
        'ch2'
    """
    name = path.name
    for ending in sorted(ENDINGS, key=len, reverse=True):
        if name.lower().endswith(ending):
            return name[: -len(ending)]
    return path.stem


def field_of_view(volume: Volume, fov_mm: float) -> float:
    """Return the side of the field of view in which a head is scanned.

    It is the one asked for unless the volume is larger, which would cut it, or less than half as
    large, which would leave few pixels to a head (a macaque's).

    Args:
        volume: The head.
        fov_mm: Asked for.
    """
    extent = max(
        size * spacing
        for size, spacing in zip(volume.values.shape, volume.spacing_mm, strict=True)
    )
    return ROOM * extent if extent < SMALL * fov_mm else max(fov_mm, extent)


def fine_enough(volume: Volume, axis: Axis, grid: Grid) -> bool:
    """Say whether the volume has every frequency of the grid, in the plane across an axis.

    Where it has not, its slices would be interpolated: their missing high frequencies are a "data
    crime" that flatters every method.
    """
    return min(_padded(grid, spacing) for spacing in _plane_mm(volume, axis)) >= grid.size


def positions(
    volume: Volume, axis: Axis, span: tuple[float, float], step: int
) -> NDArray[np.int64]:
    """Return the indices at which a volume is cut along an axis.

    Args:
        volume: The head.
        axis: Across which the slices lie.
        span: From where to where, as shares of the extent.
        step: Every how many voxels.
    """
    length = volume.values.shape[NORMALS[axis]]
    first, last = (round(share * (length - 1)) for share in span)
    return np.arange(first, last + 1, step)


def slices(
    volume: Volume, axis: Axis, where: Sequence[int] | NDArray[np.int64], grid: Grid
) -> Iterator[Pictures]:
    r"""Cut a volume, a few slices at a time, and take off the frequencies that a grid has not.

    A slice is put in the middle of the field of view, its spectrum is cut to the middle
    :math:`N \times N` frequencies, and what the cut makes negative is 0. No value is
    interpolated. Rows run from the front (or the top) down, columns from the left to the right of
    the head (or from the back to the front).

    Args:
        volume: The head.
        axis: Across which the slices lie.
        where: Indices along the axis.
        grid: Positions and field of view.
    """
    for start in range(0, len(where), 16):
        planes = np.take(volume.values, where[start : start + 16], axis=NORMALS[axis])
        planes = np.moveaxis(planes, NORMALS[axis], 0).swapaxes(1, 2)[:, ::-1]
        rows, columns = _plane_mm(volume, axis)
        padded = _centred(planes, _padded(grid, rows), _padded(grid, columns))
        yield low_passed(padded, grid.size)


def affine_of(
    volume: Volume, axis: Axis, where: Sequence[int] | NDArray[np.int64], grid: Grid
) -> NDArray[np.float64]:
    """Return the affine from (column, row, slice) of slices to millimetres in RAS+.

    Args:
        volume: The head.
        axis: Across which the slices lie.
        where: Indices along the axis, evenly spaced.
        grid: Positions and field of view.
    """
    normal = NORMALS[axis]
    columns, rows = (place for place in range(3) if place != normal)
    inside = np.zeros((4, 4))
    inside[3, 3] = 1
    for target, source, sign in ((columns, 0, 1), (rows, 1, -1)):
        has, wants = volume.values.shape[target], _padded(grid, volume.spacing_mm[target])
        step = wants / grid.size
        first = wants // 2 - (grid.size // 2) * step + _offset(has, wants)
        inside[target, source] = sign * step
        inside[target, 3] = first if sign > 0 else has - 1 - first
    inside[normal, 2] = where[1] - where[0] if len(where) > 1 else 1
    inside[normal, 3] = where[0]
    return volume.affine @ inside


def low_passed(pictures: Pictures, size: int) -> Float32[np.ndarray, "slice row column"]:
    """Keep the middle frequencies of pictures: the same field of view in fewer, larger pixels.

    Args:
        pictures: Real, at least as large as ``size`` on both sides.
        size: Side of what is returned; a constant keeps its value.

    Example:
        >>> bool(np.allclose(low_passed(np.ones((1, 12, 9), np.float32), 5), 1))
        True
    """
    height, width = pictures.shape[1:]
    spectrum = fft2(torch.from_numpy(np.ascontiguousarray(pictures)).to(torch.complex64))
    top, left = height // 2 - size // 2, width // 2 - size // 2
    kept = ifft2(spectrum[:, top : top + size, left : left + size])
    gain = size / np.sqrt(height * width)
    return np.maximum(kept.real.numpy() * np.float32(gain), 0)


def _plane_mm(volume: Volume, axis: Axis) -> tuple[float, float]:
    """Return the spacing of rows and columns of slices across an axis."""
    first, second = (
        spacing for place, spacing in enumerate(volume.spacing_mm) if place != NORMALS[axis]
    )
    return second, first


def _padded(grid: Grid, spacing: float) -> int:
    return round(grid.fov_mm / spacing)


def _offset(has: int, wants: int) -> int:
    """Return the index of a line that becomes the first when it is laid into the middle."""
    return max(has - wants, 0) // 2 - max(wants - has, 0) // 2


def _centred(planes: NDArray[np.float32], height: int, width: int) -> NDArray[np.float32]:
    """Lay pictures into the middle of larger ones; a part that stands out is cut off."""
    padded = np.zeros((len(planes), height, width), np.float32)
    inside, outside = [], []
    for has, wants in zip(planes.shape[1:], (height, width), strict=True):
        size, from_, to = min(has, wants), max(has - wants, 0) // 2, max(wants - has, 0) // 2
        inside.append(slice(from_, from_ + size))
        outside.append(slice(to, to + size))
    padded[:, outside[0], outside[1]] = planes[:, inside[0], inside[1]]
    return padded
