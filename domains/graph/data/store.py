"""From the source to the run's own folder and back: validate, split, write, load."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load as load_arrays
from safetensors.numpy import save as save_arrays
from scipy import sparse

from core.contract import DataCard
from core.runtime.errors import UserError
from core.runtime.files import json_bytes, key_of
from core.runtime.folder import write_atomic
from core.runtime.prepared import CARD, finished, write_card
from domains.graph.data import readers
from domains.graph.data.pairs import pair_numbers, pairs_of
from domains.graph.data.records import Dataset, Features, Ingest, LinkSplit, RawGraph
from domains.graph.data.splits import split_hash, split_links

FORMAT = 1
FEWEST_EDGES = 20
GRAPH, SPLIT, NODES = "graph.safetensors", "split.safetensors", "nodes.json"


def prepare(config: Ingest, folder: Path) -> DataCard:
    """Read, check and split the graph, and write it into the folder if it is not there already.

    Raises:
        UserError: If the source is missing, damaged, ambiguous or too small.
    """
    key = _key(config)
    if (card := finished(folder, key, load)) is not None:
        return card
    raw = readers.read(config.data)
    edges, directed, facts, notes = clean(raw, config.data.directed)
    nodes = len(raw.names)
    features = check_features(raw) if config.data.use_features else None
    split = split_links(
        edges,
        nodes,
        directed,
        config.data.valid_fraction,
        config.data.test_fraction,
        config.seed,
    )
    _check_split(split, config, raw.place)
    files = {
        GRAPH: save_arrays(_arrays(features, edges, raw, directed)),
        SPLIT: save_arrays({field.name: getattr(split, field.name) for field in fields(split)}),
        NODES: json_bytes({"names": raw.names, "titles": raw.titles or raw.names}),
    }
    card = DataCard(
        source=raw.source,
        licence=raw.licence,
        fingerprint=_hash(*files.values()),
        facts={
            "nodes": nodes,
            "edges": edges.shape[1],
            "features": 0 if features is None else features.shape[1],
            "directed": "yes" if directed else "no",
            "isolated nodes": nodes - len(np.unique(edges)),
            **facts,
            **dict(raw.facts),
            **{name.replace("_", " "): getattr(split, name).shape[1] for name in _parts()},
            "split hash": split_hash(split),
        },
        notes=(*raw.notes, *notes, *_short(split)),
    )
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        write_atomic(folder / name, data)
    write_card(folder, card, key)
    return card


def load(folder: Path) -> Dataset:
    """The prepared graph.

    Raises:
        UserError: If there is none, or a file of it is damaged.
    """
    try:
        found = json.loads((folder / CARD).read_bytes())["card"]
        card = DataCard(**{**found, "notes": tuple(found["notes"])})
        data = {name: (folder / name).read_bytes() for name in (GRAPH, SPLIT, NODES)}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{folder}: no prepared graph; run the ingest stage first") from error
    if _hash(*data.values()) != card.fingerprint:
        raise UserError(
            f"{folder}: the prepared graph has been changed; run the ingest stage again"
        )
    try:
        arrays, split = load_arrays(data[GRAPH]), load_arrays(data[SPLIT])
    except SafetensorError as error:
        raise UserError(f"{folder}: damaged ({error}); run the ingest stage again") from error
    nodes = json.loads(data[NODES])
    return Dataset(
        features=_features(arrays),
        edges=arrays["edges"],
        names=nodes["names"],
        titles=nodes["titles"],
        labels=arrays.get("labels"),
        directed=bool(arrays["directed"][0]),
        positions=arrays.get("positions"),
        split=LinkSplit(**split),
        card=card,
    )


def clean(
    raw: RawGraph, directed: bool | None, fewest: int = FEWEST_EDGES
) -> tuple[np.ndarray, bool, dict[str, int], tuple[str, ...]]:
    """Drop self loops, merge repeats and settle the direction.

    Args:
        raw: What the reader found.
        directed: What the settings say of direction; None to go by the source.
        fewest: Links without which there is nothing to do.

    Returns:
        The distinct links, sorted; whether they are directed; counts; remarks.

    Raises:
        UserError: If nothing but self loops, or too few links, are left, or the direction is not
            clear.
    """
    nodes = len(raw.names)
    loops = raw.pairs[0] == raw.pairs[1]
    pairs = raw.pairs[:, ~loops]
    if raw.pairs.size and not pairs.size:
        raise UserError(
            f"{raw.place}: all {int(loops.sum())} links lead from a node to itself; expected "
            "links between different nodes; check the two columns"
        )
    ordered = np.unique(pair_numbers(pairs, nodes, directed=True))
    repeats = pairs.shape[1] - len(ordered)
    unordered = np.unique(pair_numbers(pairs_of(ordered, nodes, True), nodes, directed=False))
    mutual = len(ordered) - len(unordered)
    notes = _direction_notes(raw, directed, len(unordered), mutual)
    directed = bool(raw.directed) if directed is None else directed
    edges = pairs_of(ordered if directed else unordered, nodes, directed)
    edges = edges[:, np.lexsort((edges[1], edges[0]))]
    if edges.shape[1] < fewest:
        raise UserError(
            f"{raw.place}: {edges.shape[1]} different links; at least {fewest} are needed to "
            "learn from some and test on others; give a larger graph"
        )
    facts = {"merged duplicates": repeats, "dropped self loops": int(loops.sum())}
    counted = [f"{count} {name}" for name, count in facts.items() if count]
    return edges, directed, facts, (*notes, *counted)


def _direction_notes(
    raw: RawGraph, directed: bool | None, links: int, mutual: int
) -> tuple[str, ...]:
    if directed is None and raw.directed is None and 0 < mutual < links:
        raise UserError(
            f"{raw.place}: {mutual} of {links} links are listed in both directions, the others "
            "in one; set data.directed to true or false (--set data.directed=true)"
        )
    if directed is None and raw.directed:
        raise UserError(
            f"{raw.place}: the links are directed; set data.directed: true to keep the "
            "direction or false to drop it (--set data.directed=true)"
        )
    if directed is None and raw.directed is None and not mutual:
        return (
            "every link is listed in one direction and was read as undirected (data.directed)",
        )
    if directed is False and raw.directed is not False and mutual < links:
        return (f"directions dropped; {mutual} of {links} links were mutual",)
    return ()


def check_features(raw: RawGraph) -> Features | None:
    """Float32 features, one finite row a node.

    Raises:
        UserError: If there is another number of rows, or a value is not finite.
    """
    if raw.features is None:
        return None
    place, nodes = raw.features_place or raw.place, len(raw.names)
    if raw.features.ndim != 2 or raw.features.shape[0] != nodes:
        raise UserError(
            f"{place}: features of shape {tuple(raw.features.shape)} for {nodes} nodes; expected "
            "one row a node"
        )
    features: Features
    if sparse.issparse(raw.features):
        features = sparse.csr_matrix(raw.features, dtype=np.float32)
        features.sum_duplicates()
        features.eliminate_zeros()
        bad = np.flatnonzero(~np.isfinite(features.data))
        rows = np.searchsorted(features.indptr, bad, side="right") - 1
        where = np.stack([rows, features.indices[bad]], axis=1)
    else:
        features = np.ascontiguousarray(raw.features, dtype=np.float32)
        where = np.argwhere(~np.isfinite(features))
    if len(where):
        row, column = where[0].tolist()
        raise UserError(
            f"{place}: feature {column + 1} of node {raw.names[row]!r} is "
            f"{features[row, column]}; expected a finite number; fill it in or remove the column"
        )
    return features


def _check_split(split: LinkSplit, config: Ingest, place: str) -> None:
    """Refuse a split that measures nothing."""
    for part, links in (("valid", split.valid), ("test", split.test)):
        if not links.shape[1]:
            fraction = getattr(config.data, f"{part}_fraction")
            raise UserError(
                f"data.{part}_fraction {fraction}: no links left for it in {place}; "
                "give a larger one"
            )
        if not getattr(split, f"{part}_non_edges").shape[1]:
            raise UserError(
                f"{place}: nearly every pair of nodes is linked, too few others are left to "
                "test on; link prediction needs a sparser graph"
            )


def _arrays(
    features: Features | None, edges: np.ndarray, raw: RawGraph, directed: bool
) -> dict[str, np.ndarray]:
    arrays = {"edges": edges, "directed": np.array([directed], dtype=np.uint8)}
    if isinstance(features, np.ndarray):
        arrays["features"] = features
    elif features is not None:
        arrays["features.data"] = features.data
        arrays["features.indices"] = features.indices.astype(np.int64)
        arrays["features.indptr"] = features.indptr.astype(np.int64)
        arrays["features.shape"] = np.array(features.shape, dtype=np.int64)
    if raw.labels is not None:
        arrays["labels"] = raw.labels.astype(np.int64)
    if raw.positions is not None:
        arrays["positions"] = raw.positions.astype(np.float64)
    return {name: np.ascontiguousarray(array) for name, array in arrays.items()}


def _features(arrays: Mapping[str, np.ndarray]) -> Features | None:
    if "features.data" not in arrays:
        return arrays.get("features")
    parts = tuple(arrays[f"features.{part}"] for part in ("data", "indices", "indptr"))
    return sparse.csr_matrix(parts, shape=tuple(arrays["features.shape"].tolist()))


def _parts() -> tuple[str, ...]:
    return "train", "valid", "test", "test_degree_matched", "test_two_hop"


def _short(split: LinkSplit) -> tuple[str, ...]:
    """A remark for each kind of negative of which there are too few."""
    wanted = {"valid_non_edges": split.valid, "test_non_edges": split.test}
    wanted |= {"test_degree_matched": split.test, "test_two_hop": split.test}
    return tuple(
        f"{getattr(split, name).shape[1]} {name.replace('_', ' ')} found, {links.shape[1]} "
        "wanted: the graph has no more"
        for name, links in wanted.items()
        if getattr(split, name).shape[1] < links.shape[1]
    )


def _key(config: Ingest) -> str:
    """What the prepared files are a function of: settings, bytes read, format."""
    settings = config.data.model_dump(exclude={"root", "features", "batch_edges"})
    facts = {"format": FORMAT, "seed": config.seed, **settings}
    return key_of(facts, readers.inputs(config.data))


def _hash(*parts: bytes) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(hashlib.sha256(part).digest())
    return digest.hexdigest()
