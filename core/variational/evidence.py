"""What a model says about a batch: log-likelihood terms and latent groups, in nats per example."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions import Distribution

from core.variational.divergences import elementwise_kl, kl


@dataclass(frozen=True, eq=False)
class Latent:
    r"""One latent group: a sampled value with the posterior it came from and its prior.

    ``posterior`` and ``prior`` have batch shape ``(batch,)`` or ``(samples, batch)``; whatever an
    example holds (nodes, frames, dimensions) is in the event shape. The prior is built from
    already sampled parents, so a closed-form KL given those parents is always valid.

    Args:
        name: The group's name in tables, e.g. ``"z"``.
        value: Samples of shape ``(samples, batch, *event)``.
        posterior: :math:`q(z \mid x)`.
        prior: :math:`p(z \mid \text{parents})`.
    """

    name: str
    value: Tensor
    posterior: Distribution
    prior: Distribution

    def log_ratio(self) -> Float[Tensor, "samples batch"]:
        r"""Return :math:`\log q(z \mid x) - \log p(z)` at the value, in nats per example."""
        log_posterior = self.posterior.log_prob(self.value)
        return log_posterior - self.prior.log_prob(self.value)

    def kl(self) -> Float[Tensor, "samples batch"]:
        """Return the KL divergence from prior to posterior, in nats per example.

        Closed form where one is registered, else the one-sample Monte Carlo estimate `log_ratio`;
        `closed_form` says which.
        """
        divergence, _ = kl(self.posterior, self.prior, value=self.value)
        return divergence.expand(self.value.shape[:2])

    @property
    def closed_form(self) -> bool:
        """Whether `kl` is exact given the parents."""
        return kl(self.posterior, self.prior, value=self.value)[1]

    def kl_per_dimension(self) -> Float[Tensor, "samples batch latent"] | None:
        """Return the KL summed over all but the last dimension; None if it does not factorise."""
        terms = elementwise_kl(self.posterior, self.prior)
        if terms is None:
            return None
        terms = terms.expand(self.value.shape)
        return terms.flatten(2, -2).sum(2) if terms.dim() > 3 else terms


@dataclass(frozen=True, eq=False)
class Evidence:
    """All that an objective may know of a model and a batch.

    Args:
        log_likelihood: Named observation terms of shape ``(samples, batch)``, in nats per example,
            summed over what the example holds, constants kept.
        latents: The latent groups; none for a deterministic model.
        penalties: The domain's own named regularisers of shape ``(batch,)``.
        weights: Training weights of likelihood terms that the model derives from data, such as a
            class balance; terms not named weigh 1. They change the loss and never the reported
            value.
    """

    log_likelihood: Mapping[str, Tensor]
    latents: Sequence[Latent] = ()
    penalties: Mapping[str, Tensor] = field(default_factory=dict)
    weights: Mapping[str, float] = field(default_factory=dict)

    def log_joint_ratio(self) -> Float[Tensor, "samples batch"]:
        r"""Return the log importance weights :math:`\log p(x, z) - \log q(z \mid x)`, in nats."""
        total = torch.stack(list(self.log_likelihood.values())).sum(0)
        for latent in self.latents:
            total = total - latent.log_ratio()
        return total
