"""Tables of rate and distortion: read, averaged, compared with an anchor, drawn."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

from core.runtime.errors import UserError, did_you_mean
from core.runtime.figures import style
from core.runtime.files import read_text
from core.runtime.folder import say
from core.runtime.wording import number
from domains.compression.cli import pages
from domains.compression.metrics.bd_rate import FEWEST, bd_rate
from domains.compression.metrics.quality import decibels
from domains.compression.plots.curves import Curve, draw_curves

COLUMNS = ("codec", "quality", "picture", "bytes", "bpp", "psnr_db", "ms_ssim")
SPELLED = {
    "bpp": ("bpp",),
    "psnr_db": ("psnr_db", "psnr_rgb_db", "psnr_rgb", "psnr"),
    "picture": ("picture", "image"),
}


@dataclass(frozen=True, kw_only=True)
class Row:
    """A file that was measured, or the mean over some.

    Args:
        codec: Its name.
        quality: What it was asked for.
        picture: Its name; empty for a mean.
        bpp: Bits of the whole file per pixel.
        psnr_db: PSNR of 8-bit RGB.
        ms_ssim: None if not measured.
        bytes: Of the file; 0 if not known.
        published: Whether the numbers are another's.
    """

    codec: str
    quality: str
    picture: str
    bpp: float
    psnr_db: float
    ms_ssim: float | None = None
    bytes: int = 0
    published: bool = False


@dataclass(frozen=True)
class Compared:
    """Curves, and how much rate each saves over the anchor's.

    Args:
        curves: The first is drawn in front.
        anchor: The codec that the others are compared with.
        rates: By codec: percent of rate against the anchor, and the PSNR between which it is
            taken; a reason in place of the number where there is none.
        pictures: Of which the curves are means; 0 where the tables do not say.
    """

    curves: tuple[Curve, ...]
    anchor: str
    rates: Mapping[str, tuple[float, float, float] | str]
    pictures: int

    def as_json(self) -> dict[str, Any]:
        """All numbers."""
        return {
            "anchor": self.anchor,
            "pictures": self.pictures,
            "codecs": {curve.codec: self._numbers(curve) for curve in self.curves},
        }

    def _numbers(self, curve: Curve) -> dict[str, Any]:
        found = self.rates.get(curve.codec, "the anchor")
        points = {"bpp": curve.bpp, "psnr_db": curve.psnr_db, "published": curve.published}
        if isinstance(found, str):
            return points | {"bd_rate_percent": None, "reason": found}
        return points | {"bd_rate_percent": found[0], "overlap_db": found[1:]}


def read_rows(path: Path) -> list[Row]:
    """Read a table.

    Raises:
        UserError: If a column is missing, or a number is none.
    """
    text = read_text(path, "a table of rates and distortions")
    reader = csv.DictReader(io.StringIO(text))
    names = reader.fieldnames or []
    found = {key: next((each for each in SPELLED[key] if each in names), None) for key in SPELLED}
    for key in ("bpp", "psnr_db"):
        if found[key] is None:
            raise UserError(
                f"{path}: no column {key!r}{did_you_mean(key, names)}; columns are: "
                f"{', '.join(names[:12])}"
            )
    rows = [_row(path, reader.line_num, cells, found) for cells in reader]
    if not rows:
        raise UserError(f"{path}: no rows under its head; expected a row for each file measured")
    return rows


def _row(path: Path, line: int, cells: Mapping[str, Any], found: Mapping[str, str | None]) -> Row:
    def real(column: str) -> float:
        try:
            value = float(cells[column])
        except (TypeError, ValueError):
            value = math.nan
        if not math.isfinite(value):
            raise UserError(f"{path}:{line}: {column}: got {cells[column]!r}, expected a number")
        return value

    bpp, psnr_db = real(found["bpp"] or ""), real(found["psnr_db"] or "")
    if bpp <= 0:
        raise UserError(f"{path}:{line}: {found['bpp']}: got {bpp:g}, expected more than 0")
    return Row(
        codec=(cells.get("codec") or path.stem).strip(),
        quality=str(cells.get("quality") or ""),
        picture=str(cells.get(found["picture"] or "") or ""),
        bpp=bpp,
        psnr_db=psnr_db,
        ms_ssim=real("ms_ssim") if cells.get("ms_ssim") else None,
        bytes=int(real("bytes")) if cells.get("bytes") else 0,
        published=bool(cells.get("source") or cells.get("published")),
    )


def csv_text(rows: Iterable[Row]) -> str:
    """Return the table as `read_rows` reads it."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in rows:
        numbers = (f"{row.bpp:.6f}", f"{row.psnr_db:.4f}")
        similar = "" if row.ms_ssim is None else f"{row.ms_ssim:.6f}"
        writer.writerow([row.codec, row.quality, row.picture, row.bytes, *numbers, similar])
    return buffer.getvalue()


def curves_of(rows: Sequence[Row]) -> tuple[list[Curve], int]:
    """Return a curve for each codec in order of appearance: means over the pictures all have.

    A quality that some of these pictures lack is left out. Codecs whose table holds means already
    are taken as they are.

    Returns:
        The curves, and of how many pictures they are means.

    Raises:
        UserError: If the codecs have no picture in common.
    """
    codecs = dict.fromkeys(row.codec for row in rows)
    seen = [{row.picture for row in rows if row.codec == codec} - {""} for codec in codecs]
    shared = set.intersection(*each) if (each := [names for names in seen if names]) else set()
    if any(seen) and not shared:
        raise UserError(
            f"no picture that all of {', '.join(codecs)} have; give tables of the same pictures"
        )
    return [_curve(codec, rows, shared) for codec in codecs], len(shared)


def _curve(codec: str, rows: Sequence[Row], shared: set[str]) -> Curve:
    own = [row for row in rows if row.codec == codec]
    if any(row.picture for row in own):
        points = [_mean(group) for group in _whole(own, shared)]
    else:
        points = own
    points = sorted(points, key=lambda row: row.bpp)
    known = all(row.ms_ssim is not None for row in points)
    return Curve(
        codec=codec,
        bpp=tuple(row.bpp for row in points),
        psnr_db=tuple(row.psnr_db for row in points),
        ms_ssim_db=tuple(decibels(row.ms_ssim or 0) for row in points) if known else (),
        published=any(row.published for row in own),
    )


def _whole(rows: Sequence[Row], shared: set[str]) -> list[list[Row]]:
    """The rows of each quality that every shared picture has."""
    groups: dict[str, dict[str, Row]] = {}
    for row in rows:
        if row.picture in shared:
            groups.setdefault(row.quality, {})[row.picture] = row
    return [[*group.values()] for group in groups.values() if len(group) == len(shared)]


def _mean(rows: Sequence[Row]) -> Row:
    similar = [row.ms_ssim for row in rows if row.ms_ssim is not None]
    return Row(
        codec=rows[0].codec,
        quality=rows[0].quality,
        picture="",
        bpp=fmean(row.bpp for row in rows),
        psnr_db=fmean(row.psnr_db for row in rows),
        ms_ssim=fmean(similar) if len(similar) == len(rows) else None,
    )


def compare(paths: Sequence[Path], anchor: str) -> Compared:
    """Read tables and compare their codecs with the anchor.

    A codec of one name and different numbers in several tables gets their names beside its own.

    Raises:
        UserError: If a table cannot be read, or none has the anchor.
    """
    found = [(path.stem, read_rows(path)) for path in paths]
    several = _ambiguous([rows for _, rows in found])
    return compared(
        [
            replace(row, codec=f"{row.codec} {stem}") if row.codec in several else row
            for stem, rows in found
            for row in rows
        ],
        anchor,
    )


def _ambiguous(each: Sequence[Sequence[Row]]) -> set[str]:
    """Names under which tables hold different numbers."""
    first: dict[tuple[str, ...], Row] = {}
    found = set()
    for rows in each:
        keyed = {
            (row.codec, row.quality or f"row {place}", row.picture): row
            for place, row in enumerate(rows)
        }
        found |= {key[0] for key, row in keyed.items() if first.setdefault(key, row) != row}
    return found


def compared(rows: Sequence[Row], anchor: str) -> Compared:
    """Compare the codecs of some rows with the anchor; it may be the start of a codec's name.

    Raises:
        UserError: If there is no such codec.
    """
    curves, pictures = curves_of(rows)
    codecs = [curve.codec for curve in curves]
    chosen = [codec for codec in codecs if codec == anchor] or [
        codec for codec in codecs if codec.startswith(anchor)
    ]
    if len(chosen) != 1:
        what = "no codec" if not chosen else f"{len(chosen)} codecs begin with"
        raise UserError(
            f"--anchor: {what} {anchor!r}{did_you_mean(anchor, codecs)}; there are: "
            f"{', '.join(codecs)}"
        )
    reference = curves[codecs.index(chosen[0])]
    rates = {
        curve.codec: _difference(reference, curve) for curve in curves if curve is not reference
    }
    return Compared(tuple(curves), chosen[0], rates, pictures)


def _difference(anchor: Curve, other: Curve) -> tuple[float, float, float] | str:
    """Percent of rate against the anchor and the PSNR between which it is taken, or why not."""
    found = bd_rate(anchor.bpp, anchor.psnr_db, other.bpp, other.psnr_db)
    if found is not None:
        return found.percent, found.low_db, found.high_db
    low = max(min(anchor.psnr_db), min(other.psnr_db))
    high = min(max(anchor.psnr_db), max(other.psnr_db))
    if low > high:
        return "no PSNR that both reach"
    return f"fewer than {FEWEST} points of each from {low:.1f} to {high:.1f} dB, which both reach"


HEAD = ("codec", "files", "bpp", "PSNR, dB", "rate against {anchor}", "from, dB", "to, dB")


def table(found: Compared) -> tuple[list[str], list[list[str]]]:
    """Return head and rows of what was compared."""
    head = [column.format(anchor=found.anchor) for column in HEAD]
    return head, [_line(found, curve) for curve in found.curves]


def _line(found: Compared, curve: Curve) -> list[str]:
    rate = found.rates.get(curve.codec)
    if rate is None:
        saved = ["0 %", "", ""]
    elif isinstance(rate, str):
        saved = [f"n/a ({rate})", "", ""]
    else:
        sign = "+" if rate[0] > 0 else ""
        saved = [f"{sign}{number(rate[0], 1)} %", f"{rate[1]:.2f}", f"{rate[2]:.2f}"]
    name = f"{curve.codec} (published)" if curve.published else curve.codec
    bpp = f"{curve.bpp[0]:.3f} to {curve.bpp[-1]:.3f}"
    return [name, str(len(curve.bpp)), bpp, f"{curve.psnr_db[0]:.2f} to {curve.psnr_db[-1]:.2f}",
            *saved]  # fmt: skip


def text(found: Compared) -> str:
    """The table in plain text, and below it what it is a mean of."""
    head, rows = table(found)
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in (head, *rows)
    ]
    return "\n".join([*lines, "", caption(found)])


def caption(found: Compared) -> str:
    """What the numbers are."""
    over = f"Means over {found.pictures} pictures. " if found.pictures else ""
    if found.pictures == 1:
        over = "One picture. "
    return (
        f"{over}Bits per pixel are of whole files, PSNR is of 8-bit RGB. The Bjøntegaard rate "
        f"difference to {found.anchor} is taken over the PSNR that both reach; below 0 is less "
        "rate at equal PSNR."
    )


def write(path: Path, found: Compared) -> None:
    """Draw the curves into a file of its own, in a page with the table under them."""
    with style():
        plot = draw_curves(found.curves, caption(found))
    head, rows = table(found)
    pages.write(path, "Rate and distortion", plot, head, rows)
    say(f"wrote {path}")
