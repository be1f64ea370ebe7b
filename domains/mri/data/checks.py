"""What must hold for any k-space, mask and maps, whatever file they come from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Complex64, Float32
from numpy.typing import NDArray
from torch import Tensor

from core.runtime.errors import UserError
from domains.mri.data.axes import PAIRS, PARTS

TOLERANCE = 0.01  # share of positions at which a mask may differ from what is not zero
UNCENTRED = 10.0  # energy around the corners over that around the middle
COMPLEX_FIELDS = ({"r", "i"}, {"real", "imag"})
Mask = Bool[Tensor, "one_or_slice height width"]
KSpace = Complex64[Tensor, "slice coil height width"]


def as_numbers(path: Path, field: str, array: NDArray[Any]) -> NDArray[Any]:
    """Return an array of numbers; pairs of HDF5 (r, i or real, imag) become complex.

    Raises:
        UserError: If it holds something else.
    """
    names = set(array.dtype.names or ())
    if names in COMPLEX_FIELDS:
        real, imaginary = sorted(names, reverse=True)
        joined = np.empty(array.shape, np.result_type(array.dtype[real], np.complex64))
        joined.real, joined.imag = array[real], array[imaginary]
        return joined
    if array.dtype.kind not in "iufcb":
        raise UserError(
            f"{path}: {field}: {array.dtype} of shape {array.shape}; expected complex numbers"
        )
    return array


def check_complex(path: Path, field: str, array: NDArray[Any]) -> None:
    """Raise if k-space is real, and say how real and imaginary parts may lie in it.

    Raises:
        UserError: If it is.
    """
    if np.iscomplexobj(array):
        return
    guesses = [f"--layout {guess}" for guess in _guesses(array.shape)] or ["this array has none"]
    raise UserError(
        f"{path}: {field}: real numbers ({array.dtype}, shape {array.shape}); expected complex "
        "ones; if real and imaginary parts lie along an axis, name the axes, "
        f"{PARTS!r} for one of length 2, {PAIRS[0]!r} for pairs coil by coil: "
        f"{' or '.join(guesses)}; a picture of magnitude has no k-space: latentworks mri simulate"
    )


def _guesses(shape: tuple[int, ...]) -> list[str]:
    """Return layouts that fit a shape."""
    plane = ["height", "width"]
    outer = {0: [], 1: ["coil"], 2: ["slice", "coil"]}
    around = outer.get(len(shape) - 3)
    guesses = []
    if around is not None and 2 in (shape[0], shape[-1]):
        guesses += [[PARTS, *around, *plane]] if shape[0] == 2 else []
        guesses += [[*around, *plane, PARTS]] if shape[-1] == 2 else []
    elif len(shape) in (3, 4) and shape[-1] % 2 == 0:
        guesses = [[*["slice"][: len(shape) - 3], *plane, PAIRS[0]]]
    return [",".join(names) for names in guesses]


def kspace_of(path: Path, field: str, array: NDArray[Any], check_centre: bool = True) -> KSpace:
    """Return checked k-space.

    Args:
        path: Of the file.
        field: Where in the file it is.
        array: Of shape (slice, coil, height, width).
        check_centre: Whether an array that looks un-centred is refused.

    Raises:
        UserError: If it is real, of other axes, empty, not finite, zero or not centred.
    """
    check_complex(path, field, array)
    if array.ndim != 4 or not array.size:
        raise UserError(
            f"{path}: {field}: {array.ndim} axes, {array.shape}; expected (slice, coil, height, "
            "width), none of them 0; name the axes with --layout"
        )
    with np.errstate(over="ignore"):
        kspace = np.ascontiguousarray(array, np.complex64)
    _check_finite(path, field, kspace)
    if not kspace.any():
        raise UserError(f"{path}: {field}: all zero; expected measured values; copy it again")
    if check_centre:
        _check_centred(path, field, kspace)
    return torch.from_numpy(kspace)


def _check_finite(path: Path, field: str, array: NDArray[Any]) -> None:
    """Raise with the first slice that has NaN or infinite values."""
    for place, one in enumerate(array):
        if not (fine := np.isfinite(one)).all():
            first = tuple(int(index) for index in np.argwhere(~fine)[0])
            raise UserError(
                f"{path}: {field}: slice {place}: {fine.size - fine.sum()} of {fine.size} values "
                f"are NaN or infinite, the first at {first}; expected finite numbers; take the "
                "slice out or measure it again"
            )


def _check_centred(path: Path, field: str, kspace: NDArray[np.complex64]) -> None:
    height, width = kspace.shape[-2:]
    if min(height, width) < 8:
        return
    energy = sum(np.square(np.abs(one)).sum(0) for one in kspace)
    middle, corners = (
        _middle_energy(np.asarray(one)) for one in (energy, np.fft.fftshift(energy))
    )
    if corners > UNCENTRED * middle:
        raise UserError(
            f"{path}: {field}: {corners / max(middle, 1e-30):.3g} times as much energy around the "
            "corners as in the middle, so its zero frequency seems to be at index 0; expected it "
            f"in the middle; say so: --layout uncentred:{'slice,coil,height,width'} (the axes as "
            "they are in the file)"
        )


def _middle_energy(energy: NDArray[Any]) -> float:
    """Return the energy in the middle quarter of either axis."""
    (top, bottom), (left, right) = (
        (size // 2 - size // 8, size // 2 + size // 8) for size in energy.shape
    )
    return float(energy[top:bottom, left:right].sum(dtype=np.float64))


# Masks


def sampled(kspace: KSpace) -> Mask:
    """Return where k-space is not zero in some coil; one mask if it is the same for all slices.

    Slices without any value are blank, not unsampled: they have the mask of the others.
    """
    there = (kspace != 0).any(1)
    blank = ~there.flatten(1).any(1)
    full = there[~blank]
    if not len(full):
        return torch.ones(1, *there.shape[1:], dtype=torch.bool)
    if bool((full == full[0]).all()):
        return full[:1].clone()
    there[blank] = full.any(0)
    return there


def masked(kspace: KSpace, mask: Mask) -> KSpace:
    """Return k-space that is zero where it was not sampled."""
    outside = (~mask).expand(len(kspace), -1, -1)
    if bool(mask.all()) or not bool((kspace.abs().sum(1) * outside).any()):
        return kspace
    return kspace * mask[:, None]


def mask_of(path: Path, field: str, array: NDArray[Any], kspace: KSpace) -> Mask:
    """Return a mask of the shape of k-space, and make sure that k-space agrees with it.

    Args:
        path: Of the file that the mask is in.
        field: Where in it.
        array: 0 and 1 of shape (width,), (height, width) or (slice, height, width), in which
            axes of 1 count as all.
        kspace: What it is a mask of.

    Raises:
        UserError: If its shape is another, it holds other values, or disagrees with the zeros.
    """
    mask = torch.from_numpy(_expanded(path, field, array, tuple(kspace.shape)))
    found = sampled(kspace)
    extra = float((found & ~mask).float().mean())
    absent = float((mask & ~found).float().mean())
    if extra + absent > TOLERANCE:
        raise UserError(
            f"{path}: {field}: disagrees with the zeros of k-space at {extra + absent:.1%} of the "
            f"positions: {absent:.1%} are sampled by the mask but zero, {extra:.1%} are not zero "
            "but masked; expected the mask that the scan was sampled with; leave it out to take "
            "what is not zero"
        )
    return mask


def undersampled(path: Path, array: NDArray[Any], kspace: KSpace) -> tuple[KSpace, Mask]:
    """Apply a mask from another file: to full k-space, or to k-space that has these zeros already.

    Raises:
        UserError: If the mask samples positions that are zero, or its shape is another.
    """
    if bool(sampled(kspace).all()):
        mask = torch.from_numpy(_expanded(path, "mask", array, tuple(kspace.shape)))
    else:
        mask = mask_of(path, "mask", array, kspace)
    if not bool(mask.any()):
        raise UserError(f"{path}: mask: samples nothing; expected some positions that are 1")
    return masked(kspace, mask), mask


def _expanded(
    path: Path, field: str, array: NDArray[Any], shape: tuple[int, ...]
) -> NDArray[np.bool_]:
    """Return a mask as (1 or slices, height, width)."""
    slices, _, height, width = shape
    given = array.shape
    array = np.abs(array) if np.iscomplexobj(array) else array
    if not np.isin(array, (0, 1)).all():
        raise UserError(f"{path}: {field}: values other than 0 and 1; expected a mask")
    while array.ndim > 3 and 1 in array.shape:
        array = array.squeeze(array.shape.index(1))
    try:
        mask = np.broadcast_to(
            array.astype(bool),
            (slices if array.ndim == 3 and len(array) > 1 else 1, height, width),
        )
    except ValueError as error:
        raise UserError(
            f"{path}: {field}: shape {given}; k-space is {height} x {width} in {slices} slices; "
            "expected (width,), (height, width) or (slice, height, width); make it for this matrix"
        ) from error
    return mask.copy()


# Beside k-space


def maps_of(path: Path, field: str, array: NDArray[Any], shape: tuple[int, ...]) -> KSpace:
    """Return coil sensitivities of the shape of k-space; one set may serve all slices.

    Raises:
        UserError: If their shape is another, or they are not finite.
    """
    array = array[None] if array.ndim == 3 else array
    fits = array.ndim == 4 and array.shape[1:] == shape[1:] and len(array) in (1, shape[0])
    if not fits:
        raise UserError(
            f"{path}: {field}: shape {array.shape}; k-space is {shape}; expected maps of (coil, "
            "height, width) or (slice, coil, height, width) for the same coils and matrix"
        )
    _check_finite(path, field, array)
    return torch.from_numpy(np.ascontiguousarray(array, np.complex64)).expand(shape)


def covariance_of(
    path: Path, field: str, array: NDArray[Any], coils: int
) -> Complex64[Tensor, "coil coil"]:
    """Return the covariance of the noise of the coils.

    Raises:
        UserError: If its shape is another, or it is not finite.
    """
    if array.shape != (coils, coils) or not np.isfinite(array).all():
        raise UserError(
            f"{path}: {field}: shape {array.shape}; expected finite numbers of shape "
            f"{(coils, coils)}, the coils of k-space"
        )
    return torch.from_numpy(array.astype(np.complex64))


def picture_of(
    path: Path, field: str, array: NDArray[Any]
) -> Float32[Tensor, "slice height width"]:
    """Return slices of magnitude.

    Raises:
        UserError: If it is complex, has other axes, or is not finite.
    """
    array = array[None] if array.ndim == 2 else array
    if array.ndim != 3 or not array.size or array.dtype.kind not in "iufb":
        raise UserError(
            f"{path}: {field}: {array.dtype} of shape {array.shape}; expected real numbers, "
            "(slice, height, width)"
        )
    _check_finite(path, field, array)
    return torch.from_numpy(np.ascontiguousarray(array, np.float32))
