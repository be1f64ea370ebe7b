"""The surprise of each row beside the labelled anomalies."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from core.contract import Plot
from core.runtime.figures import COLOURS, INK
from core.runtime.wording import number
from domains.series.data import Windows
from domains.series.metrics.anomalies import (
    SLACK,
    average_precision,
    hit,
    judged_by_the_rest,
    row_scores,
)
from domains.series.plots.drawing import (
    MOST_POINTS,
    Array,
    Mask,
    figure_of,
    named,
    panels,
    time_axis,
)
from domains.series.plots.looked import CELLS_AT_ONCE, Looked, correlation, pick, pieces, varied

DRAWS = 16
MOST_CELLS = 2_000_000  # values that are judged
SHOWN_CHANNELS = 2


def draw_anomaly(looked: Looked) -> Plot | None:
    """Draw the most labelled series of the test part with its scores; None without labels."""
    panel, windows = looked.dataset.panel, looked.windows("test")
    labels = [one.label if one.label is not None else np.zeros(0) for one in panel.series]
    rows = _rows(windows)
    counts = [
        int(label[rows[place]].sum()) if len(label) and place in rows else 0
        for place, label in enumerate(labels)
    ]
    if not any(counts):
        return None
    place = int(np.argmax(counts))
    score = scores(looked, windows, place)
    shown = np.flatnonzero(~np.isnan(score))
    if not len(shown):
        return None
    label = np.asarray(labels[place])[shown] > 0
    return _drawn(looked, place, shown, score[shown], label)


def scores(looked: Looked, windows: Windows, series: int) -> Array:
    """Return the surprise of each row of a series in nats per value, NaN where none is judged.

    Args:
        looked: The run.
        windows: Of the test part.
        series: Which series.
    """
    batch = pick(windows, _few(windows.origin.numpy(), series, _stride(looked)))
    most = max(1, MOST_CELLS // batch.values[0].numel())
    batch = pick(batch, np.arange(min(len(batch), most)))
    surprise, judged = np.zeros(batch.values.shape), np.zeros(batch.values.shape, dtype=bool)
    size = max(1, CELLS_AT_ONCE // (DRAWS * batch.values[0].numel()))
    horizon = getattr(looked.config.task, "horizon", 0)
    done = 0
    with looked.looking("surprise"):
        for part in pieces(batch, size, looked.device):
            place = slice(done, done + len(part))
            for given, wanted in judged_by_the_rest(part, looked.config.task.kind, horizon):
                nats = looked.model.surprise(given, DRAWS)
                surprise[place] += torch.where(wanted, nats, 0).double().cpu().numpy()
                judged[place] |= wanted.cpu().numpy()
            done += len(part)
    count = len(looked.dataset.panel.series[series].times)
    inside = judged & batch.present.numpy()[..., None]
    first = batch.origin[:, 1].numpy()
    beyond = max(0, int(first.max(initial=0)) + batch.values.shape[1] - count)
    return row_scores(surprise, inside, first, count + beyond)[:count]


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


def _rows(windows: Windows) -> dict[int, NDArray[np.int64]]:
    """The rows of each series that windows hold."""
    origin, length = windows.origin.numpy(), windows.present.sum(1).numpy()
    found: dict[int, set[int]] = {}
    for (series, first), rows in zip(origin.tolist(), length.tolist(), strict=True):
        found.setdefault(series, set()).update(range(first, first + rows))
    return {series: np.array(sorted(rows)) for series, rows in found.items()}


def _few(origin: NDArray[np.int64], series: int, stride: int) -> NDArray[np.int64]:
    """Windows of a series, no more than it takes to judge each row about twice."""
    own = np.flatnonzero(origin[:, 0] == series)
    own = own[np.argsort(origin[own, 1], kind="stable")]
    kept = []
    for place in own:
        if not kept or origin[place, 1] >= origin[kept[-1], 1] + stride or place == own[-1]:
            kept.append(place)
    return np.array(kept, dtype=np.int64)


def _stride(looked: Looked) -> int:
    task = looked.config.task
    return max(1, task.horizon if task.kind == "forecast" else looked.dataset.window // 2)
