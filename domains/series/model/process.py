"""What a stochastic process depends on: a β-VAE of whole paths with an autoregressive decoder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.distributions import Distribution
from torch.nn import functional

from core.runtime import methods
from core.variational.estimators import REPARAMETERISED, Estimator
from core.variational.evidence import Evidence, Latent
from domains.series.config import Config
from domains.series.config import ProcessVAE as ProcessVAESection
from domains.series.data import Dataset, Windows
from domains.series.model.base import SeriesModel
from domains.series.model.latents import draws_of_prior, evidence_of

LEAST_STEP = 1e-6  # in scaled units: a path that never moves


@dataclass(frozen=True, eq=False)
class Past:
    """What a decoder sees at each step.

    Args:
        anchor: The last value known before, 0 where there is none, ``(…, time, channel)``.
        numbers: Values before relative to it, their masks, how long ago it was.
    """

    anchor: Tensor
    numbers: Tensor


class ProcessVAE(SeriesModel):
    r"""A few latents for a whole path, each value given those just before it.

    .. math:: p(x, z) = p(z) \prod_t p(x_t \mid x_{t-m}, \dots, x_{t-1}, z)

    The decoder sees what is local, so that the latents need to hold what is global alone: the
    parameters of the process. With the price of the KL those that hold nothing switch off, and
    the active units that are left count the parameters.

    Everything is relative to the last value known, in units of a usual step: paths of processes
    that have no level (``increments``) are the same wherever they are. The encoder is a mean over
    the path of a network's features of each value and those before it, as an estimator by
    moments is. Missing values are left out of context and likelihood: what is explained are the
    values that are known, each given those known before it, which is a density of them. What is
    seen is explained together with the targets, whatever the task. Values that come later than a
    gap tell of it by the latent alone.

    Deviations from the published model: local windows in place of two stacks of dilated
    convolutions; a scale that the decoder predicts, as the likelihood of the settings says.

    References:
        Fernández-Fernández, Manzo, Lewenstein, Dauphin and Muñoz-Gil, "Learning minimal
        representations of stochastic processes with variational autoencoders", Physical Review E
        110, 2024 (arXiv:2307.11608).

    Args:
        unit: A usual step of each channel, in scaled units, of shape ``(channel,)``.
        latent: Length of the latent vector.
        hidden: Units of encoder and decoder.
        memory: Values before, :math:`m`.
        increments: Whether the level of a path is kept from encoder and decoder.
        posterior: From ``hidden`` features to the distribution of the latent.
        prior: Of the latent.
        likelihood: From ``hidden`` features of a step to the distribution of its values.
        estimator: How latents are drawn in training.
    """

    likelihood: Any
    unit: Tensor

    def __init__(
        self,
        unit: Float[Tensor, " channel"],
        latent: int,
        hidden: int,
        memory: int,
        increments: bool,
        posterior: nn.Module,
        prior: nn.Module,
        likelihood: nn.Module,
        estimator: Estimator = REPARAMETERISED,
    ) -> None:
        super().__init__()
        self.register_buffer("unit", unit)
        self.latent, self.memory, self.increments = latent, memory, increments
        channels = len(unit)
        numbers = channels * (2 * memory + 2 + (not increments))
        self.steps = nn.Sequential(
            nn.Linear(numbers + 2 * channels, hidden),
            nn.SiLU(),
            nn.Linear(hidden, hidden),
            nn.SiLU(),
        )
        self.summary = nn.Sequential(nn.Linear(hidden + 1, hidden), nn.SiLU())
        self.context = nn.Linear(numbers, hidden)
        self.modulation = nn.Sequential(
            nn.Linear(latent, hidden), nn.SiLU(), nn.Linear(hidden, 4 * hidden)
        )
        self.mix = nn.Linear(hidden, hidden)
        self.posterior, self.prior, self.likelihood = posterior, prior, likelihood
        self.likelihood.head = RelativeHead(self.likelihood.head, unit)
        self.estimator = estimator

    def evidence(self, batch: Windows, samples: int = 1) -> Evidence:
        """What the model says of the targets of a batch, from ``samples`` posterior draws."""
        latent = Latent.draw("z", self.encode(batch), self.prior, samples, self.estimator)
        known = batch.seen | batch.targets
        likelihood = self.decode(latent.value, batch.values, known, batch.times)
        return evidence_of(batch, likelihood, latent, known)

    def encode(self, batch: Windows) -> Distribution:
        """Return the posterior of the latent given what is seen of each path."""
        past = self.past(batch.values, batch.seen, batch.times)
        seen = batch.seen.to(batch.values)
        moved = (batch.values - past.anchor) / self.unit * seen
        steps = self.steps(torch.cat([past.numbers, moved, seen], -1))
        there = batch.seen.any(-1, keepdim=True).to(steps)
        count = there.sum(1)
        mean = (steps * there).sum(1) / count.clamp(min=1)
        return self.posterior(self.summary(torch.cat([mean, count.log1p()], -1)))

    def decode(
        self,
        z: Float[Tensor, "*draws batch latent"],
        values: Float[Tensor, "*paths batch time channel"],
        known: Bool[Tensor, "*paths batch time channel"],
        times: Float[Tensor, "batch time"],
    ) -> Distribution:
        """Return the distribution of each value given the latent and those known before it."""
        past = self.past(values, known, times)
        return self._likelihood(z, past.numbers, past.anchor)

    def past(
        self,
        values: Float[Tensor, "*draws batch time channel"],
        known: Bool[Tensor, "*draws batch time channel"],
        times: Float[Tensor, "batch time"],
    ) -> Past:
        """Return what is known before each step."""
        anchor, since, any_before = last_known(values, known, times)
        lags = functional.pad(values, (0, 0, self.memory, 0))[..., :-1, :]
        there = functional.pad(known.to(values), (0, 0, self.memory, 0))[..., :-1, :]
        lags, there = (each.unfold(-2, self.memory, 1) for each in (lags, there))
        moved = (lags - anchor.unsqueeze(-1)) / self.unit.unsqueeze(-1) * there
        numbers = [moved.flatten(-2), there.flatten(-2), since.log1p(), any_before]
        if not self.increments:
            numbers.append(anchor)
        return Past(anchor, torch.cat(numbers, -1))

    def predictive(self, batch: Windows, samples: int) -> Distribution:
        """Return the distribution of each value given those before it, seen or drawn."""
        return self._continued(batch, samples)[1]

    def predict(self, batch: Windows, samples: int) -> Float[Tensor, "samples batch time channel"]:
        """Draw paths through the values seen: each value given those before it."""
        return self._continued(batch, samples)[0]

    def generative(self, times: Float[Tensor, "count time"]) -> Distribution:
        """Return the distribution of each value of new paths, given the path until then."""
        return self._generated(times)[1]

    def draw_windows(
        self, times: Float[Tensor, "count time"]
    ) -> Float[Tensor, "count time channel"]:
        """Draw paths value by value."""
        return self._generated(times)[0]

    def _continued(self, batch: Windows, samples: int) -> tuple[Tensor, Distribution]:
        z = self.encode(batch).sample(torch.Size((samples,)))
        shape = (samples, *batch.values.shape)
        return self._rolled(z, batch.values.expand(shape), batch.seen.expand(shape), batch.times)

    def _generated(self, times: Tensor) -> tuple[Tensor, Distribution]:
        z = draws_of_prior(self.prior, len(times), self.latent, times)
        nothing = times.new_zeros(*times.shape, len(self.unit))
        return self._rolled(z, nothing, torch.zeros_like(nothing, dtype=torch.bool), times)

    @torch.no_grad()
    def _rolled(
        self, z: Tensor, values: Tensor, seen: Tensor, times: Tensor
    ) -> tuple[Tensor, Distribution]:
        """Draw step by step what is not seen; return the paths and what each was drawn from."""
        path, known = torch.where(seen, values, 0), torch.ones_like(seen)
        for step in range(path.shape[-2]):
            part = slice(max(step - self.memory, 0), step + 1)
            past = self.past(path[..., part, :], known[..., part, :], times[:, part])
            here = self._likelihood(z, past.numbers[..., -1:, :], past.anchor[..., -1:, :])
            drawn = here.sample()[..., 0, :]
            path[..., step, :] = torch.where(seen[..., step, :], path[..., step, :], drawn)
        return path, self.decode(z, path, known, times)

    def _likelihood(self, z: Tensor, numbers: Tensor, anchor: Tensor) -> Distribution:
        one, two, three, four = self.modulation(z).unsqueeze(-2).chunk(4, -1)
        h = functional.silu(self.context(numbers) * (1 + one) + two)
        h = functional.silu(self.mix(h) * (1 + three) + four)
        anchor = anchor.expand(*h.shape[:-1], -1)
        return self.likelihood(torch.cat([h, anchor], -1))


class RelativeHead(nn.Module):
    """A likelihood's head that is relative to an anchor, in units of a usual step.

    Its input ends in the anchor. A scale that is predicted is in those units too.

    Args:
        head: Gives locations, and after them logarithms of scales if it predicts them.
        unit: Of each channel.
    """

    unit: Tensor

    def __init__(self, head: nn.Module, unit: Float[Tensor, " channel"]) -> None:
        super().__init__()
        self.head = head
        self.register_buffer("unit", unit, persistent=False)

    def forward(self, features: Tensor) -> Tensor:
        """Return locations, and log scales if there are any."""
        channels = len(self.unit)
        raw = self.head(features[..., :-channels])
        loc = torch.addcmul(features[..., -channels:], self.unit, raw[..., :channels])
        if raw.shape[-1] == channels:
            return loc
        return torch.cat([loc, raw[..., channels:] + self.unit.log()], -1)


def last_known(
    values: Float[Tensor, "*batch time channel"],
    known: Bool[Tensor, "*batch time channel"],
    times: Float[Tensor, "*times time"],
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the last known value before each step, the time since, and whether there is any.

    Values and times are 0 where there is none.

    Example:
        >>> values, known = torch.tensor([[3.0], [9.0], [4.0]]), torch.tensor([[1], [0], [1]])
        >>> value, since, there = last_known(values, known.bool(), torch.arange(3.0))
        >>> value.flatten().tolist(), since.flatten().tolist(), there.flatten().tolist()
        ([0.0, 3.0, 3.0], [0.0, 1.0, 2.0], [0.0, 1.0, 1.0])
    """
    place = torch.arange(values.shape[-2], device=values.device)[:, None].expand(values.shape)
    last = torch.where(known, place, -1).cummax(-2).values
    last = functional.pad(last, (0, 0, 1, 0), value=-1)[..., :-1, :]
    there = last >= 0
    last = last.clamp(min=0)
    clock = times.unsqueeze(-1).expand(values.shape)
    value = torch.where(there, torch.where(known, values, 0).gather(-2, last), 0)
    since = torch.where(there, clock - clock.gather(-2, last), 0)
    return value, since, there.to(values)


def usual_step(dataset: Dataset) -> Float[Tensor, " channel"]:
    """Return the root mean square step of each channel in the train part, in scaled units."""
    steps = []
    for one, rows, hidden in zip(
        dataset.panel.series, dataset.train_rows, dataset.hidden, strict=True
    ):
        usable = rows[:, None] & ~hidden
        steps.append(np.diff(np.where(usable, dataset.scaler.apply(one.values), np.nan), axis=0))
    squares = np.concatenate(steps) ** 2
    count = (~np.isnan(squares)).sum(0)
    square = np.where(count > 0, np.nansum(squares, axis=0) / np.maximum(count, 1), 1.0)
    return torch.from_numpy(np.sqrt(square)).float().clamp(min=LEAST_STEP)


def build(config: Config, dataset: Dataset) -> ProcessVAE:
    """A new, initialised model for a dataset.

    Raises:
        UserError: If the model cannot have the posterior or the prior.
    """
    section = config.model
    assert isinstance(section, ProcessVAESection)
    return ProcessVAE(
        unit=usual_step(dataset),
        **section.model_dump(exclude={"kind"}),
        posterior=methods.build_posterior(config.posterior, section.hidden, section.latent),
        prior=methods.build_prior(config.prior, section.latent),
        likelihood=methods.build_likelihood(
            config.likelihood, section.hidden, len(dataset.channels), event_dims=0
        ),
        estimator=methods.build_estimator(config.estimator),
    )
