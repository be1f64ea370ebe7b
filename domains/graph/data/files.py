"""Opening what a person names: every way in which that fails is one line that says what to do."""

from __future__ import annotations

from pathlib import Path

from core.runtime import files
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


def read_text(path: Path) -> str:
    """The text of a UTF-8 file of a graph.

    Raises:
        UserError: If it is unreadable, empty, binary or in another encoding.
    """
    return files.read_text(path, "a graph")
