"""The surprise of each row beside the labelled anomalies."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from core.contract import Plot
from core.runtime.figures import COLOURS, INK
from core.runtime.wording import number
from domains.series.data import Series
from domains.series.metrics.anomalies import SLACK, average_precision, hit
from domains.series.metrics.detection import scored_rows
from domains.series.plots.drawing import (
    MOST_POINTS,
    Array,
    Mask,
    figure_of,
    named,
    panels,
    time_axis,
)
from domains.series.plots.looked import Looked, correlation, varied

SHOWN_CHANNELS = 2


def draw_anomaly(looked: Looked) -> Plot | None:
    """Draw the most labelled series of the test part with its scores; None without labels."""
    panel, windows = looked.dataset.panel, looked.dataset.windows["test"]
    counts = [_labelled(one, windows[windows[:, 0] == place, 1], looked.dataset.window)
              for place, one in enumerate(panel.series)]  # fmt: skip
    if not any(counts):
        return None
    place = int(np.argmax(counts))
    score, _ = scored_rows(looked.config, looked.dataset, looked.model, place)
    shown = np.flatnonzero(~np.isnan(score))
    label = np.asarray(panel.series[place].label)[shown] > 0
    if not label.any():
        return None
    return _drawn(looked, place, shown, score[shown], label)


def _labelled(series: Series, starts: NDArray[np.int64], window: int) -> int:
    """How many rows of the windows that start at some rows are labelled."""
    if series.label is None:
        return 0
    covered = np.zeros(len(series.times) + window, dtype=np.int64)
    np.add.at(covered, starts, 1)
    np.add.at(covered, starts + window, -1)
    return int(series.label[covered.cumsum()[: len(series.times)] > 0].sum())


def _drawn(
    looked: Looked, place: int, shown: NDArray[np.int64], score: Array, label: Mask
) -> Plot:
    panel, dataset = looked.dataset.panel, looked.dataset
    one = panel.series[place]
    values = one.values[shown]
    channels = np.sort(varied(correlation(values), SHOWN_CHANNELS))
    axes = panels(len(channels) + 1, 1, height=1.05, sharex=True)
    lines = [(values[:, channel], dataset.channels[channel], INK) for channel in channels]
    lines.append((score, "surprise, nats per value", COLOURS[0]))
    for axis, (curve, name, colour) in zip(axes[:, 0], lines, strict=True):
        x = time_axis(axis, one.times[shown], panel.clock)
        kept = extremes(curve)
        axis.plot(x[kept], curve[kept], color=colour, linewidth=0.9)
        for start, end in stretches(label):
            right = x[min(end, len(x) - 1)]
            axis.axvspan(x[start], max(right, x[start]), color=COLOURS[5], alpha=0.35,
                         linewidth=1.2)  # fmt: skip
        named(axis, name)
    for axis in axes[:-1, 0]:
        axis.xaxis.get_offset_text().set_visible(False)
    title = f"Series {one.name}. " if one.name else ""
    return Plot(figure=figure_of(axes), caption=title + _said(score, label))


def _said(score: Array, label: Mask) -> str:
    share, found = float(label.mean()), average_precision(label.astype(int), score)
    inside = "lies" if hit(label.astype(int), score) else "does not lie"
    return (
        f"Test rows, {int(label.sum()):,} of {len(label):,} labelled as anomalies (shaded), and "
        "their surprise −log p given what the model sees. Area under the precision-recall curve "
        f"{number(float(f'{found:.3g}'))}, at random {number(float(f'{share:.3g}'))}; the highest "
        f"score {inside} within {SLACK} rows of a labelled one."
    )


def stretches(label: Mask) -> list[tuple[int, int]]:
    """Return the first row and the row after the last of each stretch of labelled rows.

    Example:
        >>> stretches(np.array([False, True, True, False, True]))
        [(1, 3), (4, 5)]
    """
    ends = np.flatnonzero(np.diff(np.concatenate([[0], label.astype(int), [0]])))
    return [(int(start), int(end)) for start, end in zip(ends[::2], ends[1::2], strict=True)]


def extremes(curve: Array) -> NDArray[np.int64]:
    """Return the places of lowest and highest values of neighbouring ones: no peak is lost.

    At most `MOST_POINTS` of them, in order; all places of a short curve.
    """
    if len(curve) <= MOST_POINTS:
        return np.arange(len(curve))
    found = []
    for group in np.array_split(np.arange(len(curve)), MOST_POINTS // 2):
        known = group[~np.isnan(curve[group])]
        if len(known):
            found += [known[curve[known].argmin()], known[curve[known].argmax()]]
    return np.unique(np.array(found, dtype=np.int64))
