"""An invertible scaling of each channel, fitted on what a model may learn from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from core.runtime.errors import UserError, did_you_mean
from domains.series.data.records import Array, Mask, Panel, Scaler

NORMAL_IQR = 1.3489795003921634  # interquartile range of a standard Normal


def fit(
    values: Array,
    kind: Literal["standard", "min-max", "robust"],
    channels: Sequence[str],
    logs: Mask | None = None,
) -> Scaler:
    """Fit a scaling.

    ``standard`` takes mean and standard deviation, ``min-max`` brings the values into [0, 1],
    ``robust`` takes the median and the interquartile range divided by that of a standard Normal,
    so that it agrees with ``standard`` on Normal values; where half of the values are equal and
    the range is 0, it takes the standard deviation. A constant channel has scale 1.

    Args:
        values: Of the train part, ``(row, channel)``; NaN is left out.
        kind: Which.
        channels: Their names, for messages.
        logs: Channels whose logarithms are scaled; None for none.

    Raises:
        UserError: If a channel has no value, or its range cannot be had in floating point.
    """
    empty = [name for name, column in zip(channels, values.T, strict=True) if _is_empty(column)]
    if empty:
        raise UserError(
            f"channel {empty[0]!r}: no value in the train part; leave it out with data.values"
        )
    values = Scaler(np.zeros(0), np.ones(0), logs).flattened(values)
    pairs = [_of_channel(column[~np.isnan(column)], kind) for column in values.T]
    shift, scale = np.array(pairs, dtype=np.float64).reshape(-1, 2).T
    for name, column, finite in zip(
        channels, values.T, np.isfinite(shift) & np.isfinite(scale), strict=True
    ):
        if not finite:
            raise UserError(
                f"channel {name!r}: values from {np.nanmin(column):g} to {np.nanmax(column):g} "
                "overflow when scaled; give them in another unit"
            )
    return Scaler(np.ascontiguousarray(shift), np.ascontiguousarray(scale), logs)


def logarithms(panel: Panel, names: Sequence[str], place: str) -> Mask | None:
    """Return which channels are scaled by their logarithms, None for none.

    Raises:
        UserError: If there is no such channel, or it has a value without a logarithm.
    """
    for name in names:
        if name not in panel.channels:
            hint = (
                did_you_mean(name, panel.channels) or f"; there are: {', '.join(panel.channels)}"
            )
            raise UserError(f"data.logarithms: no channel {name!r}{hint}")
        values = np.concatenate(
            [one.values[:, panel.channels.index(name)] for one in panel.series]
        )
        if np.nanmin(values) <= 0:
            raise UserError(
                f"{place}: channel {name!r} holds {np.nanmin(values):g}, which has no logarithm; "
                "leave it out of data.logarithms, or name the number in data.na_values"
            )
    return np.isin(panel.channels, list(names)) if names else None


def constant(values: Array) -> np.ndarray:
    """Say of each channel whether all its values are equal."""
    low, high = np.fmin.reduce(values, axis=0), np.fmax.reduce(values, axis=0)
    return low == high


def _is_empty(column: Array) -> bool:
    return bool(np.isnan(column).all())


def _of_channel(values: Array, kind: str) -> tuple[float, float]:
    """Return shift and scale of a channel without gaps.

    Of values brought into [0, 1] first, as squares of small or large ones leave floating point.
    """
    low, high = float(values.min()), float(values.max())
    if low == high:
        return low, 1.0
    span = high - low
    if kind == "min-max" or not np.isfinite(span):
        return low, span
    unit = (values - low) / span
    if kind == "standard":
        shift, scale = unit.mean(), unit.std()
    else:
        lower, shift, upper = np.quantile(unit, (0.25, 0.5, 0.75))
        scale = (upper - lower) / NORMAL_IQR or unit.std()
    return float(low + span * shift), float(span * scale) or span
