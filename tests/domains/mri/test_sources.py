from __future__ import annotations

import sys
from pathlib import Path

import pytest

from core.runtime.errors import UserError
from domains.mri.data.sources import folder, packaged, subject_of
from domains.mri.data.volumes import ENDINGS


def files(path: Path, *names: str) -> Path:
    """Files of these names, each with other bytes."""
    for name in names:
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_text(name)
    return path


def subjects(path: Path) -> dict[str, str]:
    return {one.name: one.subject for one in folder(path, ENDINGS).sources}


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("chris_t1", "chris_PD"),
        ("ch2", "ch2better"),
        ("ch2bet", "colin27_t1_tal_hires"),
        ("mni_icbm152_t1_tal_nlin_sym_09a_converted", "spm152"),
        ("sub-03_ses-1_T1w", "sub-03_ses-2_T2w"),
    ],
)
def test_two_pictures_of_one_head_are_one_subject(first: str, second: str) -> None:
    assert subject_of(first, {}) == subject_of(second, {})


@pytest.mark.parametrize(
    ("first", "second"),
    [("ch2", "chris_t1"), ("sub-03_T1w", "sub-04_T1w"), ("mni152", "inia19-t1-brain")],
)
def test_two_heads_are_two_subjects(first: str, second: str) -> None:
    assert subject_of(first, {}) != subject_of(second, {})


def test_a_list_of_subjects_has_the_last_word(tmp_path: Path) -> None:
    files(tmp_path, "a_1.nii.gz", "a_2.nii.gz", "b.nii")
    (tmp_path / "SUBJECTS.csv").write_text("name,subject,licence\na_,anna,CC0\na_2,berta,\n")
    found = folder(tmp_path, ENDINGS)
    assert subjects(tmp_path) == {"a_1": "anna", "a_2": "berta", "b": "b"}
    assert [one.licence for one in found.sources] == ["CC0", "unknown", "unknown"]
    assert not found.notes


def test_guessed_subjects_are_said_to_be_guessed(tmp_path: Path) -> None:
    assert "guessed" in folder(files(tmp_path, "a.nii"), ENDINGS).notes[0]


@pytest.mark.parametrize("text", ["file,who\na,b\n", "name,subject\na,\n"])
def test_a_wrong_list_of_subjects_is_an_error_that_names_it(tmp_path: Path, text: str) -> None:
    files(tmp_path, "a.nii")
    (tmp_path / "SUBJECTS.csv").write_text(text)
    with pytest.raises(UserError, match=r"SUBJECTS\.csv"):
        folder(tmp_path, ENDINGS)


def test_the_same_file_counts_once(tmp_path: Path) -> None:
    files(tmp_path, "a.nii", "deep/b.nii")
    (tmp_path / "c.nii").write_text("a.nii")
    found = folder(tmp_path, ENDINGS)
    assert [one.name for one in found.sources] == ["a", "b"]
    assert "c is the same file as a" in found.notes[0]


def test_maps_of_tissues_go_with_their_head_and_are_no_heads(tmp_path: Path) -> None:
    files(tmp_path, "x_t1_9a.nii", "x_gm_9a.nii", "x_wm_9a.nii", "y_t1.nii", "y_gm.nii")
    found = {one.name: one for one in folder(tmp_path, ENDINGS).sources}
    assert [path.name for path in found["x_t1_9a"].tissues] == ["x_gm_9a.nii", "x_wm_9a.nii"]
    assert found["y_t1"].tissues == ()
    assert set(found) == {"x_t1_9a", "y_t1"}


def test_a_folder_without_heads_is_an_error_that_says_what_is_expected(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such folder"):
        folder(tmp_path / "none", ENDINGS)
    with pytest.raises(UserError, match=r"\.nii\.gz"):
        folder(files(tmp_path, "notes.txt", ".hidden.nii"), ENDINGS)
    with pytest.raises(UserError, match="only maps"):
        folder(files(tmp_path, "a_gm.nii"), ENDINGS)


def test_the_packaged_template_is_found_without_importing_its_package(tmp_path: Path) -> None:
    pytest.importorskip("nibabel")
    before = "nilearn" in sys.modules
    found = packaged(debian=tmp_path)
    assert ("nilearn" in sys.modules) == before
    assert found.subjects == ("mni152",)
    assert len(found.sources[0].tissues) == 2


def test_heads_of_the_debian_package_are_taken_where_they_are(tmp_path: Path) -> None:
    found = packaged(debian=files(tmp_path, "ch2.nii.gz", "ch2bet.nii.gz", "aal.nii.gz"))
    assert found.subjects == ("colin27", "mni152")
    assert "mricron" in found.title
