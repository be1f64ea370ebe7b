from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from core.runtime.errors import UserError
from domains.mri.data.formats import read_scan, write_scan
from domains.mri.data.fourier import fft2, ifft2
from domains.mri.data.records import Reconstruction, Scan
from domains.mri.data.submissions import cropped, problems, write_submission


def zero_filled(path: Path, slices: int, **header: int) -> Reconstruction:
    """Write the scan of a box to a file and return what is made of it."""
    random = torch.Generator().manual_seed(0)
    picture = torch.zeros(slices, 2, 12, 10)
    picture[..., 4:9, 3:7] = 1 + torch.rand(slices, 2, 5, 4, generator=random)
    scan = Scan(
        name=path.stem,
        subject=path.stem,
        kspace=fft2(picture.to(torch.complex64)),
        mask=torch.ones(1, 12, 10, dtype=torch.bool),
        header=header,
    )
    path.parent.mkdir(exist_ok=True)
    write_scan(scan, path, force=True, form="calgary" if slices > 100 else None)
    back = read_scan(path)
    return Reconstruction(
        name=back.name,
        method="zero-filled",
        image=ifft2(back.kspace).abs().square().sum(1).sqrt(),
        header=back.header,
    )


def fastmri(folder: Path) -> list[Reconstruction]:
    size = {"picture_height": 8, "picture_width": 6}
    return [zero_filled(folder / f"{name}.h5", 2, **size) for name in ("a", "b")]


def test_fastmri_takes_pictures_cropped_to_their_headers(tmp_path: Path) -> None:
    pictures = fastmri(tmp_path / "scans")
    files = write_submission("fastmri", pictures, tmp_path / "sent")
    assert [one.name for one in files] == ["a.h5", "b.h5"]
    assert problems("fastmri", tmp_path / "sent", tmp_path / "scans") == []
    with h5py.File(files[0]) as file:
        assert list(file) == ["reconstruction"]
        found = file["reconstruction"][()]
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, pictures[0].image[:, 2:10, 2:8].numpy())


def test_calgary_takes_inner_slices_in_units_of_numpy(tmp_path: Path) -> None:
    made = zero_filled(tmp_path / "scans/e1.h5", 103)
    write_submission("calgary", [made], tmp_path / "sent")
    assert problems("calgary", tmp_path / "sent", tmp_path / "scans") == []
    with h5py.File(tmp_path / "scans/e1.h5") as file:
        pairs = file["kspace"][50:-50]
    coils = np.fft.ifft2(pairs[..., ::2] + 1j * pairs[..., 1::2], axes=(1, 2))
    expected = np.sqrt(np.square(np.abs(coils)).sum(-1))
    with h5py.File(tmp_path / "sent/e1.h5") as file:
        np.testing.assert_allclose(file["reconstruction"], expected, rtol=1e-5, atol=1e-6)


def test_units_that_are_forgotten_are_noticed(tmp_path: Path) -> None:
    made = zero_filled(tmp_path / "scans/e1.h5", 103)
    write_submission("calgary", [made], tmp_path / "sent")
    with h5py.File(tmp_path / "sent/e1.h5", "r+") as file:
        file["reconstruction"][...] *= np.sqrt(120)
    (found,) = problems("calgary", tmp_path / "sent", tmp_path / "scans")
    assert "e1.h5: reconstruction: 11 times as strong as its k-space" in found


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (np.ones((2, 8, 6)), "float64; expected float32"),
        (np.ones((8, 6), np.float32), "expected float32, (slice, height, width)"),
        (np.full((2, 8, 6), np.nan, np.float32), "slice 0 has NaN or infinite values"),
        (np.full((2, 8, 6), -1, np.float32), "negative values; expected magnitude"),
        (np.zeros((2, 8, 6), np.float32), "all zero"),
        (np.ones((2, 12, 10), np.float32), "shape (2, 12, 10); expected (2, 8, 6)"),
        (None, "no dataset 'reconstruction'; found nothing"),
    ],
)
def test_what_is_wrong_with_a_file_is_said(tmp_path: Path, values: Any, words: str) -> None:
    write_submission("fastmri", fastmri(tmp_path / "scans"), tmp_path / "sent")
    with h5py.File(tmp_path / "sent/a.h5", "w") as file:
        if values is not None:
            file["reconstruction"] = values
    found = problems("fastmri", tmp_path / "sent", tmp_path / "scans")
    assert any(words in line for line in found), found
    assert all(line.startswith("a.h5: ") for line in found)


def test_missing_strange_and_damaged_files_are_said(tmp_path: Path) -> None:
    write_submission("fastmri", fastmri(tmp_path / "scans"), tmp_path / "sent")
    (tmp_path / "sent/b.h5").rename(tmp_path / "sent/c.h5")
    (tmp_path / "sent/a.h5").write_text("oops")
    (tmp_path / "sent/notes.txt").write_text("hello")
    found = "\n".join(problems("fastmri", tmp_path / "sent", tmp_path / "scans"))
    for words in (
        "a.h5: damaged HDF5",
        "b.h5: missing",
        "c.h5: of no test scan",
        "notes.txt: not",
    ):
        assert words in found


def test_a_scan_too_short_two_of_a_name_and_none_are_refused(tmp_path: Path) -> None:
    made = fastmri(tmp_path / "scans")[0]
    for challenge, pictures, words in (
        ("calgary", [made], "2 slices; expected more than 100"),
        ("fastmri", [made, made], "two pictures named 'a'"),
        ("fastmri", [], "no pictures to submit"),
    ):
        with pytest.raises(UserError, match=words):
            write_submission(challenge, pictures, tmp_path / "sent")  # pyright: ignore
        assert not (tmp_path / "sent").exists()
    with pytest.raises(UserError, match="no such folder; expected a folder"):
        problems("fastmri", tmp_path / "sent")


def test_pictures_narrower_than_their_headers_become_squares() -> None:
    assert cropped((320, 320), (640, 368)) == (320, 320)
    assert cropped((320, 320), (640, 264)) == (264, 264)
