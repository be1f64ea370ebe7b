"""Graphs in .npz files: plain arrays of a csr matrix, or objects behind ``data.allow_pickle``."""

from __future__ import annotations

import io
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse

from core.runtime.errors import UserError
from domains.graph.data.records import Matrix, RawGraph
from domains.graph.data.unpickle import unpickle

ADJACENCY = ("adj_matrix", "adj")
FEATURES = ("node_attr", "attr_matrix", "attr", "features", "x")
LABELS = ("node_label", "labels", "label", "y")
NAMES = ("names", "node_names")


def read(path: Path, allow_pickle: bool) -> RawGraph:
    """Read a graph from an adjacency matrix, with features, labels and names if there are any.

    Matrices are ``adj_data, adj_indices, adj_indptr`` or one array or object ``adj_matrix``;
    likewise ``attr_…`` and ``node_attr`` for features.

    Raises:
        UserError: If the file is damaged, holds objects without leave, or no square adjacency
            matrix.
    """
    archive = read_archive(path, allow_pickle)
    adjacency = _matrix(archive, "adj", ADJACENCY, path)
    if adjacency is None:
        raise UserError(
            f"{path}: holds {', '.join(archive)}; expected adj_data, adj_indices and "
            "adj_indptr, or adj_matrix"
        )
    if adjacency.ndim != 2 or adjacency.shape[0] != adjacency.shape[1]:
        raise UserError(
            f"{path}: adjacency matrix of shape {adjacency.shape}; expected a square one"
        )
    links: Matrix = sparse.csr_matrix(adjacency)
    links.eliminate_zeros()
    links = links.tocoo()
    nodes = adjacency.shape[0]
    pairs = np.stack([links.row, links.col]).astype(np.int64)
    forward = np.sort(pairs[0] * nodes + pairs[1])
    symmetric = np.array_equal(forward, np.sort(pairs[1] * nodes + pairs[0]))
    names = next((archive[key] for key in NAMES if key in archive), np.arange(nodes))
    if names.shape != (nodes,):
        raise UserError(f"{path}: {names.size} names for {nodes} nodes; expected one a node")
    return RawGraph(
        names=[str(name) for name in names.tolist()],
        pairs=pairs,
        directed=False if symmetric else None,
        source=f"npz {path.name}",
        place=str(path),
        features=_matrix(archive, "attr", FEATURES, path),
        labels=_labels(archive, nodes, path),
    )


def read_archive(path: Path, allow_pickle: bool) -> dict[str, Any]:
    """The arrays of an .npz file by name; objects are read without running anything.

    Raises:
        UserError: If the file is damaged or holds objects without leave.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = [name for name in archive.namelist() if name.endswith(".npy")]
            return {
                name.removesuffix(".npy"): _array(archive.read(name), path, name, allow_pickle)
                for name in members
            }
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError) as error:
        raise UserError(f"{path}: not a readable .npz file ({error})") from error


def _array(data: bytes, path: Path, name: str, allow_pickle: bool) -> Any:
    file = io.BytesIO(data)
    try:
        version = np.lib.format.read_magic(file)
        read_header = (
            np.lib.format.read_array_header_1_0
            if version == (1, 0)
            else np.lib.format.read_array_header_2_0
        )
        dtype = read_header(file)[2]
        if not dtype.hasobject:
            file.seek(0)
            return np.lib.format.read_array(file, allow_pickle=False)
    except ValueError as error:
        raise UserError(f"{path}: array {name!r} is damaged ({error})") from error
    if not allow_pickle:
        raise UserError(
            f"{path}: {name.removesuffix('.npy')!r} is a pickled object; set data.allow_pickle: "
            "true to read arrays and csr "
            "matrices from it (nothing else is run)"
        )
    return unpickle(file.read(), path)


def _matrix(archive: dict[str, Any], prefix: str, keys: tuple[str, ...], path: Path) -> Any:
    """The matrix stored under a prefix in parts, or whole under one of some names."""
    parts = [f"{prefix}_{part}" for part in ("data", "indices", "indptr")]
    if not set(parts) <= archive.keys():
        return next((archive[key] for key in keys if key in archive), None)
    return csr([archive[part] for part in parts], archive.get(f"{prefix}_shape"), path)


def csr(parts: list[np.ndarray], shape: np.ndarray | None, path: Path) -> Matrix:
    """A csr matrix from its parts, every index checked.

    Raises:
        UserError: If they do not fit together.
    """
    rows = len(parts[2]) - 1
    size = (rows, rows) if shape is None else tuple(np.asarray(shape).ravel().tolist())
    try:
        matrix: Matrix = sparse.csr_matrix(tuple(parts), shape=size)
        matrix.check_format(full_check=True)
    except (ValueError, TypeError, IndexError) as error:
        raise UserError(f"{path}: the parts of a csr matrix do not fit ({error})") from error
    return matrix


def _labels(archive: dict[str, Any], nodes: int, path: Path) -> np.ndarray | None:
    labels = next((archive[key] for key in LABELS if key in archive), None)
    if labels is None:
        return None
    labels = labels.toarray() if sparse.issparse(labels) else np.asarray(labels)
    if labels.ndim == 2 and labels.shape[0] == nodes:
        labels = labels.argmax(axis=1)
    if labels.shape != (nodes,):
        raise UserError(
            f"{path}: labels of shape {labels.shape} for {nodes} nodes; expected one a node"
        )
    return np.unique(labels, return_inverse=True)[1]
