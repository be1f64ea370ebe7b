"""Classical reconstructions solve what they say they solve."""

from __future__ import annotations

import pytest
import torch
from scanned import sampled, scanned
from torch import Tensor

from domains.mri.data.fourier import sense
from domains.mri.model.classical import (
    cg_sense,
    scale_of,
    tv,
    wavelet,
    zero_filled,
)

Measured = tuple[Tensor, Tensor, Tensor, Tensor]


@pytest.fixture(scope="module")
def measured() -> Measured:
    """k-space, maps in the body, mask and picture, each with a batch dimension."""
    kspace, maps, picture = scanned(noise=0.03)
    mask = sampled(64, 5, 16)
    body = picture.abs() > 0
    return (kspace * mask)[None], (maps * body)[None], mask[None], picture[None]


def error(found: Tensor, picture: Tensor) -> float:
    return float((found.abs() - picture.abs()).norm() / picture.norm())


def test_all_samples_give_the_picture() -> None:
    kspace, maps, picture = scanned()
    torch.testing.assert_close(zero_filled(kspace[None])[0], picture.abs(), atol=1e-4, rtol=1e-4)
    mask = torch.ones(1, 64, 64, dtype=torch.bool)
    found = cg_sense(kspace[None], maps[None], mask, 0.0)
    torch.testing.assert_close(found[0], picture, atol=1e-4, rtol=1e-4)


def test_cg_sense_solves_its_normal_equations(measured: Measured) -> None:
    kspace, maps, mask, _ = measured
    operator, weight = sense(maps, mask), 0.02
    x = cg_sense(kspace, maps, mask, weight, 200)
    left = operator.normal(x) + weight * x - operator.adjoint(kspace)
    assert float(left.norm() / operator.adjoint(kspace).norm()) < 1e-4


@pytest.mark.parametrize("method", [wavelet, tv])
def test_no_penalty_is_the_least_squares(method: object, measured: Measured) -> None:
    kspace, maps, mask, _ = measured
    operator = sense(maps, mask)
    x = method(kspace, maps, mask, 0.0, 300)  # type: ignore[operator]
    gradient = operator.adjoint(operator(x) - kspace)
    assert float(gradient.norm() / operator.adjoint(kspace).norm()) < 5e-3


def test_penalties_help_and_each_is_better_than_the_one_before(measured: Measured) -> None:
    kspace, maps, mask, picture = measured
    zero = error(zero_filled(kspace), picture)
    plain = error(cg_sense(kspace, maps, mask, 0.01), picture)
    sparse = error(wavelet(kspace, maps, mask, 0.01), picture)
    flat = error(tv(kspace, maps, mask, 0.005), picture)
    assert max(sparse, flat) < plain < zero


def test_total_variation_does_not_grow_with_its_weight(measured: Measured) -> None:
    kspace, maps, mask, _ = measured

    def variation(weight: float) -> float:
        x = tv(kspace, maps, mask, weight)
        return float(x.diff(dim=-1).abs().sum() + x.diff(dim=-2).abs().sum())

    assert variation(0.1) < variation(0.02) < variation(0.002)


@pytest.mark.parametrize("method", [wavelet, tv])
def test_a_result_scales_with_the_data(method: object, measured: Measured) -> None:
    kspace, maps, mask, _ = measured
    small = method(kspace, maps, mask, 0.01, 20)  # type: ignore[operator]
    large = method(1e4 * kspace, maps, mask, 0.01, 20)  # type: ignore[operator]
    torch.testing.assert_close(large / 1e4, small, atol=1e-4, rtol=1e-3)


def test_odd_sizes_one_coil_and_nothing() -> None:
    nothing = torch.zeros(2, 1, 33, 30, dtype=torch.complex64)
    mask = sampled(33, 3, 8)[None, :, :30].expand(2, -1, -1)
    maps = torch.ones_like(nothing)
    for found in (
        cg_sense(nothing, maps, mask, 0.01),
        wavelet(nothing, maps, mask, 0.01, 3),
        tv(nothing, maps, mask, 0.01, 3),
        zero_filled(nothing),
    ):
        assert found.shape == (2, 33, 30)
        assert float(found.abs().max()) == 0
    assert torch.equal(scale_of(nothing), torch.ones(2))
