"""Pairs as numbers, negatives and splits."""

from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from domains.graph.data.negatives import degree_matched, two_hop, uniform
from domains.graph.data.pairs import (
    both_ways,
    contains,
    distinct,
    generator,
    pair_count,
    pair_numbers,
    pairs_of,
)
from domains.graph.data.splits import split_hash, split_links

PARTS = ("train", "valid", "test")
NEGATIVES = ("valid_non_edges", "test_non_edges", "test_degree_matched", "test_two_hop")


def random_edges(nodes: int, edges: int, seed: int, directed: bool = False) -> np.ndarray:
    rng = np.random.default_rng(seed)
    count = min(edges, pair_count(nodes, directed))
    return pairs_of(np.sort(distinct(rng, count, pair_count(nodes, directed))), nodes, directed)


graphs = st.builds(
    lambda nodes, edges, seed, directed: (
        random_edges(nodes, edges, seed, directed),
        nodes,
        directed,
    ),
    nodes=st.integers(8, 40),
    edges=st.integers(20, 200),
    seed=st.integers(0, 10**6),
    directed=st.booleans(),
)


def as_set(pairs: np.ndarray) -> set[tuple[int, int]]:
    return set(map(tuple, pairs.T.tolist()))


@given(nodes=st.integers(2, 60), directed=st.booleans())
@settings(max_examples=40)
def test_pair_numbers_count_all_pairs_without_a_gap(nodes: int, directed: bool) -> None:
    numbers = np.arange(pair_count(nodes, directed))
    pairs = pairs_of(numbers, nodes, directed)
    assert (pair_numbers(pairs, nodes, directed) == numbers).all()
    assert len(as_set(pairs)) == len(numbers)
    assert (pairs[0] != pairs[1]).all()
    assert pairs.max() == nodes - 1


@given(high=st.integers(1, 90_000_000), low=st.integers(0, 10**9))
@settings(max_examples=200)
def test_the_largest_pair_numbers_survive_the_floating_point_root(high: int, low: int) -> None:
    pair = np.array([[0, low % high, high - 1], [high, high, high]])
    assert (pairs_of(pair_numbers(pair, high + 1, False), high + 1, False) == pair).all()


def test_an_undirected_pair_has_one_number_either_way_round() -> None:
    pairs = random_edges(20, 50, 0)
    flipped = pair_numbers(pairs[::-1], 20, directed=False)
    assert (pair_numbers(pairs, 20, directed=False) == flipped).all()


def test_contains_is_membership_also_in_nothing() -> None:
    values = np.array([0, 3, 9])
    assert contains(np.array([1, 3]), values).tolist() == [False, True, False]
    assert not contains(np.empty(0, dtype=np.int64), values).any()


@given(count=st.integers(0, 50), more=st.integers(0, 500), seed=st.integers(0, 100))
@settings(max_examples=50)
def test_distinct_draws_are_distinct_and_in_range(count: int, more: int, seed: int) -> None:
    drawn = distinct(np.random.default_rng(seed), count, count + more)
    assert len(drawn) == count == len(set(drawn.tolist()))
    assert count == 0 or 0 <= drawn.min() <= drawn.max() < count + more


def test_both_ways_lists_each_direction_once_and_in_order() -> None:
    found = both_ways(np.array([[2, 0, 1], [1, 3, 2]]), 4)
    assert found.tolist() == [[0, 1, 2, 3], [3, 2, 1, 0]]


def test_uniform_negatives_are_uniform() -> None:
    excluded = np.array([0, 4, 5, 9])
    counts = np.zeros(15)
    for seed in range(3000):
        counts[uniform(np.random.default_rng(seed), 3, 6, False, excluded)] += 1
    free = np.delete(counts, excluded)
    assert (counts[excluded] == 0).all()
    assert free.sum() == 9000
    assert abs(free - 9000 / 11).max() < 5 * np.sqrt(9000 / 11)


@pytest.mark.parametrize("directed", [False, True])
def test_a_dense_graph_gives_all_the_negatives_there_are(directed: bool) -> None:
    links = np.arange(pair_count(10, directed) - 3)
    found = uniform(np.random.default_rng(0), 50, 10, directed, links)
    assert found.tolist() == [len(links), len(links) + 1, len(links) + 2]


def test_a_star_has_every_pair_of_leaves_at_two_steps_and_no_other() -> None:
    star = np.stack([np.zeros(9, dtype=np.int64), np.arange(1, 10)])
    links = np.sort(pair_numbers(star, 10, False))
    found = two_hop(np.random.default_rng(0), 100, star, 10, False, links)
    assert as_set(pairs_of(found, 10, False)) == {
        (i, j) for j in range(1, 10) for i in range(1, j)
    }


def test_directed_two_step_pairs_follow_the_arrows() -> None:
    chain = np.array([[0, 1, 2], [1, 2, 3]])
    links = np.sort(pair_numbers(chain, 4, True))
    found = two_hop(np.random.default_rng(0), 100, chain, 4, True, links)
    assert as_set(pairs_of(found, 4, True)) == {(0, 2), (1, 3)}


@pytest.mark.parametrize("directed", [False, True])
def test_drawn_and_listed_two_step_pairs_are_the_same_pairs(
    monkeypatch: pytest.MonkeyPatch, directed: bool
) -> None:
    edges = random_edges(15, 20, 3, directed)
    links = np.sort(pair_numbers(edges, 15, directed))
    arguments = (10**4, edges, 15, directed, links)
    listed = two_hop(np.random.default_rng(0), *arguments)
    monkeypatch.setattr("domains.graph.data.negatives.WEDGES_TO_LIST", 0)
    drawn = two_hop(np.random.default_rng(0), *arguments)
    assert listed.tolist() == drawn.tolist()


def test_drawn_two_step_pairs_are_uniform_over_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    # 0 and 1 have four common neighbours, 6 and 7 have one: both must come equally often.
    edges = np.array([[0, 0, 0, 0, 1, 1, 1, 1, 6, 7], [2, 3, 4, 5, 2, 3, 4, 5, 8, 8]])
    links = np.sort(pair_numbers(edges, 9, False))
    monkeypatch.setattr("domains.graph.data.negatives.WEDGES_TO_LIST", 0)
    counts = np.zeros(pair_count(9, False))
    for seed in range(1500):
        counts[two_hop(np.random.default_rng(seed), 1, edges, 9, False, links)] += 1
    often, rarely = counts[pair_numbers(np.array([[0, 6], [1, 7]]), 9, False)]
    assert abs(often - rarely) < 5 * np.sqrt(often + rarely)


def test_degree_matched_negatives_have_the_degrees_of_real_links() -> None:
    rng = np.random.default_rng(0)
    ends = (4000 * rng.random((2, 6000)) ** 2).astype(np.int64)  # a few popular nodes
    numbers = np.unique(pair_numbers(ends[:, ends[0] != ends[1]], 4000, False))
    train = pairs_of(numbers, 4000, False)
    degree = np.bincount(train.ravel(), minlength=4000)
    matched = degree_matched(rng, 500, train, 4000, False, numbers)
    blind = uniform(rng, 500, 4000, False, numbers)
    real, hard, easy = (
        degree[pairs_of(which, 4000, False)].mean() for which in (numbers, matched, blind)
    )
    assert easy < 0.6 * real
    assert hard > 0.75 * real


@given(graph=graphs, seed=st.integers(0, 100))
@settings(max_examples=60, deadline=None)
def test_a_split_is_complete_and_disjoint_and_its_negatives_are_none_of_the_links(
    graph: tuple[np.ndarray, int, bool], seed: int
) -> None:
    edges, nodes, directed = graph
    split = split_links(edges, nodes, directed, 0.05, 0.10, seed)
    parts = [as_set(getattr(split, part)) for part in PARTS]
    assert set.union(*parts) == as_set(edges)
    assert sum(map(len, parts)) == edges.shape[1]
    for name in NEGATIVES:
        pairs = getattr(split, name)
        numbers = pair_numbers(pairs, nodes, directed)
        assert len(np.unique(numbers)) == len(numbers)
        assert not as_set(pairs) & as_set(edges)
        assert (pairs[0] != pairs[1]).all()
        assert directed or (pairs[0] < pairs[1]).all()
    assert not as_set(split.valid_non_edges) & as_set(split.test_non_edges)


@given(graph=graphs, seed=st.integers(0, 100))
@settings(max_examples=40, deadline=None)
def test_no_part_holds_the_reverse_of_a_link_of_another(
    graph: tuple[np.ndarray, int, bool], seed: int
) -> None:
    edges, nodes, directed = graph
    split = split_links(edges, nodes, directed, 0.2, 0.2, seed)
    parts = [
        set(pair_numbers(getattr(split, part), nodes, directed=False).tolist()) for part in PARTS
    ]
    assert not parts[0] & parts[1]
    assert not parts[0] & parts[2]
    assert not parts[1] & parts[2]


def test_a_seed_gives_one_split_and_another_seed_another() -> None:
    edges = random_edges(50, 200, 0)
    hashes = [split_hash(split_links(edges, 50, False, 0.05, 0.1, seed)) for seed in (1, 1, 2)]
    assert hashes[0] == hashes[1] != hashes[2]


@given(seed=st.integers(0, 1000))
@settings(max_examples=20, deadline=None)
def test_the_order_of_the_edges_does_not_change_the_split(seed: int) -> None:
    edges = random_edges(30, 80, seed)
    shuffled = edges[:, np.random.default_rng(seed).permutation(edges.shape[1])]
    first, second = (split_links(given, 30, False, 0.05, 0.1, 0) for given in (edges, shuffled))
    assert split_hash(first) == split_hash(second)


def test_the_sizes_are_kipfs() -> None:
    split = split_links(random_edges(400, 5278, 0), 400, False, 0.05, 0.10, 0)
    assert [getattr(split, part).shape[1] for part in PARTS] == [4488, 263, 527]
    assert [getattr(split, name).shape[1] for name in NEGATIVES] == [263, 527, 527, 527]


def test_a_generator_is_a_function_of_its_arguments() -> None:
    assert generator(0, 1, "a").random() == generator(0, 1, "a").random()
    assert generator(0, 1, "a").random() != generator(0, 1, "b").random()
