"""Pairs that are no links: uniform, matched by degree, two steps apart, corrupted links."""

from __future__ import annotations

import numpy as np
from scipy import sparse

from domains.graph.data.pairs import (
    contains,
    distinct,
    generator,
    pair_count,
    pair_numbers,
)
from domains.graph.data.records import Dataset, Matrix

WEDGES_TO_LIST = 5_000_000  # up to here two-step pairs are listed, beyond they are drawn
ROUNDS = 64


def uniform(
    rng: np.random.Generator, count: int, nodes: int, directed: bool, excluded: np.ndarray
) -> np.ndarray:
    """Draw distinct pairs uniformly among those not excluded; all of them if there are no more.

    The excluded numbers are stepped over rather than rejected, so a dense graph costs no more
    than a sparse one.

    Args:
        rng: Where the randomness comes from.
        count: How many are wanted.
        nodes: Nodes of the graph.
        directed: Whether pairs are ordered.
        excluded: Pair numbers to avoid, sorted and distinct.

    Returns:
        At most ``count`` pair numbers, sorted.
    """
    available = pair_count(nodes, directed) - len(excluded)
    ranks = np.sort(distinct(rng, min(count, available), available))
    return ranks + np.searchsorted(excluded - np.arange(len(excluded)), ranks, side="right")


def degree_matched(
    rng: np.random.Generator,
    count: int,
    train: np.ndarray,
    nodes: int,
    directed: bool,
    links: np.ndarray,
) -> np.ndarray:
    """Numbers of pairs whose two ends are drawn from the ends of train links, avoiding ``links``.

    Ends drawn so have the degrees that the ends of a real link have: popularity alone cannot tell
    them apart.
    """
    stubs = (train[0], train[1]) if directed else (train.ravel(), train.ravel())
    found = np.empty(0, dtype=np.int64)
    for _ in range(ROUNDS):
        drawn = np.stack([rng.choice(ends, size=2 * count + 16) for ends in stubs])
        numbers = pair_numbers(drawn[:, drawn[0] != drawn[1]], nodes, directed)
        numbers = np.concatenate([found, numbers[~contains(links, numbers)]])
        _, first = np.unique(numbers, return_index=True)
        found = numbers[np.sort(first)][:count]
        if len(found) == count:
            break
    return np.sort(found)


def two_hop(
    rng: np.random.Generator,
    count: int,
    train: np.ndarray,
    nodes: int,
    directed: bool,
    links: np.ndarray,
) -> np.ndarray:
    """Numbers of pairs with a common train neighbour, uniformly among those that are no link."""
    ones = np.ones(train.shape[1], dtype=np.int64)
    forward: Matrix = sparse.csr_matrix((ones, (train[0], train[1])), shape=(nodes, nodes))
    steps = forward if directed else (forward + forward.T).tocsr()
    into = np.bincount(steps.indices, minlength=nodes)
    out = np.diff(steps.indptr)
    wedges = int((into * out).sum())
    if wedges <= WEDGES_TO_LIST:
        reached = (steps @ steps).tocoo()
        pairs = np.stack([reached.row, reached.col]).astype(np.int64)
        numbers = np.unique(pair_numbers(pairs[:, pairs[0] != pairs[1]], nodes, directed))
        numbers = numbers[~contains(links, numbers)]
        return np.sort(numbers[distinct(rng, min(count, len(numbers)), len(numbers))])
    return _draw_two_hop(rng, count, steps, into * out, directed, links)


def _draw_two_hop(
    rng: np.random.Generator,
    count: int,
    steps: Matrix,
    wedges: np.ndarray,
    directed: bool,
    links: np.ndarray,
) -> np.ndarray:
    """Draw paths of two steps; keep a pair with 1/(its paths), which makes pairs uniform."""
    nodes = steps.shape[0]
    back = steps.T.tocsr()
    share = np.cumsum(wedges) / wedges.sum()
    found = np.empty(0, dtype=np.int64)
    for _ in range(ROUNDS):
        middle = np.searchsorted(share, rng.random(4 * count + 16), side="right")
        middle = np.minimum(middle, nodes - 1)
        middle = middle[wedges[middle] > 0]
        source, target = (
            way.indices[
                way.indptr[middle]
                + (rng.random(len(middle)) * np.diff(way.indptr)[middle]).astype(np.int64)
            ]
            for way in (back, steps)
        )
        pairs = np.stack([source, target]).astype(np.int64)
        pairs = pairs[:, source != target]
        numbers = pair_numbers(pairs, nodes, directed)
        _, first = np.unique(numbers, return_index=True)
        first = np.sort(first[~contains(links, numbers[first])])
        source, target = pairs[:, first]
        paths = np.asarray(steps[source].multiply(back[target]).sum(axis=1)).ravel()
        kept = numbers[first][rng.random(len(first)) * paths < 1]
        both = np.concatenate([found, kept])
        _, first = np.unique(both, return_index=True)
        found = both[np.sort(first)][:count]
        if len(found) == count:
            break
    return np.sort(found)


def corruptions(dataset: Dataset, edges: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Targets to rank each link's own target against, as in MRR and Hits@k.

    Each is drawn independently and uniformly from the nodes that no link of any part leads to
    from the source, the source itself left out; repeats are possible. In an undirected graph,
    give the links both ways round to corrupt both ends.

    Args:
        dataset: The graph.
        edges: Links, ``(2, edge)``.
        count: Corruptions per link.
        seed: The same seed gives the same targets.

    Returns:
        ``(edge, count)`` int64; a row of −1 where the source is linked to every other node.
    """
    nodes = len(dataset.names)
    links = (
        dataset.edges
        if dataset.directed
        else np.concatenate([dataset.edges, dataset.edges[::-1]], 1)
    )
    loops = np.tile(np.arange(nodes), (2, 1))
    source, target = np.concatenate([links, loops], axis=1)
    order = np.lexsort((target, source))
    start = np.concatenate([[0], np.cumsum(np.bincount(source, minlength=nodes))])
    steps = np.arange(len(source)) - start[source[order]]
    ordered = source[order] * (nodes + 1) + target[order] - steps
    given = np.asarray(edges[0], dtype=np.int64)
    free = nodes - np.diff(start)[given]
    rng = generator(seed, "corruptions")
    ranks = (rng.random((len(given), count)) * free[:, None]).astype(np.int64)
    ranks = np.minimum(ranks, np.maximum(free[:, None] - 1, 0))
    before = np.searchsorted(ordered, given[:, None] * (nodes + 1) + ranks, side="right")
    return np.where(free[:, None] > 0, ranks + before - start[given][:, None], -1)
