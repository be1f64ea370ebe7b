from __future__ import annotations

import importlib
import itertools

import networkx as nx
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, brier_score_loss, roc_auc_score

from core.contract import DataCard
from core.runtime.errors import RunFailed
from domains.graph.config import CosineVGAE
from domains.graph.data import Dataset, split_links, whole
from domains.graph.metrics import (
    area_under_curve,
    average_precision,
    brier,
    expected_calibration_error,
    fit,
    floors,
    new_links,
    ranking_metrics,
    require_few_ties,
)
from domains.graph.metrics.ranking import Order, ranks
from domains.graph.model.links import assemble

new_links_module = importlib.import_module("domains.graph.metrics.new_links")


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    graph = nx.gnm_random_graph(40, 160, seed=1)
    edges = np.array(sorted(tuple(sorted(edge)) for edge in graph.edges), dtype=np.int64).T
    names = [str(node) for node in range(40)]
    split = split_links(edges, 40, False, 0.1, 0.2, 0)
    card = DataCard(source="made up", licence="none", fingerprint="0")
    features = np.random.default_rng(0).standard_normal((40, 5)).astype(np.float32)
    return Dataset(features, edges, names, names, None, False, None, split, card)


pairs_of_scores = st.lists(
    st.tuples(st.booleans(), st.integers(-5, 5)), min_size=4, max_size=40
).filter(lambda found: len({label for label, _ in found}) == 2)


@given(pairs_of_scores)
@settings(max_examples=60, deadline=None)
def test_auc_and_average_precision_are_those_of_scikit_learn_with_ties_too(
    found: list[tuple[bool, int]],
) -> None:
    labels, scores = (np.array(column, dtype=np.float64) for column in zip(*found, strict=True))
    assert area_under_curve(labels, scores) == pytest.approx(roc_auc_score(labels, scores))
    assert average_precision(labels, scores) == pytest.approx(
        average_precision_score(labels, scores)
    )


def test_a_resample_is_counted_as_if_its_examples_were_listed() -> None:
    rng = np.random.default_rng(0)
    labels = (rng.random(50) < 0.5).astype(np.float64)
    scores = rng.integers(0, 20, 50).astype(np.float64)
    order, places = Order(labels, scores), rng.integers(0, 50, (3, 50))
    by_score = np.argsort(scores, kind="stable")
    for row, auc, precision in zip(
        places, order.area_under_curve(places), order.average_precision(places), strict=True
    ):
        drawn = by_score[row]
        assert auc == pytest.approx(roc_auc_score(labels[drawn], scores[drawn]))
        assert precision == pytest.approx(average_precision_score(labels[drawn], scores[drawn]))


def test_the_area_of_a_perfect_and_of_a_constant_score() -> None:
    labels = np.array([0.0, 0, 1, 1])
    assert area_under_curve(labels, np.arange(4.0)) == 1
    assert area_under_curve(labels, -np.arange(4.0)) == 0
    assert area_under_curve(labels, np.zeros(4)) == 0.5


def test_tied_scores_are_refused_with_the_pitfall_in_words() -> None:
    require_few_ties(np.arange(1000.0), "test links")
    with pytest.raises(RunFailed, match=r"tied.*artefact of rounding"):
        require_few_ties(np.repeat(np.arange(50.0), 2), "test links")
    with pytest.raises(RunFailed):
        ranking_metrics(np.full(100, 40.0), np.full(100, 40.0), resamples=10, seed=0)


def test_the_interval_holds_the_value_and_narrows_with_more_pairs() -> None:
    rng = np.random.default_rng(0)
    widths = []
    for size in (100, 2000):
        found = ranking_metrics(
            rng.normal(1.5, 1, size), rng.normal(0, 1, size), resamples=200, seed=0
        )["auc"]
        assert found.interval is not None
        assert found.interval[0] < found.value < found.interval[1]
        assert found.n == 2 * size
        assert found.primary
        widths.append(found.interval[1] - found.interval[0])
    assert widths[1] < widths[0] / 3


def test_ranks_start_at_one_and_share_ties() -> None:
    own = np.array([3.0, 1.0, 0.0])
    corrupted = np.array([[1.0, 2.0], [1.0, 5.0], [1.0, 2.0]])
    assert ranks(own, corrupted).tolist() == [1.0, 2.5, 3.0]


@given(st.floats(0.2, 5), st.floats(-2, 2))
@settings(max_examples=10, deadline=None)
def test_calibration_recovers_a_known_temperature_and_bias(slope: float, bias: float) -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 3 / slope, 40_000)
    labels = (rng.random(len(logits)) < sigmoid(slope * logits + bias)).astype(np.float64)
    found = fit(labels, logits)
    assert found.slope == pytest.approx(slope, rel=0.1)
    assert found.bias == pytest.approx(bias, abs=0.1)
    assert found.temperature == pytest.approx(1 / slope, rel=0.1)


def test_calibration_is_the_maximum_of_the_likelihood() -> None:
    rng = np.random.default_rng(3)
    logits = rng.normal(0, 2, 5000) + 40
    labels = (rng.random(5000) < sigmoid(0.7 * (logits - 40))).astype(np.float64)
    found = fit(labels, logits)
    other = LogisticRegression(C=np.inf, tol=1e-10).fit(logits[:, None] - 40, labels)
    assert found.slope == pytest.approx(other.coef_[0, 0], rel=1e-2)
    np.testing.assert_allclose(
        found(logits), other.predict_proba(logits[:, None] - 40)[:, 1], atol=2e-3
    )


def test_calibration_of_separable_scores_is_finite_and_keeps_the_order() -> None:
    labels, logits = np.repeat([0.0, 1.0], 20), np.linspace(-1e4, 1e4, 40)
    found = fit(labels, logits)
    assert np.isfinite([found.slope, found.bias]).all()
    assert found.slope > 0
    assert 0 < brier(labels, found(logits)) < 0.05
    assert np.isfinite(fit(labels, np.zeros(40)).bias)


def test_brier_is_that_of_scikit_learn_and_calibrated_scores_have_no_error() -> None:
    rng = np.random.default_rng(0)
    said = rng.random(20_000)
    labels = (rng.random(len(said)) < said).astype(np.float64)
    assert brier(labels, said) == pytest.approx(brier_score_loss(labels, said))
    assert expected_calibration_error(labels, said) < 0.02
    assert expected_calibration_error(labels, np.sqrt(said)) > 0.1


def test_adamic_adar_is_that_of_networkx(dataset: Dataset) -> None:
    graph = nx.Graph()
    graph.add_nodes_from(range(40))
    graph.add_edges_from(dataset.split.train.T.tolist())
    pairs = np.array(list(itertools.combinations(range(40), 2)), dtype=np.int64).T
    expected = [score for *_, score in nx.adamic_adar_index(graph, pairs.T.tolist())]
    np.testing.assert_allclose(floors(dataset)["Adamic–Adar"].pairs(pairs), expected)


def test_preferential_attachment_ranks_as_that_of_networkx(dataset: Dataset) -> None:
    graph = nx.Graph()
    graph.add_nodes_from(range(40))
    graph.add_edges_from(dataset.split.train.T.tolist())
    pairs = np.array(list(itertools.combinations(range(40), 2)), dtype=np.int64).T
    degree = dict(graph.degree)
    expected = [np.log1p(degree[i]) + np.log1p(degree[j]) for i, j in pairs.T.tolist()]
    np.testing.assert_allclose(floors(dataset)["preferential attachment"].pairs(pairs), expected)


def test_untrained_propagated_cosine_is_the_dense_formula(dataset: Dataset) -> None:
    adjacency = np.eye(40)
    adjacency[tuple(dataset.split.train)] = 1
    adjacency = np.maximum(adjacency, adjacency.T)
    scale = adjacency.sum(1) ** -0.5
    features = dataset.features
    near = (adjacency * scale[:, None] * scale) @ ((features - features.mean(0)) / features.std(0))
    near /= np.linalg.norm(near, axis=1, keepdims=True)
    pairs = np.array(list(itertools.combinations(range(40), 2)), dtype=np.int64).T
    found = floors(dataset)["untrained propagated cosine"]
    np.testing.assert_allclose(found.pairs(pairs), (near @ near.T)[tuple(pairs)], atol=1e-5)


def test_floors_score_rows_as_they_score_pairs(dataset: Dataset) -> None:
    sources = np.array([3, 17])
    pairs = np.stack([np.repeat(sources, 40), np.tile(np.arange(40), 2)])
    for floor in floors(dataset).values():
        np.testing.assert_allclose(floor.rows(sources).ravel(), floor.pairs(pairs))


@pytest.mark.parametrize("exact_nodes", [100, 10])
def test_new_links_are_the_best_pairs_that_are_no_links(
    dataset: Dataset, exact_nodes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(new_links_module, "EXACT_NODES", exact_nodes)
    monkeypatch.setattr(new_links_module, "ROWS", 7)
    torch.manual_seed(0)
    model = assemble(CosineVGAE(latent=4), dataset).eval()
    known = whole(dataset)
    pairs, logits = new_links(model, known, 25)
    every = np.array(list(itertools.combinations(range(40), 2)), dtype=np.int64).T
    adjacency = np.zeros((40, 40), dtype=int)
    adjacency[tuple(np.concatenate([dataset.edges, dataset.edges[::-1]], axis=1))] = 1
    allowed = adjacency[tuple(every)] == 0
    if exact_nodes == 10:
        allowed &= (adjacency @ adjacency)[tuple(every)] > 0
    scores = model.score(known.graph, torch.from_numpy(every[:, allowed]))
    np.testing.assert_allclose(logits, np.sort(scores)[::-1][:25], rtol=1e-4)
    assert (adjacency[tuple(pairs)] == 0).all()
    of_one, _ = new_links(model, known, 1000, source=3)
    assert (of_one[0] == 3).all()
    assert of_one.shape[1] == 39 - adjacency[3].sum()
