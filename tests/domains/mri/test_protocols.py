"""The conventions of both challenges against their formulas, written out with scikit-image."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from domains.mri.metrics import quality
from domains.mri.metrics.protocols import (
    PROTOCOLS,
    Scores,
    calgary_campinas,
    centre_cropped,
    fastmri,
    together,
)

Array = NDArray[np.float64]


def volume(seed: int = 0, side: tuple[int, int] = (48, 44)) -> tuple[Array, Array]:
    """A picture and its target: four slices of very different brightness."""
    from scipy.ndimage import gaussian_filter

    random = np.random.default_rng(seed)
    target = gaussian_filter(random.random((4, *side)), (0, 1.5, 1.5))
    target *= np.array([1.0, 40.0, 7.0, 300.0])[:, None, None]
    noise = 0.05 * target.max((1, 2), keepdims=True) * random.standard_normal(target.shape)
    return np.abs(target + noise), target


def scored(name: str, picture: Array, target: Array, **options: object) -> Scores:
    x, y = torch.from_numpy(picture), torch.from_numpy(target)
    return PROTOCOLS[name](x, y, "noise-free", **options)


def test_calgary_campinas_scales_each_slice_and_takes_the_range_of_both() -> None:
    from sewar.full_ref import vifp

    picture, target = volume()
    found = scored("calgary-campinas", picture, target)
    for place, (x, y) in enumerate(zip(picture, target, strict=True)):
        x, y = x / y.max(), y / y.max()
        spread = np.maximum(x, y).max() - np.minimum(x, y).min()
        expected = {
            "ssim": structural_similarity(y, x, data_range=spread),
            "psnr_db": peak_signal_noise_ratio(y, x, data_range=spread),
            "vif": vifp(y, x, sigma_nsq=0.4),
        }
        for name, value in expected.items():
            assert found.values[name][place] == pytest.approx(value, abs=1e-6), name
    assert found.mean("ssim") == pytest.approx(found.values["ssim"].mean())


@pytest.mark.parametrize("crop", [None, (32, 27)])
def test_fastmri_takes_the_volume_and_its_maximum(crop: tuple[int, int] | None) -> None:
    picture, target = volume()
    found = scored("fastmri", picture, target, crop=crop)
    if crop:
        picture, target = (each[:, 8:40, 8:35] for each in (picture, target))
    peak = target.max()
    similar = [
        structural_similarity(y, x, data_range=peak) for x, y in zip(picture, target, strict=True)
    ]
    expected = {
        "nmse": np.linalg.norm(target - picture) ** 2 / np.linalg.norm(target) ** 2,
        "psnr_db": peak_signal_noise_ratio(target, picture, data_range=peak),
        "ssim": np.mean(similar),
    }
    for name, value in expected.items():
        assert found.mean(name) == pytest.approx(value, abs=1e-6), name
    assert len(found) == 1


@settings(max_examples=8, deadline=None)
@given(st.sampled_from(list(PROTOCOLS)), st.floats(1e-6, 1e6))
def test_the_unit_of_pictures_does_not_matter(name: str, unit: float) -> None:
    picture, target = volume()
    known, found = (scored(name, each * picture, each * target) for each in (1.0, unit))
    for measure, values in known.values.items():
        np.testing.assert_allclose(found.values[measure], values, rtol=1e-6, err_msg=measure)


def test_the_brightness_of_a_slice_matters_to_fastmri_alone() -> None:
    picture, target = volume()
    factors = np.array([1.0, 5.0, 0.1, 1.0])[:, None, None]
    for name, same in (("calgary-campinas", True), ("fastmri", False)):
        one, other = (scored(name, f * picture, f * target).mean("ssim") for f in (1.0, factors))
        assert (abs(one - other) < 1e-9) == same


@pytest.mark.parametrize("name", list(PROTOCOLS))
def test_numbers_are_printed_with_what_they_mean(name: str) -> None:
    picture, target = volume()
    text = scored(name, picture, target, mask=torch.ones(4, 48, 44, dtype=torch.bool)).text()
    first, *rest = text.splitlines()
    for word in ("data range:", "target: magnitude of the noise-free picture", "inside the mask"):
        assert word in first
    assert [line.split()[0] for line in rest] == ["psnr", *list(quality.BETTER)[1:]]
    full = PROTOCOLS[name](*map(torch.from_numpy, (picture, target)), "full-data")
    assert "root sum of squares" in full.words
    assert "whole picture" in full.words


def test_a_crop_is_said() -> None:
    assert "middle 32 x 27" in scored("fastmri", *volume(), crop=(32, 27)).words
    assert "middle" not in scored("fastmri", *volume()).words


def test_blank_slices_are_left_out_and_counted() -> None:
    picture, target = volume()
    target[2] = 0
    found = scored("calgary-campinas", picture, target)
    assert found.kept.tolist() == [True, True, False, True]
    assert "3 slices; 1 blank left out" in found.words
    rest = scored("calgary-campinas", np.delete(picture, 2, 0), np.delete(target, 2, 0))
    for name, values in rest.values.items():
        np.testing.assert_allclose(found.values[name], values, err_msg=name)


def test_fastmri_keeps_blank_slices_of_a_volume() -> None:
    picture, target = volume()
    target[0] = picture[0] = 0
    found = scored("fastmri", picture, target)
    rest = scored("fastmri", picture[1:], target[1:])
    assert found.mean("ssim") == pytest.approx((3 * rest.mean("ssim") + 1) / 4)
    assert found.mean("nmse") == pytest.approx(rest.mean("nmse"))
    assert found.mean("vif") == pytest.approx(rest.mean("vif"))


@pytest.mark.parametrize("name", list(PROTOCOLS))
def test_a_blank_volume_has_no_values_and_joins_others(name: str) -> None:
    picture, target = volume()
    blank = scored(name, picture, 0 * target)
    assert len(blank) == 0
    assert blank.left_out == (1 if name == "fastmri" else 4)
    assert blank.text() == blank.words
    with pytest.raises(ValueError, match="to average"):
        blank.mean("ssim")
    whole = scored(name, picture, target)
    both = together([blank, whole])
    assert both.left_out == blank.left_out
    assert len(both) == len(whole)
    for measure, values in whole.values.items():
        np.testing.assert_array_equal(both.values[measure], values)


@pytest.mark.parametrize("name", list(PROTOCOLS))
def test_slices_without_a_mask_count_in_no_mean(name: str) -> None:
    picture, target = volume()
    mask = torch.zeros(4, 48, 44, dtype=torch.bool)
    mask[:3, 12:30, 12:30] = True
    found = scored(name, picture, target, mask=mask)
    # Its brightest slice still sets the range of fastMRI, which is that of the whole volume.
    target[3], picture[3] = target[3].max(), 0
    again = scored(name, picture, target, mask=mask)
    for measure, values in again.values.items():
        np.testing.assert_allclose(found.values[measure], values, err_msg=measure)


def test_measures_whose_windows_do_not_fit_are_missing() -> None:
    small = scored("calgary-campinas", *volume(side=(40, 48)))
    assert list(small.values) == ["psnr_db", "ssim", "nmse", "nrmse", "hfen"]
    tiny = scored("fastmri", *volume(side=(6, 48)))
    assert list(tiny.values) == ["psnr_db", "nmse", "nrmse", "hfen"]
    joined = together([small, scored("calgary-campinas", *volume())])
    assert list(joined.values) == list(small.values)


def test_what_does_not_fit_is_refused() -> None:
    x = torch.rand(2, 48, 48)
    with pytest.raises(ValueError, match="crop of 320 x 320"):
        fastmri(x, x, "noise-free", crop=(320, 320))
    broken = x.clone()
    broken[1] = float("nan")
    for score in (calgary_campinas, fastmri):
        with pytest.raises(ValueError, match="slice 1 holds NaN"):
            score(x, broken, "noise-free")
    with pytest.raises(ValueError, match="2 ways"):
        together([fastmri(x, x, "noise-free"), fastmri(x, x, "full-data")])


@given(st.integers(1, 9), st.integers(1, 9))
def test_a_crop_takes_the_middle(side: int, crop: int) -> None:
    if crop <= side:
        cropped = centre_cropped(torch.arange(side)[None].expand(side, side), (crop, crop))
        before, after = int(cropped[0, 0]), side - 1 - int(cropped[0, -1])
        assert 0 <= after - before <= 1
