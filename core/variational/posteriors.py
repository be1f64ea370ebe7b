"""Posteriors: modules whose forward turns features into a distribution of the latent."""

from __future__ import annotations

from torch import Tensor, nn

from core.variational.distributions import DiagonalNormal


class DiagonalNormalPosterior(nn.Module):
    r"""A linear head that gives a `DiagonalNormal`.

    .. math:: q(z \mid x) = \mathcal N(\mu, \operatorname{diag} \sigma^2), \quad
        (\mu, \log \sigma) = W h + b

    The head gives :math:`\log \sigma`, not :math:`\log \sigma^2`.

    References:
        Kingma and Welling, "Auto-Encoding Variational Bayes", ICLR 2014, eq. 9 (arXiv:1312.6114).

    Args:
        features: Size of the last dimension of its input.
        latent: Number of latent dimensions.
        event_dims: Event dimensions of the distribution, the latent one included.
    """

    def __init__(self, features: int, latent: int, event_dims: int = 1) -> None:
        super().__init__()
        self.head = nn.Linear(features, 2 * latent)
        self.event_dims = event_dims

    def forward(self, features: Tensor) -> DiagonalNormal:
        """Return the posterior for features of shape ``(*batch, features)``."""
        loc, log_scale = self.head(features).chunk(2, dim=-1)
        return DiagonalNormal(loc, log_scale.exp(), self.event_dims)
