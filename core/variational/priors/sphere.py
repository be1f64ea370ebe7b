"""The prior of unit vectors."""

from __future__ import annotations

from torch import Tensor
from torch.distributions import Distribution

from core.variational.distributions import HypersphericalUniform
from core.variational.priors.base import Prior, refuse_context


class SphericalUniform(Prior):
    r"""Every direction alike, for posteriors over unit vectors; nothing to learn.

    .. math:: p(z) = \frac{\Gamma(d / 2)}{2 \pi^{d / 2}}, \quad \|z\| = 1
    """

    def forward(
        self, posterior: Distribution, context: Tensor | None = None
    ) -> HypersphericalUniform:
        """Return the prior in the posterior's shapes, type and device."""
        refuse_context(self, context)
        return HypersphericalUniform(posterior.mean, len(posterior.event_shape))
