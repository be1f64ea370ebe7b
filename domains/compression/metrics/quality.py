"""How far a picture is from the original: mean squared error, PSNR and MS-SSIM of 8-bit values."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float, Shaped
from torch import Tensor

PEAK = 255.0
MOST_PSNR_DB = 99.99  # what equal pictures get, so that means and intervals stay finite

WINDOW, DEVIATION = 11, 1.5  # of the Gaussian that local statistics are taken under, in pixels
K1, K2 = 0.01, 0.03
WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)

Pixels = Shaped[Tensor, "_ _ _"]  # (colour, height, width), 0 to 255 of any type
Planes = Float[Tensor, "_ 1 _ _"]


def mean_squared_error(a: Pixels, b: Pixels) -> float:
    """Return the mean over pixels and colours, in squared grey levels of 8 bits.

    Raises:
        ValueError: If the pictures differ in size.
    """
    _check(a, b)
    return float((a.double() - b.double()).square().mean())


def psnr_of(mean_squared_error: float) -> float:
    r"""Return the PSNR in dB, 99.99 at most.

    .. math:: 10 \log_{10} \frac{255^2}{\mathrm{MSE}}

    Example:
        >>> psnr_of(0.0), round(psnr_of(1.0), 2)
        (99.99, 48.13)
    """
    if mean_squared_error <= 0:
        return MOST_PSNR_DB
    return min(10 * math.log10(PEAK**2 / mean_squared_error), MOST_PSNR_DB)


def psnr(a: Pixels, b: Pixels) -> float:
    """Return the PSNR of 8-bit values over all colours together, in dB; 99.99 of equal pictures.

    Raises:
        ValueError: If the pictures differ in size.
    """
    return psnr_of(mean_squared_error(a, b))


def ms_ssim(a: Pixels, b: Pixels) -> float:
    r"""Return the multi-scale structural similarity of 8-bit values, mean over colours.

    .. math:: \prod_{j=1}^{M} \overline{cs_j}^{\,w_j} \cdot \bar l_M^{\,w_M}

    with the mean of :math:`l_M \, cs_M` taken over products, as in common use, and negative means
    of contrast and structure taken as 0. Local statistics are under a Gaussian that lies wholly in
    the picture; each scale is half the one before, by means of 2 x 2 (of an odd side's last row,
    by what there is).

    A picture of a side below 161 has no room for five scales: it gets as many as fit, their
    weights scaled to sum to 1; the window is cut to a side below 11.

    References:
        Wang, Simoncelli and Bovik, "Multiscale Structural Similarity for Image Quality
        Assessment", Asilomar 2003, eq. 7 and the weights of section 3.2.

    Args:
        a: A picture.
        b: Another one of its size.

    Raises:
        ValueError: If the pictures differ in size.

    Example:
        >>> ms_ssim(torch.zeros(3, 200, 200), torch.zeros(3, 200, 200))
        1.0
    """
    _check(a, b)
    x, y = a.double().unsqueeze(1), b.double().unsqueeze(1)
    count = scales_that_fit(min(a.shape[1:]))
    weights = torch.tensor(WEIGHTS[:count], dtype=torch.float64)
    terms = []
    for scale in range(count):
        similarity, contrast = _similarity(x, y)
        terms.append(similarity if scale == count - 1 else contrast)
        x, y = (F.avg_pool2d(each, 2, ceil_mode=True) for each in (x, y))
    if count < len(WEIGHTS):
        weights /= weights.sum()
    powers = torch.stack(terms).clamp(min=0) ** weights.unsqueeze(1)
    return float(powers.prod(0).mean())


def scales_that_fit(side: int) -> int:
    """Return how many scales have room for a window, of the five; one at least.

    Example:
        >>> scales_that_fit(161), scales_that_fit(160), scales_that_fit(5)
        (5, 4, 1)
    """
    count = 1
    while count < len(WEIGHTS) and -(-side // 2**count) >= WINDOW:
        count += 1
    return count


def decibels(similarity: float) -> float:
    r"""Return :math:`-10 \log_{10}(1 - m)`, which spreads what is near 1; 99.99 at most.

    Example:
        >>> round(decibels(0.99), 6), decibels(1.0)
        (20.0, 99.99)
    """
    return min(-10 * math.log10(max(1 - similarity, 1e-10)), MOST_PSNR_DB)


def _check(a: Tensor, b: Tensor) -> None:
    if a.shape != b.shape or a.dim() != 3 or not a.numel():
        raise ValueError(
            f"pictures of shapes {tuple(a.shape)} and {tuple(b.shape)}; expected two of one "
            "(colour, height, width)"
        )


def _similarity(x: Planes, y: Planes) -> tuple[Float[Tensor, " colour"], Float[Tensor, " colour"]]:
    """Means of the similarity, and of its part without luminance, for each colour."""
    c1, c2 = (K1 * PEAK) ** 2, (K2 * PEAK) ** 2
    mean_x, mean_y = _blurred(x), _blurred(y)
    variance_x = _blurred(x * x) - mean_x**2
    variance_y = _blurred(y * y) - mean_y**2
    covariance = _blurred(x * y) - mean_x * mean_y
    contrast = (2 * covariance + c2) / (variance_x + variance_y + c2)
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    return (luminance * contrast).mean((1, 2, 3)), contrast.mean((1, 2, 3))


def _blurred(x: Planes) -> Planes:
    """Means under the Gaussian wherever it fits, one direction after the other."""
    for dimension in (2, 3):
        weights = _gaussian(min(WINDOW, x.shape[dimension]))
        room = x.shape[dimension] - len(weights) + 1
        parts = [x.narrow(dimension, start, room) for start in range(len(weights))]
        total = parts[0] * weights[0]
        for part, weight in zip(parts[1:], weights[1:], strict=True):
            total.add_(part, alpha=weight)
        x = total
    return x


def _gaussian(size: int) -> list[float]:
    places = torch.arange(size, dtype=torch.float64) - (size - 1) / 2
    weights = torch.exp(-(places**2) / (2 * DEVIATION**2))
    return (weights / weights.sum()).tolist()
