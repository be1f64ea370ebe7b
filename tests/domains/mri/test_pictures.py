from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import h5py
import nibabel
import numpy as np
import pydicom
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from core.runtime.errors import UserError
from domains.mri.data import dicom
from domains.mri.data.formats import read_picture, write
from domains.mri.data.headers import IDENTIFYING
from domains.mri.data.records import Reconstruction

AFFINE = np.array([[0, -2.0, 0, 10], [1.5, 0, 0, -7], [0, 0, 3.0, 4], [0, 0, 0, 1]])
HEADER = {
    "PatientName": "Doe^Jane", "PatientID": "patient-7", "PatientBirthDate": "1970-01-31",
    "PatientSex": "F", "PatientWeight": "70.5", "StudyDate": "2020-02-03",
    "StudyTime": "10:11:12", "AccessionNumber": "ACC-71", "InstitutionName": "Clinic",
    "StudyInstanceUID": "1.2.3.4", "MagneticFieldStrength": 1.5, "EchoTime": 10.25,
    "Manufacturer": "x",
}  # fmt: skip
SECRETS = (
    b"Doe",
    b"patient-7",
    b"19700131",
    b"1970-01-31",
    b"Clinic",
    b"1.2.3.4",
    b"ACC-71",
    b"20200203",
)


def picture(
    slices: int = 3, height: int = 7, width: int = 5, intervals: bool = True, seed: int = 0
) -> Reconstruction:
    random = torch.Generator().manual_seed(seed)
    image = torch.rand(slices, height, width, generator=random) * 40
    return Reconstruction(
        name="scan-of-Doe",
        method="cg-sense",
        image=image,
        width=image / 10 + 1 if intervals else None,
        coverage=0.9 if intervals else None,
        spacing_mm=(3.0, 2.0, 1.5),  # the lengths of the columns of AFFINE, from the last
        affine=AFFINE,
        header=HEADER,
    )


def everything(folder: Path) -> bytes:
    return b"".join(one.read_bytes() for one in folder.rglob("*") if one.is_file())


# HDF5 and NIfTI


@settings(max_examples=15, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 3), st.integers(1, 6), st.integers(1, 6)),
    intervals=st.booleans(),
    ending=st.sampled_from(["h5", "nii", "nii.gz"]),
)
def test_a_picture_comes_back(
    tmp_path_factory: pytest.TempPathFactory,
    shape: tuple[int, int, int],
    intervals: bool,
    ending: str,
) -> None:
    path = tmp_path_factory.mktemp("pictures") / f"a.{ending}"
    made = picture(*shape, intervals=intervals)
    files = write(made, path, force=False)
    assert all(one.is_file() for one in files)
    back = read_picture(path)
    assert torch.equal(back.image, made.image)
    assert (back.width is None) == (made.width is None)
    if made.width is not None and back.width is not None:
        assert torch.equal(back.width, made.width)
    np.testing.assert_allclose(back.affine, made.affine, rtol=1e-6)
    assert back.spacing_mm == made.spacing_mm


def test_hdf5_says_method_coverage_and_research_only(tmp_path: Path) -> None:
    write(picture(), tmp_path / "a.h5", force=False)
    back = read_picture(tmp_path / "a.h5")
    assert (back.method, back.coverage) == ("cg-sense", 0.9)
    assert back.header == {
        "MagneticFieldStrength": 1.5, "EchoTime": 10.25, "Manufacturer": "x",
    }  # fmt: skip
    with h5py.File(tmp_path / "a.h5") as file:
        assert file["reconstruction"].dtype == np.float32
        assert "research only" in file.attrs["note"]


@pytest.mark.parametrize("name", ["a.h5", "a.nii", "a.png", "series"])
def test_nobody_can_be_told_from_what_is_written(tmp_path: Path, name: str) -> None:
    write(picture(), tmp_path / name, force=False)
    content = everything(tmp_path)
    assert not [one for one in SECRETS if one in content]


def test_hdf5_keeps_who_it_is_of_if_asked(tmp_path: Path) -> None:
    write(picture(), tmp_path / "a.h5", force=False, keep_phi=True)
    assert read_picture(tmp_path / "a.h5").header == HEADER


def test_nifti_puts_pixels_where_the_affine_says(tmp_path: Path) -> None:
    made = picture()
    files = write(made, tmp_path / "a.nii.gz", force=False)
    assert [one.name for one in files] == ["a.nii.gz", "a-width.nii.gz"]
    image = nibabel.load(tmp_path / "a.nii.gz")
    assert image.shape == (5, 7, 3)  # column, row, slice
    assert image.get_fdata()[4, 6, 2] == made.image[2, 6, 4]
    np.testing.assert_allclose(image.affine, made.affine)
    np.testing.assert_allclose(image.header.get_zooms(), (1.5, 2, 3))
    assert b"research only" in bytes(image.header["descrip"])


def test_nifti_without_an_affine_has_its_middle_at_zero(tmp_path: Path) -> None:
    write(replace(picture(), affine=None), tmp_path / "a.nii", force=False)
    affine = nibabel.load(tmp_path / "a.nii").affine
    np.testing.assert_allclose(affine @ [2, 3, 1, 1], [0, 0, 0, 1])


def test_pictures_of_fastmri_are_read(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["kspace"] = np.ones((1, 1, 2, 2), np.complex64)
        file["reconstruction_rss"] = np.ones((1, 2, 2), np.float32)
    assert read_picture(tmp_path / "a.h5").image.shape == (1, 2, 2)
    with pytest.raises(UserError, match=r"kspace: complex64 of shape .*expected real numbers"):
        read_picture(tmp_path / "a.h5/kspace")


@pytest.mark.parametrize("name", ["a.h5", "a.nii", "a.nii.gz"])
def test_a_damaged_picture_is_one_line(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    write(picture(40, 40, 40, intervals=False), path, force=False)
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(UserError, match=f"{name}.*again") as caught:
        read_picture(path)
    assert "\n" not in str(caught.value)


# PNG


def test_png_is_one_scale_for_all_slices(tmp_path: Path) -> None:
    made = picture()
    files = write(made, tmp_path / "a.png", force=False)
    assert [one.name for one in files] == [
        f"a{kind}-{place:03d}.png" for kind in ("", "-width") for place in range(3)
    ]
    for place in range(3):
        image = Image.open(tmp_path / f"a-{place:03d}.png")
        values = np.asarray(image).astype(float) * float(image.text["Scale"])
        np.testing.assert_allclose(values, made.image[place].numpy(), atol=40 / 65535)
        assert "research only" in image.text["Description"]


def test_a_single_slice_is_a_single_png(tmp_path: Path) -> None:
    blank = replace(picture(1, intervals=False), image=torch.zeros(1, 2, 3))
    assert write(blank, tmp_path / "a.png", force=False) == [tmp_path / "a.png"]
    assert np.asarray(Image.open(tmp_path / "a.png")).tolist() == [[0, 0, 0]] * 2


# DICOM


def series(folder: Path, kind: str = "image") -> list[pydicom.Dataset]:
    return [pydicom.dcmread(one) for one in sorted(folder.glob(f"{kind}-*.dcm"))]


def test_dicom_is_a_derived_series_for_research_only(tmp_path: Path) -> None:
    made = picture()
    files = write(made, tmp_path / "series", force=False)
    assert len(files) == 6
    found, widths = series(tmp_path / "series"), series(tmp_path / "series", "width")
    assert {one.SeriesInstanceUID for one in found} != {one.SeriesInstanceUID for one in widths}
    assert len({one.SOPInstanceUID for one in (*found, *widths)}) == 6
    assert len({one.StudyInstanceUID for one in (*found, *widths)}) == 1
    for place, one in enumerate(found):
        assert list(one.ImageType[:2]) == ["DERIVED", "SECONDARY"]
        assert one.SOPClassUID == one.file_meta.MediaStorageSOPClassUID == dicom.MR_IMAGE
        assert "RESEARCH ONLY" in one.ImageComments
        assert "cg-sense" in one.DerivationDescription
        assert "research only" in one.DerivationDescription
        values = one.pixel_array * float(one.RescaleSlope) + float(one.RescaleIntercept)
        np.testing.assert_allclose(values, made.image[place].numpy(), atol=40 / 65535)
    assert (found[0].MagneticFieldStrength, found[0].EchoTime) == (1.5, 10.25)


def test_dicom_says_where_each_pixel_is(tmp_path: Path) -> None:
    """By the formula of the standard (C.7.6.2.1.1), in LPS, against the affine in RAS."""
    made = picture()
    write(made, tmp_path / "series", force=False)
    for place, one in enumerate(series(tmp_path / "series")):
        along = np.array(one.ImageOrientationPatient, float).reshape(2, 3)
        rows, columns = (float(size) for size in one.PixelSpacing)
        where = np.array(one.ImagePositionPatient, float)
        where = where + along[0] * columns * 4 + along[1] * rows * 6  # column 4, row 6
        expected = (made.affine @ [4, 6, place, 1])[:3] * [-1, -1, 1]
        np.testing.assert_allclose(where, expected, atol=1e-9)


def test_dicom_names_nobody(tmp_path: Path) -> None:
    write(picture(), tmp_path / "series", force=False)
    for one in series(tmp_path / "series"):
        told = [name for name in IDENTIFYING if one.get(name) and name != "StudyInstanceUID"]
        assert told == []
        assert one.PatientIdentityRemoved == "YES"


def test_dicom_copies_who_it_is_of_if_asked(tmp_path: Path) -> None:
    write(picture(), tmp_path / "series", force=False, keep_phi=True)
    one = series(tmp_path / "series")[0]
    assert str(one.PatientName) == "Doe^Jane"
    assert (one.PatientID, one.PatientBirthDate, one.StudyDate) == (
        "patient-7",
        "19700131",
        "20200203",
    )
    assert one.StudyInstanceUID == "1.2.3.4"
    assert one.SOPInstanceUID != "1.2.3.4"
    assert "PatientIdentityRemoved" not in one


def test_every_writing_has_new_uids(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write(picture(), tmp_path / name, force=False)
    first, second = ({one.SOPInstanceUID for one in series(tmp_path / name)} for name in "ab")
    assert not first & second


@settings(max_examples=10, deadline=None)
@given(
    slices=st.integers(1, 4),
    scale=st.sampled_from([1e-9, 1e-3, 1.0, 1e7]),
    angle=st.floats(-3, 3),
)
def test_a_series_of_dicom_is_read_as_the_volume_that_it_is(
    tmp_path_factory: pytest.TempPathFactory, slices: int, scale: float, angle: float
) -> None:
    folder = tmp_path_factory.mktemp("series") / "a"
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    made = picture(slices, intervals=False)
    made = replace(made, image=made.image * scale, affine=turn @ AFFINE)
    write(made, folder, force=False)
    image = dicom.read_nifti(folder)
    np.testing.assert_allclose(
        image.get_fdata().transpose(2, 1, 0), made.image.numpy(), atol=40 * scale / 65535
    )
    np.testing.assert_allclose(image.affine, made.affine, atol=1e-9)


def test_two_series_in_a_folder_are_no_volume(tmp_path: Path) -> None:
    write(picture(), tmp_path / "a", force=False)
    with pytest.raises(UserError, match="2 series in one folder; expected one"):
        dicom.read_nifti(tmp_path / "a")
    (tmp_path / "b").mkdir()
    with pytest.raises(UserError, match="no file of DICOM"):
        dicom.read_nifti(tmp_path / "b")


def test_damaged_dicom_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "a.dcm"
    write(picture(1, intervals=False), path, force=False)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(UserError, match=r"a\.dcm: cannot be read as DICOM") as caught:
        dicom.read_nifti(path)
    assert "\n" not in str(caught.value)


def test_one_dicom_file_holds_one_slice(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"3 slices and intervals.*expected a folder: .*/a$"):
        write(picture(), tmp_path / "a.dcm", force=False)
    assert list(tmp_path.iterdir()) == []


# Files that are there


@pytest.mark.parametrize("name", ["a.h5", "a.nii.gz", "a.png", "a.dcm", "series"])
def test_nothing_is_replaced_unless_asked(tmp_path: Path, name: str) -> None:
    made = picture(1, intervals=False)
    files = write(made, tmp_path / name, force=False)
    before = files[0].read_bytes()
    with pytest.raises(UserError, match=r"exists already.*--force"):
        write(made, tmp_path / name, force=False)
    assert files[0].read_bytes() == before
    brighter = replace(made, image=made.image + torch.arange(5))
    assert write(brighter, tmp_path / name, force=True) == files
    assert files[0].read_bytes() != before


def test_widths_that_are_there_are_not_replaced_either(tmp_path: Path) -> None:
    (tmp_path / "a-width.nii").write_text("mine")
    with pytest.raises(UserError, match=r"a-width\.nii: exists already"):
        write(picture(), tmp_path / "a.nii", force=False)
    assert [one.name for one in tmp_path.iterdir()] == ["a-width.nii"]


def test_a_folder_with_other_files_is_never_replaced(tmp_path: Path) -> None:
    folder = tmp_path / "thesis"
    folder.mkdir()
    (folder / "chapter.tex").write_text("mine")
    with pytest.raises(UserError, match=r"holds chapter\.tex, which is no file of such a series"):
        write(picture(), folder, force=True)
    assert (folder / "chapter.tex").read_text() == "mine"
    assert [one.name for one in tmp_path.iterdir()] == ["thesis"]


def test_a_shorter_series_leaves_no_slices_of_a_longer_one(tmp_path: Path) -> None:
    write(picture(5), tmp_path / "a", force=False)
    files = write(picture(2, intervals=False), tmp_path / "a", force=True)
    assert sorted((tmp_path / "a").iterdir()) == files
    assert len(files) == 2


def test_an_ending_for_no_picture_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"'\.jpg' is no ending that pictures are written in"):
        write(picture(), tmp_path / "a.jpg", force=False)
    (tmp_path / "b.h5").mkdir()
    with pytest.raises(UserError, match="a folder; give the name of a file"):
        write(picture(), tmp_path / "b.h5", force=True)
