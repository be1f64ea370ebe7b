"""Pictures to compressed files and back, with what a person is told of each."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from core.runtime.folder import say, write_atomic
from domains.compression import data
from domains.compression.cli.files import named
from domains.compression.cli.opened import open_model
from domains.compression.data.pictures import MAX_PIXELS
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
    """
    read = data.read_picture(picture, max_pixels or MAX_PIXELS)
    frozen = open_model(model, runs)
    for note in read.notes:
        say(f"{picture}: {note}")
    with named(picture):
        encoded = codec.encode(frozen, read, codec.Request(**options))
    write_atomic(out, encoded.data)
    say(f"wrote {out}")
    return {}
