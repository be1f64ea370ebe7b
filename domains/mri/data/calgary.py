"""HDF5 files of Calgary-Campinas: real numbers, coils as pairs along the last axis.

``kspace`` is (slice, height, width, coil*complex). The readout is a picture axis already, so that
each slice is a plane of two phase encodings. Its zero frequency is in the middle, but phases count
from the first pixel: ``numpy.fft.ifft2`` of it has the head in the middle. Pictures of its
challenge have the units of that transform, smaller by the root of the pixels than ours.

References:
    Souza et al., "An open, multi-vendor, multi-field-strength brain MR dataset and analysis of
    publicly available skull stripping methods agreement", NeuroImage 170, 2018.
    Beauferris et al., "Multi-Coil MRI Reconstruction Challenge", Frontiers in Neuroscience, 2022.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from domains.mri.data import hdf5
from domains.mri.data.axes import CALGARY, arranged, layout_of, parted, turned
from domains.mri.data.checks import kspace_of, sampled
from domains.mri.data.fastmri import KSPACE
from domains.mri.data.records import Scan
from domains.mri.data.sources import subject_of
from domains.mri.data.writing import whole

CONTRAST = "T1"  # of all scans in the data set
SPACING_MM = (1.0, 1.0, 1.0)


def looks_so(shape: tuple[int, ...], kind: np.dtype) -> bool:
    """Say whether a dataset can be k-space of this form: many pixels, few pairs of numbers."""
    return (
        kind.kind == "f"
        and len(shape) == 4
        and shape[3] % 2 == 0
        and 0 < shape[3] < min(shape[1], shape[2])
    )


def read_scan(path: Path) -> Scan:
    """Read a file of Calgary-Campinas.

    Raises:
        UserError: If something is missing or wrong; says what was found.
    """
    with hdf5.opened(path) as file:
        array = hdf5.values(path, hdf5.require(path, file, [KSPACE]))
        kspace = kspace_of(path, KSPACE, arranged(path, KSPACE, array, layout_of(CALGARY)))
        return Scan(
            name=path.stem,
            subject=subject_of(path.stem, {}),
            kspace=kspace,
            mask=sampled(kspace),
            spacing_mm=SPACING_MM,
            contrast=CONTRAST,
        )


def write_scan(path: Path, scan: Scan, force: bool) -> tuple[str, ...]:
    """Write k-space as Calgary-Campinas has it.

    Args:
        path: The file.
        scan: The scan.
        force: Whether a file that is there is replaced.

    Returns:
        What the scan has and the file has no place for; the mask is where it is not zero.
    """
    import h5py

    slices, coils, height, width = scan.kspace.shape
    with whole([path], force) as (place,), h5py.File(place, "w") as file:
        node = file.create_dataset(KSPACE, (slices, height, width, 2 * coils), np.float32)
        for index, one in enumerate(scan.kspace.numpy()):
            node[index] = parted(turned(one[None], inverse=True))[0]
    return left_out(scan, affine=False)


def left_out(
    scan: Scan, affine: bool, maps: bool = False, covariance: bool = False, spacing: bool = False
) -> tuple[str, ...]:
    """Return the names of what a scan has beside k-space and a format cannot hold.

    Args:
        scan: The scan.
        affine: Whether the format holds an affine.
        maps: Whether it holds maps.
        covariance: Whether it holds the covariance of the noise.
        spacing: Whether it holds the distances of pixels.
    """
    has = {
        "affine": scan.affine is not None and not affine,
        "maps": scan.maps is not None and not maps,
        "noise covariance": scan.noise_covariance is not None and not covariance,
        "spacing": scan.spacing_mm != SPACING_MM and not spacing,
        "target": scan.target is not None,
    }
    return tuple(name for name, absent in has.items() if absent)
