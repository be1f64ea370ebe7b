"""PSNR and MS-SSIM, against formulas, a second implementation and what must not change them."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pytorch_msssim import ms_ssim as second_ms_ssim
from pytorch_msssim.ssim import _ssim as one_scale
from sklearn.datasets import load_sample_image
from torch import Tensor

from domains.compression.metrics.quality import (
    MOST_PSNR_DB,
    WEIGHTS,
    decibels,
    mean_squared_error,
    ms_ssim,
    psnr,
    scales_that_fit,
)


def photograph(height: int, width: int) -> Tensor:
    """A part of a photograph that comes with scikit-learn."""
    whole = torch.from_numpy(load_sample_image("china.jpg").copy()).permute(2, 0, 1)
    return whole[:, 40 : 40 + height, 40 : 40 + width].contiguous()


def noisy(pixels: Tensor, deviation: float) -> Tensor:
    """A picture with Normal noise, rounded to 8 bits."""
    noise = torch.randn(pixels.shape, generator=torch.Generator().manual_seed(0)) * deviation
    return (pixels + noise).round().clamp(0, 255).to(torch.uint8)


def window() -> Tensor:
    """The Gaussian in double precision, which the second implementation has in single."""
    weights = torch.exp(-((torch.arange(11).double() - 5) ** 2) / (2 * 1.5**2))
    return (weights / weights.sum()).expand(3, 1, 1, 11)


@given(st.integers(1, 255))
@settings(max_examples=20, deadline=None)
def test_psnr_of_a_constant_error_is_its_closed_form(error: int) -> None:
    black = torch.zeros(3, 4, 5, dtype=torch.uint8)
    expected = 20 * math.log10(255 / error)
    assert psnr(black, black + error) == pytest.approx(expected, rel=1e-12)


def test_the_error_is_the_mean_over_all_colours_not_of_their_psnr() -> None:
    a = torch.zeros(3, 2, 2, dtype=torch.uint8)
    b = a.clone()
    b[0] = 3
    assert mean_squared_error(a, b) == 3.0
    assert psnr(a, b) == pytest.approx(10 * math.log10(255**2 / 3))


def test_equal_pictures_have_a_finite_psnr_and_similarity_one() -> None:
    picture = photograph(64, 48)
    assert psnr(picture, picture) == MOST_PSNR_DB
    assert ms_ssim(picture, picture) == pytest.approx(1.0, abs=1e-12)
    assert decibels(1.0) == MOST_PSNR_DB


@pytest.mark.parametrize("deviation", [2.0, 15.0, 60.0])
@pytest.mark.parametrize("size", [(176, 176), (192, 336)])
def test_ms_ssim_agrees_with_a_second_implementation(
    size: tuple[int, int], deviation: float
) -> None:
    a = photograph(*size)
    b = noisy(a, deviation)
    expected = second_ms_ssim(a[None].double(), b[None].double(), data_range=255, win=window())
    assert ms_ssim(a, b) == pytest.approx(float(expected), abs=1e-10)


@pytest.mark.parametrize(("side", "count"), [(96, 4), (40, 2), (16, 1)])
def test_fewer_scales_agree_with_a_second_implementation_at_weights_of_sum_one(
    side: int, count: int
) -> None:
    a = photograph(side, 2 * side)
    b = noisy(a, 20)
    x, y, terms = a[None].double(), b[None].double(), []
    for _ in range(count):
        similarity, contrast = one_scale(x, y, 255, window(), size_average=False)
        terms.append(contrast)
        x, y = torch.nn.functional.avg_pool2d(x, 2), torch.nn.functional.avg_pool2d(y, 2)
    terms[-1] = similarity
    weights = torch.tensor(WEIGHTS[:count], dtype=torch.float64)
    powers = torch.stack(terms) ** (weights / weights.sum()).view(-1, 1, 1)
    assert scales_that_fit(side) == count
    assert ms_ssim(a, b) == pytest.approx(float(powers.prod(0).mean()), abs=1e-10)


@given(st.integers(1, 40), st.integers(1, 40), st.floats(1, 100))
@settings(max_examples=25, deadline=None)
def test_ms_ssim_of_any_size_is_between_0_and_1_and_symmetric(
    height: int, width: int, deviation: float
) -> None:
    a = photograph(height, width)
    b = noisy(a, deviation)
    similarity = ms_ssim(a, b)
    assert 0 <= similarity <= 1
    assert similarity == pytest.approx(ms_ssim(b, a), abs=1e-12)


def test_ms_ssim_does_not_change_when_both_pictures_are_turned() -> None:
    a = photograph(165, 203)
    b = noisy(a, 25)
    turned = ms_ssim(a.transpose(1, 2), b.transpose(1, 2))
    assert ms_ssim(a, b) == pytest.approx(turned, abs=1e-12)


def test_more_noise_is_less_similar() -> None:
    a = photograph(170, 170)
    found = [ms_ssim(a, noisy(a, deviation)) for deviation in (1, 5, 20, 80)]
    assert found == sorted(found, reverse=True)


def test_pictures_of_two_sizes_are_not_compared() -> None:
    a = torch.zeros(3, 4, 4, dtype=torch.uint8)
    with pytest.raises(ValueError, match=r"\(3, 4, 4\) and \(3, 4, 1\)"):
        psnr(a, a[:, :, :1])
