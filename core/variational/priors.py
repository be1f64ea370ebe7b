"""Priors: modules whose forward gives the distribution that a posterior is held against."""

from __future__ import annotations

from torch import nn
from torch.distributions import Distribution

from core.variational.distributions import CentredNormal


class StandardNormal(nn.Module):
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

    def forward(self, posterior: Distribution) -> CentredNormal:
        """Return the prior in the posterior's shapes, type and device."""
        return CentredNormal(posterior.mean, self.scale, len(posterior.event_shape))
