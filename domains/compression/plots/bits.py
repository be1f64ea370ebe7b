"""Where the bits go: to which group of latents, and to which part of a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from matplotlib.colors import LinearSegmentedColormap, Normalize, to_rgba
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from core.contract import Plot
from core.runtime.figures import COLOURS
from core.runtime.wording import number
from domains.compression.plots.drawing import bare, figure_of, panels, reduced, show_picture

# Clear where nothing is spent, so that the picture is seen through it.
HEAT = LinearSegmentedColormap.from_list(
    "heat", [to_rgba(COLOURS[4], 0), to_rgba(COLOURS[1], 0.75), to_rgba("#b3261e", 0.95)]
)
MOST_PIXELS = 480  # of a side of the picture under the map
PALE = 0.5  # contrast that the picture keeps under the map, so that dark parts do not hide it
HIGHEST = 99.5  # percentile of a block's bits that is the end of the scale


def draw_bits(qualities: Sequence[int], bits: Mapping[str, Sequence[float]], n: int) -> Plot:
    """Draw how many bits per pixel each group of latents takes at each quality, stacked.

    Args:
        qualities: From low to high.
        bits: Bits per pixel at each quality by group, in coding order.
        n: Of how many pictures they are the mean.
    """
    axes = panels(1, 2, height=2.3)
    values = np.array([*bits.values()])
    shares = 100 * values / np.maximum(values.sum(0), 1e-12)
    colours = [_shade(place) for place in range(len(bits))]
    for panel, stacked in zip(axes[0], (values, shares), strict=True):
        panel.stackplot(qualities, stacked, labels=[*bits], colors=colours, linewidth=0)
        panel.set(xlabel="quality", xlim=(min(qualities), max(qualities)))
        panel.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        panel.set_ylim(bottom=0)
    axes[0, 0].set_ylabel("bits per pixel")
    axes[0, 1].set(ylabel="% of the bits", ylim=(0, 100))
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure_of(axes).legend(handles, labels, loc="outside upper left", ncols=min(5, len(bits)))
    ends = [_dearest(bits, place) for place in (0, -1)]
    return Plot(
        figure=figure_of(axes),
        caption="Bits per pixel of each group of latents by the frozen tables, in coding order "
        f"from below, and their shares; mean of {n} test "
        f"picture{'s' * (n != 1)}. At quality {qualities[0]} "
        f"{ends[0]}, at {qualities[-1]} {ends[1]} takes most.",
    )


def draw_rate_map(
    pixels: Tensor, rate_map: Tensor, name: str, quality: int, block: int = 8
) -> Plot:
    """Draw a picture, and over it how many bits each of its blocks takes.

    Args:
        pixels: Of shape ``(colour, height, width)``.
        rate_map: Bits of each block, of shape ``(rows, columns)``, which may reach beyond the
            picture.
        name: Of the picture.
        quality: At which it was coded.
        block: Side of a block in pixels.
    """
    _, height, width = pixels.shape
    bits = rate_map.double().cpu().numpy()
    across = width >= height
    axes = panels(*((2, 1) if across else (1, 2)), height=_height(height, width, across))
    small = reduced(pixels, MOST_PIXELS)
    grey = PALE * small.double().mean(0, keepdim=True) + (1 - PALE) * 255
    grey = grey.round().to(torch.uint8).expand(3, -1, -1)
    extent = (-0.5, width - 0.5, height - 0.5, -0.5)
    show_picture(axes.flat[0], small, extent=extent)
    show_picture(axes.flat[1], grey, extent=extent)
    end = max(float(np.percentile(bits, HIGHEST)), 1e-6)
    heat = axes.flat[1].imshow(
        bits, cmap=HEAT, norm=Normalize(0, end), interpolation="none",
        extent=(-0.5, bits.shape[1] * block - 0.5, bits.shape[0] * block - 0.5, -0.5),
    )  # fmt: skip
    axes.flat[1].set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))
    bare(axes.flat[1])
    bar = figure_of(axes).colorbar(heat, ax=axes.ravel().tolist(), location="bottom", aspect=40,
                                   shrink=0.6, pad=0.02)  # fmt: skip
    bar.set_label(f"bits per block of {block} × {block}", fontsize=8)
    bar.outline.set_visible(False)  # type: ignore[operator]
    bar.ax.tick_params(labelsize=7, length=0)
    tenth = np.sort(bits.ravel())[::-1][: max(1, bits.size // 10)].sum() / max(bits.sum(), 1e-12)
    return Plot(
        figure=figure_of(axes),
        caption=f"{name} at quality {quality}, and over it where the "
        f"{number(round(float(bits.sum()) / 8))} bytes of its latents go: {100 * tenth:.0f} % of "
        "them to the dearest tenth of the blocks.",
    )


def _shade(place: int) -> tuple[str, float]:
    """Of a group, in coding order; those beyond the last colour are the first ones, paler."""
    again, colour = divmod(place, len(COLOURS))
    return COLOURS[colour], 0.85 / (1 + again)


def _dearest(bits: Mapping[str, Sequence[float]], place: int) -> str:
    return max(bits, key=lambda name: bits[name][place])


def _height(height: int, width: int, across: bool) -> float:
    """Of a panel in inches, such that the picture fills it."""
    return 4.2 * height / width if across else 2.1 * height / width
