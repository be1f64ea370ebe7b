"""The unit sphere: its uniform distribution and the power spherical one."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Size, Tensor
from torch.distributions import Beta, constraints, register_kl
from torch.nn import functional

from core.variational.distributions.base import Product, at_least_single, check_same_event


class _UnitVector(constraints.Constraint):
    """A vector of length one, to the precision of its type."""

    event_dim = 1

    def check(self, value: Tensor) -> Tensor:
        tolerance = 100 * torch.finfo(value.dtype).eps
        return (value.norm(dim=-1) - 1).abs() <= tolerance


unit_vector = _UnitVector()


class Spherical(Product):
    """Shapes of a distribution of unit vectors: the last dimension is the vector."""

    factor_dims = 1
    has_rsample = True

    def __init__(self, shape: Size, event_dims: int) -> None:
        if not 1 <= event_dims <= len(shape) or shape[-1] < 2:
            raise ValueError(
                f"{type(self).__name__}: event_dims={event_dims} with vectors of shape "
                f"{tuple(shape)}; allowed is 1 to {len(shape)}, and vectors of 2 numbers or more"
            )
        self.event_dims = event_dims
        self.dimension = shape[-1]
        split = len(shape) - event_dims
        super().__init__(shape[:split], shape[split:], validate_args=False)

    def _sum(self, terms: Tensor) -> Tensor:
        return terms.flatten(1 - self.event_dims).sum(-1) if self.event_dims > 1 else terms

    def _check(self, value: Tensor) -> None:
        if value.shape[-self.event_dims :] != self._event_shape:
            raise ValueError(
                f"{type(self).__name__}: value of shape {tuple(value.shape)} does not end in the "
                f"event shape {tuple(self._event_shape)}"
            )

    @property
    def support(self) -> constraints.Constraint:
        """The values that it covers."""
        return constraints.independent(unit_vector, self.event_dims - 1)


class HypersphericalUniform(Spherical):
    r"""Uniform distribution of unit vectors.

    .. math:: p(x) = \frac{\Gamma(d / 2)}{2 \pi^{d/2}}, \quad x \in S^{d-1}

    Densities are with respect to the area of the sphere; on the circle that is the angle.

    Args:
        like: A tensor of the shape ``(*batch, *event)``, type and device that samples have; its
            last dimension is the vector's :math:`d \ge 2`.
        event_dims: How many of the last dimensions are one event, that of the vector included.

    Raises:
        ValueError: If a vector has fewer than 2 numbers, or ``event_dims`` does not fit.

    Example:
        >>> HypersphericalUniform(torch.zeros(5, 2)).entropy()[0]  # log 2π
        tensor(1.8379)
    """

    def __init__(self, like: Tensor, event_dims: int = 1) -> None:
        # One number in memory whatever the shape: only its shape, type and device are read.
        self.like = at_least_single(like.detach().new_zeros(())).expand(like.shape)
        super().__init__(like.shape, event_dims)

    @property
    def arg_constraints(self) -> dict[str, constraints.Constraint]:
        """What the parameters may be; there are none."""
        return {}

    def mapped(self, change: Callable[[Tensor], Tensor], event_dims: int) -> HypersphericalUniform:
        """Return the same family with ``change`` done to every parameter, and those event dims."""
        return HypersphericalUniform(change(self.like), event_dims)

    @property
    def mean(self) -> Tensor:
        """The mean, which is the centre of the sphere."""
        return self.like

    @property
    def variance(self) -> Tensor:
        """The variance, element by element."""
        return self.like + 1 / self.dimension

    def rsample(self, sample_shape: Size | Sequence[int] = ()) -> Tensor:
        """Draw unit vectors of shape ``(*sample, *batch, *event)``."""
        return uniform_directions(torch.Size(sample_shape) + self.like.shape, self.like)

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log density in nats of unit vectors, which is not checked."""
        self._check(value)
        shape = torch.broadcast_shapes(value.shape, self.like.shape)
        density = self.like.new_tensor(-log_sphere_area(self.dimension))
        return self._sum(density.expand(shape[:-1]))

    def entropy(self) -> Tensor:
        """Return the differential entropy in nats, of shape ``batch``."""
        area = self.like.new_tensor(log_sphere_area(self.dimension))
        return self._sum(area.expand(self.like.shape[:-1]))


class Directed(Spherical):
    """What distributions around a mean direction share: it and a concentration; abstract."""

    def __init__(self, loc: Tensor, concentration: Tensor, event_dims: int = 1) -> None:
        self.loc, self.concentration = directions(loc, concentration)
        super().__init__(self.loc.shape, event_dims)

    @property
    def arg_constraints(self) -> dict[str, constraints.Constraint]:
        """What the parameters may be."""
        return {"loc": unit_vector, "concentration": constraints.nonnegative}

    def mapped(self, change: Callable[[Tensor], Tensor], event_dims: int) -> Directed:
        """Return the same family with ``change`` done to every parameter, and those event dims."""
        return type(self)(change(self.loc), change(self.concentration), event_dims)

    @property
    def mean_resultant_length(self) -> Tensor:
        """How long the mean vector is, from 0 for the uniform distribution to 1."""
        raise NotImplementedError

    @property
    def mean(self) -> Tensor:
        """The mean, which is inside the sphere."""
        return self.mean_resultant_length.unsqueeze(-1) * self.loc

    @property
    def mode(self) -> Tensor:
        """The most probable vector."""
        return self.loc


class PowerSpherical(Directed):
    r"""Power spherical distribution: as concentrated as von Mises–Fisher, and sampled exactly.

    .. math:: p(x) = \frac{(1 + \mu^\top x)^\kappa}{N(\kappa)}, \quad
        N = 2^{\alpha + \beta} \pi^\beta \frac{\Gamma(\alpha)}{\Gamma(\alpha + \beta)}, \quad
        \alpha = \beta + \kappa, \quad \beta = \tfrac{d - 1}{2}

    A sample is :math:`t \mu + \sqrt{1 - t^2}\, v` with :math:`(1 + t) / 2 \sim
    \mathrm{Beta}(\alpha, \beta)` and :math:`v` uniform among the directions at right angles to
    :math:`\mu`: no rejection. Its gradient is that of the reparameterisation: exact for
    :math:`\mu`, and for :math:`\kappa` as exact as torch's implicit gradient of a Beta.

    References:
        De Cao and Aziz, "The Power Spherical distribution", 2020
        (arXiv:2006.04437).

    Args:
        loc: Mean direction :math:`\mu` of shape ``(*batch, *event)``; any length but 0, which is
            divided out.
        concentration: :math:`\kappa \ge 0`, one for each vector; broadcasts against
            ``loc[..., 0]``.
        event_dims: How many of the last dimensions are one event, that of the vector included.

    Raises:
        ValueError: If a vector has fewer than 2 numbers, or ``event_dims`` does not fit.

    Example:
        >>> PowerSpherical(torch.tensor([0.0, 0.0, 1.0]), torch.tensor(0.0)).entropy()  # log 4π
        tensor(2.5310)
    """

    @property
    def _beta(self) -> float:
        return (self.dimension - 1) / 2

    @property
    def mean_resultant_length(self) -> Tensor:
        """How long the mean vector is, from 0 for the uniform distribution to 1."""
        return self.concentration / (self.concentration + 2 * self._beta)

    @property
    def variance(self) -> Tensor:
        """The variance, element by element."""
        alpha, beta = self._beta + self.concentration, self._beta
        total = alpha + beta
        along = 4 * alpha * beta / (total.square() * (total + 1))
        across = (1 - along - self.mean_resultant_length.square()) / (self.dimension - 1)
        return spherical_variance(self.loc, along, across)

    def rsample(self, sample_shape: Size | Sequence[int] = ()) -> Tensor:
        """Draw unit vectors of shape ``(*sample, *batch, *event)``."""
        beta = torch.full_like(self.concentration, self._beta)
        # The small one of the two shares, so that 1 - t keeps its digits near the mode.
        share = Beta(beta, beta + self.concentration, validate_args=False)
        return around(self.loc, 2 * share.rsample(torch.Size(sample_shape)))

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log density in nats of unit vectors, which is not checked."""
        self._check(value)
        # (1 + t) / 2 by the squared distance from the mode or the antipode, whichever is nearer.
        from_mode = 0.25 * (value - self.loc).square().sum(-1)
        from_antipode = 0.25 * (value + self.loc).square().sum(-1)
        near = from_mode < 0.5
        share = torch.where(
            near, (-from_mode.clamp(max=0.75)).log1p(), from_antipode.clamp(min=0).log()
        )
        return self._sum(self.concentration * share - self._log_scaled_normalizer())

    def _log_scaled_normalizer(self, dtype: torch.dtype | None = None) -> Tensor:
        r"""Return the log of :math:`N(\kappa) / 2^\kappa`, computed in float64."""
        alpha = self.concentration.double() + self._beta
        constant = self._beta * math.log(4 * math.pi)
        result = constant + torch.lgamma(alpha) - torch.lgamma(alpha + self._beta)
        return result.to(dtype or self.concentration.dtype)

    def _entropy_terms(self) -> Tensor:
        """Entropy of each vector, in float64."""
        alpha = self.concentration.double() + self._beta
        mean_log_share = torch.digamma(alpha) - torch.digamma(alpha + self._beta)
        return self._log_scaled_normalizer(torch.float64) - self.concentration * mean_log_share

    def entropy(self) -> Tensor:
        """Return the differential entropy in nats, of shape ``batch``."""
        return self._sum(self._entropy_terms()).to(self.concentration)


def log_sphere_area(dimension: int) -> float:
    r"""Return the log of the area of the unit sphere in ``dimension`` dimensions.

    Example:
        >>> round(math.exp(log_sphere_area(3)) / math.pi, 12)
        4.0
    """
    half = dimension / 2
    return math.log(2) + half * math.log(math.pi) - math.lgamma(half)


def directions(loc: Tensor, concentration: Tensor) -> tuple[Tensor, Tensor]:
    """Return unit vectors and their concentrations, broadcast against each other."""
    loc, concentration = at_least_single(loc), at_least_single(concentration)
    shape = torch.broadcast_shapes(loc.shape[:-1], concentration.shape)
    loc = functional.normalize(loc, dim=-1, eps=torch.finfo(loc.dtype).tiny)
    return loc.expand(shape + loc.shape[-1:]), concentration.expand(shape)


def uniform_directions(shape: Size, like: Tensor) -> Tensor:
    """Draw unit vectors of the shape given, uniformly."""
    return functional.normalize(torch.randn(shape, dtype=like.dtype, device=like.device), dim=-1)


def around(loc: Tensor, versine: Tensor) -> Tensor:
    r"""Return unit vectors at the distances given from ``loc``, in uniform directions.

    .. math:: x = (1 - y)\, \mu + \sqrt{y (2 - y)}\, v, \quad v \perp \mu

    The directions come from the equator of a fixed pole by the reflection that takes the pole
    to :math:`\mu` or :math:`-\mu`, whichever is farther from it, so that nothing is divided by a
    small number and the gradient with respect to :math:`\mu` has a finite variance.

    Args:
        loc: Mean directions, unit vectors.
        versine: :math:`y = 1 - \mu^\top x`, between 0 and 2, with further leading dimensions.
    """
    shape = versine.shape + loc.shape[-1:]
    equator = uniform_directions(torch.Size((*shape[:-1], shape[-1] - 1)), loc)
    pole, rest = loc[..., :1], loc[..., 1:]
    sign = torch.where(pole < 0, -1.0, 1.0).to(loc)
    share = (rest * equator).sum(-1, keepdim=True) / (1 + pole.abs())
    first = -share * (pole + sign)
    across = torch.cat([first, equator - share * rest], -1)
    versine = versine.unsqueeze(-1)
    return loc - versine * loc + safe_sqrt(versine * (2 - versine)) * across


def safe_sqrt(value: Tensor) -> Tensor:
    """The square root, with a finite slope where a number underflows to 0."""
    return value.clamp(min=torch.finfo(value.dtype).tiny).sqrt()


def spherical_variance(loc: Tensor, along: Tensor, across: Tensor) -> Tensor:
    """Return the variance of each coordinate from those along and across the mean direction."""
    squares = loc.square()
    return along.unsqueeze(-1) * squares + across.unsqueeze(-1) * (1 - squares)


@register_kl(HypersphericalUniform, HypersphericalUniform)
def _kl_uniform_uniform(posterior: HypersphericalUniform, prior: HypersphericalUniform) -> Tensor:
    check_same_event(posterior, prior)
    shape = torch.broadcast_shapes(posterior.batch_shape, prior.batch_shape)
    return posterior.like.new_zeros(shape)


@register_kl(PowerSpherical, HypersphericalUniform)
def _kl_power_uniform(posterior: PowerSpherical, prior: HypersphericalUniform) -> Tensor:
    check_same_event(posterior, prior)
    terms = log_sphere_area(posterior.dimension) - posterior._entropy_terms()
    return posterior._sum(terms).to(posterior.loc) + torch.zeros_like(prior.entropy())


@register_kl(HypersphericalUniform, PowerSpherical)
def _kl_uniform_power(posterior: HypersphericalUniform, prior: PowerSpherical) -> Tensor:
    check_same_event(posterior, prior)
    beta = torch.tensor(prior._beta, dtype=torch.float64, device=prior.loc.device)
    mean_log_share = torch.digamma(beta) - torch.digamma(2 * beta)
    terms = prior._log_scaled_normalizer(torch.float64) - prior.concentration * mean_log_share
    terms = prior._sum(terms - log_sphere_area(prior.dimension)).to(prior.loc)
    return terms + torch.zeros_like(posterior.entropy())
