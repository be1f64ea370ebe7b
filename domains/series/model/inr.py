"""TV-INR: a decoder that is a function of time, its weights made from a window's latent."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.distributions import Distribution
from torch.nn import functional

from core.runtime import methods
from core.variational.estimators import REPARAMETERISED, Estimator
from core.variational.evidence import Evidence, Latent
from domains.series.config import TVINR as TVINRSection
from domains.series.config import Config
from domains.series.data import Dataset, Windows
from domains.series.model.base import SeriesModel
from domains.series.model.latents import draws_of_prior, evidence_of
from domains.series.model.networks import perceptron

TINY = 1e-6  # mean square, in scaled units, below which a channel counts as zero


class TVINR(SeriesModel):
    r"""One latent vector for a window; it makes the weights of a network from time to values.

    .. math:: x_t \sim p(x_t \mid f_{\theta(z)}(t)), \quad q(z \mid \{(t_i, x_i)\}), \quad
        f_\theta(t) = \left[a, g(a)\right],\; a = \theta\, \gamma(t)

    with sines :math:`\gamma` of the time. It may be asked at any times, those of no row included
    (`at`), and it takes any set of values, which the encoder reads by their `moments`: the
    spectrum of what is seen and of where it is seen. One forward pass imputes: nothing is
    optimised for a window.

    What is seen is explained together with the targets, whatever the task: the value bounds the
    likelihood of all of them, with a posterior given what is seen alone.

    Deviations from the published model: the encoder is a sum over the set, with cost linear in its
    size, in place of a transformer; the hypernetwork makes the first layer, not all of them; the
    prior is one for all windows, where theirs is given what is observed.

    References:
        Koyuncu, DeVries, Winther and Valera, "Temporal Variational Implicit Neural
        Representations", 2025 (arXiv:2506.01544).

    Args:
        channels: Channels of a series.
        span: Steps that a window lasts.
        frequencies: How many sines: 1, 2, … half-turns in the span.
        width: Units of the network that is made, and of those after it.
        hidden: Units of encoder and hypernetwork.
        latent: Length of the latent vector.
        posterior: From ``hidden`` features to the distribution of the latent.
        prior: Of the latent.
        likelihood: From ``2 * width`` features of a time to the distribution of its values.
        estimator: How latents are drawn in training.
    """

    likelihood: Any

    def __init__(
        self,
        channels: int,
        span: float,
        frequencies: int,
        width: int,
        hidden: int,
        latent: int,
        posterior: nn.Module,
        prior: nn.Module,
        likelihood: nn.Module,
        estimator: Estimator = REPARAMETERISED,
    ) -> None:
        super().__init__()
        self.waves = Waves(span, frequencies)
        self.width, self.latent = width, latent
        numbers = 2 * self.waves.size + frequencies + 1
        self.encoder = perceptron(numbers * channels, hidden, hidden)
        self.hypernetwork = perceptron(latent, hidden, self.waves.size * width)
        self.bend = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
        self.posterior, self.prior, self.likelihood = posterior, prior, likelihood
        self.estimator = estimator

    def evidence(self, batch: Windows, samples: int = 1) -> Evidence:
        """What the model says of the targets of a batch, from ``samples`` posterior draws."""
        latent = Latent.draw("z", self.encode(batch), self.prior, samples, self.estimator)
        known = batch.seen | batch.targets
        return evidence_of(batch, self.decode(latent.value, batch.times), latent, known)

    def encode(self, batch: Windows) -> Distribution:
        """Return the posterior of the latent given the set of values seen."""
        read = moments(self.waves(batch.times), batch.values, batch.seen, batch.present)
        return self.posterior(functional.silu(self.encoder(read)))

    def decode(
        self, z: Float[Tensor, "*draws batch latent"], times: Float[Tensor, "batch time"]
    ) -> Distribution:
        """Return the distribution of each value at any times."""
        weights = self.hypernetwork(z).unflatten(-1, (self.waves.size, self.width))
        made = self.waves(times) @ weights
        return self.likelihood(torch.cat([made, self.bend(functional.silu(made))], -1))

    def at(
        self, batch: Windows, times: Float[Tensor, "batch query"], samples: int
    ) -> Distribution:
        """Return the distribution of every channel at any times given the values seen.

        Args:
            batch: What is seen.
            times: When, in steps since the window's first row; not only at rows.
            samples: Posterior draws, one part for each.
        """
        return self.decode(self.encode(batch).sample(torch.Size((samples,))), times)

    def predictive(self, batch: Windows, samples: int) -> Distribution:
        """Return the distribution of each value given those seen, one part for each draw."""
        return self.at(batch, batch.times, samples)

    def generative(self, times: Float[Tensor, "count time"]) -> Distribution:
        """Return the distribution of each value of new windows, one draw of the prior a window."""
        return self.decode(draws_of_prior(self.prior, len(times), self.latent, times), times)


class Waves(nn.Module):
    r"""Sines of a time: :math:`1, \cos \omega_k t, \sin \omega_k t`, :math:`\omega_k = \pi k / T`.

    Half-turns as well as turns, so that what a window ends with need not be what it begins with.

    Args:
        span: :math:`T` in steps.
        frequencies: How many :math:`\omega_k`.
    """

    rates: Tensor

    def __init__(self, span: float, frequencies: int) -> None:
        super().__init__()
        rates = torch.pi / span * torch.arange(1, frequencies + 1)
        self.register_buffer("rates", rates, persistent=False)
        self.size = 2 * frequencies + 1

    def forward(self, times: Float[Tensor, "batch time"]) -> Float[Tensor, "batch time wave"]:
        """Return the waves at each time."""
        angles = times.unsqueeze(-1) * self.rates
        return torch.cat([torch.ones_like(angles[..., :1]), angles.cos(), angles.sin()], -1)


def moments(
    waves: Float[Tensor, "batch time wave"],
    values: Float[Tensor, "batch time channel"],
    seen: Bool[Tensor, "batch time channel"],
    present: Bool[Tensor, "batch time"],
) -> Float[Tensor, "batch feature"]:
    r"""Return what is seen of each channel as sums over its set, whatever its size and order.

    .. math:: c = \frac1n \sum_{i=1}^n x_i \gamma(t_i), \quad
        \frac1n \sum_{i=1}^n \gamma(t_i), \quad
        \frac{|c_k|^2}{\frac1n \sum_i x_i^2}, \quad \frac nT

    The spectrum; that of the places, which tells artefacts of the gaps; the share of the power at
    each frequency, by which a network knows a frequency whatever its phase; the share seen.
    """
    mask = seen.to(waves)
    held = torch.where(seen, values, 0)
    count = mask.sum(1, keepdim=True).clamp(min=1)
    spectrum, places = waves.mT @ held / count, waves.mT @ mask / count
    cosines, sines = spectrum[:, 1:].chunk(2, dim=1)
    square = held.square().sum(1, keepdim=True) / count
    power = 4 * (cosines.square() + sines.square()) / square.clamp(min=TINY)
    share = mask.sum(1, keepdim=True) / present.sum(1).clamp(min=1)[:, None, None]
    return torch.cat([spectrum, places, power, share], 1).flatten(1)


def build(config: Config, dataset: Dataset) -> TVINR:
    """A new, initialised model for a dataset.

    Raises:
        UserError: If the model cannot have the posterior or the prior.
    """
    section = config.model
    assert isinstance(section, TVINRSection)
    channels, latent = len(dataset.channels), section.latent
    return TVINR(
        channels=channels,
        span=dataset.window,
        **section.model_dump(exclude={"kind"}),
        posterior=methods.build_posterior(config.posterior, section.hidden, latent),
        prior=methods.build_prior(config.prior, latent),
        likelihood=methods.build_likelihood(
            config.likelihood, 2 * section.width, channels, event_dims=0
        ),
        estimator=methods.build_estimator(config.estimator),
    )
