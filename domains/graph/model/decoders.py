"""Decoders: the logit of a link between two nodes, from their latents."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from domains.graph.model.propagation import Adjacency

CHUNK = 2**23  # numbers gathered at a time: 32 MiB in single precision
ROW_BLOCK = 2**21  # logits of a block of rows


class Decoder(nn.Module, ABC):
    """Symmetric logits of node pairs."""

    @abstractmethod
    def pairs(
        self,
        z: Float[Tensor, "sample node latent"],
        adjacency: Adjacency,
        pairs: Int[Tensor, "2 pair"],
    ) -> Float[Tensor, "sample pair"]:
        """Logits of some pairs, all in memory at once."""

    @abstractmethod
    def rows(
        self,
        z: Float[Tensor, "sample node latent"],
        adjacency: Adjacency,
        sources: Int[Tensor, " source"],
    ) -> Float[Tensor, "sample source node"]:
        """Logits of some nodes with every node."""

    @abstractmethod
    def rows_at_once(self, z: Float[Tensor, "sample node latent"]) -> int:
        """How many rows fit into a block."""

    def logits(
        self,
        z: Float[Tensor, "sample node latent"],
        adjacency: Adjacency,
        pairs: Int[Tensor, "2 pair"],
    ) -> Float[Tensor, "sample pair"]:
        """Logits of any number of pairs; many are taken in chunks and computed again backwards."""
        size = max(CHUNK // (z.shape[0] * z.shape[2]), 1)
        if pairs.shape[1] <= size:
            return self.pairs(z, adjacency, pairs)
        parts = pairs.split(size, dim=1)
        return torch.cat([_recomputed(self.pairs, z, adjacency, part) for part in parts], dim=1)

    def blocks(self, z: Tensor) -> Iterator[Tensor]:
        """All nodes, in blocks whose rows fit into memory."""
        yield from torch.arange(z.shape[1], device=z.device).split(self.rows_at_once(z))

    def softplus_of_all(
        self, z: Float[Tensor, "sample node latent"], adjacency: Adjacency
    ) -> Float[Tensor, " sample"]:
        r"""Return :math:`\sum_{i<j} \log(1 + e^{l_{ij}})` in row blocks."""
        total = torch.zeros(z.shape[0], dtype=torch.float64, device=z.device)
        for sources in self.blocks(z):
            total = total + _recomputed(self._softplus_of_rows, z, adjacency, sources)
        own = torch.arange(z.shape[1], device=z.device).expand(2, -1)
        diagonal = functional.softplus(self.logits(z, adjacency, own)).double().sum(-1)
        return ((total - diagonal) / 2).to(z.dtype)

    def _softplus_of_rows(self, z: Tensor, adjacency: Adjacency, sources: Tensor) -> Tensor:
        return functional.softplus(self.rows(z, adjacency, sources)).flatten(1).double().sum(-1)


class InnerProduct(Decoder):
    r"""Kipf & Welling's decoder: :math:`l_{ij} = z_i \cdot z_j`."""

    def pairs(self, z: Tensor, adjacency: Adjacency, pairs: Tensor) -> Tensor:
        """Logits of some pairs."""
        return (z.index_select(1, pairs[0]) * z.index_select(1, pairs[1])).sum(-1)

    def rows(self, z: Tensor, adjacency: Adjacency, sources: Tensor) -> Tensor:
        """Logits of some nodes with every node."""
        return z.index_select(1, sources) @ z.mT

    def rows_at_once(self, z: Tensor) -> int:
        """How many rows fit into a block."""
        return max(ROW_BLOCK // (z.shape[0] * z.shape[1]), 1)

    def softplus_of_all(self, z: Tensor, adjacency: Adjacency) -> Tensor:
        """The sum over all pairs, with its gradient from the same pass."""
        return pairs_softplus(z, self.rows_at_once(z))


class CosineDecoder(Decoder):
    r"""Cosines of latents by channel and hop, and degrees, weighed by a small network.

    .. math:: l_{ij} = w \cdot s_{ij} + u \cdot \tanh(V s_{ij} + c) + b

    where :math:`s_{ij}` holds :math:`z_i^{k} \cdot z_j^{k} / d` for each channel and hop
    :math:`k` (crossed: for each pair of hops, averaged both ways round), and
    :math:`\log(1 + n_i) + \log(1 + n_j)` with the square of their difference. The degrees
    :math:`n` are those of the messages and count as at least one: a node that lost all its links
    to a split would otherwise be recognised by it.

    Args:
        channels: Channels of the latent.
        hops: Hops of each.
        width: Dimensions of each hop, :math:`d`.
        crossed: Whether different hops are compared.
        units: Units of the network; 0 leaves the weighted sum.
    """

    def __init__(self, channels: int, hops: int, width: int, crossed: bool, units: int) -> None:
        super().__init__()
        self.shape, self.crossed = (channels, hops, width), crossed
        self.upper: Tensor
        self.register_buffer("upper", torch.triu_indices(hops, hops), persistent=False)
        similarities = channels * (self.upper.shape[1] if crossed else hops)
        weight = torch.zeros(channels, similarities // channels)
        same = (self.upper[0] == self.upper[1]) if crossed else torch.ones(hops, dtype=torch.bool)
        weight[:, same] = 2 / hops
        weight[0, same] = 6 / hops
        self.weight = nn.Parameter(torch.cat([weight.flatten(), torch.zeros(2)]))
        self.bias = nn.Parameter(torch.tensor(-1.0))
        self.first = nn.Linear(similarities + 2, units) if units else None
        self.second = nn.Parameter(0.01 * torch.randn(units)) if units else None

    def pairs(self, z: Tensor, adjacency: Adjacency, pairs: Tensor) -> Tensor:
        """Logits of some pairs."""
        one, other = (
            z.index_select(1, end).unflatten(-1, self.shape) for end in (pairs[0], pairs[1])
        )
        if self.crossed:
            similar = self._upper(torch.einsum("spchd,spckd->spchk", one, other))
        else:
            similar = (one * other).sum(-1)
        log_degree = self._log_degree(adjacency, z)
        return self._weigh(similar, log_degree[pairs[0]], log_degree[pairs[1]])

    def rows(self, z: Tensor, adjacency: Adjacency, sources: Tensor) -> Tensor:
        """Logits of some nodes with every node."""
        one = z.index_select(1, sources).unflatten(-1, self.shape)
        every = z.unflatten(-1, self.shape)
        if self.crossed:
            similar = self._upper(torch.einsum("sichd,sjckd->sijchk", one, every))
        else:
            similar = torch.einsum("sichd,sjchd->sijch", one, every)
        log_degree = self._log_degree(adjacency, z)
        return self._weigh(similar, log_degree[sources][:, None], log_degree[None, :])

    def rows_at_once(self, z: Tensor) -> int:
        """How many rows fit into a block."""
        channels, hops, _ = self.shape
        numbers = channels * hops * (hops if self.crossed else 1)
        numbers += 0 if self.first is None else self.first.out_features
        return max(2 * ROW_BLOCK // (z.shape[0] * z.shape[1] * numbers), 1)

    def _upper(self, products: Tensor) -> Tensor:
        """Both ways round averaged, each pair of hops once."""
        row, column = self.upper[0], self.upper[1]
        return (products[..., row, column] + products[..., column, row]) / 2

    def _log_degree(self, adjacency: Adjacency, z: Tensor) -> Tensor:
        return adjacency.degrees.clamp(min=1).to(z.dtype).log1p()

    def _weigh(self, similar: Tensor, one: Tensor, other: Tensor) -> Tensor:
        """Logits from similarities ``(..., channel, hop)`` and two nodes' log degrees."""
        cosines = similar.flatten(-2) / self.shape[2]
        popular, unlike = one + other - 3, (one - other).square() - 1
        extra = torch.stack([popular, unlike], dim=-1).expand(*cosines.shape[:-1], 2)
        seen = torch.cat([cosines, extra], dim=-1)
        logits = seen @ self.weight + self.bias
        if self.first is None or self.second is None:
            return logits
        return logits + torch.tanh(self.first(seen)) @ self.second


def pairs_softplus(
    z: Float[Tensor, "sample node latent"], rows_at_once: int
) -> Float[Tensor, " sample"]:
    r"""Return :math:`\sum_{i<j} \log(1 + e^{z_i \cdot z_j})` without a node × node tensor.

    Blocks of rows above the diagonal; the gradient comes from the same pass, so a training step
    visits each pair once and keeps nothing of it.

    Args:
        z: Latents.
        rows_at_once: Rows of a block.
    """
    return _PairsSoftplus.apply(z, rows_at_once)  # pyright: ignore[reportReturnType]


class _PairsSoftplus(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, z: Tensor, rows_at_once: int) -> Tensor:
        gradient = torch.zeros_like(z) if ctx.needs_input_grad[0] else None
        total = torch.zeros(z.shape[0], dtype=torch.float64, device=z.device)
        for start in range(0, z.shape[1], rows_at_once):
            end = min(start + rows_at_once, z.shape[1])
            block, rest = z[:, start:end], z[:, start:]
            logits = block @ rest.mT
            softplus = functional.softplus(logits)
            own, diagonal = softplus[..., : end - start], softplus.diagonal(dim1=-2, dim2=-1)
            doubled = own.sum((-1, -2)).double() + diagonal.sum(-1).double()
            total += softplus.sum((-1, -2)).double() - doubled / 2
            if gradient is not None:
                slope = torch.sigmoid_(logits)
                slope.diagonal(dim1=-2, dim2=-1).zero_()
                gradient[:, start:end] += slope @ rest
                gradient[:, end:] += slope[..., end - start :].mT @ block
        ctx.save_for_backward(gradient)
        return total.to(z.dtype)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (gradient,) = ctx.saved_tensors
        return gradients[0][:, None, None] * gradient, None


def _recomputed(function: Any, *arguments: Any) -> Tensor:
    """The result, with what its gradient needs computed again when it is needed."""
    if not torch.is_grad_enabled():
        return function(*arguments)
    return checkpoint(function, *arguments, use_reentrant=False, preserve_rng_state=False)
