"""Pictures to compressed files and back, with what a person is told of each."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from core.runtime.errors import UserError
from core.runtime.folder import say, write_atomic
from core.runtime.wording import number
from domains.compression import data
from domains.compression.cli.files import facts_of, named, read_file
from domains.compression.cli.opened import open_model
from domains.compression.data.pictures import MAX_PIXELS, WRITTEN
from domains.compression.model import codec


def encode(
    picture: Path,
    out: Path,
    options: Mapping[str, Any],
    model: str | None,
    runs: Path,
    max_pixels: int | None,
) -> dict[str, Any]:
    """Compress a picture to a file.

    Args:
        picture: The file of the picture.
        out: The file to write.
        options: What is asked of it, as `codec.Request` takes it.
        model: What ``--model`` names.
        runs: Folder of all runs.
        max_pixels: Of pictures that are read.

    Returns:
        What the file is, as JSON.

    Raises:
        UserError: If the picture, the model or what is asked cannot be had.
    """
    _refuse_same(picture, out)
    read = data.read_picture(picture, max_pixels or MAX_PIXELS)
    frozen = open_model(model, runs)
    for note in read.notes:
        say(f"{picture}: {note}")
    with named(picture):
        encoded = codec.encode(frozen, read, codec.Request(**options))
    write_atomic(out, encoded.data)
    say(f"wrote {out}")
    return {"out": str(out), **facts_of(encoded.data)}


def encoded_text(found: Mapping[str, Any]) -> str:
    """What was written, in a line."""
    return (
        f"{found['width']} x {found['height']}: {number(found['bytes'])} bytes, "
        f"{found['bpp']:.3f} bits per pixel, at quality {found['quality']:g}"
    )


def decode(
    file: Path,
    out: Path,
    model: str | None,
    runs: Path,
    level: int | None,
    tile: tuple[int, int] | None,
    max_pixels: int | None,
    force: bool,
) -> dict[str, Any]:
    """Write the picture that a file holds.

    Args:
        file: The compressed file.
        out: The picture to write.
        model: What ``--model`` names.
        runs: Folder of all runs.
        level: How many levels to read; None for all.
        tile: Row and column of the one tile to decode; None for all.
        max_pixels: Of pictures that are decoded.
        force: Whether a file that is there may be replaced.

    Returns:
        What was written, as JSON.

    Raises:
        UserError: If the file is damaged, of another model, or asks for too much.
    """
    _refuse_same(file, out)
    if out.suffix.lower() not in WRITTEN:
        endings = ", ".join(ending for ending in WRITTEN if ending)
        raise UserError(f"{out}: ends in {out.suffix!r}; expected one of {endings}")
    content = read_file(file)
    with named(file):
        facts = facts_of(content)
        frozen = open_model(model, runs)
        _refuse_level(level, frozen.levels)
        picture = codec.decode(
            frozen, content, level=level, tile=tile, max_pixels=max_pixels or MAX_PIXELS
        )
    data.write_picture(out, picture, force)
    say(f"wrote {out}")
    shown = {"level": level or len(frozen.levels), "levels": len(frozen.levels), "tile": tile}
    return {"out": str(out), **facts, **shown, "width": picture.width, "height": picture.height}


def decoded_text(found: Mapping[str, Any]) -> str:
    """What was written, in a line."""
    part = (
        ""
        if found["level"] == found["levels"]
        else (f", from {found['level']} of {found['levels']} levels")
    )
    return f"{found['width']} x {found['height']}{part}"


def verify(file: Path, model: str | None, runs: Path) -> dict[str, Any]:
    """Decode the latents of a file and compare their check.

    Args:
        file: The compressed file.
        model: What ``--model`` names.
        runs: Folder of all runs.

    Returns:
        What the file is, as JSON.

    Raises:
        UserError: If it is damaged, or of another model.
    """
    content = read_file(file)
    with named(file):
        facts = facts_of(content)
        codec.verify(open_model(model, runs), content)
    return {"file": str(file), "whole": True, **facts}


def _refuse_same(given: Path, out: Path) -> None:
    if given.resolve() == out.resolve():
        raise UserError(f"{out}: is the file that is read; name another to write")


def _refuse_level(level: int | None, levels: tuple[str, ...]) -> None:
    if level is not None and level > len(levels):
        raise UserError(f"--level: got {level}, expected 1 to {len(levels)}: {', '.join(levels)}")
