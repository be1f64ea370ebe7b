"""Compressed files as a person names them: read whole, every fault said with the file's name."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from core.runtime.errors import UserError
from core.runtime.files import read_bytes
from domains.compression.model.errors import CorruptBitstream, ModelMismatch, TooLarge

EXPECTED = "a .lwc file"


def read_file(path: Path) -> bytes:
    """Return the bytes of a compressed file.

    Raises:
        UserError: If there is none, it cannot be read, or is empty.
    """
    return read_bytes(path, EXPECTED)


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
