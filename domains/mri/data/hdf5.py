"""HDF5 files: opened or refused in one line, their contents listed."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from core.runtime.errors import UserError
from domains.mri.data.checks import as_numbers

if TYPE_CHECKING:
    import h5py

SIGNATURE = b"\x89HDF\r\n\x1a\n"
MOST_LISTED = 12


@contextlib.contextmanager
def opened(path: Path) -> Iterator[h5py.File]:
    """Open a file for reading.

    Raises:
        UserError: If it is damaged.
    """
    import h5py

    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise UserError(
            f"{path}: damaged HDF5 file ({_reason(error)}); expected a readable one; copy it again"
        ) from error
    with file:
        yield file


def datasets(file: h5py.File) -> dict[str, h5py.Dataset]:
    """Return all datasets of a file by their names, also those in groups."""
    import h5py

    found = {}

    def see(name: str, node: Any) -> None:
        if isinstance(node, h5py.Dataset):
            found[name] = node

    with damage(Path(file.filename)):
        file.visititems(see)
    return found


def require(path: Path, file: h5py.File, names: Iterable[str]) -> h5py.Dataset:
    """Return the first of some datasets that is in a file.

    Raises:
        UserError: If none is; says what is there.
    """
    there = datasets(file)
    names = tuple(names)
    for name in names:
        if name in there:
            return there[name]
    raise UserError(
        f"{path}: no dataset {' or '.join(map(repr, names))}; found {listed(there)}; name the one "
        f"that holds it: {path}/NAME"
    )


def listed(found: dict[str, h5py.Dataset]) -> str:
    """Return names, shapes and kinds of numbers in a few words."""
    words = [f"{name!r} {node.shape} {_kind(node)}" for name, node in found.items()]
    more = len(words) - MOST_LISTED
    return ", ".join(words[:MOST_LISTED] + ([f"and {more} more"] if more > 0 else [])) or "nothing"


def _kind(node: h5py.Dataset) -> str:
    names = node.dtype.names
    return f"({', '.join(names)})" if names else str(node.dtype)


def values(path: Path, node: h5py.Dataset) -> NDArray[Any]:
    """Return the numbers of a dataset.

    Raises:
        UserError: If they cannot be read or are none.
    """
    name = str(node.name).lstrip("/")
    with damage(path, name):
        array = np.asarray(node[()])
    return as_numbers(path, name, array)


@contextlib.contextmanager
def damage(path: Path, field: str = "") -> Iterator[None]:
    """Say of any failure to read that the file is damaged."""
    try:
        yield
    except (OSError, RuntimeError, ValueError, KeyError) as error:
        where = f"{path}: {field}" if field else f"{path}"
        raise UserError(f"{where}: damaged HDF5 file ({_reason(error)}); copy it again") from error


def text(value: object) -> str:
    """Return what an attribute or a dataset of text says."""
    array = np.asarray(value)
    one = array.reshape(-1)[0] if array.size else ""
    return one.decode("utf-8", "replace") if isinstance(one, bytes) else str(one)


def _reason(error: Exception) -> str:
    words = " ".join(str(error).split()) or type(error).__name__
    return words[:160]
