"""Measures of quality against scikit-image, sewar and SciPy."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from domains.mri.metrics import quality

Array = NDArray[np.float64]
MEASURES: dict[str, Callable[..., Tensor]] = {
    "psnr_db": lambda x, y, mask=None: quality.psnr(x, y, 0.0, mask),
    "ssim": lambda x, y, mask=None: quality.ssim(x, y, 0.0, mask),
    "nmse": quality.nmse,
    "nrmse": quality.nrmse,
    "hfen": quality.hfen,
    "vif": quality.vif,
}
sizes = st.tuples(st.integers(1, 2), st.integers(41, 60), st.integers(41, 60))
seeds = st.integers(0, 2**16)


def pair(shape: tuple[int, int, int], noise: float, seed: int) -> tuple[Array, Array]:
    """A noisy picture and its smooth target, which is 0 in its first rows as outside a head."""
    from scipy.ndimage import gaussian_filter

    random = np.random.default_rng(seed)
    target = gaussian_filter(random.random(shape), (0, 1.5, 1.5))
    target[:, :9] = 0
    return np.abs(target + noise * random.standard_normal(shape)), target


def tensors(*arrays: Array) -> list[Tensor]:
    return [torch.from_numpy(array) for array in arrays]


@settings(max_examples=15, deadline=None)
@given(sizes, st.floats(0.001, 1), st.floats(0.1, 3), seeds)
def test_psnr_ssim_nmse_and_nrmse_are_those_of_scikit_image(
    shape: tuple[int, int, int], noise: float, spread: float, seed: int
) -> None:
    from skimage import metrics

    x, y = pair(shape, noise, seed)
    found = {
        "psnr_db": quality.psnr(*tensors(x, y), spread),
        "ssim": quality.ssim(*tensors(x, y), spread),
        "nmse": quality.nmse(*tensors(x, y)),
        "nrmse": quality.nrmse(*tensors(x, y)),
    }
    for place, (a, b) in enumerate(zip(x, y, strict=True)):
        root = metrics.normalized_root_mse(b, a, normalization="euclidean")
        expected = {
            "psnr_db": metrics.peak_signal_noise_ratio(b, a, data_range=spread),
            "ssim": metrics.structural_similarity(b, a, data_range=spread),
            "nmse": root**2,
            "nrmse": root,
        }
        for name, value in expected.items():
            assert float(found[name][place]) == pytest.approx(float(value), abs=1e-6), name


@settings(max_examples=12, deadline=None)
@given(sizes, st.floats(0, 1), st.sampled_from([0.01, 0.4, 2.0]), seeds)
def test_vif_is_that_of_sewar(
    shape: tuple[int, int, int], noise: float, sigma_nsq: float, seed: int
) -> None:
    from sewar.full_ref import vifp

    x, y = pair(shape, noise, seed)
    found = quality.vif(*tensors(x, y), sigma_nsq=sigma_nsq)
    expected = [vifp(b, a, sigma_nsq=sigma_nsq) for a, b in zip(x, y, strict=True)]
    np.testing.assert_allclose(found.numpy(), expected, rtol=0, atol=1e-6)


def test_vif_of_grey_levels_takes_the_variance_of_its_authors() -> None:
    from sewar.full_ref import vifp

    x, y = (255 * each for each in pair((1, 64, 64), 0.1, 3))
    found = quality.vif(*tensors(x, y), sigma_nsq=2.0)
    assert float(found[0]) == pytest.approx(vifp(y[0], x[0]), abs=1e-6)
    assert abs(float(found[0]) - float(quality.vif(*tensors(x, y))[0])) > 1e-3


def test_hfen_is_what_the_filter_of_its_authors_leaves() -> None:
    """``fspecial('log', 15, 1.5)`` written out as MATLAB documents it, and SciPy's convolution."""
    from scipy.signal import convolve2d

    x, y = pair((1, 50, 45), 0.1, 0)
    columns, rows = np.meshgrid(np.arange(-7, 8), np.arange(-7, 8))
    gaussian = np.exp(-(columns**2 + rows**2) / (2 * 1.5**2))
    filtered = gaussian * (columns**2 + rows**2 - 2 * 1.5**2) / (1.5**4 * gaussian.sum())
    filtered -= filtered.mean()
    a, b = (convolve2d(each[0], filtered, mode="same") for each in (x, y))
    expected = np.linalg.norm(a - b) / np.linalg.norm(b)
    assert float(quality.hfen(*tensors(x, y))[0]) == pytest.approx(expected, abs=1e-9)


def test_the_filter_of_hfen_is_the_laplacian_of_a_gaussian() -> None:
    """Of a wave it leaves -w^2 exp(-s^2 w^2 / 2) of itself, and nothing of a slope."""
    wave = 0.4
    places = torch.arange(60, dtype=torch.float64)
    rows = torch.cos(wave * places)[:, None].expand(60, 60)
    slope = places[:, None].expand(60, 60)
    inner = (slice(None), slice(8, -8), slice(8, -8))
    found = quality.edges(torch.stack((rows, slope)))[inner]
    gain = -(wave**2) * np.exp(-(1.5**2) * wave**2 / 2)
    torch.testing.assert_close(found[0], gain * rows[8:-8, 8:-8], rtol=0, atol=2e-3)
    assert float(found[1].abs().max()) < 1e-9


@settings(max_examples=15, deadline=None)
@given(st.floats(0.01, 0.99), seeds)
def test_a_weaker_picture_has_the_error_of_its_weakness(weaker: float, seed: int) -> None:
    _, y = tensors(*pair((1, 45, 41), 0.0, seed))
    for measure in (quality.nrmse, quality.hfen):
        assert float(measure(weaker * y, y)[0]) == pytest.approx(1 - weaker, abs=1e-9)


@pytest.mark.parametrize("name", list(MEASURES))
def test_a_mask_of_everything_changes_nothing(name: str) -> None:
    x, y = tensors(*pair((2, 48, 52), 0.2, 1))
    whole = MEASURES[name](x, y, torch.ones_like(x, dtype=torch.bool))
    torch.testing.assert_close(whole, MEASURES[name](x, y))


def test_errors_outside_a_mask_do_not_count() -> None:
    """As far from it as a window reaches: HFEN's 7 pixels, SSIM's 3; VIF's windows grow."""
    x, y = tensors(*pair((1, 96, 96), 0.1, 2))
    mask = torch.zeros(1, 96, 96, dtype=torch.bool)
    mask[:, 40:56, 40:56] = True
    worse = x.clone()
    worse[:, :4] += 0.5
    for name, measure in MEASURES.items():
        if name not in ("psnr_db", "ssim"):
            torch.testing.assert_close(measure(worse, y, mask), measure(x, y, mask), msg=name)
            assert not torch.allclose(measure(worse, y), measure(x, y)), name
    for fixed in (quality.psnr, quality.ssim):
        torch.testing.assert_close(fixed(worse, y, 1.0, mask), fixed(x, y, 1.0, mask))


def test_masked_values_are_means_over_the_mask() -> None:
    from skimage.metrics import structural_similarity

    x, y = pair((1, 48, 48), 0.2, 5)
    mask = np.zeros((1, 48, 48), dtype=bool)
    mask[0, 10:30, 15:44] = np.random.default_rng(0).random((20, 29)) < 0.5
    _, similar = structural_similarity(y[0], x[0], data_range=1.0, full=True)
    inside = torch.from_numpy(mask)
    found = quality.ssim(*tensors(x, y), 1.0, inside)
    assert float(found[0]) == pytest.approx(similar[mask[0]].mean(), abs=1e-6)
    square = ((x - y) ** 2)[mask].mean()
    found = quality.psnr(*tensors(x, y), 1.0, inside)
    assert float(found[0]) == pytest.approx(-10 * np.log10(square), abs=1e-9)
    ratio = ((x - y) ** 2)[mask].sum() / (y**2)[mask].sum()
    assert float(quality.nmse(*tensors(x, y), inside)[0]) == pytest.approx(ratio, abs=1e-12)


@pytest.mark.parametrize("name", list(MEASURES))
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_blank_slices_have_finite_values(name: str, dtype: torch.dtype) -> None:
    blank, flat = torch.zeros(1, 48, 41, dtype=dtype), torch.full((1, 48, 41), 5.0, dtype=dtype)
    full = torch.rand(1, 48, 41, dtype=dtype, generator=torch.Generator().manual_seed(0))
    best = {"psnr_db": quality.MOST_PSNR_DB, "ssim": 1.0, "vif": 1.0}.get(name, 0.0)
    for same in (blank, flat):
        assert float(MEASURES[name](same, same)[0]) == pytest.approx(best)
    for x, y in ((full, blank), (blank, full), (flat, blank), (blank, flat), (flat, full)):
        found = float(MEASURES[name](x, y)[0])
        assert np.isfinite(found)
        better = found < best if quality.BETTER[name] == "higher" else found > best
        assert better


@pytest.mark.parametrize("name", list(MEASURES))
def test_slices_are_measured_each_by_itself(name: str) -> None:
    x, y = tensors(*pair((3, 42, 47), 0.2, 4))
    y[1] = 0
    alone = torch.cat([MEASURES[name](x[i : i + 1], y[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(MEASURES[name](x, y), alone)


def test_what_cannot_be_compared_is_refused() -> None:
    x = torch.ones(2, 48, 48)
    with pytest.raises(ValueError, match=r"\(2, 48, 48\), \(2, 48, 47\)"):
        quality.check(x, x[..., :47])  # annotations refuse it earlier where they are checked
    with pytest.raises(ValueError, match="40 x 48"):
        quality.vif(x[:, :40], x[:, :40])
    with pytest.raises(ValueError, match="sigma_nsq 0"):
        quality.vif(x, x, sigma_nsq=0)
    with pytest.raises(ValueError, match="data range"):
        quality.psnr(x, x, -1.0)
    broken = x.clone()
    broken[1, 3, 3] = float("nan")
    with pytest.raises(ValueError, match="slice 1 holds NaN"):
        quality.psnr(broken, x, 1.0)
    mask = torch.ones_like(x, dtype=torch.bool)
    mask[1] = False
    with pytest.raises(ValueError, match="no pixel in slice 1"):
        quality.nmse(x, x, mask)
    mask[1, 1] = True
    with pytest.raises(ValueError, match="SSIM window of 7 x 7 in slice 1"):
        quality.ssim(x, x, 1.0, mask)
    assert quality.comparable(mask, (2, 48, 48)).tolist() == [True, False]
