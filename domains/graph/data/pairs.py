r"""Node pairs as numbers: sets of pairs are sorted arrays, and nothing is ever nodes × nodes.

Pair :math:`\{i<j\}` of an undirected graph has number :math:`j(j-1)/2+i`; pair :math:`(i,j)`,
:math:`i\ne j`, of a directed graph with :math:`n` nodes has number :math:`i(n-1)+j-[j>i]`. Both
count without a gap from zero.
"""

from __future__ import annotations

import hashlib

import numpy as np


def generator(*parts: int | str) -> np.random.Generator:
    """A random generator that is a function of its arguments alone, e.g. seed, epoch, purpose."""
    digest = hashlib.blake2b("/".join(map(str, parts)).encode(), digest_size=16).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest, "little")))


def pair_count(nodes: int, directed: bool) -> int:
    """How many pairs a graph could have, self loops aside."""
    return nodes * (nodes - 1) if directed else nodes * (nodes - 1) // 2


def pair_numbers(pairs: np.ndarray, nodes: int, directed: bool) -> np.ndarray:
    """The number of each pair; an undirected pair may be given either way round."""
    source, target = pairs.astype(np.int64, copy=False)
    if directed:
        return source * (nodes - 1) + target - (target > source)
    high, low = np.maximum(source, target), np.minimum(source, target)
    return high * (high - 1) // 2 + low


def pairs_of(numbers: np.ndarray, nodes: int, directed: bool) -> np.ndarray:
    """The pairs that have these numbers, source < target if undirected.

    Example:
        >>> pairs_of(np.arange(3), 3, directed=False).tolist()
        [[0, 0, 1], [1, 2, 2]]
    """
    if directed:
        source, rest = np.divmod(numbers, max(nodes - 1, 1))
        return np.stack([source, rest + (rest >= source)])
    high = ((1 + np.sqrt(8.0 * numbers + 1)) / 2).astype(np.int64)
    high -= high * (high - 1) // 2 > numbers  # the square root may be off by one, either way
    high += high * (high + 1) // 2 <= numbers
    return np.stack([numbers - high * (high - 1) // 2, high])


def contains(ordered: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Which values are among the ordered ones."""
    if not len(ordered):
        return np.zeros(len(values), dtype=bool)
    place = np.minimum(np.searchsorted(ordered, values), len(ordered) - 1)
    return ordered[place] == values


def distinct(rng: np.random.Generator, count: int, population: int) -> np.ndarray:
    """Draw ``count`` different integers below ``population`` uniformly, in memory O(count)."""
    if 2 * count >= population:
        return rng.permutation(population)[:count]
    found = np.empty(0, dtype=np.int64)
    while len(found) < count:
        more = rng.integers(0, population, size=count - len(found) + 16 + count // 8)
        both = np.concatenate([found, more])
        _, first = np.unique(both, return_index=True)
        found = both[np.sort(first)][:count]
    return found


def both_ways(pairs: np.ndarray, nodes: int) -> np.ndarray:
    """Each pair in both directions, once, sorted by source and then target."""
    source, target = np.concatenate([pairs, pairs[::-1]], axis=1)
    keys = np.sort(source * nodes + target)  # ten times as fast as np.unique, which hashes first
    keys = keys[np.diff(keys, prepend=-1) > 0]
    return np.stack(np.divmod(keys, max(nodes, 1)))
