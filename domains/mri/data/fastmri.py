"""HDF5 files of fastMRI, and ours of the same form with maps, noise and widths beside it.

``kspace`` is (slice, coil, height, width), or (slice, height, width) of a single coil; ``mask`` of
test files says which columns were sampled. References: Zbontar et al., "fastMRI: An Open Dataset
and Benchmarks for Accelerated MRI", 2018 (arXiv:1811.08839).
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from core.runtime.errors import UserError
from domains.mri.data import hdf5, headers
from domains.mri.data.axes import Layout, arranged
from domains.mri.data.checks import (
    Mask,
    check_complex,
    covariance_of,
    kspace_of,
    maps_of,
    mask_of,
    masked,
    picture_of,
    sampled,
)
from domains.mri.data.headers import Facts, Header
from domains.mri.data.records import Reconstruction, Scan
from domains.mri.data.sources import subject_of
from domains.mri.data.writing import whole

if TYPE_CHECKING:
    import h5py

KSPACE = "kspace"
TARGETS = ("reconstruction_rss", "reconstruction_esc", "target")
PICTURES = ("reconstruction", *TARGETS)
MAPS = ("maps", "sensitivity_map", "sensitivity_maps")
COVARIANCE = "noise_covariance"
RESEARCH_ONLY = "research only; not for diagnosis or treatment"
FACTS = "facts_"  # before the names of our own attributes


def read_scan(path: Path, layout: Layout | None = None, inside: str = KSPACE) -> Scan:
    """Read a file of fastMRI.

    Args:
        path: The file.
        layout: Of its k-space, where it is another.
        inside: The name of k-space in it.

    Raises:
        UserError: If something is missing or wrong; says what was found.
    """
    with hdf5.opened(path) as file:
        array = hdf5.values(path, hdf5.require(path, file, [inside]))
        kspace = kspace_of(path, inside, _arranged(path, inside, array, layout), layout is None)
        there = hdf5.datasets(file)
        mask = (
            _mask(path, hdf5.values(path, there["mask"]), kspace)
            if "mask" in there
            else sampled(kspace)
        )
        shape = tuple(kspace.shape)
        maps = next(
            (
                maps_of(path, name, hdf5.values(path, there[name]), shape)
                for name in MAPS
                if name in there
            ),
            None,
        )
        covariance = (
            covariance_of(path, COVARIANCE, hdf5.values(path, there[COVARIANCE]), shape[1])
            if COVARIANCE in there
            else None
        )
        header = _header(path, there)
        facts = dict(header.facts) if header else {}
        facts |= _attributes(file) | _pictured(there, header, shape)
        contrast = hdf5.text(file.attrs.get("acquisition", header.contrast if header else ""))
        patient = facts.get("PatientID")
        return Scan(
            name=path.stem,
            subject=str(patient or subject_of(path.stem, {})),
            kspace=masked(kspace, mask),
            mask=mask,
            maps=maps,
            target=_target(path, there, shape),
            noise_covariance=covariance,
            spacing_mm=_spacing(file, header, shape),
            affine=np.asarray(file.attrs["affine"]) if "affine" in file.attrs else None,
            contrast=contrast,
            header=facts,
        )


def _arranged(path: Path, field: str, array: NDArray[Any], layout: Layout | None) -> NDArray[Any]:
    if layout is not None:
        return arranged(path, field, array, layout)
    check_complex(path, field, array)
    return array[:, None] if array.ndim == 3 else array


def _mask(path: Path, array: NDArray[Any], kspace: torch.Tensor) -> Mask:
    """Read the mask of a test file; it may name columns that were never measured.

    fastMRI pads k-space with zeros to the left and right, of which its masks know nothing.
    """
    columns = (kspace != 0).flatten(0, 2).any(0).numpy()
    if array.shape[-1:] == columns.shape and array.dtype.kind in "biuf":
        found = np.flatnonzero(columns)
        array = array.copy()
        array[..., : found[0]] = 0
        array[..., found[-1] + 1 :] = 0
    return mask_of(path, "mask", array, kspace)


def _header(path: Path, there: dict[str, h5py.Dataset]) -> Header | None:
    if "ismrmrd_header" not in there:
        return None
    with hdf5.damage(path, "ismrmrd_header"):
        return headers.parse(path, hdf5.text(there["ismrmrd_header"][()]))


def _pictured(
    there: dict[str, h5py.Dataset], header: Header | None, shape: tuple[int, ...]
) -> Facts:
    """Return to which height and width pictures of this file are cropped, if they are."""
    shapes = [there[name].shape[1:] for name in TARGETS if name in there]
    shapes += [header.pictured[:2]] if header else []
    if not shapes or len(shapes[0]) != 2 or shapes[0] == shape[2:]:
        return {}
    return {headers.PICTURE_HEIGHT: int(shapes[0][0]), headers.PICTURE_WIDTH: int(shapes[0][1])}


def _target(
    path: Path, there: dict[str, h5py.Dataset], shape: tuple[int, ...]
) -> torch.Tensor | None:
    """Return the truth if it has the matrix of k-space; fastMRI's own is cropped."""
    for name in TARGETS:
        if name in there and there[name].shape == (shape[0], *shape[2:]):
            return picture_of(path, name, hdf5.values(path, there[name]))
    return None


def _spacing(
    file: h5py.File, header: Header | None, shape: tuple[int, ...]
) -> tuple[float, float, float]:
    if "spacing_mm" in file.attrs:
        between, row, column = (float(one) for one in np.asarray(file.attrs["spacing_mm"]))
        return between, row, column
    if header is None:
        return (1.0, 1.0, 1.0)
    height, width, thickness = header.encoded_mm
    return thickness, height / shape[2], width / shape[3]


def _attributes(file: h5py.File) -> Facts:
    """Return what the attributes of a file say."""
    facts: Facts = {}
    for name, value in file.attrs.items():
        if name == "patient_id":
            facts["PatientID"] = hdf5.text(value)
        elif name in ("max", "norm", "acceleration", "num_low_frequency"):
            facts[name] = _number(value)
        elif name.startswith(FACTS):
            facts[name.removeprefix(FACTS)] = (
                hdf5.text(value) if isinstance(value, str | bytes) else np.asarray(value).item()
            )
    return facts


def _number(value: object) -> float:
    return float(np.asarray(value).reshape(-1)[0])


def write_scan(path: Path, scan: Scan, force: bool, keep_phi: bool = False) -> tuple[str, ...]:
    """Write a scan as fastMRI has it, multi-coil, with everything that we know beside it.

    Args:
        path: The file.
        scan: The scan.
        force: Whether a file that is there is replaced.
        keep_phi: Whether facts that identify somebody are written.

    Returns:
        What the file has no place for: nothing.
    """
    import h5py

    with whole([path], force) as (place,), h5py.File(place, "w") as file:
        file[KSPACE] = scan.kspace.numpy()
        mask = scan.mask.numpy()
        columns = mask[0, :1]
        by_columns = len(mask) == 1 and bool((mask[0] == columns).all())
        file["mask"] = columns[0] if by_columns else mask
        file["ismrmrd_header"] = headers.xml_of(scan, keep_phi)
        for name, value in (
            (TARGETS[0], scan.target),
            (MAPS[0], scan.maps),
            (COVARIANCE, scan.noise_covariance),
        ):
            if value is not None:
                file[name] = value.numpy()
        _write_attributes(file, scan, keep_phi)
    return ()


def _write_attributes(file: h5py.File, scan: Scan, keep_phi: bool) -> None:
    attributes = file.attrs
    attributes["acquisition"] = scan.contrast
    attributes["spacing_mm"] = scan.spacing_mm
    if scan.affine is not None:
        attributes["affine"] = scan.affine
    if keep_phi:
        attributes["patient_id"] = scan.subject
    if scan.target is not None:
        attributes["max"] = float(scan.target.max())
        attributes["norm"] = float(torch.linalg.vector_norm(scan.target))
    for name, value in headers.without_identity(scan.header).items():
        if name in ("acceleration", "num_low_frequency", "max", "norm"):
            attributes[name] = value
        elif name not in headers.TECHNICAL:
            attributes[FACTS + name] = value


# Pictures


def write(path: Path, picture: Reconstruction, force: bool, keep_phi: bool = False) -> None:
    """Write a picture as ``reconstruction``, and half the width of its intervals as ``width``.

    Args:
        path: The file.
        picture: The picture.
        force: Whether a file that is there is replaced.
        keep_phi: Whether facts that identify somebody are written.
    """
    import h5py

    facts = dict(picture.header) if keep_phi else headers.without_identity(picture.header)
    with whole([path], force) as (place,), h5py.File(place, "w") as file:
        file["reconstruction"] = picture.image.numpy()
        if picture.width is not None:
            file["width"] = picture.width.numpy()
        attributes = file.attrs
        attributes["method"] = picture.method
        attributes["note"] = RESEARCH_ONLY
        attributes["spacing_mm"] = picture.spacing_mm
        if picture.affine is not None:
            attributes["affine"] = picture.affine
        if picture.coverage is not None:
            attributes["coverage"] = picture.coverage
        for name, value in facts.items():
            attributes[FACTS + name] = value


def read(path: Path, inside: str | None = None) -> Reconstruction:
    """Read a picture: ``reconstruction``, or the truth of a file of fastMRI.

    Args:
        path: The file.
        inside: The name of the picture in it.

    Raises:
        UserError: If there is none, or it is no picture.
    """
    with hdf5.opened(path) as file:
        node = hdf5.require(path, file, [inside] if inside else PICTURES)
        name = str(node.name).lstrip("/")
        image = picture_of(path, name, hdf5.values(path, node))
        there = hdf5.datasets(file)
        width = None
        if "width" in there and name == PICTURES[0]:
            width = picture_of(path, "width", hdf5.values(path, there["width"]))
            if width.shape != image.shape:
                raise UserError(
                    f"{path}: width: shape {tuple(width.shape)}; expected that of "
                    f"'reconstruction', {tuple(image.shape)}; write the file again"
                )
        attributes = file.attrs
        made = Reconstruction(
            name=path.stem,
            method=hdf5.text(attributes.get("method", "")),
            image=image,
            width=width,
            coverage=_number(attributes["coverage"]) if "coverage" in attributes else None,
            affine=np.asarray(attributes["affine"]) if "affine" in attributes else None,
            header=_attributes(file),
        )
        return replace(made, spacing_mm=_spacing(file, None, (1, 1, *image.shape[1:])))
