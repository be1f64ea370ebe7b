"""The figures of a diagnosis."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import (
    FixedFormatter,
    FixedLocator,
    FuncFormatter,
    MaxNLocator,
    NullFormatter,
)

from core.contract import Plot
from core.runtime import figures
from core.runtime.diagnosis.tables import (
    ALL_GROUPS,
    NOT_FINITE,
    Part,
    interval_of,
    reason,
    signal_to_noise,
)
from core.runtime.wording import number

MOST_GROUPS = 6
MOST_DOTS = 250
FEWEST_DOTS = 5
TOO_HEAVY = 0.7
SMALLEST = 1e-3  # variance that is drawn, in thresholds
PALE, DOTS = 0.45, 0.65  # opacity
DATA, BAD = figures.COLOURS[0], figures.COLOURS[5]
MARK = {"color": figures.INK, "linewidth": 0.9, "linestyle": (0, (3, 2))}


def plots(record: Part) -> dict[str, Plot]:
    """Return the figures by file name: those of the latents with the largest rate, then the rest.

    What is unavailable, or too little to draw, has no figure; the tables have its reason.
    """
    rates = record["rate_distortion"]["rates"]
    groups = sorted(record["latents"], key=lambda name: -(rates[name]["value"] or 0))[:MOST_GROUPS]
    found: dict[str, Plot | None] = {}
    for place, name in enumerate(groups):
        latent, suffix = record["latents"][name], f"-{place + 1}" if len(groups) > 1 else ""
        found[f"diagnosis-dimensions{suffix}"] = _dimensions(name, latent)
        found[f"diagnosis-prior{suffix}"] = _prior(name, latent["aggregated"])
    if not reason(record["importance"]):
        found["diagnosis-bound"] = _bound(record["importance"]["curve"])
        found["diagnosis-k-hat"] = _k_hat(record["importance"]["k_hat"])
    found["diagnosis-rate-distortion"] = _rate_distortion(record["rate_distortion"])
    found["diagnosis-gradient"] = _gradient(record["gradients"])
    return {name: plot for name, plot in found.items() if plot is not None}


def _dimensions(name: str, latent: Part) -> Plot | None:
    """KL and variance of the posterior mean of each dimension, each in its own order."""
    kl, variance = latent["kl_per_dimension"], latent["variance_of_mean"]
    known, threshold = isinstance(kl, Sequence) and None not in kl, latent["threshold"]
    if None in variance:
        return None
    with figures.style():
        figure = Figure(figsize=(4.4, 3.4 if known else 1.9))
        axes = figure.subplots(2 if known else 1, sharex=True, squeeze=False)[:, 0]
        if known:
            figures.bars(axes[0], kl)
            axes[0].set(ylabel="KL, nats per example", ylim=(0, None))
        _variances(axes[-1], variance, threshold)
        axes[-1].set(xlabel=f"dimension of {name}, sorted", ylabel="variance of mean")
    total = f"its sum is {number(float(sum(kl)))} nats per example" if known else _why(kl)
    caption = (
        f"Dimensions of {name}, each panel largest first. KL: {total}. Variance over the data of "
        f"the posterior mean: above the dashed line at {number(threshold)} a unit is active."
    )
    return Plot(figure=figure, caption=caption)


def _variances(axes: Axes, variance: Sequence[float], threshold: float) -> None:
    bottom = max(SMALLEST * threshold, min([threshold, *variance]) / 3)
    ordered = sorted((max(each, bottom) for each in variance), reverse=True)
    figures.bars(axes, ordered, [DATA if v > threshold else figures.GREY for v in ordered])
    axes.axhline(threshold, **MARK)
    axes.set_yscale("log")
    axes.set_ylim(bottom, 2 * max(*ordered, threshold))


def _prior(name: str, aggregated: Part) -> Plot | None:
    """Draws from the aggregated posterior over draws from the prior."""
    if reason(aggregated) or not isinstance(aggregated["prior_points"], Sequence):
        return None
    points = aggregated["points"][:MOST_DOTS]
    prior = aggregated["prior_points"][:MOST_DOTS]
    with figures.style():
        figure = Figure(figsize=(4.4, 3.4))
        axes = figure.add_subplot()
        samples = {"prior": (prior, figures.GREY), "aggregated posterior": (points, DATA)}
        for label, (rows, colour) in samples.items():
            x, y = zip(*rows, strict=True)
            dot = {"markersize": 3, "markeredgewidth": 0, "alpha": DOTS}
            axes.plot(x, y, "o", label=label, color=colour, **dot)
        axes.set(xlabel="first principal axis", ylabel="second principal axis")
        axes.set_aspect("equal", adjustable="datalim")
        axes.legend(
            loc="lower left", bbox_to_anchor=(0, 1), ncols=2, borderaxespad=0, markerscale=1.6
        )
    caption = (
        f"{len(points)} draws of {name} from the aggregated posterior and {len(prior)} from the "
        f"prior, on the principal axes of the former, which hold "
        f"{number(100 * aggregated['explained'], 0)} % of its variance. Where the two clouds are "
        "alike, samples of the prior are in place."
    )
    return Plot(figure=figure, caption=caption)


def _bound(curve: Sequence[Part]) -> Plot | None:
    """The importance-weighted bound for growing numbers of draws."""
    known = [each for each in curve if not reason(each["bound"])]
    if len(known) < 2:
        return None
    x = [each["samples"] for each in known]
    intervals = [interval_of(each["bound"]) for each in known]
    with figures.style():
        figure = Figure(figsize=(4.4, 2.6))
        axes = figure.add_subplot()
        axes.plot(x, [each["bound"]["value"] for each in known], "o-", markersize=3)
        if None not in intervals:
            low, high = zip(*(each for each in intervals if each), strict=True)
            axes.fill_between(x, low, high, alpha=0.2, linewidth=0)
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(FixedLocator(x))
        axes.xaxis.set_major_formatter(FixedFormatter(_apart(x)))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.tick_params(axis="x", which="minor", length=0)
        axes.yaxis.set_major_locator(MaxNLocator(5))
        axes.set(xlabel="draws K for each example", ylabel="bound, nats per example")
        axes.grid(axis="y")
    band = "95 % interval over the examples as a band" if None not in intervals else "one example"
    caption = (
        f"Importance-weighted bound against the number of draws, {band}. It grows towards "
        "log p(x); where it still rises at the right, more draws or a better posterior are needed."
    )
    return Plot(figure=figure, caption=caption)


def _apart(x: Sequence[int]) -> list[str]:
    """The labels of a log axis, without one that the last would lie over."""
    crowded = [1.5 * each > x[-1] and each != x[-1] for each in x]
    return ["" if hidden else number(each) for each, hidden in zip(x, crowded, strict=True)]


def _k_hat(histogram: Part) -> Plot | None:
    """Counts of k-hats; the edges stand evenly, since the outer classes have no width."""
    if reason(histogram):
        return None
    edges = histogram["edges"]
    counts = [histogram["below"], *histogram["counts"], histogram["above"]]
    if sum(counts) < FEWEST_DOTS:
        return None
    line = sum(edge <= TOO_HEAVY for edge in edges)
    with figures.style():
        figure = Figure(figsize=(4.4, 2.6))
        axes = figure.add_subplot()
        colours = [BAD if place >= line else DATA for place in range(len(counts))]
        axes.bar([place + 0.5 for place in range(len(counts))], counts, 0.92, color=colours)
        axes.axvline(line, **MARK)
        axes.xaxis.set_major_locator(FixedLocator(range(1, len(edges) + 1)))
        axes.xaxis.set_major_formatter(FixedFormatter([number(float(edge)) for edge in edges]))
        axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.set(xlabel="k-hat", ylabel="examples", xlim=(0, len(counts)))
        axes.grid(axis="y")
        axes.set_axisbelow(True)
    undefined = histogram["undefined"]
    caption = (
        f"k-hat of the importance weights of {number(sum(counts))} examples"
        f"{f', and {number(undefined)} where it is undefined' if undefined else ''}; right of the "
        f"dashed line at {TOO_HEAVY} their estimate cannot be trusted."
    )
    return Plot(figure=figure, caption=caption)


def _rate_distortion(part: Part) -> Plot | None:
    """Rate and distortion of single examples, and their means with intervals."""
    points = [point for point in part["points"] if None not in point][:MOST_DOTS]
    if len(points) < FEWEST_DOTS or reason(part["rate"]) or reason(part["distortion"]):
        return None
    rate, distortion = part["rate"], part["distortion"]
    with figures.style():
        figure = Figure(figsize=(4.4, 3.0))
        axes = figure.add_subplot()
        x, y = zip(*points, strict=True)
        axes.plot(x, y, "o", markersize=3, markeredgewidth=0, alpha=DOTS, color=DATA)
        errors = [[[low], [high]] for low, high in map(_arms, (rate, distortion))]
        axes.errorbar(
            rate["value"],
            distortion["value"],
            xerr=errors[0],
            yerr=errors[1],
            color=figures.INK,
            elinewidth=1.4,
            marker="o",
            markersize=3,
        )
        axes.set(xlabel="rate, nats per example", ylabel="distortion, nats per example")
        axes.grid()
    caption = (
        f"Rate and distortion of {len(points)} examples, and their means with 95 % intervals. "
        "Down and to the left is better; along the diagonal the ELBO is the same."
    )
    return Plot(figure=figure, caption=caption)


def _gradient(groups: Part) -> Plot | None:
    """Signal to noise of each group of parameters on a log axis."""
    if reason(groups):
        return None
    ratios: dict[str, Mapping[str, Any]] = {
        name: signal_to_noise(group)
        for name, group in sorted(groups.items(), key=lambda item: item[0] == ALL_GROUPS)
        if not reason(group["signal_to_noise"])
    }
    if not ratios:
        return None
    shown = [each["value"] for each in ratios.values() if each["value"] > 0]
    ends = [end for each in ratios.values() for end in interval_of(each) or () if end > 0]
    left = 10 ** math.floor(math.log10(min([0.3, *shown])))
    right = max([3.0, *shown, *ends]) * 1.6
    with figures.style():
        figure = Figure(figsize=(4.4, 0.9 + 0.28 * len(ratios)))
        axes = figure.add_subplot()
        for place, (name, ratio) in enumerate(ratios.items()):
            value, (low, high) = max(ratio["value"], left), _arms(ratio)
            colour = figures.INK if name == ALL_GROUPS else DATA
            axes.barh(place, value - left, left=left, height=0.6, color=colour, alpha=PALE)
            arms = [[min(low, value - left)], [max(0.0, ratio["value"] + high - value)]]
            axes.errorbar(value, place, xerr=arms, fmt="o", color=colour, markersize=4)
        axes.axvline(1, **MARK)
        axes.set_xscale("log")
        axes.set_xlim(left, right)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda tick, _: number(float(tick))))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_yticks(range(len(ratios)), list(ratios))
        axes.invert_yaxis()
        axes.set(xlabel="signal to noise of the gradient")
        axes.grid(axis="x")
        axes.set_axisbelow(True)
    caption = (
        "Signal to noise of the gradient by group of parameters, over posterior draws on one "
        "batch, with 95 % intervals. Left of the dashed line at 1 the noise is larger."
    )
    return Plot(figure=figure, caption=caption)


def _arms(estimate: Mapping[str, Any]) -> tuple[float, float]:
    """The lengths of an interval to both sides of the value."""
    interval = interval_of(estimate)
    if interval is None:
        return 0.0, 0.0
    value = estimate["value"]
    return max(0.0, value - interval[0]), max(0.0, interval[1] - value)


def _why(part: Any) -> str:
    return reason(part) if isinstance(part, Mapping) else NOT_FINITE
