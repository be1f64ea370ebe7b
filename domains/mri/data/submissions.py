"""What the challenges of fastMRI and Calgary-Campinas take, and whether a folder is that.

Either takes a folder with a file ``NAME.h5`` for each test scan, with ``reconstruction`` of
(slice, height, width). fastMRI wants pictures cropped to the size that its headers tell;
Calgary-Campinas leaves out the first and the last 50 slices, and pictures have the units of
``numpy.fft.ifft2``, smaller by the root of the pixels than those of an orthonormal transform.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from core.runtime.errors import UserError
from domains.mri.data import fastmri, hdf5, headers
from domains.mri.data.records import Reconstruction
from domains.mri.data.writing import whole_folder

if TYPE_CHECKING:
    import h5py

Challenge = Literal["fastmri", "calgary"]
KEY = "reconstruction"
ENDING = ".h5"
CUT = 50  # slices at either end that Calgary-Campinas leaves out
SCALE = 5.0  # how far the root of the energy may be from that of k-space


def write_submission(
    challenge: Challenge, pictures: Iterable[Reconstruction], folder: Path, force: bool = False
) -> list[Path]:
    """Write a folder for a challenge.

    Args:
        challenge: Which.
        pictures: One of each test scan, of the whole field of view, with the scan's header.
        folder: That is made.
        force: Whether a folder of such files that is there is replaced.

    Raises:
        UserError: If there is no picture, two have one name, or one has too few slices.
    """
    import h5py

    names: list[str] = []
    with whole_folder(folder, (ENDING,), force) as made:
        for picture in pictures:
            name = f"{picture.name}{ENDING}"
            if name in names:
                raise UserError(
                    f"{folder}: two pictures named {picture.name!r}; expected one each"
                )
            names.append(name)
            with h5py.File(made / name, "w") as file:
                file[KEY] = submitted(challenge, picture)
        if not names:
            raise UserError(f"{folder}: no pictures to submit; expected one of each test scan")
    return [folder / name for name in names]


def submitted(challenge: Challenge, picture: Reconstruction) -> NDArray[np.float32]:
    """Return the slices of a picture as a challenge wants them.

    Raises:
        UserError: If it is smaller than that.
    """
    values = picture.image.numpy()
    slices, height, width = values.shape
    if challenge == "calgary":
        if slices <= 2 * CUT:
            raise UserError(
                f"{picture.name}: {slices} slices; expected more than {2 * CUT}, of which the "
                f"first and last {CUT} are left out; reconstruct the whole scan"
            )
        return (values[CUT:-CUT] / np.sqrt(height * width)).astype(np.float32)
    told = headers.PICTURE_HEIGHT, headers.PICTURE_WIDTH
    given = [
        int(picture.header.get(name, size))
        for name, size in zip(told, (height, width), strict=True)
    ]
    rows, columns = cropped((given[0], given[1]), (height, width))
    top, left = (height - rows) // 2, (width - columns) // 2
    return np.ascontiguousarray(values[:, top : top + rows, left : left + columns])


def cropped(told: tuple[int, int], has: tuple[int, int]) -> tuple[int, int]:
    """Return the size to which pictures of fastMRI are cropped.

    A few brain scans have fewer columns than their headers tell: then it is a square of the
    smaller side, as in fastMRI's own code.

    Args:
        told: Rows and columns by the header.
        has: Rows and columns of the whole picture.

    Example:
        >>> cropped((320, 320), (640, 368)), cropped((320, 320), (512, 264))
        ((320, 320), (264, 264))
    """
    if told[0] <= has[0] and told[1] <= has[1]:
        return told
    side = min(*told, *has)
    return side, side


def problems(challenge: Challenge, folder: Path, scans: Path | None = None) -> list[str]:
    """Return what is wrong with a folder for a challenge, a line each; nothing if it may be sent.

    Args:
        challenge: Which.
        folder: The submission.
        scans: A folder with the test scans, with which names, shapes and units are compared.

    Raises:
        UserError: If one of the folders is none.
    """
    files = _files(folder)
    if not files:
        return [f"{folder}: no file {ENDING}; expected one for each test scan"]
    found = [
        f"{one.name}: not for this challenge; expected only files {ENDING}; take it out"
        for one in sorted(folder.iterdir())
        if one.suffix.lower() != ENDING
    ]
    sources = _files(scans) if scans is not None else {}
    if scans is not None:
        found += [
            f"{name}: missing; expected one for each scan" for name in sources.keys() - files
        ]
        found += [f"{name}: of no test scan; take it out" for name in files.keys() - sources]
    for name, path in sorted(files.items()):
        found += [f"{name}: {words}" for words in _file(challenge, path, sources.get(name))]
    return sorted(found)


def _files(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        what = "a file" if folder.exists() else "no such folder"
        raise UserError(f"{folder}: {what}; expected a folder of files {ENDING}")
    return {one.name: one for one in folder.iterdir() if one.suffix.lower() == ENDING}


def _file(challenge: Challenge, path: Path, source: Path | None) -> list[str]:
    """Return what is wrong with one file."""
    try:
        with hdf5.opened(path) as file:
            there = hdf5.datasets(file)
            if KEY not in there:
                return [f"no dataset {KEY!r}; found {hdf5.listed(there)}; write it again"]
            values = hdf5.values(path, there[KEY])
        wrong = _values(values)
        if source is not None and values.ndim == 3:
            wrong += _beside(challenge, values, source)
    except UserError as error:
        return [str(error).removeprefix(f"{path}: ")]
    return wrong


def _values(values: NDArray[Any]) -> list[str]:
    if values.ndim != 3 or values.dtype.kind != "f":
        return [
            f"{KEY}: {values.dtype} of shape {values.shape}; expected float32, (slice, height, "
            "width); write it again"
        ]
    wrong = []
    if values.dtype != np.float32:
        wrong.append(f"{KEY}: {values.dtype}; expected float32; write it again")
    if not np.isfinite(values).all():
        place = int(np.argwhere(~np.isfinite(values))[0][0])
        wrong.append(f"{KEY}: slice {place} has NaN or infinite values; reconstruct it again")
    elif (values < 0).any():
        wrong.append(f"{KEY}: negative values; expected magnitude; write it again")
    elif not values.any():
        wrong.append(f"{KEY}: all zero; expected pictures; reconstruct them again")
    return wrong


def _beside(challenge: Challenge, values: NDArray[Any], source: Path) -> list[str]:
    """Compare a picture with the scan that it is of, in shape and in energy."""
    with hdf5.opened(source) as file:
        node = hdf5.require(source, file, [fastmri.KSPACE])
        slices = node.shape[0]
        if challenge == "calgary":
            shape = max(0, slices - 2 * CUT), *node.shape[1:3]
            first, units = CUT, np.sqrt(node.shape[1] * node.shape[2])
        else:
            height, width = _pictured(source, file, node.shape[-2:])
            shape, first, units = (slices, height, width), 0, 1.0
        if values.shape != shape:
            return [f"{KEY}: shape {values.shape}; expected {shape}; write it again"]
        middle = len(values) // 2
        with hdf5.damage(source, fastmri.KSPACE):
            measured = np.asarray(node[first + middle])
    energy = float(np.square(np.abs(measured)).sum(dtype=np.float64))
    own = float(np.square(values[middle].astype(np.float64)).sum())
    ratio = units * np.sqrt(own / energy) if energy > 0 else 1.0
    if not 1 / SCALE < ratio < SCALE:
        return [
            f"{KEY}: {ratio:.3g} times as strong as its k-space; expected about as strong; check "
            "its units and write it again"
        ]
    return []


def _pictured(source: Path, file: h5py.File, shape: tuple[int, int]) -> tuple[int, int]:
    there = hdf5.datasets(file)
    if "ismrmrd_header" not in there:
        return shape
    told = headers.parse(source, hdf5.text(there["ismrmrd_header"][()])).pictured[:2]
    return cropped(told, shape)
