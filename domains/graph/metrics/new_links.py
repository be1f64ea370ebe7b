"""The most probable links that a graph does not have."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from domains.graph.data import Known, both_ways
from domains.graph.metrics.ranking import Array
from domains.graph.model import LinkModel

ROWS = 256

Pairs = NDArray[np.int64]


def new_links(
    model: LinkModel, known: Known, top: int, source: int | None = None
) -> tuple[Pairs, Array]:
    """Find the pairs with the highest logits among those that are no links.

    All pairs are looked at, a block of rows at a time; time grows with the square of the nodes.

    Args:
        model: A trained model.
        known: The graph; all its links are left out.
        top: How many pairs.
        source: Look at the pairs of this node only.

    Returns:
        Pairs ``(2, pair)`` with their logits, highest first; fewer if there are no more.
    """
    nodes = len(known.names)
    device = next(model.parameters()).device
    graph = known.graph.to(device)
    linked = both_ways(known.links, nodes)
    start = np.concatenate([[0], np.cumsum(np.bincount(linked[0], minlength=nodes))])
    best = (np.zeros((2, 0), dtype=np.int64), np.zeros(0))
    everyone = np.arange(nodes) if source is None else np.array([source])
    for begin in range(0, len(everyone), ROWS):
        rows = everyone[begin : begin + ROWS]
        logits = model.score_rows(graph, torch.from_numpy(rows).to(device))
        for place, row in enumerate(rows):
            logits[place, linked[1, start[row] : start[row + 1]]] = -np.inf
            logits[place, row if source is not None else slice(0, row + 1)] = -np.inf
        best = _best(best, rows, logits, top)
    return best


def _best(best: tuple[Pairs, Array], rows: Pairs, logits: Array, top: int) -> tuple[Pairs, Array]:
    """The best so far and those of a block, highest first."""
    flat = logits.ravel()
    worst = best[1][-1] if len(best[1]) == top else -np.inf
    place = np.flatnonzero(flat > worst)
    if len(place) > top:
        place = np.sort(place[np.argpartition(-flat[place], top - 1)[:top]])
    source, target = rows[place // logits.shape[1]], place % logits.shape[1]
    pairs = np.concatenate([best[0], np.stack([source, target])], axis=1)
    scores = np.concatenate([best[1], flat[place]])
    order = np.argsort(-scores, kind="stable")[:top]
    return pairs[:, order], scores[order]
