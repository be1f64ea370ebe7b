"""One reader for each ``data.source``."""

from __future__ import annotations

from pathlib import Path

from domains.graph.config import Data
from domains.graph.data import planetoid
from domains.graph.data.records import RawGraph


def inputs(data: Data) -> list[Path]:
    """The files that the settings name, found or downloaded.

    Raises:
        UserError: If one is missing.
    """
    return list(planetoid.locate(data.root, data.name, data.use_features).values())


def read(data: Data) -> RawGraph:
    """The graph in those files.

    Raises:
        UserError: If a file is missing, damaged or ambiguous.
    """
    return planetoid.read(data.root, data.name, data.use_features)
