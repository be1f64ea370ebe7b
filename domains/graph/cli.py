"""The verbs that only graphs have: embed nodes, predict links, score given links."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from core.runtime import folder
from core.runtime.cli import Force, Json, Root, show_result
from core.runtime.config import load_settings, read_domain
from core.runtime.errors import UserError, did_you_mean

if TYPE_CHECKING:
    import numpy as np

    from domains.graph.data import Dataset, Known
    from domains.graph.model import LinkModel

Table = Mapping[str, Sequence[Any]]  # columns by name, all of one length
NewGraph = Annotated[
    Path | None,
    Parameter(name="--graph", help="Another graph: edge list, GraphML or npz; default its own."),
]
Features = Annotated[
    Path | None, Parameter(help="Node features of that graph's edge list: CSV, parquet or npz.")
]
Out = Annotated[Path, Parameter(help="File to write; its ending says how.")]


@dataclass(frozen=True, eq=False)
class Trained:
    """A trained model with its data."""

    config: Any
    dataset: Dataset
    model: LinkModel

    def graph(self, path: Path | None, features: Path | None) -> Known:
        """Its own graph, or another one from a file."""
        from domains.graph import data

        if path is None:
            if features is not None:
                raise UserError("--features: belongs to --graph, which is not given")
            return data.whole(self.dataset)
        return data.new_graph(self.dataset, path, features, self.model.has_own_vectors)


def _open(reference: str, runs: Path) -> Trained:
    run = folder.locate(reference, runs)
    named = read_domain(run / "settings.yaml")
    if named != "graph":
        raise UserError(f"{run}: is a run of domain {named!r}; expected one of 'graph'")
    from core.runtime import stages
    from domains.graph import data
    from domains.graph.config import CONFIG
    from domains.graph.model import build

    config = load_settings(CONFIG, run / "settings.yaml")
    folder.require(run, stages.CARD, "graph ingest")
    model = stages.with_best_weights(build, config, run)
    return Trained(config, data.load(run / "data"), model)


def embed(
    run: str,
    /,
    *,
    out: Out,
    graph: NewGraph = None,
    features: Features = None,
    force: Force = False,
    runs: Root = folder.RUNS,
) -> None:
    """Write a vector for each node: the mean of its posterior.

    Columns node, z0, z1, … in .csv and .parquet; in .npy the vectors alone, with the nodes' names
    line by line in a file .nodes.txt beside it. All links of the graph carry messages.

    Args:
        run: A run folder, or graph/<name>@latest.
    """
    _require_suffix(out, VECTORS)
    folder.refuse_existing(out, force)
    opened = _open(run, runs)
    known = opened.graph(graph, features)
    vectors = opened.model.embed(known.graph).cpu().numpy()
    columns = {f"z{place}": column for place, column in enumerate(vectors.T)}
    VECTORS[out.suffix](out, {"node": known.names, **columns})
    isolated = len(known.names) - len({*known.links.ravel().tolist()})
    if isolated:
        folder.say(f"{isolated} nodes have no links: their vectors come from features alone")
    folder.say(f"wrote {out}: {vectors.shape[0]} nodes × {vectors.shape[1]}")


def predict_links(
    run: str,
    /,
    *,
    out: Out,
    top: int | None = None,
    pairs: Path | None = None,
    node: Annotated[str | None, Parameter(name="--for")] = None,
    graph: NewGraph = None,
    features: Features = None,
    force: Force = False,
    runs: Root = folder.RUNS,
) -> None:
    """Write the most probable new links, or the probabilities of given pairs.

    Columns source, target, probability, rank, with the nodes' original names. The probability is
    calibrated on the validation links for a pair that is as likely to be a link as not; for pairs
    picked at random multiply its odds by links per non-link. Links that exist are left out, except
    among given pairs. In a graph of more than 8,192 nodes only pairs with a common neighbour are
    looked at, unless --for names a node.

    Args:
        run: A run folder, or graph/<name>@latest.
        top: How many, over all pairs or with --for over those of the node; default 1000.
        pairs: A CSV file of pairs, source,target.
        node: Only links of this node.
    """
    _require_suffix(out, TABLES)
    folder.refuse_existing(out, force)
    if pairs is not None and (node is not None or top is not None):
        raise UserError("--pairs: gives the pairs itself; leave out --for and --top")
    if top is not None and top < 1:
        raise UserError(f"--top: got {top}, expected at least 1")
    opened = _open(run, runs)
    known = opened.graph(graph, features)
    if pairs is not None:
        table = _given_pairs(opened, known, pairs)
    else:
        source = None if node is None else _places(known.names, [node], "--for")[0]
        table = _top_pairs(opened, known, top or 1000, source)
    TABLES[out.suffix](out, table)
    folder.say(f"wrote {out}: {len(table['rank'])} pairs")


def score(
    run: str,
    /,
    *,
    test: Annotated[Path, Parameter(help="An edge list of links to find, source,target.")],
    graph: NewGraph = None,
    features: Features = None,
    runs: Root = folder.RUNS,
    as_json: Json = False,
) -> None:
    """Measure how well given links are told from as many pairs that are no links.

    Links that the graph holds already are left out and counted: they carry messages.

    Args:
        run: A run folder, or graph/<name>@latest.
    """
    import numpy as np

    from domains.graph.data import generator, uniform
    from domains.graph.data.pairs import contains, pair_numbers, pairs_of
    from domains.graph.metrics import ranking_metrics

    opened = _open(run, runs)
    known = opened.graph(graph, features)
    count = len(known.names)
    given = np.unique(pair_numbers(_read_pairs(known.names, test), count, directed=False))
    there = np.sort(pair_numbers(known.links, count, directed=False))
    fresh = given[~contains(there, given)]
    if len(fresh) == 0:
        raise UserError(
            f"{test}: all {len(given)} links are in the graph already; nothing to find"
        )
    rng = generator(opened.config.seed, "score")
    others = uniform(rng, len(fresh), count, False, np.union1d(there, given))
    positive, negative = (
        opened.model.score(known.graph, _tensor(pairs_of(numbers, count, False)))
        for numbers in (fresh, others)
    )
    evaluation = opened.config.evaluation
    metrics = ranking_metrics(positive, negative, evaluation.bootstrap, opened.config.seed)
    counts = {"links": len(fresh), "non_links": len(others), "left_out": len(given) - len(fresh)}
    lines = [f"{name.replace('_', ' ')}: {number}" for name, number in counts.items()]
    lines += [folder.metric_text({"name": name, **vars(m)}) for name, m in metrics.items()]
    described = {name: {"value": m.value, "interval": m.interval} for name, m in metrics.items()}
    show_result({**counts, **described}, as_json, "\n".join(lines))


def _given_pairs(opened: Trained, known: Known, path: Path) -> Table:
    ends = _read_pairs(known.names, path)
    logits = opened.model.score(known.graph, _tensor(ends))
    return link_table(opened, known, ends, logits)


def _top_pairs(opened: Trained, known: Known, top: int, source: int | None) -> Table:
    from domains.graph.config import EXACT_NODES
    from domains.graph.metrics import new_links

    if source is None and len(known.names) > EXACT_NODES:
        folder.say(f"{len(known.names)} nodes: looking at pairs with a common neighbour only")
    ends, logits = new_links(opened.model, known, top, source)
    return link_table(opened, known, ends, logits)


def link_table(opened: Trained, known: Known, ends: np.ndarray, logits: np.ndarray) -> Table:
    """A table of pairs, most probable first; ties keep the order that they came in."""
    import numpy as np

    from domains.graph.metrics import calibrated

    order = np.argsort(-logits, kind="stable")
    names = np.array(known.names, dtype=object)
    probability = calibrated(opened.config, opened.dataset, opened.model)(logits[order])
    return {
        "source": names[ends[0][order]].tolist(),
        "target": names[ends[1][order]].tolist(),
        "probability": probability.tolist(),
        "rank": list(range(1, len(order) + 1)),
    }


def _read_pairs(names: Sequence[str], path: Path) -> np.ndarray:
    """Pairs of a file as places of nodes; every unknown name is listed."""
    from domains.graph.data.tables import read_pairs

    ends = read_pairs(path)
    places = _places(names, [*ends[0], *ends[1]], str(path))
    import numpy as np

    return np.array(places, dtype=np.int64).reshape(2, -1)


def _places(names: Sequence[str], wanted: Sequence[str], where: str) -> list[int]:
    index = {name: place for place, name in enumerate(names)}
    unknown = list(dict.fromkeys(name for name in wanted if name not in index))
    if unknown:
        some = ", ".join(map(repr, unknown[:5])) + (", …" if len(unknown) > 5 else "")
        hint = did_you_mean(unknown[0], names) if len(unknown) == 1 else ""
        raise UserError(f"{where}: {len(unknown)} nodes not in the graph: {some}{hint}")
    return [index[name] for name in wanted]


def _tensor(pairs: np.ndarray) -> Any:
    import torch

    return torch.from_numpy(pairs)


def _require_suffix(path: Path, known: dict[str, Any]) -> None:
    if path.suffix not in known:
        raise UserError(f"--out: {path} ends in {path.suffix!r}; expected {', '.join(known)}")


def _write_csv(path: Path, table: Table) -> None:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(table)
    writer.writerows(zip(*table.values(), strict=True))
    folder.write_atomic(path, buffer.getvalue())


def _write_parquet(path: Path, table: Table) -> None:
    import pyarrow
    from pyarrow import parquet

    buffer = io.BytesIO()
    parquet.write_table(pyarrow.table(dict(table)), buffer)
    folder.write_atomic(path, buffer.getvalue())


def _write_npy(path: Path, table: Table) -> None:
    import numpy as np

    names, *columns = table.values()
    buffer = io.BytesIO()
    np.save(buffer, np.stack(columns, axis=1), allow_pickle=False)
    folder.write_atomic(path, buffer.getvalue())
    folder.write_atomic(path.with_suffix(".nodes.txt"), "".join(f"{name}\n" for name in names))


TABLES: dict[str, Callable[[Path, Table], None]] = {".csv": _write_csv, ".parquet": _write_parquet}
VECTORS = {**TABLES, ".npy": _write_npy}

VERBS = {"embed": embed, "predict-links": predict_links, "score": score}
