"""Posteriors without a width to learn: a unit uniform (quantised latents), and a point."""

from __future__ import annotations

from torch import Tensor

from core.variational.distributions import Delta, UnitUniform
from core.variational.posteriors.base import Posterior


class UniformPosterior(Posterior):
    r"""A uniform distribution of width 1: what rounding does, as noise.

    .. math:: q(z \mid x) = \mathcal U(\mu - \tfrac12, \mu + \tfrac12)

    References:
        Ballé, Laparra and Simoncelli, "End-to-end Optimized Image Compression", ICLR 2017
        (arXiv:1611.01704).

    Args:
        features: Size of the last dimension of its input; None if that is the raw parameters.
        latent: Number of latent dimensions.
        event_dims: Event dimensions of the distribution, the latent one included.
    """

    def __init__(self, features: int | None, latent: int, event_dims: int = 1) -> None:
        super().__init__(features, latent, event_dims)

    def forward(self, features: Tensor) -> UnitUniform:
        """Return the posterior for features of shape ``(*batch, features)``."""
        return UnitUniform(self.head(features), self.event_dims)


class DeltaPosterior(Posterior):
    r"""All mass on one point: maximum a posteriori. No bound: see `Delta`.

    .. math:: q(z \mid x) = \delta(z - \mu)

    Args:
        features: Size of the last dimension of its input; None if that is the raw parameters.
        latent: Number of latent dimensions.
        event_dims: Event dimensions of the distribution, the latent one included.
    """

    def __init__(self, features: int | None, latent: int, event_dims: int = 1) -> None:
        super().__init__(features, latent, event_dims)

    def forward(self, features: Tensor) -> Delta:
        """Return the posterior for features of shape ``(*batch, features)``."""
        return Delta(self.head(features), self.event_dims)
