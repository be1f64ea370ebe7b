"""Normal distributions with a diagonal covariance, lean."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence

import torch
from torch import Size, Tensor
from torch.distributions import Distribution, Normal, constraints, register_kl

from core.variational.distributions.base import (
    Diagonal,
    at_least_single,
    check_same_event,
    factors,
    independent_dims,
)

HALF_LOG_TWO_PI = 0.5 * math.log(2 * math.pi)
ONE = torch.Size((1,))


class DiagonalNormal(Diagonal):
    r"""Normal distribution with a diagonal covariance.

    .. math:: \log p(z) = \sum_j -\tfrac12 \left(\frac{z_j - \mu_j}{\sigma_j}\right)^2
        - \log \sigma_j - \tfrac12 \log 2\pi

    The same numbers as torch's ``Independent(Normal(loc, scale), event_dims)`` for a third of its
    overhead: one object, no validation of arguments.

    Args:
        loc: Mean :math:`\mu` of shape ``(*batch, *event)``.
        scale: Standard deviation :math:`\sigma > 0`; broadcasts against ``loc``.
        event_dims: How many of the last dimensions are one event, e.g. 2 for the nodes and latents
            of a graph, 0 for densities element by element (to be masked, then summed).
        log_scale: The logarithm of ``scale``, of its shape, where the caller has it already: a
            training step then neither takes it nor differentiates it again.

    Raises:
        ValueError: If there are fewer dimensions than ``event_dims``.

    Example:
        >>> DiagonalNormal(torch.zeros(3, 2), torch.ones(())).entropy().shape
        torch.Size([3])
    """

    has_rsample = True

    def __init__(
        self, loc: Tensor, scale: Tensor, event_dims: int = 1, log_scale: Tensor | None = None
    ) -> None:
        loc, scale = at_least_single(loc), at_least_single(scale)
        if loc.shape != scale.shape:
            loc, scale = torch.broadcast_tensors(loc, scale)
            log_scale = None
        self.loc = loc
        self.scale = scale
        self._log_scale = None if log_scale is None else at_least_single(log_scale)
        super().__init__(loc.shape, event_dims)

    @property
    def log_scale(self) -> Tensor:
        """The logarithm of the standard deviation."""
        return self.scale.log() if self._log_scale is None else self._log_scale

    @property
    def arg_constraints(self) -> dict[str, constraints.Constraint]:
        """What the parameters may be."""
        return {"loc": constraints.real, "scale": constraints.positive}

    @property
    def mean(self) -> Tensor:
        """The mean, of shape ``(*batch, *event)``."""
        return self.loc

    @property
    def mode(self) -> Tensor:
        """The most probable value."""
        return self.loc

    @property
    def stddev(self) -> Tensor:
        """The standard deviation."""
        return self.scale

    @property
    def variance(self) -> Tensor:
        """The variance, element by element."""
        return self.scale.square()

    def mapped(self, change: Callable[[Tensor], Tensor], event_dims: int) -> DiagonalNormal:
        """Return the same family with ``change`` done to every parameter, and those event dims."""
        return DiagonalNormal(change(self.loc), change(self.scale), event_dims)

    def univariate(self) -> Normal:
        """Return torch's name for it when no dimension is an event."""
        return Normal(self.loc, self.scale, validate_args=False)

    def rsample(self, sample_shape: Size | Sequence[int] = ()) -> Tensor:
        r"""Draw :math:`\mu + \sigma \epsilon` of shape ``(*sample, *batch, *event)``."""
        loc, shape = self.loc, torch.Size(sample_shape)
        if shape == ONE:  # as a view: nothing to sum over the samples on the way back
            noise = torch.randn(loc.shape, dtype=loc.dtype, device=loc.device)
            return torch.addcmul(loc, noise, self.scale).unsqueeze(0)
        noise = torch.randn(shape + loc.shape, dtype=loc.dtype, device=loc.device)
        return torch.addcmul(loc, noise, self.scale)

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log density in nats; ``value`` may have further leading dimensions."""
        self._check(value)
        terms = ((value - self.loc) / self.scale).square().mul(0.5) + self.log_scale
        return -self._sum(terms) - self._event_shape.numel() * HALF_LOG_TWO_PI

    def entropy(self) -> Tensor:
        """Return the differential entropy in nats, of shape ``batch``."""
        constant = self._event_shape.numel() * (0.5 + HALF_LOG_TWO_PI)
        return self._sum(self.log_scale) + constant


class CentredNormal(DiagonalNormal):
    r"""Normal distribution of mean 0 and one scale: the prior whose KL costs least.

    .. math:: KL(q \| p) = \sum_j \frac{\sigma_j^2 + \mu_j^2}{2 s^2} - \log \sigma_j
        + \log s - \tfrac12

    Its scale is a plain number, so that in a training step nothing is subtracted, divided or
    differentiated for its sake. Otherwise the `DiagonalNormal` of zeros and a constant.

    Args:
        like: A tensor of the shape ``(*batch, *event)``, type and device that samples have.
        scale: Standard deviation :math:`s > 0`.
        event_dims: How many of the last dimensions are one event.

    Raises:
        ValueError: If there are fewer dimensions than ``event_dims``.
    """

    def __init__(self, like: Tensor, scale: float = 1.0, event_dims: int = 1) -> None:
        self.number, self.like = scale, at_least_single(like)
        Diagonal.__init__(self, like.shape, event_dims)

    @functools.cached_property
    def loc(self) -> Tensor:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Zeros, made when they are asked for: the KL against this prior needs none."""
        return torch.zeros_like(self.like)

    @functools.cached_property
    def scale(self) -> Tensor:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The standard deviation, made when it is asked for."""
        return torch.full_like(self.like, self.number)

    @property
    def log_scale(self) -> Tensor:
        """The logarithm of the standard deviation."""
        return self.scale.log()


def diagonal_normal_kl_terms(posterior: DiagonalNormal, prior: DiagonalNormal) -> Tensor:
    r"""Return the KL divergence of each element, in nats.

    .. math:: \tfrac12 \left(r_j^2 + d_j^2 - 1\right) - \log r_j, \quad
        r_j = \sigma_j / s_j, \quad d_j = (\mu_j - m_j) / s_j

    with :math:`m, s` the prior's mean and scale.

    Raises:
        ValueError: If the two have different event shapes.
    """
    check_same_event(posterior, prior)
    ratio = posterior.scale / prior.scale
    distance = (posterior.loc - prior.loc) / prior.scale
    return 0.5 * (ratio.square() + distance.square() - 1) - ratio.log()


def as_diagonal_normal(distribution: Distribution) -> DiagonalNormal:
    """Return the same distribution as a `DiagonalNormal`.

    Raises:
        NotImplementedError: If it is not an ``Independent`` of a ``Normal``; what torch's registry
            says for "no closed form".
    """
    if isinstance(distribution, DiagonalNormal):
        return distribution
    dims = independent_dims(distribution)
    base = factors(distribution, dims)
    if (
        dims
        and not base.event_shape
        and (type(base) is Normal or isinstance(base, DiagonalNormal))
    ):
        return DiagonalNormal(base.loc, base.scale, dims)
    raise NotImplementedError(f"{type(distribution).__name__} is no diagonal normal")


def require_diagonal_normal(distribution: Distribution, otherwise: str) -> DiagonalNormal:
    """Return a distribution that a caller gave as a `DiagonalNormal`.

    Raises:
        ValueError: If it is none, with the sentence ``otherwise``.
    """
    try:
        return as_diagonal_normal(distribution)
    except NotImplementedError:
        raise ValueError(otherwise) from None


@register_kl(DiagonalNormal, DiagonalNormal)
def _kl_diagonal_diagonal(posterior: DiagonalNormal, prior: DiagonalNormal) -> Tensor:
    return posterior._sum(diagonal_normal_kl_terms(posterior, prior))


@register_kl(DiagonalNormal, CentredNormal)
def _kl_diagonal_centred(posterior: DiagonalNormal, prior: CentredNormal) -> Tensor:
    check_same_event(posterior, prior)
    loc, scale, half = posterior.loc, posterior.scale, 0.5 / prior.number**2
    # Two fused kernels: log s - (s^2 + m^2) / 2, whose sum is taken away from a number.
    terms = torch.addcmul(posterior.log_scale, scale, scale, value=-half)
    terms = torch.addcmul(terms, loc, loc, value=-half)
    return posterior._event_shape.numel() * (math.log(prior.number) - 0.5) - posterior._sum(terms)
