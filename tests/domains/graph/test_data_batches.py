"""What a model sees at each step."""

from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from scipy import sparse

from core.contract import DataCard
from domains.graph.data import Dataset, Graph, LinkBatches, corruptions, split_links
from domains.graph.data.batches import feature_tensor, sample_neighbours
from domains.graph.data.pairs import distinct, pair_count, pair_numbers, pairs_of

NODES = 60


def a_dataset(
    edges: int = 150, nodes: int = NODES, directed: bool = False, seed: int = 0
) -> Dataset:
    rng = np.random.default_rng(seed)
    drawn = np.sort(distinct(rng, edges, pair_count(nodes, directed)))
    links = pairs_of(drawn, nodes, directed)
    names = [str(node) for node in range(nodes)]
    return Dataset(
        features=rng.normal(size=(nodes, 3)).astype(np.float32),
        edges=links,
        names=names,
        titles=names,
        labels=None,
        directed=directed,
        positions=None,
        split=split_links(links, nodes, directed, 0.1, 0.2, seed),
        card=DataCard(source="", licence="", fingerprint=""),
    )


def link_batches(dataset: Dataset, split: str = "train", **changes: object) -> LinkBatches:
    regime = {"seed": 0, "hide": 0.3, "negatives": 2, "neighbours": None, "batch_edges": 20}
    return LinkBatches(dataset, split, **{**regime, **changes})  # type: ignore[arg-type]


def numbers(dataset: Dataset, graph: Graph, pairs: torch.Tensor, directed: bool) -> set[int]:
    whole = graph.nodes.numpy()[pairs.numpy()]
    return set(pair_numbers(whole, len(dataset.names), directed).tolist())


def bytes_of(graph: Graph) -> bytes:
    parts = (graph.features, graph.messages, graph.edges, graph.non_edges, graph.nodes)
    return b"".join(part.numpy().tobytes() for part in parts if part is not None)


regimes = st.fixed_dictionaries(
    {
        "seed": st.integers(0, 5),
        "hide": st.sampled_from([0.0, 0.3, 0.9]),
        "negatives": st.integers(1, 3),
        "neighbours": st.sampled_from([None, [3], [2, 4]]),
        "batch_edges": st.integers(5, 200),
    }
)


@given(regime=regimes, directed=st.booleans(), epoch=st.integers(0, 3))
@settings(max_examples=60, deadline=None)
def test_messages_never_hold_a_hidden_or_held_out_link(
    regime: dict[str, object], directed: bool, epoch: int
) -> None:
    dataset = a_dataset(directed=directed)
    batches = link_batches(dataset, **regime)
    train = set(pair_numbers(dataset.split.train, NODES, directed=False).tolist())
    for index in range(len(batches)):
        graph = batches.batch(epoch, index)
        messages = numbers(dataset, graph, graph.messages, directed=False)
        assert messages <= train
        if regime["hide"]:
            assert not messages & numbers(dataset, graph, graph.edges, directed=False)


@given(regime=regimes, directed=st.booleans())
@settings(max_examples=40, deadline=None)
def test_training_negatives_are_distinct_and_no_train_links(
    regime: dict[str, object], directed: bool
) -> None:
    dataset = a_dataset(directed=directed)
    batches = link_batches(dataset, **regime)
    train = set(pair_numbers(dataset.split.train, NODES, directed).tolist())
    graph = batches.batch(0, 0)
    assert graph.non_edges is not None
    drawn = numbers(dataset, graph, graph.non_edges, directed)
    assert not drawn & train
    assert len(drawn) == graph.non_edges.shape[1]
    assert len(drawn) == regime["negatives"] * graph.edges.shape[1]


@given(regime=regimes, directed=st.booleans())
@settings(max_examples=40, deadline=None)
def test_messages_are_sorted_both_ways_and_without_loops(
    regime: dict[str, object], directed: bool
) -> None:
    graph = link_batches(a_dataset(directed=directed), **regime).batch(1, 0)
    source, target = graph.messages.numpy()
    keys = source * len(graph.nodes) + target
    assert (np.diff(keys) > 0).all()
    assert (source != target).all()
    assert set(keys.tolist()) == set((target * len(graph.nodes) + source).tolist())


@pytest.mark.parametrize("neighbours", [None, [3, 2]])
def test_a_batch_is_a_function_of_epoch_and_index_in_any_order(
    neighbours: list[int] | None,
) -> None:
    dataset = a_dataset()
    forward, backward = (link_batches(dataset, neighbours=neighbours) for _ in range(2))
    places = [(epoch, index) for epoch in range(3) for index in range(len(forward))]
    there = {place: bytes_of(forward.batch(*place)) for place in places}
    back = {place: bytes_of(backward.batch(*place)) for place in reversed(places)}
    assert there == back
    assert len(set(there.values())) == len(places)


def test_the_seed_matters() -> None:
    dataset = a_dataset()
    first, second = (link_batches(dataset, seed=seed).batch(0, 0) for seed in (0, 1))
    assert bytes_of(first) != bytes_of(second)


def test_kipfs_regime_explains_every_train_link_against_all_other_pairs() -> None:
    dataset = a_dataset()
    graph = link_batches(dataset, hide=0.0, negatives=0).batch(4, 0)
    assert np.array_equal(graph.edges.numpy(), dataset.split.train)
    assert graph.non_edges is None
    assert graph.messages.shape[1] == 2 * dataset.split.train.shape[1]
    assert graph.total_edges == dataset.split.train.shape[1]
    assert graph.total_edges + graph.total_non_edges == pair_count(NODES, False)


def test_hiding_hides_the_fraction_that_was_asked_for() -> None:
    dataset = a_dataset()
    graph = link_batches(dataset, hide=0.3, negatives=0).batch(0, 0)
    train = dataset.split.train.shape[1]
    assert graph.edges.shape[1] == round(0.3 * train)
    assert graph.messages.shape[1] == 2 * (train - round(0.3 * train))
    assert graph.total_edges == train


def test_over_an_epoch_sampled_batches_explain_every_train_link_once() -> None:
    dataset = a_dataset()
    batches = link_batches(dataset, neighbours=[2], batch_edges=16)
    explained: list[int] = []
    for index in range(len(batches)):
        graph = batches.batch(2, index)
        explained += numbers(dataset, graph, graph.edges, directed=False)
    assert sorted(explained) == sorted(
        pair_numbers(dataset.split.train, NODES, directed=False).tolist()
    )


@pytest.mark.parametrize("split", ["valid", "test"])
def test_held_out_batches_pass_messages_along_train_links_alone(split: str) -> None:
    dataset = a_dataset()
    batches = link_batches(dataset, split, neighbours=[2])
    graph = batches.batch(0, 0)
    assert len(batches) == 1
    assert graph is batches.batch(7, 0)
    assert np.array_equal(graph.edges.numpy(), getattr(dataset.split, split))
    assert np.array_equal(
        graph.non_edges.numpy(),  # type: ignore[union-attr]
        getattr(dataset.split, f"{split}_non_edges"),
    )
    assert numbers(dataset, graph, graph.messages, directed=False) == set(
        pair_numbers(dataset.split.train, NODES, directed=False).tolist()
    )


def test_sampled_neighbourhoods_keep_the_rows_of_their_nodes() -> None:
    dataset = a_dataset()
    graph = link_batches(dataset, neighbours=[2], batch_edges=3).batch(0, 0)
    assert len(graph.nodes) < NODES == graph.total_nodes
    assert graph.features is not None
    assert np.array_equal(graph.features.numpy(), dataset.features[graph.nodes.numpy()])  # type: ignore[index]


def an_adjacency(nodes: int = 30) -> sparse.csr_matrix:
    pairs = pairs_of(np.arange(0, pair_count(nodes, False), 3), nodes, False)
    source, target = np.concatenate([pairs, pairs[::-1]], axis=1)
    return sparse.csr_matrix((np.ones(len(source)), (source, target)), shape=(nodes, nodes))


@given(seed=st.integers(0, 1000), fan_out=st.integers(1, 20))
@settings(max_examples=40, deadline=None)
def test_sampled_neighbours_are_neighbours_distinct_and_as_many_as_asked(
    seed: int, fan_out: int
) -> None:
    adjacency = an_adjacency()
    seeds = np.array([3, 7, 7])
    near, owner = sample_neighbours(np.random.default_rng(seed), adjacency, seeds, [fan_out])
    for node in (3, 7):
        sampled = near[owner == node]
        true = adjacency.indices[adjacency.indptr[node] : adjacency.indptr[node + 1]]
        assert set(sampled.tolist()) <= set(true.tolist())
        assert len(set(sampled.tolist())) == len(sampled) == min(fan_out, len(true))


def test_with_room_for_all_two_steps_reach_exactly_the_two_step_neighbourhood() -> None:
    adjacency = an_adjacency()
    links = sample_neighbours(np.random.default_rng(0), adjacency, np.array([0]), [99, 99])
    step = adjacency[0].indices
    both = {0, *step.tolist(), *adjacency[step].indices.tolist()}
    assert set(links.ravel().tolist()) == both


def test_neighbours_are_sampled_uniformly() -> None:
    adjacency = sparse.csr_matrix(np.ones((1, 6)))
    counts = np.zeros(6)
    for seed in range(1200):
        near, _ = sample_neighbours(np.random.default_rng(seed), adjacency, np.array([0]), [2])
        counts[near] += 1
    assert counts.sum() == 2400
    assert abs(counts - 400).max() < 5 * np.sqrt(400)


def test_neighbour_sampling_without_negatives_is_refused() -> None:
    with pytest.raises(ValueError, match="needs sampled negatives"):
        link_batches(a_dataset(), neighbours=[2], negatives=0)


def test_large_sparse_features_stay_sparse_and_equal() -> None:
    matrix = sparse.random(1500, 1000, density=0.01, format="csr", dtype=np.float32, rng=0)
    tensor = feature_tensor(matrix)
    assert tensor.layout == torch.sparse_csr
    assert np.array_equal(tensor.to_dense().numpy(), matrix.toarray())
    assert feature_tensor(matrix[:10]).layout == torch.strided


def test_a_graph_moves_with_all_its_parts() -> None:
    graph = link_batches(a_dataset()).batch(0, 0).to("meta")
    parts = (graph.features, graph.messages, graph.edges, graph.non_edges, graph.nodes)
    assert {part.device.type for part in parts if part is not None} == {"meta"}


@pytest.mark.parametrize("directed", [False, True])
def test_corruptions_are_no_links_and_not_the_source(directed: bool) -> None:
    dataset = a_dataset(edges=600, directed=directed)
    targets = corruptions(dataset, dataset.split.test, 200, seed=0)
    source = np.repeat(dataset.split.test[0], 200)
    pairs = np.stack([source, targets.ravel()])
    assert targets.shape == (dataset.split.test.shape[1], 200)
    assert (pairs[0] != pairs[1]).all()
    links = set(pair_numbers(dataset.edges, NODES, directed).tolist())
    assert not set(pair_numbers(pairs, NODES, directed).tolist()) & links


def test_corruptions_reach_every_other_node_equally_often() -> None:
    dataset = a_dataset()
    edge = dataset.split.test[:, :1]
    counts = np.bincount(corruptions(dataset, edge, 20_000, seed=0)[0], minlength=NODES)
    linked = dataset.edges[:, (dataset.edges == edge[0]).any(axis=0)]
    free = np.setdiff1d(np.arange(NODES), np.append(linked, edge[0]))
    assert set(np.flatnonzero(counts).tolist()) == set(free.tolist())
    expected = 20_000 / len(free)
    assert abs(counts[free] - expected).max() < 5 * np.sqrt(expected)


def test_a_source_linked_to_all_has_no_corruptions() -> None:
    dataset = a_dataset(edges=pair_count(NODES, False))
    assert (corruptions(dataset, dataset.split.test, 5, seed=0) == -1).all()
