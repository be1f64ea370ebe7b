"""A random example of every pair whose KL we register: what tests and the self-test hold to it.

A pair that is registered anywhere in ``core`` and has no example here fails a test that names it.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Generator, Tensor
from torch.distributions import (
    Distribution,
    Independent,
    Laplace,
    LowRankMultivariateNormal,
    MultivariateNormal,
    VonMises,
    kl,
)

from core.variational.distributions.base import Product
from core.variational.distributions.bernoulli import LogitsBernoulli
from core.variational.distributions.circular import WrappedNormal
from core.variational.distributions.normal import CentredNormal, DiagonalNormal
from core.variational.distributions.quantized import UnitUniform
from core.variational.distributions.sphere import HypersphericalUniform, PowerSpherical
from core.variational.distributions.von_mises_fisher import VonMisesFisher

BATCH, DIMENSION, RANK = 4, 3, 2

Pair = tuple[type[Distribution], type[Distribution]]
Maker = Callable[[Generator, float], Distribution]
Example = Callable[[Generator, float, float], tuple[Distribution, Distribution]]

_EXAMPLES: dict[Pair, Example] = {}


def registered_pairs() -> list[Pair]:
    """Return the pairs whose KL is registered by a function of ``core``, in order of their names.

    Only modules that are imported have registered theirs.
    """
    ours = [
        pair
        for pair, function in kl._KL_REGISTRY.items()
        if function.__module__.startswith("core.")
    ]
    return sorted(ours, key=lambda pair: (pair[0].__name__, pair[1].__name__))


def examples() -> dict[Pair, Example]:
    """Return how to make a random posterior and prior of each registered pair.

    Each is called with a generator, and what the scales (or concentrations) of the posterior and
    of the prior are multiplied by; it gives float64 distributions of one batch shape.

    Example:
        >>> make = examples()[DiagonalNormal, DiagonalNormal]
        >>> posterior, prior = make(torch.Generator().manual_seed(0), 1.0, 1000.0)
        >>> posterior.batch_shape
        torch.Size([4])
    """
    return dict(_EXAMPLES)


def add_example(pair: Pair, posterior: Maker, prior: Maker) -> None:
    """Say how to make an example of a pair: for who registers a KL elsewhere.

    Args:
        pair: The classes, as given to ``register_kl``.
        posterior: Makes the first from a generator and a factor of its scales.
        prior: Makes the second.
    """
    _EXAMPLES[pair] = lambda generator, scale, other: (
        posterior(generator, scale),
        prior(generator, other),
    )


def _randn(generator: Generator, *shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=generator)


def _loc_and_scale(generator: Generator, scale: float) -> tuple[Tensor, Tensor]:
    loc = scale * _randn(generator, BATCH, DIMENSION)
    return loc, scale * (0.5 * _randn(generator, BATCH, DIMENSION)).exp()


def _diagonal(generator: Generator, scale: float) -> DiagonalNormal:
    return DiagonalNormal(*_loc_and_scale(generator, scale))


def _centred(generator: Generator, scale: float) -> CentredNormal:
    return CentredNormal(torch.zeros(BATCH, DIMENSION, dtype=torch.float64), scale)


def _independent_normal(generator: Generator, scale: float) -> Independent:
    return Independent(_diagonal(generator, scale).mapped(_same, 0), 1, validate_args=False)


def _independent_laplace(generator: Generator, scale: float) -> Independent:
    laplace = Laplace(*_loc_and_scale(generator, scale), validate_args=False)
    return Independent(laplace, 1, validate_args=False)


def _full(generator: Generator, scale: float) -> MultivariateNormal:
    loc, diagonal = _loc_and_scale(generator, scale)
    lower = (0.7 * scale * _randn(generator, BATCH, DIMENSION, DIMENSION)).tril(-1)
    return MultivariateNormal(
        loc, scale_tril=lower + torch.diag_embed(diagonal), validate_args=False
    )


def _low_rank(generator: Generator, scale: float) -> LowRankMultivariateNormal:
    loc, diagonal = _loc_and_scale(generator, scale)
    factor = scale * _randn(generator, BATCH, DIMENSION, RANK)
    return LowRankMultivariateNormal(loc, factor, diagonal.square(), validate_args=False)


def _bernoulli(generator: Generator, scale: float) -> LogitsBernoulli:
    return LogitsBernoulli(2 * scale * _randn(generator, BATCH, DIMENSION))


def _unit_uniform(generator: Generator, scale: float) -> UnitUniform:
    return UnitUniform(scale * _randn(generator, BATCH, DIMENSION))


def _angles(generator: Generator, scale: float) -> tuple[Tensor, Tensor]:
    loc = 3 * _randn(generator, BATCH)
    return loc, scale * _randn(generator, BATCH).exp()


def _von_mises(generator: Generator, scale: float) -> VonMises:
    return VonMises(*_angles(generator, scale), validate_args=False)


def _wrapped_normal(generator: Generator, scale: float) -> WrappedNormal:
    return WrappedNormal(*_angles(generator, scale), event_dims=0)


def _direction_and_concentration(generator: Generator, scale: float) -> tuple[Tensor, Tensor]:
    return _randn(generator, BATCH, DIMENSION), 3 * scale * _randn(generator, BATCH).exp()


def _von_mises_fisher(generator: Generator, scale: float) -> VonMisesFisher:
    return VonMisesFisher(*_direction_and_concentration(generator, scale))


def _power_spherical(generator: Generator, scale: float) -> PowerSpherical:
    return PowerSpherical(*_direction_and_concentration(generator, scale))


def _hyperspherical(generator: Generator, scale: float) -> HypersphericalUniform:
    return HypersphericalUniform(torch.zeros(BATCH, DIMENSION, dtype=torch.float64))


def _same(parameter: Tensor) -> Tensor:
    return parameter


add_example((DiagonalNormal, DiagonalNormal), _diagonal, _diagonal)
add_example((DiagonalNormal, CentredNormal), _diagonal, _centred)
add_example((Product, Independent), _diagonal, _independent_laplace)
add_example((Independent, Product), _independent_laplace, _diagonal)
add_example((DiagonalNormal, MultivariateNormal), _diagonal, _full)
add_example((MultivariateNormal, DiagonalNormal), _full, _diagonal)
add_example((DiagonalNormal, LowRankMultivariateNormal), _diagonal, _low_rank)
add_example((LowRankMultivariateNormal, DiagonalNormal), _low_rank, _diagonal)
add_example((Independent, MultivariateNormal), _independent_normal, _full)
add_example((MultivariateNormal, Independent), _full, _independent_normal)
add_example((Independent, LowRankMultivariateNormal), _independent_normal, _low_rank)
add_example((LowRankMultivariateNormal, Independent), _low_rank, _independent_normal)
add_example((LogitsBernoulli, LogitsBernoulli), _bernoulli, _bernoulli)
add_example((UnitUniform, DiagonalNormal), _unit_uniform, _diagonal)
add_example((VonMises, VonMises), _von_mises, _von_mises)
add_example((WrappedNormal, VonMises), _wrapped_normal, _von_mises)
add_example((VonMisesFisher, VonMisesFisher), _von_mises_fisher, _von_mises_fisher)
add_example((VonMisesFisher, HypersphericalUniform), _von_mises_fisher, _hyperspherical)
add_example((HypersphericalUniform, VonMisesFisher), _hyperspherical, _von_mises_fisher)
add_example((PowerSpherical, VonMisesFisher), _power_spherical, _von_mises_fisher)
add_example((PowerSpherical, HypersphericalUniform), _power_spherical, _hyperspherical)
add_example((HypersphericalUniform, PowerSpherical), _hyperspherical, _power_spherical)
add_example((HypersphericalUniform, HypersphericalUniform), _hyperspherical, _hyperspherical)
