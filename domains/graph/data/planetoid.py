"""Cora, CiteSeer and PubMed as the Planetoid project published them (Yang et al., ICML 2016)."""

from __future__ import annotations

import os
import shutil
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse

from core.runtime.errors import UserError
from domains.graph.data.records import Matrix, RawGraph
from domains.graph.data.unpickle import unpickle

URL = "https://raw.githubusercontent.com/kimiyoung/planetoid/master/data"
TIMEOUT_S = 30


def locate(root: str | None, name: str, use_features: bool) -> dict[str, Path]:
    """The raw files by their last name, downloaded if no folder is given.

    Raises:
        UserError: If a file is missing or cannot be downloaded.
    """
    wanted = ["allx", "tx", "ally", "ty", "graph", "test.index"]
    if root is None:
        return {part: _download(f"ind.{name.lower()}.{part}", name) for part in wanted}
    base = Path(root).expanduser()
    folders = [base, base / name, base / name / "raw", base / "raw"]
    graph = f"ind.{name.lower()}.graph"
    folder = next((folder for folder in folders if (folder / graph).is_file()), None)
    if folder is None:
        raise UserError(
            f"data.root {root!r}: no file {graph!r} there, in {name!r} or in '{name}/raw'; "
            "give the folder that holds the Planetoid raw files"
        )
    files = {part: folder / f"ind.{name.lower()}.{part}" for part in wanted}
    missing = [path.name for path in files.values() if not path.is_file()]
    if use_features and missing:
        raise UserError(
            f"{folder}: no {', '.join(missing)}; the features are in allx, tx and test.index; "
            "add the files, or set data.use_features: false to use the links alone"
        )
    return {part: path for part, path in files.items() if path.is_file()}


def _download(file: str, name: str) -> Path:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    path = cache / "latentworks" / "planetoid" / name / "raw" / file
    if path.is_file():
        return path
    part = path.with_name(f"{file}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with (
            urllib.request.urlopen(f"{URL}/{file}", timeout=TIMEOUT_S) as answer,
            part.open("wb") as out,
        ):
            shutil.copyfileobj(answer, out)
        os.replace(part, path)
    except (urllib.error.URLError, OSError) as error:
        part.unlink(missing_ok=True)
        reason = getattr(error, "reason", None) or error
        raise UserError(
            f"{URL}/{file}: could not be downloaded ({reason}); download {name} elsewhere and "
            "give its folder: "
            f"--set data.root=FOLDER"
        ) from error
    return path


def read(root: str | None, name: str, use_features: bool) -> RawGraph:
    """Read a Planetoid graph.

    Test nodes that the files leave out (CiteSeer has 15) are kept, isolated, with zero features
    and an unknown label.

    Raises:
        UserError: If a file is missing, damaged or holds something unexpected.
    """
    files = locate(root, name, use_features)
    neighbours = _load(files["graph"], dict)
    pairs, nodes = _pairs(neighbours, files["graph"])
    rows = _test_rows(files["test.index"]) if "test.index" in files else None
    features = labels = None
    if use_features and rows is not None:
        features = _place(_load(files["allx"]), _load(files["tx"]), rows, files["tx"])
        if features.shape[0] < nodes:
            raise UserError(
                f"{files['graph']}: node number {nodes - 1}; the features have "
                f"{features.shape[0]} rows"
            )
        nodes = features.shape[0]
    if rows is not None and {"ally", "ty"} <= files.keys():
        hot = _place(_load(files["ally"]), _load(files["ty"]), rows, files["ty"])
        hot.resize((max(nodes, hot.shape[0]), hot.shape[1]))
        nodes = hot.shape[0]
        known = np.asarray(hot.sum(axis=1)).ravel() > 0
        labels = np.where(known, np.asarray(hot.argmax(axis=1)).ravel(), -1)
    absent = 0 if rows is None else int(rows.max() - rows.min() + 1 - len(rows))
    return RawGraph(
        names=[str(node) for node in range(nodes)],
        pairs=pairs,
        directed=False,
        source=f"Planetoid {name}",
        place=str(files["graph"].parent),
        licence="MIT (kimiyoung/planetoid)",
        features=features,
        labels=labels,
        notes=(f"{absent} test nodes have no features or label in the files",) if absent else (),
    )


def _load(path: Path, kind: type | None = None) -> Any:
    value = unpickle(path.read_bytes(), path)
    if kind is None and not isinstance(value, np.ndarray | sparse.csr_matrix):
        raise UserError(f"{path}: holds a {type(value).__name__}; expected a matrix")
    if kind is not None and not isinstance(value, kind):
        raise UserError(f"{path}: holds a {type(value).__name__}; expected a {kind.__name__}")
    return value


def _pairs(neighbours: dict[int, list[int]], path: Path) -> tuple[np.ndarray, int]:
    try:
        sizes = [len(ends) for ends in neighbours.values()]
        source = np.repeat(np.fromiter(neighbours, np.int64, len(neighbours)), sizes)
        target = np.fromiter((end for ends in neighbours.values() for end in ends), np.int64)
    except (TypeError, ValueError) as error:
        raise UserError(f"{path}: expected lists of neighbour numbers by node number") from error
    pairs = np.stack([source, target])
    if pairs.size and pairs.min() < 0:
        raise UserError(f"{path}: node number {pairs.min()}; expected numbers from 0")
    nodes = max([int(pairs.max(initial=-1)), *neighbours], default=-1) + 1
    if nodes > 2 * len(neighbours) + 1000:
        raise UserError(
            f"{path}: node number {nodes - 1}; expected the numbers of {len(neighbours)}"
        )
    return pairs, nodes


def _test_rows(path: Path) -> np.ndarray:
    try:
        rows = np.array(path.read_text(encoding="ascii").split(), dtype=np.int64)
    except (UnicodeDecodeError, ValueError) as error:
        raise UserError(f"{path}: expected one node number a line") from error
    if not len(rows):
        raise UserError(f"{path}: empty; expected one node number a line")
    return rows


def _place(first: Any, test: Any, rows: np.ndarray, path: Path) -> Matrix:
    """Rows of ``first``, then those of ``test`` at the node numbers they belong to."""
    start = first.shape[0]
    if test.shape[0] != len(rows) or rows.min() < start or len(np.unique(rows)) != len(rows):
        raise UserError(
            f"{path}: {test.shape[0]} rows for {len(rows)} test nodes from {rows.min()}; "
            "expected one row for each "
            f"distinct test node, from {start} on"
        )
    moved = sparse.coo_matrix(test, dtype=np.float32)
    below = sparse.coo_matrix(
        (moved.data, (rows[moved.row] - start, moved.col)),
        shape=(int(rows.max()) + 1 - start, test.shape[1]),
    )
    return sparse.vstack([sparse.csr_matrix(first, dtype=np.float32), below], format="csr")
