"""What costs nothing to learn: every reported number stands beside these."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from domains.graph.data import Dataset
from domains.graph.model.features import prepared

Array = NDArray[np.float64]
Matrix = Any  # a numpy array or a scipy csr matrix of node rows
CHUNK = 100_000


@dataclass(frozen=True, eq=False)
class Floor:
    r"""A score of a pair without training: :math:`s_{ij} = l_i \cdot r_j`.

    Args:
        left: :math:`l`, one row a node.
        right: :math:`r`, likewise.
    """

    left: Matrix
    right: Matrix

    def pairs(self, pairs: NDArray[np.int64]) -> Array:
        """Scores of some pairs."""
        parts = [pairs[:, start : start + CHUNK] for start in range(0, pairs.shape[1], CHUNK)]
        return np.concatenate([self._pairs(*part) for part in parts] or [np.zeros(0)])

    def _pairs(self, source: NDArray[np.int64], target: NDArray[np.int64]) -> Array:
        left, right = self.left[source], self.right[target]
        if sparse.issparse(left):
            return np.asarray(left.multiply(right).sum(axis=1), dtype=np.float64).ravel()
        return np.einsum("pf,pf->p", left, right).astype(np.float64)

    def rows(self, sources: NDArray[np.int64]) -> Array:
        """Scores of some nodes with every node."""
        product = self.left[sources] @ self.right.T
        return np.asarray(product.todense() if sparse.issparse(product) else product)


def floors(dataset: Dataset) -> Mapping[str, Floor]:
    """Untrained propagated cosine, Adamic–Adar, preferential attachment, on the train links."""
    adjacency = train_adjacency(dataset)
    degree = np.asarray(adjacency.sum(axis=1)).ravel()
    weight = np.where(degree > 1, 1 / np.log(np.maximum(degree, 2)), 0)
    popularity = np.log1p(degree)[:, None]
    ones = np.ones_like(popularity)
    near = propagated_features(dataset)
    return {
        "untrained propagated cosine": Floor(near, near),
        "Adamic–Adar": Floor((adjacency @ sparse.diags_array(weight)).tocsr(), adjacency),
        "preferential attachment": Floor(
            np.hstack([popularity, ones]), np.hstack([ones, popularity])
        ),
    }


def train_adjacency(dataset: Dataset) -> Matrix:
    """The train links as a symmetric matrix of ones."""
    nodes = len(dataset.names)
    ones = np.ones(dataset.split.train.shape[1])
    one_way = sparse.csr_matrix((ones, tuple(dataset.split.train)), shape=(nodes, nodes))
    both: Matrix = (one_way + one_way.T).tocsr()
    both.data[:] = 1
    return both


def propagated_features(dataset: Dataset) -> Matrix:
    r"""Rows of :math:`\hat A X`, each of length 1; :math:`X = I` for a graph without features."""
    adjacency = train_adjacency(dataset) + sparse.identity(len(dataset.names), format="csr")
    scale = sparse.diags_array(np.asarray(adjacency.sum(axis=1)).ravel() ** -0.5)
    near = scale @ adjacency @ scale
    if dataset.features is not None:
        features = prepared("auto", dataset.features)
        if not features.is_sparse_csr:
            near = near @ features.double().numpy()
        else:
            parts = (features.values(), features.col_indices(), features.crow_indices())
            near = near @ sparse.csr_matrix(tuple(part.numpy() for part in parts), features.shape)
    if not sparse.issparse(near):
        return near / np.maximum(np.linalg.norm(near, axis=1, keepdims=True), 1e-12)
    near = near.tocsr()
    length = np.sqrt(np.asarray(near.multiply(near).sum(axis=1)).ravel())
    return (sparse.diags_array(1 / np.maximum(length, 1e-12)) @ near).tocsr()
