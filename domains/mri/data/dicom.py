"""Pictures as DICOM series of derived MR images, and series of magnitude as volumes.

Nobody can be told from what is written, unless it is asked for: UIDs are new, and of the facts of
a header only technical ones are written.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from core.runtime.errors import UserError
from core.runtime.folder import product_version
from domains.mri.data.fastmri import RESEARCH_ONLY
from domains.mri.data.headers import IDENTIFYING, TECHNICAL
from domains.mri.data.nifti import affine_of
from domains.mri.data.records import Affine, Reconstruction
from domains.mri.data.writing import whole, whole_folder

if TYPE_CHECKING:
    from nibabel.nifti1 import Nifti1Image
    from pydicom import Dataset

ENDING = ".dcm"
MR_IMAGE = "1.2.840.10008.5.1.4.1.1.4"
LEVELS = 2**16 - 1
RAS = np.diag([-1.0, -1.0, 1.0])  # from LPS, in which DICOM gives positions
NUMBERS = ("MagneticFieldStrength", "RepetitionTime", "EchoTime", "InversionTime", "FlipAngle",
           "PatientWeight")  # fmt: skip
EMPTY = ("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime",
         "AccessionNumber", "ReferringPhysicianName", "StudyID", "Manufacturer", "EchoTime",
         "RepetitionTime")  # fmt: skip
MARK = 128  # bytes before "DICM"


def write(path: Path, picture: Reconstruction, force: bool, keep_phi: bool = False) -> list[Path]:
    """Write a series, one file a slice; half-widths of intervals as a second series.

    Args:
        path: A folder that is made, or a file ``.dcm`` for a single slice without intervals.
        picture: The picture.
        force: Whether files of DICOM that are there are replaced.
        keep_phi: Whether facts of the header that identify somebody are written, and the name.

    Returns:
        The files.

    Raises:
        UserError: If a single file would have to hold several pictures, or something is there.
    """
    series = _series(picture, keep_phi)
    if path.suffix.lower() == ENDING:
        if len(series) > 1:
            raise UserError(
                f"{path}: one file; the picture has {len(picture.image)} slices"
                f"{' and intervals' if picture.width is not None else ''}, a file each; expected "
                f"a folder: {path.with_suffix('')}"
            )
        with whole([path], force) as (place,):
            next(iter(series.values())).save_as(place, enforce_file_format=True)
        return [path]
    with whole_folder(path, (ENDING,), force) as folder:
        for name, dataset in series.items():
            dataset.save_as(folder / name, enforce_file_format=True)
    return [path / name for name in series]


def _series(picture: Reconstruction, keep_phi: bool) -> dict[str, Dataset]:
    """Return datasets by the names of their files."""
    from pydicom.uid import generate_uid

    common = {"study": generate_uid(), "frame": generate_uid(), "keep_phi": keep_phi}
    found = _datasets(picture, picture.image.numpy(), "", 1, **common)
    if picture.width is not None:
        share = "" if picture.coverage is None else f" of {picture.coverage:.0%} intervals"
        words = f"half-width{share}"
        found |= _datasets(picture, picture.width.numpy(), words, 2, **common)
    return found


def _datasets(
    picture: Reconstruction,
    values: NDArray[np.float32],
    words: str,
    number: int,
    study: str,
    frame: str,
    keep_phi: bool,
) -> dict[str, Dataset]:
    from pydicom.uid import generate_uid

    series, slope = generate_uid(), (float(values.max(initial=0)) or 1.0) / LEVELS
    kind = "width" if words else "image"
    found = {}
    for place, one in enumerate(values):
        dataset = _new(generate_uid())
        dataset.StudyInstanceUID, dataset.SeriesInstanceUID = study, series
        dataset.FrameOfReferenceUID = frame
        dataset.SeriesNumber, dataset.InstanceNumber = number, place + 1
        _describe(dataset, picture, words)
        _identify(dataset, picture, keep_phi)
        _place(dataset, picture, place)
        _fill(dataset, one, slope)
        found[f"{kind}-{place + 1:04d}{ENDING}"] = dataset
    return found


def _new(uid: str) -> Dataset:
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import UID, ExplicitVRLittleEndian

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = UID(MR_IMAGE), UID(uid)
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = FileDataset("", {}, file_meta=meta, preamble=b"\0" * MARK)
    dataset.SOPClassUID, dataset.SOPInstanceUID = MR_IMAGE, uid
    dataset.SpecificCharacterSet = "ISO_IR 192"
    return dataset


def _describe(dataset: Dataset, picture: Reconstruction, words: str) -> None:
    """Say that it is derived, how, and that it is for research only."""
    made = f"latentworks {product_version()}, {picture.method or 'unknown method'}"
    dataset.Modality = "MR"
    dataset.ImageType = ["DERIVED", "SECONDARY", "OTHER"]
    dataset.SeriesDescription = f"{picture.method} {words}; research only".strip()[:64]
    dataset.DerivationDescription = f"reconstructed by {made}; {RESEARCH_ONLY}"
    dataset.ImageComments = f"{RESEARCH_ONLY.upper()}. {words}".strip()
    dataset.SoftwareVersions = made[:64]
    dataset.ScanningSequence, dataset.SequenceVariant = "RM", "NONE"  # research mode
    dataset.ScanOptions, dataset.MRAcquisitionType, dataset.EchoTrainLength = "", "", None
    dataset.PatientPosition = ""
    dataset.PositionReferenceIndicator = dataset.Laterality = ""


def _identify(dataset: Dataset, picture: Reconstruction, keep_phi: bool) -> None:
    """Copy technical facts, and identifying ones only if that is asked for."""
    for keyword in EMPTY:
        setattr(dataset, keyword, "")
    for keyword in (*TECHNICAL, *(IDENTIFYING if keep_phi else ())):
        value = picture.header.get(keyword)
        if value is not None and keyword != "StudyInstanceUID":
            _copy(dataset, keyword, value)
    study = picture.header.get("StudyInstanceUID")
    if keep_phi and study:
        dataset.StudyInstanceUID = str(study)
    if keep_phi:
        dataset.SeriesDescription = f"{picture.name} {dataset.SeriesDescription}"[:64]
    else:
        dataset.PatientIdentityRemoved = "YES"
        dataset.DeidentificationMethod = "written without identifying attributes"


def _copy(dataset: Dataset, keyword: str, value: str | float | int) -> None:
    if keyword.endswith(("Date", "Time")) and keyword not in NUMBERS:
        value = str(value).replace("-", "").replace(":", "")
    if keyword in NUMBERS:
        try:
            value = f"{float(value):.10g}"
        except ValueError:
            return
    setattr(dataset, keyword, str(value))


def _place(dataset: Dataset, picture: Reconstruction, place: int) -> None:
    """Say where a slice lies."""
    between, row, column = picture.spacing_mm
    linear, offset = _lps(affine_of(picture))
    along = linear / np.maximum(np.linalg.norm(linear, axis=0), 1e-12)
    position = offset + linear[:, 2] * place
    dataset.ImageOrientationPatient = [_short(one) for one in (*along[:, 0], *along[:, 1])]
    dataset.ImagePositionPatient = [_short(one) for one in position]
    dataset.PixelSpacing = [_short(row), _short(column)]
    dataset.SliceThickness = dataset.SpacingBetweenSlices = _short(between)
    dataset.SliceLocation = _short(float(position @ np.cross(along[:, 0], along[:, 1])))


def _lps(affine: Affine) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    return RAS @ affine[:3, :3], RAS @ affine[:3, 3]


def _short(value: float) -> str:
    """Return a number in the 16 characters that DICOM allows."""
    for digits in range(15, 5, -1):
        text = f"{float(value) + 0.0:.{digits}g}"
        if len(text) <= 16:
            return text
    return f"{float(value):.6g}"


def _fill(dataset: Dataset, values: NDArray[np.float32], slope: float) -> None:
    """Write pixels, 16 bits of a scale that is the same for all slices of a series."""
    text = _short(slope)
    levels = np.rint(np.clip(values / float(text), 0, LEVELS)).astype("<u2")
    dataset.Rows, dataset.Columns = levels.shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = 16
    dataset.HighBit, dataset.PixelRepresentation = 15, 0
    dataset.RescaleIntercept, dataset.RescaleSlope, dataset.RescaleType = "0", text, "US"
    top = LEVELS * float(text)
    dataset.WindowCenter, dataset.WindowWidth = _short(top / 2), _short(top)
    dataset.VOILUTFunction = "LINEAR_EXACT"  # others forbid windows narrower than 1
    dataset.PixelData = levels.tobytes()


# Reading magnitude


def is_dicom(start: bytes) -> bool:
    """Say whether a file that starts so is DICOM.

    Args:
        start: Its first 132 bytes at least.
    """
    return start[MARK : MARK + 4] == b"DICM"


def read_nifti(path: Path) -> Nifti1Image:
    """Read a file of magnitude, or a folder of a series, as a volume in memory.

    Args:
        path: A file of one or several frames, or a folder.

    Raises:
        UserError: If it cannot be read, or its pictures do not make up one volume.
    """
    import nibabel

    files = sorted(one for one in path.rglob("*") if one.is_file()) if path.is_dir() else [path]
    files = [one for one in files if is_dicom(_start(one))]
    if not files:
        raise UserError(f"{path}: no file of DICOM; expected a series of magnitude")
    planes = [plane for file in files for plane in _planes(file)]
    normal = np.cross(planes[0].orientation[:3], planes[0].orientation[3:])
    planes.sort(key=lambda plane: float(plane.position @ normal))
    _check_series(path, planes)
    values = np.stack([plane.values for plane in planes])
    return nibabel.Nifti1Image(  # pyright: ignore[reportPrivateImportUsage]
        values.transpose(2, 1, 0), _affine(planes, normal)
    )


class _Plane:
    """One picture of a series and where it lies.

    Args:
        values: Magnitude.
        position: Of its first pixel, in LPS.
        orientation: Directions of its columns' and its rows' indices.
        spacing: Of row, column, slice.
        series: Of which series it is.
    """

    def __init__(
        self, values: NDArray[np.float32], place: Any, spacing: Sequence[float], series: str
    ) -> None:
        self.values, self.series = values, series
        self.position = np.array([float(one) for one in place[0]])
        self.orientation = np.array([float(one) for one in place[1]])
        self.spacing = tuple(spacing)


def _start(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(MARK + 4)


def _planes(file: Path) -> list[_Plane]:
    import pydicom

    try:
        dataset = pydicom.dcmread(file)
        pixels = np.atleast_3d(dataset.pixel_array.T).T.astype(np.float32)
    except Exception as error:  # whatever a reader of damaged files raises
        why = " ".join(str(error).split())[:120] or type(error).__name__
        raise UserError(f"{file}: cannot be read as DICOM ({why}); copy it again") from error
    if int(dataset.get("SamplesPerPixel", 1)) != 1:
        raise UserError(f"{file}: a picture in colours; expected magnitude in grey")
    return [_plane(file, dataset, one, place) for place, one in enumerate(pixels)]


def _plane(file: Path, dataset: Dataset, values: NDArray[np.float32], place: int) -> _Plane:
    groups = [dataset.get("PerFrameFunctionalGroupsSequence"), None]
    frame = groups[0][place] if groups[0] else dataset
    shared = (dataset.get("SharedFunctionalGroupsSequence") or [dataset])[0]

    def look(group: str, keyword: str) -> Any:
        for where in (frame, shared):
            inner = where.get(group)
            if inner and keyword in inner[0]:
                return inner[0].get(keyword)
        return dataset.get(keyword)

    position = look("PlanePositionSequence", "ImagePositionPatient") or [0, 0, place]
    orientation = look("PlaneOrientationSequence", "ImageOrientationPatient") or [1, 0, 0, 0, 1, 0]
    row, column = look("PixelMeasuresSequence", "PixelSpacing") or [1, 1]
    between = (
        look("PixelMeasuresSequence", "SpacingBetweenSlices")
        or look("PixelMeasuresSequence", "SliceThickness")
        or 1
    )
    slope = float(look("PixelValueTransformationSequence", "RescaleSlope") or 1)
    intercept = float(look("PixelValueTransformationSequence", "RescaleIntercept") or 0)
    return _Plane(
        values * np.float32(slope) + np.float32(intercept),
        (position, orientation),
        (float(row), float(column), float(between)),
        str(dataset.get("SeriesInstanceUID", file.name)),
    )


def _check_series(path: Path, planes: Sequence[_Plane]) -> None:
    series = {plane.series for plane in planes}
    if len(series) > 1:
        raise UserError(
            f"{path}: {len(series)} series in one folder; expected one; give a folder of one"
        )
    shapes = {plane.values.shape for plane in planes}
    if len(shapes) > 1:
        raise UserError(
            f"{path}: pictures of {', '.join(map(str, sorted(shapes)))}; expected one shape; take "
            "out the others"
        )
    if any(not np.allclose(one.orientation, planes[0].orientation, atol=1e-3) for one in planes):
        raise UserError(
            f"{path}: pictures of several directions; expected parallel ones; give one stack"
        )


def _affine(planes: Sequence[_Plane], normal: NDArray[np.float64]) -> Affine:
    """Return the affine of a stack, to RAS+."""
    row, column, between = planes[0].spacing
    step = normal * between
    if len(planes) > 1:
        apart = (planes[-1].position - planes[0].position) / (len(planes) - 1)
        step = apart if np.linalg.norm(apart) > 0 else step
    affine = np.eye(4)
    affine[:3, 0] = RAS @ planes[0].orientation[:3] * column
    affine[:3, 1] = RAS @ planes[0].orientation[3:] * row
    affine[:3, 2] = RAS @ step
    affine[:3, 3] = RAS @ planes[0].position
    return affine
