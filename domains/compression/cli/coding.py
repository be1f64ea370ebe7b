"""Pictures to compressed files and back, with what a person is told of each."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from core.runtime.errors import UserError
from core.runtime.folder import say, write_atomic
from core.runtime.wording import number
from domains.compression import data
from domains.compression.cli.files import named, read_file
from domains.compression.cli.opened import open_model
from domains.compression.data.pictures import WRITTEN
from domains.compression.model import codec


def encode(
    picture: Path,
    out: Path,
    request: Mapping[str, Any],
    model: str | None,
    runs: Path,
    max_pixels: int | None,
) -> dict[str, Any]:
    """Compress a picture to a file.

    Args:
        picture: The file of the picture.
        out: The file to write.
        request: What is asked of it, as `codec.Request` takes it.
        model: What ``--model`` names.
        runs: Folder of all runs.
        max_pixels: Of pictures that are read.

    Returns:
        What the file is, as JSON.

    Raises:
        UserError: If the picture, the model or what is asked cannot be had.
    """
    _refuse_same(picture, out)
    read = data.read_picture(picture, max_pixels or data.MAX_PIXELS)
    frozen = open_model(model, runs)
    for note in read.notes:
        say(f"{picture}: {note}")
    with named(picture):
        encoded = codec.encode(frozen, read, codec.Request(**request))
    write_atomic(out, encoded.data)
    say(f"wrote {out}")
    return {
        "out": str(out),
        **codec.info(encoded.data, frozen),
        "bits": dict(encoded.bits),
        "trials": encoded.trials,
        "reached": encoded.reached,
    }


def encoded_text(found: Mapping[str, Any]) -> str:
    """What was written, in a line."""
    return (
        f"{found['width']} x {found['height']}: {number(found['bytes'])} bytes, "
        f"{found['bpp']:.3f} bits per pixel, at quality {found['quality']:g}"
        + (f", after {found['trials']} trials" if found["trials"] > 1 else "")
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
        facts = codec.info(content)
        frozen = open_model(model, runs)
        picture = codec.decode(frozen, content, level, tile, max_pixels or data.MAX_PIXELS)
    data.write_picture(out, picture, force)
    say(f"wrote {out}")
    shown = {"level": level or len(frozen.levels), "levels": len(frozen.levels), "tile": tile}
    size = {"width": picture.width, "height": picture.height, "bytes": len(content)}
    return {"out": str(out), "model": facts["model"], "quality": facts["quality"], **size, **shown}


def decoded_text(found: Mapping[str, Any]) -> str:
    """What was written, in a line."""
    part = (
        ""
        if found["level"] == found["levels"]
        else (f", from {found['level']} of {found['levels']} levels")
    )
    return f"{found['width']} x {found['height']}{part}"


def verify(file: Path, model: str | None, runs: Path, max_pixels: int | None) -> dict[str, Any]:
    """Decode the latents of a file and compare their check.

    Args:
        file: The compressed file.
        model: What ``--model`` names.
        runs: Folder of all runs.
        max_pixels: Of pictures that are decoded.

    Returns:
        What the file is, as JSON.

    Raises:
        UserError: If it is damaged, or of another model.
    """
    content = read_file(file)
    with named(file):
        facts = codec.info(content)
        codec.verify(open_model(model, runs), content, max_pixels or data.MAX_PIXELS)
    return {"file": str(file), "whole": True, **facts}


def _refuse_same(given: Path, out: Path) -> None:
    if given.resolve() == out.resolve():
        raise UserError(f"{out}: is the file that is read; name another to write")
