"""Pictures as NIfTI, with the affine; the half-width of intervals in a second file."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import torch

from core.runtime.errors import UserError
from domains.mri.data.records import Affine, Reconstruction
from domains.mri.data.volumes import ENDINGS
from domains.mri.data.writing import whole

SCANNER = 1  # code of an affine that is that of the scanner
UNKNOWN = 2  # aligned to something: what we say where no affine is known


def write(path: Path, picture: Reconstruction, force: bool) -> None:
    """Write a volume of (column, row, slice), and ``…-width`` beside it if there are intervals.

    Args:
        path: Ends in ``.nii`` or ``.nii.gz``.
        picture: The picture.
        force: Whether files that are there are replaced.
    """
    parts = {path: (picture.image, picture.method)}
    if picture.width is not None:
        share = "" if picture.coverage is None else f" of {picture.coverage:.0%} intervals"
        parts[width_of(path)] = (picture.width, f"{picture.method} half-width{share}")
    with whole(list(parts), force) as places:
        for place, (values, words) in zip(places, parts.values(), strict=True):
            data = _bytes(picture, values.numpy(), words)
            packed = place.suffix.lower() == ".gz"
            place.write_bytes(gzip.compress(data, mtime=0) if packed else data)


def width_of(path: Path) -> Path:
    """Return the name of the file of the widths beside a picture.

    Example:
        >>> width_of(Path("a/head.nii.gz")).as_posix()
        'a/head-width.nii.gz'
    """
    ending = next(one for one in ENDINGS[::-1] if path.name.lower().endswith(one))
    return path.with_name(f"{path.name[: -len(ending)]}-width{path.name[-len(ending) :]}")


def _bytes(picture: Reconstruction, values: np.ndarray, words: str) -> bytes:
    import nibabel

    known = picture.affine is not None
    affine = affine_of(picture)
    image = nibabel.Nifti1Image(values.transpose(2, 1, 0), affine)  # pyright: ignore
    for setter in (image.set_qform, image.set_sform):
        setter(affine, SCANNER if known else UNKNOWN)
    image.header.set_xyzt_units("mm")
    image.header["descrip"] = f"latentworks {words}; research only"[:79].encode("ascii", "replace")
    return image.to_bytes()


def affine_of(picture: Reconstruction) -> Affine:
    """Return the affine of a picture; where none is known one with its middle at 0."""
    if picture.affine is not None:
        return picture.affine
    slices, height, width = picture.image.shape
    spacing = np.array(picture.spacing_mm[::-1])
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = -spacing * (np.array([width, height, slices]) - 1) / 2
    return affine


def read(path: Path) -> Reconstruction:
    """Read a picture that `write` wrote, with its widths if they are beside it.

    Raises:
        UserError: If it is no readable volume.
    """
    values, affine, spacing = _values(path)
    beside = width_of(path)
    width = torch.from_numpy(_values(beside)[0]) if beside.is_file() else None
    return Reconstruction(
        name=path.name.split(".nii")[0],
        method="",
        image=torch.from_numpy(values),
        width=width,
        spacing_mm=spacing,
        affine=affine,
    )


def _values(path: Path) -> tuple[np.ndarray, Affine, tuple[float, float, float]]:
    import nibabel

    try:
        image = nibabel.load(path)  # pyright: ignore[reportPrivateImportUsage]
        values = np.asarray(image.dataobj, np.float32)  # pyright: ignore
    except Exception as error:  # whatever a reader of damaged files raises
        why = " ".join(str(error).split())[:120] or type(error).__name__
        raise UserError(f"{path}: cannot be read as NIfTI ({why}); copy it again") from error
    if values.ndim != 3:
        raise UserError(f"{path}: shape {values.shape}; expected one volume of three axes")
    column, row, between = (float(size) for size in image.header.get_zooms()[:3])  # pyright: ignore
    affine = np.asarray(image.affine, np.float64)  # pyright: ignore
    return np.ascontiguousarray(values.transpose(2, 1, 0)), affine, (between, row, column)
