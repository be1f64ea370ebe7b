r"""The rate index: one number of a file that sets the price of an error and every step size.

Quality 0 to 63 is what a person asks for; each quality is divided into four, so that a wanted
rate or distortion can be met closely: index 0 to 252.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from domains.compression.config import Rates

FINE = 4
LAST = 63 * FINE
INDICES = LAST + 1
MIDDLE = LAST // 2


def index_of(quality: int) -> int:
    """Return the rate index of a quality of 0 to 63.

    Example:
        >>> index_of(63) == LAST
        True
    """
    return quality * FINE


def place(rate: Int64[Tensor, " batch"]) -> Float[Tensor, " batch"]:
    """Return where between -1 (lowest rate) and 1 a rate index lies."""
    return (rate - MIDDLE).float() / MIDDLE


def price(rate: Int64[Tensor, " batch"], rates: Rates) -> Float[Tensor, " batch"]:
    r"""Return the price :math:`\lambda` of an error, in bits per pixel and (grey level)²."""
    low, high = math.log(rates.lowest), math.log(rates.highest)
    return torch.exp((low + high) / 2 + place(rate) * (high - low) / 2)


def noise_scale(rate: Int64[Tensor, " batch"], rates: Rates) -> Float[Tensor, " batch"]:
    r"""Return the standard deviation of the Normal likelihood that a price is, in pixel units.

    .. math:: \frac{3\, \mathrm{MSE}}{2 \sigma^2} = \lambda \ln 2 \cdot 255^2\, \mathrm{MSE}
        \quad \Rightarrow \quad \sigma = \frac{1}{255} \sqrt{\frac{3}{2 \lambda \ln 2}}

    in nats per pixel of three values between 0 and 1: bits plus price times error is the negative
    ELBO, up to a constant.
    """
    return (1.5 / (price(rate, rates) * math.log(2))).sqrt() / 255


class Gain(nn.Module):
    r"""How many quantisation steps a coefficient of one is, for each channel and rate.

    .. math:: \ln g_c(\lambda) = a_c + b_c \ln(\lambda / \bar\lambda)

    with :math:`b = \tfrac12` to start with: at a high rate the best step is proportional to
    :math:`\lambda^{-1/2}`.

    Args:
        start: The gain :math:`e^a` of each channel to start with.
        rates: The scale of rates, whose middle is :math:`\bar\lambda`.
    """

    def __init__(self, start: Float[Tensor, " channel"], rates: Rates) -> None:
        super().__init__()
        self.logarithm = nn.Parameter(start.log())
        self.slope = nn.Parameter(torch.full_like(start, 0.5))
        self.range = math.log(rates.highest / rates.lowest) / 2

    def forward(self, rate: Int64[Tensor, " batch"]) -> Float[Tensor, "batch channel"]:
        """Return the logarithm of the gain."""
        return self.logarithm + self.slope * (place(rate) * self.range).unsqueeze(-1)
