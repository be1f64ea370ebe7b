"""Whole files or none: written beside their place, then moved there."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from core.runtime.errors import RunFailed, UserError
from core.runtime.folder import refuse_existing


@contextlib.contextmanager
def whole(paths: Sequence[Path], force: bool) -> Iterator[list[Path]]:
    """Yield places to write files at, which are moved to ``paths`` when all are written.

    Args:
        paths: Where they belong, all in one folder.
        force: Whether files that are there are replaced.

    Raises:
        UserError: If one is there already, or is a folder.
        RunFailed: If the disk is full or not writable.
    """
    for path in paths:
        if path.is_dir():
            raise UserError(f"{path}: a folder; give the name of a file")
        refuse_existing(path, force)
    home = paths[0].parent
    with _temporary(home, paths[0].name) as folder:
        places = [folder / path.name for path in paths]
        try:
            yield places
            for place, path in zip(places, paths, strict=True):
                _flush(place)
                os.replace(place, path)
        except OSError as error:
            raise RunFailed(f"{paths[0]}: cannot write: {_reason(error)}") from error


@contextlib.contextmanager
def whole_folder(path: Path, endings: Sequence[str], force: bool) -> Iterator[Path]:
    """Yield a folder to write in, which becomes ``path`` when all is written.

    Args:
        path: Where it belongs.
        endings: Of the files that may be there; a folder with others is never replaced.
        force: Whether a folder with such files is replaced.

    Raises:
        UserError: If something else is there.
        RunFailed: If the disk is full or not writable.
    """
    _check_folder(path, endings, force)
    with _temporary(path.parent, path.name) as folder:
        made = folder / "new"
        try:
            made.mkdir()
            yield made
            for file in made.rglob("*"):
                _flush(file)
            _swap(made, path, folder / "old")
        except OSError as error:
            raise RunFailed(f"{path}: cannot write: {_reason(error)}") from error


def _swap(made: Path, path: Path, old: Path) -> None:
    if path.exists():
        os.replace(path, old)
    try:
        os.replace(made, path)
    except OSError:
        if old.exists():
            os.replace(old, path)
        raise


def _check_folder(path: Path, endings: Sequence[str], force: bool) -> None:
    if not path.exists():
        return
    if not path.is_dir():
        raise UserError(f"{path}: a file; expected the name of a folder")
    files = [one for one in path.rglob("*") if not one.is_dir()]
    if not files:
        return
    refuse_existing(path, force)
    strange = [one for one in files if one.suffix.lower() not in endings]
    if strange:
        raise UserError(
            f"{path}: holds {strange[0].relative_to(path)}, which is no file of such a series; "
            "nothing was replaced; give another --out"
        )


@contextlib.contextmanager
def _temporary(home: Path, name: str) -> Iterator[Path]:
    try:
        home.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(dir=home, prefix=f".{name}."))
    except OSError as error:
        raise RunFailed(f"{home / name}: cannot write: {_reason(error)}") from error
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _flush(path: Path) -> None:
    if path.is_dir():
        return
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _reason(error: OSError) -> str:
    return error.strerror or str(error).splitlines()[0]
