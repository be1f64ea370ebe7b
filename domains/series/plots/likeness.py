"""Whether generated windows look like real ones: side by side, as clouds, densities, distances."""

from __future__ import annotations

import numpy as np

from core.contract import Plot
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
        named(line[0], f"{names[channel]}, real")
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
    """Draw real and generated windows on the principal axes of the real ones."""
    real, generated = (likeness.vectors(each) for each in (likeness.real, likeness.generated))
    flat, share = principal_plane(real, generated)
    figure_axes = _clouds(flat[: len(real)], flat[len(real) :])
    figure_axes.flat[0].set(xlabel="first principal axis", ylabel="second principal axis")
    return Plot(
        figure=figure_of(figure_axes),
        caption=f"Windows as points of {real.shape[1]:,} dimensions, on the principal axes of the "
        f"real ones, which hold {100 * share:.0f} % of their variance. Where the clouds cover "
        "each other, these two directions cannot tell them apart.",
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
    figure_axes = _clouds(flat[: len(real)], flat[len(real) :])
    figure_axes.flat[0].set_axis_off()
    return Plot(
        figure=figure_of(figure_axes),
        caption=f"{len(real)} real and {len(generated)} generated windows arranged by t-SNE "
        f"(perplexity {PERPLEXITY}), which keeps neighbours together: regions of one colour are "
        "windows that the other kind does not have. Distances between groups mean nothing.",
    )


def draw_marginals(likeness: Likeness) -> Plot:
    """Draw the densities of the values of each channel."""
    names = likeness.dataset.channels
    pairs = [
        (_known(likeness.real[..., place]), _known(likeness.generated[..., place]))
        for place in range(len(names))
    ]
    gaps = np.array([_difference(real, generated) for real, generated in pairs])
    channels = np.argsort(-gaps, kind="stable")[:SHOWN_DENSITIES]
    if len(names) <= SHOWN_DENSITIES:
        channels = np.arange(len(names))
    columns = min(2, len(channels))
    axes = panels(-(-len(channels) // columns), columns)
    heavy = []
    for panel, channel in zip(axes.flat, channels, strict=False):
        real, generated = pairs[channel]
        edges = _edges(real)
        for values, colour, label in ((real, REAL, "real"), (generated, GENERATED, "generated")):
            counts = np.histogram(np.clip(values, edges[0], edges[-1]), edges)[0]
            outlined(panel, counts / max(len(values), 1), edges, colour, label)
        if _excess_kurtosis(real) > HEAVY:
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
        caption="Share of the values in each of "
        f"{BINS} classes, original units; the outer classes hold what lies beyond."
        + (f" Heavy tails on a log axis: {listed(heavy)}." if heavy else "")
        + (
            f" Of {len(names)} channels the {len(channels)} that differ most."
            if len(names) > len(channels)
            else ""
        ),
    )


def draw_neighbours(likeness: Likeness) -> Plot:
    """Draw how near real and generated windows are to the nearest train window."""
    every = _in_ranges(likeness, likeness.every)
    taken = spread(len(likeness.real), MOST_MOVED)
    own = likeness.chosen[taken]
    to_real = nearest(_in_ranges(likeness, likeness.generated[taken]), every)
    among_real = nearest(every[own], every, leave=own)
    axes = panels(1, 1, height=2.1)
    panel = axes.flat[0]
    edges = np.linspace(0, np.quantile(np.concatenate([to_real, among_real]), 0.99), BINS + 1)
    for values, colour, label in (
        (among_real, REAL, "real to another real"),
        (to_real, GENERATED, "generated to real"),
    ):
        counts = np.histogram(np.clip(values, 0, edges[-1]), edges)[0] / len(values)
        outlined(panel, counts, edges, colour, label)
        panel.axvline(np.median(values), color=colour, linewidth=1, linestyle=(0, (3, 2)))
    panel.set(xlabel="distance to the nearest train window", ylabel="share of the windows")
    _legend(axes)
    medians = float(np.median(to_real)), float(np.median(among_real))
    ratio = medians[0] / medians[1] if medians[1] > 0 else float("nan")
    return Plot(
        figure=figure_of(axes),
        caption="Distance (root mean square, in ranges of the channels) of "
        f"{len(taken)} windows to the nearest of {len(every):,} train windows, medians dashed: "
        f"generated {number(medians[0])}, real to another real one {number(medians[1])}, ratio "
        f"{number(ratio)}. A ratio far below 1 would mean that training data are copied.",
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


def _clouds(real: Array, generated: Array) -> Grid:
    """Two clouds of dots, drawn in turns so that none lies over the other."""
    axes = panels(1, 1, height=2.9)
    panel = axes.flat[0]
    dots = [cloud[spread(len(cloud), MOST_DOTS)] for cloud in (real, generated)]
    order = np.argsort(np.concatenate([np.linspace(0, 1, len(cloud)) for cloud in dots]),
                       kind="stable")  # fmt: skip
    colours = np.repeat([REAL, GENERATED], [len(cloud) for cloud in dots])
    both = np.concatenate(dots)
    panel.scatter(*both[order].T, s=6, color=list(colours[order]), alpha=0.55, linewidths=0)
    ends = np.concatenate([real, np.quantile(generated, [0.01, 0.99], axis=0)])
    low, high = ends.min(axis=0), ends.max(axis=0)
    margin = 0.04 * (high - low) + 1e-12
    panel.set(xlim=(low[0] - margin[0], high[0] + margin[0]),
              ylim=(low[1] - margin[1], high[1] + margin[1]))  # fmt: skip
    for label, colour in (("real", REAL), ("generated", GENERATED)):
        panel.scatter([], [], s=18, color=colour, linewidths=0, label=label)
    _legend(axes)
    return axes


def _in_ranges(likeness: Likeness, windows: Array) -> Array:
    """Windows as points in units of the channels' ranges, as the table's ratio has them."""
    rows = likeness.every.reshape(-1, likeness.every.shape[-1])
    known = ~np.isnan(rows)
    low, high = (
        np.min(rows, 0, where=known, initial=np.inf),
        np.max(rows, 0, where=known, initial=-np.inf),
    )
    width = np.where(high > low, high - low, 1.0)
    return closed((windows - np.where(known.any(0), low, 0)) / width).reshape(len(windows), -1)


def _legend(axes: Grid) -> None:
    handles, labels = axes.flat[0].get_legend_handles_labels()
    figure_of(axes).legend(handles, labels, loc="outside upper left", ncols=3)


def _marker(column: Array) -> str | None:
    """A marker where a curve has gaps, since a value between two gaps is no line."""
    return "o" if np.isnan(column).any() else None


def _known(values: Array) -> Array:
    return values[~np.isnan(values)]


def _edges(values: Array) -> Array:
    """The borders of the classes, which leave a bit of the tails outside."""
    low, high = np.quantile(values, TAILS) if len(values) else (0.0, 1.0)
    room = 0.05 * (high - low) or max(1e-9, 1e-6 * abs(low))
    return np.linspace(low - room, high + room, BINS + 1)


def _difference(real: Array, generated: Array) -> float:
    """Half the sum of the differences of two histograms: total variation."""
    edges = _edges(real)
    shares = [
        np.histogram(np.clip(values, edges[0], edges[-1]), edges)[0] / max(len(values), 1)
        for values in (real, generated)
    ]
    return float(np.abs(shares[0] - shares[1]).sum() / 2)


def _excess_kurtosis(values: Array) -> float:
    centred = values - values.mean() if len(values) else values
    variance = float((centred**2).mean()) if len(values) else 0.0
    return float((centred**4).mean() / variance**2 - 3) if variance > 0 else 0.0
