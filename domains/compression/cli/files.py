"""Compressed files as a person names them: read whole, every fault said with the file's name."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from core.runtime.errors import UserError
from domains.compression.model.container import read_header
from domains.compression.model.errors import CorruptBitstream, ModelMismatch, TooLarge
from domains.compression.model.rates import FINE


def read_file(path: Path) -> bytes:
    """Return the bytes of a compressed file.

    Raises:
        UserError: If there is none, or it cannot be read.
    """
    if path.is_dir():
        raise UserError(f"{path}: a folder; expected a .lwc file")
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error


@contextmanager
def named(path: Path) -> Iterator[None]:
    """Say the name of the file before what is wrong with it.

    Raises:
        UserError: Whatever was wrong, in one line.
    """
    try:
        yield
    except (CorruptBitstream, ModelMismatch, TooLarge) as error:
        raise UserError(f"{path}: {error}") from error


def facts_of(content: bytes) -> dict[str, Any]:
    """Return what a compressed file's header says, as JSON.

    Raises:
        CorruptBitstream: If it is no such file, or its header is damaged.
    """
    header = read_header(content)
    rows, columns = header.grid
    return {
        "width": header.width,
        "height": header.height,
        "bytes": len(content),
        "bpp": 8 * len(content) / (header.width * header.height),
        "rate_index": header.rate,
        "quality": header.rate / FINE,
        "model": header.model.hex(),
        "grey": header.grey,
        "tiles": [rows, columns],
        "tile_side": header.tile,
    }
