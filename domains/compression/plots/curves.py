"""Rate against distortion: what a codec's files weigh, and how far they are from the picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from core.contract import Plot
from core.runtime.figures import GREY
from domains.compression.plots.drawing import colours_of, figure_of, panels

DASHES = ((4, 1.5), (1, 1.5), (5, 1.5, 1, 1.5), (10, 2.5))
ROOM = 1.25  # how much more than the largest measured rate of the first codec is shown


@dataclass(frozen=True, kw_only=True)
class Curve:
    """Points of a codec, from the lowest rate, each the mean over the same pictures.

    Args:
        codec: Its name.
        bpp: Bits of the whole file per pixel.
        psnr_db: PSNR of 8-bit RGB.
        ms_ssim_db: MS-SSIM as -10 log10(1 - m); empty if not measured.
        published: Whether the numbers are another's.
    """

    codec: str
    bpp: tuple[float, ...]
    psnr_db: tuple[float, ...]
    ms_ssim_db: tuple[float, ...] = ()
    published: bool = False


def draw_curves(curves: Sequence[Curve], caption: str) -> Plot:
    """Draw curves over each other, the first one in front; a panel more where MS-SSIM is known.

    Args:
        curves: The first is the codec that the figure is about.
        caption: What the pictures are.
    """
    similar = any(curve.ms_ssim_db for curve in curves)
    axes = panels(1 + similar, 1, height=2.9)
    _panel(axes[0, 0], curves, "psnr_db", "PSNR, dB")
    if similar:
        _panel(axes[1, 0], curves, "ms_ssim_db", "MS-SSIM, dB")
    columns = 2 if any(curve.published for curve in curves) else 3  # of the longer names
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure_of(axes).legend(handles, labels, loc="outside upper left", ncols=columns)
    return Plot(figure=figure_of(axes), caption=caption)


def _styles(curves: Sequence[Curve]) -> list[dict[str, Any]]:
    """How each curve is drawn: measured ones in colours, others' numbers dashed."""
    colours = colours_of([curve.codec for curve in curves if not curve.published])
    dashes = cycle(DASHES)
    return [
        {"color": GREY, "linestyle": (0, next(dashes)), "linewidth": 1}
        if curve.published
        else {
            "color": colours[curve.codec],
            "marker": "o",
            "markersize": 2.5 if place else 4,
            "linewidth": 1.2 if place else 2,
            "zorder": 2 if place else 3,
        }
        for place, curve in enumerate(curves)
    ]


def _panel(axes: Axes, curves: Sequence[Curve], quantity: str, label: str) -> None:
    """Draw the curves that have a quantity, up to a bit more than the first one's rates."""
    widest = ROOM * max(curves[0].bpp)
    for curve, style in zip(curves, _styles(curves), strict=True):
        shown = [
            point
            for point in zip(curve.bpp, getattr(curve, quantity), strict=False)
            if point[0] <= widest
        ]
        if shown:
            name = f"{curve.codec} (published)" if curve.published else curve.codec
            axes.plot(*zip(*shown, strict=True), label=name, **style)
    axes.set(xlabel="bits per pixel", ylabel=label)
    axes.set_xlim(left=0)
    axes.grid()
    axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.yaxis.set_major_locator(MaxNLocator(6))
