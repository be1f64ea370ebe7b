from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from core.variational.objectives import ELBO
from domains.graph.config import CONFIG, Config, resolve
from domains.graph.data import Graph, LinkBatches, load, prepare
from domains.graph.model import Adjacency, LinkModel, build, pairs_softplus
from domains.graph.model import decoders as decoders_module
from domains.graph.model.features import FeatureScaling, chosen, prepared
from domains.graph.model.propagation import sparse_rows

KINDS = ("vgae", "gae", "linear-vgae", "vgnae", "cosine-vgae")
NODES = 24


def settings(kind: str, **model: Any) -> Config:
    small = {"latent": 4} | ({"hidden": 5} if kind in ("vgae", "gae", "cosine-vgae") else {})
    given = {"kind": kind, **small, **model}
    return CONFIG.model_validate({"domain": "graph", "name": "test", "model": given})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small graph with features, from files."""
    place = tmp_path_factory.mktemp("graph")
    rng = np.random.default_rng(0)
    upper = [pair for pair in itertools.combinations(range(NODES), 2) if rng.random() < 0.25]
    (place / "edges.csv").write_text(
        "source,target\n" + "\n".join(f"n{i:02d},n{j:02d}" for i, j in upper)
    )
    rows = [
        f"n{i:02d}," + ",".join(f"{x:.4f}" for x in rng.standard_normal(6)) for i in range(NODES)
    ]
    (place / "features.csv").write_text("node,a,b,c,d,e,f\n" + "\n".join(rows))
    data = {
        "source": "edges",
        "root": str(place / "edges.csv"),
        "features": str(place / "features.csv"),
        "directed": False,
    }
    prepare(
        CONFIG.model_validate({"domain": "graph", "name": "test", "data": data}), place / "data"
    )
    return place / "data"


def batch(folder: Path, hide: float = 0.0, negatives: int = 0, epoch: int = 0) -> Graph:
    batches = LinkBatches(load(folder), "train", 0, hide, negatives, None, 1)
    return batches.batch(epoch, 0)


def model_of(folder: Path, kind: str, seed: int = 0, **model: Any) -> LinkModel:
    torch.manual_seed(seed)
    return build(settings(kind, **model), folder)


def loss(model: LinkModel, graph: Graph, seed: int = 0) -> torch.Tensor:
    torch.manual_seed(seed)
    return ELBO()(model.evidence(graph)).loss


def dense_log_likelihood(model: LinkModel, graph: Graph, z: torch.Tensor) -> torch.Tensor:
    """Of all pairs of a node × node matrix: edges once, messages not at all unless edges."""
    adjacency = Adjacency(graph.messages, len(graph.nodes), z.dtype)
    logits = model.decoder.rows(z, adjacency, torch.arange(len(graph.nodes)))[0]
    edge = torch.zeros_like(logits)
    edge[graph.edges[0], graph.edges[1]] = 1
    known = edge.clone()
    known[graph.messages[0], graph.messages[1]] = 1
    upper = torch.ones_like(logits).triu(1)
    edges = (functional.logsigmoid(logits) * edge).sum()
    non_edges = -(functional.softplus(logits) * (1 - known) * upper).sum()
    return torch.stack([edges * graph.total_edges / graph.edges.shape[1], non_edges])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("hide", "negatives"), [(0.0, 0), (0.3, 2)])
def test_the_gradient_reaches_every_parameter(
    folder: Path, kind: str, hide: float, negatives: int
) -> None:
    model = model_of(folder, kind)
    loss(model, batch(folder, hide, negatives)).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert bool((parameter.grad != 0).any()), name


@pytest.mark.parametrize("kind", KINDS)
def test_evidence_is_a_number_for_each_sample_of_the_one_graph(folder: Path, kind: str) -> None:
    model = model_of(folder, kind)
    evidence = model.evidence(batch(folder, 0.3, 2), samples=3)
    assert {tuple(t.shape) for t in evidence.log_likelihood.values()} == {(3, 1)}
    assert set(evidence.log_likelihood) == {"edges", "non_edges"}
    assert len(evidence.latents) == (0 if kind == "gae" else 1)
    for latent in evidence.latents:
        width = model.encoder.latent
        assert latent.value.shape == (3, 1, NODES, width)
        assert latent.posterior.batch_shape == (1,)
        assert latent.posterior.event_shape == (NODES, width)
        assert latent.closed_form
        assert latent.kl().shape == latent.log_ratio().shape == (3, 1)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "cosine-vgae"])
def test_permuting_the_nodes_permutes_the_posterior_and_leaves_the_objective(
    folder: Path, kind: str
) -> None:
    permutation_leaves(folder, kind)


def test_so_does_the_cosine_vgae_without_a_vector_for_each_node(folder: Path) -> None:
    permutation_leaves(folder, "cosine-vgae", identity=False)


def permutation_leaves(folder: Path, kind: str, **given: Any) -> None:
    model = model_of(folder, kind, **given).double().eval()
    graph = batch(folder, 0.3)
    order = torch.randperm(NODES, generator=torch.Generator().manual_seed(1))
    place = torch.argsort(order)
    messages = place[graph.messages]
    messages = messages[:, torch.argsort(messages[0] * NODES + messages[1])]
    assert graph.features is not None
    permuted = replace(
        graph,
        features=graph.features[order],
        messages=messages,
        edges=place[graph.edges].sort(dim=0).values,
    )
    (encoded, adjacency), (encoded_p, adjacency_p) = model.encode(graph), model.encode(permuted)
    loc = model.embed(graph)
    torch.testing.assert_close(loc[order], model.embed(permuted))
    if not isinstance(encoded, Tensor):
        torch.testing.assert_close(encoded.stddev[0, order], encoded_p.stddev[0])
    z = loc[None]
    for term in (model.edges, model.non_edges):
        torch.testing.assert_close(
            term(z, adjacency, graph), term(z[:, order], adjacency_p, permuted)
        )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("hide", [0.0, 0.3])
def test_the_blocked_exact_terms_are_those_of_the_dense_matrix(
    folder: Path, kind: str, hide: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoders_module, "ROW_BLOCK", 7 * NODES)
    model, graph = model_of(folder, kind).double().eval(), batch(folder, hide)
    z = 0.7 * torch.randn(1, NODES, model.encoder.latent, dtype=torch.float64)
    adjacency = Adjacency(graph.messages, NODES, torch.float64)
    gradients, values = [], []
    for blocked in (True, False):
        z.requires_grad_(True).grad = None
        if blocked:
            both = torch.stack(
                [model.edges(z, adjacency, graph), model.non_edges(z, adjacency, graph)]
            )
        else:
            both = dense_log_likelihood(model, graph, z)
        both.sum().backward()
        assert z.grad is not None
        values.append(both.detach().flatten())
        gradients.append(z.grad.clone())
    torch.testing.assert_close(values[0], values[1], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("rows", [1, 5, 24, 100])
def test_the_sum_over_pairs_does_not_depend_on_the_block(rows: int) -> None:
    z = torch.randn(2, NODES, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: pairs_softplus(x, rows), z)
    upper = torch.ones(NODES, NODES).triu(1)
    expected = (functional.softplus(z @ z.mT) * upper).sum((1, 2))
    torch.testing.assert_close(pairs_softplus(z, rows), expected)


@pytest.mark.parametrize("kind", ["vgae", "cosine-vgae"])
def test_sampled_terms_are_unbiased_for_the_exact_ones(folder: Path, kind: str) -> None:
    model = model_of(folder, kind).double().eval()
    z = torch.randn(1, NODES, model.encoder.latent, dtype=torch.float64)
    exact = batch(folder)
    adjacency = Adjacency(exact.messages, NODES, torch.float64)
    batches = LinkBatches(load(folder), "train", 0, 0.0, 1, None, 1)
    with torch.no_grad():
        value = float(model.non_edges(z, adjacency, exact))
        whole = float(model.edges(z, adjacency, exact))
        sampled = np.array(
            [float(model.non_edges(z, adjacency, batches.batch(e, 0))) for e in range(400)]
        )
        hidden = LinkBatches(load(folder), "train", 0, 0.3, 1, None, 1)
        edges = np.array(
            [float(model.edges(z, adjacency, hidden.batch(e, 0))) for e in range(400)]
        )
    assert abs(sampled.mean() - value) < 4 * sampled.std() / 20
    assert abs(edges.mean() - whole) < 4 * edges.std() / 20


def test_many_pairs_are_taken_in_chunks_with_the_same_result(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, graph = model_of(folder, "cosine-vgae"), batch(folder, 0.3, 3)
    results = []
    for chunk in (2**23, 500):
        monkeypatch.setattr(decoders_module, "CHUNK", chunk)
        model.zero_grad()
        value = loss(model, graph)
        value.backward()
        results.append([value.detach(), *(p.grad.clone() for p in model.parameters())])  # pyright: ignore
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_rows_and_pairs_give_the_same_logits(folder: Path) -> None:
    graph = batch(folder)
    sources = torch.tensor([3, 1, 20])
    pairs = torch.cartesian_prod(sources, torch.arange(NODES)).T
    for kind in KINDS:
        model = model_of(folder, kind).eval()
        rows = model.score_rows(graph, sources).ravel()
        np.testing.assert_allclose(rows, model.score(graph, pairs), rtol=1e-4, atol=1e-5)


def test_logits_are_the_same_both_ways_round(folder: Path) -> None:
    graph = batch(folder)
    pairs = torch.tensor([[0, 4, 9], [7, 2, 23]])
    for kind in KINDS:
        model = model_of(folder, kind).eval()
        np.testing.assert_allclose(
            model.score(graph, pairs), model.score(graph, pairs.flip(0)), rtol=1e-5
        )


def test_a_node_that_lost_its_links_counts_as_having_one(folder: Path) -> None:
    model = model_of(folder, "cosine-vgae", identity=False).eval()
    z = torch.randn(1, 4, model.encoder.latent)
    pairs = torch.tensor([[0], [1]])
    alone = Adjacency(torch.tensor([[0, 2], [2, 0]]), 4)
    linked = Adjacency(torch.tensor([[0, 1, 2, 3], [2, 3, 0, 1]]), 4)
    torch.testing.assert_close(
        model.decoder.logits(z, alone, pairs), model.decoder.logits(z, linked, pairs)
    )


def test_the_class_balance_is_a_weight_and_not_in_the_reported_value(folder: Path) -> None:
    model, graph = model_of(folder, "vgae").eval(), batch(folder)
    torch.manual_seed(0)
    evidence = model.evidence(graph)
    assert evidence.weights["edges"] == graph.total_non_edges / graph.total_edges
    value = ELBO()(evidence).value
    plain = (
        sum(t.mean() for t in evidence.log_likelihood.values()) - evidence.latents[0].kl().mean()
    )
    torch.testing.assert_close(value, plain)


def test_propagation_is_the_normalised_adjacency_both_ways() -> None:
    rng = np.random.default_rng(2)
    upper = np.triu(rng.random((9, 9)) < 0.3, 1)
    dense = upper + upper.T
    messages = torch.from_numpy(np.stack(np.nonzero(dense)))
    with_loops = dense + np.eye(9)
    scale = 1 / np.sqrt(with_loops.sum(1))
    expected = torch.from_numpy(with_loops * scale[:, None] * scale[None])
    h = torch.randn(9, 3, dtype=torch.float64, requires_grad=True)
    adjacency = Adjacency(messages, 9, torch.float64)
    torch.testing.assert_close(adjacency.propagate(h), expected @ h)
    assert torch.autograd.gradcheck(adjacency.propagate, h)


@pytest.mark.parametrize("kind", ["raw", "tfidf", "row-normalised"])
def test_sparse_features_are_prepared_as_dense_ones_are(kind: str) -> None:
    from scipy import sparse

    words = (np.random.default_rng(0).random((12, 7)) < 0.3).astype(np.float32)
    scaling = FeatureScaling(kind, words)
    dense = scaling(torch.from_numpy(words))
    rows = sparse.csr_matrix(words)
    csr = sparse_rows(
        *(torch.from_numpy(x) for x in (rows.indptr, rows.indices, rows.data)), (12, 7)
    )
    torch.testing.assert_close(FeatureScaling(kind, rows)(csr).to_dense(), dense)


def test_automatic_features_are_tfidf_for_words_and_standardised_otherwise() -> None:
    words = (np.random.default_rng(0).random((12, 7)) < 0.3).astype(np.float32)
    numbers = np.random.default_rng(0).standard_normal((12, 7)).astype(np.float32)
    assert chosen("auto", words) == "tfidf"
    assert chosen("auto", numbers) == "standardised"
    assert chosen("raw", words) == "raw"
    standard = prepared("auto", numbers)
    torch.testing.assert_close(standard.mean(0), torch.zeros(7), atol=1e-6, rtol=0)
    torch.testing.assert_close(standard.std(0, correction=0), torch.ones(7))


def test_small_graphs_are_exact_and_large_ones_sampled() -> None:
    config = settings("vgae")
    small, words = resolve(config, 2708)
    assert small.model.negatives == 0
    assert "all pairs" in words
    assert resolve(config, 20_000)[0].model.negatives == 5
    assert resolve(settings("vgae", negatives=3), 2708)[0].model.negatives == 3


def test_a_graph_without_features_looks_its_nodes_up(folder: Path) -> None:
    dataset = replace(load(folder), features=None)
    from domains.graph.model.links import assemble

    for kind in KINDS:
        model = assemble(settings(kind).model, dataset)
        graph = LinkBatches(dataset, "train", 0, 0.3, 2, None, 1).batch(0, 0)
        loss(model, graph).backward()
        assert all(p.grad is not None and (p.grad != 0).any() for p in model.parameters())
