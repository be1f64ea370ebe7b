"""Splitting the links into train, valid and test, with the negatives of each."""

from __future__ import annotations

import hashlib
from dataclasses import fields

import numpy as np

from domains.graph.data.negatives import degree_matched, two_hop, uniform
from domains.graph.data.pairs import generator, pair_count, pair_numbers, pairs_of
from domains.graph.data.records import LinkSplit


def split_links(
    edges: np.ndarray,
    nodes: int,
    directed: bool,
    valid_fraction: float,
    test_fraction: float,
    seed: int,
) -> LinkSplit:
    """Split links at random into train, valid and test.

    Kipf's sizes: ``⌊fraction · edges⌋`` for valid and test, the rest for train.
    The two directions between two nodes of a directed graph always fall into the same part (the
    fractions are then of unordered pairs), so that no part gives away the reverse of a link of
    another.

    Args:
        edges: Distinct links without self loops, ``(2, edge)``.
        nodes: Nodes of the graph.
        directed: Whether links are ordered pairs.
        valid_fraction: Share of the links for validation.
        test_fraction: Share of the links for the test.
        seed: The same seed gives the same split.

    Returns:
        The split; each part is sorted.
    """
    groups, group = np.unique(pair_numbers(edges, nodes, directed=False), return_inverse=True)
    order = generator(seed, "split").permutation(len(groups))
    test_size, valid_size = int(len(groups) * test_fraction), int(len(groups) * valid_fraction)
    part = np.zeros(len(groups), dtype=np.int8)
    part[order[:test_size]] = 2
    part[order[test_size : test_size + valid_size]] = 1
    numbers = pair_numbers(edges, nodes, directed)
    train, valid, test = (np.sort(numbers[part[group] == which]) for which in range(3))
    links = np.sort(numbers)
    train_pairs = pairs_of(train, nodes, directed)
    free = pair_count(nodes, directed) - len(links)
    share = min(len(test), free * len(test) // max(len(test) + len(valid), 1))
    test_non = uniform(generator(seed, "test"), share, nodes, directed, links)
    taken = np.sort(np.concatenate([links, test_non]))
    valid_non = uniform(generator(seed, "valid"), len(valid), nodes, directed, taken)
    hard = [
        kind(generator(seed, kind.__name__), len(test), train_pairs, nodes, directed, links)
        for kind in (degree_matched, two_hop)
    ]
    parts = (train, valid, test, valid_non, test_non, *hard)
    return LinkSplit(*(pairs_of(part, nodes, directed) for part in parts))


def split_hash(split: LinkSplit) -> str:
    """SHA-256 of a split: equal for equal splits on any machine."""
    digest = hashlib.sha256()
    for field in fields(split):
        pairs = np.ascontiguousarray(getattr(split, field.name), dtype="<i8")
        digest.update(f"{field.name} {pairs.shape}\n".encode() + pairs.tobytes())
    return digest.hexdigest()
