"""GraphML, read by the standard library's parser, with document types and entities refused."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from xml.parsers import expat

import numpy as np

from core.runtime.errors import UserError
from domains.graph.data.files import read_text
from domains.graph.data.records import RawGraph

NUMBERS = ("boolean", "int", "long", "float", "double")
WORDS = {"true": "1", "false": "0"}


@dataclass
class _Document:
    """What has been read so far."""

    path: Path
    directed: bool | None = None
    keys: dict[str, tuple[str, str]] = field(default_factory=dict)  # id → (name, type), of nodes
    defaults: dict[str, str] = field(default_factory=dict)
    nodes: dict[str, dict[str, str]] = field(default_factory=dict)
    lines: dict[str, int] = field(default_factory=dict)
    edges: list[tuple[str, str, int]] = field(default_factory=list)
    key: str | None = None
    node: str | None = None
    data: str | None = None
    text: list[str] = field(default_factory=list)


def read(path: Path, use_features: bool) -> RawGraph:
    """Read a graph; attributes of type number that every node has become its features.

    Raises:
        UserError: If the file is no GraphML, names a node that it does not list, or declares
            entities.
    """
    document = _parse(path)
    names = list(document.nodes)
    index = {name: place for place, name in enumerate(names)}
    for edge in document.edges:
        for end in edge[:2]:
            if end not in index:
                raise UserError(
                    f"{path}:{edge[2]}: edge to node {end!r}, which is not listed; add <node "
                    f"id={end!r}/>"
                )
    pairs = np.array(
        [[index[source], index[target]] for source, target, _ in document.edges], dtype=np.int64
    )
    features, notes = _features(document) if use_features else (None, ())
    return RawGraph(
        names=names,
        pairs=pairs.reshape(-1, 2).T,
        directed=document.directed,
        source=f"GraphML {path.name}",
        place=str(path),
        features=features,
        titles=_titles(document),
        notes=notes,
    )


def _parse(path: Path) -> _Document:
    document = _Document(path)
    text = read_text(path)
    parser = expat.ParserCreate(encoding="utf-8", namespace_separator="}")

    def refuse(*_: object) -> None:
        raise UserError(
            f"{path}:{parser.CurrentLineNumber}: a document type with entities; remove the DOCTYPE"
        )

    def start(tag: str, given: dict[str, str]) -> None:
        _start(document, tag.rpartition("}")[2], given, parser.CurrentLineNumber)

    def end(tag: str) -> None:
        _end(document, tag.rpartition("}")[2])

    parser.StartDoctypeDeclHandler = refuse
    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.CharacterDataHandler = document.text.append
    try:
        parser.Parse(text.encode(), True)
    except expat.ExpatError as error:
        raise UserError(
            f"{path}:{error.lineno}: not well-formed XML ({expat.ErrorString(error.code)}), "
            f"column {error.offset + 1}"
        ) from error
    if document.directed is None:
        raise UserError(f"{path}: no <graph> element; expected GraphML")
    return document


def _start(document: _Document, tag: str, given: dict[str, str], line: int) -> None:
    where = f"{document.path}:{line}"
    document.text.clear()
    if tag == "graph":
        if document.directed is not None:
            raise UserError(f"{where}: a second <graph>; expected one, without graphs inside it")
        default = given.get("edgedefault")
        if default not in ("directed", "undirected"):
            raise UserError(
                f"{where}: edgedefault {default!r}; expected 'directed' or 'undirected'"
            )
        document.directed = default == "directed"
    elif tag == "key" and given.get("for") in ("node", "all"):
        document.key = given.get("id", "")
        name = given.get("attr.name", document.key)
        document.keys[document.key] = (name, given.get("attr.type", "string"))
    elif tag == "node":
        document.node = given.get("id")
        if document.node is None or document.node in document.nodes:
            raise UserError(f"{where}: node id {document.node!r}; expected a new id for each node")
        document.nodes[document.node] = {}
        document.lines[document.node] = line
    elif tag == "edge":
        source, target = given.get("source"), given.get("target")
        if source is None or target is None:
            raise UserError(f"{where}: an edge without source or target")
        if given.get("directed") == "true":
            document.directed = True
        document.edges.append((source, target, line))
    elif tag == "hyperedge":
        raise UserError(f"{where}: a hyperedge; only edges between two nodes are read")
    elif tag == "data":
        document.data = given.get("key")


def _end(document: _Document, tag: str) -> None:
    text = "".join(document.text).strip()
    if tag == "default" and document.key is not None:
        document.defaults[document.key] = text
    elif tag == "data" and document.node is not None and document.data is not None:
        document.nodes[document.node][document.data] = text
    if tag in ("data", "key", "node"):
        setattr(document, tag, None)


def _features(document: _Document) -> tuple[np.ndarray | None, tuple[str, ...]]:
    columns, left_out = {}, []
    for key, (name, kind) in document.keys.items():
        default = document.defaults.get(key)
        values = [given.get(key, default) for given in document.nodes.values()]
        if kind not in NUMBERS or any(value is None for value in values):
            left_out.append(name)
            continue
        columns[name] = [
            _number(document, node, name, str(value))
            for node, value in zip(document.nodes, values, strict=True)
        ]
    notes = (f"features: {', '.join(columns)}",) if columns else ()
    if left_out:
        notes += (f"not features, as text or not given for every node: {', '.join(left_out)}",)
    return (np.array(list(columns.values())).T if columns else None), notes


def _number(document: _Document, node: str, name: str, value: str) -> float:
    try:
        number = float(WORDS.get(value.lower(), value))
    except ValueError:
        number = np.nan
    if not np.isfinite(number):
        raise UserError(
            f"{document.path}:{document.lines[node]}: {name!r} of node {node!r} is {value!r}; "
            "expected a finite number"
        )
    return number


def _titles(document: _Document) -> list[str] | None:
    key = next(
        (key for key, (name, _) in document.keys.items() if name.lower() in ("label", "name")),
        None,
    )
    if key is None:
        return None
    return [given.get(key) or node for node, given in document.nodes.items()]
