"""Where photographs come from: installed packages, or a folder with a list of licences."""

from __future__ import annotations

import csv
import importlib.util
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from core.runtime.errors import UserError
from core.runtime.files import file_hash, read_text
from domains.compression.config import Data
from domains.compression.data.pictures import READ

LICENCES = "LICENSES.csv"
UNKNOWN = "unknown"
PACKAGED = (
    ("sklearn", "datasets/images/china.jpg", "CC-BY-2.0"),
    ("sklearn", "datasets/images/flower.jpg", "CC-BY-2.0"),
    ("matplotlib", "mpl-data/sample_data/grace_hopper.jpg", "public domain"),
    ("skimage", "data/astronaut.png", "public domain"),
    ("skimage", "data/chelsea.png", "CC0-1.0"),
    ("skimage", "data/coffee.png", "CC0-1.0"),
    ("skimage", "data/rocket.jpg", "public domain"),
)


@dataclass(frozen=True)
class Photograph:
    """A file that holds a photograph.

    Args:
        name: Its path below the folder that it is from, or package and file.
        path: Where it is.
        licence: Its licence, ``unknown`` if it could not be found out.
        sha256: Of its bytes.
    """

    name: str
    path: Path
    licence: str
    sha256: str


@dataclass(frozen=True)
class Source:
    """Photographs that have been found and not yet read.

    Args:
        title: What a report calls them, without absolute paths.
        place: What an error message calls them.
        photographs: Each file once, by name.
        notes: A line for what was found to be the same file.
    """

    title: str
    place: str
    photographs: tuple[Photograph, ...]
    notes: tuple[str, ...] = ()


def find(data: Data) -> Source:
    """Find the photographs that the settings name.

    Raises:
        UserError: If there are none.
    """
    if data.source == "packaged":
        return packaged()
    return folder(Path(data.path or ""), "data.path")


def packaged() -> Source:
    """Find the photographs that come with installed packages; none of those is imported.

    * scikit-learn: ``china.jpg`` and ``flower.jpg``, CC-BY-2.0
    * matplotlib: a portrait of Grace Hopper by the US Navy, public domain
    * scikit-image, if it is installed: ``astronaut.png`` and ``rocket.jpg``, public domain,
      ``chelsea.png`` and ``coffee.png``, CC0-1.0

    Raises:
        UserError: If scikit-learn is not installed.
    """
    found: list[Photograph] = []
    for package, inside, licence in PACKAGED:
        path = _of_package(package, inside)
        if path is not None and path.is_file():
            found.append(Photograph(f"{package}/{path.name}", path, licence, file_hash(path)))
    if not any(one.name.startswith("sklearn/") for one in found):
        raise UserError(
            "data.source 'packaged' needs the photographs of the package 'scikit-learn'; install "
            "it: pip install 'latentworks[compression]', or set data.source folder and data.path"
        )
    packages = sorted({one.name.split("/")[0] for one in found})
    title = f"photographs of the installed packages {', '.join(packages)}"
    return Source(title, "data.source 'packaged'", tuple(found))


def folder(path: Path, setting: str) -> Source:
    """Find every picture below a folder, in the order of their names; each file counts once.

    Of files that are the same one whose licence is known is taken, else the first.

    ``LICENSES.csv`` in the folder says licences: a column ``name`` and a column ``licence``. A row
    is about all files whose name starts with its name; of several the longest counts.

    Raises:
        UserError: If there is no picture, or the list of licences has other columns.
    """
    files = pictures_below(path, setting)
    licences = _licences(path)
    found = []
    for file in files:
        name = file.relative_to(path).as_posix()
        found.append(Photograph(name, file, licence_of(file.stem, licences), file_hash(file)))
    first: dict[str, Photograph] = {}
    same: list[str] = []
    for one in sorted(found, key=lambda one: one.licence == UNKNOWN):
        if first.setdefault(one.sha256, one) is not one:
            same.append(
                f"{one.name} is the same file as {first[one.sha256].name}; it is used once"
            )
    photographs = tuple(one for one in found if first[one.sha256] is one)
    return Source(path.resolve().name, str(path), photographs, few(same))


def pictures_below(path: Path, setting: str = "") -> list[Path]:
    """Return every picture below a folder, by the endings of their names, sorted.

    Files and folders whose names begin with a dot are left out.

    Args:
        path: The folder.
        setting: The setting that names it, for messages.

    Raises:
        UserError: If it is no folder or there is no picture.
    """
    where = f"{setting}: {path}" if setting else str(path)
    if not path.is_dir():
        what = "a file" if path.exists() else "no such folder"
        raise UserError(f"{where}: {what}; expected a folder of pictures ({', '.join(READ)})")
    found = [
        file
        for file in path.rglob("*")
        if file.suffix.lower() in READ
        and not any(part.startswith(".") for part in file.relative_to(path).parts)
        and file.is_file()
    ]
    if not found:
        raise UserError(f"{where}: no picture in this folder; expected {', '.join(READ)}")
    return sorted(found, key=lambda file: file.relative_to(path).as_posix())


def licence_of(stem: str, licences: Mapping[str, str]) -> str:
    """Return the licence of a file.

    Example:
        >>> licence_of("Dune_03", {"Dune": "CC0-1.0", "D": "unfree"})
        'CC0-1.0'
    """
    names = [name for name in licences if stem.startswith(name)]
    return licences[max(names, key=len)] if names else UNKNOWN


def _licences(path: Path) -> dict[str, str]:
    file = path / LICENCES
    if not file.is_file():
        return {}
    text = read_text(file, "columns name and licence")
    rows = csv.DictReader(io.StringIO(text))
    columns = rows.fieldnames or []
    said = next((name for name in ("licence", "license") if name in columns), None)
    if said is None or "name" not in columns:
        raise UserError(
            f"{file}: columns {', '.join(columns)}; expected 'name' and 'licence' among them"
        )
    return {row["name"]: row[said] or UNKNOWN for row in rows if row["name"]}


def _of_package(package: str, inside: str) -> Path | None:
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(spec.submodule_search_locations[0]) / inside


def few(lines: list[str], most: int = 5) -> tuple[str, ...]:
    """Return the first lines and how many more there are."""
    more = len(lines) - most
    return (*lines[:most], f"and {more} more like that") if more > 0 else tuple(lines)
