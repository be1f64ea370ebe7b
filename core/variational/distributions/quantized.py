"""Quantised latents: a unit uniform posterior, and the prior whose density is a bin's mass."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Size, Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.distributions import Uniform, constraints, register_kl

from core.variational.distributions.base import (
    Diagonal,
    LocScale,
    at_least_single,
    check_same_event,
)
from core.variational.distributions.normal import HALF_LOG_TWO_PI, DiagonalNormal


class UnitUniform(Diagonal):
    r"""Uniform distribution of width one: rounding, as noise.

    .. math:: q(z) = \prod_j \mathbb 1\left[|z_j - \mu_j| \le \tfrac12\right]

    Its log density is 0, so that against any prior the Monte Carlo KL of one sample is
    :math:`-\log p(z)`. Against `UniformConvolvedNormal` there is no closed form: the KL is the
    mean of that code length.

    References:
        Ballé et al., "End-to-end Optimized Image Compression", ICLR 2017
        (arXiv:1611.01704).

    Args:
        loc: Centre :math:`\mu` of shape ``(*batch, *event)``, in units of the quantiser's step.
        event_dims: How many of the last dimensions are one event.

    Raises:
        ValueError: If there are fewer dimensions than ``event_dims``.

    Example:
        >>> UnitUniform(torch.zeros(2)).log_prob(torch.tensor([[0.3, 0.4], [0.3, 0.6]]))
        tensor([0., -inf])
    """

    has_rsample = True

    def __init__(self, loc: Tensor, event_dims: int = 1) -> None:
        self.loc = at_least_single(loc)
        super().__init__(self.loc.shape, event_dims)

    @property
    def arg_constraints(self) -> dict[str, constraints.Constraint]:
        """What the parameters may be."""
        return {"loc": constraints.real}

    @property
    def support(self) -> constraints.Constraint:
        """The values that it covers."""
        interval = constraints.interval(self.loc - 0.5, self.loc + 0.5)
        return constraints.independent(interval, self.event_dims)

    def mapped(self, change: Callable[[Tensor], Tensor], event_dims: int) -> UnitUniform:
        """Return the same family with ``change`` done to every parameter, and those event dims."""
        return UnitUniform(change(self.loc), event_dims)

    def univariate(self) -> Uniform:
        """Return torch's name for it when no dimension is an event."""
        return Uniform(self.loc - 0.5, self.loc + 0.5, validate_args=False)

    @property
    def mean(self) -> Tensor:
        """The mean."""
        return self.loc

    @property
    def variance(self) -> Tensor:
        """The variance, element by element: 1/12."""
        return torch.full_like(self.loc, 1 / 12)

    def rsample(self, sample_shape: Size | Sequence[int] = ()) -> Tensor:
        """Draw samples of shape ``(*sample, *batch, *event)``."""
        shape = torch.Size(sample_shape) + self.loc.shape
        return self.loc + (torch.rand(shape, dtype=self.loc.dtype, device=self.loc.device) - 0.5)

    def log_prob(self, value: Tensor) -> Tensor:
        """Return 0 nats inside and -inf outside, where the rounding of the sum is inside."""
        self._check(value)
        slack = 2 * torch.finfo(self.loc.dtype).eps * (1 + self.loc.abs())
        inside = (value - self.loc).abs() <= 0.5 + slack
        return self._sum(torch.where(inside, 0.0, -torch.inf).to(self.loc))

    def entropy(self) -> Tensor:
        """Return the differential entropy: 0 nats."""
        return self._sum(torch.zeros_like(self.loc))


class UniformConvolvedNormal(LocScale):
    r"""Normal distribution convolved with a uniform one of width one.

    .. math:: p(z) = \left(\mathcal N(m, s^2) \circledast U(-\tfrac12, \tfrac12)\right)(z)
        = \Phi\left(\frac{z + \frac12 - m}{s}\right) - \Phi\left(\frac{z - \frac12 - m}{s}\right)

    At each :math:`z` the density is the Normal's mass of the unit interval around it. On a grid
    of step one it is thus a probability: the masses of :math:`\{m + k : k \in \mathbb Z\}` add up
    to 1, and :math:`-\log_2 p` is what an ideal entropy coder spends. This is the rate of
    QRes-VAE, in training with a `UnitUniform` posterior, at test with `nearest`.

    The mass is never clamped. Its logarithm and the gradient of it are right at any distance:
    relative error about :math:`s` times the type's precision, and never more than that precision
    to the power 2/3.

    References:
        Duan et al., "Lossy Image Compression with Quantized Hierarchical VAEs", WACV 2023
        (arXiv:2208.13056); Ballé et al., "Variational Image Compression with a Scale
        Hyperprior", ICLR 2018 (arXiv:1802.01436).

    Args:
        loc: Mean :math:`m` of shape ``(*batch, *event)``, in units of the quantiser's step.
        scale: Standard deviation :math:`s > 0` of the Normal; broadcasts against ``loc``.
        event_dims: How many of the last dimensions are one event.

    Raises:
        ValueError: If there are fewer dimensions than ``event_dims``.

    Example:
        >>> UniformConvolvedNormal(torch.zeros(1), torch.ones(1)).log_prob(torch.zeros(1)).exp()
        tensor(0.3829)
    """

    has_rsample = True

    @property
    def mean(self) -> Tensor:
        """The mean."""
        return self.loc

    @property
    def mode(self) -> Tensor:
        """The most probable value."""
        return self.loc

    @property
    def variance(self) -> Tensor:
        """The variance, element by element."""
        return self.scale.square() + 1 / 12

    def rsample(self, sample_shape: Size | Sequence[int] = ()) -> Tensor:
        """Draw samples of shape ``(*sample, *batch, *event)``; not on the grid (see `nearest`)."""
        shape = torch.Size(sample_shape) + self.loc.shape
        noise = torch.randn(shape, dtype=self.loc.dtype, device=self.loc.device)
        return torch.addcmul(self.loc, noise, self.scale) + (torch.rand_like(noise) - 0.5)

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log density in nats, which on the grid is a log probability."""
        self._check(value)
        mass: Any = _LogMass.apply((value - self.loc).abs(), self.scale)
        return self._sum(mass)

    def nearest(self, value: Tensor) -> Tensor:
        r"""Return the nearest point of the grid :math:`m + \mathbb Z`: what is coded and decoded.

        No gradient passes to ``value``: rounding is for test time.
        """
        return self.loc + (value - self.loc).detach().round()

    def code_length(self, value: Tensor) -> Tensor:
        """Return the ideal code length of the nearest grid point, in bits, of shape ``batch``."""
        return -self.log_prob(self.nearest(value)) / math.log(2)


class _LogMass(Function):
    r"""Log of :math:`M = \Phi(u) - \Phi(u - w)` with :math:`w = 1/s, u = (1/2 - \delta) w`.

    With :math:`q = \delta w^2` its derivatives by the distance and by the scale are

    .. math:: -w \frac{\varphi(u)}{M} (1 - e^{-q}), \quad
        -w \frac{\varphi(u)}{M} \left(u (1 - e^{-q}) + w e^{-q}\right)

    in which nothing cancels, as it would in the derivative of a difference of logarithms.
    """

    @staticmethod
    def forward(ctx: Any, distance: Tensor, scale: Tensor) -> Tensor:
        upper = (0.5 - distance) / scale
        log_density = -0.5 * upper.square() - HALF_LOG_TWO_PI
        log_mass = _log_mass(distance, scale)
        hazard = (log_density - log_mass).exp()
        hard = _is_hard(distance, scale)
        if distance.is_cuda:  # no look at the values, which would wait for the device
            far = _log_mills(distance, scale)
            log_mass = torch.where(hard, log_density + far, log_mass)
            hazard = torch.where(hard, (-far).exp(), hazard)
        elif bool(hard.any()):
            each = (part.expand_as(hard)[hard] for part in (distance, scale))
            far = _log_mills(*each)
            log_mass[hard], hazard[hard] = log_density[hard] + far, (-far).exp()
        ctx.save_for_backward(distance, scale, hazard)
        return log_mass

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        distance, scale, hazard = ctx.saved_tensors
        width = 1 / scale
        upper = (0.5 - distance) * width
        quotient = distance * width.square()
        fall = torch.expm1(-quotient)
        slope = gradient * width * hazard
        by_distance, by_scale = slope * fall, slope * (upper * fall - width * (-quotient).exp())
        return by_distance.sum_to_size(distance.shape), by_scale.sum_to_size(scale.shape)


def _log_mass(distance: Tensor, scale: Tensor) -> Tensor:
    """Log M as a difference of error functions near the interval, of complements away from it.

    Each is taken where it cancels less.
    """
    root = math.sqrt(0.5) / scale
    near, far = (distance - 0.5) * root, (distance + 0.5) * root
    inner = torch.erf(far) - torch.erf(near)
    outer = torch.erfc(near) - torch.erfc(far)
    return (0.5 * torch.where(near < 0.5, inner, outer)).log()


def _is_hard(distance: Tensor, scale: Tensor) -> Tensor:
    """Where `_log_mass` would cancel (a scale of many intervals) or underflow (far away)."""
    width = 1 / scale
    tiny = torch.finfo(scale.dtype).tiny
    return (distance > 0.5) & (
        _is_flat(width, distance * width) | ((distance - 0.5) * width > _sigmas_to(tiny))
    )


def _sigmas_to(mass: float) -> float:
    """How many standard deviations out the upper tail is safely above a mass."""
    return math.sqrt(-2 * math.log(mass)) - 1


def _is_flat(width: Tensor, middle: Tensor) -> Tensor:
    limit = (24 * torch.finfo(width.dtype).eps) ** (1 / 3)
    return width * middle.clamp(min=1) < limit


def _log_mills(distance: Tensor, scale: Tensor) -> Tensor:
    """Log of M over the Normal density at u, outside the interval.

    A difference of scaled complementary error functions. Where it would cancel, the width times
    the density at the middle c of the interval, which is off by w² (c² - 1) / 24.
    """
    width = 1 / scale
    middle = distance * width
    quotient = middle * width
    nearer = torch.special.erfcx((distance - 0.5) * width / math.sqrt(2))
    farther = torch.special.erfcx((distance + 0.5) * width / math.sqrt(2))
    differences = (nearer - torch.exp(-quotient) * farther).log() + 0.5 * math.log(math.pi / 2)
    around = width.log() - quotient / 2 + width.square() / 8
    return torch.where(_is_flat(width, middle), around, differences)


@register_kl(UnitUniform, DiagonalNormal)
def _kl_unit_uniform_normal(posterior: UnitUniform, prior: DiagonalNormal) -> Tensor:
    check_same_event(posterior, prior)
    squares = (posterior.loc - prior.loc).square() + 1 / 12
    terms = 0.5 * squares / prior.scale.square() + prior.scale.log() + HALF_LOG_TWO_PI
    return posterior._sum(terms)
