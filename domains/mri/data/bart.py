"""Pairs of files of BART: ``.hdr`` has the sizes of 16 dimensions, ``.cfl`` complex numbers.

Dimensions are readout, first and second phase encoding, coil, set of maps, …, slice (13). Of 3-D
k-space the readout is transformed, so that slices are planes of the two phase encodings.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.runtime.errors import UserError
from domains.mri.data.axes import Layout, along_readout, arranged
from domains.mri.data.calgary import left_out
from domains.mri.data.checks import kspace_of, sampled
from domains.mri.data.records import Scan
from domains.mri.data.sources import subject_of
from domains.mri.data.writing import whole

DIMENSIONS = 16
READ, FIRST, SECOND, COIL, SET, SLICE = 0, 1, 2, 3, 4, 13
USED = (READ, FIRST, SECOND, COIL, SLICE)
NAMES = {
    4: "maps", 5: "echo time", 6: "coefficient", 7: "coefficient", 8: "iteration", 9: "CSHIFT",
    10: "time", 11: "time", 12: "level", 14: "average", 15: "batch",
}  # fmt: skip


def pair_of(path: Path) -> tuple[Path, Path]:
    """Return the header and the numbers of a pair of which one is named, or neither ending.

    Raises:
        UserError: If one of them is missing.
    """
    stem = path.with_suffix("") if path.suffix.lower() in (".cfl", ".hdr") else path
    pair = stem.with_name(stem.name + ".hdr"), stem.with_name(stem.name + ".cfl")
    for file in pair:
        if not file.is_file():
            raise UserError(
                f"{file}: no such file; expected {pair[0].name} and {pair[1].name} beside each "
                "other; copy both"
            )
    return pair


def read_array(path: Path) -> NDArray[np.complex64]:
    """Read an array with all 16 dimensions.

    Raises:
        UserError: If a file is missing, or they do not fit.
    """
    header, numbers = pair_of(path)
    sizes = _sizes(header)
    expected = 8 * int(np.prod(sizes, dtype=np.int64))
    found = numbers.stat().st_size
    if found != expected:
        raise UserError(
            f"{numbers}: {found} bytes; {header.name} says {' x '.join(map(str, sizes))} complex "
            f"numbers, {expected} bytes; copy both again"
        )
    flat = np.fromfile(numbers, np.dtype("<c8")).astype(np.complex64, copy=False)
    return flat.reshape(sizes, order="F").reshape(*sizes, *[1] * (DIMENSIONS - len(sizes)))


def _sizes(header: Path) -> tuple[int, ...]:
    lines = header.read_text(errors="replace").splitlines()
    try:
        place = next(index for index, line in enumerate(lines) if line.strip() == "# Dimensions")
        sizes = tuple(int(word) for word in lines[place + 1].split())
    except (StopIteration, IndexError, ValueError) as error:
        raise UserError(
            f"{header}: no line of sizes after '# Dimensions'; expected a header of BART; copy it "
            "again"
        ) from error
    if not sizes or len(sizes) > DIMENSIONS or min(sizes) < 1:
        raise UserError(
            f"{header}: sizes {sizes}; expected {DIMENSIONS} at most, all positive; copy it again"
        )
    return sizes


def read_scan(path: Path, layout: Layout | None = None) -> Scan:
    """Read k-space on a Cartesian grid.

    Args:
        path: One of the two files, or their name without ending.
        layout: Names of the dimensions that are longer than 1, where they are others.

    Raises:
        UserError: If a file is missing or damaged, or has other dimensions.
    """
    array = read_array(path)
    named = (
        slices_of(path, array)
        if layout is None
        else arranged(path, "dimensions longer than 1", array.squeeze(), layout)
    )
    kspace = kspace_of(path, "k-space", named, layout is None)
    name = pair_of(path)[1].stem
    return Scan(name=name, subject=subject_of(name, {}), kspace=kspace, mask=sampled(kspace))


def slices_of(path: Path, array: NDArray[Any], what: str = "k-space") -> NDArray[Any]:
    """Return k-space or maps of 16 dimensions as (slice, coil, height, width).

    Args:
        path: Of the file, for messages.
        array: Of 16 dimensions.
        what: ``"k-space"``, whose readout is transformed where it is 3-D, or ``"maps"``.

    Raises:
        UserError: If it has other dimensions.
    """
    _check_dimensions(path, array, what)
    plain = array.transpose([*USED, *[one for one in range(DIMENSIONS) if one not in USED]])
    read, first, second, coil, slices = plain.shape[:5]
    plain = plain.reshape(read, first, second, coil, slices)
    if second == 1:
        return plain[:, :, 0].transpose(3, 2, 0, 1)
    if read == 1:
        return plain[0].transpose(3, 2, 0, 1)
    if slices > 1:
        raise UserError(
            f"{path}: {what}: 3-D ({read} x {first} x {second}) and {slices} slices; expected one "
            "of both; take one slab: bart slice 13 0"
        )
    volume = plain[..., 0] if what != "k-space" else along_readout(plain[..., 0])
    return volume.transpose(0, 3, 1, 2)


def _check_dimensions(path: Path, array: NDArray[Any], what: str) -> None:
    for place, name in NAMES.items():
        if array.shape[place] > 1:
            raise UserError(
                f"{path}: {what}: dimension {place} ({name}) is {array.shape[place]} long; "
                f"expected 1; take one: bart slice {place} 0"
            )


def write_scan(path: Path, scan: Scan, force: bool) -> tuple[str, ...]:
    """Write k-space: rows as readout, columns as first phase encoding.

    Args:
        path: One of the two files, or their name without ending.
        scan: The scan.
        force: Whether files that are there are replaced.

    Returns:
        What the scan has and the files have no place for.
    """
    write_array(path, scan.kspace.numpy(), force)
    return left_out(scan, affine=False)


def write_array(path: Path, array: NDArray[np.complex64], force: bool) -> None:
    """Write an array of (slice, coil, height, width)."""
    stem = path.with_suffix("") if path.suffix.lower() in (".cfl", ".hdr") else path
    slices, coils, height, width = array.shape
    sizes = [1] * DIMENSIONS
    sizes[READ], sizes[FIRST], sizes[COIL], sizes[SLICE] = height, width, coils, slices
    pair = [stem.with_name(stem.name + ending) for ending in (".hdr", ".cfl")]
    with whole(pair, force) as (header, numbers):
        header.write_text(f"# Dimensions\n{' '.join(map(str, sizes))} \n")
        array.transpose(2, 3, 1, 0).astype("<c8").ravel(order="F").tofile(numbers)
