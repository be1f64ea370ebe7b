"""Mixture priors: of learned Normals, and of the posteriors of learned pseudo-inputs."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from core.variational.distributions import DiagonalNormal
from core.variational.priors.base import Prior, check_latent, learned, mixture, refuse_context


class MixtureOfNormals(Prior):
    r"""A mixture of diagonal Normals, all learned.

    .. math:: p(z) = \sum_k \pi_k \mathcal N(m_k, \operatorname{diag} s_k^2)

    Its means start as draws of the standard Normal, its scales at 1.

    Args:
        latent: Number of latent dimensions.
        components: How many.

    Raises:
        ValueError: If there are no components.
    """

    def __init__(self, latent: int, components: int) -> None:
        super().__init__()
        if components < 1:
            raise ValueError(f"MixtureOfNormals: components={components}; at least 1 is needed")
        self.latent = latent
        self.logits = learned(components)
        self.loc = learned(components, latent, spread=1.0)
        self.log_scale = learned(components, latent)

    def forward(self, posterior: Distribution, context: Tensor | None = None) -> Distribution:
        """Return the prior in the posterior's shapes."""
        refuse_context(self, context)
        check_latent(self, self.latent, posterior)
        return mixture(self.logits, DiagonalNormal(self.loc, self.log_scale.exp()), posterior)


class VampPrior(Prior):
    r"""The mixture of the posteriors of pseudo-inputs, which are learned like weights.

    .. math:: p(z) = \sum_k \pi_k \, q(z \mid u_k)

    References:
        Tomczak and Welling, "VAE with a VampPrior", AISTATS 2018, eq. 9 (arXiv:1705.07120).

    Args:
        pseudo_inputs: Where the pseudo-inputs start, of shape ``(components, *data)``: training
            examples, or noise of the data's mean and spread.
        encode: From data to their posterior, of batch shape ``(components,)``; a method of the
            model that the prior belongs to. Its parameters are not counted as the prior's.
        learned_weights: Whether :math:`\pi` is learned, or is uniform as in the paper.
        bounds: Between which values the pseudo-inputs are held, as the data are: ``(0, 1)`` for
            grey levels; None for no bounds.

    Raises:
        ValueError: If there are no pseudo-inputs.
    """

    def __init__(
        self,
        pseudo_inputs: Tensor,
        encode: Callable[[Tensor], Distribution],
        learned_weights: bool,
        bounds: tuple[float, float] | None,
    ) -> None:
        super().__init__()
        if pseudo_inputs.dim() < 1 or not len(pseudo_inputs):
            raise ValueError(
                f"VampPrior: pseudo-inputs of shape {tuple(pseudo_inputs.shape)}; it needs "
                "(components, *data)"
            )
        self.pseudo_inputs = nn.Parameter(pseudo_inputs.detach().clone())
        self.bounds = bounds
        weights = torch.zeros(len(pseudo_inputs))
        self.logits = nn.Parameter(weights, requires_grad=learned_weights)
        # Not an attribute of its own: a module there would be saved and counted twice.
        self._encode = (encode,)

    def forward(self, posterior: Distribution, context: Tensor | None = None) -> Distribution:
        """Return the prior in the posterior's shapes."""
        refuse_context(self, context)
        inputs = self.pseudo_inputs
        if self.bounds is not None:
            inputs = inputs.clamp(*self.bounds)
        return mixture(self.logits, self._encode[0](inputs), posterior)
