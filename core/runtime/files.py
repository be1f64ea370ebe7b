"""Reading what a person names: every way in which that fails is one line that says what to do."""

from __future__ import annotations

import gzip
import hashlib
import json
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path

from core.runtime.errors import UserError


def read_bytes(path: Path, expected: str) -> bytes:
    """Return the bytes of a file, unpacked if its name ends in .gz.

    Args:
        path: The file.
        expected: What it should hold, for the message about an empty one.

    Raises:
        UserError: If it is unreadable, damaged or empty.
    """
    try:
        data = path.read_bytes()
        data = gzip.decompress(data) if path.suffix.lower() == ".gz" else data
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise UserError(f"{path}: damaged gzip file ({error}); make or copy it again") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    if not data.strip():
        raise UserError(f"{path}: empty; expected {expected}")
    return data


def read_text(path: Path, expected: str) -> str:
    """Return the text of a UTF-8 file, whose arguments are those of `read_bytes`.

    Raises:
        UserError: If it is unreadable, empty, binary or in another encoding.
    """
    data = read_bytes(path, expected)
    if b"\0" in data:
        raise UserError(f"{path}: a binary file (or UTF-16); expected UTF-8 text")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UserError(
            f"{path}:{line}: byte 0x{data[error.start]:02x} is not UTF-8; save the file as UTF-8"
        ) from error


def json_bytes(value: object) -> bytes:
    """Return JSON that is the same bytes for equal values.

    Example:
        >>> json_bytes({"b": 1, "a": "é"}) == json_bytes({"a": "é", "b": 1})
        True
    """
    return (json.dumps(value, ensure_ascii=False, sort_keys=True, indent=1) + "\n").encode()


def file_hash(path: Path) -> str:
    """Return the SHA-256 of a file's bytes.

    Raises:
        UserError: If it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error


def key_of(facts: Mapping[str, object], paths: Iterable[Path]) -> str:
    """Return a SHA-256 of what prepared data are a function of: facts, and the bytes of files.

    Folders do not count, names and contents do.
    """
    digest = hashlib.sha256(json_bytes(facts))
    for path in paths:
        digest.update(f"{path.name}\n".encode())
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()
