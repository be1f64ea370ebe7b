"""One way to read any scan and to write any picture: content and endings choose the format."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from core.runtime.errors import UserError
from domains.mri.data import arrays, bart, calgary, dicom, fastmri, hdf5, mrd, nifti, png
from domains.mri.data.axes import CALGARY, Layout, layout_of
from domains.mri.data.checks import as_numbers, maps_of, undersampled
from domains.mri.data.records import Reconstruction, Scan

Kind = Literal["hdf5", "numpy", "archive", "matlab", "bart"]
Form = Literal["fastmri", "calgary", "ismrmrd", "bart", "numpy", "archive"]
FORMS: dict[str, Form] = {
    ".h5": "fastmri", ".hdf5": "fastmri", ".mrd": "ismrmrd", ".cfl": "bart", ".hdr": "bart",
    ".npy": "numpy", ".npz": "archive",
}  # fmt: skip
SCANS = ".h5 (fastMRI, Calgary-Campinas, ISMRMRD), .mrd, .cfl with .hdr, .npy, .npz, .mat"
PICTURES = ".h5, .nii, .nii.gz, .png, .dcm, or a folder without ending for a DICOM series"
SIMULATE = "k-space cannot be had from it; latentworks mri simulate makes up a scan of it"
PHOTOS = (b"\x89PNG", b"\xff\xd8\xff", b"II*\0", b"MM\0*", b"GIF8", b"BM")
ANALYZE = (348).to_bytes(4, "little"), (348).to_bytes(4, "big")
MASKS = ("mask",)
MAPS = fastmri.MAPS


def read_scan(
    path: Path, layout: str | None = None, mask: Path | None = None, maps: Path | None = None
) -> Scan:
    """Read multi-coil k-space on a Cartesian grid, of whatever format.

    Its content decides which that is, for BART's pairs its ending. A name of what is in an HDF5,
    ``.npz`` or ``.mat`` file may follow its path: ``scan.mat/ycart``.

    Args:
        path: The file.
        layout: Names of the axes of its array, where they are others; see `layout_of`.
        mask: A file with the mask: what the scan was sampled with or, of a full scan, what is to
            be kept of it.
        maps: A file with coil sensitivities.

    Raises:
        UserError: If it is no k-space, or something in it is missing, damaged or contradictory.
    """
    file, inside = _split(path)
    named = None if layout is None else layout_of(layout)
    scan = _read(file, inside, named, layout)
    if mask is not None:
        kspace, chosen = undersampled(mask, _array(mask, MASKS), scan.kspace)
        scan = replace(scan, kspace=kspace, mask=chosen)
    if maps is not None:
        sensitivities = maps_of(maps, "maps", _array(maps, MAPS), tuple(scan.kspace.shape))
        scan = replace(scan, maps=sensitivities)
    return scan


def _read(file: Path, inside: str, named: Layout | None, layout: str | None) -> Scan:
    kind = kind_of(file)
    if kind == "bart":
        return bart.read_scan(file, named)
    if kind == "numpy":
        return arrays.read_scan(file, named)
    if kind == "archive":
        return arrays.read_archive(file, named, inside or arrays.KSPACE)
    if kind == "matlab":
        return arrays.read_matlab(file, named, inside)
    form = "fastmri" if inside else _form(file)
    if form == "ismrmrd":
        return mrd.read_scan(file)
    if layout == CALGARY or (layout is None and form == "calgary"):
        return calgary.read_scan(file)
    return fastmri.read_scan(file, named, inside or fastmri.KSPACE)


def _form(path: Path) -> Form:
    """Return of which data set an HDF5 file is."""
    with hdf5.opened(path) as file:
        if mrd.group_of(file) is not None:
            return "ismrmrd"
        there = hdf5.datasets(file)
        if fastmri.KSPACE not in there and any(name in there for name in fastmri.PICTURES):
            raise UserError(
                f"{path}: no dataset 'kspace'; found {hdf5.listed(there)}, which are pictures; "
                "expected k-space; give the scan that they were made of"
            )
        node = hdf5.require(path, file, [fastmri.KSPACE])
        return "calgary" if calgary.looks_so(node.shape, node.dtype) else "fastmri"


def kind_of(path: Path) -> Kind:
    """Return how a file is stored.

    Raises:
        UserError: If there is none, it is empty, or it can hold no k-space; says why.
    """
    if path.is_dir():
        series = any(dicom.is_dicom(_start(one)) for one in path.rglob("*") if one.is_file())
        what = f"a folder of DICOM pictures; {SIMULATE}" if series else "a folder"
        raise UserError(f"{path}: {what}; expected a file of k-space: {SCANS}")
    ending = path.suffix.lower()
    if ending == ".cfl" or (not path.exists() and bart_pair(path)):
        return "bart"
    if not path.exists():
        raise UserError(f"{path}: no such file; expected one of k-space: {SCANS}")
    start = _start(path)
    if not start:
        raise UserError(f"{path}: empty; expected k-space: {SCANS}; copy it again")
    if hdf5.SIGNATURE in (start[:8], start[512:520]):
        return "matlab" if start.startswith(b"MATLAB") else "hdf5"
    if start.startswith(b"\x93NUMPY"):
        return "numpy"
    if start.startswith(b"PK"):
        return "archive"
    if start.startswith(b"MATLAB"):
        return "matlab"
    if ending == ".hdr" and start[:4] not in ANALYZE:
        return "bart"
    raise UserError(f"{path}: {_why_not(path, start, ending)}")


def bart_pair(path: Path) -> bool:
    """Say whether a name without ending is that of a pair of BART."""
    return path.with_name(path.name + ".cfl").is_file()


def _start(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(1024)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error


def _why_not(path: Path, start: bytes, ending: str) -> str:
    if dicom.is_dicom(start):
        return f"a DICOM picture of magnitude; {SIMULATE}; expected k-space: {SCANS}"
    if start[:4] in ANALYZE or path.name.lower().endswith((".nii", ".nii.gz")):
        return f"a NIfTI volume of magnitude; {SIMULATE}; expected k-space: {SCANS}"
    if start.startswith(PHOTOS):
        return f"a picture of magnitude; {SIMULATE}; expected k-space: {SCANS}"
    if ending in (".h5", ".hdf5", ".mrd"):
        return "no HDF5 file, although it ends so: damaged or of another format; copy it again"
    if ending in (".npy", ".npz", ".mat"):
        return (
            f"no {ending} file, although it ends so: damaged or of another format; copy it again"
        )
    return f"of no known format; expected k-space: {SCANS}"


def _split(path: Path) -> tuple[Path, str]:
    """Part a path from the name of what is inside the file."""
    if path.exists():
        return path, ""
    for parent in path.parents:
        if parent.is_file():
            return parent, path.relative_to(parent).as_posix()
    return path, ""


def _array(path: Path, names: tuple[str, ...]) -> NDArray[Any]:
    """Return a mask or maps, whatever they are stored in."""
    file, inside = _split(path)
    kind = kind_of(file)
    if kind == "bart":
        whole = bart.read_array(file)
        what = "mask" if names == MASKS else "maps"
        return bart.slices_of(file, whole, what)
    if kind == "numpy":
        return arrays.read_array(file)
    wanted = (inside,) if inside else names
    if kind == "hdf5":
        with hdf5.opened(file) as opened:
            return hdf5.values(file, hdf5.require(file, opened, wanted))
    there = arrays.archive_of(file) if kind == "archive" else arrays.variables_of(file)
    if len(there) == 1 and not inside:
        wanted = tuple(there)
    for name in wanted:
        if name in there:
            found = as_numbers(file, name, there[name])
            matlab = kind == "matlab" and found.ndim > 2
            return np.moveaxis(found, -1, 0) if matlab else found
    raise UserError(
        f"{file}: no {' or '.join(map(repr, wanted))}; found {arrays.words_of(there)}; name the "
        f"one that holds it: {file}/NAME"
    )


# Writing


def write(
    reconstruction: Reconstruction, path: Path, force: bool, keep_phi: bool = False
) -> list[Path]:
    """Write a picture and, if there are intervals, their half-widths.

    Args:
        reconstruction: The picture.
        path: Its ending says how: ``.h5``, ``.nii``, ``.nii.gz``, ``.png``, ``.dcm``; without one
            it is the folder of a DICOM series.
        force: Whether files that are there are replaced.
        keep_phi: Whether facts that identify somebody are written, in ``.h5`` and DICOM.

    Returns:
        The files.

    Raises:
        UserError: If the ending is another, or a file exists.
        RunFailed: If the disk is full or not writable.
    """
    name = path.name.lower()
    if name.endswith((".nii", ".nii.gz")):
        nifti.write(path, reconstruction, force)
        beside = [nifti.width_of(path)] if reconstruction.width is not None else []
        return [path, *beside]
    if name.endswith((".h5", ".hdf5")):
        fastmri.write(path, reconstruction, force, keep_phi)
        return [path]
    if name.endswith(".png"):
        return png.write(path, reconstruction, force)
    if not path.suffix or name.endswith(dicom.ENDING):
        return dicom.write(path, reconstruction, force, keep_phi)
    raise UserError(
        f"{path}: {path.suffix!r} is no ending that pictures are written in; expected {PICTURES}"
    )


def write_scan(
    scan: Scan, path: Path, force: bool, keep_phi: bool = False, form: Form | None = None
) -> tuple[str, ...]:
    """Write a scan, so that `read_scan` has the same k-space again.

    Args:
        scan: The scan.
        path: Its ending says how: ``.h5`` (fastMRI), ``.mrd`` (ISMRMRD), ``.cfl``, ``.npy``,
            ``.npz``.
        force: Whether files that are there are replaced.
        keep_phi: Whether facts that identify somebody are written.
        form: Instead of the ending, as several formats end in ``.h5``.

    Returns:
        What the scan has and the format no place for.

    Raises:
        UserError: If the ending is another, or a file exists.
        RunFailed: If the disk is full or not writable.
    """
    chosen = form or FORMS.get(path.suffix.lower())
    if chosen == "fastmri":
        return fastmri.write_scan(path, scan, force, keep_phi)
    if chosen == "ismrmrd":
        return mrd.write_scan(path, scan, force, keep_phi)
    if chosen == "calgary":
        return calgary.write_scan(path, scan, force)
    if chosen == "bart":
        return bart.write_scan(path, scan, force)
    if chosen == "numpy":
        return arrays.write_scan(path, scan, force)
    if chosen == "archive":
        return arrays.write_archive(path, scan, force)
    raise UserError(
        f"{path}: {path.suffix!r} is no ending that scans are written in; expected "
        f"{', '.join(FORMS)}, or a format: {', '.join(get_args(Form))}"
    )


def read_picture(path: Path) -> Reconstruction:
    """Read a picture that was written before, or the truth of a file of fastMRI.

    Args:
        path: ``.h5``, ``.nii`` or ``.nii.gz``.

    Raises:
        UserError: If it is no picture, or damaged.
    """
    file, inside = _split(path)
    if not file.is_file():
        what = "a folder" if file.is_dir() else "no such file"
        raise UserError(f"{file}: {what}; expected a picture: .h5, .nii or .nii.gz")
    if file.name.lower().endswith((".nii", ".nii.gz")):
        return nifti.read(file)
    if hdf5.SIGNATURE != _start(file)[:8]:
        raise UserError(
            f"{file}: no HDF5 file; expected a picture: .h5, .nii or .nii.gz; write it again"
        )
    return fastmri.read(file, inside or None)
