"""Arrays of NumPy (``.npy``, ``.npz``) and MATLAB (``.mat``): k-space, masks, maps."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.runtime.errors import UserError
from domains.mri.data import hdf5
from domains.mri.data.axes import Layout, arranged
from domains.mri.data.calgary import left_out
from domains.mri.data.checks import (
    as_numbers,
    check_complex,
    covariance_of,
    kspace_of,
    maps_of,
    mask_of,
    masked,
    picture_of,
    sampled,
)
from domains.mri.data.records import Scan
from domains.mri.data.sources import subject_of
from domains.mri.data.writing import whole

KSPACE = "kspace"
MATLAB = Layout(axes=("height", "width", "coil", "slice"))
DAMAGED = (ValueError, EOFError, OSError, KeyError, zipfile.BadZipFile, zlib.error)


def read_array(path: Path) -> NDArray[Any]:
    """Read a ``.npy`` file.

    Raises:
        UserError: If it is damaged or holds objects.
    """
    try:
        array = np.load(path, allow_pickle=False)
    except DAMAGED as error:
        raise UserError(
            f"{path}: damaged .npy file, or one of objects ({_reason(error)}); expected an array "
            "of complex numbers; write it again with numpy.save"
        ) from error
    return as_numbers(path, "array", array)


def read_scan(path: Path, layout: Layout | None = None) -> Scan:
    """Read k-space of a ``.npy`` file.

    Args:
        path: The file.
        layout: Of its axes, where they are not (slice, coil, height, width), (coil, height,
            width), or (height, width) of a single coil.

    Raises:
        UserError: If it is damaged, real, or of other axes.
    """
    kspace = kspace_of(
        path, "array", _arranged(path, "array", read_array(path), layout), layout is None
    )
    name = path.stem
    return Scan(name=name, subject=subject_of(name, {}), kspace=kspace, mask=sampled(kspace))


def _arranged(path: Path, field: str, array: NDArray[Any], layout: Layout | None) -> NDArray[Any]:
    if layout is not None:
        return arranged(path, field, array, layout)
    check_complex(path, field, array)
    if array.ndim in (2, 3):
        return array.reshape(*[1] * (4 - array.ndim), *array.shape)
    return array


def write_scan(path: Path, scan: Scan, force: bool) -> tuple[str, ...]:
    """Write k-space as (slice, coil, height, width).

    Args:
        path: The file.
        scan: The scan.
        force: Whether a file that is there is replaced.

    Returns:
        What the scan has and the file has no place for; the mask is where it is not zero.
    """
    with whole([path], force) as (place,), place.open("wb") as file:
        np.save(file, scan.kspace.numpy())
    return left_out(scan, affine=False)


# Several arrays


def read_archive(path: Path, layout: Layout | None = None, inside: str = KSPACE) -> Scan:
    """Read a ``.npz`` file with ``kspace``, and what is beside it.

    Args:
        path: The file.
        layout: Of its k-space, where it is another.
        inside: The name of k-space in it; a single array may have any.

    Raises:
        UserError: If it is damaged, or something in it is missing or wrong.
    """
    there = archive_of(path)
    name = next(iter(there)) if len(there) == 1 and inside == KSPACE else inside
    if name not in there:
        raise UserError(
            f"{path}: no array {inside!r}; found "
            f"{', '.join(f'{one!r} {array.shape}' for one, array in there.items()) or 'nothing'}; "
            f"name the one that holds k-space: {path}/NAME"
        )
    kspace = kspace_of(path, name, _arranged(path, name, there[name], layout), layout is None)
    mask = mask_of(path, "mask", there["mask"], kspace) if "mask" in there else sampled(kspace)
    shape = tuple(kspace.shape)
    optional = {
        "maps": lambda array: maps_of(path, "maps", array, shape),
        "target": lambda array: picture_of(path, "target", array),
        "noise_covariance": lambda array: covariance_of(path, "noise_covariance", array, shape[1]),
        "affine": lambda array: array,
    }
    beside = {one: make(there[one]) for one, make in optional.items() if one in there}
    between, row, column = (float(one) for one in there.get("spacing_mm", np.ones(3)))
    return Scan(
        name=path.stem,
        subject=subject_of(path.stem, {}),
        kspace=masked(kspace, mask),
        mask=mask,
        spacing_mm=(between, row, column),
        **beside,
    )


def archive_of(path: Path) -> dict[str, NDArray[Any]]:
    """Return all arrays of a ``.npz`` file.

    Raises:
        UserError: If it is damaged.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: as_numbers(path, name, archive[name]) for name in archive.files}
    except DAMAGED as error:
        raise UserError(
            f"{path}: damaged .npz file, or one of objects ({_reason(error)}); write it again "
            "with numpy.savez"
        ) from error


def write_archive(path: Path, scan: Scan, force: bool) -> tuple[str, ...]:
    """Write a scan with everything beside its k-space, but for facts of a header.

    Args:
        path: The file.
        scan: The scan.
        force: Whether a file that is there is replaced.

    Returns:
        What the file has no place for.
    """
    optional = {
        "maps": scan.maps,
        "target": scan.target,
        "noise_covariance": scan.noise_covariance,
    }
    beside: dict[str, Any] = {
        name: value.numpy() for name, value in optional.items() if value is not None
    }
    beside |= {} if scan.affine is None else {"affine": scan.affine}
    with whole([path], force) as (place,), place.open("wb") as file:
        np.savez(
            file,
            kspace=scan.kspace.numpy(),
            mask=scan.mask.numpy(),
            spacing_mm=np.array(scan.spacing_mm),
            **beside,
        )
    return ()


# MATLAB


def read_matlab(path: Path, layout: Layout | None = None, inside: str = "") -> Scan:
    """Read k-space of a ``.mat`` file, of (height, width, coil, slice), the latter two optional.

    Args:
        path: The file, of any version.
        layout: Of its axes as MATLAB has them, where they are others.
        inside: Which variable; not needed where only one can be k-space.

    Raises:
        UserError: If it is damaged, or it is not clear which variable is k-space.
    """
    there = variables_of(path)
    name = inside or _only(path, there)
    if name not in there:
        raise UserError(f"{path}: no variable {name!r}; found {words_of(there)}")
    array = as_numbers(path, name, there[name])
    if layout is None:
        check_complex(path, name, array)
        layout = Layout(axes=MATLAB.axes[: max(2, min(array.ndim, 4))])
        plain = arranged(path, name, array, layout)
        kspace = kspace_of(path, name, plain)
    else:
        kspace = kspace_of(path, name, arranged(path, name, array, layout), check_centre=False)
    return Scan(
        name=path.stem,
        subject=subject_of(path.stem, {}),
        kspace=kspace,
        mask=sampled(kspace),
    )


def variables_of(path: Path) -> dict[str, NDArray[Any]]:
    """Return all arrays of a ``.mat`` file, with MATLAB's order of axes.

    Raises:
        UserError: If it is damaged.
    """
    if b"MATLAB 7.3" in path.open("rb").read(128):
        with hdf5.opened(path) as file:
            return {
                name: as_numbers(path, name, hdf5.values(path, node)).T
                for name, node in hdf5.datasets(file).items()
                if not name.startswith("#") and (node.dtype.names or node.dtype.kind in "fiuc")
            }
    from scipy.io import loadmat

    try:
        found = loadmat(path)
    except Exception as error:  # whatever a reader of damaged files raises
        raise UserError(f"{path}: damaged .mat file ({_reason(error)}); save it again") from error
    return {
        name: value
        for name, value in found.items()
        if isinstance(value, np.ndarray) and value.dtype.kind in "fiuc"
    }


def _only(path: Path, there: dict[str, NDArray[Any]]) -> str:
    complex_ones = [
        name for name, array in there.items() if np.iscomplexobj(array) and array.ndim >= 2
    ]
    named = [name for name in complex_ones if KSPACE in name.lower()]
    for found in (named, complex_ones):
        if len(found) == 1:
            return found[0]
    raise UserError(
        f"{path}: {len(complex_ones)} complex variables; found {words_of(there)}; name the one "
        f"that holds k-space: {path}/NAME"
    )


def words_of(there: dict[str, NDArray[Any]]) -> str:
    """Return names, shapes and kinds of numbers in a few words, complex ones first."""
    ordered = sorted(there.items(), key=lambda item: not np.iscomplexobj(item[1]))
    words = [f"{name!r} {array.shape} {array.dtype}" for name, array in ordered]
    more = len(words) - hdf5.MOST_LISTED
    rest = [f"and {more} more"] if more > 0 else []
    return ", ".join(words[: hdf5.MOST_LISTED] + rest) or "nothing"


def _reason(error: Exception) -> str:
    return (" ".join(str(error).split()) or type(error).__name__)[:120]
