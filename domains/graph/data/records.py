"""The shapes of the data: a graph as a model sees it, a prepared dataset, and its split."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from core.contract import DataCard
from domains.graph.config import Data

Matrix = Any  # a scipy csr matrix, whose shape and dtype no type checker can follow
Features = np.ndarray | Matrix


@runtime_checkable
class Regime(Protocol):
    """What the batches ask of the model section."""

    @property
    def hide(self) -> float:
        """Fraction of train links hidden from the messages at each step, 0 for none."""
        ...

    @property
    def negatives(self) -> int:
        """Sampled non-edges per explained link, 0 for the exact sum."""
        ...

    @property
    def neighbours(self) -> Sequence[int] | None:
        """Fan-outs of a sampled neighbourhood, None for the whole graph."""
        ...


@runtime_checkable
class Ingest(Protocol):
    """What preparing the data asks of the settings."""

    @property
    def seed(self) -> int:
        """The run's seed."""
        ...

    @property
    def data(self) -> Data:
        """The data section."""
        ...


@runtime_checkable
class Batching(Ingest, Protocol):
    """What batching the data asks of the settings."""

    @property
    def model(self) -> Regime:
        """The model section."""
        ...


@dataclass(frozen=True, eq=False)
class Graph:
    """One example: a whole graph, or a sampled neighbourhood of one.

    Rows of ``features`` and the numbers in the three pair fields count the nodes of *this* graph;
    ``nodes`` says which nodes of the whole graph they are. When ``non_edges`` is None, every pair
    that is neither in ``edges`` nor in ``messages`` counts as a non-edge, exactly.

    Args:
        features: One row a node, float32; sparse (CSR) when large and mostly zero; None without.
        messages: Both directions of the edges that messages pass along, sorted, no self loops.
        edges: Positives to explain; source < target in an undirected graph.
        non_edges: Sampled negatives, or None.
        total_edges: Edges that ``edges`` stands for, so that a sampled sum can be scaled up.
        total_non_edges: Non-edges that ``non_edges`` stands for.
        nodes: Index of each row in the whole graph.
        total_nodes: Nodes of the whole graph.
    """

    features: Tensor | None
    messages: Tensor
    edges: Tensor
    non_edges: Tensor | None
    total_edges: int
    total_non_edges: int
    nodes: Tensor
    total_nodes: int

    def to(self, device: torch.device | str) -> Graph:
        """The same graph on another device."""
        moved = {
            name: value.to(device)
            for name in ("features", "messages", "edges", "non_edges", "nodes")
            if (value := getattr(self, name)) is not None
        }
        return replace(self, **moved)


@dataclass(frozen=True, eq=False)
class LinkSplit:
    """Which links are learned from, chosen with and tested on. Every field is ``(2, pair)`` int64.

    The negatives of one kind are distinct and none of them is a link of any part.
    ``valid_non_edges`` and ``test_non_edges`` are disjoint. A hard kind holds fewer than the test
    edges where the graph has no more.

    Args:
        train: Links that messages may pass along and that training explains.
        valid: Links to choose a model with.
        test: Links to look at once.
        valid_non_edges: Uniform negatives, one per link of ``valid``.
        test_non_edges: Uniform negatives, one per link of ``test``.
        test_degree_matched: Negatives with endpoints drawn in proportion to their train degree.
        test_two_hop: Negatives two steps apart in the train graph, uniformly among all such pairs.
    """

    train: np.ndarray
    valid: np.ndarray
    test: np.ndarray
    valid_non_edges: np.ndarray
    test_non_edges: np.ndarray
    test_degree_matched: np.ndarray
    test_two_hop: np.ndarray


@dataclass(frozen=True, eq=False)
class Dataset:
    """A prepared graph.

    Args:
        features: ``(node, feature)`` float32, or None.
        edges: All links, ``(2, edge)`` int64, distinct, no self loops, sorted; source < target if
            undirected.
        names: Original name of each node.
        titles: A longer name of each node for people; equal to ``names`` where there is none.
        labels: A class per node, −1 where unknown; or None.
        directed: Whether ``edges`` are ordered pairs. The symmetric decoders cannot tell the two
            apart.
        positions: Longitude and latitude in degrees, ``(node, 2)``, for maps; or None.
        split: Its links by part.
        card: What was found while preparing it.
    """

    features: Features | None
    edges: np.ndarray
    names: list[str]
    titles: list[str]
    labels: np.ndarray | None
    directed: bool
    positions: np.ndarray | None
    split: LinkSplit
    card: DataCard


@dataclass(frozen=True, eq=False)
class RawGraph:
    """What a reader found, before anything is merged, dropped or split.

    Args:
        names: Original name of each node.
        pairs: Links as listed: repeats, both directions and self loops included.
        directed: What the source says of direction; None if it does not say.
        source: Where it came from, without a folder.
        place: Where it came from, for messages to the person who gave it.
        licence: Its licence.
        features: One row a node.
        features_place: Where they came from, if from elsewhere.
        labels: A class per node, −1 where unknown.
        titles: A longer name of each node.
        positions: Longitude and latitude in degrees.
        facts: Counts that only the reader knows.
        notes: Remarks for the report.
    """

    names: list[str]
    pairs: np.ndarray
    directed: bool | None
    source: str
    place: str
    licence: str = "unknown"
    features: Any = None
    features_place: str | None = None
    labels: np.ndarray | None = None
    titles: list[str] | None = None
    positions: np.ndarray | None = None
    facts: tuple[tuple[str, int], ...] = ()
    notes: tuple[str, ...] = ()
