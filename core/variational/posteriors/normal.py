"""Normal posteriors: diagonal, of low rank and full."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.distributions import Distribution, LowRankMultivariateNormal, MultivariateNormal
from torch.nn import functional

from core.variational.distributions import DiagonalNormal
from core.variational.distributions.base import at_least_single
from core.variational.posteriors.base import Posterior, over_event

# What keeps a covariance positive definite in float32: the smallest standard deviation.
LEAST = 1e-4


class DiagonalNormalPosterior(Posterior):
    r"""A linear head that gives a `DiagonalNormal`.

    .. math:: q(z \mid x) = \mathcal N(\mu, \operatorname{diag} \sigma^2), \quad
        (\mu, \log \sigma) = W h + b

    The head gives :math:`\log \sigma`, not :math:`\log \sigma^2`.

    References:
        Kingma and Welling, "Auto-Encoding Variational Bayes", ICLR 2014, eq. 9 (arXiv:1312.6114).

    Args:
        features: Size of the last dimension of its input; None if that is the raw parameters.
        latent: Number of latent dimensions.
        event_dims: Event dimensions of the distribution, the latent one included.
    """

    def __init__(self, features: int | None, latent: int, event_dims: int = 1) -> None:
        super().__init__(features, 2 * latent, event_dims)

    def forward(self, features: Tensor) -> DiagonalNormal:
        """Return the posterior for features of shape ``(*batch, features)``."""
        loc, log_scale = self.head(features).chunk(2, dim=-1)
        return DiagonalNormal(loc, log_scale.exp(), self.event_dims, log_scale)


class LowRankNormalPosterior(Posterior):
    r"""A Normal whose covariance is a diagonal and a few directions.

    .. math:: q(z \mid x) = \mathcal N(\mu, \operatorname{diag} \sigma^2 + F F^T)

    References:
        Ong et al., "Gaussian Variational Approximation with a Factor Covariance Structure", 2018
        (arXiv:1701.03208).

    Args:
        features: Size of the last dimension of its input; None if that is the raw parameters.
        latent: Number of latent dimensions.
        rank: Number of columns of :math:`F`.
        event_dims: Event dimensions of the distribution, the latent one included.

    Raises:
        ValueError: If the rank is out of range.
    """

    def __init__(self, features: int | None, latent: int, rank: int, event_dims: int = 1) -> None:
        if not 1 <= rank <= latent:
            raise ValueError(f"LowRankNormalPosterior: rank={rank}; allowed is 1 to {latent}")
        super().__init__(features, (2 + rank) * latent, event_dims)
        self.latent, self.rank = latent, rank

    def forward(self, features: Tensor) -> Distribution:
        """Return the posterior for features of shape ``(*batch, features)``."""
        raw = at_least_single(self.head(features))
        loc, log_scale, factor = raw.split([self.latent, self.latent, self.rank * self.latent], -1)
        normal = LowRankMultivariateNormal(
            loc,
            factor.unflatten(-1, (self.latent, self.rank)),
            (2 * log_scale).exp() + LEAST**2,
            validate_args=False,
        )
        return over_event(normal, self.event_dims)


class FullNormalPosterior(Posterior):
    r"""A Normal with any covariance, by its Cholesky factor.

    .. math:: q(z \mid x) = \mathcal N(\mu, L L^T), \quad
        L_{ii} = \operatorname{softplus}(l_{ii}) + 10^{-4}

    Args:
        features: Size of the last dimension of its input; None if that is the raw parameters.
        latent: Number of latent dimensions.
        event_dims: Event dimensions of the distribution, the latent one included.
    """

    def __init__(self, features: int | None, latent: int, event_dims: int = 1) -> None:
        super().__init__(features, 2 * latent + latent * (latent - 1) // 2, event_dims)
        self.latent = latent
        self.below: Tensor
        self.register_buffer("below", torch.tril_indices(latent, latent, -1), persistent=False)

    def forward(self, features: Tensor) -> Distribution:
        """Return the posterior for features of shape ``(*batch, features)``."""
        raw = at_least_single(self.head(features))
        loc, diagonal = raw[..., : self.latent], raw[..., self.latent : 2 * self.latent]
        factor = torch.diag_embed(functional.softplus(diagonal) + LEAST)
        rows, columns = self.below
        factor[..., rows, columns] = raw[..., 2 * self.latent :]
        normal = MultivariateNormal(loc, scale_tril=factor, validate_args=False)
        return over_event(normal, self.event_dims)
