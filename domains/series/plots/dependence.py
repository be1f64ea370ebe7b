"""How values depend on their own past and on other channels, real and generated."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from matplotlib.colors import Normalize

from core.contract import Plot
from core.runtime.wording import number
from domains.series.plots.drawing import (
    GENERATED,
    REAL,
    SIGNED,
    Array,
    figure_of,
    left_out,
    named,
    panels,
    spread,
)
from domains.series.plots.looked import Likeness, correlation

SHOWN_CHANNELS = 4
MOST_LAGS = 48
MOST_CHANNELS = 32  # of a heat map
MOST_NAMED = 12
LEAST_SHOWN = 0.1  # of correlations, so that noise does not look large


def draw_autocorrelation(likeness: Likeness) -> Plot | None:
    """Draw the autocorrelation of values and of absolute differences; None for two rows."""
    time, names = likeness.real.shape[1], likeness.dataset.channels
    lags = min(time * 3 // 4, MOST_LAGS)
    if time < 4:
        return None
    shown = {"values": _itself, "absolute differences": _absolute_differences}
    channels = likeness.varied(SHOWN_CHANNELS)
    axes = panels(len(channels), 2, sharex=True)
    for line, channel in zip(axes, channels, strict=True):
        for panel, (kind, of) in zip(line, shown.items(), strict=True):
            for windows, label, look in kinds_of(likeness):
                found = autocorrelation(of(windows[..., channel]), lags)
                panel.plot(np.arange(1, lags + 1), found[1:], label=label, **look)
            panel.axhline(0, color="k", linewidth=0.5)
            low, high = panel.get_ylim()
            panel.set_ylim(min(low, -LEAST_SHOWN), max(high, 3 * LEAST_SHOWN))
            named(panel, f"{names[channel]}, {kind}" if kind == "values" else kind)
    for panel in axes[-1]:
        panel.set_xlabel("lag, rows", fontsize=8)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure_of(axes).legend(handles, labels, loc="outside upper left", ncols=2)
    return Plot(
        figure=figure_of(axes),
        caption="Autocorrelation within train and generated windows, about the mean of all of "
        "them: of the values, and of their absolute differences from row to row, which shows "
        "whether calm and wild times come in clusters." + left_out(len(names) - len(channels)),
    )


def draw_cross_correlation(likeness: Likeness) -> Plot | None:
    """Draw the correlations of channels: real, generated and their difference; None for one."""
    names = likeness.dataset.channels
    if len(names) < 2:
        return None
    kept = spread(len(names), MOST_CHANNELS)
    real, generated = (
        correlation(windows[..., kept]) for windows in (likeness.real, likeness.generated)
    )
    difference = generated - real
    axes = panels(1, 3, height=1.75, sharey=True)
    figure = figure_of(axes)
    largest = max(float(np.abs(difference).max()), LEAST_SHOWN)
    for panel, matrix, title, limit in (
        (axes[0, 0], real, "train", 1.0),
        (axes[0, 1], generated, "generated", 1.0),
        (axes[0, 2], difference, "difference", largest),
    ):
        image = panel.imshow(matrix, cmap=SIGNED, norm=Normalize(-limit, limit),
                             interpolation="nearest")  # fmt: skip
        named(panel, title)
        panel.spines[:].set_visible(False)
        panel.tick_params(length=0)
        panel.set(xticks=[], yticks=[])
        bar = figure.colorbar(image, ax=panel, location="bottom", shrink=0.9, aspect=14,
                              ticks=[-limit, 0, limit])  # fmt: skip
        bar.ax.set_xticklabels([number(float(f"{v:.2g}")) for v in (-limit, 0.0, limit)])
        bar.ax.tick_params(labelsize=7, length=0)
        bar.outline.set_visible(False)
    if len(kept) <= MOST_NAMED:
        axes[0, 0].set_yticks(range(len(kept)), [_cut(names[place]) for place in kept])
    i, j = np.unravel_index(np.abs(difference).argmax(), difference.shape)
    apart = f"{names[kept[i]]} and {names[kept[j]]}"
    return Plot(
        figure=figure,
        caption="Correlation of channels at the same time over train and generated windows. The "
        f"largest difference is {number(float(f'{difference[i, j]:.2g}'))}, of {apart}"
        + (f"; {len(kept)} of {len(names)} channels." if len(kept) < len(names) else "."),
    )


def kinds_of(likeness: Likeness) -> Iterator[tuple[Array, str, dict[str, Any]]]:
    """Windows of both kinds with label and look: real ones broad, generated ones thin on top."""
    yield likeness.real, "train", {"color": REAL, "linewidth": 2.6, "alpha": 0.7}
    yield likeness.generated, "generated", {"color": GENERATED, "linewidth": 1.0}


def autocorrelation(windows: Array, lags: int) -> Array:
    r"""Return the pooled autocorrelation of windows of one channel.

    .. math:: r_l = \frac{\sum (x_t - m)(x_{t+l} - m) / n_l}{\sum (x_t - m)^2 / n_0}

    with sums over all windows and the :math:`n_l` pairs of which both values are known, and
    :math:`m` the mean of all windows.

    Args:
        windows: Of shape ``(window, time)``, NaN where not known.
        lags: The largest lag.

    Returns:
        At lags 0 to ``lags``; NaN where no pair is known, 0 for a constant.

    Example:
        >>> autocorrelation(np.array([[1.0, -1.0, 1.0, -1.0]]), 2)
        array([ 1., -1.,  1.])
    """
    centred = windows - _mean(windows)
    products = [
        _mean(centred[:, : centred.shape[1] - lag] * centred[:, lag:]) for lag in range(lags + 1)
    ]
    variance = products[0]
    return np.array(products) / variance if variance > 0 else np.zeros(lags + 1)


def _itself(windows: Array) -> Array:
    return windows


def _absolute_differences(windows: Array) -> Array:
    return np.abs(np.diff(windows, axis=1))


def _mean(values: Array) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")


def _cut(name: str) -> str:
    return name if len(name) <= 10 else name[:9] + "…"
