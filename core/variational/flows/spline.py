"""Monotone rational-quadratic splines."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

SMALLEST = 1e-3  # of a bin's width and height, as a part of the interval, and of a slope
UNIT_SLOPE = math.log(math.expm1(1 - SMALLEST))  # its softplus is 1 - SMALLEST


def rational_quadratic_spline(
    x: Tensor, raw: Tensor, bound: float, inverse: bool = False
) -> tuple[Tensor, Tensor]:
    r"""Map each number by a monotone spline of :math:`K` bins on :math:`[-B, B]`.

    .. math:: g(\theta) = y_k + h_k \frac{s_k \theta^2 + d_k \theta (1 - \theta)}
        {s_k + (d_{k+1} + d_k - 2 s_k) \theta (1 - \theta)}, \quad
        \theta = \frac{x - x_k}{w_k}, \quad s_k = \frac{h_k}{w_k}

    Outside the interval it is the identity, and it is the identity everywhere if ``raw`` is 0.

    References:
        Durkan et al., "Neural Spline Flows", NeurIPS 2019, section 3.1 and appendix A.1
        (arXiv:1906.04032).

    Args:
        x: Numbers of shape ``shape``.
        raw: Unconstrained widths, heights and inner slopes, of shape ``(3 K - 1, *shape)``: the
            bins come first, so that every operation runs along the numbers.
        bound: :math:`B`.
        inverse: Whether to map back.

    Returns:
        The mapped numbers, and the log slope of the map **forward** at that place.

    Example:
        >>> y, log_slope = rational_quadratic_spline(torch.ones(2), torch.zeros(11, 2), 5.0)
        >>> torch.allclose(y, torch.ones(2)), torch.allclose(log_slope, torch.zeros(2), atol=1e-5)
        (True, True)
    """
    bins = (len(raw) + 1) // 3
    sizes = raw[: 2 * bins].unflatten(0, (2, bins)).softmax(1)
    sizes = (2 * bound) * (SMALLEST + (1 - SMALLEST * bins) * sizes)
    within = x.clamp(-bound, bound)
    passed, here = _bins(within.detach(), sizes.detach()[int(inverse)], bound)
    # Sums against zeros and ones: along so few bins several times faster than a gather.
    start = (sizes[:, :-1] * passed).sum(1) - bound
    size = (sizes * here).sum(1)
    inner = raw[2 * bins :]  # at both ends of the interval the slope is 1, as it is outside
    slopes = torch.stack([(inner * here[1:]).sum(0), (inner * here[:-1]).sum(0)])
    slopes = SMALLEST + functional.softplus(slopes + UNIT_SLOPE)
    in_bin = _backward if inverse else _forward
    y, log_slope = in_bin(within, start, size, slopes)
    outside = within != x
    return torch.where(outside, x, y), log_slope.masked_fill(outside, 0.0)


def _bins(x: Tensor, sizes: Tensor, bound: float) -> tuple[Tensor, Tensor]:
    """Return as zeros and ones which bins but the last a number is beyond, and which it is in."""
    passed = (x >= sizes[:-1].cumsum(0) - bound).to(x.dtype)
    before = torch.cat([torch.ones_like(x).unsqueeze(0), passed])
    after = torch.cat([passed, torch.zeros_like(x).unsqueeze(0)])
    return passed, before - after


def _forward(x: Tensor, start: Tensor, size: Tensor, slopes: Tensor) -> tuple[Tensor, Tensor]:
    (left, bottom), (width, height) = start.unbind(0), size.unbind(0)
    first, last = slopes.unbind(0)
    place, slope = (x - left) / width, height / width
    between = place * (1 - place)
    denominator = slope + (first + last - 2 * slope) * between
    y = bottom + height * (slope * place.square() + first * between) / denominator
    return y, _log_slope(place, between, denominator, slope, first, last)


def _backward(y: Tensor, start: Tensor, size: Tensor, slopes: Tensor) -> tuple[Tensor, Tensor]:
    (left, bottom), (width, height) = start.unbind(0), size.unbind(0)
    first, last = slopes.unbind(0)
    rise, slope = y - bottom, height / width
    bend = first + last - 2 * slope
    quadratic = height * (slope - first) + rise * bend
    linear = height * first - rise * bend
    constant = -slope * rise
    root = (linear.square() - 4 * quadratic * constant).clamp(min=0).sqrt()
    place = 2 * constant / (-linear - root)  # the stable one of the two formulas
    between = place * (1 - place)
    log_slope = _log_slope(place, between, slope + bend * between, slope, first, last)
    return left + place * width, log_slope


def _log_slope(
    place: Tensor,
    between: Tensor,
    denominator: Tensor,
    slope: Tensor,
    first: Tensor,
    last: Tensor,
) -> Tensor:
    ends = last * place.square() + first * (1 - place).square()
    numerator = slope.square() * (ends + 2 * slope * between)
    return numerator.log() - 2 * denominator.log()
