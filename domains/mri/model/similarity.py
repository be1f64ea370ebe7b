"""Structural similarity, differentiable, with the constants and windows of the field."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

WINDOW = 7
K1, K2 = 0.01, 0.03


def ssim_map(
    x: Float[Tensor, "batch height width"],
    y: Float[Tensor, "batch height width"],
    data_range: Float[Tensor, " batch"],
    window: int = WINDOW,
) -> Float[Tensor, "batch rows columns"]:
    r"""Return the similarity of each uniform window that lies wholly inside.

    With the sample covariance, as scikit-image's ``structural_similarity`` has it by default and
    both challenges use it.

    References:
        Wang et al., "Image Quality Assessment: From Error Visibility to Structural Similarity",
        IEEE TIP 13, 2004.

    Args:
        x: Pictures.
        y: Pictures to compare with.
        data_range: Difference of the largest and the smallest possible value, of each pair.
        window: Side of the windows.

    Raises:
        ValueError: If a picture is smaller than a window.
    """
    if min(x.shape[-2:]) < window:
        raise ValueError(
            f"ssim: pictures of {x.shape[-2]} x {x.shape[-1]}; a window has {window} x {window}"
        )
    stacked = torch.stack((x, y, x * x, y * y, x * y), 1)
    mean_x, mean_y, xx, yy, xy = F.avg_pool2d(stacked, window, stride=1).unbind(1)
    unbiased = window**2 / (window**2 - 1)
    variance_x, variance_y = unbiased * (xx - mean_x**2), unbiased * (yy - mean_y**2)
    covariance = unbiased * (xy - mean_x * mean_y)
    c1, c2 = ((k * data_range[:, None, None]) ** 2 for k in (K1, K2))
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    return luminance * (2 * covariance + c2) / (variance_x + variance_y + c2)


def ssim(
    x: Float[Tensor, "batch height width"],
    y: Float[Tensor, "batch height width"],
    data_range: Float[Tensor, " batch"],
) -> Float[Tensor, " batch"]:
    """Return the mean similarity of each pair, see `ssim_map`."""
    return ssim_map(x, y, data_range).mean((-2, -1))
