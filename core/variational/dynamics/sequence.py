r"""Evidence of sequences: the ELBO over time, with the past from the posterior on both sides.

.. math:: \log p(x_{1:T}) \ge \mathbb E_q \sum_t \log p(x_t \mid z_{\le t})
    - \log \frac{q(z_t \mid z_{t-1}, x)}{p(z_t \mid z_{t-1})}

Both conditionals are given the :math:`z_{t-1}` that was drawn from :math:`q`. Take it from a path
of the prior's own and the number is no bound (KoVAE's regulariser). By the chain rule the second
term is the KL of the paths, so a whole path is one latent group:

* `sequence_latent` where posterior and prior are distributions over paths,
* `rollout_latent` where a step is any function of the one before: a recurrent or nonlinear model.

Both take padding out of the value and of the gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.distributions import Distribution

from core.variational.distributions import DiagonalNormal, stop_gradient
from core.variational.dynamics.steps import Steps, as_steps, cut_padding
from core.variational.evidence import Evidence, Latent
from core.variational.likelihoods.masked import masked_log_prob

PathPrior = Callable[[Distribution, Steps], Distribution]
PosteriorStep = Callable[[Tensor, Tensor], DiagonalNormal]
PriorStep = Callable[[Tensor], DiagonalNormal]


def sequence_latent(
    name: str,
    posterior: Distribution,
    prior: PathPrior,
    samples: int,
    context: Steps | Tensor | None = None,
) -> Latent:
    """Draw paths of a posterior and hold them against a prior over paths.

    Args:
        name: The group's name in tables.
        posterior: A distribution over paths, with batch shape ``(batch,)``: `GaussMarkov`, or
            `DiagonalNormal` with two event dimensions.
        prior: A prior that takes the posterior and `Steps`, such as `LinearDynamics`.
        samples: Draws for each example.
        context: `Steps`, or their times as a tensor, or which are present if it is bool.
    """
    steps = as_steps(context)
    posterior = cut_padding(posterior, steps.present)
    value = _zero_padding(posterior.rsample((samples,)), steps.present)
    return Latent(name, value, posterior, cut_padding(prior(posterior, steps), steps.present))


def rollout_latent(
    name: str,
    features: Float[Tensor, "batch time feature"],
    posterior: PosteriorStep,
    prior: PriorStep,
    samples: int,
    start: Float[Tensor, " latent"],
    present: Bool[Tensor, "batch time"] | None = None,
) -> Latent:
    r"""Draw paths step by step from any conditionals, and hold each step against the prior's.

    Its KL sums :math:`KL(q(z_t \mid z_{t-1}, x) \| p(z_t \mid z_{t-1}))` in closed form given the
    drawn :math:`z_{t-1}`: unbiased, with less noise than the log-ratio.

    Args:
        name: The group's name in tables.
        features: What was recognised of each step.
        posterior: :math:`q(z_t | z_{t-1}, x)` from latents ``(samples, batch, latent)`` and
            features ``(batch, feature)``, as a `DiagonalNormal` with one event dimension.
        prior: :math:`p(z_t | z_{t-1})` from latents of shape ``(samples, batch, time, latent)``,
            all steps at once.
        samples: Draws for each example.
        start: The latent before the first step :math:`z_0`, a constant or learned.
        present: Which steps are no padding; None for all.
    """
    if present is not None:
        features = torch.where(present.unsqueeze(-1), features, 0.0)
    before, normals, draws = start.expand(samples, len(features), -1), [], []
    past = []
    for feature in features.unbind(1):
        normals.append(posterior(before, feature))
        past.append(before)
        before = normals[-1].rsample()
        draws.append(before)
    q = ConditionalNormals.of(normals)
    expected = prior(torch.stack(past, 2))
    p = ConditionalNormals(expected.loc, expected.scale, event_dims=2)
    value = _zero_padding(torch.stack(draws, 2), present)
    return Latent(name, value, cut_padding(q, present), cut_padding(p, present))


class ConditionalNormals(DiagonalNormal):
    """The steps of a path, each a Normal given the values that were drawn before it.

    Its means are functions of the value, so holding its numbers fixed is not holding its
    parameters fixed: `stop_gradient` refuses it, where a path gradient would be silently wrong.
    """

    @classmethod
    def of(cls, steps: Sequence[DiagonalNormal]) -> ConditionalNormals:
        """Return the path of these steps, of shape ``(samples, batch, latent)`` each."""
        locs, scales = [step.loc for step in steps], [step.scale for step in steps]
        return cls(torch.stack(locs, -2), torch.stack(scales, -2), event_dims=2)

    def mapped(self, change: Callable[[Tensor], Tensor], event_dims: int) -> ConditionalNormals:
        """Return the same with ``change`` done to every parameter, and those event dimensions."""
        return ConditionalNormals(change(self.loc), change(self.scale), event_dims)


@stop_gradient.register
def _(distribution: ConditionalNormals) -> Distribution:
    raise NotImplementedError(
        "stop_gradient: ConditionalNormals have means that depend on the values drawn before; use "
        "the reparameterised gradient, or a distribution over paths such as GaussMarkov"
    )


@cut_padding.register
def _(
    distribution: ConditionalNormals, present: Bool[Tensor, "batch time"] | None
) -> ConditionalNormals:
    if present is None:
        return distribution
    there = present.unsqueeze(-1)
    loc, scale = distribution.loc, distribution.scale
    return ConditionalNormals(
        torch.where(there, loc, 0.0), torch.where(there, scale, 1.0), event_dims=2
    )


def sequence_evidence(
    x: Float[Tensor, "batch time feature"],
    latents: Sequence[Latent],
    likelihood: Distribution,
    observed: Bool[Tensor, ...] | None = None,
    name: str = "x",
) -> Evidence:
    r"""Return the evidence of sequences of which some values are missing.

    .. math:: \sum_{t, j \text{ observed}} \log p(x_{tj} \mid z)

    Args:
        x: The data; what was not observed may hold anything, NaN included.
        latents: The latent groups.
        likelihood: :math:`p(x | z)` of batch shape ``(samples, batch)``, or element by element; it
            factorises over time and features.
        observed: Which values are, of shape ``(batch, time)`` or ``(batch, time, feature)``;
            padding is not. None for all.
        name: The likelihood term's name.

    Raises:
        ValueError: If the likelihood does not factorise.
    """
    if observed is None:
        observed = torch.ones_like(x, dtype=torch.bool)
    seen = observed.unsqueeze(-1) if observed.dim() == x.dim() - 1 else observed
    return Evidence({name: masked_log_prob(likelihood, x, seen, event_dims=2).log_prob}, latents)


def _zero_padding(
    value: Float[Tensor, "samples batch time latent"], present: Tensor | None
) -> Float[Tensor, "samples batch time latent"]:
    """Give padding no noise: there any value has the same density under posterior and prior."""
    return value if present is None else torch.where(present.unsqueeze(-1), value, 0.0)
