"""How a device degrades, given its age and how it is run; what surprises is early failure."""

from __future__ import annotations

import math

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
from domains.series.data import Dataset, Windows, every_window
from domains.series.model.base import SeriesModel
from domains.series.model.latents import draws_of_prior, evidence_of
from domains.series.model.networks import perceptron

OPERATING = 512  # conditions of train windows that are kept to generate under


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

    A window is generated under a condition that some train window had, which is part of it.

    References:
        Abdelli, Grießer, Neumeyr, Hohenleitner and Pachnicke, "Degradation Prediction of
        Semiconductor Lasers using Conditional Variational Autoencoder", 2022 (arXiv:2211.02847).

    Args:
        operating: Conditions of train windows to generate under, ``(window, condition)``.
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
    operating: Tensor

    def __init__(
        self,
        operating: Float[Tensor, "window condition"],
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
        self.register_buffer("operating", operating)
        self.time, self.lifetime, self.latent = time, lifetime, latent
        size = operating.shape[1]
        explained = 2 * time * int((~given).sum())
        self.encoder = perceptron(explained + size, hidden, hidden)
        self.decoder = perceptron(latent + size, hidden, time * features)
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
        self._check(batch.times)
        return condition_of(batch, self.given, self.lifetime)

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
        """Return the distribution of each value of new windows, each under some condition."""
        return self._drawn(times)[1]

    def draw_windows(
        self, times: Float[Tensor, "count time"]
    ) -> Float[Tensor, "count time channel"]:
        """Draw windows with the conditions that they are drawn under."""
        condition, likelihood = self._drawn(times)
        windows = likelihood.sample()
        count = self.time * int(self.given.sum())
        windows[..., self.given] = condition[:, :count].unflatten(1, (self.time, -1))
        return windows

    def _drawn(self, times: Tensor) -> tuple[Tensor, Distribution]:
        self._check(times)
        chosen = torch.randint(len(self.operating), (len(times),), device=times.device)
        condition = self.operating[chosen]
        context = condition if self.contextual else None
        z = draws_of_prior(self.prior, len(times), self.latent, times, context)
        return condition, self.decode(z, condition)

    def surprise(self, batch: Windows, samples: int) -> Float[Tensor, "batch time channel"]:
        """Return what each value seen adds to the negative bound of its window, in nats.

        Of a value that is not seen its surprise given those that are; 0 of a condition.
        """
        condition = self.condition(batch)
        posterior = self.encode(batch, condition)
        latent = Latent.draw(
            "z", posterior, lambda q: self._prior(q, condition), samples, self.estimator
        )
        log_prob = self.decode(latent.value, condition).log_prob(batch.values)
        seen = batch.seen & ~self.given
        share = latent.kl().mean(0) / seen.sum((1, 2)).clamp(min=1)
        added = share[:, None, None] - log_prob.mean(0)
        alone = math.log(len(log_prob)) - log_prob.logsumexp(0)
        return torch.where(seen, added, torch.where(self.given, 0, alone))

    def _prior(self, posterior: Distribution, condition: Tensor) -> Distribution:
        return self.prior(posterior, condition) if self.contextual else self.prior(posterior)

    def _check(self, times: Tensor) -> None:
        if times.shape[1] != self.time:
            raise ValueError(
                f"DegradationCVAE: windows of {times.shape[1]} rows; it sees {self.time}"
            )


def condition_of(
    batch: Windows, given: Bool[Tensor, " channel"], lifetime: float
) -> Float[Tensor, "batch condition"]:
    """Return the values of the conditions where they are seen, their masks, and the age."""
    seen = batch.seen[..., given].to(batch.values)
    parts = [(batch.values[..., given] * seen).flatten(1), seen.flatten(1)]
    if lifetime:
        parts.append(batch.origin[:, 1:].to(batch.values) / lifetime)
    return torch.cat(parts, 1)


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
    windows = every_window(dataset, "train", config)
    operating = condition_of(windows, given, lifetime)[:: -(-len(windows) // OPERATING)].clone()
    return DegradationCVAE(
        operating=operating,
        time=dataset.window,
        given=given,
        lifetime=lifetime,
        **section.model_dump(include={"latent", "hidden", "features"}),
        posterior=methods.build_posterior(config.posterior, section.hidden, section.latent),
        prior=methods.build_prior(config.prior, section.latent, context=operating.shape[1]),
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
