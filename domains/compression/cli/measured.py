"""A model and other codecs on a folder of somebody's pictures, written to real files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.runtime.folder import say, write_atomic
from core.runtime.progress import Progress
from domains.compression import data
from domains.compression.cli import tables
from domains.compression.cli.opened import open_model
from domains.compression.cli.tables import Compared, Row
from domains.compression.config import Baseline
from domains.compression.metrics import rd
from domains.compression.metrics.curves import Point


@dataclass(frozen=True)
class Measured:
    """What was found.

    Args:
        model: Identity of the model.
        points: One for each file written.
        compared: The codecs' curves over the pictures.
    """

    model: str
    points: tuple[Point, ...]
    compared: Compared

    def as_json(self) -> dict[str, Any]:
        """All numbers."""
        return {"model": self.model, "files": len(self.points), **self.compared.as_json()}


def measure(
    folder: Path,
    model: str | None,
    runs: Path,
    baselines: Sequence[Baseline],
    qualities: Sequence[int],
    effort: int,
) -> Measured:
    """Write every picture of a folder by each codec, and read it again.

    Args:
        folder: Of pictures.
        model: What ``--model`` names.
        runs: Folder of all runs.
        baselines: The other codecs; the first is the anchor.
        qualities: Of the model.
        effort: Of its encoder.

    Raises:
        UserError: If there is no picture, one cannot be read, or a codec's library is missing.
    """
    paths = data.pictures_below(folder)
    frozen = open_model(model, runs)
    points: list[Point] = []
    with Progress("pictures", len(paths)) as progress:
        for path in paths:
            named = (path.relative_to(folder).as_posix(), data.read_picture(path))
            points += rd.measure(frozen, [named], qualities, baselines, effort)
            progress.done += 1
            progress.show(progress.done, {})
    anchor = baselines[0] if baselines else points[0].codec
    compared = tables.compared([row_of(point) for point in points], anchor)
    return Measured(frozen.identity.hex(), tuple(points), compared)


def row_of(point: Point) -> Row:
    """A point as a row of a table."""
    return Row(
        codec=point.codec,
        quality=f"{point.quality:g}",
        picture=point.picture,
        bpp=point.bpp,
        psnr_db=point.psnr_db,
        ms_ssim=point.ms_ssim,
        bytes=point.bytes,
    )


def write(path: Path, found: Measured) -> None:
    """Write the plot or page, and beside it the table of all files."""
    beside = path.with_suffix(".csv")
    write_atomic(beside, tables.csv_text(row_of(point) for point in found.points))
    say(f"wrote {beside}")
    if path != beside:
        tables.write(path, found.compared)


def text(found: Measured) -> str:
    """The table in words."""
    return tables.text(found.compared)
