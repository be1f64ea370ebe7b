"""Whether generated windows look like real ones: side by side, as clouds, densities, distances."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from core.contract import Plot
from core.runtime.figures import COLOURS
from core.runtime.order import derive
from core.runtime.wording import number
from domains.series.plots.drawing import (
    GENERATED,
    MOST_DOTS,
    REAL,
    Array,
    Grid,
    figure_of,
    left_out,
    listed,
    named,
    outlined,
    panels,
    spread,
)
from domains.series.plots.looked import Likeness, closed

SHOWN_WINDOWS = 6
SHOWN_CHANNELS = 4
SHOWN_DENSITIES = 6
BINS = 32
KINDS = {"train": REAL, "test": COLOURS[2], "generated": GENERATED}
TAILS = (0.001, 0.999)
HEAVY = 3.0  # excess kurtosis of a Laplace distribution
PERPLEXITY = 40
MOST_MOVED = 500  # windows of each kind that t-SNE arranges
ITERATIONS = 500


def draw_windows(likeness: Likeness) -> Plot:
    """Draw real windows on the left and generated ones on the right, some channels."""
    names = likeness.dataset.channels
    shown = spread(len(likeness.real), SHOWN_WINDOWS)
    channels = likeness.varied(SHOWN_CHANNELS)
    axes = panels(len(channels), 2, sharex=True, sharey="row")
    rows = np.arange(likeness.real.shape[1])
    kept = spread(len(rows), 200)
    kinds = (likeness.real[shown], REAL), (likeness.generated[shown], GENERATED)
    for line, channel in zip(axes, channels, strict=True):
        for panel, (windows, colour) in zip(line, kinds, strict=True):
            for column in windows[:, kept, channel]:
                panel.plot(rows[kept], column, color=colour, linewidth=1.0, alpha=0.75,
                           marker=_marker(column), markersize=1.5)  # fmt: skip
        named(line[0], f"{names[channel]}, train")
        named(line[1], "generated")
    for panel in axes[-1]:
        panel.set_xlabel("row", fontsize=8)
    return Plot(
        figure=figure_of(axes),
        caption=f"{len(shown)} windows of the train part and {len(shown)} generated ones with "
        "their times and gaps, in original units; noise of the likelihood included."
        + left_out(len(names) - len(channels)),
    )


def draw_pca(likeness: Likeness) -> Plot:
    """Draw real and generated windows on the principal axes of those of the train part."""
    kinds = {
        name: (likeness.vectors(windows), colour) for name, windows, colour in _kinds(likeness)
    }
    real = likeness.vectors(likeness.real)
    flat, share = principal_plane(real, np.concatenate([points for points, _ in kinds.values()]))
    ends = np.cumsum([len(points) for points, _ in kinds.values()])[:-1]
    parts = np.split(flat[len(real) :], ends)
    clouds = {name: (part, kinds[name][1]) for name, part in zip(kinds, parts, strict=True)}
    axes = _clouds(clouds)
    axes.flat[0].set(xlabel="first principal axis", ylabel="second principal axis")
    return Plot(
        figure=figure_of(axes),
        caption=f"Windows as points of {real.shape[1]:,} dimensions, on the principal axes of "
        f"those of the train part, which hold {100 * share:.0f} % of their variance. Where the "
        "clouds cover each other, these two directions cannot tell them apart"
        + ("; test windows lie elsewhere if the series has moved on." if "test" in kinds else "."),
    )


def draw_tsne(likeness: Likeness, seed: int) -> Plot | None:
    """Draw real and generated windows as t-SNE arranges them together; None for a few."""
    real, generated = (
        likeness.vectors(each[spread(len(each), MOST_MOVED)])
        for each in (likeness.real, likeness.generated)
    )
    both = np.concatenate([real, generated])
    if len(both) < 4 * PERPLEXITY:
        return None
    flat = arranged(both, seed)
    clouds = {"train": (flat[: len(real)], REAL), "generated": (flat[len(real) :], GENERATED)}
    axes = _clouds(clouds)
    axes.flat[0].set_axis_off()
    return Plot(
        figure=figure_of(axes),
        caption=f"{len(real)} train and {len(generated)} generated windows arranged by t-SNE "
        f"(perplexity {PERPLEXITY}), which keeps neighbours together: regions of one colour are "
        "windows that the other kind does not have. Distances between groups mean nothing.",
    )


def draw_marginals(likeness: Likeness) -> Plot:
    """Draw the densities of the values of each channel."""
    names, kinds = likeness.dataset.channels, _kinds(likeness)
    gaps = np.array([_difference(likeness, place) for place in range(len(names))])
    channels = np.sort(np.argsort(-gaps, kind="stable")[:SHOWN_DENSITIES])
    columns = min(2, len(channels))
    axes = panels(-(-len(channels) // columns), columns)
    heavy = []
    for panel, channel in zip(axes.flat, channels.tolist(), strict=False):
        edges = _edges(likeness, channel)
        for name, windows, colour in kinds:
            shares = _histogram(windows[..., channel], edges)
            outlined(panel, shares, edges, colour, name, filled=name != "test")
        if _excess_kurtosis(_known(likeness.real[..., channel])) > HEAVY:
            heavy.append(names[channel])
            panel.set_yscale("log")
        else:
            panel.set_ylim(0, None)
        named(panel, names[channel])
    for panel in axes.flat[len(channels) :]:
        panel.set_visible(False)
    _legend(axes)
    return Plot(
        figure=figure_of(axes),
        caption=f"Share of the values in each of {BINS} classes, original units; the outer "
        "classes hold what lies beyond."
        + (f" Heavy tails on a log axis: {listed(heavy)}." if heavy else "")
        + (
            f" Of {len(names)} channels the {len(channels)} whose train and generated values "
            "differ most."
            if len(names) > len(channels)
            else ""
        ),
    )


def draw_neighbours(likeness: Likeness) -> Plot:
    """Draw how near real and generated windows are to the nearest train window."""
    every = _in_ranges(likeness, likeness.every)
    taken = spread(len(likeness.real), MOST_MOVED)
    own = likeness.chosen[taken]
    found = {
        "train": nearest(every[own], every, leave=own),
        "generated": nearest(_in_ranges(likeness, likeness.generated[taken]), every),
    }
    if likeness.test is not None:
        found["test"] = nearest(_in_ranges(likeness, likeness.test), every)
    axes = panels(1, 1, height=2.1)
    panel = axes.flat[0]
    top = max(float(np.quantile(found[name], 0.99)) for name in ("train", "generated"))
    edges = np.linspace(0, top or 1.0, BINS + 1)
    for name, values in found.items():
        outlined(panel, _histogram(values, edges), edges, KINDS[name], name, filled=name != "test")
        panel.axvline(min(float(np.median(values)), edges[-1]), color=KINDS[name], linewidth=1,
                      linestyle=(0, (3, 2)))  # fmt: skip
    panel.set(xlabel="distance to the nearest other train window", ylabel="share of the windows")
    _legend(axes)
    return Plot(
        figure=figure_of(axes),
        caption="Distance (root mean square, in ranges of the channels) of windows to the nearest "
        f"of {len(every):,} train windows other than itself; medians dashed: {_medians(found)}. "
        "Where generated windows are much nearer than other real ones, training data are copied.",
    )


def _medians(found: Mapping[str, Array]) -> str:
    """The median distance of each kind, the generated ones' also as a ratio."""
    medians = {name: float(np.median(values)) for name, values in found.items()}
    ratio = medians["generated"] / medians["train"] if medians["train"] > 0 else float("nan")
    ends = {"generated": f" ({number(float(f'{ratio:.3g}'))} times that)"}
    return listed(
        [
            f"{name} {number(float(f'{median:.3g}'))}{ends.get(name, '')}"
            for name, median in medians.items()
        ]
    )


def principal_plane(real: Array, generated: Array) -> tuple[Array, float]:
    """Project points on the first two principal axes of the real ones.

    Args:
        real: Of shape ``(window, dimension)``.
        generated: Points of the same dimensions.

    Returns:
        Both kinds in the plane, real ones first; the share of the real variance that it holds.
        The sign of an axis is such that its largest coordinate among the real points is positive.
    """
    mean = real.mean(axis=0)
    centred = real - mean
    _, sizes, axes = np.linalg.svd(centred, full_matrices=False)
    plane = np.zeros((2, real.shape[1]))
    plane[: len(axes[:2])] = axes[:2]
    flat = (np.concatenate([real, generated]) - mean) @ plane.T
    largest = np.abs(flat[: len(real)]).argmax(axis=0)
    flat *= np.where(flat[largest, [0, 1]] < 0, -1.0, 1.0)
    return flat, float((sizes[:2] ** 2).sum() / max((sizes**2).sum(), 1e-300))


def arranged(points: Array, seed: int) -> Array:
    """Arrange points in a plane by t-SNE, the same for the same points and seed."""
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    start, _ = principal_plane(points, points[:0])
    start *= 1e-4 / max(float(start[:, 0].std()), 1e-12)
    method = TSNE(
        perplexity=PERPLEXITY,
        init=start,  # pyright: ignore[reportArgumentType] (may be an array)
        metric="precomputed",
        learning_rate="auto",
        max_iter=ITERATIONS,
        random_state=derive(seed, "figure", "t-SNE") % 2**32,
        n_jobs=1,
    )
    with threadpool_limits(1):
        return method.fit_transform(distances(points, points)).astype(np.float64)


def distances(points: Array, others: Array) -> Array:
    """Return the root mean square difference of each point to each other one."""
    squares = (points**2).sum(1)[:, None] + (others**2).sum(1) - 2 * points @ others.T
    if points is others:
        np.fill_diagonal(squares, 0)
    return np.sqrt(np.maximum(squares, 0) / points.shape[1])


def nearest(points: Array, others: Array, leave: np.ndarray | None = None) -> Array:
    """Return the distance of each point to the nearest other one.

    Args:
        points: Of shape ``(point, dimension)``.
        others: Among which to look.
        leave: For each point the place of the one that it is itself.
    """
    found = distances(points, others)
    if leave is not None:
        found[np.arange(len(points)), leave] = np.inf
    return found.min(axis=1)


def _kinds(likeness: Likeness) -> list[tuple[str, Array, str]]:
    """Name, windows and colour of each kind of windows that is shown."""
    kinds = {"train": likeness.real, "test": likeness.test, "generated": likeness.generated}
    return [(name, each, KINDS[name]) for name, each in kinds.items() if each is not None]


def _clouds(clouds: Mapping[str, tuple[Array, str]]) -> Grid:
    """Clouds of dots by name, drawn in turns so that none lies over the others."""
    axes = panels(1, 1, height=2.9)
    panel = axes.flat[0]
    dots = [points[spread(len(points), MOST_DOTS)] for points, _ in clouds.values()]
    order = np.argsort(np.concatenate([np.linspace(0, 1, len(each)) for each in dots]),
                       kind="stable")  # fmt: skip
    colours = np.repeat([colour for _, colour in clouds.values()], [len(each) for each in dots])
    shown = np.concatenate(dots)[order]
    panel.scatter(*shown.T, s=6, color=list(colours[order]), alpha=0.55, linewidths=0)
    ends = [
        np.quantile(points, (0.01, 0.99) if name == "generated" else (0, 1), axis=0)
        for name, (points, _) in clouds.items()
    ]
    low, high = np.min(ends, axis=(0, 1)), np.max(ends, axis=(0, 1))
    margin = 0.04 * (high - low) + 1e-12
    panel.set(xlim=(low[0] - margin[0], high[0] + margin[0]),
              ylim=(low[1] - margin[1], high[1] + margin[1]))  # fmt: skip
    for name, (_, colour) in clouds.items():
        panel.scatter([], [], s=18, color=colour, linewidths=0, label=name)
    _legend(axes)
    return axes


def _in_ranges(likeness: Likeness, windows: Array) -> Array:
    """Windows as points in units of the channels' ranges, as the table's ratio has them."""
    scaler = likeness.dataset.scaler
    rows = scaler.apply(likeness.every).reshape(-1, likeness.every.shape[-1])
    known = ~np.isnan(rows)
    low, high = (
        np.min(rows, 0, where=known, initial=np.inf),
        np.max(rows, 0, where=known, initial=-np.inf),
    )
    width = np.where(high > low, high - low, 1.0)
    shifted = scaler.apply(windows) - np.where(known.any(0), low, 0)
    return closed(shifted / width).reshape(len(windows), -1)


def _legend(axes: Grid) -> None:
    handles, labels = axes.flat[0].get_legend_handles_labels()
    figure_of(axes).legend(handles, labels, loc="outside upper left", ncols=3)


def _marker(column: Array) -> str | None:
    """A marker where a curve has gaps, since a value between two gaps is no line."""
    return "o" if np.isnan(column).any() else None


def _known(values: Array) -> Array:
    return values[~np.isnan(values)]


def _edges(likeness: Likeness, channel: int) -> Array:
    """The borders of the classes, which leave a bit of the tails of real values outside."""
    real = [each for each in (likeness.real, likeness.test) if each is not None]
    values = np.concatenate([_known(each[..., channel]) for each in real])
    low, high = np.quantile(values, TAILS) if len(values) else (0.0, 1.0)
    room = 0.05 * (high - low) or max(1e-9, 1e-6 * abs(low))
    return np.linspace(low - room, high + room, BINS + 1)


def _histogram(values: Array, edges: Array) -> Array:
    """The share of the known values in each class, the outer ones open."""
    known = _known(values)
    return np.histogram(np.clip(known, edges[0], edges[-1]), edges)[0] / max(len(known), 1)


def _difference(likeness: Likeness, channel: int) -> float:
    """Total variation of the values of train and generated windows."""
    edges = _edges(likeness, channel)
    real, generated = (
        _histogram(each[..., channel], edges) for each in (likeness.real, likeness.generated)
    )
    return float(np.abs(real - generated).sum() / 2)


def _excess_kurtosis(values: Array) -> float:
    centred = values - values.mean() if len(values) else values
    variance = float((centred**2).mean()) if len(values) else 0.0
    return float((centred**4).mean() / variance**2 - 3) if variance > 0 else 0.0
