"""What a model sees at each step: links that carry messages, links to explain, non-links."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from core.contract import Split
from domains.graph.data.negatives import uniform
from domains.graph.data.pairs import (
    both_ways,
    contains,
    generator,
    pair_count,
    pair_numbers,
    pairs_of,
)
from domains.graph.data.records import Batching, Dataset, Features, Graph, Matrix
from domains.graph.data.store import load

LARGE = 1_000_000  # numbers in a feature matrix from which mostly zero ones stay sparse
DENSE = 0.1


def batches(config: Batching, folder: Path, split: Split) -> LinkBatches:
    """The batches of one split of the prepared graph, in the regime of the model section."""
    return LinkBatches(
        load(folder),
        split,
        seed=config.seed,
        hide=config.model.hide,
        negatives=config.model.negatives,
        neighbours=config.model.neighbours,
        batch_edges=config.data.batch_edges,
    )


def feature_tensor(features: Features) -> Tensor:
    """The features as a model reads them: CSR when large and mostly zero, else dense."""
    if isinstance(features, np.ndarray):
        return torch.from_numpy(features)
    cells = features.shape[0] * features.shape[1]
    if cells < LARGE or features.nnz > DENSE * cells:
        return torch.from_numpy(features.toarray())
    parts = (features.indptr, features.indices, features.data)
    with warnings.catch_warnings():  # torch calls its CSR tensors a beta, once a process
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
        crow, column, values = (torch.from_numpy(part) for part in parts)
        return torch.sparse_csr_tensor(
            crow.long(), column.long(), values, features.shape, check_invariants=False
        )


def _take(ordered: np.ndarray, start: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """The stretches of ``ordered`` that begin at ``start``, one after the other."""
    ends = np.cumsum(sizes)
    shift = np.repeat(start - (ends - sizes), sizes)
    return ordered[np.arange(ends[-1] if len(ends) else 0) + shift]


def sample_neighbours(
    rng: np.random.Generator,
    adjacency: Matrix,
    seeds: np.ndarray,
    fan_outs: Sequence[int],
) -> np.ndarray:
    """Sample links around some nodes, outwards step by step, without replacement.

    Args:
        rng: Where the randomness comes from.
        adjacency: Which nodes are linked, both ways.
        seeds: Nodes to start from.
        fan_outs: Neighbours a node at each step outwards.

    Returns:
        The sampled links, ``(2, link)``, from a neighbour to the node it was sampled for.
    """
    found = [np.empty((2, 0), dtype=np.int64)]
    reached = frontier = np.unique(seeds)
    for fan_out in fan_outs:
        start, sizes = (
            adjacency.indptr[frontier].astype(np.int64),
            np.diff(adjacency.indptr)[frontier],
        )
        near = _take(adjacency.indices, start, sizes).astype(np.int64)
        owner = np.repeat(np.arange(len(frontier)), sizes)
        order = np.argsort(owner + rng.random(len(near)))  # by owner, shuffled within
        place = np.arange(len(near)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        kept = order[place < fan_out]
        found.append(np.stack([near[kept], frontier[owner[kept]]]))
        frontier = np.setdiff1d(near[kept], reached)
        reached = np.union1d(reached, frontier)
    return np.concatenate(found, axis=1)


@dataclass(frozen=True, eq=False)
class LinkBatches:
    """The batches of one split. A batch is a function of (seed, epoch, index) alone.

    Training:

    * ``hide = 0``: every train link carries messages and is to be explained (Kipf & Welling).
    * ``hide > 0``: each step hides that fraction of the train links from the messages and
      explains only those, so that no link is message and target at once. With ``neighbours`` the
      links hidden are those of the batch.
    * ``negatives = 0``: exact; ``non_edges`` is None. Otherwise so many uniform non-edges per
      explained link. They avoid the train links only: never looking at the validation and test
      links is the honest choice, as those count as non-edges in the exact loss too.
    * ``neighbours``: None for the whole graph in one batch an epoch; else fan-outs of the
      neighbourhood that is sampled around ``batch_edges`` links and their negatives (exact is not
      possible then).

    Validation and test: one batch, always the same; messages pass along all train links and no
    others, the links are those of the split and the non-edges its uniform ones.

    Totals count pairs of the whole graph: links of the split, and pairs that are neither those
    nor train links.

    Args:
        dataset: The prepared graph.
        split: Which part.
        seed: The run's seed.
        hide: Fraction of train links to hide at each step.
        negatives: Sampled non-edges per explained link, 0 for the exact sum.
        neighbours: Fan-outs from the explained pairs outwards.
        batch_edges: Links explained in a batch when neighbourhoods are sampled.
    """

    dataset: Dataset
    split: Split
    seed: int
    hide: float
    negatives: int
    neighbours: Sequence[int] | None
    batch_edges: int

    def __post_init__(self) -> None:
        if self.neighbours and not self.negatives:
            raise ValueError("neighbour sampling needs sampled negatives: negatives is 0")

    def __len__(self) -> int:
        """Steps in one epoch."""
        if self.split != "train" or not self.neighbours:
            return 1
        return -(-self.dataset.split.train.shape[1] // self.batch_edges)

    def batch(self, epoch: int, index: int) -> Graph:
        """Batch ``index`` of ``epoch``."""
        if self.split != "train":
            return self._held_out
        train = self.dataset.split.train
        if not self.neighbours and not self.hide and not self.negatives:
            return self._kipf
        hidden = self._explained(epoch, index)
        targets = train[:, hidden]
        non_edges = self._non_edges(epoch, index, targets.shape[1])
        if self.neighbours:
            return self._around(epoch, index, targets, non_edges)
        return self._whole(targets if self.hide else None, targets, non_edges)

    def _explained(self, epoch: int, index: int) -> np.ndarray:
        """Which train links are explained in a batch, ascending."""
        links = self.dataset.split.train.shape[1]
        if self.neighbours:
            order = generator(self.seed, epoch, "order").permutation(links)
            return np.sort(order[index * self.batch_edges : (index + 1) * self.batch_edges])
        if not self.hide:
            return np.arange(links)
        size = min(max(round(self.hide * links), 1), links)
        return np.sort(generator(self.seed, epoch, index, "hide").permutation(links)[:size])

    def _non_edges(self, epoch: int, index: int, links: int) -> np.ndarray | None:
        if not self.negatives:
            return None
        rng = generator(self.seed, epoch, index, "negatives")
        wanted = self.negatives * links
        return self._pairs(
            uniform(rng, wanted, self._nodes, self.dataset.directed, self._train_numbers)
        )

    def _pairs(self, numbers: np.ndarray) -> np.ndarray:
        return pairs_of(numbers, self._nodes, self.dataset.directed)

    def _whole(
        self, hidden: np.ndarray | None, edges: np.ndarray, non_edges: np.ndarray | None
    ) -> Graph:
        """The whole graph; no message passes along ``hidden``, in neither direction."""
        messages = self._messages
        if hidden is not None:
            numbers = np.sort(pair_numbers(hidden, self._nodes, directed=False))
            messages = messages[:, ~contains(numbers, self._message_numbers)]
        return self._graph(messages, edges, non_edges, np.arange(self._nodes))

    def _around(
        self, epoch: int, index: int, edges: np.ndarray, non_edges: np.ndarray | None
    ) -> Graph:
        """The sampled neighbourhood of some pairs, its nodes renumbered in their old order."""
        assert non_edges is not None
        assert self.neighbours is not None
        seeds = np.concatenate([edges.ravel(), non_edges.ravel()])
        rng = generator(self.seed, epoch, index, "neighbours")
        links = sample_neighbours(rng, self._adjacency, seeds, self.neighbours)
        if self.hide:
            hidden = np.sort(pair_numbers(edges, self._nodes, directed=False))
            links = links[:, ~contains(hidden, pair_numbers(links, self._nodes, directed=False))]
        present = np.zeros(self._nodes, dtype=bool)
        present[seeds] = present[links] = True
        nodes, place = np.flatnonzero(present), np.cumsum(present) - 1
        messages = both_ways(place[links], len(nodes))
        return self._graph(messages, place[edges], place[non_edges], nodes)

    def _graph(
        self,
        messages: np.ndarray,
        edges: np.ndarray,
        non_edges: np.ndarray | None,
        nodes: np.ndarray,
    ) -> Graph:
        links = getattr(self.dataset.split, self.split).shape[1]
        known = links if self.split == "train" else links + self.dataset.split.train.shape[1]
        return Graph(
            features=self._rows(nodes),
            messages=torch.from_numpy(messages),
            edges=torch.from_numpy(np.ascontiguousarray(edges)),
            non_edges=None
            if non_edges is None
            else torch.from_numpy(np.ascontiguousarray(non_edges)),
            total_edges=links,
            total_non_edges=pair_count(self._nodes, self.dataset.directed) - known,
            nodes=torch.from_numpy(nodes),
            total_nodes=self._nodes,
        )

    def _rows(self, nodes: np.ndarray) -> Tensor | None:
        features = self.dataset.features
        if features is None:
            return None
        return self._features if len(nodes) == self._nodes else feature_tensor(features[nodes])

    @property
    def _nodes(self) -> int:
        return len(self.dataset.names)

    @cached_property
    def _features(self) -> Tensor:
        assert self.dataset.features is not None
        return feature_tensor(self.dataset.features)

    @cached_property
    def _train_numbers(self) -> np.ndarray:
        return np.sort(pair_numbers(self.dataset.split.train, self._nodes, self.dataset.directed))

    @cached_property
    def _messages(self) -> np.ndarray:
        return both_ways(self.dataset.split.train, self._nodes)

    @cached_property
    def _message_numbers(self) -> np.ndarray:
        return pair_numbers(self._messages, self._nodes, directed=False)

    @cached_property
    def _adjacency(self) -> Matrix:
        ones = np.ones(self._messages.shape[1], dtype=np.float32)
        return sparse.csr_matrix((ones, tuple(self._messages)), shape=(self._nodes, self._nodes))

    @cached_property
    def _kipf(self) -> Graph:
        return self._whole(None, self.dataset.split.train, None)

    @cached_property
    def _held_out(self) -> Graph:
        split = self.dataset.split
        non_edges = split.valid_non_edges if self.split == "valid" else split.test_non_edges
        return self._whole(None, getattr(split, self.split), non_edges)
