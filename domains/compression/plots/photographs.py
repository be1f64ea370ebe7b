"""Which photographs a model learned from and was tested on, each by the hash of its file."""

from __future__ import annotations

from collections.abc import Sequence

from core.contract import Plot
from domains.compression.data import Entry
from domains.compression.plots.drawing import Side, figure_of, panels, spread, table

HEAD = ["photograph", "licence", "pixels", "split", "crops", "SHA-256"]
PLACES: dict[float, Side] = {
    0.0: "left", 0.33: "left", 0.7: "right", 0.725: "left", 0.83: "right", 0.86: "left",
}  # fmt: skip
MOST_ROWS = 60
DIGITS = 12  # of a hash
LONGEST = 32, 27  # characters of a name and of a licence
ROW = 0.165  # inches


def draw_photographs(entries: Sequence[Entry]) -> Plot:
    """Draw the list of photographs as a table; of very many some from all over the list.

    Args:
        entries: Lines of the manifest.
    """
    shown = [entries[place] for place in spread(len(entries), MOST_ROWS)]
    axes = panels(1, 1, height=ROW * (len(shown) + 1), width=6.4)
    table(axes[0, 0], HEAD, [_row(one) for one in shown], PLACES)
    left_out = len(entries) - len(shown)
    part = f"; {left_out:,} more are left out here" if left_out else ""
    return Plot(
        figure=figure_of(axes),
        caption=f"The photographs, whole ones in each split, with the first {DIGITS} digits of "
        f"the SHA-256 of their files{part}. All of it is in data/manifest.json; a frozen model "
        "carries the list of what it learned from, with settings, seed and version of the code.",
    )


def _row(one: Entry) -> list[str]:
    return [
        _short(one.name, LONGEST[0]),
        _short(one.licence, LONGEST[1]),
        f"{one.width} \N{MULTIPLICATION SIGN} {one.height}",
        one.split,
        f"{one.crops:,}",
        one.sha256[:DIGITS],
    ]


def _short(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"
