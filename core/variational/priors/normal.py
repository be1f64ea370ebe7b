"""Normal priors: standard, learned, and conditional on a context."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from torch.distributions import Distribution

from core.variational.distributions import CentredNormal, DiagonalNormal
from core.variational.distributions.base import at_least_single
from core.variational.flows import FlowDistribution
from core.variational.flows.conditioner import Conditioner
from core.variational.priors.base import (
    Prior,
    check_latent,
    diagonal,
    learned,
    refuse_context,
    spread_out,
)


class StandardNormal(Prior):
    r"""A Normal prior of mean 0 with nothing to learn.

    .. math:: p(z) = \mathcal N(0, s^2 I)

    Args:
        scale: Its standard deviation :math:`s` in every dimension.

    Raises:
        ValueError: If the scale is not positive.

    Example:
        >>> import torch
        >>> from core.variational.distributions import DiagonalNormal
        >>> posterior = DiagonalNormal(torch.ones(3, 2), torch.ones(3, 2))
        >>> StandardNormal()(posterior).event_shape
        torch.Size([2])
    """

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        if not scale > 0:
            raise ValueError(f"StandardNormal: scale {scale!r} is not positive")
        self.scale = scale

    def forward(self, posterior: Distribution, context: Tensor | None = None) -> CentredNormal:
        """Return the prior in the posterior's shapes, type and device."""
        refuse_context(self, context)
        return CentredNormal(_like(posterior), self.scale, len(posterior.event_shape))


class LearnedNormal(Prior):
    r"""A Normal prior whose means and scales are learned; it starts as the standard one.

    .. math:: p(z) = \mathcal N(m, \operatorname{diag} s^2)

    Args:
        latent: Number of latent dimensions.
    """

    def __init__(self, latent: int) -> None:
        super().__init__()
        self.latent = latent
        self.loc, self.log_scale = learned(latent), learned(latent)

    def forward(self, posterior: Distribution, context: Tensor | None = None) -> DiagonalNormal:
        """Return the prior in the posterior's shapes."""
        refuse_context(self, context)
        check_latent(self, self.latent, posterior)
        return diagonal(self.loc, self.log_scale, posterior)


class ConditionalNormal(Prior):
    r"""A Normal prior that a network computes from a context.

    .. math:: p(z \mid c) = \mathcal N(m(c), \operatorname{diag} s^2(c))

    References:
        Sohn, Lee and Yan, "Learning Structured Output Representation using Deep Conditional
        Generative Models", NeurIPS 2015.

    Args:
        features: Length of the context.
        latent: Number of latent dimensions.
        hidden: Widths of the network's hidden layers; none makes it linear.
    """

    def __init__(self, features: int, latent: int, hidden: Sequence[int]) -> None:
        super().__init__()
        self.latent = latent
        self.network = Conditioner(features, hidden, 2 * latent)

    def forward(self, posterior: Distribution, context: Tensor | None = None) -> DiagonalNormal:
        """Return the prior for contexts of shape ``(*batch, features)``.

        Raises:
            ValueError: If there is no context.
        """
        check_latent(self, self.latent, posterior)
        if context is None:
            raise ValueError("ConditionalNormal: no context; it needs (*batch, features)")
        loc, log_scale = at_least_single(self.network(context)).chunk(2, -1)
        return diagonal(spread_out(loc, posterior), spread_out(log_scale, posterior), posterior)


def _like(posterior: Distribution) -> Tensor:
    """Return a tensor of the posterior's shape, type and device, drawing nothing if possible."""
    if isinstance(posterior, FlowDistribution):
        return _like(posterior.base)
    try:
        return posterior.mean
    except NotImplementedError:
        return posterior.sample()
