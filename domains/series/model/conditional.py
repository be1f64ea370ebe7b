"""The conditional Koopman VAE: hidden or future values given those seen, as a distribution."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributions import Distribution
from torch.nn import functional

from core.runtime import methods
from core.variational.distributions import DiagonalNormal
from core.variational.distributions.base import factors
from core.variational.dynamics import LinearDynamics, Steps, cut_padding
from core.variational.estimators import REPARAMETERISED, Estimator
from core.variational.evidence import Evidence, Latent
from domains.series.config import Config
from domains.series.config import KoopmanVAE as KoopmanVAESection
from domains.series.data import Dataset, Windows
from domains.series.model.base import SeriesModel, Spectrum
from domains.series.model.convolution import Convolutions, zeroed
from domains.series.model.frame import FRAMES, Frame, mean_of_seen
from domains.series.model.interpolation import neighbours
from domains.series.model.koopman import dynamics, network
from domains.series.model.latents import evidence_of

OWN = 4  # cues of a channel that are no alternatives to its interpolant
REACH = 3.0  # how much faster values seen in other channels are learned to count than the rest


class Cues(nn.Module):
    r"""What each channel tells of itself at each row, from the values that are seen.

    The interpolant; how far from it are its alternatives (the last value seen, the next, and one
    season ago); how near the last and the next are, :math:`1 / (1 + \Delta t)`, 0 for none; the
    value itself where it is seen, else 0.

    Networks are told none of their levels: a level that training did not have leads them astray,
    and mostly to intervals that are too wide.

    Args:
        season: Rows in a season that is shorter than a window; 0 for none.
    """

    def __init__(self, season: int) -> None:
        super().__init__()
        self.season = season
        self.alternatives = 3 if season else 2
        self.count = self.alternatives + OWN

    def forward(self, batch: Windows) -> Float[Tensor, "batch time cue channel"]:
        """Return the cues, the interpolant first and its alternatives next."""
        found = neighbours(batch.values, batch.seen, batch.times)
        others = [found.last, found.following]
        if self.season:
            ago = found.line[:, : -self.season]
            others.append(torch.cat([found.line[:, : self.season], ago], 1))
        seen = torch.where(batch.seen, batch.values, 0)
        near = [found.has_last / (1 + found.since), found.has_following / (1 + found.until)]
        return torch.stack([found.line, *(each - found.line for each in others), *near, seen], 2)

    def without_level(
        self, cues: Float[Tensor, "batch time cue channel"], batch: Windows
    ) -> Float[Tensor, "batch time cue channel"]:
        """Return what networks are told: the line and what is seen from the mean of the latter."""
        centre = mean_of_seen(batch.values, batch)
        line, rest, seen = cues[:, :, 0], cues[:, :, 1:-1], cues[:, :, -1]
        line, seen = line - centre, seen - centre * batch.seen
        return torch.cat([line.unsqueeze(2), rest, seen.unsqueeze(2)], 2)


class PerChannel(nn.Module):
    """A linear layer for each channel by itself.

    Args:
        channels: How many.
        inputs: Numbers of a channel.
        outputs: Numbers that it gives for each.
    """

    def __init__(self, channels: int, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(channels, inputs, outputs) / inputs**0.5)
        self.bias = nn.Parameter(torch.zeros(channels, 1, outputs))

    def forward(
        self, numbers: Float[Tensor, "*rows channel input"]
    ) -> Float[Tensor, "*rows channel output"]:
        """Return what it makes of each channel."""
        flat = numbers.flatten(0, -3).transpose(0, 1)
        made = torch.baddbmm(self.bias, flat, self.weight).transpose(0, 1)
        return made.unflatten(0, numbers.shape[:-2])


class Decoder(nn.Module):
    r"""From states to the likelihood's features, as a correction of the interpolant.

    .. math:: \mu = \ell + \sum_k g_k (a_k - \ell) - g_0 \ell + r + C x_{\text{seen}}

    with :math:`\ell` the interpolant, :math:`a_k` its alternatives, 0 the channel's mean and
    :math:`C` what the other channels' values of the row count.
    The gates :math:`g`, the residual :math:`r` and the log-spread are made for each channel from
    its own cues, the context and the state. They are 0 at first, so that training begins with
    interpolation.

    Args:
        channels: Of the series.
        cues: What a channel tells of itself.
        context: Numbers that the context has at each row.
        latent: Length of the state.
        width: Hidden units of each channel.
        spread: Where each channel's spread starts; None if the likelihood has its own.
    """

    def __init__(
        self,
        channels: int,
        cues: Cues,
        context: int,
        latent: int,
        width: int,
        spread: float | None = None,
    ) -> None:
        super().__init__()
        self.channels, self.alternatives = channels, cues.alternatives
        self.of_cues = PerChannel(channels, cues.count, width)
        self.of_context = nn.Linear(context, channels * width)
        self.of_state = nn.Linear(latent, channels * width, bias=False)
        nn.init.normal_(self.of_state.weight, std=0.5 / latent**0.5)
        self.of_others = nn.Linear(channels, channels, bias=False)
        nn.init.zeros_(self.of_others.weight)
        self.last = PerChannel(channels, width, cues.alternatives + 2 + (spread is not None))
        nn.init.zeros_(self.last.weight)
        if spread is not None:
            nn.init.constant_(self.last.bias[..., -1], math.log(spread))

    def given(
        self,
        cues: Float[Tensor, "batch time cue channel"],
        context: Float[Tensor, "batch time feature"],
    ) -> Float[Tensor, "batch time channel unit"]:
        """Return what does not depend on the state, for `forward`."""
        rest = self.of_context(context).unflatten(-1, (self.channels, -1))
        return self.of_cues(cues.transpose(-1, -2)) + rest

    def forward(
        self,
        given: Float[Tensor, "batch time channel unit"],
        cues: Float[Tensor, "batch time cue channel"],
        state: Float[Tensor, "batch time latent"],
    ) -> Float[Tensor, "batch time feature"]:
        """Return the location of each channel, and the logarithm of its spread."""
        moved = self.of_state(state).unflatten(-1, (self.channels, -1))
        made = self.last(functional.gelu(given + moved)).movedim(-1, 2)
        line, away = cues[:, :, 0], cues[:, :, 1 : 1 + self.alternatives]
        gates, rest = made[:, :, : self.alternatives], made[:, :, self.alternatives :]
        loc = line + (gates * away).sum(2) - rest[:, :, 0] * line + rest[:, :, 1]
        loc = loc + REACH * self.of_others(cues[:, :, -1])
        return torch.cat([loc, *rest[:, :, 2:].unbind(2)], -1)


@dataclass(frozen=True, eq=False)
class Reading:
    """What is made of the values that are seen.

    Args:
        cues: What each channel tells of itself.
        context: What a network over time makes of them.
        given: What the decoder makes of both, before it knows the state.
    """

    cues: Float[Tensor, "batch time cue channel"]
    context: Float[Tensor, "batch time feature"]
    given: Float[Tensor, "batch time channel unit"]


class ConditionalKoopmanVAE(SeriesModel):
    r"""A conditional VAE of the targets given what is seen, its state under linear dynamics.

    .. math:: z_t = \lambda^{\Delta t} z_{t-1} + \sqrt{1 - |\lambda|^{2 \Delta t}}\, w_t, \quad
        p(w \mid s) = \mathcal N(m(s), \operatorname{diag} \sigma(s)^2), \quad
        x_{tj} \sim p(x_{tj} \mid z_t, s)

    .. math:: \log p(x_{\text{targets}} \mid s) \ge \mathbb E_{q(w \mid s, x)}
        \log p(x_{\text{targets}} \mid z, s) - KL(q(w \mid s, x) \| p(w \mid s))

    with :math:`s` what is seen. A network over time turns it into a context; the prior reads that,
    the posterior :math:`\mathcal N(m + \sigma \delta, \operatorname{diag} (\sigma \rho)^2)` the
    targets too, so its KL is analytic and 0 at first. The innovations :math:`w` are inferred and
    not the states, so that a factorised posterior has the correlations of the dynamics, exact for
    irregular times. Prediction draws them from the prior. What no state explains is the noise of
    each value, of a spread of its own.

    References:
        Sohn et al., "Learning Structured Output Representation using Deep Conditional Generative
        Models", NeurIPS 2015, eq. 4, for the bound.
        Vahdat and Kautz, "NVAE", NeurIPS 2020, section 3.2 (arXiv:2007.03898), for a posterior
        relative to the prior.
        Naiman et al., "Generative Modeling of Regular and Irregular Time Series Data via Koopman
        VAEs", ICLR 2024 (arXiv:2310.02619), for linear dynamics of the latents.

    Args:
        cues: What each channel tells of itself.
        context: From the cues of all channels to the context, over time.
        prior: From the context to mean and logarithm of the scale of the innovations.
        recognition: From context and targets to how the posterior differs from the prior.
        dynamics: From innovations to states.
        decoder: From states, context and cues to the likelihood's features.
        likelihood: From those to the distribution of each value.
        frame: In what units of its own a window is seen and predicted.
        estimator: How innovations are drawn in training.
    """

    def __init__(
        self,
        cues: Cues,
        context: nn.Module,
        prior: nn.Module,
        recognition: nn.Module,
        dynamics: LinearDynamics,
        decoder: Decoder,
        likelihood: nn.Module,
        frame: Callable[[Windows], Frame],
        estimator: Estimator = REPARAMETERISED,
    ) -> None:
        super().__init__()
        self.cues, self.context, self.prior, self.recognition = cues, context, prior, recognition
        self.dynamics, self.decoder, self.likelihood = dynamics, decoder, likelihood
        self.frame, self.estimator = frame, estimator

    def evidence(self, batch: Windows, samples: int = 1) -> Evidence:
        """What the model says of the targets of a batch, from ``samples`` posterior draws."""
        frame = self.frame(batch)
        inside = frame.enter(batch)
        read = self.read(inside)
        prior = self.foreseen(inside, read)
        posterior = self.recognised(inside, read, prior)
        latent = Latent.draw("w", posterior, prior, samples, self.estimator)
        likelihood = self._decode(latent.value, inside, read)
        return evidence_of(batch, frame.leave(likelihood), latent)

    def predictive(self, batch: Windows, samples: int) -> Distribution:
        """Return what it holds likely of every value given those seen, one part for each draw."""
        frame = self.frame(batch)
        inside = frame.enter(batch)
        read = self.read(inside)
        drawn = self.foreseen(inside, read).sample(torch.Size((samples,)))
        return factors(frame.leave(self._decode(drawn, inside, read)), 2)

    def read(self, batch: Windows) -> Reading:
        """Return what is made of the values that are seen."""
        cues = self.cues(batch)
        told = self.cues.without_level(cues, batch)
        context = _over_time(self.context, told.flatten(2), batch)
        return Reading(cues, context, self.decoder.given(told, context))

    def foreseen(self, batch: Windows, read: Reading) -> DiagonalNormal:
        """Return the prior of the innovations given what is seen."""
        loc, log_scale = self.prior(read.context).chunk(2, -1)
        return _without_padding(DiagonalNormal(loc, log_scale.exp(), 2, log_scale), batch)

    def recognised(self, batch: Windows, read: Reading, prior: DiagonalNormal) -> DiagonalNormal:
        """Return the posterior of the innovations given what is seen and the targets."""
        away = torch.where(batch.targets, batch.values - read.cues[:, :, 0], 0)
        told = torch.cat([read.context, away, batch.targets.to(away)], -1)
        shift, log_ratio = _over_time(self.recognition, told, batch).chunk(2, -1)
        log_scale = prior.log_scale + log_ratio
        loc = prior.loc + prior.scale * shift
        return _without_padding(DiagonalNormal(loc, log_scale.exp(), 2, log_scale), batch)

    def states(
        self, innovations: Float[Tensor, "*draws batch time latent"], batch: Windows
    ) -> Float[Tensor, "*draws batch time latent"]:
        """Return the path of the state that the innovations make."""
        regular = torch.arange(batch.times.shape[1], device=batch.times.device)
        times = None if bool((batch.times == regular).all()) else batch.times
        steps = Steps(times=times, present=_padding(batch))
        return self.dynamics.path(innovations.shape[-2], steps).from_noise(innovations)

    def spectrum(self, batches: Iterable[Windows]) -> Spectrum | None:
        """Return the modes; energy is the variance of a mode's states under the posterior."""
        width = 1 if self.dynamics.spectrum == "real" else 2
        squares = torch.zeros(self.dynamics.modes)
        for batch in (self.frame(each).enter(each) for each in batches):
            read = self.read(batch)
            posterior = self.recognised(batch, read, self.foreseen(batch, read))
            states = self.states(posterior.sample(), batch) * batch.present.unsqueeze(-1)
            squares += states.square().unflatten(-1, (-1, width)).sum((0, 1, -1)).cpu()
        return Spectrum(
            self.dynamics.eigenvalues.to(torch.complex64).cpu(),
            self.dynamics.half_lives.cpu(),
            self.dynamics.periods.cpu(),
            squares / squares.sum(),
        )

    def _decode(self, innovations: Tensor, batch: Windows, read: Reading) -> Distribution:
        """Return the distribution of the values; draw by draw, as one may fill the memory."""
        states = self.states(innovations, batch)
        features = [self.decoder(read.given, read.cues, each) for each in states]
        return self.likelihood(torch.stack(features))


def _padding(batch: Windows) -> Tensor | None:
    """Return which rows are no padding; None where there is none."""
    return None if bool(batch.present.all()) else batch.present


def _without_padding(normal: DiagonalNormal, batch: Windows) -> DiagonalNormal:
    """Return the distribution with nothing to say of padding, in posterior and prior alike."""
    cut = cut_padding(normal, _padding(batch))
    assert isinstance(cut, DiagonalNormal)
    return cut


def _over_time(network: nn.Module, rows: Tensor, batch: Windows) -> Tensor:
    """Apply a network to windows; one that takes any length must not see padding."""
    if isinstance(network, Convolutions):
        return network(rows, _padding(batch))
    return network(rows)


def build(config: Config, dataset: Dataset) -> ConditionalKoopmanVAE:
    """A new, initialised model for a dataset.

    Raises:
        UserError: If it cannot have the likelihood or the network.
    """
    section, channels, time = config.model, len(dataset.channels), dataset.window
    assert isinstance(section, KoopmanVAESection)
    cues = Cues(dataset.season if dataset.season < time else 0)
    likelihood, spread = _without_head(config, channels)
    hidden, latent = section.hidden, section.latent
    recognition = network(section, time, hidden + 2 * channels, 2 * latent)
    zeroed(_last_layer(recognition))
    return ConditionalKoopmanVAE(
        cues,
        network(section, time, cues.count * channels, hidden),
        zeroed(nn.Linear(hidden, 2 * latent)),
        recognition,
        dynamics(section),
        Decoder(channels, cues, hidden, latent, section.features, spread),
        likelihood,
        FRAMES[section.relative],
        methods.build_estimator(config.estimator),
    )


def _last_layer(module: nn.Module) -> nn.Linear:
    """Return the last linear layer of a network."""
    return [each for each in module.modules() if isinstance(each, nn.Linear)][-1]


def _without_head(config: Config, channels: int) -> tuple[nn.Module, float | None]:
    """Return the likelihood of what the decoder gives it, and where a predicted spread starts."""
    section: Any = config.likelihood
    likelihood: Any = methods.build_likelihood(section, 1, channels, event_dims=2)
    likelihood.head = nn.Identity()
    predicted = getattr(section, "learned", None) == "predicted"
    return likelihood, section.scale if predicted else None
