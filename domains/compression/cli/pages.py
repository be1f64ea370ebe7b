"""A figure in a file of its own: a drawing, a picture, or a page with a table."""

from __future__ import annotations

import io
from collections.abc import Sequence
from html import escape
from pathlib import Path

from core.contract import Plot
from core.runtime.figures import inline, style, svg
from core.runtime.folder import write_atomic

DOTS = 200  # per inch of a .png
STYLE = """\
:root { color-scheme: light dark; }
body { max-width: 48rem; margin: 2rem auto; padding: 0 1rem; font: 1rem/1.5 sans-serif; }
svg { width: 100%; height: auto; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .15rem .8rem .15rem 0; text-align: right; }
th:first-child, td:first-child { text-align: left; }
thead { border-bottom: 1px solid; }"""


def write(path: Path, title: str, plot: Plot, head: Sequence[str], rows: list[list[str]]) -> None:
    """Write a plot as its name's ending says: .svg, .png, or .html with a table under it.

    Args:
        path: The file.
        title: Of the page.
        plot: The figure, with its caption.
        head: Heads of the table.
        rows: Its rows.
    """
    if path.suffix == ".png":
        write_atomic(path, _png(plot))
        return
    with style():
        drawing = svg(plot.figure)
    write_atomic(
        path, drawing if path.suffix == ".svg" else _page(title, drawing, plot, head, rows)
    )


def _png(plot: Plot) -> bytes:
    buffer = io.BytesIO()
    with style():
        plot.figure.savefig(
            buffer, format="png", dpi=DOTS, facecolor="white", metadata={"Software": None}
        )
    return buffer.getvalue()


def _page(title: str, drawing: str, plot: Plot, head: Sequence[str], rows: list[list[str]]) -> str:
    def cells(kind: str, row: Sequence[str]) -> str:
        return "<tr>" + "".join(f"<{kind}>{escape(cell)}</{kind}>" for cell in row) + "</tr>"

    body = "\n".join(cells("td", row) for row in rows)
    return f"""<!DOCTYPE html>
<html lang="en"><meta charset="utf-8"><title>{escape(title)}</title>
<meta name="viewport" content="width=device-width">
<style>
{STYLE}
</style>
<h1>{escape(title)}</h1>
{inline(drawing, "curves", "Rate against distortion")}
<p>{escape(plot.caption)}</p>
<div class="scroll"><table>
<thead>{cells("th", head)}</thead>
<tbody>
{body}
</tbody>
</table></div>
</html>
"""
