"""Graphs as a trained model sees them afterwards: its own with every link, and new ones."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from core.runtime.errors import UserError
from domains.graph.config import Data
from domains.graph.data.batches import feature_tensor
from domains.graph.data.files import existing
from domains.graph.data.pairs import both_ways
from domains.graph.data.readers import read
from domains.graph.data.records import Dataset, Graph
from domains.graph.data.store import check_features, clean

SOURCES = {".npz": "npz", ".graphml": "graphml", ".xml": "graphml"}  # others are edge lists


@dataclass(frozen=True, eq=False)
class Known:
    """A graph with all its links as messages, and what people call its nodes.

    Args:
        graph: Its ``edges`` are empty: nothing is left to explain.
        names: Original name of each node.
        links: All links, ``(2, link)``, source < target if undirected.
    """

    graph: Graph
    names: list[str]
    links: np.ndarray


def whole(dataset: Dataset) -> Known:
    """The graph that was learned from, with the links of every part of the split."""
    features = None if dataset.features is None else feature_tensor(dataset.features)
    nodes = np.arange(len(dataset.names))
    return Known(_graph(dataset, features, dataset.edges, nodes), dataset.names, dataset.edges)


def new_graph(dataset: Dataset, path: Path, features: Path | None, own_vectors: bool) -> Known:
    """Another graph, with features of the same kind as those that were learned from.

    Args:
        dataset: What was learned from.
        path: An edge list, GraphML or npz file.
        features: Features of the nodes of an edge list.
        own_vectors: Whether the model has a vector for each node it knows, so that it cannot say
            anything of others.

    Raises:
        UserError: If the file is damaged, its features are of another number, or nodes are new to
            a model with vectors of their own.
    """
    existing(path, "--graph")
    source = SOURCES.get(path.suffix.lower(), "edges")
    settings = {"source": source, "root": str(path), "use_features": dataset.features is not None}
    if features is not None:
        settings["features"] = str(existing(features, "--features"))
    raw = read(Data.model_validate(settings))
    links, *_ = clean(raw, dataset.directed, fewest=0)
    place = raw.features_place or raw.place
    matrix = None
    if dataset.features is not None:
        if raw.features is None:
            raise UserError(f"{path}: no node features; the model reads them; give --features")
        matrix = check_features(raw)
        if matrix is not None and matrix.shape[1] != dataset.features.shape[1]:
            raise UserError(
                f"{place}: {matrix.shape[1]} features a node; the model was trained on "
                f"{dataset.features.shape[1]}; give the same ones in the same order"
            )
    nodes = np.arange(len(raw.names))
    if own_vectors:
        nodes, order = _known_nodes(dataset, raw.names, path)
        links = np.sort(np.argsort(order)[links], axis=0) if links.size else links
        matrix = None if matrix is None else matrix[order]
        names = [raw.names[place] for place in order]
    else:
        names = raw.names
    tensor = None if matrix is None else feature_tensor(matrix)
    return Known(_graph(dataset, tensor, links, nodes), names, links)


def _known_nodes(dataset: Dataset, names: list[str], path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Places in the first graph, ascending, and the order that makes them so."""
    known = {name: place for place, name in enumerate(dataset.names)}
    unknown = [name for name in names if name not in known]
    if unknown:
        some = ", ".join(map(repr, unknown[:3])) + (", …" if len(unknown) > 3 else "")
        raise UserError(
            f"{path}: {len(unknown)} nodes that the model does not know ({some}); it has a vector "
            "for each node of its own graph; for new nodes train one with features and "
            "model.identity: false"
        )
    places = np.array([known[name] for name in names], dtype=np.int64)
    order = np.argsort(places)
    return places[order], order


def _graph(
    dataset: Dataset, features: Tensor | None, links: np.ndarray, nodes: np.ndarray
) -> Graph:
    return Graph(
        features=features,
        messages=torch.from_numpy(both_ways(links, len(nodes))),
        edges=torch.zeros((2, 0), dtype=torch.long),
        non_edges=None,
        total_edges=0,
        total_non_edges=0,
        nodes=torch.from_numpy(nodes),
        total_nodes=max(len(dataset.names), len(nodes)),
    )
