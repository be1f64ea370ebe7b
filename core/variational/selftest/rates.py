"""Quantised latents: a rate is the bits that an entropy coder spends, and masses are masses."""

from __future__ import annotations

import itertools
from bisect import bisect_right
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.distributions import Distribution, Poisson

from core.variational.distributions import (
    DiscretizedLogistic,
    DiscretizedLogisticMixture,
    UniformConvolvedNormal,
    UnitUniform,
    ZeroInflated,
)
from core.variational.divergences import kl
from core.variational.quantization import (
    RoundingQuantizer,
    frequency_table,
    grid_masses,
    rate_bits,
    straight_through,
)
from core.variational.selftest.check import Check, deviation, largest, worst_of, z_limit

PRECISION, SYMBOLS, LAST = 16, 20_000, 40
FULL = 64  # bits of a coder's state from which the first symbols cost what they should
SCALES = (0.1, 0.5, 1.3, 6.0)


@torch.no_grad()
def check_rates() -> list[Check]:
    """Hold the rate to Normal masses, to a coder's bits and to the noise of a training."""
    written = {f"scale {scale}": _written(scale) for scale in SCALES}
    off, misread = ({scale: both[i] for scale, both in written.items()} for i in (0, 1))
    noise = {f"scale {scale}": _noise_deviation(scale) for scale in SCALES}
    limit = z_limit(len(noise), most=4.0)
    return [
        worst_of("masses of the grid − 1", _sums_of_masses(), 1e-6, "absolute"),
        worst_of("rate of rounded latents − Normal masses", _rate_errors(), 1e-9, "bits"),
        worst_of("|bits written − rate| of 0.5 % + 64 bits", off, 1.0, "ratio"),
        worst_of("symbols read back wrong", misread, 0, "symbols"),
        worst_of("rate with noise − its integral", noise, limit, "SE"),
        worst_of("quantised twice − once", {"straight-through": _twice()}, 0, "absolute"),
    ]


def _sums_of_masses() -> dict[str, float]:
    loc = torch.tensor([0.0, 0.37, -2.6], dtype=torch.float64)
    grid = torch.arange(-200, 201, dtype=torch.float64).view(-1, 1)
    pixels = torch.arange(256, dtype=torch.float64).view(-1, 1)
    logits = torch.tensor([[0.2, -1.0], [0.0, 0.5], [1.0, 1.0]], dtype=torch.float64)
    pairs = torch.stack([128 + 40 * loc, 200 - 30 * loc], -1)
    priors: dict[str, tuple[Distribution, Tensor]] = {
        f"Normal and uniform, scale {scale}": (_convolved(loc, scale), loc + grid)
        for scale in SCALES
    }
    priors["discretised logistic"] = (
        DiscretizedLogistic(128 + 40 * loc, 9 + 0 * loc, 0, 255, 256, event_dims=0),
        pixels,
    )
    priors["mixture of discretised logistics"] = (
        DiscretizedLogisticMixture(logits, pairs, 5 + 0 * pairs, 0, 255, 256, event_dims=0),
        pixels,
    )
    priors["zero-inflated Poisson"] = (
        ZeroInflated(Poisson(4 + loc, validate_args=False), loc, event_dims=0),
        pixels,
    )
    return {
        name: largest(prior.log_prob(values).exp().sum(0) - 1)
        for name, (prior, values) in priors.items()
    }


def _convolved(loc: Tensor, scale: float) -> UniformConvolvedNormal:
    return UniformConvolvedNormal(loc, torch.full_like(loc, scale), event_dims=0)


def _rate_errors() -> dict[str, float]:
    """Compare the rate with the difference of the Normal's distribution function."""
    mean = torch.tensor([0.3, -1.2, 4.0], dtype=torch.float64)
    errors = {}
    for scale in SCALES:
        value = mean + scale * torch.randn(200, 3, dtype=torch.float64)
        rounded = RoundingQuantizer("hard")(value, mean)
        upper, lower = (rounded + 0.5 - mean) / scale, (rounded - 0.5 - mean) / scale
        # Both bounds on the left of 0, where the distribution function keeps its digits.
        left = torch.where(lower > 0, -upper, lower)
        right = torch.where(lower > 0, -lower, upper)
        masses = torch.special.ndtr(right) - torch.special.ndtr(left)
        rate = rate_bits(_convolved(mean, scale), rounded)
        errors[f"scale {scale}"] = largest(rate + masses.log2())
    return errors


def _written(scale: float) -> tuple[float, float]:
    """Return how far the bits written are from the rate, and how many symbols are misread."""
    mean = torch.tensor(0.3, dtype=torch.float64)
    prior = _convolved(mean, scale)
    masses = grid_masses(prior, -LAST, LAST, mean)
    frequencies = [int(f) for f in frequency_table(masses, PRECISION).frequencies]
    latents = mean + scale * torch.randn(SYMBOLS, dtype=torch.float64)
    rounded = RoundingQuantizer("hard")(latents, mean)
    symbols = [int(k) for k in (rounded - mean).round() + LAST]
    state = _encode(symbols, frequencies)
    misread = sum(a != b for a, b in zip(symbols, _decode(state, frequencies), strict=True))
    rate = float(rate_bits(prior, rounded).sum())
    bits = state.bit_length() - FULL - 1
    return abs(bits - rate) / (0.005 * rate + 64), float(misread)


def _encode(symbols: Sequence[int], frequencies: Sequence[int]) -> int:
    """Return the state of an asymmetric numeral system (Duda, 2013) as one whole number."""
    starts, state = [0, *itertools.accumulate(frequencies)], 1 << FULL
    for symbol in symbols:
        whole, rest = divmod(state, frequencies[symbol])
        state = (whole << PRECISION) + starts[symbol] + rest
    return state


def _decode(state: int, frequencies: Sequence[int]) -> list[int]:
    starts, symbols = [0, *itertools.accumulate(frequencies)], []
    for _ in range(SYMBOLS):
        slot = state & ((1 << PRECISION) - 1)
        symbol = bisect_right(starts, slot) - 1
        state = frequencies[symbol] * (state >> PRECISION) + slot - starts[symbol]
        symbols.append(symbol)
    return symbols[::-1]


def _noise_deviation(scale: float, draws: int = 50_000) -> float:
    r"""Compare the mean rate under uniform noise with its integral.

    .. math:: \mathbb E_u [-\log p(z + u)] = -\int_{-1/2}^{1/2} \log p(z + u)\, du
    """
    loc = torch.tensor([0.2, 1.7], dtype=torch.float64)
    prior, posterior = _convolved(0 * loc, scale), UnitUniform(loc, event_dims=0)
    value = posterior.rsample(torch.Size((draws,)))
    rate, closed = kl(posterior, prior, value=value)
    if closed:
        raise ValueError("the rate of uniform noise has no closed form, and one was found")
    line = torch.linspace(-0.5, 0.5, 20_001, dtype=torch.float64).view(-1, 1)
    integral = -torch.trapezoid(prior.log_prob(loc + line), line, dim=0)
    return largest(deviation(rate, integral))


def _twice() -> float:
    value = 10 * torch.randn(1000)
    once = straight_through(value, value.round())
    again = straight_through(once, once.round())
    return max(largest(again - once), largest(once - value.round()))
