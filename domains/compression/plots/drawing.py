"""What the figures of compression share: their width, the codecs' colours, pictures in panels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import UInt8
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from core.runtime.figures import COLOURS, GREY

Grid = NDArray[Any]  # of Axes
Side = Literal["left", "right"]
WIDTH = 4.4  # inches; a phone shows it at its full width
OWN = COLOURS[0]
CODECS = {
    "jpeg": COLOURS[1],
    "webp": COLOURS[2],
    "avif": COLOURS[3],
    "jpeg2000": COLOURS[4],
    "jxl": COLOURS[5],
}


def panels(rows: int, columns: int, height: float, width: float = WIDTH) -> Grid:
    """Return the axes of a new figure, ``(row, column)``, each so many inches high."""
    figure = Figure(figsize=(width, 0.3 + height * rows))
    return figure.subplots(rows, columns, squeeze=False)


def figure_of(axes: Grid) -> Figure:
    """The figure that holds the panels."""
    return axes.flat[0].figure


def colours_of(codecs: Sequence[str]) -> dict[str, str]:
    """The colour of each codec: always the same for a known one, a free one for another."""
    taken = {CODECS[codec] for codec in codecs if codec in CODECS}
    free = cycle(colour for colour in COLOURS if colour not in taken)
    return {codec: CODECS.get(codec) or next(free) for codec in codecs}


def show_picture(
    axes: Axes,
    pixels: UInt8[Tensor, "colour height width"],
    title: str = "",
    extent: tuple[float, float, float, float] | None = None,
) -> None:
    """Draw a picture, each pixel as it is; ``extent`` says where, as matplotlib's does."""
    shown = pixels.permute(1, 2, 0).cpu().numpy()
    axes.imshow(shown, interpolation="none", extent=extent)
    bare(axes)
    if title:
        axes.set_title(title, fontsize=7, loc="left", pad=2)


def reduced(
    pixels: UInt8[Tensor, "colour height width"], most: int
) -> UInt8[Tensor, "colour rows columns"]:
    """Return the picture at a whole fraction of its size, no side longer than ``most``."""
    factor = -(-max(pixels.shape[1:]) // most)
    if factor == 1:
        return pixels
    means = F.avg_pool2d(pixels.double()[None], factor, ceil_mode=True)[0]
    return means.round().to(torch.uint8)


def bare(axes: Axes) -> None:
    """Take away the frame and the ticks."""
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)


def table(
    axes: Axes, head: Sequence[str], rows: Sequence[Sequence[str]], places: Mapping[float, Side]
) -> None:
    """Write a table.

    Args:
        axes: Where.
        head: Of the columns.
        rows: Of cells.
        places: Where each column stands, 0 to 1, and which side of its cells is there.
    """
    axes.set(xlim=(0, 1), ylim=(len(rows) + 0.6, -0.6))
    axes.set_axis_off()
    for line, row in enumerate([head, *rows]):
        colour: dict[str, Any] = {"color": GREY} if line == 0 else {}
        for (place, side), cell in zip(places.items(), row, strict=True):
            axes.text(place, line, cell, ha=side, va="center", fontsize=7, **colour)


def spread(count: int, most: int) -> list[int]:
    """Return at most so many of ``count`` places, evenly spread, both ends kept.

    Example:
        >>> spread(10, 4), spread(2, 4)
        ([0, 3, 6, 9], [0, 1])
    """
    if count <= most:
        return list(range(count))
    return [int(place) for place in np.linspace(0, count - 1, most).round()]
