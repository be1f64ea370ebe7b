"""Structural similarity against scikit-image."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from domains.mri.model.similarity import ssim


@given(st.integers(7, 40), st.integers(7, 40), st.floats(0, 2), st.integers(0, 2**16))
def test_it_is_what_scikit_image_computes(
    height: int, width: int, noise: float, seed: int
) -> None:
    from skimage.metrics import structural_similarity

    random = np.random.default_rng(seed)
    x = random.random((height, width))
    y = x + noise * random.standard_normal((height, width))
    expected = structural_similarity(x, y, data_range=1.3)
    found = ssim(torch.tensor(x)[None], torch.tensor(y)[None], torch.tensor([1.3]).double())
    assert float(found) == pytest.approx(float(expected), abs=1e-6)


def test_a_picture_is_like_itself() -> None:
    x = torch.rand(2, 9, 11)
    torch.testing.assert_close(ssim(x, x, torch.ones(2)), torch.ones(2))


def test_a_picture_smaller_than_a_window_is_refused() -> None:
    with pytest.raises(ValueError, match="6 x 9"):
        ssim(torch.zeros(1, 6, 9), torch.zeros(1, 6, 9), torch.ones(1))
