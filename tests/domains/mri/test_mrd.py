from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import ismrmrd
import numpy as np
import pytest
import torch

from core.runtime.errors import UserError
from domains.mri.data.formats import read_scan, write_scan
from domains.mri.data.headers import xml_of
from domains.mri.data.records import Scan

AFFINE = np.array([[0, -2.0, 0, 10], [1.5, 0, 0, -7], [0, 0, 3.0, 4], [0, 0, 0, 1]])
HEADER = """<ismrmrdHeader xmlns="http://www.ismrm.org/ISMRMRD"><experimentalConditions>
<H1resonanceFrequency_Hz>0</H1resonanceFrequency_Hz></experimentalConditions><encoding>
<encodedSpace><matrixSize><x>{x}</x><y>{y}</y><z>{z}</z></matrixSize>
<fieldOfView_mm><x>24</x><y>10</y><z>5</z></fieldOfView_mm></encodedSpace>
<reconSpace><matrixSize><x>{x}</x><y>{y}</y><z>{z}</z></matrixSize>
<fieldOfView_mm><x>24</x><y>10</y><z>5</z></fieldOfView_mm></reconSpace>
<encodingLimits><kspace_encoding_step_1><minimum>0</minimum><maximum>{last}</maximum>
<center>{centre}</center></kspace_encoding_step_1></encodingLimits>
<trajectory>{trajectory}</trajectory></encoding></ismrmrdHeader>"""


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    return (random.normal(size=shape) + 1j * random.normal(size=shape)).astype(np.complex64)


def scan_of(kspace: np.ndarray, **more: Any) -> Scan:
    mask = torch.ones(1, *kspace.shape[2:], dtype=torch.bool)
    return Scan(name="a", subject="a", kspace=torch.from_numpy(kspace), mask=mask, **more)


def written(
    path: Path,
    rows: list[tuple[np.ndarray, dict[str, Any]]],
    size: tuple[int, int, int],
    centre: int | None = None,
    trajectory: str = "cartesian",
) -> Path:
    """Write readouts with the library of ISMRMRD; each with its counters and other facts."""
    x, y, z = size
    middle = y // 2 if centre is None else centre
    text = HEADER.format(x=x, y=y, z=z, last=y - 1, centre=middle, trajectory=trajectory)
    with ismrmrd.Dataset(str(path)) as file:
        file.write_xml_header(text.encode())
        for samples, facts in rows:
            row = ismrmrd.Acquisition.from_array(samples)
            row.center_sample = facts.pop("center_sample", samples.shape[1] // 2)
            for flag in facts.pop("flags", ()):
                row.setFlag(flag)
            for name, value in facts.items():
                setattr(row if hasattr(row, name) else row.idx, name, value)
            file.append_acquisition(row)
    return path


def lines(kspace: np.ndarray, **facts: Any) -> list[tuple[np.ndarray, dict[str, Any]]]:
    """Return readouts of (coil, readout, phase) k-space."""
    return [
        (kspace[..., step].copy(), {"kspace_encode_step_1": step, **facts})
        for step in range(kspace.shape[-1])
    ]


def test_what_we_write_is_valid_and_reads_with_the_library_of_ismrmrd(tmp_path: Path) -> None:
    facts = {
        "PatientName": "Doe", "PatientID": "p7", "PatientBirthDate": "1970-01-31",
        "PatientSex": "F", "PatientWeight": "70.5", "StudyDate": "2020-02-03", "StudyID": "s",
        "InstitutionName": "here", "Manufacturer": "x", "MagneticFieldStrength": 1.5,
        "RepetitionTime": 500.0, "EchoTime": 10.0, "FlipAngle": 90.0, "ProtocolName": "t1",
    }  # fmt: skip
    scan = scan_of(noise(2, 3, 6, 5), header=facts, contrast="T1", spacing_mm=(3.0, 2.0, 1.5))
    header = ismrmrd.xsd.CreateFromDocument(xml_of(scan, keep_phi=True))
    assert header.subjectInformation.patientName == "Doe"
    assert header.encoding[0].encodedSpace.matrixSize.y == 5
    assert header.acquisitionSystemInformation.receiverChannels == 3
    assert header.experimentalConditions.H1resonanceFrequency_Hz == 63866218
    write_scan(scan, tmp_path / "a.mrd", force=False, keep_phi=True)
    with ismrmrd.Dataset(str(tmp_path / "a.mrd"), mode="r") as file:
        ismrmrd.xsd.CreateFromDocument(file.read_xml_header())
        assert file.number_of_acquisitions() == 10
        row = file.read_acquisition(7)
        assert (row.idx.slice, row.idx.kspace_encode_step_1, row.center_sample) == (1, 2, 3)
        np.testing.assert_array_equal(row.data, scan.kspace[1, :, :, 2].numpy())
    back = read_scan(tmp_path / "a.mrd")
    assert back.header == facts
    assert (back.contrast, back.subject) == ("T1", "p7")
    assert back.spacing_mm == pytest.approx((3.0, 2.0, 1.5))


def test_position_and_directions_come_back_as_the_affine(tmp_path: Path) -> None:
    scan = scan_of(noise(3, 1, 6, 5), affine=AFFINE, spacing_mm=(3.0, 2.0, 1.5))
    write_scan(scan, tmp_path / "a.mrd", force=False)
    np.testing.assert_allclose(read_scan(tmp_path / "a.mrd").affine, AFFINE, atol=1e-5)


def test_the_covariance_of_the_noise_comes_back(tmp_path: Path) -> None:
    root = noise(3, 3).astype(np.complex128)
    covariance = torch.from_numpy((root @ root.conj().T).astype(np.complex64))
    scan = scan_of(noise(1, 3, 6, 5), noise_covariance=covariance)
    write_scan(scan, tmp_path / "a.mrd", force=False)
    found = read_scan(tmp_path / "a.mrd").noise_covariance
    torch.testing.assert_close(found, covariance, rtol=1e-5, atol=1e-5)


def test_noise_readouts_become_a_covariance_of_the_picture_bandwidth(tmp_path: Path) -> None:
    kspace, silence = noise(2, 6, 4), noise(2, 50, seed=1)
    rows = [(silence.copy(), {"flags": [ismrmrd.ACQ_IS_NOISE_MEASUREMENT], "sample_time_us": 5.0})]
    path = written(tmp_path / "a.h5", rows + lines(kspace, sample_time_us=2.5), (6, 4, 1))
    scan = read_scan(path)
    np.testing.assert_array_equal(scan.kspace[0].numpy(), kspace)
    expected = 2 * silence @ silence.conj().T / 50
    np.testing.assert_allclose(scan.noise_covariance.numpy(), expected, rtol=1e-5, atol=1e-6)


def test_lines_that_are_no_picture_are_left_out(tmp_path: Path) -> None:
    kspace = noise(1, 6, 4)
    junk = lines(100 * kspace, flags=[ismrmrd.ACQ_IS_PHASECORR_DATA])
    path = written(tmp_path / "a.h5", lines(kspace) + junk, (6, 4, 1))
    np.testing.assert_array_equal(read_scan(path).kspace[0].numpy(), kspace)


def test_calibration_fills_lines_that_the_picture_has_not(tmp_path: Path) -> None:
    kspace = noise(1, 6, 4)
    calibration = lines(kspace * 2, flags=[ismrmrd.ACQ_IS_PARALLEL_CALIBRATION])
    path = written(tmp_path / "a.h5", lines(kspace)[::2] + calibration[1:3], (6, 4, 1))
    found = read_scan(path)
    kspace[..., 1] *= 2
    kspace[..., 3] = 0
    np.testing.assert_array_equal(found.kspace[0].numpy(), kspace)
    assert found.mask[0].any(0).tolist() == [True, True, True, False]


def test_repeated_lines_are_averaged(tmp_path: Path) -> None:
    first, second = noise(1, 6, 4), noise(1, 6, 4, seed=1)
    path = written(tmp_path / "a.h5", lines(first) + lines(second, average=1), (6, 4, 1))
    np.testing.assert_allclose(
        read_scan(path).kspace[0].numpy(), (first + second) / 2, rtol=1e-6, atol=1e-7
    )


def test_partial_echoes_and_lines_are_put_around_the_middle(tmp_path: Path) -> None:
    kspace = noise(1, 5, 3)  # of a grid of 8 x 6; its middle is sample 1, line 0
    rows = lines(kspace, center_sample=1)
    found = read_scan(written(tmp_path / "a.h5", rows, (8, 6, 1), centre=0)).kspace[0, 0]
    np.testing.assert_array_equal(found[3:, 3:].numpy(), kspace[0])
    assert int((found != 0).sum()) == 15


def test_slices_are_in_the_order_of_their_positions(tmp_path: Path) -> None:
    kspace = noise(3, 1, 4, 3)
    rows: list[Any] = []
    for index, place in enumerate((10.0, -5.0, 2.5)):
        rows += lines(
            kspace[index], slice=index, position=(0, 0, place), slice_dir=(0, 0, 1),
            read_dir=(1, 0, 0), phase_dir=(0, 1, 0),
        )  # fmt: skip
    scan = read_scan(written(tmp_path / "a.h5", rows, (4, 3, 1)))
    np.testing.assert_array_equal(scan.kspace.numpy(), kspace[[1, 2, 0]])
    assert scan.spacing_mm[0] == 7.5
    np.testing.assert_allclose(scan.affine[:3, 2], [0, 0, 7.5], atol=1e-9)


def test_a_volume_is_transformed_along_its_readout(tmp_path: Path) -> None:
    volume = noise(5, 2, 4, 3)  # x, coil, ky, kz
    shifted = np.fft.ifftshift(volume, axes=0)
    kspace = np.fft.fftshift(np.fft.fft(shifted, axis=0, norm="ortho"), axes=0)
    rows = [
        (
            np.ascontiguousarray(kspace[:, :, first, second].T.astype(np.complex64)),
            {"kspace_encode_step_1": first, "kspace_encode_step_2": second},
        )
        for first in range(4)
        for second in range(3)
    ]
    scan = read_scan(written(tmp_path / "a.h5", rows, (5, 4, 3)))
    np.testing.assert_allclose(scan.kspace.numpy(), volume, atol=1e-6)
    assert scan.spacing_mm == pytest.approx((24 / 5, 10 / 4, 5 / 3))


@pytest.mark.parametrize(
    ("facts", "options", "words"),
    [
        ({}, {"trajectory": "radial"}, "trajectory 'radial'; expected 'cartesian'"),
        ({"flags": [ismrmrd.ACQ_IS_REVERSE]}, {}, "readouts in both directions"),
        ({"flags": [ismrmrd.ACQ_IS_NOISE_MEASUREMENT]}, {}, "4 readouts, none of a picture"),
        ({}, {"centre": 3}, "kspace_encode_step_1 0 with the middle at 3; expected one of the 4"),
        ({"center_sample": 5}, {}, "6 samples with the middle at 5; expected them to fit"),
    ],
)
def test_what_cannot_be_gridded_is_refused(
    tmp_path: Path, facts: dict[str, Any], options: dict[str, Any], words: str
) -> None:
    path = written(tmp_path / "a.h5", lines(noise(1, 6, 4), **facts), (6, 4, 1), **options)
    with pytest.raises(UserError, match=words):
        read_scan(path)


def test_several_repetitions_are_refused(tmp_path: Path) -> None:
    rows = lines(noise(1, 6, 4)) + lines(noise(1, 6, 4), repetition=1)
    with pytest.raises(UserError, match="2 values of 'repetition'; expected one picture"):
        read_scan(written(tmp_path / "a.h5", rows, (6, 4, 1)))


def test_a_header_that_is_no_xml_is_one_line(tmp_path: Path) -> None:
    path = written(tmp_path / "a.h5", lines(noise(1, 6, 4)), (6, 4, 1))
    with ismrmrd.Dataset(str(path)) as file:
        file.write_xml_header(b"<oops")
    with pytest.raises(UserError, match="ISMRMRD header: no XML"):
        read_scan(path)


def test_a_mask_of_points_comes_back(tmp_path: Path) -> None:
    mask = torch.rand(1, 6, 5, generator=torch.Generator().manual_seed(0)) < 0.5
    scan = scan_of(noise(2, 3, 6, 5))
    scan = replace(scan, kspace=scan.kspace * mask[:, None], mask=mask)
    write_scan(scan, tmp_path / "a.mrd", force=False)
    back = read_scan(tmp_path / "a.mrd")
    assert torch.equal(back.mask, mask)
    assert torch.equal(back.kspace, scan.kspace)
