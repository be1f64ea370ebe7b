"""How surprising rows of whole series are to a model that filters: to find anomalies by."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from domains.series.data import Dataset, Panel, Windows
from domains.series.data.records import Array
from domains.series.data.windows import gather, rows, step_of
from domains.series.model.structured import StructuredKoopmanVAE

LEAST = 0.01  # share of train rows that are less surprising than what counts as no surprise
SOFT = 0.1  # nats, below which differences in surprise do not matter
NORMAL_MAD = 1.4826  # standard deviation of a Normal in median absolute deviations


@torch.no_grad()
def filtered_scores(
    model: StructuredKoopmanVAE, dataset: Dataset, panel: Panel, samples: int = 16
) -> list[Array]:
    r"""Score each row by :math:`-\log p(x_t \mid x_{<t})`, its channels jointly, in nats.

    All rows before count, not those of a window alone, at a cost linear in the length. Exact for a
    linear dynamical system. Nats are of scaled values.

    Args:
        model: In evaluation mode, one that `filters`.
        dataset: What it was trained on.
        panel: Series of the same channels.
        samples: Draws of a row's state behind each density that is not exact.

    Returns:
        Of each series, ``(time,)``; NaN where a row has no value.

    Raises:
        ValueError: If the model does not filter.
    """
    found = []
    for whole in _whole_series(model, dataset, panel):
        surprise = model.surprise_ahead(whole, samples)[0].double()
        found.append(torch.where(whole.known[0].any(-1), surprise, torch.nan).numpy())
    return found


@dataclass(frozen=True, eq=False)
class Typical:
    """The surprise that is usual for stretches of the train rows, channel by channel.

    Args:
        length: Rows of a stretch.
        least: Surprise in nats that counts as none.
        middle: Median of the mean log surprise of a stretch.
        spread: Its robust standard deviation.
    """

    length: int
    least: Array
    middle: Array
    spread: Array

    def scores(self, surprise: Array) -> Array:
        """Return how many spreads off the usual the stretch around each row is at most."""
        off = np.abs(_mean_log(surprise, self.least, self.length) - self.middle) / self.spread
        return np.where(np.isnan(off).all(1), np.nan, np.fmax.reduce(off, axis=1))


def typical(
    model: StructuredKoopmanVAE, dataset: Dataset, length: int, samples: int = 16
) -> Typical:
    """Find what surprise is usual for stretches of so many rows; see `stretch_scores`."""
    usual = _value_scores(model, dataset, dataset.panel, samples)
    pairs = list(zip(usual, dataset.train_rows, strict=True))
    least = np.nanquantile(np.concatenate([each[train] for each, train in pairs]), LEAST, axis=0)
    means = np.concatenate([_mean_log(each, least, length)[train] for each, train in pairs])
    middle = np.nanmedian(means, axis=0)
    spread = NORMAL_MAD * np.nanmedian(np.abs(means - middle), axis=0)
    return Typical(length, least, middle, spread)


def stretch_scores(
    model: StructuredKoopmanVAE,
    dataset: Dataset,
    panel: Panel,
    usual: Typical,
    samples: int = 16,
) -> list[Array]:
    r"""Score each row by how untypical the surprise of the stretch around it is.

    .. math:: \max_j \frac{|\bar s_{tj} - m_j|}{d_j}, \quad
        \bar s_{tj} = \frac1n \sum_{|u - t| \le n/2} \log(s_{uj} - s^0_j + 0.1)

    with the surprise :math:`s` of each value given the rows before, in nats, :math:`s^0` its 1 %
    quantile, and median :math:`m` and spread :math:`d` of :math:`\bar s` over the train rows. It
    is for faults that last and of which no row is extreme: a noisy sensor is a little too
    surprising all the time, one that is stuck is not surprising enough. Where there are such
    extremes as a walking person makes, the surprise of single rows says nothing about either.

    References:
        Nalisnick et al., "Detecting Out-of-Distribution Inputs to Deep Generative Models Using
        Typicality", 2019 (arXiv:1906.02994), for too little surprise as a sign; the logarithm, and
        so the robustness against extremes, is ours.

    Args:
        model: In evaluation mode, one that `filters`.
        dataset: What it was trained on.
        panel: Series of the same channels.
        usual: Of stretches of how many rows, see `typical`.
        samples: Draws of a row's state behind each density that is not exact.

    Returns:
        Of each series, ``(time,)``, in spreads; NaN where a stretch has no value.

    Raises:
        ValueError: If the model does not filter.
    """
    return [usual.scores(each) for each in _value_scores(model, dataset, panel, samples)]


@torch.no_grad()
def _value_scores(
    model: StructuredKoopmanVAE, dataset: Dataset, panel: Panel, samples: int
) -> list[Array]:
    """Return the surprise of each value given the rows before, NaN where there is none."""
    return [
        torch.where(whole.known[0], model.surprise(whole, samples)[0].double(), torch.nan).numpy()
        for whole in _whole_series(model, dataset, panel)
    ]


def _whole_series(
    model: StructuredKoopmanVAE, dataset: Dataset, panel: Panel
) -> Iterator[Windows]:
    """Yield each series as one window of its own length."""
    if not model.filters:
        raise ValueError("scores: the model cannot tell a row from those before; see `filters`")
    given = rows(panel, None, dataset.scaler, step_of(dataset, panel))
    for series, length in enumerate(np.diff(given.first).tolist()):
        yield gather(given, np.array([[series, 0]]), length, given.known, given.known)


def _mean_log(surprise: Array, least: Array, length: int) -> Array:
    """Return the mean log surprise of the stretch around each row, of what is known of it."""
    known = ~np.isnan(surprise)
    logs = np.log(np.maximum(np.where(known, surprise, least) - least, 0) + SOFT)
    total, count = _sums(np.where(known, logs, 0.0), length), _sums(known.astype(float), length)
    return np.where(count > 0.5, total / np.maximum(count, 1.0), np.nan)


def _sums(values: Array, length: int) -> Array:
    """Return the sum of the rows around each, fewer at the ends."""
    row = np.arange(len(values))
    first = np.maximum(row - length // 2, 0)
    last = np.minimum(row - length // 2 + length, len(values))
    running = np.concatenate([np.zeros((1, values.shape[1])), values.cumsum(0)])
    return running[last] - running[first]
