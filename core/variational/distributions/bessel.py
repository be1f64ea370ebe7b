"""Modified Bessel functions of the first kind of any order, scaled so that nothing overflows.

What the normaliser of a von Mises–Fisher distribution needs; torch has the orders 0 and 1 only.
"""

from __future__ import annotations

import functools
import math
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

LEAST_ORDER = 15  # from which order on the uniform expansion is exact in float64
EXPANSION_TERMS = 14
SERIES_TERMS = 20


def log_bessel(order: float, x: Tensor) -> Tensor:
    r"""Return the log of the exponentially scaled Bessel function, divided by its value near 0.

    .. math:: \log \frac{\Gamma(\nu + 1)}{(x / 2)^\nu} e^{-x} I_\nu(x)
        = \log {}_0F_1(; \nu + 1; x^2 / 4) - x

    0 at :math:`x = 0`, finite at any other :math:`x`. By the power series where
    :math:`x^2 \le 4 (\nu + 1)`. Elsewhere by Olver's expansion at an order of 15 or more, and from
    there down by the recurrence of the ratios, which is stable in that direction. Computed in
    float64; its absolute error is about 1e-15 times the larger of 1, :math:`\nu \log x` and
    :math:`\nu \log \nu`. It can be differentiated once, as accurately.

    References:
        DLMF, eqs. 10.25.2, 10.29.1 and 10.41.3 (https://dlmf.nist.gov/10).

    Args:
        order: :math:`\nu \ge 0`.
        x: Not negative.

    Returns:
        Of the shape and type of ``x``.

    Example:
        >>> log_bessel(0.5, torch.tensor([0.0, 1e6]))  # of order 1/2: log((1 - e^(-2x)) / 2x)
        tensor([  0.0000, -14.5087])
    """
    return log_bessel_and_ratio(order, x)[0]


def bessel_ratio(order: float, x: Tensor) -> Tensor:
    r"""Return :math:`I_{\nu + 1}(x) / (x I_\nu(x))`.

    It falls from :math:`1 / (2 \nu + 2)` at 0 like :math:`1 / x`. With :math:`\nu = d / 2 - 1`,
    :math:`x` times it is the mean resultant length of a von Mises–Fisher distribution on the
    sphere in :math:`d` dimensions. Computed in float64 as `log_bessel` is; it can be
    differentiated once, as accurately.

    Args:
        order: :math:`\nu \ge 0`.
        x: Not negative.

    Returns:
        Of the shape and type of ``x``.
    """
    return log_bessel_and_ratio(order, x)[1]


def log_bessel_and_ratio(order: float, x: Tensor) -> tuple[Tensor, Tensor]:
    """Return `log_bessel` and `bessel_ratio` for the price of one."""
    both: Any = _Bessel.apply(x, order)
    return both


class _Bessel(Function):
    """The two functions, with derivatives that the same recurrence gives."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, order: float) -> tuple[Tensor, Tensor]:
        exact = x.double()
        small = exact.square() <= 4 * (order + 1)
        near = _near(order, torch.where(small, exact, 0.0))
        far = _far(order, torch.where(small, 2 * math.sqrt(order + 1), exact))
        log, ratio, slope = (torch.where(small, *each) for each in zip(near, far, strict=True))
        ctx.save_for_backward(exact, ratio, slope)
        return log.to(x), ratio.to(x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, by_log: Tensor, by_ratio: Tensor) -> tuple[Tensor, None]:
        x, ratio, slope = ctx.saved_tensors
        return (by_log * (x * ratio - 1) + by_ratio * slope).to(by_log), None


def _near(order: float, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return log, ratio and slope of the ratio from the power series."""
    first, second, third = (_series(order + k, x) for k in (1, 2, 3))
    ratio = second / first / (2 * order + 2)
    slope = x * ratio * (third / second / (2 * order + 4) - ratio)
    return first.log() - x, ratio, slope


def _series(parameter: float, x: Tensor) -> Tensor:
    """0F1(; parameter; x²/4), all of whose terms are positive."""
    quarter = x.square() / 4
    total = torch.ones_like(x)
    for k in range(SERIES_TERMS, 0, -1):
        total = 1 + total * quarter / (k * (parameter + k - 1))
    return total


def _far(order: float, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return log, ratio and slope of the ratio from an order of 15 or more downwards.

    In the recurrence the ratio is I of (n + 1) over I of n.
    """
    steps = max(0, math.ceil(LEAST_ORDER - order))
    top = order + steps
    log, log_slope = _uniform_expansion(top, x)
    above, above_slope = _uniform_expansion(top + 1, x)
    ratio = (above - log).exp()
    slope = ratio * (above_slope - log_slope)
    product = torch.ones_like(x)
    for n in (top - step for step in range(steps)):
        ratio, last = 1 / (ratio + 2 * n / x), slope
        slope = ratio.square() * (2 * n / x.square() - last)
        product = product * ratio
    log = log - product.log() - order * (x / 2).log() + math.lgamma(order + 1)
    return log, ratio / x, (slope - ratio / x) / x


def _uniform_expansion(order: float, x: Tensor) -> tuple[Tensor, Tensor]:
    """Log e^(-x) I(x) of a large order and its slope (DLMF 10.41.3), where nothing cancels."""
    root = (x.square() + order**2).sqrt()
    exponent = order**2 / (root + x) - order * (order / x).asinh()
    exponent_slope = order**2 / (x * (root + x))
    p = order / root
    powers = torch.arange(3 * EXPANSION_TERMS + 1, dtype=x.dtype, device=x.device)
    coefficients = torch.tensor(_coefficients(order), dtype=x.dtype, device=x.device)
    # A sum and its derivative times p, by which p itself changes as -x/root² times p.
    sums = p.unsqueeze(-1).pow(powers) @ torch.stack([coefficients, powers * coefficients], -1)
    correction, change = sums.unbind(-1)
    log = exponent - 0.5 * (2 * math.pi * root).log() + correction.log()
    return log, exponent_slope - x / root.square() * (0.5 + change / correction)


@functools.lru_cache
def _coefficients(order: float) -> tuple[float, ...]:
    """Of the powers of p in the sum of U_k(p) / order^k."""
    total = [0.0] * (3 * EXPANSION_TERMS + 1)
    for k, polynomial in enumerate(_debye_polynomials()):
        for power, coefficient in enumerate(polynomial):
            total[power] += float(coefficient) / order**k
    return tuple(total)


@functools.lru_cache
def _debye_polynomials() -> tuple[tuple[Fraction, ...], ...]:
    """U_0 to U_K by their recurrence (DLMF 10.41.9), as coefficients of ascending powers."""
    polynomials = [[Fraction(1)]]
    for _ in range(EXPANSION_TERMS):
        last = polynomials[-1]
        following = [Fraction(0)] * (len(last) + 3)
        for power, coefficient in enumerate(last):
            following[power + 1] += coefficient * (
                Fraction(power, 2) + Fraction(1, 8 * (power + 1))
            )
            following[power + 3] -= coefficient * (
                Fraction(power, 2) + Fraction(5, 8 * (power + 3))
            )
        polynomials.append(following)
    return tuple(tuple(polynomial) for polynomial in polynomials)
