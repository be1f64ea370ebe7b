"""What every model of series can do, whatever it is inside."""

from __future__ import annotations

import abc
import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from jaxtyping import Complex, Float
from torch import Tensor, nn
from torch.distributions import Distribution

from core.variational.evidence import Evidence
from domains.series.data import Windows


@dataclass(frozen=True, eq=False)
class Spectrum:
    """The modes of a model's linear dynamics; times in steps of the clock's interval.

    Args:
        eigenvalues: For one step.
        half_lives: Time in which a mode halves; infinite on the circle.
        periods: Infinite for a mode that does not turn.
        energy: Share of the latents' variance that each mode holds on the train windows; it sums
            to 1.
    """

    eigenvalues: Complex[Tensor, " mode"]
    half_lives: Float[Tensor, " mode"]
    periods: Float[Tensor, " mode"]
    energy: Float[Tensor, " mode"]


class SeriesModel(nn.Module, abc.ABC):
    """A model of windows of series; everything it takes and gives is scaled.

    The distributions it gives are over elements: batch shape ``(samples, batch, time, channel)``
    and no event.
    """

    @abc.abstractmethod
    def evidence(self, batch: Windows, samples: int = 1) -> Evidence:
        """What the model says of the targets of a batch, from ``samples`` posterior draws."""

    @abc.abstractmethod
    def predictive(self, batch: Windows, samples: int) -> Distribution:
        """Return what it holds likely of every value given those seen, one part for each draw.

        The mean over draws of these distributions is the predictive distribution.
        """

    def generative(self, times: Float[Tensor, "count time"]) -> Distribution:
        """Return what it holds likely given latents drawn from its prior, one draw a window.

        Args:
            times: When the rows of each window are, as in `Windows`.

        Raises:
            NotImplementedError: If it cannot generate.
        """
        raise NotImplementedError(f"{type(self).__name__} predicts only; it cannot generate")

    def spectrum(self, batches: Iterable[Windows]) -> Spectrum | None:
        """Return the modes of its dynamics, None if it has none."""
        return None

    def finish(self, batches: Iterable[Windows]) -> None:
        """Fit what is fitted once training has ended, on the train windows."""

    def predict(self, batch: Windows, samples: int) -> Float[Tensor, "samples batch time channel"]:
        """Draw every value given those seen, noise of the likelihood included; seen ones stay."""
        drawn = self.predictive(batch, samples).sample()
        return torch.where(batch.seen, batch.values, drawn)

    def draw_windows(
        self, times: Float[Tensor, "count time"]
    ) -> Float[Tensor, "count time channel"]:
        """Draw windows, noise of the likelihood included."""
        return self.generative(times).sample()

    def surprise(self, batch: Windows, samples: int) -> Float[Tensor, "batch time channel"]:
        r"""Return :math:`-\log p(x_{tj} \mid \text{seen})` of each value, in nats."""
        log_prob = self.predictive(batch, samples).log_prob(batch.values)
        return math.log(samples) - log_prob.logsumexp(0)
