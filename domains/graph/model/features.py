"""Node features as a network reads them, with the statistics of the graph that was learned from.

The statistics are buffers, so that a new graph is prepared as the first one was.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from scipy import sparse
from torch import Tensor, nn
from torch.nn import functional

from domains.graph.data import feature_tensor
from domains.graph.model.propagation import sparse_rows

MOSTLY_ZERO = 0.5
KINDS = ("raw", "tfidf", "row-normalised", "standardised")


def chosen(kind: str, features: Any) -> str:
    """Settle ``auto``: TF-IDF for bags of words, standardising for everything else."""
    if kind != "auto":
        return kind
    values = np.asarray(features.data if sparse.issparse(features) else features)
    filled = np.count_nonzero(values) / max(features.shape[0] * features.shape[1], 1)
    return "tfidf" if filled < MOSTLY_ZERO and values.min(initial=0) >= 0 else "standardised"


class FeatureScaling(nn.Module):
    r"""Features as they are, as TF-IDF, row-normalised or standardised.

    ``tfidf`` is :math:`x_{nf} \log\frac{N}{1 + N_f}`, not below zero, with :math:`N_f` nodes that
    have the word, each row then divided by its length. ``standardised`` takes mean 0 and standard
    deviation 1; sparse features are only divided by the latter, as centring would fill them.

    Args:
        kind: One of `KINDS`.
        features: Those of the graph to learn from, an array or a scipy csr matrix.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, kind: str, features: Any) -> None:
        super().__init__()
        if kind not in KINDS:
            raise ValueError(f"features: kind {kind!r}; there are: {', '.join(KINDS)}")
        self.kind = kind
        rows, columns = features.shape
        scale, shift = np.ones(columns), np.zeros(columns)
        if kind == "tfidf":
            having = np.asarray((features != 0).sum(axis=0)).ravel()
            scale = np.maximum(np.log(rows / (1 + having)), 0)
        if kind == "standardised":
            mean = np.asarray(features.mean(axis=0), dtype=np.float64).ravel()
            squares = features.power(2) if sparse.issparse(features) else features**2
            variance = np.asarray(squares.mean(axis=0), dtype=np.float64).ravel() - mean**2
            scale = 1 / np.sqrt(np.where(variance > 1e-12, variance, 1))
            shift = shift if sparse.issparse(features) else mean
        self.register_buffer("scale", torch.from_numpy(scale).float())
        self.register_buffer("shift", torch.from_numpy(shift).float())

    def forward(self, features: Tensor) -> Tensor:
        """Return the prepared features, sparse where they came sparse."""
        if self.kind == "raw":
            return features.to(self.scale.dtype)
        if features.layout == torch.sparse_csr:
            return self._sparse(features)
        features = (features.to(self.scale.dtype) - self.shift) * self.scale
        if self.kind == "tfidf":
            return functional.normalize(features, dim=-1)
        if self.kind == "row-normalised":
            return functional.normalize(features, p=1, dim=-1)
        return features

    def _sparse(self, features: Tensor) -> Tensor:
        start, column = features.crow_indices(), features.col_indices()
        values = features.values().to(self.scale.dtype) * self.scale[column]
        if self.kind in ("tfidf", "row-normalised"):
            row = torch.repeat_interleave(torch.arange(len(start) - 1), start.diff().cpu())
            row = row.to(values.device)
            size = values.square() if self.kind == "tfidf" else values.abs()
            total = torch.zeros(len(start) - 1, dtype=values.dtype, device=values.device)
            total.index_add_(0, row, size)
            length = total.sqrt() if self.kind == "tfidf" else total
            values = values / length.clamp(min=1e-12)[row]
        return sparse_rows(start, column, values, (features.shape[0], features.shape[1]))


def prepared(kind: str, features: Any) -> Tensor:
    """Features scaled by their own statistics."""
    return FeatureScaling(chosen(kind, features), features)(feature_tensor(features))
