"""From files to a prepared graph, and what is said when they are not in order."""

from __future__ import annotations

import gzip
import os
import pickle
import resource
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from scipy import sparse

from core.runtime.errors import UserError
from domains.graph.config import Data
from domains.graph.data import Dataset, LinkBatches, corruptions, load, prepare, split_hash
from domains.graph.data.pairs import distinct, pair_count, pairs_of

EDGES = [(i, (i * i + step) % 29) for step in (1, 2) for i in range(29)]
EDGES = sorted({(min(e), max(e)) for e in EDGES if e[0] != e[1]})


def settings(seed: int = 0, **data: Any) -> Any:
    return SimpleNamespace(seed=seed, data=Data(**data))


def prepared(folder: Path, seed: int = 0, **data: Any) -> Dataset:
    prepare(settings(seed, **data), folder / "data")
    return load(folder / "data")


def edge_file(folder: Path, lines: list[str] | None = None, name: str = "edges.csv") -> Path:
    lines = ["source,target", *(f"{i},{j}" for i, j in EDGES)] if lines is None else lines
    path = folder / name
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def named_edges(dataset: Dataset) -> set[tuple[str, str]]:
    return {(dataset.names[i], dataset.names[j]) for i, j in dataset.edges.T}


def refusal(folder: Path, **data: Any) -> str:
    """The one line that a person reads."""
    with pytest.raises(UserError) as caught:
        prepared(folder, **data)
    message = str(caught.value)
    assert "\n" not in message
    return message


def planetoid(folder: Path, name: str = "Cora", nodes: int = 30, test: int = 6) -> Path:
    """A tiny graph in Planetoid's form; the last but one test node is missing, as in CiteSeer."""
    raw = folder / name / "raw"
    raw.mkdir(parents=True)
    rng = np.random.default_rng(0)
    features = sparse.csr_matrix((rng.random((nodes, 7)) < 0.4).astype(np.float32))
    labels = np.eye(3, dtype=np.int32)[rng.integers(0, 3, nodes)]
    rows = np.array([*range(nodes - test, nodes - 2), nodes - 1])
    rows = rng.permutation(rows)
    graph: defaultdict[int, list[int]] = defaultdict(list)
    for i, j in EDGES:
        graph[i].append(j)
        graph[j].append(i)
    graph[0] += [0, graph[0][0]]  # a self loop and a repeat
    parts = {
        "allx": features[: nodes - test],
        "tx": features[rows],
        "ally": labels[: nodes - test],
        "ty": labels[rows],
        "graph": graph,
    }
    for part, value in parts.items():
        (raw / f"ind.{name.lower()}.{part}").write_bytes(pickle.dumps(value, protocol=4))
    (raw / f"ind.{name.lower()}.test.index").write_text("\n".join(map(str, rows)))
    np.savez(folder / "truth.npz", features=features.toarray(), labels=labels.argmax(1), rows=rows)
    return raw


# --- sources ---------------------------------------------------------------------------------


def test_the_embedded_graph_is_real_named_and_on_the_map(tmp_path: Path) -> None:
    dataset = prepared(tmp_path)
    assert dataset.features is not None
    assert dataset.positions is not None
    assert dataset.labels is not None
    assert len(dataset.names) == len(set(dataset.names)) == len(dataset.titles) > 300
    assert dataset.edges.shape[1] > 3000
    assert dataset.features.shape == (len(dataset.names), 4)
    assert np.allclose(np.linalg.norm(dataset.features[:, :3], axis=1), 1, atol=1e-6)
    jfk = dataset.names.index("JFK")
    assert "Kennedy" in dataset.titles[jfk]
    assert np.allclose(dataset.positions[jfk], [-73.78, 40.64], atol=0.02)
    assert ("JFK", "LAX") in named_edges(dataset) | {(b, a) for a, b in named_edges(dataset)}
    assert "public domain" in dataset.card.licence


def test_reading_the_embedded_graph_does_not_import_its_package() -> None:
    code = (
        "import sys; from domains.graph.data import airline_routes; airline_routes.read();"
        "sys.exit('bokeh_sampledata' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("root", ["", "Cora", "Cora/raw"])
def test_planetoid_is_read_from_any_of_its_folders(tmp_path: Path, root: str) -> None:
    planetoid(tmp_path)
    dataset = prepared(tmp_path, source="planetoid", root=str(tmp_path / root))
    truth = np.load(tmp_path / "truth.npz")
    rows = np.concatenate([np.arange(24), truth["rows"]])
    missing = np.setdiff1d(np.arange(30), rows)
    features = dataset.features
    features = features.toarray() if sparse.issparse(features) else features
    assert dataset.labels is not None
    assert np.array_equal(features[rows], truth["features"][rows])
    assert not features[missing].any()
    assert np.array_equal(dataset.labels[rows], truth["labels"][rows])
    assert (dataset.labels[missing] == -1).all()
    assert dataset.edges.T.tolist() == sorted(map(list, EDGES))
    assert dataset.card.facts["dropped self loops"] == 1
    assert dataset.card.facts["merged duplicates"] == 1


def test_planetoid_without_its_features_says_that_the_links_alone_work(tmp_path: Path) -> None:
    raw = planetoid(tmp_path, "PubMed")
    (raw / "ind.pubmed.allx").unlink()
    data = {"source": "planetoid", "name": "PubMed", "root": str(tmp_path)}
    message = refusal(tmp_path, **data)
    assert "no ind.pubmed.allx" in message
    assert "data.use_features: false" in message
    dataset = prepared(tmp_path, **data, use_features=False)
    assert dataset.features is None
    assert dataset.edges.shape[1] == len(EDGES)
    assert LinkBatches(dataset, "valid", 0, 0.0, 0, None, 1).batch(0, 0).features is None


class _Payload:
    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_a_pickle_with_a_payload_is_refused_and_not_run(tmp_path: Path, protocol: int) -> None:
    raw = planetoid(tmp_path)
    trap = tmp_path / "ran"
    data = pickle.dumps({0: [1], 1: _Payload(str(trap))}, protocol=protocol)
    (raw / "ind.cora.graph").write_bytes(data)
    message = refusal(tmp_path, source="planetoid", root=str(tmp_path))
    assert "ind.cora.graph" in message
    assert ".mkdir'" in message
    assert not trap.exists()


@pytest.mark.parametrize("indices", [[0, 10**6, 1], [0, -5, 1]])
def test_a_sparse_matrix_that_points_outside_itself_is_refused(
    tmp_path: Path, indices: list[int]
) -> None:
    raw = planetoid(tmp_path)
    matrix = sparse.csr_matrix(np.eye(24, 7, dtype=np.float32))
    matrix.indices = np.array(indices + [0] * (matrix.nnz - 3), dtype=np.int32)
    (raw / "ind.cora.allx").write_bytes(pickle.dumps(matrix, protocol=4))
    assert "ind.cora.allx" in refusal(tmp_path, source="planetoid", root=str(tmp_path))


@pytest.mark.parametrize("damage", [b"", b"not a pickle", b"\x80\x04\x95"])
def test_a_damaged_planetoid_file_is_named(tmp_path: Path, damage: bytes) -> None:
    raw = planetoid(tmp_path)
    (raw / "ind.cora.tx").write_bytes(damage)
    assert "ind.cora.tx: not a readable pickle" in refusal(
        tmp_path, source="planetoid", root=str(tmp_path)
    )


def test_without_a_network_the_message_says_how_to_give_the_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(*_: object, **__: object) -> None:
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr(urllib.request, "urlopen", unreachable)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    message = refusal(tmp_path, source="planetoid")
    assert "https://" in message
    assert "no route to host" in message
    assert "data.root" in message


def test_a_download_is_kept_for_the_next_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = planetoid(tmp_path / "server")
    asked: list[str] = []

    def serve(url: str, timeout: float) -> Any:
        asked.append(url)
        return (raw / url.rpartition("/")[2]).open("rb")

    monkeypatch.setattr(urllib.request, "urlopen", serve)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    prepared(tmp_path / "first", source="planetoid")
    prepared(tmp_path / "second", source="planetoid")
    assert len(asked) == 6
    assert all(url.startswith("https://") for url in asked)


def test_a_planetoid_folder_without_the_graph_is_refused(tmp_path: Path) -> None:
    message = refusal(tmp_path, source="planetoid", root=str(tmp_path))
    assert "ind.cora.graph" in message
    assert "data.root" in message


def adjacency() -> sparse.csr_matrix:
    i, j = np.array(EDGES).T
    half = sparse.csr_matrix((np.ones(len(i)), (i, j)), shape=(29, 29))
    return half + half.T


@pytest.mark.parametrize("form", ["parts", "dense", "object"])
def test_npz_graphs_are_read_in_each_of_their_forms(tmp_path: Path, form: str) -> None:
    matrix, attributes = adjacency(), sparse.eye(29, 5, format="csr")
    arrays: dict[str, Any] = {"labels": np.arange(29) % 4}
    if form == "parts":
        for prefix, value in (("adj", matrix), ("attr", attributes)):
            for part in ("data", "indices", "indptr", "shape"):
                arrays[f"{prefix}_{part}"] = getattr(value, part)
    elif form == "dense":
        arrays |= {"adj_matrix": matrix.toarray(), "features": attributes.toarray()}
    else:
        arrays |= {"adj_matrix": matrix, "node_attr": attributes}
    path = tmp_path / "graph.npz"
    np.savez(path, **arrays)
    dataset = prepared(tmp_path, source="npz", root=str(path), allow_pickle=form == "object")
    features = dataset.features
    features = features.toarray() if sparse.issparse(features) else features
    assert np.array_equal(features, attributes.toarray())
    assert dataset.edges.T.tolist() == sorted(map(list, EDGES))
    assert dataset.labels is not None
    assert np.array_equal(dataset.labels, np.arange(29) % 4)


def test_objects_in_npz_need_leave(tmp_path: Path) -> None:
    path = tmp_path / "graph.npz"
    np.savez(path, adj_matrix=np.array(adjacency(), dtype=object))
    message = refusal(tmp_path, source="npz", root=str(path))
    assert "'adj_matrix'" in message
    assert "data.allow_pickle: true" in message


def test_even_with_leave_objects_in_npz_run_nothing(tmp_path: Path) -> None:
    path, trap = tmp_path / "graph.npz", tmp_path / "ran"
    np.savez(path, adj_matrix=np.array(_Payload(str(trap)), dtype=object))
    message = refusal(tmp_path, source="npz", root=str(path), allow_pickle=True)
    assert ".mkdir'" in message
    assert not trap.exists()


def test_npz_without_an_adjacency_matrix_lists_what_it_has(tmp_path: Path) -> None:
    path = tmp_path / "graph.npz"
    np.savez(path, weights=np.ones(3))
    assert "holds weights; expected adj_data" in refusal(tmp_path, source="npz", root=str(path))


def test_a_file_that_is_no_npz_is_refused(tmp_path: Path) -> None:
    path = edge_file(tmp_path, name="graph.npz")
    assert "not a readable .npz file" in refusal(tmp_path, source="npz", root=str(path))


@pytest.mark.parametrize("mark", [",", "\t", ";", "|", " "])
@pytest.mark.parametrize("header", [True, False])
def test_edge_lists_are_read_with_any_delimiter_with_and_without_header(
    tmp_path: Path, mark: str, header: bool
) -> None:
    lines = [f"n{i}{mark}n{j}{mark}0.5" for i, j in EDGES]
    lines = ["# made by hand", *([mark.join(["from", "to", "weight"])] if header else []), *lines]
    dataset = prepared(tmp_path, source="edges", root=str(edge_file(tmp_path, lines)))
    expected = {tuple(sorted((f"n{i}", f"n{j}"))) for i, j in EDGES}
    assert named_edges(dataset) == expected


def test_named_columns_are_found_in_any_place(tmp_path: Path) -> None:
    lines = ["year,target,source,weight", *(f"1999,{j},{i},1" for i, j in EDGES)]
    path = edge_file(tmp_path, lines)
    assert prepared(tmp_path, source="edges", root=str(path)).edges.shape[1] == len(EDGES)


def test_a_gzipped_edge_list_with_quotes_and_strange_names_is_read(tmp_path: Path) -> None:
    text = "source,target\n" + "".join(f'"Zürich, {i}","名 {j}"\n' for i, j in EDGES)
    path = tmp_path / "edges.csv.gz"
    path.write_bytes(gzip.compress(text.encode()))
    dataset = prepared(tmp_path, source="edges", root=str(path))
    assert "Zürich, 1" in dataset.names


def test_the_order_of_lines_and_of_ends_changes_nothing(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    lines = [f"{i},{j}" for i, j in EDGES]
    other = [f"{j},{i}" for i, j in rng.permutation(EDGES)]
    first = prepared(tmp_path / "a", source="edges", root=str(edge_file(tmp_path, lines)))
    second = prepared(
        tmp_path / "b", source="edges", root=str(edge_file(tmp_path, other, "other.csv"))
    )
    assert first.names == second.names
    assert first.card.fingerprint == second.card.fingerprint


def test_node_numbers_are_ordered_as_numbers(tmp_path: Path) -> None:
    dataset = prepared(tmp_path, source="edges", root=str(edge_file(tmp_path)))
    assert dataset.names == sorted(dataset.names, key=int)


def test_a_header_that_was_not_recognised_is_pointed_out(tmp_path: Path) -> None:
    lines = ["kunde,produkt", *(f"a{i},b{j}" for i, j in EDGES)]
    dataset = prepared(tmp_path, source="edges", root=str(edge_file(tmp_path, lines)))
    assert any("'kunde' and 'produkt'" in note for note in dataset.card.notes)


def graphml(folder: Path, directed: str = "undirected", extra: str = "", last: str = "") -> Path:
    nodes = "\n".join(
        f'<node id="n{i}"><data key="size">{i / 2}</data><data key="word">w{i}</data></node>'
        for i in range(29)
    )
    edges = "\n".join(f'<edge source="n{i}" target="n{j}"/>' for i, j in EDGES)
    path = folder / "graph.graphml"
    path.write_text(
        f"""<?xml version="1.0" encoding="UTF-8"?>{extra}
<graphml xmlns="http://graphml.graphdrawing.org/xmlns">
<key id="size" for="node" attr.name="size" attr.type="double"/>
<key id="big" for="node" attr.name="big" attr.type="boolean"><default>true</default></key>
<key id="word" for="node" attr.name="word" attr.type="string"/>
<graph edgedefault="{directed}">
{nodes}
{edges}{last}
</graph></graphml>
"""
    )
    return path


def test_graphml_is_read_with_its_numbers_as_features(tmp_path: Path) -> None:
    dataset = prepared(tmp_path, source="graphml", root=str(graphml(tmp_path)))
    assert isinstance(dataset.features, np.ndarray)
    assert dataset.names == [f"n{i}" for i in range(29)]
    assert np.array_equal(dataset.features, np.stack([np.arange(29) / 2, np.ones(29)], axis=1))
    assert dataset.edges.T.tolist() == sorted(map(list, EDGES))


def test_graphml_reads_as_networkx_writes(tmp_path: Path) -> None:
    networkx = pytest.importorskip("networkx")
    graph = networkx.karate_club_graph()
    networkx.write_graphml(graph, tmp_path / "karate.graphml")
    dataset = prepared(tmp_path, source="graphml", root=str(tmp_path / "karate.graphml"))
    expected = {(str(i), str(j)) for i, j in graph.edges}
    assert named_edges(dataset) == expected


@pytest.mark.parametrize(
    "extra",
    [
        '<!DOCTYPE x [<!ENTITY a "b">]>',
        '<!DOCTYPE x SYSTEM "file:///etc/passwd">',
    ],
)
def test_graphml_with_entities_is_refused(tmp_path: Path, extra: str) -> None:
    message = refusal(tmp_path, source="graphml", root=str(graphml(tmp_path, extra=extra)))
    assert "graph.graphml:1" in message
    assert "DOCTYPE" in message


@pytest.mark.parametrize(
    ("last", "said"),
    [
        ('<edge source="n1" target="zz"/>', "edge to node 'zz', which is not listed"),
        ('<node id="n1"/>', "node id 'n1'"),
        ("<oops>", "not well-formed"),
        ("<hyperedge/>", "hyperedge"),
        ('<node id="x"><data key="size">tall</data></node>', "'size' of node 'x' is 'tall'"),
        ('<graph edgedefault="undirected"/>', "a second <graph>"),
    ],
)
def test_a_mistake_in_graphml_is_named_with_its_line(tmp_path: Path, last: str, said: str) -> None:
    message = refusal(tmp_path, source="graphml", root=str(graphml(tmp_path, last=last)))
    assert said in message
    assert "graph.graphml:" in message


# --- direction -------------------------------------------------------------------------------


def test_directed_graphml_asks_what_to_do_with_the_direction(tmp_path: Path) -> None:
    path = str(graphml(tmp_path, "directed"))
    message = refusal(tmp_path, source="graphml", root=path)
    assert "data.directed: true" in message
    assert "--set data.directed=true" in message
    for directed in (True, False):
        dataset = prepared(tmp_path, source="graphml", root=path, directed=directed)
        assert dataset.directed is directed


def test_an_edge_list_with_some_mutual_links_asks_for_the_direction(tmp_path: Path) -> None:
    lines = ["source,target", *(f"{i},{j}" for i, j in EDGES)]
    lines += [f"{j},{i}" for i, j in EDGES[:3]]
    path = str(edge_file(tmp_path, lines))
    message = refusal(tmp_path, source="edges", root=path)
    assert f"3 of {len(EDGES)} links are listed in both directions" in message
    assert "data.directed" in message
    kept = prepared(tmp_path, source="edges", root=path, directed=True)
    dropped = prepared(tmp_path, source="edges", root=path, directed=False)
    assert kept.edges.shape[1] == len(EDGES) + 3
    assert dropped.edges.shape[1] == len(EDGES)
    assert any("3 of" in note for note in dropped.card.notes)


def test_an_edge_list_with_every_link_both_ways_is_undirected(tmp_path: Path) -> None:
    lines = [f"{a},{b}" for i, j in EDGES for a, b in ((i, j), (j, i))]
    dataset = prepared(tmp_path, source="edges", root=str(edge_file(tmp_path, lines)))
    assert not dataset.directed
    assert dataset.edges.shape[1] == len(EDGES)
    assert dataset.card.facts["merged duplicates"] == 0


def test_reading_one_way_links_as_undirected_is_said(tmp_path: Path) -> None:
    dataset = prepared(tmp_path, source="edges", root=str(edge_file(tmp_path)))
    assert any("read as undirected" in note for note in dataset.card.notes)


# --- bad links -------------------------------------------------------------------------------


def test_a_missing_file_is_named_with_its_setting(tmp_path: Path) -> None:
    message = refusal(tmp_path, source="edges", root=str(tmp_path / "no.csv"))
    assert "no.csv: no such file; check data.root" in message


def test_a_folder_in_place_of_a_file_is_said(tmp_path: Path) -> None:
    assert "a folder" in refusal(tmp_path, source="edges", root=str(tmp_path))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "empty"),
        (b" \n\n", "empty"),
        (b"# nothing\n", "only comments"),
        (b"\x89PNG\r\n\x1a\n\0\0\0", "binary"),
        ("source,target\nZürich,Genève\n".encode("latin-1"), ":2: byte 0xfc is not UTF-8"),
        ("source,target\n1,2\n".encode("utf-16"), "UTF-16"),
        (b"one\ntwo\n", ":1: one column"),
        (b"source,target\n1,2\n3\n", ":3: 1 columns, the first row has 2"),
        (b"1,2,3,4\n1,2,3,4\n", ":1: 4 columns"),
        (b'source,target\n"1,2\n3,4\n', "over several lines"),
        (b"source,target\n1,\n", ":2, column 2: no node name"),
    ],
)
def test_a_file_that_is_no_edge_list_is_refused_with_its_line(
    tmp_path: Path, content: bytes, said: str
) -> None:
    path = tmp_path / "edges.csv"
    path.write_bytes(content)
    assert said in refusal(tmp_path, source="edges", root=str(path))


def test_a_damaged_gzip_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "edges.csv.gz"
    path.write_bytes(gzip.compress(b"1,2\n" * 100)[:-10])
    assert "damaged gzip" in refusal(tmp_path, source="edges", root=str(path))


@pytest.mark.parametrize("word", ["heavy", "nan", "inf", ""])
def test_a_weight_that_is_no_number_is_named_with_line_and_column(
    tmp_path: Path, word: str
) -> None:
    lines = ["source,target,weight", *(f"{i},{j},1" for i, j in EDGES)]
    lines[7] = lines[7].rsplit(",", 1)[0] + f",{word}"
    message = refusal(tmp_path, source="edges", root=str(edge_file(tmp_path, lines)))
    assert f"edges.csv:8, column 3 (weight): {word!r} is not a finite number" in message


def test_links_of_weight_zero_are_no_links(tmp_path: Path) -> None:
    lines = ["source,target,weight", *(f"{i},{j},{int(i > 0)}" for i, j in EDGES)]
    dataset = prepared(tmp_path, source="edges", root=str(edge_file(tmp_path, lines)))
    zero = sum(i == 0 for i, _ in EDGES)
    assert dataset.edges.shape[1] == len(EDGES) - zero
    assert f"{zero} links of weight 0 left out" in dataset.card.notes


def test_self_loops_are_dropped_and_repeats_merged_and_both_counted(tmp_path: Path) -> None:
    lines = [f"{i},{j}" for i, j in [*EDGES, (3, 3), (4, 4), *EDGES[:5]]]
    dataset = prepared(tmp_path, source="edges", root=str(edge_file(tmp_path, lines)))
    assert dataset.card.facts["dropped self loops"] == 2
    assert dataset.card.facts["merged duplicates"] == 5
    assert {"2 dropped self loops", "5 merged duplicates"} <= set(dataset.card.notes)
    assert dataset.edges.shape[1] == len(EDGES)


def test_nothing_but_self_loops_is_refused(tmp_path: Path) -> None:
    lines = [f"{i},{i}" for i in range(30)]
    message = refusal(tmp_path, source="edges", root=str(edge_file(tmp_path, lines)))
    assert "all 30 links lead from a node to itself" in message


def test_fewer_than_twenty_links_are_refused(tmp_path: Path) -> None:
    lines = [f"{i},{j}" for i, j in EDGES[:19]] * 2
    message = refusal(tmp_path, source="edges", root=str(edge_file(tmp_path, lines)))
    assert "19 different links; at least 20" in message


# --- features --------------------------------------------------------------------------------


def write_features(folder: Path, kind: str, names: list[str], values: np.ndarray) -> Path:
    path = folder / f"features.{kind}"
    if kind == "csv":
        head = ",".join(["node", *(f"f{k}" for k in range(values.shape[1]))])
        rows = [",".join([name, *map(str, row)]) for name, row in zip(names, values, strict=True)]
        path.write_text("\n".join([head, *rows]))
    elif kind == "npz":
        np.savez(path, features=values, names=np.array(names))
    else:
        pandas = pytest.importorskip("pandas")
        frame = pandas.DataFrame(values, columns=[f"f{k}" for k in range(values.shape[1])])
        frame.insert(0, "node", names)
        frame.to_parquet(path)
    return path


@pytest.mark.parametrize("kind", ["csv", "npz", "parquet"])
def test_features_find_their_nodes_by_name(tmp_path: Path, kind: str) -> None:
    lines = [f"n{i},n{j}" for i, j in EDGES]
    names = [f"n{i}" for i in range(29)][::-1]
    values = np.stack([np.arange(29.0)[::-1], np.ones(29)], axis=1)
    path = write_features(tmp_path, kind, names, values)
    dataset = prepared(
        tmp_path, source="edges", root=str(edge_file(tmp_path, lines)), features=str(path)
    )
    assert isinstance(dataset.features, np.ndarray)
    assert [int(name[1:]) for name in dataset.names] == dataset.features[:, 0].astype(int).tolist()


def test_features_without_names_are_in_the_order_of_node_numbers(tmp_path: Path) -> None:
    path = tmp_path / "features.csv"
    path.write_text("height,width\n" + "".join(f"{i},1\n" for i in range(29)))
    dataset = prepared(tmp_path, source="edges", root=str(edge_file(tmp_path)), features=str(path))
    assert isinstance(dataset.features, np.ndarray)
    assert dataset.features[:, 0].tolist() == list(range(29))


def test_scipys_own_npz_files_are_features(tmp_path: Path) -> None:
    matrix = sparse.random(29, 8, density=0.3, format="csr", rng=0)
    sparse.save_npz(tmp_path / "features.npz", matrix)
    dataset = prepared(
        tmp_path,
        source="edges",
        root=str(edge_file(tmp_path)),
        features=str(tmp_path / "features.npz"),
    )
    assert sparse.issparse(dataset.features)
    assert np.allclose(dataset.features.toarray(), matrix.toarray())


def test_nodes_that_only_the_features_name_are_kept_without_links(tmp_path: Path) -> None:
    path = write_features(tmp_path, "csv", [str(i) for i in range(31)], np.ones((31, 2)))
    dataset = prepared(tmp_path, source="edges", root=str(edge_file(tmp_path)), features=str(path))
    assert len(dataset.names) == 31
    assert dataset.card.facts["isolated nodes"] == 2
    assert "2 nodes have features and no links" in dataset.card.notes


@pytest.mark.parametrize("kind", ["csv", "npz", "parquet"])
def test_a_missing_feature_value_is_named_with_its_place(tmp_path: Path, kind: str) -> None:
    values = np.ones((29, 3))
    values[4, 1] = np.nan
    path = write_features(tmp_path, kind, [str(i) for i in range(29)], values)
    message = refusal(tmp_path, source="edges", root=str(edge_file(tmp_path)), features=str(path))
    place = {"csv": "features.csv:6, column 3 (f1)", "parquet": "column 'f1', row 5"}
    assert place.get(kind, "features.npz: feature 2 of node '4'") in message
    assert "nan" in message


@pytest.mark.parametrize("cell", ["", "tall"])
def test_a_feature_that_is_no_number_is_named_with_its_place(tmp_path: Path, cell: str) -> None:
    path = tmp_path / "features.csv"
    path.write_text("node,f\n" + "".join(f"{i},{cell if i == 2 else i}\n" for i in range(29)))
    message = refusal(tmp_path, source="edges", root=str(edge_file(tmp_path)), features=str(path))
    assert f"features.csv:4, column 2 (f): {cell!r} is not a finite number" in message


def test_a_node_without_features_is_named(tmp_path: Path) -> None:
    path = write_features(tmp_path, "csv", [str(i) for i in range(27)], np.ones((27, 2)))
    message = refusal(tmp_path, source="edges", root=str(edge_file(tmp_path)), features=str(path))
    assert "no row for node '27' and 1 more" in message


def test_two_rows_for_a_node_are_refused(tmp_path: Path) -> None:
    names = [str(i) for i in range(28)] + ["3", "28"]
    path = write_features(tmp_path, "csv", names, np.ones((30, 2)))
    message = refusal(tmp_path, source="edges", root=str(edge_file(tmp_path)), features=str(path))
    assert "node '3' has more than one row" in message


@pytest.mark.parametrize("rows", [28, 30])
def test_another_number_of_unnamed_rows_is_refused(tmp_path: Path, rows: int) -> None:
    path = tmp_path / "features.npz"
    np.savez(path, features=np.ones((rows, 2)))
    message = refusal(tmp_path, source="edges", root=str(edge_file(tmp_path)), features=str(path))
    assert f"{rows} rows for the 29 nodes" in message


def test_unnamed_rows_need_numbered_nodes(tmp_path: Path) -> None:
    path = tmp_path / "features.npz"
    np.savez(path, features=np.ones((29, 2)))
    edges = edge_file(tmp_path, [f"n{i},n{j}" for i, j in EDGES])
    message = refusal(tmp_path, source="edges", root=str(edges), features=str(path))
    assert "add a first column 'node'" in message


# --- the prepared folder ---------------------------------------------------------------------


def snapshot(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_preparing_twice_writes_the_same_bytes(tmp_path: Path) -> None:
    for place in ("a", "b"):
        prepare(settings(), tmp_path / place)
    assert snapshot(tmp_path / "a") == snapshot(tmp_path / "b")


def test_a_second_call_does_nothing(tmp_path: Path) -> None:
    card = prepare(settings(), tmp_path)
    times = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert prepare(settings(), tmp_path) == card
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == times


@pytest.mark.parametrize("change", [{"seed": 1}, {"test_fraction": 0.2}, {"use_features": False}])
def test_other_settings_prepare_anew(tmp_path: Path, change: dict[str, Any]) -> None:
    first = prepare(settings(), tmp_path)
    assert prepare(settings(**change), tmp_path).fingerprint != first.fingerprint


def test_a_changed_source_file_prepares_anew(tmp_path: Path) -> None:
    path = edge_file(tmp_path)
    first = prepared(tmp_path, source="edges", root=str(path))
    edge_file(tmp_path, [f"{i},{j}" for i, j in EDGES[1:]])
    second = prepared(tmp_path, source="edges", root=str(path))
    assert second.edges.shape[1] == first.edges.shape[1] - 1


def test_a_failed_preparation_leaves_the_last_one_whole(tmp_path: Path) -> None:
    path = edge_file(tmp_path)
    prepared(tmp_path, source="edges", root=str(path))
    before = snapshot(tmp_path / "data")
    edge_file(tmp_path, ["1,2"])
    refusal(tmp_path, source="edges", root=str(path))
    assert snapshot(tmp_path / "data") == before


@pytest.mark.parametrize("name", ["graph.safetensors", "split.safetensors", "nodes.json"])
def test_a_changed_file_is_noticed_and_prepared_again(tmp_path: Path, name: str) -> None:
    prepare(settings(), tmp_path)
    whole = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(whole[:-3])
    with pytest.raises(UserError, match="run the ingest stage again"):
        load(tmp_path)
    prepare(settings(), tmp_path)
    assert (tmp_path / name).read_bytes() == whole


def test_loading_nothing_says_what_to_run_first(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="run the ingest stage first"):
        load(tmp_path)


def test_what_is_loaded_is_what_the_card_says(tmp_path: Path) -> None:
    card = prepare(settings(), tmp_path)
    dataset = load(tmp_path)
    assert dataset.card == card
    assert card.facts["nodes"] == len(dataset.names)
    assert card.facts["edges"] == dataset.edges.shape[1]
    assert card.facts["split hash"] == split_hash(dataset.split)
    assert card.facts["train"] == dataset.split.train.shape[1]


def test_the_prepared_folder_names_no_path_and_holds_no_pickle(tmp_path: Path) -> None:
    path = edge_file(tmp_path)
    prepared(tmp_path, source="edges", root=str(path))
    for name, data in snapshot(tmp_path / "data").items():
        assert name.endswith((".json", ".safetensors"))
        assert str(tmp_path).encode() not in data


def nearly_complete(folder: Path, missing: int) -> Path:
    return edge_file(folder, [f"{i},{j}" for j in range(9) for i in range(j)][missing:])


def test_too_few_negatives_are_counted_and_said(tmp_path: Path) -> None:
    root = str(nearly_complete(tmp_path, missing=5))
    dataset = prepared(tmp_path, source="edges", root=root, test_fraction=0.2, valid_fraction=0.1)
    assert dataset.split.test_non_edges.shape[1] == 3
    assert dataset.split.valid_non_edges.shape[1] == 2
    assert any("3 test non edges found, 6 wanted" in note for note in dataset.card.notes)


def test_a_complete_graph_is_refused(tmp_path: Path) -> None:
    message = refusal(tmp_path, source="edges", root=str(nearly_complete(tmp_path, missing=0)))
    assert "nearly every pair of nodes is linked" in message


def test_a_fraction_that_leaves_no_link_is_refused(tmp_path: Path) -> None:
    root = str(edge_file(tmp_path))
    message = refusal(tmp_path, source="edges", root=root, valid_fraction=0.01)
    assert "data.valid_fraction 0.01: no links left" in message


def test_a_graph_of_20000_nodes_and_200000_links_passes_in_seconds_without_a_square_array(
    tmp_path: Path,
) -> None:
    nodes = 20_000
    numbers = np.sort(distinct(np.random.default_rng(0), 200_000, pair_count(nodes, False)))
    pairs = pairs_of(numbers, nodes, False)
    path = edge_file(tmp_path, [f"{i},{j}" for i, j in pairs.T.tolist()])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.process_time()
    dataset = prepared(tmp_path, source="edges", root=str(path))
    batches = LinkBatches(dataset, "train", 0, 0.3, 2, [10, 5], 2048)
    batches.batch(0, 0)
    LinkBatches(dataset, "train", 0, 0.3, 2, None, 1).batch(0, 0)
    corruptions(dataset, dataset.split.test[:, :1000], 500, 0)
    assert time.process_time() - start < 20
    grown_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown_kib < nodes * nodes / 1024  # a square array of single bytes would need 381 MiB
