"""Whether what one setting of the machine writes is read by every other."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from core.contract import Plot
from core.runtime.figures import GREY
from domains.compression.model.proof import FLOATS, INTEGERS, Pair, Proof
from domains.compression.plots.drawing import bare, figure_of, panels

TITLES = {INTEGERS: "integers: what files are written with", FLOATS: "floats, to compare"}
RIGHT, WRONG = "#cfe8dc", "#f3c9c2"


def draw_exactness(proof: Proof) -> Plot:
    """Draw how many streams each setting reads as each other wrote them.

    Args:
        proof: What was tried.
    """
    paths = [path for path in TITLES if any(pair.path == path for pair in proof.pairs)]
    axes = panels(len(paths), 1, height=0.5 + 0.26 * len(proof.settings))
    for panel, path in zip(axes[:, 0], paths, strict=True):
        _matrix(panel, proof.settings, [pair for pair in proof.pairs if pair.path == path])
        panel.set_title(TITLES[path], fontsize=8, loc="left", pad=16)
    return Plot(figure=figure_of(axes), caption=_caption(proof))


def _matrix(axes: Axes, settings: Sequence[str], pairs: Sequence[Pair]) -> None:
    """Rows wrote, columns read; a cell says how many streams gave the latents written."""
    axes.set(xlim=(-0.5, len(settings) - 0.5), ylim=(len(settings) - 0.5, -0.5))
    bare(axes)
    for pair in pairs:
        row, column = settings.index(pair.written), settings.index(pair.read)
        colour = RIGHT if pair.identical == pair.streams else WRONG
        axes.add_patch(_cell(column, row, colour))
        text = f"{pair.identical} of {pair.streams}"
        axes.text(column, row, text, ha="center", va="center", fontsize=7, color="#111111")
    for place, name in enumerate(settings):
        axes.text(-0.56, place, name, ha="right", va="center", fontsize=7)
        axes.text(place, -0.6, name, ha="center", va="bottom", fontsize=7, color=GREY)


def _cell(column: int, row: int, colour: str) -> Rectangle:
    return Rectangle((column - 0.48, row - 0.46), 0.96, 0.92, facecolor=colour, edgecolor="none")


def _caption(proof: Proof) -> str:
    shares = {path: proof.identical_share(path) for path in (INTEGERS, FLOATS)}
    floats = shares[FLOATS]
    beside = (
        "" if floats is None else f" With float networks in their place {100 * floats:.0f} % are."
    )
    exact = shares[INTEGERS]
    said = (
        ""
        if exact is None
        else f" Of streams that another setting reads, {100 * exact:.0f} % "
        "give the latents that were written."
    )
    return (
        "Streams of test pictures, written under the setting of the row and read under that of "
        f"the column.{said}{beside} Pixels drawn from the same latents differ by at most "
        f"{proof.largest_difference} grey level{'s' * (proof.largest_difference != 1)}."
    )
