"""Priors: modules whose forward gives the distribution that a posterior is held against."""

from __future__ import annotations

from torch import nn
from torch.distributions import Distribution

from core.variational.distributions import DiagonalNormal


class StandardNormal(nn.Module):
    r"""A Normal prior of mean 0 with nothing to learn.

    .. math:: p(z) = \mathcal N(0, s^2 I)

    Args:
        scale: Its standard deviation :math:`s` in every dimension.

    Raises:
        ValueError: If the scale is not positive.

    Example:
        >>> import torch
        >>> posterior = DiagonalNormal(torch.ones(3, 2), torch.ones(3, 2))
        >>> StandardNormal()(posterior).event_shape
        torch.Size([2])
    """

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        if not scale > 0:
            raise ValueError(f"StandardNormal: scale {scale!r} is not positive")
        self.scale = scale

    def forward(self, posterior: Distribution) -> DiagonalNormal:
        """Return the prior in the posterior's shapes, type and device."""
        mean = posterior.mean
        loc, scale = mean.new_zeros(()), mean.new_full((), self.scale)
        event_dims = len(posterior.event_shape)
        return DiagonalNormal(loc.expand(mean.shape), scale.expand(mean.shape), event_dims)
