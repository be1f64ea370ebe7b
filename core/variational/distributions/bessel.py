"""Modified Bessel functions of the first kind of any order, scaled so that nothing overflows.

What the normaliser of a von Mises–Fisher distribution needs; torch has the orders 0 and 1 only.
"""

from __future__ import annotations

import functools
import math
from fractions import Fraction

import torch
from torch import Tensor

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
    :math:`\nu \log \nu`. It can be differentiated any number of times.

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
    exact = x.double()
    small = exact.square() <= 4 * (order + 1)
    near = torch.where(small, exact, 0.0)
    far = torch.where(small, 2 * math.sqrt(order + 1), exact)
    logs, ratios = _recurrence(order, far)
    steps = torch.stack(ratios[1:]).log().sum(0) if len(ratios) > 1 else 0.0
    log_scaled = logs - steps - order * (far / 2).log() + math.lgamma(order + 1)
    return torch.where(small, _series(order + 1, near).log() - near, log_scaled).to(x)


def bessel_ratio(order: float, x: Tensor) -> Tensor:
    r"""Return :math:`I_{\nu + 1}(x) / (x I_\nu(x))`.

    It falls from :math:`1 / (2 \nu + 2)` at 0 like :math:`1 / x`. With :math:`\nu = d / 2 - 1`,
    :math:`x` times it is the mean resultant length of a von Mises–Fisher distribution on the
    sphere in :math:`d` dimensions. Computed in float64 as in `log_bessel`.

    Args:
        order: :math:`\nu \ge 0`.
        x: Not negative.

    Returns:
        Of the shape and type of ``x``.
    """
    exact = x.double()
    small = exact.square() <= 4 * (order + 1)
    near = torch.where(small, exact, 0.0)
    far = torch.where(small, 2 * math.sqrt(order + 1), exact)
    below = _series(order + 2, near) / _series(order + 1, near) / (2 * order + 2)
    return torch.where(small, below, _recurrence(order, far)[1][-1] / far).to(x)


def _series(parameter: float, x: Tensor) -> Tensor:
    """0F1(; parameter; x²/4), all of whose terms are positive."""
    quarter = x.square() / 4
    total = torch.ones_like(x)
    for k in range(SERIES_TERMS, 0, -1):
        total = 1 + total * quarter / (k * (parameter + k - 1))
    return total


def _recurrence(order: float, x: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Return log e^(-x) I at an order of 15 or more, and the ratios from there down to ``order``.

    The ratios are I of (n + 1) over I of n; the last is that of ``order`` itself.
    """
    steps = max(0, math.ceil(LEAST_ORDER - order))
    top = order + steps
    log_top = _uniform_expansion(top, x)
    ratios = [(_uniform_expansion(top + 1, x) - log_top).exp()]
    for step in range(steps):
        ratios.append(1 / (ratios[-1] + 2 * (top - step) / x))
    return log_top, ratios


def _uniform_expansion(order: float, x: Tensor) -> Tensor:
    """Log e^(-x) I(x) of a large order (DLMF 10.41.3), written so that nothing cancels."""
    root = (x.square() + order**2).sqrt()
    exponent = order**2 / (root + x) - order * (order / x).asinh()
    coefficients = torch.tensor(_coefficients(order), dtype=x.dtype, device=x.device)
    powers = torch.arange(len(coefficients), dtype=x.dtype, device=x.device)
    correction = (order / root).unsqueeze(-1).pow(powers) @ coefficients
    return exponent - 0.5 * (2 * math.pi * root).log() + correction.log()


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
