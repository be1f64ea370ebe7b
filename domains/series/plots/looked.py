"""What several figures show, computed once."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray

from core.contract import Split
from core.runtime.order import derive, generator
from core.variational.diagnostics import looking_at, probability_integral
from domains.series.config import Config
from domains.series.data import Clock, Dataset, Windows, every_window
from domains.series.model.base import SeriesModel, Spectrum
from domains.series.plots.drawing import Array, Mask, spread

MOST_WINDOWS = 1000  # of each kind that are compared
MOST_TEST = 300
MOST_PREDICTED = 400
MOST_CELLS = 250_000  # values that are predicted for calibration
CELLS_AT_ONCE = 4_000_000  # draws of values held at once
DRAWS = 99  # so that the rank of the truth has 100 places


@dataclass(frozen=True, eq=False)
class Likeness:
    """Real windows and as many generated ones, with the times and gaps of the real ones.

    Args:
        real: Of shape ``(window, time, channel)`` in original units, NaN where not known.
        generated: The same, NaN at the same places.
        every: All train windows, which the real ones are some of.
        test: Some of the test part; None if they are train windows too.
        chosen: Which of them those are.
        dataset: Where they come from.
    """

    real: Array
    generated: Array
    every: Array
    test: Array | None
    chosen: NDArray[np.int64]
    dataset: Dataset

    def vectors(self, windows: Array) -> Array:
        """Return windows as points: scaled, gaps closed by straight lines, ``(window, …)``."""
        scaled = self.dataset.scaler.apply(windows)
        return closed(scaled).reshape(len(scaled), -1)

    def varied(self, most: int) -> NDArray[np.int64]:
        """Return at most so many channels, chosen to be little correlated, in their order."""
        return np.sort(varied(correlation(self.real), most))


@dataclass(frozen=True, eq=False)
class Predicted:
    """What a model says of the hidden values of windows; scaled.

    Args:
        batch: The windows, on the CPU.
        median: Over the draws of what the likelihood expects, ``(window, time, channel)``.
        rank: Where in its draws the truth lies, in (0, 1): uniform for calibrated predictions.
    """

    batch: Windows
    median: Array
    rank: Array

    @property
    def targets(self) -> Mask:
        """Which values were to be found."""
        return self.batch.targets.numpy()


@dataclass(frozen=True, eq=False)
class Looked:
    """A run's settings, data and model, and what is asked of them."""

    config: Config
    dataset: Dataset
    model: SeriesModel

    @cached_property
    def steps(self) -> Clock:
        """The clock of times that are counted in steps."""
        clock = self.dataset.panel.clock
        return replace(clock, kind="index") if self.dataset.spacing == "rows" else clock

    @contextmanager
    def looking(self, purpose: str) -> Iterator[None]:
        """Look at the model, its randomness a function of seed and purpose alone."""
        with looking_at(self.model, derive(self.config.seed, "figure", purpose)):
            yield

    def windows(self, split: Split) -> Windows:
        """All windows of a split."""
        return every_window(self.dataset, split, self.config)

    @cached_property
    def device(self) -> torch.device:
        """Where the model is."""
        return next((each.device for each in self.model.parameters()), torch.device("cpu"))

    @cached_property
    def spectrum(self) -> Spectrum | None:
        """The modes of the model's dynamics on the train windows."""
        with self.looking("spectrum"):
            return self.model.spectrum(pieces(self.windows("train"), 512, self.device))

    @cached_property
    def likeness(self) -> Likeness | None:
        """Train windows beside generated ones; None if the model cannot generate."""
        every = self.windows("train")
        rng = generator(self.config.seed, "figure", "likeness")
        chosen = np.sort(rng.permutation(len(every))[:MOST_WINDOWS])
        times = every.times[torch.from_numpy(chosen)]
        with self.looking("generated"):
            try:
                drawn = [
                    self.model.draw_windows(part.to(self.device)).cpu()
                    for part in times.split(500)
                ]
            except NotImplementedError:
                return None
        real = original(self.dataset, every.values, every.known)
        generated = original(self.dataset, torch.cat(drawn), every.known[torch.from_numpy(chosen)])
        return Likeness(real[chosen], generated, real, self._test, chosen, self.dataset)

    @property
    def _test(self) -> Array | None:
        if self.config.data.split == "windows":
            return None
        windows = self.windows("test")
        some = pick(windows, spread(len(windows), MOST_TEST))
        return original(self.dataset, some.values, some.known)

    @cached_property
    def hidden(self) -> Windows:
        """Test windows that have something to be found, at most so many, spread evenly."""
        batch = self.windows("test")
        found = np.flatnonzero(batch.targets.flatten(1).any(1).numpy())
        cells = max(1, math.prod(batch.values.shape[1:]))
        return pick(
            batch, found[spread(len(found), max(1, min(MOST_PREDICTED, MOST_CELLS // cells)))]
        )

    @cached_property
    def predicted(self) -> Predicted | None:
        """Predictions of their hidden values; None where nothing is hidden."""
        batch = self.hidden
        if not len(batch):
            return None
        size = max(1, CELLS_AT_ONCE // (DRAWS * math.prod(batch.values.shape[1:])))
        medians, ranks = [], []
        with self.looking("predicted"):
            for part in pieces(batch, size, self.device):
                distribution = self.model.predictive(part, DRAWS)
                draws, expected = distribution.sample(), distribution.mean
                centre = torch.where(torch.isfinite(expected), expected, draws).median(0).values
                medians.append(centre.double().cpu().numpy())
                ranks.append(probability_integral(draws, part.values).cpu().numpy())
        return Predicted(batch, np.concatenate(medians), np.concatenate(ranks))


def pick(batch: Windows, places: NDArray[np.int64]) -> Windows:
    """Return some windows of a batch."""
    chosen = torch.from_numpy(np.asarray(places, dtype=np.int64))
    return Windows(**{name: getattr(batch, name)[chosen] for name in Windows.__annotations__})


def pieces(batch: Windows, size: int, device: torch.device) -> Iterator[Windows]:
    """Yield a batch in pieces on a device."""
    for start in range(0, len(batch), size):
        yield pick(batch, np.arange(start, min(start + size, len(batch)))).to(device)


def original(dataset: Dataset, values: torch.Tensor, known: torch.Tensor) -> Array:
    """Return scaled values in their own units, NaN where they are not known."""
    return np.where(
        known.cpu().numpy(), dataset.scaler.invert(values.double().cpu().numpy()), np.nan
    )


def correlation(windows: Array) -> Array:
    """Return the correlations of channels over the rows of which both are known.

    Args:
        windows: Of shape ``(window, time, channel)``, NaN where not known.

    Returns:
        Of shape ``(channel, channel)``; 0 beside a constant channel.
    """
    rows = windows.reshape(-1, windows.shape[-1])
    known = (~np.isnan(rows)).astype(float)
    centre = np.where(known.sum(0) > 0, np.nansum(rows, 0) / np.maximum(known.sum(0), 1), 0)
    filled = np.where(known > 0, rows - centre, 0)
    count = np.maximum(known.T @ known, 1)
    # Means and variances over the rows that both channels have.
    first, product = filled.T @ known / count, filled.T @ filled / count
    second = (filled**2).T @ known / count
    variance = np.maximum(second - first**2, 0)
    scale = np.sqrt(variance * variance.T)
    covariance = product - first * first.T
    return np.divide(covariance, scale, out=np.zeros_like(scale), where=scale > 0)


def varied(correlations: Array, most: int) -> NDArray[np.int64]:
    """Return the first channel and those that each are least correlated with the ones before.

    Example:
        >>> varied(np.array([[1.0, 0.9, 0.1], [0.9, 1.0, 0.2], [0.1, 0.2, 1.0]]), 2)
        array([0, 2])
    """
    alike, chosen = np.abs(correlations), [0]
    while len(chosen) < min(most, len(alike)):
        nearest = alike[:, chosen].max(axis=1)
        nearest[chosen] = np.inf
        chosen.append(int(nearest.argmin()))
    return np.array(chosen)


def closed(windows: Array) -> Array:
    """Close the gaps of each channel of each window by straight lines over rows.

    The ends go on as they are; a channel without any value is 0.

    Example:
        >>> closed(np.array([[[np.nan], [1.0], [np.nan], [3.0]]])).ravel()
        array([1., 1., 2., 3.])
    """
    filled = windows.copy()
    rows = np.arange(windows.shape[1])
    for window, channel in zip(*np.nonzero(np.isnan(windows).any(axis=1)), strict=True):
        column = filled[window, :, channel]
        known = ~np.isnan(column)
        column[:] = np.interp(rows, rows[known], column[known]) if known.any() else 0.0
    return filled
