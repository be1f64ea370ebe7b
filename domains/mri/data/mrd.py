"""HDF5 files of ISMRMRD (MRD 1): a header of XML and readouts of all coils, one a row.

Readouts on a Cartesian grid become the rows' direction of slices, phase encodings their columns.
3-D scans are transformed along the readout, so that slices are planes of two phase encodings.
Noise readouts become the covariance of the noise of a sample.

References:
    Inati et al., "ISMRM Raw data format: A proposed standard for MRI raw datasets", Magnetic
    Resonance in Medicine 77, 2017.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Complex64
from numpy.typing import NDArray
from torch import Tensor

from core.runtime.errors import UserError
from domains.mri.data import hdf5, headers
from domains.mri.data.axes import along_readout
from domains.mri.data.calgary import left_out
from domains.mri.data.checks import kspace_of, sampled
from domains.mri.data.headers import Header
from domains.mri.data.records import Affine, Scan
from domains.mri.data.sources import subject_of
from domains.mri.data.writing import whole

if TYPE_CHECKING:
    import h5py

GROUP = "dataset"
# Bits of flags are counted from 1.
NOISE, CALIBRATION, REVERSE, LAST_IN_SLICE, LAST = 19, 20, 22, 8, 25
OTHER = (23, 24, 26, 27, 28, 29, 30, 31)  # navigators, phase correction, dummies, feedback, …
SINGLE = ("contrast", "phase", "repetition", "set")
RAS = np.diag([-1.0, -1.0, 1.0])  # from LPS, in which positions are given


def group_of(file: h5py.File) -> str | None:
    """Return the name of the group of an ISMRMRD data set in a file, if there is one."""
    import h5py

    for name in (GROUP, *file):
        node = file.get(name)
        if isinstance(node, h5py.Group) and {"xml", "data"} <= set(node):
            return name
    return None


def read_scan(path: Path) -> Scan:
    """Read a Cartesian scan.

    Raises:
        UserError: If it is of another trajectory, of several contrasts or repetitions, or damaged.
    """
    with hdf5.opened(path) as file:
        group = group_of(file)
        if group is None:
            raise UserError(
                f"{path}: no ISMRMRD data set with 'xml' and 'data'; found "
                f"{hdf5.listed(hdf5.datasets(file))}; copy it again"
            )
        with hdf5.damage(path, group):
            text = hdf5.text(file[f"{group}/xml"][()])  # pyright: ignore
            rows = np.asarray(file[f"{group}/data"][()])  # pyright: ignore
    header = headers.parse(path, text)
    if header.trajectory != "cartesian":
        raise UserError(
            f"{path}: trajectory {header.trajectory!r}; expected 'cartesian'; grid it first, for "
            "example with bart nufft"
        )
    return _scan(path, header, _Readouts(path, rows))


class _Readouts:
    """The readouts of a file, by what they are for.

    Args:
        path: Of the file.
        rows: As they lie in it.
    """

    def __init__(self, path: Path, rows: NDArray[Any]) -> None:
        self.path = path
        head = rows["head"] if rows.dtype.names and "head" in rows.dtype.names else None
        if head is None or not len(rows):
            raise UserError(f"{path}: no readouts; expected one at least; copy it again")
        flags = head["flags"].astype(np.uint64)
        noise = _has(flags, NOISE)
        useful = ~noise & ~np.any([_has(flags, bit) for bit in OTHER], 0)
        self.noise = rows[noise]
        calibrating = _has(flags, CALIBRATION)
        self.calibration, self.imaging = rows[useful & calibrating], rows[useful & ~calibrating]
        if not len(self.imaging):
            raise UserError(
                f"{path}: {len(rows)} readouts, none of a picture; expected some; copy it again"
            )
        if _has(self.imaging["head"]["flags"], REVERSE).any():
            raise UserError(
                f"{path}: readouts in both directions (EPI); expected one direction; correct "
                "their phase and turn them first"
            )

    @property
    def coils(self) -> int:
        """Of every readout of the picture."""
        rows = np.concatenate([self.calibration, self.imaging])
        found = set(rows["head"]["active_channels"].tolist())
        if len(found) > 1:
            raise UserError(
                f"{self.path}: readouts of {', '.join(map(str, sorted(found)))} coils; expected "
                "one number; split the file"
            )
        return found.pop()

    def check_single(self) -> None:
        """Refuse what would be several pictures."""
        for name in SINGLE:
            found = np.unique(self.imaging["head"]["idx"][name])
            if len(found) > 1:
                raise UserError(
                    f"{self.path}: {len(found)} values of {name!r}; expected one picture of each "
                    "slice; split the file by it"
                )

    def slices(self) -> list[Any]:
        """Return the first header of each slice, in the order of their positions.

        Where positions are not told, in the order of their indices.
        """
        head = self.imaging["head"]
        _, first = np.unique(head["idx"]["slice"], return_index=True)
        found = [head[index] for index in first]
        along = [float(one["position"] @ found[0]["slice_dir"]) for one in found]
        told = len(set(along)) == len(along)
        return [found[place] for place in np.argsort(along)] if told else found

    def samples(self, row: Any) -> NDArray[np.complex64]:
        """Return (coil, sample) of one readout."""
        head = row["head"]
        shape = int(head["active_channels"]), int(head["number_of_samples"])
        flat = np.asarray(row["data"], np.float32)
        if flat.size != 2 * shape[0] * shape[1]:
            raise UserError(
                f"{self.path}: readout {int(head['scan_counter'])}: {flat.size} numbers; expected "
                f"{2 * shape[0] * shape[1]} for {shape[0]} coils and {shape[1]} samples; copy it "
                "again"
            )
        return flat.view(np.complex64).reshape(shape)


def _has(flags: Any, bit: int) -> Any:
    return (np.asarray(flags, np.uint64) >> np.uint64(bit - 1)) & np.uint64(1) == 1


def _scan(path: Path, header: Header, readouts: _Readouts) -> Scan:
    readouts.check_single()
    slices = readouts.slices()
    grid = _gridded(header, readouts, slices)
    solid = grid.shape[-1] > 1
    if solid and len(slices) > 1:
        raise UserError(
            f"{path}: a 3-D scan of {len(slices)} slabs; expected one; split the file by slice"
        )
    ordered = along_readout(grid[0].swapaxes(0, 1)) if solid else grid[..., 0]
    kspace = kspace_of(path, "readouts", ordered)
    spacing, affine = _geometry(header, slices, solid)
    return Scan(
        name=path.stem,
        subject=str(header.facts.get("PatientID") or subject_of(path.stem, {})),
        kspace=kspace,
        mask=sampled(kspace),
        noise_covariance=_covariance(header, readouts),
        spacing_mm=spacing,
        affine=affine,
        contrast=header.contrast,
        header=header.facts | _pictured(header, solid),
    )


def _pictured(header: Header, solid: bool) -> headers.Facts:
    plane = slice(1, 3) if solid else slice(2)
    height, width = header.pictured[plane]
    if (height, width) == header.encoded[plane] or min(height, width) < 1:
        return {}
    return {headers.PICTURE_HEIGHT: height, headers.PICTURE_WIDTH: width}


def _gridded(header: Header, readouts: _Readouts, slices: Sequence[Any]) -> NDArray[np.complex64]:
    """Return (slice, coil, readout, first phase, second phase), repeated lines averaged."""
    places = {int(one["idx"]["slice"]): place for place, one in enumerate(slices)}
    shape = len(slices), readouts.coils, *header.encoded
    lines = (len(slices), *header.encoded[1:])
    grid = np.zeros(shape, np.complex64)
    for rows in (readouts.calibration, readouts.imaging):
        counts = np.zeros(lines, np.int64)
        for row in rows:
            first, second = _line(readouts.path, header, row)
            line = places[int(row["head"]["idx"]["slice"])], first, second
            samples, start = _samples(header, readouts, row)
            place = grid[line[0], :, :, first, second]
            if not counts[line]:
                place[:] = 0
            place[:, start : start + samples.shape[1]] += samples
            counts[line] += 1
        with np.errstate(invalid="ignore"):  # what is not finite is told later
            grid /= np.maximum(counts, 1)[:, None, None]
    return grid


def _line(path: Path, header: Header, row: Any) -> tuple[int, int]:
    """Return where among the lines of the grid a readout belongs."""
    found = []
    for name, size, centre in (
        ("kspace_encode_step_1", header.encoded[1], header.first_centre),
        ("kspace_encode_step_2", header.encoded[2], header.second_centre),
    ):
        step = int(row["head"]["idx"][name])
        middle = size // 2
        place = step - (middle if centre is None else centre) + middle
        if not 0 <= place < size:
            raise UserError(
                f"{path}: readout {int(row['head']['scan_counter'])}: {name} {step} with the "
                f"middle at {centre}; expected one of the {size} lines that the header names; "
                "mend <encodingLimits>"
            )
        found.append(place)
    return found[0], found[1]


def _samples(header: Header, readouts: _Readouts, row: Any) -> tuple[NDArray[np.complex64], int]:
    """Return the samples of a readout that count, and where the first belongs."""
    head = row["head"]
    before, after = int(head["discard_pre"]), int(head["discard_post"])
    samples = readouts.samples(row)
    samples = samples[:, before : samples.shape[1] - after]
    size = header.encoded[0]
    start = size // 2 - (int(head["center_sample"]) - before)
    if start < 0 or start + samples.shape[1] > size:
        raise UserError(
            f"{readouts.path}: readout {int(head['scan_counter'])}: {samples.shape[1]} samples "
            f"with the middle at {int(head['center_sample'])}; expected them to fit into the "
            f"{size} that the header names; mend <encodedSpace>"
        )
    return samples, start


def _geometry(
    header: Header, slices: Sequence[Any], solid: bool
) -> tuple[tuple[float, float, float], Affine | None]:
    """Return distances of slice, row, column, and the affine if directions are told."""
    x, y, z = (
        length / max(size, 1)
        for length, size in zip(header.encoded_mm, header.encoded, strict=True)
    )
    read, phase, across = (
        np.asarray(slices[0][name], np.float64) for name in ("read_dir", "phase_dir", "slice_dir")
    )
    places = np.array([one["position"] for one in slices], np.float64)
    if len(slices) > 1 and not solid:
        apart = abs(float((places[-1] - places[0]) @ across)) / (len(slices) - 1)
        z = apart if apart > 0 else z
    if solid:
        spacing, axes = (x, y, z), (across, phase, read)
        middle = np.array([header.encoded[2] // 2, header.encoded[1] // 2, header.encoded[0] // 2])
    else:
        spacing, axes = (z, x, y), (phase, read, across)
        middle = np.array([header.encoded[1] // 2, header.encoded[0] // 2, 0])
    directions = np.stack(axes, 1)
    if not np.allclose(directions.T @ directions, np.eye(3), atol=1e-3):
        return spacing, None
    affine = np.eye(4)
    affine[:3, :3] = RAS @ directions * np.array(spacing[::-1])
    affine[:3, 3] = RAS @ places[0] - affine[:3, :3] @ middle
    return spacing, affine


def _covariance(header: Header, readouts: _Readouts) -> Complex64[Tensor, "coil coil"] | None:
    """Return the covariance of the noise of a sample of the picture.

    Noise readouts have another bandwidth, to which the variance is proportional.
    """
    if not len(readouts.noise):
        return None
    coils = set(readouts.noise["head"]["active_channels"].tolist())
    if coils != {readouts.coils}:
        raise UserError(
            f"{readouts.path}: noise of {', '.join(map(str, sorted(coils)))} coils; expected "
            f"{readouts.coils} as in the picture; take the noise out"
        )
    noise = np.concatenate([readouts.samples(row) for row in readouts.noise], 1)
    noise = noise.astype(np.complex128)
    covariance = noise @ noise.conj().T / noise.shape[1]
    own, other = (
        float(rows["head"]["sample_time_us"][0]) for rows in (readouts.imaging, readouts.noise)
    )
    if own > 0 and other > 0:
        covariance *= other / (own * header.noise_bandwidth)
    return torch.from_numpy(covariance.astype(np.complex64))


# Writing


def write_scan(path: Path, scan: Scan, force: bool, keep_phi: bool = False) -> tuple[str, ...]:
    """Write 2-D slices, one readout along the rows for every sampled column.

    The covariance of the noise is written as a noise readout of just that covariance.

    Args:
        path: The file.
        scan: The scan.
        force: Whether a file that is there is replaced.
        keep_phi: Whether facts that identify somebody are written.

    Returns:
        What the scan has and the file has no place for.
    """
    import h5py

    rows = _rows(scan)
    with whole([path], force) as (place,), h5py.File(place, "w") as file:
        group = file.create_group(GROUP)
        node = group.create_dataset("xml", (1,), h5py.special_dtype(vlen=bytes))
        node[0] = headers.xml_of(scan, keep_phi).encode()
        group.create_dataset("data", data=rows, maxshape=(None,), chunks=True)
    return left_out(scan, affine=True, covariance=True, spacing=True)


def _rows(scan: Scan) -> NDArray[Any]:
    from ismrmrd.hdf5 import acquisition_dtype

    kspace = scan.kspace.numpy()
    columns = scan.mask.any(1).expand(len(kspace), -1).numpy()
    lines = np.argwhere(columns)
    noise = [] if scan.noise_covariance is None else [_noise_of(scan.noise_covariance.numpy())]
    rows = np.zeros(len(lines) + len(noise), acquisition_dtype)
    for place, samples in enumerate(noise):
        _set(rows[place], place, samples)
        rows[place]["head"]["flags"] = 1 << (NOISE - 1)
    for place, (index, column) in enumerate(lines, len(noise)):
        row, samples = rows[place], kspace[index, :, :, column]
        _set(row, place, samples)
        head = row["head"]
        head["center_sample"] = samples.shape[1] // 2
        head["idx"]["kspace_encode_step_1"], head["idx"]["slice"] = column, index
        _set_geometry(head, scan, int(index))
        if place + 1 == len(rows) or lines[place - len(noise) + 1][0] != index:
            head["flags"] = 1 << (LAST_IN_SLICE - 1)
    rows[-1]["head"]["flags"] |= np.uint64(1 << (LAST - 1))
    return rows


def _set(row: Any, place: int, samples: NDArray[np.complex64]) -> None:
    head = row["head"]
    head["version"], head["scan_counter"] = 1, place
    head["active_channels"] = head["available_channels"] = samples.shape[0]
    head["number_of_samples"] = samples.shape[1]
    row["data"] = np.ascontiguousarray(samples, np.complex64).view(np.float32).ravel()
    row["traj"] = np.zeros(0, np.float32)


def _set_geometry(head: Any, scan: Scan, index: int) -> None:
    if scan.affine is None:
        return
    height, width = scan.kspace.shape[2:]
    linear = RAS @ scan.affine[:3, :3]
    phase, read, across = (linear / np.linalg.norm(linear, axis=0)).T
    head["read_dir"], head["phase_dir"], head["slice_dir"] = read, phase, across
    middle = np.array([width // 2, height // 2, index, 1.0])
    head["position"] = RAS @ (scan.affine @ middle)[:3]


def _noise_of(covariance: NDArray[np.complex64]) -> NDArray[np.complex64]:
    """Return samples whose covariance is just this one, also if it is not of full rank."""
    values, vectors = np.linalg.eigh(covariance.astype(np.complex128))
    return (vectors * np.sqrt(np.maximum(values, 0) * len(values))).astype(np.complex64)
