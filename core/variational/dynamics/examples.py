"""Random examples of each pair whose KL is registered here, to hold the closed forms against."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Generator, Tensor
from torch.distributions import Distribution, Independent

from core.variational.distributions import DiagonalNormal
from core.variational.distributions.registry_examples import Maker, Pair, add_example
from core.variational.dynamics.gauss_markov import GaussMarkov
from core.variational.dynamics.linear_dynamics import LinearDynamicsPath

BATCH, TIME, LATENT = 3, 4, 2


def kl_examples() -> dict[Pair, Callable[[int], tuple[Distribution, Distribution]]]:
    """Return how to make a random posterior and prior, from a seed, of each pair of classes."""
    return {pair: _from_seed(*makers) for pair, makers in _pairs().items()}


def diagonal_normal(generator: Generator, scale: float = 1.0) -> DiagonalNormal:
    """Return a `DiagonalNormal` over (time, latent)."""
    loc, log_scale = _normal(generator, 2, BATCH, TIME, LATENT)
    return DiagonalNormal(scale * loc, scale * (0.5 * log_scale).exp(), event_dims=2)


def independent_normal(generator: Generator, scale: float = 1.0) -> Independent:
    """Return the same as independent steps."""
    normal = diagonal_normal(generator, scale)
    return Independent(DiagonalNormal(normal.loc, normal.scale), 1, validate_args=False)


def gauss_markov(generator: Generator, scale: float = 1.0) -> GaussMarkov:
    """Return a `GaussMarkov` with full transitions that vary with time."""
    raw = 0.5 * _normal(generator, BATCH, TIME, LATENT, LATENT)
    scale_tril = raw.tril(-1) + torch.diag_embed(raw.diagonal(dim1=-2, dim2=-1).exp())
    transition = 0.6 * _normal(generator, BATCH, TIME - 1, LATENT, LATENT)
    offset = _normal(generator, BATCH, TIME, LATENT)
    return GaussMarkov(transition, scale * offset, scale * scale_tril)


def linear_dynamics_path(generator: Generator, scale: float = 1.0) -> LinearDynamicsPath:
    """Return a `LinearDynamicsPath` with complex transitions that vary with time."""
    modes = LATENT // 2
    modulus = torch.rand(BATCH, TIME - 1, modes, generator=generator, dtype=torch.float64)
    transition = torch.polar(modulus, 3 * _normal(generator, BATCH, TIME - 1, modes))
    noise = (0.5 * _normal(generator, BATCH, TIME, modes)).exp()
    loc = _normal(generator, BATCH, LATENT)
    return LinearDynamicsPath(transition, scale * noise, scale * loc)


def _pairs() -> dict[Pair, tuple[Maker, Maker]]:
    plain = {DiagonalNormal: diagonal_normal, Independent: independent_normal}
    chains = {GaussMarkov: gauss_markov, LinearDynamicsPath: linear_dynamics_path}
    makers = plain | chains
    return {
        (q, p): (makers[q], makers[p])
        for q in makers
        for p in makers
        if q in chains or p in chains
    }


def _from_seed(
    posterior: Maker, prior: Maker
) -> Callable[[int], tuple[Distribution, Distribution]]:
    def make(seed: int) -> tuple[Distribution, Distribution]:
        generator = Generator().manual_seed(seed)
        return posterior(generator, 1.0), prior(generator, 1.0)

    return make


def _normal(generator: Generator, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


for _pair, _makers in _pairs().items():
    add_example(_pair, *_makers)
