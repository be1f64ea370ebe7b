"""One reader for each ``data.source``."""

from __future__ import annotations

from pathlib import Path

from domains.graph.config import Data
from domains.graph.data import airline_routes, graphml, npz, planetoid, tables
from domains.graph.data.files import existing
from domains.graph.data.records import RawGraph


def inputs(data: Data) -> list[Path]:
    """The files that the settings name, found or downloaded.

    Raises:
        UserError: If one is missing.
    """
    if data.source == "airline-routes":
        return list(airline_routes.locate().values())
    if data.source == "planetoid":
        return list(planetoid.locate(data.root, data.name, data.use_features).values())
    files = [existing(_path(data.root), "data.root")]
    if data.features is not None:
        files.append(existing(_path(data.features), "data.features"))
    return files


def read(data: Data) -> RawGraph:
    """The graph in those files.

    Raises:
        UserError: If a file is missing, damaged or ambiguous.
    """
    if data.source == "airline-routes":
        return airline_routes.read()
    if data.source == "planetoid":
        return planetoid.read(data.root, data.name, data.use_features)
    first, *rest = inputs(data)
    if data.source == "npz":
        return npz.read(first, data.allow_pickle)
    if data.source == "graphml":
        return graphml.read(first, data.use_features)
    return tables.read(first, rest[0] if rest and data.use_features else None)


def _path(name: str | None) -> Path:
    assert name is not None  # the settings insist on it
    return Path(name).expanduser()
