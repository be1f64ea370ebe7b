"""Opening what a person names: every way in which that fails is one line that says what to do."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

from core.runtime.errors import UserError


def existing(path: Path, setting: str) -> Path:
    """The path, if there is a file.

    Raises:
        UserError: If there is none.
    """
    if path.is_dir():
        raise UserError(f"{path}: a folder; {setting} must name a file")
    if not path.is_file():
        raise UserError(f"{path}: no such file; check {setting}")
    return path


def read_bytes(path: Path) -> bytes:
    """The bytes of a file, unpacked if its name ends in .gz.

    Raises:
        UserError: If it is unreadable, damaged or empty.
    """
    try:
        data = path.read_bytes()
        data = gzip.decompress(data) if path.suffix == ".gz" else data
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise UserError(f"{path}: damaged gzip file ({error}); make or copy it again") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    if not data.strip():
        raise UserError(f"{path}: empty; expected a graph")
    return data


def read_text(path: Path) -> str:
    """The text of a UTF-8 file.

    Raises:
        UserError: If it is unreadable, empty, binary or in another encoding.
    """
    data = read_bytes(path)
    if b"\0" in data:
        raise UserError(f"{path}: a binary file (or UTF-16); expected UTF-8 text")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UserError(
            f"{path}:{line}: byte 0x{data[error.start]:02x} is not UTF-8; save the file as UTF-8"
        ) from error
