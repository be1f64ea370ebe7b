"""What passes between the rooms: series as read, prepared windows, and what a model sees."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray
from torch import Tensor

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class Clock:
    """What the times of a file mean.

    Args:
        kind: ``datetime``, whose times are seconds since 1970 in UTC; ``number``, in a unit of the
            file's own; ``index``, the row number where a file has no times.
        column: Name of the time column, ``""`` where there is none.
        zone: Time zone to write times in, ``""`` for naive ones.
        form: How a datetime is written (`datetime.strftime`), or ``iso``.
        interval: The usual time between two rows (the median), in seconds or the file's unit.
    """

    kind: Literal["datetime", "number", "index"]
    column: str
    zone: str
    form: str
    interval: float


@dataclass(frozen=True, eq=False)
class Series:
    """One series.

    Args:
        name: Its identifier, ``""`` where a file holds one series.
        times: Increasing, of shape ``(time,)``, in the unit of the clock.
        values: Of shape ``(time, channel)`` in original units, NaN where missing.
        label: 1 where an anomaly is labelled, of shape ``(time,)``; None without labels.
        lines: Line of the file that each row came from, for messages; None where there is none.
    """

    name: str
    times: Array
    values: Array
    label: NDArray[np.int64] | None = None
    lines: NDArray[np.int64] | None = None


@dataclass(frozen=True, eq=False)
class Panel:
    """All that a file holds.

    Args:
        series: At least one.
        channels: Names of the value columns.
        dtypes: Original dtype of each value column, as numpy or pandas spells it.
        clock: What the times mean.
        identifier: Name of the column of the series' names, ``""`` where there is none.
        notes: One line for anything that one should know (merged duplicates, codes of missing).
        label: Name of the column of anomaly labels, ``""`` where there is none.
        columns: Every column taken from a table in its order, with its dtype, so that it can be
            written as it was; empty where it did not come from a table.
    """

    series: tuple[Series, ...]
    channels: tuple[str, ...]
    dtypes: tuple[str, ...]
    clock: Clock
    identifier: str = ""
    notes: tuple[str, ...] = ()
    label: str = ""
    columns: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Scaler:
    r"""An invertible scaling of each channel, fitted on the train part only.

    .. math:: x' = (x - \text{shift}) / \text{scale}

    Args:
        shift: Of shape ``(channel,)``, in the channels' units.
        scale: Of shape ``(channel,)``, positive, in the channels' units.
        logs: Channels whose logarithm is what is scaled, ``(channel,)``; None for none.
    """

    shift: Array
    scale: Array
    logs: Mask | None = None

    def apply(self, values: Array) -> Array:
        """Return values without units, of the same shape ``(..., channel)``."""
        return (self.flattened(values) - self.shift) / self.scale

    def invert(self, values: Array) -> Array:
        """Return values in the original units."""
        found = values * self.scale + self.shift
        return found if self.logs is None else np.exp(found, out=found, where=self.logs)

    def flattened(self, values: Array) -> Array:
        """Return the logarithms of the channels whose logarithms are scaled."""
        if self.logs is None:
            return values
        return np.log(values, out=np.array(values, dtype=float), where=self.logs & (values > 0))


@dataclass(frozen=True, eq=False)
class Dataset:
    """A prepared panel: what ``prepare`` writes and ``load`` reads.

    A window is a stretch of ``window`` rows of one series, named by (series, first row). Windows
    of one split never hold a row that a window of another split holds, but for split kind
    ``windows``, in which every split is all windows (the protocol of TimeGAN).

    Args:
        panel: The series in original units; hidden values are still there.
        hidden: For each series which values are hidden from every model though known.
        scaler: Fitted on the train rows, without hidden values.
        window: Rows in a window.
        windows: For each split the windows, ``(window, 2)``: series, first row.
        train_rows: For each series which rows the train part holds, ``(time,)``.
        season: Rows in a season, found in the train part; 0 if there is none.
        spacing: Whether a model's times are the clock's or count rows.
    """

    panel: Panel
    hidden: tuple[Mask, ...]
    scaler: Scaler
    window: int
    windows: Mapping[str, NDArray[np.int64]]
    train_rows: tuple[Mask, ...]
    season: int
    spacing: Literal["clock", "rows"] = "clock"

    @property
    def channels(self) -> tuple[str, ...]:
        """Names of the channels."""
        return self.panel.channels


@dataclass(frozen=True, eq=False)
class Windows:
    """A batch of windows as a model sees it; values are scaled.

    Args:
        values: 0 where not known.
        known: Where the truth is known, hidden values included: what metrics may compare with.
        seen: What a model may condition on; a part of ``known``.
        targets: What its likelihood explains; a part of ``known``. Without a task of prediction
            the same as ``seen``.
        times: Since the window's first row, in units of the clock's interval: 0, 1, 2, … for a
            regular series.
        present: False for padding, which is at the end.
        origin: Series and first row of each window.
    """

    values: Float[Tensor, "batch time channel"]
    known: Bool[Tensor, "batch time channel"]
    seen: Bool[Tensor, "batch time channel"]
    targets: Bool[Tensor, "batch time channel"]
    times: Float[Tensor, "batch time"]
    present: Bool[Tensor, "batch time"]
    origin: Int[Tensor, "batch 2"]

    def to(self, device: torch.device | str) -> Windows:
        """Move to a device."""
        return Windows(*(getattr(self, field.name).to(device) for field in fields(self)))

    def seeing(self, seen: Bool[Tensor, "batch time channel"]) -> Windows:
        """Return the same windows of which a model may see other values."""
        return replace(self, seen=seen & self.known)

    def __len__(self) -> int:
        """Number of windows."""
        return self.values.shape[0]
