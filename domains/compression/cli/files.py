"""Compressed files as a person names them: read whole, every fault said with the file's name."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from core.runtime.errors import UserError
from domains.compression.model.errors import CorruptBitstream, ModelMismatch, TooLarge


def read_file(path: Path) -> bytes:
    """Return the bytes of a compressed file.

    Raises:
        UserError: If there is none, or it cannot be read.
    """
    if path.is_dir():
        raise UserError(f"{path}: a folder; expected a .lwc file")
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file; expected a .lwc file") from error
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
