from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.runtime.errors import UserError
from domains.mri.data.volumes import (
    Grid,
    Volume,
    affine_of,
    field_of_view,
    fine_enough,
    low_passed,
    positions,
    read_volume,
    slices,
)


def volume_of(values: np.ndarray, spacing: tuple[float, float, float] = (1.0, 1.0, 1.0)) -> Volume:
    return Volume(
        name="some", values=values.astype(np.float32), spacing_mm=spacing, affine=np.eye(4)
    )


def written(path: Path, values: np.ndarray, affine: np.ndarray | None = None) -> Path:
    nibabel.save(nibabel.Nifti1Image(values, np.eye(4) if affine is None else affine), path)
    return path


@settings(max_examples=30, deadline=None)
@given(height=st.integers(8, 40), width=st.integers(8, 40), size=st.integers(3, 8))
def test_a_constant_keeps_its_value_at_any_size(height: int, width: int, size: int) -> None:
    pictures = np.full((2, height, width), 0.7, np.float32)
    np.testing.assert_allclose(low_passed(pictures, size), 0.7, rtol=1e-5)


@pytest.mark.parametrize(("full", "size"), [(40, 20), (41, 20), (40, 21), (45, 15)])
def test_a_wave_that_the_grid_holds_is_sampled_exactly(full: int, size: int) -> None:
    def wave(count: int) -> np.ndarray:
        place = (np.arange(count) - count // 2) / count
        return 2 + np.cos(2 * np.pi * 3 * place)[:, None] * np.cos(2 * np.pi * 2 * place)

    found = low_passed(wave(full)[None].astype(np.float32), size)[0]
    np.testing.assert_allclose(found, wave(size), atol=1e-4)


def test_a_wave_that_the_grid_cannot_hold_is_gone_and_not_folded_back() -> None:
    place = np.arange(40) / 40
    picture = 2 + np.cos(2 * np.pi * 15 * place)[:, None] * np.ones(40)
    np.testing.assert_allclose(low_passed(picture[None].astype(np.float32), 20)[0], 2, atol=1e-4)


@pytest.mark.parametrize(
    ("axis", "row", "column"), [("axial", 1, 0), ("coronal", 2, 0), ("sagittal", 2, 1)]
)
def test_slices_lie_upright(axis: str, row: int, column: int) -> None:
    place = [8, 8, 8]
    place[row], place[column] = 14, 3
    values = np.zeros((17, 17, 17))
    values[tuple(place)] = 1  # far to the front (or top), and to the left (or back)
    grid = Grid(size=17, fov_mm=17.0)
    found = next(slices(volume_of(values), axis, [8], grid))[0]  # pyright: ignore[reportArgumentType]
    assert np.unravel_index(found.argmax(), found.shape) == (2, 3)


@pytest.mark.parametrize("fov", [20.0, 31.0])
def test_a_slice_stands_in_the_middle_of_its_field(fov: float) -> None:
    away = (np.arange(21) - 10.0) ** 2
    blob = np.exp(-(away[:, None] + away) / (2 * 2.5**2))
    volume = volume_of(np.repeat(blob[:, :, None], 21, 2))
    found = next(slices(volume, "axial", [10], Grid(size=15, fov_mm=fov)))[0]
    assert found.sum() * (fov / 15) ** 2 == pytest.approx(blob.sum(), rel=0.01)
    middle = (found.sum(0) * np.arange(15)).sum() / found.sum()
    assert abs(middle - 7) * fov / 15 <= 0.5  # half a voxel of the volume


@pytest.mark.parametrize("axis", ["axial", "coronal", "sagittal"])
@pytest.mark.parametrize(("size", "fov"), [(20, 40.0), (15, 31.0), (16, 64.0)])
def test_the_affine_of_slices_leads_to_the_voxel_that_a_pixel_shows(
    axis: str, size: int, fov: float
) -> None:
    place = np.array([22, 19, 24])
    sides = zip((41, 40, 46), place, strict=True)
    away = [(np.arange(length) - middle) ** 2.0 for length, middle in sides]
    blob = np.exp(-(away[0][:, None, None] + away[1][:, None] + away[2]) / (2 * 3.0**2))
    affine = np.diag([1.0, 1.0, 1.0, 1.0])
    affine[:3, 3] = [-20.0, 5.0, 7.0]
    volume = Volume(
        name="b", values=blob.astype(np.float32), spacing_mm=(1.0, 1.0, 1.0), affine=affine
    )
    grid, where = Grid(size=size, fov_mm=fov), np.arange(10, 36, 2)
    found = np.concatenate(list(slices(volume, axis, where, grid)))  # pyright: ignore[reportArgumentType]
    grids = np.meshgrid(*[np.arange(length) for length in found.shape], indexing="ij")
    middle = [float((found * one).sum() / found.sum()) for one in grids][::-1]
    led = affine_of(volume, axis, where, grid) @ [*middle, 1]  # pyright: ignore[reportArgumentType]
    np.testing.assert_allclose(led[:3], affine[:3, 3] + place, atol=0.15)


def test_many_slices_are_cut_in_order() -> None:
    values = np.ones((12, 12, 40)) * np.arange(1, 41)
    cut = list(slices(volume_of(values), "axial", range(40), Grid(size=6, fov_mm=12.0)))
    found = np.concatenate(cut)
    np.testing.assert_allclose(found.mean((1, 2)), np.arange(1, 41), rtol=1e-4)


def test_a_volume_is_read_in_any_orientation(tmp_path: Path) -> None:
    values = np.random.default_rng(0).random((6, 7, 8)).astype(np.float32)
    straight = read_volume(written(tmp_path / "a.nii.gz", values))
    turned = np.diag([-1.0, 2.0, 1.0, 1.0])[:, [0, 2, 1, 3]]
    other = read_volume(written(tmp_path / "b.nii.gz", values[::-1].swapaxes(1, 2), turned))
    np.testing.assert_array_equal(straight.values, other.values)
    assert other.spacing_mm == (1, 2, 1)


def test_a_volume_is_scaled_by_its_brightest_voxels(tmp_path: Path) -> None:
    values = np.zeros((20, 20, 20), np.int16)
    values[5:15, 5:15, 5:15] = 700
    values[10, 10, 10] = 30000
    values[0] = -5
    found = read_volume(written(tmp_path / "a.nii", values)).values
    assert np.median(found[found > 0]) == 1
    assert found.min() == 0


@pytest.mark.parametrize(
    ("values", "says"),
    [
        (np.full((4, 4, 4), np.nan, np.float32), "NaN"),
        (np.zeros((4, 4, 4), np.float32), "above 0"),
        (np.ones((4, 4, 4, 2), np.float32), "three axes"),
        (np.ones((4, 4, 4), np.complex64), "real"),
    ],
)
def test_what_is_no_volume_is_an_error_that_names_the_file(
    tmp_path: Path, values: np.ndarray, says: str
) -> None:
    with pytest.raises(UserError, match=says) as caught:
        read_volume(written(tmp_path / "bad.nii.gz", values))
    assert "bad.nii.gz" in str(caught.value)


def test_a_damaged_file_is_an_error_that_names_it(tmp_path: Path) -> None:
    path = written(tmp_path / "cut.nii.gz", np.random.default_rng(0).random((20, 20, 20)))
    path.write_bytes(path.read_bytes()[:9000])
    with pytest.raises(UserError, match=r"cut\.nii\.gz"):
        read_volume(path)
    (tmp_path / "text.nii").write_text("no picture")
    with pytest.raises(UserError, match=r"text\.nii"):
        read_volume(tmp_path / "text.nii")


def test_the_field_of_view_fits_large_and_small_heads() -> None:
    head, large = (
        volume_of(np.ones((180, 217, 181))),
        volume_of(np.ones((10, 10, 30)), (1.0, 1.0, 10.0)),
    )
    assert field_of_view(head, 240.0) == 240
    assert field_of_view(large, 240.0) == 300
    assert field_of_view(volume_of(np.ones((60, 100, 60))), 240.0) == pytest.approx(110)


def test_a_plane_too_coarse_for_the_grid_is_told_apart() -> None:
    slab = volume_of(np.ones((200, 200, 40)), (1.0, 1.0, 5.0))
    grid = Grid(size=96, fov_mm=240.0)
    assert fine_enough(slab, "axial", grid)
    assert not fine_enough(slab, "sagittal", grid)


def test_cuts_keep_to_the_span() -> None:
    where = positions(volume_of(np.ones((4, 4, 101))), "axial", (0.2, 0.85), 2)
    assert (where[0], where[-1]) == (20, 84)
    assert set(np.diff(where)) == {2}
