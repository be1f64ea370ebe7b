"""The linear map over the borders of blocks."""

from __future__ import annotations

import pytest
import torch

from domains.compression.model.transforms import SIDE, Overlap, overlap_matrix

LAYOUTS = (torch.contiguous_format, torch.channels_last)


def picture(layout: torch.memory_format) -> torch.Tensor:
    draw = torch.Generator().manual_seed(0)
    whole = torch.rand(2, 3, 3 * SIDE, 4 * SIDE, generator=draw, dtype=torch.float64)
    return whole.contiguous(memory_format=layout)


def overlap(matrix: torch.Tensor) -> Overlap:
    return Overlap(matrix).double()


def whole_matrix(size: int, matrix: torch.Tensor) -> torch.Tensor:
    """The map of a line of this many pixels, all borders at once."""
    half = torch.eye(SIDE // 2, dtype=torch.float64)
    return torch.block_diag(half, *[matrix.double()] * (size // SIDE - 1), half)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_each_border_is_mapped_down_and_across(layout: torch.memory_format) -> None:
    x = picture(layout)
    matrix = torch.randn(SIDE, SIDE, generator=torch.Generator().manual_seed(1))
    down, across = whole_matrix(x.shape[2], matrix), whole_matrix(x.shape[3], matrix)
    torch.testing.assert_close(overlap(matrix)(x), down @ x @ across.T, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_inverse_undoes_it(layout: torch.memory_format) -> None:
    x, matrix = picture(layout), overlap_matrix()
    back = overlap(torch.linalg.inv(matrix))(overlap(matrix)(x))
    torch.testing.assert_close(back, x, rtol=1e-5, atol=1e-5)


def test_its_gradient_is_that_of_the_matrix() -> None:
    x, matrix = picture(torch.channels_last), overlap_matrix()
    mapping = overlap(matrix)
    weight = torch.rand(x.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    (mapping(x) * weight).sum().backward()
    own = (mapping.own.detach() * mapping.unit).requires_grad_()
    down, across = whole_matrix(x.shape[2], own), whole_matrix(x.shape[3], own)
    ((down @ x @ across.T) * weight).sum().backward()
    assert mapping.own.grad is not None
    assert own.grad is not None
    torch.testing.assert_close(mapping.own.grad, own.grad * mapping.unit, rtol=1e-6, atol=1e-9)


def test_what_it_gives_has_its_channels_last() -> None:
    mapped = Overlap(overlap_matrix())(picture(torch.channels_last).float())
    assert mapped.is_contiguous(memory_format=torch.channels_last)
