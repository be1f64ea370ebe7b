"""What a model says about a batch: log-likelihood terms and latent groups, in nats per example."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.distributions import Distribution

from core.variational.distributions import stop_gradient
from core.variational.divergences import elementwise_kl, kl
from core.variational.estimators import REPARAMETERISED, Estimator


@dataclass(frozen=True, eq=False)
class Latent:
    r"""One latent group: a sampled value with the posterior it came from and its prior.

    ``posterior`` and ``prior`` have batch shape ``(batch,)`` or ``(samples, batch)``; whatever an
    example holds (nodes, frames, dimensions) is in the event shape. The prior is built from
    already sampled parents, so a closed-form KL given those parents is always valid.

    `Latent.draw` makes one by any estimator; built by hand it is a reparameterised sample.

    Args:
        name: The group's name in tables, e.g. ``"z"``.
        value: Samples of shape ``(samples, batch, *event)``.
        posterior: :math:`q(z \mid x)`.
        prior: :math:`p(z \mid \text{parents})`.
        estimator: How the value was drawn.
        score: What the estimator adds, see `Draw`.
        weights: What the estimator adds, see `Draw`.
    """

    name: str
    value: Tensor
    posterior: Distribution
    prior: Distribution
    estimator: Estimator = REPARAMETERISED
    score: Tensor | None = None
    weights: Tensor | None = None

    @classmethod
    def draw(
        cls,
        name: str,
        posterior: Distribution,
        prior: Distribution | Callable[[Distribution], Distribution],
        samples: int,
        estimator: Estimator = REPARAMETERISED,
    ) -> Latent:
        """Draw from the posterior.

        Args:
            name: The group's name.
            posterior: Of batch shape ``(batch,)``, or ``(samples, batch)`` given parents.
            prior: A distribution, or a module that makes one to fit the posterior.
            samples: Draws per example; an estimator that enumerates returns as many as it needs.
            estimator: How to draw.

        Raises:
            ValueError: If the estimator cannot draw from this posterior.
        """
        drawn = estimator.draw(posterior, samples)
        held = prior if isinstance(prior, Distribution) else prior(posterior)
        return cls(name, drawn.value, posterior, held, estimator, drawn.score, drawn.weights)

    def log_ratio(self) -> Float[Tensor, "samples batch"]:
        r"""Return :math:`\log q(z \mid x) - \log p(z)` at the value, in nats per example.

        Where the estimator wants it, no gradient reaches the posterior's parameters but through
        the value.

        Raises:
            ValueError: If a log-density has another shape than ``(samples, batch)``.
        """
        density = self.posterior
        if self.estimator.holds_density:
            density = stop_gradient(density)
        log_posterior = self._shaped(density.log_prob(self.value), "posterior")
        return log_posterior - self._shaped(self.prior.log_prob(self.value), "prior")

    def kl(self) -> Float[Tensor, "samples batch"]:
        """Return the KL divergence from prior to posterior, in nats per example.

        Closed form where one is registered, else the one-sample Monte Carlo estimate `log_ratio`;
        `closed_form` says which. A path-derivative estimator never takes the closed form: its
        gradient is that of the log-ratio.
        """
        return self.divergence().expand(self.value.shape[:2])

    def divergence(self) -> Tensor:
        """Return `kl` in the shape that it has: ``(batch,)`` where no sample comes in."""
        if self.estimator.holds_density:
            return self.log_ratio()
        return kl(self.posterior, self.prior, value=self.value)[0]

    @property
    def closed_form(self) -> bool:
        """Whether `kl` is exact given the parents."""
        if self.estimator.holds_density:
            return False
        return kl(self.posterior, self.prior, value=self.value)[1]

    def kl_per_dimension(self) -> Float[Tensor, "samples batch latent"] | None:
        """Return the KL summed over all but the last dimension; None if it does not factorise."""
        terms = elementwise_kl(self.posterior, self.prior)
        if terms is None:
            return None
        terms = terms.expand(self.value.shape)
        return terms.flatten(2, -2).sum(2) if terms.dim() > 3 else terms

    def _shaped(self, log_prob: Tensor, whose: str) -> Tensor:
        if log_prob.shape != self.value.shape[:2]:
            raise ValueError(
                f"latent {self.name!r}: the log-density of its {whose} has shape "
                f"{tuple(log_prob.shape)}; it must be (samples, batch) = "
                f"{tuple(self.value.shape[:2])}; are its event_dims too few?"
            )
        return log_prob


def per_draw(network: Callable[[Tensor], Tensor], value: Tensor) -> Tensor:
    """Apply a network to every draw as if draws were examples.

    Convolutions want one batch dimension, and linear layers are faster with one.

    Args:
        network: From ``(batch, *event)`` to ``(batch, *output)``.
        value: Of shape ``(samples, batch, *event)``.

    Returns:
        Of shape ``(samples, batch, *output)``.

    Example:
        >>> per_draw(torch.nn.Linear(2, 5), torch.zeros(3, 4, 2)).shape
        torch.Size([3, 4, 5])
    """
    return network(value.flatten(0, 1)).unflatten(0, value.shape[:2])


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
        observed: Which examples have anything observed; the others are skipped and counted. None
            if all have.
        density: Whether every likelihood term is a log-density of the data. A distance between
            features is none: no value then bounds the log-likelihood.
        joint: Whether the priors of the latents multiply to the prior that the model draws from.
            One that is given anything but sampled parents does not (a recurrent prior run along a
            path of its own): no value then bounds the log-likelihood.
        plain: Whether a mean over samples and examples is a plain mean; not given but found out.
    """

    log_likelihood: Mapping[str, Tensor]
    latents: Sequence[Latent] = ()
    penalties: Mapping[str, Tensor] = field(default_factory=dict)
    weights: Mapping[str, float] = field(default_factory=dict)
    observed: Bool[Tensor, " batch"] | None = None
    density: bool = True
    joint: bool = True
    plain: bool = field(init=False, default=True)

    def __post_init__(self) -> None:
        # Found out once: objectives ask for each of their means.
        weighted = [latent for latent in self.latents if latent.weights is not None]
        if weighted or self.observed is not None:
            object.__setattr__(self, "plain", False)

    @property
    def bounds(self) -> bool:
        """Whether values made of it can bound the log-likelihood of the data."""
        draws = [each.estimator.is_draw for each in self.latents]
        return self.density and self.joint and False not in draws

    def log_joint_ratio(self) -> Float[Tensor, "samples batch"]:
        r"""Return the log importance weights :math:`\log p(x, z) - \log q(z \mid x)`, in nats.

        Draws of unequal weight (an enumeration) have it included, so that the mean of the
        importance weights over the samples is always the estimate of :math:`p(x)`.
        """
        total = torch.stack(list(self.log_likelihood.values())).sum(0)
        for latent in self.latents:
            total = total - latent.log_ratio()
        weights = self.sample_weights
        return total if weights is None else total + weights.log() + math.log(len(weights))

    @property
    def sample_weights(self) -> Float[Tensor, "samples batch"] | None:
        """The weight of each sample, None for equal ones."""
        weights = [latent.weights for latent in self.latents if latent.weights is not None]
        if len(weights) > 1:
            names = [latent.name for latent in self.latents if latent.weights is not None]
            raise ValueError(
                f"evidence: latents {names} both come with weights of their samples; at most one "
                "can be enumerated or taken at points"
            )
        return weights[0] if weights else None
