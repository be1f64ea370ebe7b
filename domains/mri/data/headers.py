"""What a header says of a scan: geometry, timing, and who it is of, which is kept apart.

Facts have the keywords of DICOM. Those in `IDENTIFYING` say who somebody is, and are written only
where that is asked for.
"""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from core.runtime.errors import UserError
from domains.mri.data.records import Scan

Facts = dict[str, str | float | int]
IDENTIFYING = (
    "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "PatientWeight",
    "InstitutionName", "StationName", "DeviceSerialNumber", "AccessionNumber", "StudyID",
    "StudyDate", "StudyTime", "SeriesDate", "ReferringPhysicianName", "StudyDescription",
    "StudyInstanceUID", "ProtocolName",
)  # fmt: skip
TECHNICAL = (
    "MagneticFieldStrength", "RepetitionTime", "EchoTime", "InversionTime", "FlipAngle",
    "Manufacturer", "ManufacturerModelName",
)  # fmt: skip
PICTURE_HEIGHT, PICTURE_WIDTH = "picture_height", "picture_width"  # to which pictures are cropped
PLACES = {  # of the schema of ISMRMRD
    "subjectInformation/patientName": "PatientName",
    "subjectInformation/patientID": "PatientID",
    "subjectInformation/patientBirthdate": "PatientBirthDate",
    "subjectInformation/patientGender": "PatientSex",
    "subjectInformation/patientWeight_kg": "PatientWeight",
    "studyInformation/studyDate": "StudyDate",
    "studyInformation/studyTime": "StudyTime",
    "studyInformation/studyID": "StudyID",
    "studyInformation/accessionNumber": "AccessionNumber",
    "studyInformation/referringPhysicianName": "ReferringPhysicianName",
    "studyInformation/studyDescription": "StudyDescription",
    "studyInformation/studyInstanceUID": "StudyInstanceUID",
    "measurementInformation/protocolName": "ProtocolName",
    "measurementInformation/seriesDate": "SeriesDate",
    "acquisitionSystemInformation/institutionName": "InstitutionName",
    "acquisitionSystemInformation/stationName": "StationName",
    "acquisitionSystemInformation/deviceSerialNumber": "DeviceSerialNumber",
    "acquisitionSystemInformation/systemVendor": "Manufacturer",
    "acquisitionSystemInformation/systemModel": "ManufacturerModelName",
    "acquisitionSystemInformation/systemFieldStrength_T": "MagneticFieldStrength",
    "sequenceParameters/TR": "RepetitionTime",
    "sequenceParameters/TE": "EchoTime",
    "sequenceParameters/TI": "InversionTime",
    "sequenceParameters/flipAngle_deg": "FlipAngle",
}


@dataclass(frozen=True, kw_only=True)
class Header:
    """What the XML of ISMRMRD says, which fastMRI's files have too.

    Args:
        encoded: Samples along readout, first and second phase encoding.
        encoded_mm: Field of view along these.
        pictured: Pixels of the pictures, of which oversampling is cut.
        trajectory: ``"cartesian"`` or another.
        first_centre: Index of the middle line of the first phase encoding, if it is told.
        second_centre: Of the second one.
        noise_bandwidth: Of the receiver, relative to its bandwidth.
        contrast: The name of the protocol or the series.
        facts: Everything else that a writer may want.
    """

    encoded: tuple[int, int, int]
    encoded_mm: tuple[float, float, float]
    pictured: tuple[int, int, int]
    trajectory: str
    first_centre: int | None = None
    second_centre: int | None = None
    noise_bandwidth: float = 1.0
    contrast: str = ""
    facts: Facts = field(default_factory=dict)


def parse(path: Path, text: str | bytes) -> Header:
    """Read the XML of ISMRMRD, of its first encoding.

    Raises:
        UserError: If it is no such XML.
    """
    try:
        root = ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        raise UserError(
            f"{path}: ISMRMRD header: no XML ({error}); expected an <ismrmrdHeader>; copy it again"
        ) from error
    for node in root.iter():
        node.tag = node.tag.rsplit("}", 1)[-1]
    return Header(
        encoded=_sizes(path, root, "encoding/encodedSpace/matrixSize"),
        encoded_mm=_lengths(path, root, "encoding/encodedSpace/fieldOfView_mm"),
        pictured=_sizes(path, root, "encoding/reconSpace/matrixSize"),
        trajectory=root.findtext("encoding/trajectory", "cartesian").strip().lower(),
        first_centre=_centre(path, root, "kspace_encoding_step_1"),
        second_centre=_centre(path, root, "kspace_encoding_step_2"),
        noise_bandwidth=_number(
            path, root, "acquisitionSystemInformation/relativeReceiverNoiseBandwidth", 1.0
        ),
        contrast=root.findtext("measurementInformation/seriesDescription", "").strip(),
        facts=_facts(root),
    )


def _facts(root: ElementTree.Element) -> Facts:
    found: Facts = {}
    for place, keyword in PLACES.items():
        value = root.findtext(place, "").strip()
        if value:
            found[keyword] = value if keyword in IDENTIFYING else _as_number(value)
    return found


def _as_number(value: str) -> str | float:
    try:
        return float(value)
    except ValueError:
        return value


def _sizes(path: Path, root: ElementTree.Element, place: str) -> tuple[int, int, int]:
    x, y, z = (int(_number(path, root, f"{place}/{axis}")) for axis in "xyz")
    return x, y, z


def _lengths(path: Path, root: ElementTree.Element, place: str) -> tuple[float, float, float]:
    x, y, z = (_number(path, root, f"{place}/{axis}") for axis in "xyz")
    return x, y, z


def _centre(path: Path, root: ElementTree.Element, name: str) -> int | None:
    found = _number(path, root, f"encoding/encodingLimits/{name}/center", -1.0)
    return None if found < 0 else int(found)


def _number(
    path: Path, root: ElementTree.Element, place: str, default: float | None = None
) -> float:
    text = root.findtext(place)
    if text is None and default is not None:
        return default
    try:
        return float(text or "")
    except ValueError as error:
        raise UserError(
            f"{path}: ISMRMRD header: <{place}> is {text!r}; expected a number; mend the header"
        ) from error


def without_identity(facts: Mapping[str, str | float | int]) -> Facts:
    """Return facts without those that say who somebody is."""
    return {name: value for name, value in facts.items() if name not in IDENTIFYING}


def xml_of(scan: Scan, keep_phi: bool) -> str:
    """Return the XML of ISMRMRD for 2-D slices: readout along the rows, phase along the columns.

    Args:
        scan: The scan.
        keep_phi: Whether facts that identify somebody are written.
    """
    slices, _, height, width = scan.kspace.shape
    between, row, column = scan.spacing_mm
    root = ElementTree.Element("ismrmrdHeader", xmlns="http://www.ismrm.org/ISMRMRD")
    facts = dict(scan.header) if keep_phi else without_identity(scan.header)
    _add_facts(root, facts, scan)
    encoding = ElementTree.SubElement(root, "encoding")
    pictured = (
        int(facts.get(PICTURE_HEIGHT, height)),
        int(facts.get(PICTURE_WIDTH, width)),
    )
    for name, (rows, columns) in (("encodedSpace", (height, width)), ("reconSpace", pictured)):
        space = ElementTree.SubElement(encoding, name)
        _triple(space, "matrixSize", (rows, columns, 1))
        _triple(space, "fieldOfView_mm", (rows * row, columns * column, between))
    limits = ElementTree.SubElement(encoding, "encodingLimits")
    _limit(limits, "kspace_encoding_step_0", height)
    _limit(limits, "kspace_encoding_step_1", width)
    _limit(limits, "slice", slices, centre=0)
    ElementTree.SubElement(encoding, "trajectory").text = "cartesian"
    _add_places(root, facts, ("sequenceParameters",))
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(root, "unicode")


def _add_facts(root: ElementTree.Element, facts: Facts, scan: Scan) -> None:
    """Add what stands before the encoding, in the order of the schema."""
    _add_places(root, facts, ("subjectInformation", "studyInformation"))
    measurement = ElementTree.SubElement(root, "measurementInformation")
    for name in ("seriesDate",):
        _add(measurement, name, facts.get("SeriesDate"))
    ElementTree.SubElement(measurement, "patientPosition").text = "HFS"
    _add(measurement, "protocolName", facts.get("ProtocolName"))
    _add(measurement, "seriesDescription", scan.contrast or None)
    system = "acquisitionSystemInformation"
    _add_places(root, facts, (system,))
    found = root.find(system)
    if found is None:
        found = ElementTree.SubElement(root, system)
    coils = ElementTree.Element("receiverChannels")
    coils.text = str(scan.kspace.shape[1])
    late = ("institutionName", "stationName", "deviceSerialNumber")
    first = next((place for place, node in enumerate(found) if node.tag in late), len(found))
    found.insert(first, coils)
    conditions = ElementTree.SubElement(root, "experimentalConditions")
    hertz = float(facts.get("MagneticFieldStrength", 0) or 0) * 42.577478518e6
    ElementTree.SubElement(conditions, "H1resonanceFrequency_Hz").text = str(round(hertz))


# Order of the schema within each part, where it is not that of `PLACES`.
SCHEMA_ORDER = {
    "subjectInformation": (
        "patientName", "patientWeight_kg", "patientID", "patientBirthdate", "patientGender",
    ),
    "studyInformation": (
        "studyDate", "studyTime", "studyID", "accessionNumber", "referringPhysicianName",
        "studyDescription", "studyInstanceUID",
    ),
    "acquisitionSystemInformation": (
        "systemVendor", "systemModel", "systemFieldStrength_T", "institutionName", "stationName",
        "deviceSerialNumber",
    ),
    "sequenceParameters": ("TR", "TE", "TI", "flipAngle_deg"),
}  # fmt: skip


def _add_places(root: ElementTree.Element, facts: Facts, parts: tuple[str, ...]) -> None:
    for part in parts:
        named = [(name, PLACES[f"{part}/{name}"]) for name in SCHEMA_ORDER[part]]
        present = [(name, facts[keyword]) for name, keyword in named if keyword in facts]
        if present:
            node = ElementTree.SubElement(root, part)
            for name, value in present:
                _add(node, name, value)


def _add(parent: ElementTree.Element, name: str, value: str | float | int | None) -> None:
    if value is not None:
        ElementTree.SubElement(parent, name).text = str(value)


def _triple(parent: ElementTree.Element, name: str, values: Sequence[float | int]) -> None:
    node = ElementTree.SubElement(parent, name)
    for axis, value in zip("xyz", values, strict=True):
        ElementTree.SubElement(node, axis).text = repr(value)


def _limit(parent: ElementTree.Element, name: str, count: int, centre: int | None = None) -> None:
    node = ElementTree.SubElement(parent, name)
    for word, value in (
        ("minimum", 0),
        ("maximum", count - 1),
        ("center", count // 2 if centre is None else centre),
    ):
        ElementTree.SubElement(node, word).text = str(value)
