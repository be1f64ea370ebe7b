"""Priors with dependent dimensions: flows, and autoregressive Normals."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.distributions import Distribution

from core.variational.distributions import DiagonalNormal
from core.variational.flows import Flow, FlowDistribution, check_direction
from core.variational.priors.base import (
    Prior,
    check_latent,
    refuse_context,
    spread_out,
    vectors,
)


class BentNormal(Prior):
    """A standard Normal bent by a flow; abstract: a subclass says by which.

    Args:
        flow: In the direction in which the base goes to the latent.
    """

    def __init__(self, flow: Flow) -> None:
        super().__init__()
        self.flow = flow
        self.zeros: Tensor
        self.register_buffer("zeros", torch.zeros(flow.latent), persistent=False)

    def forward(self, posterior: Distribution, context: Tensor | None = None) -> Distribution:
        """Return the prior in the posterior's shapes.

        Raises:
            ValueError: If a context is missing, or too many.
        """
        check_latent(self, self.flow.latent, posterior)
        context = self._spread(context, posterior)
        loc = self.zeros.expand(*vectors(posterior), -1)
        base = DiagonalNormal(loc, torch.ones_like(loc), len(posterior.event_shape))
        return FlowDistribution(base, self.flow, context)

    def _spread(self, context: Tensor | None, posterior: Distribution) -> Tensor | None:
        size = self.flow.context
        if not size:
            refuse_context(self, context)
            return None
        if context is None or context.shape[-1] != size:
            given = None if context is None else tuple(context.shape)
            raise ValueError(
                f"{type(self).__name__}: context of shape {given}; it needs (*batch, {size})"
            )
        return spread_out(context, posterior)


class FlowPrior(BentNormal):
    r"""A standard Normal bent by a flow, in the direction in which its density is fast.

    .. math:: \log p(z) = \log \mathcal N(f^{-1}(z); 0, I) + \log |\det \partial f^{-1}(z)|

    References:
        Chen et al., "Variational Lossy Autoencoder", ICLR 2017, section 3.2 (arXiv:1611.02731).

    Args:
        latent: Number of latent dimensions.
        kind: A key of `core.variational.flows.FLOWS`.
        layers: How many.
        context: Length of the context that the prior is given; 0 for none.
        hidden: Widths of the hidden layers of the networks inside, where the kind has any.
        allow_slow: Whether a flow may be used whose density takes many passes.

    Raises:
        ValueError: If the kind is unknown, or slow in the density direction.
    """

    def __init__(
        self,
        latent: int,
        kind: str,
        layers: int,
        context: int,
        hidden: Sequence[int],
        allow_slow: bool = False,
    ) -> None:
        if not allow_slow:
            check_direction(kind, "density", type(self).__name__)
        super().__init__(Flow(kind, latent, layers, context, hidden))


class AutoregressivePrior(BentNormal):
    r"""A Normal for every dimension, given the dimensions before it.

    .. math:: p(z) = \prod_i \mathcal N(z_i; m_i(z_{<i}), s_i^2(z_{<i}))

    The density takes one pass of a masked network, a sample one pass for every dimension. One such
    layer as a prior is one inverse autoregressive layer in the posterior, at no cost in decoding.

    References:
        Chen et al., "Variational Lossy Autoencoder", ICLR 2017, section 3.2 (arXiv:1611.02731);
        Germain et al., "MADE", ICML 2015, for the masks (arXiv:1502.03509).

    Args:
        latent: Number of latent dimensions.
        hidden: Widths of the network's hidden layers; none makes means and log scales linear.
        context: Length of the context that the prior is given; 0 for none.
    """

    def __init__(self, latent: int, hidden: Sequence[int], context: int = 0) -> None:
        super().__init__(Flow("maf", latent, 1, context, hidden))
