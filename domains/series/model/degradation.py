"""How a device degrades, given its age and how it is run; what surprises is early failure."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.distributions import Distribution

from core.runtime import methods
from core.runtime.errors import UserError, did_you_mean
from core.variational.estimators import REPARAMETERISED, Estimator
from core.variational.evidence import Evidence, Latent
from domains.series.config import Config
from domains.series.config import DegradationCVAE as DegradationCVAESection
from domains.series.data import Dataset, Windows
from domains.series.model.base import SeriesModel
from domains.series.model.latents import draws_of_prior, evidence_of


class DegradationCVAE(SeriesModel):
    r"""A conditional VAE of windows given the operating point and the age of a device.

    .. math:: p(x \mid c) = \int p(z \mid c) \prod_t p(x_t \mid z, c)\, dz

    The condition :math:`c` holds the channels named ``conditions`` (a current, a temperature),
    which are given and not explained, and the age: the rows since the series began. Trained on
    devices that mostly last, it knows how fast one should degrade where it is run; a window that
    it holds unlikely is a sign that a failure has begun. `surprise` splits the negative bound

    .. math:: -\mathbb E_q \log p(x \mid z, c) + KL(q(z \mid x, c) \| p(z \mid c))
        \ge -\log p(x \mid c)

    among the values of a window: each has its own error and an equal share of the KL. The KL
    matters: a window may be easy to reconstruct from a latent that no healthy one has.

    References:
        Abdelli, Grießer and Pachnicke, "Degradation prediction of semiconductor lasers using
        conditional variational autoencoder", Journal of Lightwave Technology 40, 2022
        (arXiv:2211.02847).

    Args:
        time: Rows of a window.
        given: Which channels are conditions, of shape ``(channel,)``.
        lifetime: Rows by which the age is divided; 0 leaves the age out.
        latent: Length of the latent vector.
        hidden: Units of encoder and decoder.
        features: Numbers of a row that the likelihood reads.
        posterior: From ``hidden`` features to the distribution of the latent.
        prior: Of the latent; one with a context is told the condition.
        contextual: Whether the prior is.
        likelihood: From ``features`` of a row to the distribution of its values.
        estimator: How latents are drawn in training.
    """

    given: Tensor

    def __init__(
        self,
        time: int,
        given: Bool[Tensor, " channel"],
        lifetime: float,
        latent: int,
        hidden: int,
        features: int,
        posterior: nn.Module,
        prior: nn.Module,
        contextual: bool,
        likelihood: nn.Module,
        estimator: Estimator = REPARAMETERISED,
    ) -> None:
        super().__init__()
        self.register_buffer("given", given, persistent=False)
        self.time, self.lifetime, self.latent = time, lifetime, latent
        size = condition_size(time, given, lifetime)
        explained = 2 * time * int((~given).sum())
        self.encoder = _perceptron(explained + size, hidden, hidden)
        self.decoder = _perceptron(latent + size, hidden, time * features)
        self.posterior, self.prior, self.contextual = posterior, prior, contextual
        self.likelihood, self.estimator = likelihood, estimator

    def evidence(self, batch: Windows, samples: int = 1) -> Evidence:
        """What the model says of the targets of a batch, from ``samples`` posterior draws."""
        condition = self.condition(batch)
        latent = Latent.draw(
            "z",
            self.encode(batch, condition),
            lambda posterior: self._prior(posterior, condition),
            samples,
            self.estimator,
        )
        likelihood = self.decode(latent.value, condition)
        return evidence_of(batch, likelihood, latent, batch.targets & ~self.given)

    def condition(self, batch: Windows) -> Float[Tensor, "batch condition"]:
        """Return what is given: the seen values of the conditions, their masks, and the age."""
        self._check(batch)
        seen = batch.seen[..., self.given].to(batch.values)
        parts = [(batch.values[..., self.given] * seen).flatten(1), seen.flatten(1)]
        if self.lifetime:
            parts.append(batch.origin[:, 1:].to(batch.values) / self.lifetime)
        return torch.cat(parts, 1)

    def encode(self, batch: Windows, condition: Float[Tensor, "batch condition"]) -> Distribution:
        """Return the posterior of the latent given what is seen and the condition."""
        seen = batch.seen[..., ~self.given].to(batch.values)
        values = batch.values[..., ~self.given] * seen
        read = torch.cat([values.flatten(1), seen.flatten(1), condition], 1)
        return self.posterior(nn.functional.silu(self.encoder(read)))

    def decode(
        self,
        z: Float[Tensor, "*draws batch latent"],
        condition: Float[Tensor, "batch condition"],
    ) -> Distribution:
        """Return the distribution of each value; that of a condition is never trained."""
        context = condition.expand(*z.shape[:-1], -1)
        features = self.decoder(torch.cat([z, context], -1)).unflatten(-1, (self.time, -1))
        return self.likelihood(nn.functional.silu(features))

    def predictive(self, batch: Windows, samples: int) -> Distribution:
        """Return the distribution of each value given those seen, one part for each draw."""
        condition = self.condition(batch)
        z = self.encode(batch, condition).sample(torch.Size((samples,)))
        return self.decode(z, condition)

    def generative(self, times: Float[Tensor, "count time"]) -> Distribution:
        """Return the distribution of each value of devices at the start of their lives.

        Raises:
            NotImplementedError: If there are conditions: nothing says how the device is run.
        """
        if self.given.any():
            raise NotImplementedError(
                "DegradationCVAE: windows are drawn given the channels of model.conditions, and "
                "there are none to be given; leave model.conditions empty to generate"
            )
        condition = times.new_zeros(len(times), 1 if self.lifetime else 0)
        context = condition if self.contextual else None
        z = draws_of_prior(self.prior, len(times), self.latent, times, context)
        return self.decode(z, condition)

    def surprise(self, batch: Windows, samples: int) -> Float[Tensor, "batch time channel"]:
        """Return what each value adds to the negative bound of its window, in nats.

        0 for conditions and for what is not seen, so that the sum over a window is the bound.
        """
        condition = self.condition(batch)
        posterior = self.encode(batch, condition)
        latent = Latent.draw(
            "z", posterior, lambda q: self._prior(q, condition), samples, self.estimator
        )
        error = -self.decode(latent.value, condition).log_prob(batch.values).mean(0)
        explained = batch.seen & ~self.given
        count = explained.sum((1, 2)).clamp(min=1)
        share = (latent.kl().mean(0) / count)[:, None, None]
        return torch.where(explained, error + share, 0)

    def _prior(self, posterior: Distribution, condition: Tensor) -> Distribution:
        return self.prior(posterior, condition) if self.contextual else self.prior(posterior)

    def _check(self, batch: Windows) -> None:
        if batch.values.shape[1] != self.time:
            raise ValueError(
                f"DegradationCVAE: windows of {batch.values.shape[1]} rows; it sees {self.time}"
            )


def condition_size(time: int, given: Bool[Tensor, " channel"], lifetime: float) -> int:
    """Return how many numbers a condition has."""
    return 2 * time * int(given.sum()) + bool(lifetime)


def build(config: Config, dataset: Dataset) -> DegradationCVAE:
    """A new, initialised model for a dataset.

    Raises:
        UserError: If a condition is no channel, all channels are, or the model cannot have the
            posterior or the prior.
    """
    section = config.model
    assert isinstance(section, DegradationCVAESection)
    given = conditions(section.conditions, dataset.channels)
    longest = max(len(one.times) for one in dataset.panel.series)
    lifetime = float(longest) if section.age else 0.0
    size = condition_size(dataset.window, given, lifetime)
    return DegradationCVAE(
        time=dataset.window,
        given=given,
        lifetime=lifetime,
        **section.model_dump(include={"latent", "hidden", "features"}),
        posterior=methods.build_posterior(config.posterior, section.hidden, section.latent),
        prior=methods.build_prior(config.prior, section.latent, context=size),
        contextual=config.prior.kind == "conditional-normal",
        likelihood=methods.build_likelihood(
            config.likelihood, section.features, len(dataset.channels), event_dims=0
        ),
        estimator=methods.build_estimator(config.estimator),
    )


def conditions(names: tuple[str, ...], channels: tuple[str, ...]) -> Bool[Tensor, " channel"]:
    """Return which channels are conditions.

    Raises:
        UserError: If there is no such channel, or no other.
    """
    for name in names:
        if name not in channels:
            raise UserError(
                f"model.conditions: no channel {name!r}; there are {', '.join(channels)}"
                f"{did_you_mean(name, channels)}"
            )
    given = torch.tensor([name in names for name in channels])
    if given.all():
        raise UserError("model.conditions: every channel is one; leave one to be explained")
    return given


def _perceptron(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(inputs, hidden),
        nn.SiLU(),
        nn.Linear(hidden, hidden),
        nn.SiLU(),
        nn.Linear(hidden, outputs),
    )
