"""Posteriors on the unit sphere: von Mises–Fisher and power spherical."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from core.variational.distributions import PowerSpherical, VonMisesFisher
from core.variational.distributions.base import at_least_single
from core.variational.posteriors.base import Posterior


class VonMisesFisherPosterior(Posterior):
    r"""A von Mises–Fisher distribution of unit vectors.

    .. math:: q(z \mid x) = \mathrm{vMF}(m / \|m\|, \operatorname{softplus}(k))

    References:
        Davidson et al., "Hyperspherical Variational Auto-Encoders", UAI 2018 (arXiv:1804.00891).

    Args:
        features: Size of the last dimension of its input; None if that is the raw parameters.
        latent: Length of the unit vectors, at least 2: one more than their degrees of freedom.
        event_dims: Event dimensions of the distribution, that of the vector included.
    """

    def __init__(self, features: int | None, latent: int, event_dims: int = 1) -> None:
        super().__init__(features, latent + 1, event_dims)

    def forward(self, features: Tensor) -> VonMisesFisher:
        """Return the posterior for features of shape ``(*batch, features)``."""
        return VonMisesFisher(*_direction(self.head(features)), self.event_dims)


class PowerSphericalPosterior(Posterior):
    r"""A power spherical distribution of unit vectors: like von Mises–Fisher, without rejection.

    .. math:: q(z \mid x) = \mathrm{PowerSpherical}(m / \|m\|, \operatorname{softplus}(k))

    References:
        De Cao and Aziz, "The Power Spherical distribution", 2020 (arXiv:2006.04437).

    Args:
        features: Size of the last dimension of its input; None if that is the raw parameters.
        latent: Length of the unit vectors, at least 2: one more than their degrees of freedom.
        event_dims: Event dimensions of the distribution, that of the vector included.
    """

    def __init__(self, features: int | None, latent: int, event_dims: int = 1) -> None:
        super().__init__(features, latent + 1, event_dims)

    def forward(self, features: Tensor) -> PowerSpherical:
        """Return the posterior for features of shape ``(*batch, features)``."""
        return PowerSpherical(*_direction(self.head(features)), self.event_dims)


def _direction(raw: Tensor) -> tuple[Tensor, Tensor]:
    """Return a direction of any length, and the concentration."""
    raw = at_least_single(raw)
    return raw[..., :-1], functional.softplus(raw[..., -1])
