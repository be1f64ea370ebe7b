"""What a model says of hidden values: fans, calibration, errors by how far the data are."""

from __future__ import annotations

import itertools

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from core.contract import Plot
from core.runtime.figures import COLOURS, GREY, INK
from domains.series.data import Windows
from domains.series.metrics.baselines import (
    last_value,
    linear_interpolation,
    linear_model,
    seasonal_naive,
)
from domains.series.model.interpolation import interpolate
from domains.series.plots.drawing import (
    MOST_POINTS,
    TRUTH,
    Array,
    Grid,
    Mask,
    figure_of,
    listed,
    named,
    panels,
    spread,
    time_axis,
    time_unit,
)
from domains.series.plots.looked import Looked, Predicted, correlation, original, pick, varied

SHOWN_WINDOWS = 3
FAN_DRAWS = 400
LEVELS = (0.5, 0.9)
SEEN = {"color": INK, "markeredgewidth": 0}
HIDDEN = {"markerfacecolor": "none", "markeredgecolor": TRUTH, "markeredgewidth": 0.9}
PIT_BINS = 20
METHODS = {
    "model": COLOURS[0],
    "last value": COLOURS[4],
    "linear interpolation": COLOURS[1],
    "linear model": COLOURS[1],
    "seasonal naive": COLOURS[2],
}
MOST_DOTTED = 72  # rows of a window whose values are all dots, and dots of a panel
QUARTERS = (0, 0.25, 0.5, 0.75, 1)
MOST_FITTED = 4000  # train windows of the linear forecast
MOST_GROUPS = 48
FEWEST = 50  # values behind a point of the error
UNITS = {
    "standard": "standard deviations",
    "min-max": "ranges of the train part",
    "robust": "robust standard deviations",
}


def draw_fans(looked: Looked) -> Plot | None:
    """Draw seen values, hidden truth and the predictive distribution of some test windows."""
    windows = _telling(looked.hidden)
    if not len(windows):
        return None
    with looked.looking("fans"):
        draws = looked.model.predict(windows.to(looked.device), FAN_DRAWS).double().cpu().numpy()
    levels = [0.5, *(0.5 + sign * level / 2 for level in LEVELS for sign in (-1, 1))]
    quantiles = looked.dataset.scaler.invert(np.quantile(draws, levels, axis=0))
    cells = _cells(looked, windows)
    axes = panels(-(-len(cells) // 2), min(2, len(cells)), height=1.45)
    for panel, (window, channel) in zip(axes.flat, cells, strict=False):
        _fan(panel, looked, windows, quantiles[:, window, :, channel], window, channel)
        named(panel, looked.dataset.channels[channel])
    for panel in axes.flat[len(cells) :]:
        panel.set_visible(False)
    _legend(axes, columns=5)
    return Plot(
        figure=figure_of(axes),
        caption=f"{len(windows)} test windows in original units"
        + (", a row each, of two channels" if len(cells) > len(windows) else "")
        + ": what the model sees, what was hidden from it, and the median with the bands that "
        f"should hold 50 % and 90 % of the hidden values, from {FAN_DRAWS} draws.",
    )


def draw_pit(predicted: Predicted) -> Plot:
    """Draw the ranks of the truth among the draws (probability integral transform)."""
    ranks = predicted.rank[predicted.targets]
    axes = panels(1, 1, height=2.0)
    panel = axes.flat[0]
    counts = np.histogram(ranks, PIT_BINS, (0, 1))[0] * PIT_BINS / len(ranks)
    panel.bar((np.arange(PIT_BINS) + 0.5) / PIT_BINS, counts, 0.92 / PIT_BINS, color=COLOURS[0])
    panel.axhline(1, color=INK, linewidth=0.9, linestyle=(0, (3, 2)))
    panel.set(xlabel="rank of the truth among the draws", ylabel="density", xlim=(0, 1))
    low, high = (ranks < 0.05).mean(), (ranks > 0.95).mean()
    return Plot(
        figure=figure_of(axes),
        caption=f"Ranks of {len(ranks):,} hidden values. Right distributions are flat at 1; a "
        "hump says that they are too wide, horns that they are too narrow, a slope that they "
        f"are off to one side. {100 * low:.1f} % lie in the lowest twentieth and "
        f"{100 * high:.1f} % in the highest, where 5 % should.",
    )


def draw_coverage(predicted: Predicted) -> Plot:
    """Draw which share of the hidden values central intervals hold, against what they say."""
    ranks = predicted.rank[predicted.targets]
    axes = panels(1, 1, height=2.9)
    panel = axes.flat[0]
    said = np.linspace(0, 1, 51)
    panel.plot([0, 1], [0, 1], color=GREY, linewidth=0.8)
    panel.plot(said, covered(ranks, said), color=COLOURS[0])
    at = np.array(LEVELS)
    panel.plot(at, covered(ranks, at), "o", color=COLOURS[0], markersize=4)
    panel.set(xlabel="what the interval says", ylabel="share of the hidden values inside")
    panel.set(xlim=(0, 1), ylim=(0, 1), aspect="equal", xticks=QUARTERS, yticks=QUARTERS)
    inside = [f"the {100 * level:.0f} % interval holds {100 * share:.1f} %"
              for level, share in zip(LEVELS, covered(ranks, at), strict=True)]  # fmt: skip
    return Plot(
        figure=figure_of(axes),
        caption=f"Central intervals on {len(ranks):,} hidden test values: {' and '.join(inside)}. "
        "Above the diagonal intervals are too wide, below it too narrow.",
    )


def draw_errors(looked: Looked, predicted: Predicted) -> Plot | None:
    """Draw the mean absolute error by the time since the last value that was seen."""
    batch = predicted.batch
    _, since, _ = interpolate(batch.values.double(), batch.seen, batch.times.double())
    targets = predicted.targets & batch.seen.cummax(1).values.numpy()
    waited = since.numpy()[targets]
    groups = gaps(waited)
    if len(groups) < 2:
        return None
    truth = batch.values.double().numpy()[targets]
    axes = panels(1, 1, height=2.2)
    panel = axes.flat[0]
    longest = max(float(waited[group].mean()) for group in groups)
    size_of_step, unit_of_time = time_unit(longest, looked.steps)
    if unit_of_time == "rows":
        panel.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    middles = [float(waited[group].mean()) * size_of_step for group in groups]
    methods = {"model": predicted.median, **references(looked, batch)}
    for name, values in methods.items():
        errors = np.abs(values[targets] - truth)
        means = [errors[group].mean() for group in groups]
        size, width = (4, 2) if name == "model" else (3, 1)
        panel.plot(middles, means, color=METHODS[name], marker="o", markersize=size,
                   linewidth=width, label=name)  # fmt: skip
    ahead = looked.config.task.kind == "forecast"
    unit = UNITS[looked.config.data.scaling]
    panel.set_ylim(0, None)
    panel.set_xlabel(
        f"{'lead time' if ahead else 'time since the last seen value'}, {unit_of_time}"
    )
    panel.set_ylabel(f"mean absolute error,\n{unit}")
    _legend(axes)
    return Plot(
        figure=figure_of(axes),
        caption=f"Error of {len(truth):,} hidden values of all channels in {len(batch)} test "
        "windows, by "
        + ("how far ahead they are" if ahead else "how long ago a value of the channel was seen")
        + "; the model's prediction is its median. Thin lines: what it has to "
        "be compared with." + _of_logarithms(looked),
    )


def references(looked: Looked, batch: Windows) -> dict[str, Array]:
    """What trivial methods predict, and for a forecast a linear model fitted on the train part."""
    found = {"last value": last_value(batch)}
    task, season = looked.config.task, looked.dataset.season
    if task.kind != "forecast":
        found["linear interpolation"] = linear_interpolation(batch)
    if 0 < season < looked.dataset.window:
        found["seasonal naive"] = seasonal_naive(batch, season)
    if task.kind == "forecast" and task.horizon + 1 < looked.dataset.window:
        train, valid = (
            pick(windows, spread(len(windows), MOST_FITTED))
            for windows in (looked.windows("train"), looked.windows("valid"))
        )
        if bool(train.known[:, -task.horizon :].all(1).any()):
            found["linear model"] = linear_model(train, valid, task.horizon)(batch)
    return {name: values.double().numpy() for name, values in found.items()}


def covered(ranks: Array, levels: Array) -> Array:
    """Return the share of ranks inside the central interval of each level.

    Example:
        >>> covered(np.array([0.1, 0.5, 0.6]), np.array([0.5, 0.9]))
        array([0.66666667, 1.        ])
    """
    return (np.abs(ranks - 0.5)[:, None] <= np.asarray(levels) / 2).mean(axis=0)


def gaps(since: Array) -> list[Mask]:
    """Group values by the time since the last seen one: each time, or doubling ones if many.

    Groups of fewer than `FEWEST` values are left out.
    """
    times = np.unique(since.round(4))
    if len(times) <= MOST_GROUPS:
        found = [np.isclose(since, time, atol=1e-3) for time in times]
    else:
        top = np.ceil(2 * np.log2(times[-1] / times[0])) + 1
        edges = times[0] * 2 ** (np.arange(-1, top) / 2) * 1.0001
        found = [(since > low) & (since <= high) for low, high in itertools.pairwise(edges)]
    return [group for group in found if group.sum() >= FEWEST]


def _of_logarithms(looked: Looked) -> str:
    """A sentence on the channels whose error is one of logarithms; empty for none."""
    logs = looked.dataset.scaler.logs
    if logs is None or not logs.any():
        return ""
    names = [name for name, log in zip(looked.dataset.channels, logs, strict=True) if log]
    return f" The error of {listed(names)} is that of logarithms."


def _telling(hidden: Windows) -> Windows:
    """Some windows of those in which at least as much is hidden as in the median one."""
    counts = hidden.targets.flatten(1).sum(1).numpy()
    most = SHOWN_WINDOWS if hidden.values.shape[-1] > 1 else 2 * SHOWN_WINDOWS
    many = np.flatnonzero(counts >= np.median(counts)) if len(counts) else counts
    return pick(hidden, many[spread(len(many), most)])


def _cells(looked: Looked, windows: Windows) -> list[tuple[int, int]]:
    """Window and channel of each panel: channels of which much is hidden, and unlike ones."""
    truth = original(looked.dataset, windows.values, windows.known)
    order = varied(correlation(truth), truth.shape[-1])
    found = []
    for window, counts in enumerate(windows.targets.sum(1).numpy()):
        fullest = np.argsort(-counts[order], kind="stable")[:2]
        found += [(window, int(channel)) for channel in np.sort(order[fullest])]
    return found


def _fan(
    panel: Axes, looked: Looked, windows: Windows, quantiles: Array, window: int, channel: int
) -> None:
    series, first = (int(each) for each in windows.origin[window])
    present = int(windows.present[window].sum())
    moments = looked.dataset.panel.series[series].times[first : first + present]
    kept = spread(present, MOST_POINTS // 2)
    x = time_axis(panel, moments, looked.dataset.panel.clock)[kept]
    median, *bands = quantiles[:, kept]
    truth = original(looked.dataset, windows.values[window], windows.known[window])[kept, channel]
    seen, hidden = (
        mask[window, kept, channel].numpy() for mask in (windows.seen, windows.targets)
    )
    size = 2.6 if present <= MOST_DOTTED else 1.8
    if present > MOST_DOTTED:
        panel.plot(x, np.where(seen, truth, np.nan), color=INK, linewidth=0.9, label="seen")
        seen = alone(seen)
    for there, label, look in ((seen, "seen", SEEN), (hidden, "hidden", HIDDEN)):
        places = np.flatnonzero(there)
        places = places[spread(len(places), MOST_DOTTED)]
        panel.plot(x[places], truth[places], "o", markersize=size, label=label, **look)
    panel.plot(x, median, color=COLOURS[0], linewidth=1.1, label="median", zorder=1.9)
    for low, high, level, shade in zip(bands[::2], bands[1::2], LEVELS, (0.4, 0.2), strict=True):
        panel.fill_between(x, low, high, color=COLOURS[0], alpha=shade, linewidth=0,
                           label=f"{100 * level:.0f} %")  # fmt: skip


def alone(mask: Mask) -> Mask:
    """Which places have no neighbour, so that a line through neighbours would not show them.

    Example:
        >>> alone(np.array([True, False, True, True, False, True]))
        array([ True, False, False, False, False,  True])
    """
    padded = np.pad(mask, 1)
    return mask & ~padded[:-2] & ~padded[2:]


def _legend(axes: Grid, columns: int = 4) -> None:
    handles, labels = axes.flat[0].get_legend_handles_labels()
    found = dict(zip(labels[::-1], handles[::-1], strict=True))
    figure_of(axes).legend(
        list(found.values())[::-1],
        list(found)[::-1],
        loc="outside upper left",
        ncols=columns,
        columnspacing=1.4,
    )
