"""Opening what a person names: every way in which that fails is one line that says what to do."""

from __future__ import annotations

from pathlib import Path

from core.runtime import files
from core.runtime.errors import UserError

EXPECTED = "rows of a series"
TEXT = (".csv", ".tsv", ".txt", ".ts")
PARQUET = (".parquet", ".pq")
NETCDF = (".nc", ".nc4", ".cdf", ".netcdf", ".h5")
SUFFIXES = (*TEXT, *PARQUET, ".npz", *NETCDF)


def existing(path: Path) -> Path:
    """Return the path, if there is a file.

    Raises:
        UserError: If there is none.
    """
    if path.is_dir():
        raise UserError(f"{path}: a folder; expected a file of series; name one of its files")
    if not path.is_file():
        near = sorted(p.name for p in path.parent.glob("*") if p.stem == path.stem)
        hint = f"; there is {near[0]}" if near else ""
        raise UserError(f"{path}: no such file{hint}; check its name")
    return path


def suffix_of(path: Path) -> str:
    """Return what a file is by its name, in lower case and without ``.gz``.

    Example:
        >>> suffix_of(Path("a/energy.CSV.gz"))
        '.csv'
    """
    unpacked = path.with_suffix("") if path.suffix.lower() == ".gz" else path
    return unpacked.suffix.lower()


def place(path: Path, line: int | None) -> str:
    """Return where a row of a file is, as a message begins.

    Example:
        >>> place(Path("a.csv"), 3), place(Path("a.parquet"), 3), place(Path("a.npz"), None)
        ('a.csv:3', 'a.parquet, row 3', 'a.npz')
    """
    if line is None:
        return f"{path}"
    return f"{path}:{line}" if suffix_of(path) in TEXT else f"{path}, row {line}"


def read_bytes(path: Path) -> bytes:
    """Return the bytes of a file of series, unpacked if its name ends in .gz.

    Raises:
        UserError: If it is missing, unreadable, damaged or empty.
    """
    return files.read_bytes(existing(path), EXPECTED)


def read_text(path: Path) -> str:
    """Return the text of a UTF-8 file of series.

    Raises:
        UserError: If it is missing, unreadable, empty, binary or in another encoding.
    """
    return files.read_text(existing(path), EXPECTED)
