"""What a model sees at each step: windows with masks of what is known, seen and explained."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from core.contract import Split
from core.runtime.order import generator
from domains.series.config import Config
from domains.series.data.masks import hide, hide_anew
from domains.series.data.records import Array, Dataset, Mask, Windows
from domains.series.data.store import load
from domains.series.data.windows import Rows, Starts, gather, rows_of_dataset


def batches(config: Config, folder: Path, split: Split) -> WindowBatches:
    """Return the batches of one split of the prepared series."""
    return WindowBatches(load(folder), split, config)


def every_window(dataset: Dataset, split: Split, config: Config) -> Windows:
    """Return all windows of a split in order, masked as for validation and test."""
    return WindowBatches(dataset, split, config).evaluated(dataset.windows[split])


def window_values(dataset: Dataset, split: Split) -> tuple[Array, Mask]:
    """Return all windows of a split, scaled, and where they are known.

    Both are ``(window, time, channel)``. Values hidden from models are there; NaN is where nothing
    is known.
    """
    rows = rows_of_dataset(dataset)
    index, present = rows.index(dataset.windows[split], dataset.window)
    known = rows.known[index] & present[:, :, None]
    stacked = np.concatenate([one.values for one in dataset.panel.series])
    return np.where(known, dataset.scaler.apply(stacked)[index], np.nan), known


@dataclass(frozen=True, eq=False)
class WindowBatches:
    """The batches of one split. A batch is a function of (seed, epoch, index) alone.

    ``generate``: whatever is not hidden is seen and explained.

    ``impute``: at each training step a random share more is hidden, in mixed patterns, and that is
    explained. In valid and test what ``data.hide`` hides is explained; where it hides nothing, a
    fixed random share of the values.

    ``forecast``: the last rows are explained given those before. Hidden values are no targets of
    training; in the test they are.

    Args:
        dataset: The prepared series.
        split: Which part.
        config: The settings.
    """

    dataset: Dataset
    split: Split
    config: Config
    _orders: dict[int, NDArray[np.int64]] = field(default_factory=dict, repr=False)

    def __len__(self) -> int:
        """Steps in one epoch."""
        return -(-len(self._starts) // self.config.training.batch)

    def batch(self, epoch: int, index: int) -> Windows:
        """Batch ``index`` of ``epoch``; validation and test are the same in every epoch."""
        size = self.config.training.batch
        chosen = slice(index * size, (index + 1) * size)
        if self.split != "train":
            return self.evaluated(self._starts[chosen])
        return self._trained(self._starts[self._order(epoch)[chosen]], epoch, index)

    def evaluated(self, starts: Starts) -> Windows:
        """Return windows masked as for validation and test."""
        known = self._rows.known
        if self.config.task.kind == "impute":
            return self._gather(starts, self._tested, known & ~self._tested)
        if self.config.task.kind == "forecast":
            windows = self._gather(starts, self._visible, known)
            return _ahead(windows, self.config.task.horizon)
        return self._gather(starts, self._visible, self._visible)

    def _trained(self, starts: Starts, epoch: int, index: int) -> Windows:
        """Return windows masked as for training."""
        windows = self._gather(starts, self._visible, self._visible)
        if self.config.task.kind == "forecast":
            return _ahead(windows, self.config.task.horizon)
        if self.config.task.kind == "generate":
            return windows
        rng = generator(self.config.seed, "hide", epoch, index)
        task, length = self.config.task, self.config.data.hide.length
        seen = windows.seen.numpy()
        hidden = torch.from_numpy(hide_anew(rng, seen, task.hide, length, task.pattern))
        return replace(windows, seen=windows.seen & ~hidden, targets=hidden)

    def _gather(self, starts: Starts, seen: Mask, targets: Mask) -> Windows:
        return gather(self._rows, starts, self.dataset.window, seen, targets)

    def _order(self, epoch: int) -> NDArray[np.int64]:
        """Return the order of the train windows in an epoch; the last one drawn is kept."""
        if epoch not in self._orders:
            self._orders.clear()
            rng = generator(self.config.seed, "order", epoch)
            self._orders[epoch] = rng.permutation(len(self._starts))
        return self._orders[epoch]

    @property
    def _starts(self) -> Starts:
        return self.dataset.windows[self.split]

    @cached_property
    def _rows(self) -> Rows:
        return rows_of_dataset(self.dataset)

    @cached_property
    def _visible(self) -> Mask:
        """What is not hidden from every model."""
        return self._rows.known & ~self._rows.hidden

    @cached_property
    def _tested(self) -> Mask:
        """What can be seen when imputation is tested; the same in every epoch."""
        if self._rows.hidden.any() or self.config.task.kind != "impute":
            return self._visible
        known = np.where(self._rows.known, 0.0, np.nan)
        rng = generator(self.config.seed, "test")
        return self._visible & ~hide(rng, known, "mcar", self.config.task.hide)


def _ahead(windows: Windows, horizon: int) -> Windows:
    """Show all but the last rows that are no padding, and explain those."""
    rows = windows.present.sum(dim=1, keepdim=True)
    later = torch.arange(windows.present.shape[1]) >= rows - horizon
    future = (later & windows.present)[:, :, None]
    return replace(windows, seen=windows.seen & ~future, targets=windows.targets & future)
