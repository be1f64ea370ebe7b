"""Where heads come from: installed packages, a folder of volumes, or a folder of k-space."""

from __future__ import annotations

import csv
import importlib.util
import io
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from core.runtime.errors import UserError
from core.runtime.files import file_hash, read_text
from domains.mri.config import Data
from domains.mri.data.volumes import ENDINGS, name_of

SUBJECTS = "SUBJECTS.csv"
UNKNOWN = "unknown"
KSPACE = (".h5", ".hdf5", ".mrd", ".cfl", ".npy", ".npz", ".mat")
DEBIAN = Path("/usr/share/mricron/templates")
NILEARN = "datasets/data/mni_icbm152_{}_tal_nlin_sym_09a_converted.nii.gz"
MNI_LICENCE = "terms of the MNI (template), BSD-3-Clause (nilearn)"
MRICRON = ("ch2", "inia19-t1-brain")
# Files of these names are the same head, or averages of the same heads.
HEADS = {
    "ch2": "colin27",
    "colin": "colin27",
    "mni_icbm152": "mni152",
    "mni152": "mni152",
    "spm152": "mni152",
    "avg152": "mni152",
    "icbm152": "mni152",
    "inia19": "inia19",
}
TISSUES = ("gm", "wm")
ANATOMY = ("t1", "t1w", "t2", "t2w", "pd")


@dataclass(frozen=True, kw_only=True)
class Source:
    """A file with the head of one subject.

    Args:
        name: Of the file, without folders and endings.
        path: Where it is.
        subject: Whose head it is.
        licence: Its licence, ``unknown`` if it could not be found out.
        sha256: Of its bytes.
        tissues: Maps of grey and white matter of the same head, or nothing.
    """

    name: str
    path: Path
    subject: str
    licence: str
    sha256: str
    tissues: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Found:
    """Files that have been found and not yet read.

    Args:
        title: What a report calls them, without absolute paths.
        place: What an error message calls them.
        sources: Each file once, by name.
        notes: A line for anything a reader should know.
    """

    title: str
    place: str
    sources: tuple[Source, ...]
    notes: tuple[str, ...] = ()

    @property
    def subjects(self) -> tuple[str, ...]:
        """Whose heads there are, sorted."""
        return tuple(sorted({one.subject for one in self.sources}))


def find(data: Data) -> Found:
    """Find the files that the settings name.

    Raises:
        UserError: If there are none.
    """
    if data.source == "packaged":
        return packaged()
    return folder(Path(data.path or ""), ENDINGS if data.source == "volumes" else KSPACE)


def packaged(debian: Path = DEBIAN) -> Found:
    """Find the heads that come with installed packages; none of those is imported.

    * nilearn: the MNI152 template (an average of many heads without skulls) and its tissues
    * Debian's ``mricron-data``, if it is installed: Colin27 (one person) and INIA19 (macaques)

    Args:
        debian: Where mricron-data lies.

    Raises:
        UserError: If nilearn is not installed.
    """
    template, *tissues = (_of_nilearn(NILEARN.format(what)) for what in ("t1", *TISSUES))
    if template is None or None in tissues:
        raise UserError(
            "data.source 'packaged' needs the template of the package 'nilearn'; install it: "
            "pip install 'latentworks[mri]', or set data.source volumes and data.path"
        )
    maps = tuple(path for path in tissues if path is not None)
    found = [_source(template, "mni152", MNI_LICENCE, maps)]
    there = [debian / f"{name}.nii.gz" for name in MRICRON]
    for path in there:
        if path.is_file():
            found.append(_source(path, subject_of(name_of(path), {}), "BSD-3-Clause (MRIcron)"))
    title = "MNI152 template of the package nilearn"
    if len(found) > 1:
        title += f" and {', '.join(one.name for one in found[1:])} of Debian's mricron-data"
    return Found(title, "data.source 'packaged'", tuple(found))


def folder(path: Path, endings: Iterable[str]) -> Found:
    """Find every file below a folder, in the order of their names; each file counts once.

    ``SUBJECTS.csv`` in the folder says whose head is in a file: columns ``name`` and ``subject``,
    and ``licence`` if it is known. A row is about all files whose name starts with its name; of
    several the longest counts. Of other files `subject_of` guesses it.

    Maps of tissues (a part ``gm`` or ``wm`` in the name) belong to the volume of the same name
    with ``t1`` in its place.

    Raises:
        UserError: If there is no file, or the list of subjects has other columns.
    """
    files = _below(path, tuple(endings))
    rows = _listed(path)
    named = {file: name_of(file) for file in files}
    maps = {file for file in files if _tissue(named[file]) is not None}
    notes, first = [], {}
    for file in files:
        if file in maps:
            continue
        name = named[file]
        row = row_of(name, rows)
        subject = row["subject"] if row else subject_of(name, {})
        licence = (row or {}).get("licence") or UNKNOWN
        source = replace(_source(file, subject, licence, _maps_of(name, named, maps)), name=name)
        if source.sha256 in first:
            notes.append(
                f"{name} is the same file as {first[source.sha256].name}; it is used once"
            )
        else:
            first[source.sha256] = source
    if not first:
        raise UserError(f"{path}: only maps of tissues in this folder; expected a head as well")
    if not rows:
        notes.append(f"subjects guessed from the names of files; {SUBJECTS} would say them")
    return Found(path.resolve().name, str(path), tuple(first.values()), tuple(notes))


def subject_of(name: str, rows: Mapping[str, Mapping[str, str]]) -> str:
    """Guess whose head a file holds from its name, so that no head is ever taken for two.

    Names of known templates are told apart; ``sub-…`` is BIDS; of other names the part before the
    first ``_`` is the subject.

    Args:
        name: Of the file, without ending.
        rows: What a list of subjects says, by the beginning of names.

    Example:
        >>> [subject_of(name, {}) for name in ("ch2bet", "sub-07_T1w", "chris_t1", "chris_PD")]
        ['colin27', 'sub-07', 'chris', 'chris']
    """
    row = row_of(name, rows)
    if row:
        return row["subject"]
    for beginning, head in HEADS.items():
        if name.lower().startswith(beginning):
            return head
    bids = re.match(r"sub-[A-Za-z0-9]+", name)
    return bids[0] if bids else name.split("_")[0] or name


def row_of(name: str, rows: Mapping[str, Mapping[str, str]]) -> Mapping[str, str] | None:
    """Return the row about a file: that of the longest beginning of its name."""
    fitting = [beginning for beginning in rows if name.startswith(beginning)]
    return rows[max(fitting, key=len)] if fitting else None


def _source(path: Path, subject: str, licence: str, tissues: tuple[Path, ...] = ()) -> Source:
    return Source(
        name=name_of(path),
        path=path,
        subject=subject,
        licence=licence,
        sha256=file_hash(path),
        tissues=tissues,
    )


def _of_nilearn(inside: str) -> Path | None:
    spec = importlib.util.find_spec("nilearn")
    if spec is None or not spec.submodule_search_locations:
        return None
    path = Path(spec.submodule_search_locations[0]) / inside
    return path if path.is_file() else None


def _below(path: Path, endings: tuple[str, ...]) -> list[Path]:
    allowed = ", ".join(endings)
    if not path.is_dir():
        what = "a file" if path.exists() else "no such folder"
        raise UserError(f"data.path: {path}: {what}; expected a folder of files {allowed}")
    found = [
        file
        for file in path.rglob("*")
        if file.name.lower().endswith(endings)
        and not any(part.startswith(".") for part in file.relative_to(path).parts)
        and file.is_file()
    ]
    if not found:
        raise UserError(f"data.path: {path}: no file in this folder ends in {allowed}")
    return sorted(found, key=lambda file: file.relative_to(path).as_posix())


def _listed(path: Path) -> dict[str, dict[str, str]]:
    file = path / SUBJECTS
    if not file.is_file():
        return {}
    rows = csv.DictReader(io.StringIO(read_text(file, "columns name and subject")))
    columns = rows.fieldnames or []
    if not {"name", "subject"} <= set(columns):
        raise UserError(
            f"{file}: columns {', '.join(columns)}; expected 'name' and 'subject' among them"
        )
    found = {}
    for number, row in enumerate(rows, 2):
        if not row["name"] or not row["subject"]:
            raise UserError(
                f"{file}:{number}: name {row['name']!r}, subject {row['subject']!r}; "
                "expected both; fill the line or take it out"
            )
        found[row["name"]] = row
    return found


def _tissue(name: str) -> str | None:
    """Return which tissue a file's name says, if it does."""
    parts = re.split(r"[_\-.]", name.lower())
    return next((tissue for tissue in TISSUES if tissue in parts), None)


def _maps_of(name: str, named: Mapping[Path, str], maps: Iterable[Path]) -> tuple[Path, ...]:
    """Return the maps of grey and white matter that go with a volume, both or none."""
    stem = _without(name, ANATOMY)
    own = {
        str(_tissue(named[file])): file for file in maps if _without(named[file], TISSUES) == stem
    }
    return tuple(own[tissue] for tissue in TISSUES) if len(own) == len(TISSUES) else ()


def _without(name: str, words: Iterable[str]) -> str:
    return "_".join(part for part in re.split(r"[_\-.]", name.lower()) if part not in words)
