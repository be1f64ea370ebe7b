"""The figures of a link-prediction report."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from core.contract import Plot
from core.runtime.figures import COLOURS, GREY, INK, style
from domains.graph.config import Config
from domains.graph.data import Dataset, load, whole
from domains.graph.metrics import (
    Calibration,
    Floor,
    Scored,
    area_under_curve,
    average_precision,
    calibrated,
    floors,
    new_links,
    observed,
    reliability,
    scored,
)
from domains.graph.model import LinkModel

Array = NDArray[np.float64]
MOST_POINTS = 400  # of a curve
MOST_DOTS = 4000  # of a map
SHOWN_LINKS = 40
DEGREE_GROUPS = 6


def plots(config: Config, folder: Path, model: LinkModel) -> Mapping[str, Plot]:
    """The domain's figures by file name."""
    looked = _Looked(config, load(folder), model)
    with style():
        found = {
            "roc": _roc(looked),
            "precision-recall": _precision_recall(looked),
            "scores": _scores(looked),
            "calibration": _calibration(looked),
            "auc-by-degree": _by_degree(looked),
            "latent-map": _latent_map(looked),
        }
        if looked.dataset.positions is not None:
            found["new-links"] = _new_links(looked, looked.dataset.positions)
    return found


@dataclass(frozen=True, eq=False)
class _Looked:
    """What several figures show, computed once."""

    config: Config
    dataset: Dataset
    model: LinkModel

    @cached_property
    def uniform(self) -> Scored:
        return self._against(self.dataset.split.test_non_edges)

    @cached_property
    def two_hop(self) -> Scored:
        return self._against(self.dataset.split.test_two_hop)

    def _against(self, non_edges: NDArray[np.int64]) -> Scored:
        graph = observed(self.config, self.dataset)
        return scored(self.model, graph, self.dataset.split.test, non_edges)

    @cached_property
    def probability(self) -> Calibration:
        return calibrated(self.config, self.dataset, self.model)

    @cached_property
    def floors(self) -> Mapping[str, Floor]:
        return floors(self.dataset)

    @cached_property
    def degrees(self) -> NDArray[np.int64]:
        return np.bincount(self.dataset.split.train.ravel(), minlength=len(self.dataset.names))

    def rankings(self) -> list[tuple[str, Array, str]]:
        """The model and the floors, each with its scores of the test pairs and a colour."""
        found = [("model", self.uniform.logits, COLOURS[0])]
        for (name, floor), colour in zip(self.floors.items(), COLOURS[1:], strict=False):
            found.append((name, floor.pairs(self.uniform.pairs), colour))
        return found


def _figure(size: float = 3.1, width: float | None = None) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width or size * 1.35, size))
    return figure, figure.add_subplot()


def _roc(looked: _Looked) -> Plot:
    figure, axes = _figure(3.4)
    labels = looked.uniform.labels
    for name, scores, colour in looked.rankings():
        found, wrong = _steps(labels, scores)
        area = area_under_curve(labels, scores)
        axes.plot(*_thin(wrong, found), color=colour, label=f"{name}, {area:.3f}",
                  linewidth=2 if name == "model" else 1)  # fmt: skip
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=0.6)
    axes.set(xlabel="share of non-links above the threshold", ylabel="share of links found",
             xlim=(0, 1), ylim=(0, 1.005), aspect="equal")  # fmt: skip
    axes.legend(title="area under the curve", loc="lower right")
    return Plot(
        figure=figure,
        caption="Test links against as many uniform non-links, beside methods that learn nothing.",
    )


def _precision_recall(looked: _Looked) -> Plot:
    figure, axes = _figure(3.4)
    labels = looked.uniform.labels
    for name, scores, colour in looked.rankings():
        found, wrong = _steps(labels, scores)
        right, false = found * labels.sum(), wrong * (1 - labels).sum()
        precision = np.divide(
            right, right + false, out=np.ones_like(right), where=right + false > 0
        )
        area = average_precision(labels, scores)
        axes.plot(*_thin(found, precision), color=colour, label=f"{name}, {area:.3f}",
                  linewidth=2 if name == "model" else 1)  # fmt: skip
    axes.set(xlabel="recall: links found", ylabel="precision: links among those picked",
             xlim=(0, 1), ylim=(0.45, 1.005))  # fmt: skip
    axes.legend(title="average precision", loc="lower left")
    return Plot(
        figure=figure,
        caption="The same pairs as precision and recall; guessing would have a precision of 0.5.",
    )


def _scores(looked: _Looked) -> Plot:
    figure, axes = _figure()
    labels, logits = looked.uniform.labels, looked.uniform.logits
    groups = {"links": logits[labels > 0], "uniform non-links": logits[labels == 0]}
    hard = looked.two_hop.logits[looked.two_hop.labels == 0]
    if len(hard):
        groups["non-links with a common neighbour"] = hard
    low, high = np.quantile(np.concatenate([*groups.values()]), [0.005, 0.995])
    bins = np.linspace(low, high, 41)
    for (name, values), colour in zip(groups.items(), COLOURS, strict=False):
        shares = np.histogram(np.clip(values, low, high), bins)[0] / len(values)
        axes.stairs(shares, bins, color=colour, fill=True, alpha=0.25)
        axes.stairs(shares, bins, color=colour, label=name)
    axes.set(xlabel="logit of a link", ylabel="share of the pairs")
    axes.set_ylim(0, axes.get_ylim()[1] * 1.25)
    axes.legend(loc="upper left")
    return Plot(
        figure=figure,
        caption="Scores of the test pairs. What the other groups share with the links is what "
        "the model cannot tell; pairs with a common neighbour are the harder ones.",
    )


def _calibration(looked: _Looked) -> Plot:
    figure, axes = _figure(3.4)
    labels, logits = looked.uniform.labels, looked.uniform.logits
    raw = Calibration(1.0, 0.0)
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=0.6)
    for name, mapping, colour in (
        ("as trained", raw, COLOURS[1]),
        ("calibrated on validation", looked.probability, COLOURS[0]),
    ):
        said, true, _ = reliability(labels, mapping(logits), bins=10)
        axes.plot(said, true, marker="o", markersize=4, color=colour, label=name)
    axes.set(xlabel="probability said", ylabel="share that are links", aspect="equal",
             xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))  # fmt: skip
    axes.legend(loc="upper left")
    return Plot(
        figure=figure,
        caption="Ten groups of equally many test pairs, half of all pairs links. On the diagonal "
        "a probability means what it says.",
    )


def _by_degree(looked: _Looked) -> Plot:
    figure, axes = _figure()
    pairs, labels = looked.uniform.pairs, looked.uniform.labels
    fewest = looked.degrees[pairs].min(axis=0)
    edges = np.unique(np.quantile(fewest, np.linspace(0, 1, DEGREE_GROUPS + 1)).round())
    groups = [
        (fewest >= low) & ((fewest < high) | (high == edges[-1]))
        for low, high in itertools.pairwise(edges)
    ]
    groups = [group for group in groups if 0 < labels[group].sum() < group.sum()]
    names = [_range(fewest[group]) for group in groups]
    for name, scores, colour in looked.rankings():
        areas = [area_under_curve(labels[group], scores[group]) for group in groups]
        axes.plot(names, areas, marker="o", markersize=4, color=colour, label=name,
                  linewidth=2 if name == "model" else 1)  # fmt: skip
    axes.set(xlabel="links of the less linked node in training", ylabel="area under the ROC curve")
    axes.legend(loc="best")
    sizes = ", ".join(str(int(group.sum())) for group in groups)
    return Plot(
        figure=figure,
        caption=f"AUC by how much was known of the less linked node. Test pairs: {sizes}.",
    )


def _latent_map(looked: _Looked) -> Plot:
    figure, axes = _figure(3.4)
    graph = observed(looked.config, looked.dataset)
    device = next(looked.model.parameters()).device
    vectors = looked.model.embed(graph.to(device)).double().cpu().numpy()
    centred = vectors - vectors.mean(axis=0)
    covariance = centred.T @ centred
    values, directions = np.linalg.eigh(covariance)
    directions = directions[:, ::-1][:, :2]
    directions = directions * np.sign(directions[np.abs(directions).argmax(0), [0, 1]])
    flat = centred @ directions
    shown = np.random.default_rng(0).permutation(len(flat))[:MOST_DOTS]
    labels = looked.dataset.labels
    size = max(3.0, min(14.0, 6000 / len(shown)))
    if labels is not None and 1 < len(np.unique(labels[labels >= 0])) <= len(COLOURS):
        for label, colour in zip(np.unique(labels[labels >= 0]), COLOURS, strict=False):
            chosen = shown[labels[shown] == label]
            axes.scatter(*flat[chosen].T, s=size, color=colour, linewidths=0, alpha=0.7,
                         label=f"class {label}")  # fmt: skip
        axes.legend(loc="best", markerscale=1.5)
        words = "coloured by their label, which was not used in training"
    else:
        dots = axes.scatter(*flat[shown].T, s=size, c=np.log2(1 + looked.degrees[shown]),
                            cmap="viridis", linewidths=0)  # fmt: skip
        figure.colorbar(dots, ax=axes, label="log₂(1 + links)")
        words = "coloured by their number of links"
    share = values[::-1][:2].sum() / max(values.sum(), 1e-12)
    axes.set(xlabel="first principal component", ylabel="second")
    return Plot(
        figure=figure,
        caption=f"Posterior means of the nodes, {words}. The plane holds {share:.0%} of their "
        "variance.",
    )


def _new_links(looked: _Looked, positions: Array) -> Plot:
    dataset = looked.dataset
    pairs, logits = new_links(looked.model, whole(dataset), SHOWN_LINKS)
    probability = looked.probability(logits)
    shown = _main_part(positions)
    middle = np.radians(np.median(positions[:, 1]))
    flat = positions * [np.cos(middle), 1.0]
    figure, axes = _figure(3.6, width=6.4)
    inside = [pair for pair in dataset.edges.T if shown[pair].all()]
    for source, target in inside:
        axes.plot(*flat[[source, target]].T, color=GREY, linewidth=0.25, alpha=0.18)
    known = np.bincount(dataset.edges.ravel(), minlength=len(flat))
    axes.scatter(*flat[shown].T, s=2 + known[shown] / 4, color=INK, linewidths=0, zorder=3)
    drawn = 0
    for source, target in pairs.T:
        if shown[[source, target]].all():
            axes.plot(*flat[[source, target]].T, color=COLOURS[1], linewidth=1.1, zorder=2)
            drawn += 1
    for node in np.argsort(-known, kind="stable")[:12]:
        if shown[node]:
            axes.annotate(dataset.names[node], tuple(flat[node]), xytext=(3, 3), fontsize=7,
                          textcoords="offset points")  # fmt: skip
    axes.set_axis_off()
    axes.set_aspect("equal")
    best = f"{dataset.names[pairs[0, 0]]}–{dataset.names[pairs[1, 0]]}" if pairs.size else "none"
    left = len(pairs.T) - drawn
    return Plot(
        figure=figure,
        caption=f"The {len(pairs.T)} most probable links that the graph does not have (orange"
        + (f", {left} of them off the map" if left else "")
        + f"), over those it has (grey). First is {best}; calibrated probabilities "
        + (f"{probability.min():.3f} to {probability.max():.3f}." if pairs.size else "none."),
    )


def _main_part(positions: Array) -> NDArray[np.bool_]:
    """Nodes in the crowded part of the map; a few far ones would shrink it to a dot."""
    low, high = np.quantile(positions, [0.12, 0.98], axis=0)
    margin = 0.15 * (high - low)
    return ((positions >= low - margin) & (positions <= high + margin)).all(axis=1)


def _steps(labels: Array, scores: Array) -> tuple[Array, Array]:
    """Share of links and of non-links above each distinct score, from none to all."""
    order = np.argsort(-scores, kind="stable")
    last = np.append(np.diff(scores[order]) != 0, True)
    found, wrong = (np.cumsum(part[order])[last] for part in (labels, 1 - labels))
    return np.append(0, found / labels.sum()), np.append(0, wrong / (1 - labels).sum())


def _thin(x: Array, y: Array) -> tuple[Array, Array]:
    """At most so many points of a curve, its ends kept."""
    if len(x) <= MOST_POINTS:
        return x, y
    kept = np.unique(np.linspace(0, len(x) - 1, MOST_POINTS).round().astype(int))
    return x[kept], y[kept]


def _range(values: NDArray[np.int64]) -> str:
    low, high = int(values.min()), int(values.max())
    return str(low) if low == high else f"{low}–{high}"
