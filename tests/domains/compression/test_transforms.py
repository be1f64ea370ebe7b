"""Transforms of blocks: orthonormal, undone by their inverses, with the coding gains known."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.fft
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from domains.compression.model.transforms import (
    SIDE,
    Branch,
    Overlap,
    beside,
    block_dct,
    blocks_of,
    dct_matrix,
    overlap_matrix,
    overlap_norms,
    picture_of,
    random_orthonormal,
)

CORRELATION = 0.95  # of the process that coding gains are given for


def picture(*size: int) -> Tensor:
    return torch.rand(size, generator=torch.Generator().manual_seed(0))


@given(st.integers(1, 32))
def test_the_dct_is_that_of_scipy(size: int) -> None:
    reference = scipy.fft.dct(np.eye(size), axis=0, norm="ortho")
    np.testing.assert_allclose(dct_matrix(size).numpy(), reference, atol=1e-6)


def test_a_row_of_the_block_transform_is_the_dct_of_a_block_in_a_colour() -> None:
    block = picture(1, 3, SIDE, SIDE)
    found = (block_dct(3 * SIDE**2) @ blocks_of(block, SIDE).flatten()).sort().values
    luma = block.sum(1) / math.sqrt(3)
    red_blue = (block[:, 0] - block[:, 2]) / math.sqrt(2)
    green = (block[:, 0] - 2 * block[:, 1] + block[:, 2]) / math.sqrt(6)
    planes = torch.cat([luma, red_blue, green]).double().numpy()
    reference = np.sort(scipy.fft.dctn(planes, axes=(1, 2), norm="ortho").ravel())
    np.testing.assert_allclose(found.numpy(), reference, atol=1e-5)


def test_the_first_rows_are_the_means_of_the_colours_and_the_lowest_frequencies() -> None:
    colour = torch.tensor([0.2, 0.7, 0.4]).view(1, 3, 1, 1).expand(1, 3, SIDE, SIDE)
    flat = block_dct(192) @ blocks_of(colour, SIDE).flatten()
    assert flat[:3].norm() == pytest.approx(float(colour.norm()))
    assert flat[3:].abs().max() < 1e-5
    # A ramp in grey is nearly all in the first frequency of luma across.
    ramp = torch.linspace(-1, 1, SIDE).expand(1, 3, SIDE, SIDE)
    energy = (block_dct(192) @ blocks_of(ramp, SIDE).flatten()).square()
    assert energy[3:5].max() > 0.98 * energy.sum()


@pytest.mark.parametrize("channels", [1, 24, 128, 192])
@pytest.mark.parametrize("rows_of", [block_dct, random_orthonormal])
def test_rows_are_orthonormal(rows_of, channels: int) -> None:  # noqa: ANN001
    rows = rows_of(channels)
    assert rows.shape == (channels, 3 * SIDE**2)
    torch.testing.assert_close(rows @ rows.T, torch.eye(channels), atol=1e-5, rtol=0)


@pytest.mark.parametrize("lapped", [False, True])
def test_all_coefficients_together_are_the_picture(lapped: bool) -> None:
    rows, matrix = block_dct(3 * SIDE**2), overlap_matrix()
    eye = torch.eye(SIDE)
    before = Overlap(matrix if lapped else eye)
    after = Overlap(torch.linalg.inv(matrix) if lapped else eye)
    x = picture(2, 3, 4 * SIDE, 3 * SIDE)
    coefficients = torch.einsum("kc,bchw->bkhw", rows, blocks_of(before(x), SIDE))
    back = after(picture_of(torch.einsum("kc,bkhw->bchw", rows, coefficients), SIDE))
    torch.testing.assert_close(back, x, atol=1e-5, rtol=0)


def coding_gain_db(matrix: Tensor, blocks: int = 5) -> float:
    """By how much less a line's error is at the same bits than without a transform.

    Of a block in the middle, in float64: a coefficient's error counts as much as the square norm
    of its basis function.
    """
    size = blocks * SIDE
    half = torch.eye(SIDE // 2, dtype=torch.float64)
    before = torch.block_diag(half, *[matrix.double()] * (blocks - 1), half)
    dct = torch.from_numpy(scipy.fft.dct(np.eye(SIDE), axis=0, norm="ortho"))
    forward = torch.block_diag(*[dct] * blocks) @ before
    lag = (torch.arange(size)[:, None] - torch.arange(size)).abs().double()
    variances = (forward @ CORRELATION**lag @ forward.T).diagonal()
    norms = torch.linalg.inv(forward).square().sum(0)
    middle = slice(blocks // 2 * SIDE, (blocks // 2 + 1) * SIDE)
    return -10 * float((variances * norms)[middle].log10().mean())


def test_the_coding_gain_of_the_dct_is_the_known_one() -> None:
    assert coding_gain_db(torch.eye(SIDE)) == pytest.approx(8.83, abs=0.005)


def test_the_lapped_transform_has_the_higher_coding_gain_that_its_docstring_says() -> None:
    assert coding_gain_db(overlap_matrix()) == pytest.approx(9.55, abs=0.005)


def test_a_constant_line_passes_the_filter_before_the_blocks_unchanged() -> None:
    # Else a flat picture would cost bits beyond the means of its blocks.
    lines = overlap_matrix() @ torch.ones(SIDE)
    torch.testing.assert_close(lines, torch.ones(SIDE), atol=1e-5, rtol=0)


def test_the_norm_of_a_coefficient_is_that_of_what_it_draws() -> None:
    channels, after = 24, Overlap(torch.linalg.inv(overlap_matrix()))
    blocks = torch.zeros(channels, 3 * SIDE**2, 3, 3)
    blocks[:, :, 1, 1] = block_dct(channels)
    drawn = after(picture_of(blocks, SIDE)).detach()
    torch.testing.assert_close(drawn.flatten(1).norm(dim=1), overlap_norms(channels))


@settings(max_examples=30, deadline=None)
@given(
    st.integers(1, 2), st.integers(1, 3), st.integers(1, 4), st.integers(1, 4), st.integers(1, 8)
)
def test_blocks_hold_their_pixels_by_row_column_and_colour(
    batch: int, colours: int, rows: int, columns: int, side: int
) -> None:
    x = picture(batch, colours, rows * side, columns * side)
    blocks = blocks_of(x, side)
    assert blocks.shape == (batch, side * side * colours, rows, columns)
    first = x[0, :, :side, :side].permute(1, 2, 0).flatten()
    assert torch.equal(blocks[0, :, 0, 0], first)
    assert torch.equal(picture_of(blocks, side), x)


def test_a_branch_starts_small_and_yet_learns() -> None:
    torch.manual_seed(0)
    branch, x = Branch(12, 16, 10, blocks=2), picture(2, 12, 5, 7)
    out = branch(x)
    assert out.shape == (2, 10, 5, 7)
    assert out.abs().max() < 0.05
    out.square().sum().backward()
    assert all(each.grad is not None and each.grad.any() for each in branch.parameters())


def test_the_place_of_the_rate_is_one_more_plane() -> None:
    x, place = picture(2, 3, 4, 5), torch.tensor([-1.0, 0.5])
    both = beside(x, place)
    assert torch.equal(both[:, :3], x)
    assert torch.equal(both[:, 3], place.view(2, 1, 1).expand(2, 4, 5))
