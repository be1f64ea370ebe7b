"""A Normal posterior bent by a flow."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from torch.distributions import Distribution

from core.variational.distributions import DiagonalNormal
from core.variational.flows import Flow, FlowDistribution, check_direction
from core.variational.posteriors.base import Posterior


class FlowPosterior(Posterior):
    r"""A diagonal Normal whose samples are moved on by a flow.

    .. math:: u \sim \mathcal N(\mu(x), \operatorname{diag} \sigma^2(x)), \quad
        z = f_L \circ \dots \circ f_1(u; c(x))

    Drawing a sample and knowing its log density take one pass; see `FlowDistribution` for what of
    it is remembered, and `core.variational.fast_path` for the gradients. Without layers it is the
    diagonal Normal itself, closed-form KL included.

    References:
        Rezende and Mohamed, "Variational Inference with Normalizing Flows", ICML 2015, eq. 13
        (arXiv:1505.05770).

    Args:
        features: Size of the last dimension of its input; None if that is the raw parameters.
        latent: Number of latent dimensions.
        kind: A key of `core.variational.flows.FLOWS`.
        layers: How many.
        context: How many numbers of every example the layers know besides the vector that they
            map; 0 for none.
        hidden: Widths of the hidden layers of the networks inside, where the kind has any.
        event_dims: Event dimensions of the distribution, the latent one included.
        allow_slow: Whether a flow may be used whose sampling takes many passes.

    Raises:
        ValueError: If the kind is unknown, or slow in the sampling direction.
    """

    def __init__(
        self,
        features: int | None,
        latent: int,
        kind: str,
        layers: int,
        context: int,
        hidden: Sequence[int],
        event_dims: int = 1,
        allow_slow: bool = False,
    ) -> None:
        if not allow_slow:
            check_direction(kind, "sample", type(self).__name__)
        super().__init__(features, 2 * latent + context, event_dims)
        self.sizes = [latent, latent, context]
        self.flow = Flow(kind, latent, layers, context, hidden)

    def forward(self, features: Tensor) -> Distribution:
        """Return the posterior for features of shape ``(*batch, features)``."""
        loc, log_scale, context = self.head(features).split(self.sizes, -1)
        base = DiagonalNormal(loc, log_scale.exp(), self.event_dims)
        if not len(self.flow.layers):
            return base
        return FlowDistribution(base, self.flow, context if self.flow.context else None)
