"""Figures that are the same bytes for the same numbers, and readable on light and dark paper.

Axes and text are drawn in `INK` on nothing. A file of its own shows them nearly black; inside a
page `inline` turns the ink into the page's ``currentColor``. Text stays text: small, searchable,
editable.
"""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import matplotlib as mpl
from cycler import cycler
from markupsafe import escape
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.text import Text
from matplotlib.ticker import MaxNLocator

INK = "#16181c"
BLACK = "#000000"
GREY = "#868d97"
# Each has a contrast above 3:1 against white and against the report's dark paper.
COLOURS = ("#2a78b8", "#d06a1e", "#2b8f6b", "#b0529a", "#a8821a", "#c94f5d", GREY)
SPLITS = {"train": COLOURS[0], "valid": COLOURS[1]}
MOST_POINTS = 300
MOST_BARS = 256

_STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "latentworks",
    "font.family": ["sans-serif"],
    "font.sans-serif": ["DejaVu Sans", "Helvetica", "Arial"],
    "font.size": 9,
    "mathtext.fontset": "dejavusans",
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "savefig.facecolor": "none",
    "axes.prop_cycle": cycler(color=COLOURS),
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "axes.formatter.useoffset": False,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 3,
    "ytick.major.size": 3,
    "lines.linewidth": 1.4,
    "lines.solid_capstyle": "round",
    "grid.color": GREY,
    "grid.alpha": 0.25,
    "grid.linewidth": 0.5,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "figure.figsize": (4.4, 2.8),
    "figure.constrained_layout.use": True,
    "savefig.pad_inches": 0.04,
}


@contextlib.contextmanager
def style() -> Iterator[None]:
    """Draw in the report's style, whatever the machine's own matplotlib settings are."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(_STYLE)
        yield


def svg(figure: Figure) -> str:
    """Return a figure as SVG: no date, no random id, transparent, its blacks in `INK`."""
    with style():
        mpl.rcParams["figure.constrained_layout.use"] = False  # a figure keeps the layout it has
        figure.draw_without_rendering()
        _ink(figure)
        buffer = io.StringIO()
        nothing = {"Date": None, "Creator": None, "Format": None, "Type": None}
        figure.savefig(buffer, format="svg", metadata=nothing, bbox_inches="tight")
    lines = (line.rstrip() for line in buffer.getvalue().splitlines())
    return "\n".join(lines) + "\n"


def inline(drawing: str, name: str, label: str) -> str:
    """Return a drawing for the inside of a page: its own ids, the page's ink, a label for readers.

    Args:
        drawing: What `svg` returned.
        name: Unique in the page; keeps the ids of two drawings apart.
        label: What the drawing shows, for those who cannot see it.
    """
    body = drawing[drawing.index("<svg") :].replace(INK, "currentColor")
    body = re.sub(r"\s*<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    body = re.sub(
        r"\s*<defs>\s*<style[^>]*>.*?</style>\s*</defs>", "", body, count=1, flags=re.DOTALL
    )
    body = body.replace("xlink:href=", "href=")
    used = set(re.findall(r"#([\w-]+)[)\"]", body))
    body = re.sub(r' id="([^"]*)"', lambda found: _own_id(found.group(1), name, used), body)
    body = re.sub(r"(url\(#|href=\"#)", rf"\g<1>{name}-", body)
    width = re.search(r'<svg[^>]*? width="([\d.]+)pt"', body)
    limit = f"max-width:{float(width.group(1)) / 72 * 6.4:.1f}rem" if width else ""
    head, tail = body.split(">", 1)
    head = re.sub(r' (width|height|version|xmlns(:xlink)?)="[^"]*"', "", head)
    look = f'style="stroke-linejoin:round;{limit}"'
    return f'{head} role="img" aria-label="{escape(label)}" {look}>{tail}'.strip()


def curve(
    series: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    x_label: str,
    y_label: str,
    chosen: float | None = None,
    colours: Mapping[str, str] = SPLITS,
) -> Figure:
    """Draw curves over training, with a mark where the chosen checkpoint was taken.

    A curve of more than `MOST_POINTS` points is drawn through means of neighbouring ones.

    Args:
        series: Points ``(x, y)`` by the curve's name; a single curve needs no legend.
        x_label: Label of the horizontal axis.
        y_label: Label of the vertical axis, with the unit.
        chosen: Where the evaluated checkpoint lies on the horizontal axis.
        colours: Colours of the curves by name.
    """
    with style():
        figure = Figure(figsize=(3.1, 2.1))
        axes = figure.add_subplot()
        for name, (x, y) in series.items():
            size = -(-len(x) // MOST_POINTS)
            marker = "o" if len(x) == 1 else None
            colour = colours.get(name, INK)
            axes.plot(_means(x, size), _means(y, size), label=name, marker=marker, color=colour)
        if chosen is not None:
            axes.axvline(chosen, color=GREY, linewidth=0.9, linestyle=(0, (3, 2)), zorder=0)
        axes.set(xlabel=x_label, ylabel=y_label)
        axes.grid(axis="y")
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(5))
        if len(series) > 1:
            axes.legend()
    return figure


def bars(axes: Axes, values: Sequence[float], colours: Sequence[str] = ()) -> None:
    """Draw values as bars, largest first; of many their outline, of very many part of it.

    Args:
        axes: Where.
        values: In any order.
        colours: Of the ordered bars; all alike if not given.
    """
    ordered = sorted(values, reverse=True)
    place = range(1, len(ordered) + 1)
    if len(ordered) <= MOST_BARS:
        axes.bar(place, ordered, width=0.8, color=colours or None)
    else:
        apart = -(-len(ordered) // MOST_POINTS)
        axes.fill_between(place[::apart], ordered[::apart], step="mid", linewidth=0)
    axes.set_xlim(0.4, len(ordered) + 0.6)
    axes.grid(axis="y")
    axes.set_axisbelow(True)
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True, min_n_ticks=1))


def _means(values: Sequence[float], size: int) -> list[float]:
    """The mean of each ``size`` values in a row."""
    groups = (values[start : start + size] for start in range(0, len(values), size))
    return [sum(group) / len(group) for group in groups]


def _own_id(identifier: str, name: str, used: set[str]) -> str:
    return f' id="{name}-{identifier}"' if identifier in used else ""


def _ink(figure: Figure) -> None:
    """Turn the blacks of a figure into ink and its white grounds into none."""
    for artist in figure.findobj():
        if isinstance(artist, (Text, Line2D)) and _is(artist.get_color(), {BLACK}):
            artist.set_color(INK)
        if isinstance(artist, Line2D):
            if _is(artist.get_markeredgecolor(), {BLACK}):
                artist.set_markeredgecolor(INK)
            if _is(artist.get_markerfacecolor(), {BLACK}):
                artist.set_markerfacecolor(INK)
        if isinstance(artist, Patch) and _is(artist.get_edgecolor(), {BLACK}):
            artist.set_edgecolor(INK)
    for ground in _grounds(figure):
        if _is(ground.get_facecolor(), {"#ffffff"}):
            ground.set_facecolor("none")


def _grounds(figure: Figure) -> Iterator[Patch]:
    yield figure.patch
    for axes in figure.axes:
        yield axes.patch
    for legend in figure.findobj(lambda artist: isinstance(artist, Legend)):
        yield legend.get_frame()  # type: ignore[attr-defined]


def _is(colour: Any, wanted: set[str]) -> bool:
    """Whether a colour that is not transparent is one of these."""
    with contextlib.suppress(ValueError):
        shade = to_hex(colour, keep_alpha=True)
        return shade[:7] in wanted and shade[7:] != "00"
    return False
