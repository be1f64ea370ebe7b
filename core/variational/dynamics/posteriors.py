"""Posteriors over sequences: the dynamics times what is recognised, and a free Markov chain."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from core.variational.distributions.base import at_least_single
from core.variational.dynamics.gauss_markov import GaussMarkov, as_gauss_markov
from core.variational.dynamics.linear_dynamics import LinearDynamics
from core.variational.dynamics.state_space import StateSpace, smoothing_distribution
from core.variational.dynamics.steps import Steps, as_steps, cut_padding


class GaussMarkovPosterior(nn.Module):
    r"""The prior's dynamics times a recognition potential at each step, normalised exactly.

    .. math:: q(z_{1:T} \mid x) \propto p(z_{1:T}) \prod_t
        \mathcal N(r_t; z_t, \operatorname{diag} \rho_t^2), \quad
        (r_t, \log \rho_t) = W h_t + b

    The potentials are pseudo-measurements :math:`r_t` of the latent. The product is the smoothing
    distribution of a linear-Gaussian state space, found by one parallel scan. A step that is not
    observed has no potential: the dynamics carry its latent, which is imputation, and beyond the
    last one forecasting. With a linear-Gaussian likelihood whose columns are orthogonal given the
    noise, the family holds the exact posterior.

    References:
        Johnson et al., "Composing Graphical Models with Neural Networks for Structured
        Representations and Fast Inference", NeurIPS 2016 (arXiv:1603.06277).
        Zhao and Linderman, "Revisiting Structured Variational Autoencoders", ICML 2023
        (arXiv:2305.16543), for the parallel scan, the masks, and reparameterised gradients of the
        plain ELBO in place of the surrogate objective.

    Args:
        features: Size of the last dimension of its input.
        dynamics: The prior, used and not owned: its parameters belong to the model that holds it.
    """

    def __init__(self, features: int, dynamics: LinearDynamics) -> None:
        super().__init__()
        self.head = nn.Linear(features, 2 * dynamics.latent)
        self._dynamics = (dynamics,)  # in a tuple it is no submodule, saved and counted twice

    @property
    def dynamics(self) -> LinearDynamics:
        """The prior whose dynamics it shares."""
        return self._dynamics[0]

    def potentials(
        self, features: Float[Tensor, "*batch time feature"]
    ) -> tuple[Float[Tensor, "*batch time latent"], Float[Tensor, "*batch time latent"]]:
        r"""Return the pseudo-measurements :math:`r` and their scales :math:`\rho`."""
        loc, log_scale = self.head(features).chunk(2, -1)
        return at_least_single(loc), at_least_single(log_scale).exp()

    def forward(
        self,
        features: Float[Tensor, "*batch time feature"],
        context: Steps | Tensor | None = None,
    ) -> GaussMarkov:
        """Return the posterior; features of steps not observed may hold anything.

        Args:
            features: What was recognised of each step.
            context: `Steps`, or their times as a tensor, or which are present if it is bool.
        """
        steps = as_steps(context)
        observed = steps.informative()
        loc, scale = self.potentials(_without(features, observed))
        time, latent = loc.shape[-2:]
        prior = as_gauss_markov(self.dynamics.path(time, steps))
        space = StateSpace(
            prior,
            torch.eye(latent).to(loc),
            loc.new_zeros(latent),
            torch.diag_embed(scale),
        )
        posterior = smoothing_distribution(space, loc, observed)
        return posterior if steps.present is None else cut_padding(posterior, steps.present)  # type: ignore


class MarkovPosterior(nn.Module):
    r"""A Gauss-Markov chain whose every step the features set freely.

    .. math:: q(z_t \mid z_{t-1}, x) = \mathcal N(A_t z_{t-1} + b_t, \operatorname{diag} s_t^2),
        \quad (A_t, b_t, \log s_t) = W h_t + b

    The transitions start at 0, so that it starts as the factorised posterior.

    References:
        Archer et al., "Black Box Variational Inference for State Space Models", 2015
        (arXiv:1511.07367). Bamler and Mandt, "Structured Black Box Variational Inference for
        Latent Time Series Models", 2017 (arXiv:1707.01069).

    Args:
        features: Size of the last dimension of its input; each step's should know the whole
            sequence.
        latent: Number of latent dimensions.
    """

    def __init__(self, features: int, latent: int) -> None:
        super().__init__()
        self.latent = latent
        self.head = nn.Linear(features, 2 * latent)
        self.transition = nn.Linear(features, latent * latent)
        nn.init.zeros_(self.transition.weight)
        nn.init.zeros_(self.transition.bias)

    def forward(
        self,
        features: Float[Tensor, "*batch time feature"],
        context: Steps | Tensor | None = None,
    ) -> GaussMarkov:
        """Return the posterior.

        Args:
            features: What was recognised of each step.
            context: Which steps are present, as `Steps` or a bool tensor; times change nothing,
                and a step that was not observed is for the features to say.
        """
        present = as_steps(context).present
        features = _without(features, present)
        offset, log_scale = self.head(features).chunk(2, -1)
        transition = self.transition(features[..., 1:, :]).unflatten(-1, (self.latent, -1))
        scale_tril = torch.diag_embed(at_least_single(log_scale).exp())
        posterior = GaussMarkov(transition, offset, scale_tril)
        return posterior if present is None else cut_padding(posterior, present)  # type: ignore


def _without(features: Tensor, there: Tensor | None) -> Tensor:
    """Put zeros where nothing is: a NaN there would reach the gradient of the head."""
    return features if there is None else torch.where(there.unsqueeze(-1), features, 0.0)
