"""Axes of arrays as files have them → (slice, coil, height, width), centred.

A layout names the axes of an array from the first to the last: ``slice``, ``coil``, ``height``,
``width`` and, where numbers are real, ``complex`` for an axis of two, real and imaginary part.
``coil*complex`` is one axis with real and imaginary part of the first coil, then of the next;
``complex*coil`` all real parts, then all imaginary ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.runtime.errors import UserError, did_you_mean

ORDER = ("slice", "coil", "height", "width")
PARTS = "complex"
PAIRS = (f"coil*{PARTS}", f"{PARTS}*coil")
UNCENTRED = "uncentred:"
CALGARY = "calgary"
LAYOUTS = {
    "fastmri": "slice,coil,height,width",
    CALGARY: f"slice,height,width,{PAIRS[0]}",
}


@dataclass(frozen=True, kw_only=True)
class Layout:
    """What the axes of an array are, and where its zero frequency is.

    Args:
        axes: Their names.
        corner: Whether the zero frequency is at index 0, as ``numpy.fft.fft2`` has it.
        origin: Whether phases count from the first pixel instead of the middle one.
    """

    axes: tuple[str, ...]
    corner: bool = False
    origin: bool = False


def layout_of(text: str) -> Layout:
    """Return the layout that a text means.

    ``uncentred:`` before the names says that the array is what ``numpy.fft.fft2`` makes of a
    picture: zero frequency at index 0, phases from the first pixel. ``fastmri`` and ``calgary``
    stand for the layouts of those data sets; in the latter the zero frequency is in the middle,
    but phases count from the first pixel.

    Args:
        text: For example ``"slice,height,width,coil*complex"``.

    Raises:
        UserError: If it names no layout.

    Example:
        >>> layout_of("coil,height,width").axes
        ('coil', 'height', 'width')
    """
    corner = text.startswith(UNCENTRED)
    words = text.removeprefix(UNCENTRED)
    names = tuple(name.strip() for name in LAYOUTS.get(words, words).split(","))
    allowed = (*ORDER, PARTS, *PAIRS)
    for name in names:
        if name not in allowed:
            hint = did_you_mean(name, (*allowed, *LAYOUTS))
            raise UserError(
                f"--layout {text!r}: unknown axis {name!r}{hint or '; expected ' + _choices()}"
            )
    parts = [part for name in names for part in name.split("*")]
    if len(set(parts)) < len(parts) or not {"height", "width"} <= set(parts):
        raise UserError(
            f"--layout {text!r}: expected height, width and each axis once; for example "
            f"{LAYOUTS[CALGARY]}"
        )
    return Layout(axes=names, corner=corner, origin=corner or words == CALGARY)


def _choices() -> str:
    return f"{', '.join((*ORDER, PARTS))}, {' or '.join(PAIRS)}, separated by commas"


def arranged(path: Path, field: str, array: NDArray[Any], layout: Layout) -> NDArray[Any]:
    """Return complex k-space as (slice, coil, height, width), centred.

    Args:
        path: Of the file, for messages.
        field: What in the file the array is, for messages.
        array: Complex, or real with an axis of real and imaginary parts.
        layout: Of the array.

    Raises:
        UserError: If the array has other axes.
    """
    names = layout.axes
    if array.ndim != len(names):
        raise UserError(
            f"{path}: {field}: {array.ndim} axes, {array.shape}; --layout names {len(names)}: "
            f"{','.join(names)}; name all axes of the array"
        )
    split = any(PARTS in name for name in names)
    if split == np.iscomplexobj(array):
        raise UserError(
            f"{path}: {field}: {array.dtype}; --layout {','.join(names)} is of "
            f"{'real numbers, with' if split else 'complex numbers, without'} an axis of real and "
            f"imaginary parts; {'take out' if split else 'add'} {PARTS!r}"
        )
    array, names = _joined(path, field, array, names) if split else (array, names)
    kept = [names.index(name) for name in ORDER if name in names]
    array = array.transpose(kept)
    missing = [place for place, name in enumerate(ORDER) if name not in names]
    return centred(np.expand_dims(array, missing), layout)


def _joined(
    path: Path, field: str, array: NDArray[Any], names: tuple[str, ...]
) -> tuple[NDArray[Any], tuple[str, ...]]:
    """Make complex numbers of real and imaginary parts."""
    place = next(index for index, name in enumerate(names) if PARTS in name)
    size, name = array.shape[place], names[place]
    if size != 2 if name == PARTS else size % 2:
        raise UserError(
            f"{path}: {field}: axis {place} ({name}) is {size} long; expected "
            f"{'2' if name == PARTS else 'an even number'}; name another axis so in --layout"
        )
    moved = np.moveaxis(array, place, -1)
    if name == PARTS:
        real, imaginary = moved[..., 0], moved[..., 1]
    elif name == PAIRS[0]:
        real, imaginary = moved[..., ::2], moved[..., 1::2]
    else:
        real, imaginary = moved[..., : size // 2], moved[..., size // 2 :]
    joined = np.empty(real.shape, np.result_type(real.dtype, np.complex64))
    joined.real, joined.imag = real, imaginary
    if name == PARTS:
        return joined, (*names[:place], *names[place + 1 :])
    return joined, (*names[:place], *names[place + 1 :], "coil")


def parted(kspace: NDArray[np.complex64]) -> NDArray[np.float32]:
    """Return (slice, height, width, coil*complex), the inverse of `arranged`."""
    moved = np.ascontiguousarray(np.moveaxis(kspace, 1, -1))
    return moved.view(np.float32)


def centred(kspace: NDArray[Any], layout: Layout) -> NDArray[Any]:
    """Move the zero frequency to the middle and let phases count from the middle pixel."""
    if layout.corner:
        kspace = np.fft.fftshift(kspace, axes=(-2, -1))
    return turned(kspace) if layout.origin else kspace


def turned(kspace: NDArray[Any], inverse: bool = False) -> NDArray[Any]:
    r"""Let the phases of centred k-space count from the middle pixel instead of the first one.

    .. math:: K_j \mapsto K_j \, e^{2 \pi \mathrm i (j - c) c / N}, \qquad c = \lfloor N/2 \rfloor

    For even sizes these are signs, so that it is exact; for odd ones it is rounded.

    Args:
        kspace: Its last two axes are height and width.
        inverse: Whether to go back.
    """
    height, width = kspace.shape[-2:]
    turn = _turn(height)[:, None] * _turn(width)
    return (kspace * (turn.conj() if inverse else turn)).astype(kspace.dtype)


def _turn(size: int) -> NDArray[np.complex128]:
    middle = size // 2
    places = np.arange(size) - middle
    if size % 2 == 0:
        return np.where(places % 2, -1.0, 1.0).astype(np.complex128)
    return np.exp(2j * np.pi * places * middle / size)


def along_readout(kspace: NDArray[Any]) -> NDArray[Any]:
    """Transform the first axis of 3-D k-space, the readout, to pictures: (ky, kz) slices along x.

    Args:
        kspace: Centred along its first axis.
    """
    shifted = np.fft.ifftshift(kspace, axes=0)
    pictures = np.fft.ifft(shifted, axis=0, norm="ortho")
    return np.fft.fftshift(pictures, axes=0).astype(np.complex64)
