"""The most probable links that a graph does not have."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse

from domains.graph.config import EXACT_NODES
from domains.graph.data import Known, both_ways
from domains.graph.metrics.floors import Matrix
from domains.graph.metrics.ranking import Array
from domains.graph.model import LinkModel

ROWS = 256

Pairs = NDArray[np.int64]


def new_links(
    model: LinkModel, known: Known, top: int, source: int | None = None
) -> tuple[Pairs, Array]:
    """Find the pairs with the highest logits among those that are no links.

    All pairs are looked at, a block of rows at a time; beyond `EXACT_NODES` nodes, where that
    takes minutes, only pairs with a common neighbour.

    Args:
        model: A trained model.
        known: The graph; all its links are left out.
        top: How many pairs.
        source: Look at the pairs of this node only, all of them.

    Returns:
        Pairs ``(2, pair)`` with their logits, highest first; fewer if there are no more.
    """
    nodes = len(known.names)
    device = next(model.parameters()).device
    graph = known.graph.to(device)
    linked = both_ways(known.links, nodes)
    best = (np.zeros((2, 0), dtype=np.int64), np.zeros(0))
    if source is None and nodes > EXACT_NODES:
        for pairs in _with_common_neighbour(linked, nodes):
            best = _best(best, pairs, model.score(graph, torch.from_numpy(pairs).to(device)), top)
        return best
    start = np.concatenate([[0], np.cumsum(np.bincount(linked[0], minlength=nodes))])
    everyone = np.arange(nodes) if source is None else np.array([source])
    for begin in range(0, len(everyone), ROWS):
        rows = everyone[begin : begin + ROWS]
        logits = model.score_rows(graph, torch.from_numpy(rows).to(device))
        for place, row in enumerate(rows):
            logits[place, linked[1, start[row] : start[row + 1]]] = -np.inf
            logits[place, row if source is not None else slice(0, row + 1)] = -np.inf
        place, target = np.nonzero(logits > _worst(best, top))
        best = _best(best, np.stack([rows[place], target]), logits[place, target], top)
    return best


def _with_common_neighbour(linked: Pairs, nodes: int) -> Iterator[Pairs]:
    """Pairs two steps apart that are no links, some rows at a time."""
    ones = np.ones(linked.shape[1], dtype=np.int8)
    adjacency: Matrix = sparse.csr_matrix((ones, tuple(linked)), shape=(nodes, nodes), dtype=bool)
    for begin in range(0, nodes, ROWS):
        rows = adjacency[begin : begin + ROWS]
        near: Matrix = (rows @ adjacency).tocoo()
        source, target = near.row.astype(np.int64) + begin, near.col.astype(np.int64)
        pairs = np.stack([source, target])[:, source < target]
        there = np.asarray(adjacency[pairs[0], pairs[1]]).ravel().astype(bool)
        if pairs.size:
            yield pairs[:, ~there]


def _worst(best: tuple[Pairs, Array], top: int) -> float:
    """What a pair has to exceed to be among the best."""
    return float(best[1][-1]) if len(best[1]) == top else -np.inf


def _best(best: tuple[Pairs, Array], pairs: Pairs, logits: Array, top: int) -> tuple[Pairs, Array]:
    """The best so far and new ones, highest first."""
    pairs, logits = np.concatenate([best[0], pairs], axis=1), np.concatenate([best[1], logits])
    if len(logits) > top:
        kept = np.sort(np.argpartition(-logits, top - 1)[:top])
        pairs, logits = pairs[:, kept], logits[kept]
    order = np.argsort(-logits, kind="stable")
    return pairs[:, order], logits[order]
