from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from core.variational.inverse import check_adjoint, operator_norm
from domains.mri.data.fourier import (
    Origin,
    expand,
    fft2,
    fitted,
    ifft2,
    reduce,
    resampled,
    root_sum_of_squares,
    sense,
)

SIZES = st.integers(1, 20)
ORIGINS = st.sampled_from(["centre", "corner"])


def pictures(*shape: int, seed: int = 0, dtype: torch.dtype = torch.complex128) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def normalised(maps: Tensor) -> Tensor:
    return maps / root_sum_of_squares(maps).unsqueeze(-3)


def matrix(size: int, origin: Origin) -> Tensor:
    """The defining matrix of the transform of one side."""
    places = torch.arange(size, dtype=torch.float64) - (size // 2 if origin == "centre" else 0)
    return torch.exp(-2j * math.pi * torch.outer(places, places) / size) / math.sqrt(size)


@settings(max_examples=30, deadline=None)
@given(height=SIZES, width=SIZES, origin=ORIGINS)
def test_the_transform_is_the_defining_sum(height: int, width: int, origin: Origin) -> None:
    x = pictures(2, height, width)
    expected = matrix(height, origin) @ x @ matrix(width, origin).T
    torch.testing.assert_close(fft2(x, origin), expected)
    torch.testing.assert_close(ifft2(fft2(x, origin), origin), x)


@settings(max_examples=30, deadline=None)
@given(height=SIZES, width=SIZES, origin=ORIGINS, seed=st.integers(0, 1000))
def test_energy_and_inner_products_stay(
    height: int, width: int, origin: Origin, seed: int
) -> None:
    x, y = pictures(2, height, width, seed=seed)
    torch.testing.assert_close(fft2(x, origin).abs().square().sum(), x.abs().square().sum())
    torch.testing.assert_close(
        torch.vdot(y.flatten(), fft2(x, origin).flatten()),
        torch.vdot(ifft2(y, origin).flatten(), x.flatten()),
    )


def test_the_corner_is_numpys_and_the_centre_numpys_with_shifts() -> None:
    x = pictures(3, 6, 7)
    ours = fft2(x, "corner").numpy()
    np.testing.assert_allclose(ours, np.fft.fft2(x.numpy(), norm="ortho"))
    shifted = np.fft.ifftshift(x.numpy(), axes=(-2, -1))
    expected = np.fft.fftshift(np.fft.fft2(shifted, norm="ortho"), axes=(-2, -1))
    np.testing.assert_allclose(fft2(x).numpy(), expected)


def test_single_precision_stays_single_and_is_as_exact_as_that() -> None:
    x = pictures(2, 31, 32)
    single = fft2(x.to(torch.complex64))
    assert single.dtype == torch.complex64
    torch.testing.assert_close(single, fft2(x).to(torch.complex64), rtol=0, atol=1e-5)


@settings(max_examples=50, deadline=None)
@given(height=SIZES, width=SIZES, more=st.tuples(SIZES, SIZES))
def test_the_middle_stays_in_the_middle(height: int, width: int, more: tuple[int, int]) -> None:
    x = torch.zeros(2, height, width)
    x[:, height // 2, width // 2] = 1
    found = fitted(x, more)
    assert found.shape == (2, *more)
    assert (found[:, more[0] // 2, more[1] // 2] == 1).all()
    assert float(found.sum()) == 2


@settings(max_examples=50, deadline=None)
@given(height=SIZES, width=SIZES, more=st.tuples(SIZES, SIZES))
def test_what_was_filled_up_is_cut_off_again(
    height: int, width: int, more: tuple[int, int]
) -> None:
    x = pictures(height, width)
    larger = fitted(x, (height + more[0], width + more[1]))
    assert torch.equal(fitted(larger, (height, width)), x)
    assert int((larger != 0).sum()) == height * width


def test_masks_are_fitted_too_and_filled_with_what_is_asked_for() -> None:
    mask = torch.ones(3, 4, dtype=torch.bool)
    assert fitted(mask, (5, 2)).sum(-1).tolist() == [0, 2, 2, 2, 0]
    assert fitted(torch.zeros(1, 1), (1, 3), value=7.0).tolist() == [[7, 0, 7]]


def test_no_length_is_refused() -> None:
    with pytest.raises(ValueError, match=r"fitted: height and width \(0, 4\)"):
        fitted(torch.zeros(4, 4), (0, 4))


@settings(max_examples=30, deadline=None)
@given(
    old=st.tuples(st.integers(8, 20), st.integers(8, 20)),
    new=st.tuples(st.integers(8, 20), st.integers(8, 20)),
    frequency=st.tuples(st.integers(-3, 3), st.integers(-3, 3)),
)
def test_a_wave_is_the_same_wave_on_another_grid(
    old: tuple[int, int], new: tuple[int, int], frequency: tuple[int, int]
) -> None:
    def wave(shape: tuple[int, int]) -> Tensor:
        sides = [
            2j * math.pi * cycles * (torch.arange(size, dtype=torch.float64) - size // 2) / size
            for cycles, size in zip(frequency, shape, strict=True)
        ]
        return torch.exp(sides[0])[:, None] * torch.exp(sides[1])

    torch.testing.assert_close(resampled(wave(old), new), wave(new))


def test_the_root_sum_of_squares_has_a_gradient_where_nothing_was_received() -> None:
    x = torch.zeros(3, 1, 2, dtype=torch.complex128)
    x[:, 0, 0] = torch.tensor([3.0, 4j, 12.0])
    x.requires_grad_()
    found = root_sum_of_squares(x)
    assert found.tolist() == [[13, 0]]
    found.sum().backward()
    assert x.grad is not None
    torch.testing.assert_close(x.grad, x.detach() / 13)


@settings(max_examples=20, deadline=None)
@given(coils=st.integers(1, 4), height=SIZES, width=SIZES, seed=st.integers(0, 1000))
def test_combining_coils_undoes_and_is_the_adjoint_of_expanding(
    coils: int, height: int, width: int, seed: int
) -> None:
    maps = pictures(coils, height, width, seed=seed)
    x, y = pictures(2, height, width, seed=seed + 1), pictures(2, coils, height, width, seed=seed)
    torch.testing.assert_close(reduce(expand(x, normalised(maps)), normalised(maps)), x)
    torch.testing.assert_close(
        torch.vdot(expand(x, maps).flatten(), y.flatten()),
        torch.vdot(x.flatten(), reduce(y, maps).flatten()),
    )


@settings(max_examples=20, deadline=None)
@given(coils=st.integers(1, 4), height=SIZES, width=SIZES, seed=st.integers(0, 1000))
def test_a_measurement_has_its_adjoint_at_any_size_and_of_one_coil(
    coils: int, height: int, width: int, seed: int
) -> None:
    maps = normalised(pictures(coils, height, width, seed=seed))
    mask = torch.rand(height, width, generator=torch.Generator().manual_seed(seed)) < 0.5
    mask[0, 0] = True
    assert check_adjoint(sense(maps, mask), torch.float64, seed=seed) < 1e-12
    single = sense(maps.to(torch.complex64), mask)
    assert check_adjoint(single, seed=seed) < 1e-5


def test_a_measurement_is_what_its_steps_do_for_each_slice_with_its_own_mask() -> None:
    maps, x = pictures(2, 3, 8, 7), pictures(2, 8, 7, seed=1)
    mask = torch.rand(2, 8, 7, generator=torch.Generator().manual_seed(0)) < 0.4
    operator = sense(maps, mask)
    expected = fft2(expand(x, maps)) * mask[:, None]
    torch.testing.assert_close(operator(x), expected)
    y = pictures(2, 3, 8, 7, seed=2)
    torch.testing.assert_close(operator.adjoint(y), reduce(ifft2(y * mask[:, None]), maps))


def test_a_measurement_never_gains_energy_and_a_full_one_keeps_it() -> None:
    maps = normalised(pictures(3, 9, 8))
    half = torch.rand(9, 8, generator=torch.Generator().manual_seed(0)) < 0.5
    full = torch.ones(9, 8, dtype=torch.bool)
    assert operator_norm(sense(maps, half), dtype=torch.float64) <= 1 + 1e-9
    x = pictures(9, 8)
    torch.testing.assert_close(sense(maps, full).normal(x), x)


def test_a_global_phase_goes_through() -> None:
    operator = sense(pictures(2, 6, 5), torch.eye(6, 5) > 0)
    x, turn = pictures(6, 5), torch.exp(torch.tensor(0.7j, dtype=torch.complex128))
    torch.testing.assert_close(operator(turn * x), turn * operator(x))


def test_a_mask_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match=r"mask of height and width \(4, 4\), maps of \(4, 5\)"):
        sense(pictures(2, 4, 5), torch.ones(4, 4, dtype=torch.bool))
