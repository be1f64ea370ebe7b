"""The most probable links that a graph does not have yet."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from domains.graph.data import Known
from domains.graph.model import LinkModel

ROWS = 256


def new_links(
    model: LinkModel, known: Known, count: int, source: int | None = None
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Rank all pairs that are no links, in row blocks, and keep the best.

    Args:
        model: A trained model.
        known: The graph, whose links are left out.
        count: How many pairs to keep.
        source: Only pairs of this node; None for all.

    Returns:
        Pairs ``(2, pair)``, smaller node first unless of one node, and their logits, best first.
    """
    nodes = len(known.names)
    device = next(model.parameters()).device
    graph = known.graph.to(device)
    linked = _neighbours(known.links, nodes)
    sources = np.arange(nodes) if source is None else np.array([source])
    pairs, logits = np.empty((2, 0), dtype=np.int64), np.empty(0)
    for block in np.array_split(sources, -(-len(sources) // ROWS)):
        rows = model.score_rows(graph, torch.from_numpy(block).to(device))
        for row, node in zip(rows, block, strict=True):
            row[linked[node]] = -np.inf
            row[: node + 1 if source is None else 0] = -np.inf
            row[node] = -np.inf
        best = np.argpartition(rows, max(rows.size - count, 0), axis=None)[-count:]
        place, target = np.unravel_index(best, rows.shape)
        pairs = np.concatenate([pairs, np.stack([block[place], target])], axis=1)
        logits = np.concatenate([logits, rows[place, target]])
        order = np.lexsort((pairs[1], pairs[0], -logits))[:count]
        pairs, logits = pairs[:, order], logits[order]
    real = np.isfinite(logits)
    return pairs[:, real], logits[real]


def _neighbours(links: NDArray[np.int64], nodes: int) -> list[NDArray[np.int64]]:
    both = np.concatenate([links, links[::-1]], axis=1)
    order = np.argsort(both[0], kind="stable")
    return np.split(both[1][order], np.cumsum(np.bincount(both[0], minlength=nodes))[:-1])
