"""One step of messages: multiplication by the normalised adjacency."""

from __future__ import annotations

import contextlib
import warnings
from contextlib import AbstractContextManager
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor


class Adjacency:
    r"""The symmetric normalised adjacency of a graph, as a sparse operator.

    .. math:: \hat A = D^{-1/2} (A + I) D^{-1/2}

    Args:
        messages: Both directions of each link, ``(2, message)``, no self loops.
        nodes: Number of nodes.
        dtype: Of the numbers to propagate.

    Example:
        >>> Adjacency(torch.tensor([[0, 1], [1, 0]]), 2).propagate(torch.eye(2))
        tensor([[0.5000, 0.5000],
                [0.5000, 0.5000]])
    """

    def __init__(
        self,
        messages: Int[Tensor, "2 message"],
        nodes: int,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        source, target = messages
        self.nodes = nodes
        self.degrees = torch.bincount(source, minlength=nodes)
        loops = torch.arange(nodes, device=messages.device)
        keys = torch.cat([source * nodes + target, loops * (nodes + 1)]).sort().values
        row, column = keys // nodes, keys % nodes
        scale = (self.degrees + 1).to(dtype).rsqrt()
        start = torch.zeros(nodes + 1, dtype=torch.long, device=messages.device)
        torch.cumsum(self.degrees + 1, 0, out=start[1:])
        self.matrix = sparse_rows(start, column, scale[row] * scale[column], (nodes, nodes))

    def propagate(self, h: Float[Tensor, "node latent"]) -> Float[Tensor, "node latent"]:
        r"""Return :math:`\hat A h`."""
        with full_precision(self.matrix):
            h = h.to(self.matrix.dtype)
            return _SymmetricProduct.apply(self.matrix, h)  # pyright: ignore[reportReturnType]


def full_precision(matrix: Tensor) -> AbstractContextManager[Any]:
    """Turn mixed precision off around a sparse product, which has none on every device."""
    if matrix.layout == torch.strided:
        return contextlib.nullcontext()
    return torch.autocast(matrix.device.type, enabled=False)


def sparse_rows(start: Tensor, column: Tensor, values: Tensor, shape: tuple[int, int]) -> Tensor:
    """A CSR tensor, without torch's remark that its CSR tensors are a beta."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
        return torch.sparse_csr_tensor(start, column, values, shape, check_invariants=False)


class _SymmetricProduct(torch.autograd.Function):
    """A constant symmetric matrix times a dense one: the same product forwards and backwards."""

    @staticmethod
    def forward(ctx: Any, matrix: Tensor, h: Tensor) -> Tensor:
        ctx.matrix = matrix
        return matrix @ h

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, Tensor]:
        return None, ctx.matrix @ gradients[0].contiguous()
