import csv
import json
from pathlib import Path

import numpy as np
import pytest
from pyarrow import parquet

import domains
from core.runtime import cli

NODES = 60


def latentworks(*words: object) -> int:
    arguments = [str(word) for word in words]
    return cli.run_app(cli.build_app(domains, arguments), arguments)


def two_communities(seed: int = 0) -> tuple[list[tuple[str, str]], np.ndarray]:
    """Links mostly within two halves, and features that tell the halves apart."""
    rng = np.random.default_rng(seed)
    half = np.arange(NODES) % 2
    chance = np.where(half[:, None] == half[None, :], 0.3, 0.01)
    rows, columns = np.nonzero(np.triu(rng.random((NODES, NODES)) < chance, 1))
    features = rng.normal(size=(NODES, 3)) + 2 * half[:, None]
    return [(f"n{i}", f"n{j}") for i, j in zip(rows, columns, strict=True)], features


def write_edges(path: Path, links: list[tuple[str, str]]) -> Path:
    path.write_text("source,target\n" + "".join(f"{a},{b}\n" for a, b in links))
    return path


def write_features(path: Path, names: list[str], features: np.ndarray) -> Path:
    lines = [",".join([name, *map(str, row)]) for name, row in zip(names, features, strict=True)]
    path.write_text("node,a,b,c\n" + "\n".join(lines) + "\n")
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained run of an edge list with features, and its files."""
    folder = tmp_path_factory.mktemp("graph")
    links, features = two_communities()
    write_edges(folder / "edges.csv", links)
    write_features(folder / "features.csv", [f"n{i}" for i in range(NODES)], features)
    (folder / "settings.yaml").write_text(
        f"domain: graph\n"
        f"data: {{source: edges, root: '{folder}/edges.csv', features: '{folder}/features.csv'}}\n"
        "model: {kind: vgae, features: standardised, latent: 4, hidden: 8}\n"
        "training: {epochs: 40}\ncompute: {threads: 1}\nevaluation: {bootstrap: 50, samples: 4}\n"
    )
    assert latentworks("graph", "train", folder / "settings.yaml", "--out", folder / "run") == 0
    return folder


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def test_embeddings_are_the_same_in_every_format(folder: Path, tmp_path: Path) -> None:
    for suffix in ("csv", "npy", "parquet"):
        out = tmp_path / f"z.{suffix}"
        assert latentworks("graph", "embed", folder / "run", "--out", out) == 0
    vectors = np.load(tmp_path / "z.npy")
    assert vectors.shape == (NODES, 4)
    assert np.isfinite(vectors).all()
    table = parquet.read_table(tmp_path / "z.parquet")
    names = (tmp_path / "z.nodes.txt").read_text().split()
    assert table.column("node").to_pylist() == names
    assert np.array_equal(table.column("z1").to_numpy(), vectors[:, 1])
    rows = rows_of(tmp_path / "z.csv")
    assert [row["node"] for row in rows] == names
    assert [float(row["z3"]) for row in rows] == pytest.approx(vectors[:, 3], rel=1e-6)


def test_the_same_graph_given_again_has_the_same_vectors(folder: Path, tmp_path: Path) -> None:
    again = ("--graph", folder / "edges.csv", "--features", folder / "features.csv")
    assert latentworks("graph", "embed", folder / "run", "--out", tmp_path / "a.npy") == 0
    assert latentworks("graph", "embed", folder / "run", *again, "--out", tmp_path / "b.npy") == 0
    one, other = np.load(tmp_path / "a.npy"), np.load(tmp_path / "b.npy")
    assert np.allclose(one, other, atol=1e-6)


def test_unseen_nodes_with_features_lie_with_their_community(folder: Path, tmp_path: Path) -> None:
    links, features = two_communities()
    names = [f"n{i}" for i in range(NODES)] + ["new-even", "new-odd"]
    edges = write_edges(tmp_path / "e.csv", [*links, ("new-even", "n0"), ("new-odd", "n1")])
    features = np.vstack([features, np.zeros(3), np.full(3, 2.0)])
    table = write_features(tmp_path / "f.csv", names, features)
    given = ("--graph", edges, "--features", table, "--out", tmp_path / "links.csv", "--top", "20")
    for node, parity in (("new-even", 0), ("new-odd", 1)):
        assert (
            latentworks("graph", "predict-links", folder / "run", "--for", node, *given, "--force")
            == 0
        )
        found = [row["target"] for row in rows_of(tmp_path / "links.csv")]
        inside = [name for name in found if name.startswith("n") and name[1:].isdigit()]
        right = sum(int(name[1:]) % 2 == parity for name in inside)
        assert right > 0.7 * len(inside)


def test_new_links_are_new_ranked_and_probable(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "links.csv"
    assert latentworks("graph", "predict-links", folder / "run", "--top", 50, "--out", out) == 0
    rows = rows_of(out)
    probabilities = [float(row["probability"]) for row in rows]
    assert [int(row["rank"]) for row in rows] == list(range(1, 51))
    assert probabilities == sorted(probabilities, reverse=True)
    assert all(0 < p < 1 for p in probabilities)
    known = {frozenset(link) for link in two_communities()[0]}
    found = {frozenset((row["source"], row["target"])) for row in rows}
    assert len(found) == 50
    assert not found & known
    same = [int(row["source"][1:]) % 2 == int(row["target"][1:]) % 2 for row in rows]
    assert sum(same) > 40


def test_top_links_are_those_of_all_pairs(folder: Path, tmp_path: Path) -> None:
    known = {frozenset(link) for link in two_communities()[0]}
    names = [f"n{i}" for i in range(NODES)]
    pairs = [
        (a, b)
        for i, a in enumerate(names)
        for b in names[i + 1 :]
        if frozenset((a, b)) not in known
    ]
    write_edges(tmp_path / "all.csv", pairs)
    words = ("graph", "predict-links", folder / "run", "--out")
    assert latentworks(*words, tmp_path / "a.csv", "--pairs", tmp_path / "all.csv") == 0
    assert latentworks(*words, tmp_path / "b.csv", "--top", 30) == 0
    every, top = rows_of(tmp_path / "a.csv"), rows_of(tmp_path / "b.csv")
    assert len(every) == len(pairs)
    given = [float(row["probability"]) for row in every[:30]]
    assert [float(row["probability"]) for row in top] == pytest.approx(given, rel=1e-5)


def test_score_tells_links_of_the_same_kind_from_others(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    known = {frozenset(link) for link in two_communities()[0]}
    others = [link for link in two_communities(seed=1)[0] if frozenset(link) not in known]
    held = next(iter(two_communities()[0]))
    test = write_edges(tmp_path / "t.csv", [*others, held])
    assert latentworks("graph", "score", folder / "run", "--test", test, "--json") == 0
    result = json.loads(capsys.readouterr().out)
    assert result["links"] == len(others)
    assert result["left_out"] == 1
    assert result["auc"]["value"] > 0.6
    low, high = result["auc"]["interval"]
    assert low < result["auc"]["value"] < high


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["embed", "{run}", "--out", "z.txt"], "expected .csv, .parquet, .npy"),
        (["embed", "{run}", "--out", "{edges}"], "exists already"),
        (["embed", "{run}", "--out", "z.csv", "--graph", "no.csv"], "no.csv"),
        (["embed", "{run}", "--out", "z.csv", "--graph", "{edges}"], "give --features"),
        (["embed", "{run}", "--out", "z.csv", "--features", "{edges}"], "belongs to --graph"),
        (["embed", "nowhere", "--out", "z.csv"], "no run here"),
        (["predict-links", "{run}", "--out", "l.csv", "--pairs", "{unknown}"], "'x9', 'y'"),
        (["predict-links", "{run}", "--out", "l.csv", "--pairs", "{loop}"], "loop.csv:2"),
        (["predict-links", "{run}", "--out", "l.csv", "--for", "n600"], "'n600'; did you mean 'n"),
        (["predict-links", "{run}", "--out", "l.csv", "--top", "0"], "at least 1"),
        (
            ["predict-links", "{run}", "--out", "l.csv", "--pairs", "{loop}", "--top", "2"],
            "--pairs",
        ),
        (["score", "{run}", "--test", "{edges}"], "in the graph already"),
    ],
)
def test_a_mistake_is_one_line_and_nothing_is_written(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    unknown = write_edges(tmp_path / "unknown.csv", [("n1", "n2"), ("x9", "y")])
    loop = write_edges(tmp_path / "loop.csv", [("n1", "n1")])
    edges = folder / "edges.csv"
    before = edges.read_bytes()
    filled = [
        word.format(run=folder / "run", edges=edges, unknown=unknown, loop=loop) for word in words
    ]
    assert latentworks("graph", *filled) == 2
    said = capsys.readouterr()
    assert message in said.err
    assert said.err.strip().count("\n") == 0
    assert said.out == ""
    assert edges.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["loop.csv", "unknown.csv"]


def test_a_model_with_a_vector_for_each_node_refuses_new_nodes(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    settings = folder / "settings.yaml"
    words = ("--set", "data.use_features=false", "--set", "training.epochs=2", "--out", run)
    assert latentworks("graph", "train", settings, *words) == 0
    new = write_edges(tmp_path / "new.csv", [("n0", "n1"), ("n1", "stranger")])
    assert latentworks("graph", "embed", run, "--graph", new, "--out", tmp_path / "z.csv") == 2
    assert "'stranger'" in capsys.readouterr().err
    some = write_edges(tmp_path / "some.csv", [("n7", "n2"), ("n2", "n30")])
    assert latentworks("graph", "embed", run, "--graph", some, "--out", tmp_path / "z.csv") == 0
    assert {row["node"] for row in rows_of(tmp_path / "z.csv")} == {"n7", "n2", "n30"}


def test_explain_says_what_an_overridden_and_a_documented_setting_mean(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for key, words in (("model.hide", "share of the train links"), ("data.root", "file to read")):
        arguments = ("config", "explain", folder / "settings.yaml", key)
        if key == "model.hide":
            arguments = (*arguments, "--set", "model.kind=cosine-vgae")
        assert latentworks(*arguments) == 0
        assert words in capsys.readouterr().out


def test_mixed_precision_trains_to_nearly_the_same(folder: Path, tmp_path: Path) -> None:
    for precision in ("32-true", "bf16-mixed"):
        words = ("--set", f"training.precision={precision}", "--out", tmp_path / precision)
        assert latentworks("graph", "train", folder / "settings.yaml", *words) == 0
    losses = [
        json.loads((tmp_path / name / "history.jsonl").read_text().splitlines()[-1])["train/loss"]
        for name in ("32-true", "bf16-mixed")
    ]
    assert losses[1] == pytest.approx(losses[0], rel=0.02)
    assert losses[1] != losses[0]
