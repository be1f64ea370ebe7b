"""What a model sees at each step: windows of crops, each with the rate that is asked of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from numpy.typing import NDArray

from core.contract import Split
from core.runtime.order import generator
from domains.compression.config import Config
from domains.compression.data.manifest import Dataset, load
from domains.compression.data.records import LAST_RATE, Images

VALIDATED = 64  # windows that a model is chosen with
GOLDEN = (5**0.5 - 1) / 2
FINE = 2**20  # places that a draw may start from
Rates = Int64[np.ndarray, " window"]


def batches(config: Config, folder: Path, split: Split) -> CropBatches:
    """Return the batches of one split of the prepared crops."""
    return CropBatches(load(folder), split, config)


def examples(dataset: Dataset, count: int) -> Images:
    """Return whole train crops, spread over all photographs and over all rates.

    Args:
        dataset: The prepared crops.
        count: Wanted; all that there are if they are fewer.
    """
    chosen = spread_out(dataset.indices("train"), count)
    return _images(dataset.crops[chosen], spread_rates(len(chosen)))


@dataclass(frozen=True, eq=False)
class CropBatches:
    """The batches of one split. A batch is a function of (seed, epoch, index) alone.

    ``train``: an epoch draws as many crops as there are, the one with more detail more often
    (`drawn`), in random order. Of each a window at a random place is seen, mirrored and turned at
    random, at a random rate; the rates of a batch are spread (`stratified_rates`). A last batch
    that is not full is left out, unless it is the only one.

    ``valid`` and ``test``: the window in the middle of each crop, once, in order, at rates that
    are spread over all; the same in every epoch. For validation at most `VALIDATED` crops, spread
    over all photographs.

    Args:
        dataset: The prepared crops.
        split: Which part.
        config: The settings.
    """

    dataset: Dataset
    split: Split
    config: Config
    _orders: dict[int, NDArray[np.int64]] = field(default_factory=dict, repr=False)

    def __len__(self) -> int:
        """Steps in one epoch."""
        full, rest = divmod(len(self.chosen), self.config.training.batch)
        return max(full, 1) if self.split == "train" else full + (rest > 0)

    def batch(self, epoch: int, index: int) -> Images:
        """Batch ``index`` of ``epoch``; validation and test are the same in every epoch."""
        size = self.config.training.batch
        place = slice(index * size, (index + 1) * size)
        if self.split == "train":
            return self._trained(self._order(epoch)[place], epoch, index)
        return self._evaluated(self.chosen[place], self._rates[place])

    @cached_property
    def chosen(self) -> NDArray[np.int64]:
        """Indices of the crops of this split."""
        indices = self.dataset.indices(self.split)
        return spread_out(indices, VALIDATED) if self.split == "valid" else indices

    @cached_property
    def _weights(self) -> NDArray[np.float64]:
        return self.dataset.detail[self.chosen] ** self.config.data.busy

    @cached_property
    def _rates(self) -> Rates:
        return spread_rates(len(self.chosen))

    def _order(self, epoch: int) -> NDArray[np.int64]:
        if epoch not in self._orders:
            self._orders.clear()
            random = generator(self.config.seed, "order", epoch)
            self._orders[epoch] = self.chosen[random.permutation(drawn(self._weights, random))]
        return self._orders[epoch]

    def _trained(self, crops: NDArray[np.int64], epoch: int, index: int) -> Images:
        data, count = self.config.data, len(crops)
        random = generator(self.config.seed, "windows", epoch, index)
        places = random.integers(0, data.crop - data.window + 1, size=(count, 2))
        turns = random.integers(0, 8 if data.flips else 1, size=count)
        rates = stratified_rates(count, random)
        windows = np.empty((count, 3, data.window, data.window), np.uint8)
        seen = zip(windows, crops.tolist(), places.tolist(), turns.tolist(), strict=True)
        for window, crop, (top, left), turn in seen:
            window[:] = turned(self._window(crop, top, left), turn)
        return _images(windows, rates)

    def _evaluated(self, crops: NDArray[np.int64], rates: Rates) -> Images:
        middle = (self.config.data.crop - self.config.data.window) // 2
        return _images(
            np.stack([self._window(crop, middle, middle) for crop in crops.tolist()]), rates
        )

    def _window(self, crop: int, top: int, left: int) -> UInt8[np.ndarray, "colour row column"]:
        side = self.config.data.window
        return self._crops[crop, :, top : top + side, left : left + side]

    @cached_property
    def _crops(self) -> NDArray[np.uint8]:
        return np.asarray(self.dataset.crops)


def drawn(weights: NDArray[np.float64], random: np.random.Generator) -> NDArray[np.int64]:
    r"""Draw as many items as there are, with replacement, in proportion to their weights.

    Places :math:`u, u + 1, \dots, u + n - 1` are laid over the weights, one after the other and
    scaled to a sum of :math:`n`: an item of :math:`n` times the chance :math:`p` is drawn
    :math:`\lfloor np \rfloor` or :math:`\lceil np \rceil` times, and :math:`np` times on average.
    Items of equal weight are drawn once each.

    References:
        Madow, "On the theory of systematic sampling, II", Annals of Mathematical Statistics 20
        (1949).

    Args:
        weights: Not negative; if all are 0 they count as equal.
        random: Where the start comes from.

    Example:
        >>> drawn(np.array([3.0, 1.0, 0.0, 0.0]), np.random.default_rng(0)).tolist()
        [0, 0, 0, 1]
    """
    ends = np.cumsum(weights if weights.any() else np.ones_like(weights))
    start = (
        random.integers(FINE) + 0.5
    ) / FINE  # away from the ends, so that rounding is harmless
    places = (np.arange(len(weights)) + start) * (ends[-1] / len(weights))
    return np.searchsorted(ends, places, side="right")


def stratified_rates(count: int, random: np.random.Generator) -> Rates:
    """Draw rates, each uniform, one from each of as many equal parts of the scale.

    Example:
        >>> sorted((stratified_rates(11, np.random.default_rng(0)) // 23).tolist())
        [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10]
    """
    places = (random.permutation(count) + random.random(count)) / count
    return (places * (LAST_RATE + 1)).astype(np.int64)


def spread_rates(count: int) -> Rates:
    """Return fixed rates of which any few that follow each other are spread over the scale.

    Multiples of the golden ratio, without their whole parts.
    """
    places = (0.5 + GOLDEN * np.arange(count)) % 1
    return (places * (LAST_RATE + 1)).astype(np.int64)


def spread_out(indices: NDArray[np.int64], most: int) -> NDArray[np.int64]:
    """Return at most so many of them, evenly spread.

    Example:
        >>> spread_out(np.arange(10), 4).tolist()
        [1, 3, 6, 8]
    """
    count = min(most, len(indices))
    return indices[(2 * np.arange(count) + 1) * len(indices) // (2 * max(count, 1))]


def turned(window: NDArray[np.uint8], turn: int) -> NDArray[np.uint8]:
    """Return one of the eight ways to lay a square: mirrored, upside down, transposed.

    Args:
        window: ``(colour, row, column)``.
        turn: 0 to 7, a bit for each.
    """
    window = window[:, :, ::-1] if turn & 1 else window
    window = window[:, ::-1] if turn & 2 else window
    return window.swapaxes(1, 2) if turn & 4 else window


def _images(pixels: NDArray[np.uint8], rates: Rates) -> Images:
    return Images(torch.from_numpy(np.ascontiguousarray(pixels)), torch.from_numpy(rates))
