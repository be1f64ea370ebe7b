"""Encoders: a graph in, the posterior of each node's latent out."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Protocol

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributions import Distribution
from torch.nn import functional

from core.variational.distributions import DiagonalNormal
from core.variational.posteriors import Posterior
from domains.graph.data import Graph
from domains.graph.model.features import FeatureScaling
from domains.graph.model.propagation import Adjacency, full_precision

Latents = Distribution | Float[Tensor, "node latent"]


class Encoder(Protocol):
    """What `LinkModel` asks of an encoder."""

    latent: int

    def __call__(self, graph: Graph, adjacency: Adjacency, apart: bool = False) -> Latents:
        """The posterior of all nodes, or the latents of a deterministic encoder.

        Its batch shape is ``(1,)``, or ``(node,)`` if the nodes are examples ``apart``.
        """
        ...


class Projection(nn.Module):
    r"""A linear map :math:`XW` of node features, or a vector per node where there are none.

    Args:
        scaling: How features are prepared; None for a graph without, then :math:`X = I`.
        nodes: Nodes of the whole graph.
        size: Width of the result.
        spread: Standard deviation of the initial weights; None for Glorot's uniform ones.
        bias: Whether a bias is learned.
    """

    def __init__(
        self,
        scaling: FeatureScaling | None,
        nodes: int,
        size: int,
        spread: float | None = None,
        bias: bool = False,
    ) -> None:
        super().__init__()
        self.scaling = scaling
        rows = nodes if scaling is None else len(scaling.scale)
        self.weight = nn.Parameter(torch.empty(rows, size))
        self.bias = nn.Parameter(torch.zeros(size)) if bias else None
        if spread is None:
            nn.init.xavier_uniform_(self.weight)
        else:
            nn.init.normal_(self.weight, std=spread)

    def forward(self, graph: Graph) -> Float[Tensor, "node latent"]:
        """Project the features of the graph's nodes."""
        if self.scaling is None:
            h = self.weight if len(graph.nodes) == len(self.weight) else self.weight[graph.nodes]
        else:
            assert graph.features is not None
            features = self.scaling(graph.features)
            with full_precision(features):
                h = features @ self.weight
        return h if self.bias is None else h + self.bias


class HiddenProjection(nn.Module):
    r"""A projection after a layer: :math:`\tanh(XV + b) W`.

    Args:
        first: The layer, with a bias.
        size: Width of the result.
        spread: Standard deviation of the initial weights.
    """

    def __init__(self, first: Projection, size: int, spread: float) -> None:
        super().__init__()
        self.first = first
        self.weight = nn.Parameter(spread * torch.randn(first.weight.shape[1], size))
        assert first.bias is not None
        nn.init.normal_(first.bias, std=0.5)

    def forward(self, graph: Graph) -> Float[Tensor, "node latent"]:
        """Project the features of the graph's nodes."""
        return torch.tanh(self.first(graph)) @ self.weight


class GCN(nn.Module):
    r"""Two graph convolutions with a shared first layer.

    .. math:: \mu = \hat A \operatorname{ReLU}(\hat A X W_0) W_\mu, \quad
        \log \sigma = \hat A \operatorname{ReLU}(\hat A X W_0) W_\sigma

    Other posteriors take other raw parameters than these two in the same place. No bias, no
    dropout, Glorot's initial weights.

    References:
        Kipf & Welling, "Variational Graph Auto-Encoders", 2016, section 2 (arXiv:1611.07308).

    Args:
        project: The first layer.
        latent: Width of the latent.
        posterior: What makes a distribution of the raw parameters; None for the latents
            themselves.
    """

    def __init__(self, project: Projection, latent: int, posterior: Posterior | None) -> None:
        super().__init__()
        self.project, self.latent, self.posterior = project, latent, posterior
        size = latent if posterior is None else posterior.size
        self.weight = nn.Parameter(torch.empty(project.weight.shape[1], size))
        for part in self.weight.data.split(latent, dim=1):
            nn.init.xavier_uniform_(part)

    def forward(self, graph: Graph, adjacency: Adjacency, apart: bool = False) -> Latents:
        """The posterior of the latents, or the latents."""
        h = functional.relu(adjacency.propagate(self.project(graph)))
        raw = adjacency.propagate(h @ self.weight)
        return raw if self.posterior is None else _of_nodes(self.posterior, raw, apart)


class LinearGCN(nn.Module):
    r"""One propagation and a linear map: :math:`\mu = \hat A X W_\mu`, likewise for log σ.

    References:
        Salha et al., "Keep It Simple: Graph Autoencoders Without Graph Convolutional Networks",
        2019, eq. 6 (arXiv:1910.00942).

    Args:
        project: The map to the posterior's raw parameters.
        latent: Width of the latent.
        posterior: What makes a distribution of them.
    """

    def __init__(self, project: Projection, latent: int, posterior: Posterior) -> None:
        super().__init__()
        self.project, self.latent, self.posterior = project, latent, posterior

    def forward(self, graph: Graph, adjacency: Adjacency, apart: bool = False) -> Latents:
        """The posterior of the latents."""
        return _of_nodes(self.posterior, adjacency.propagate(self.project(graph)), apart)


class NormalisedGCN(nn.Module):
    r"""A linear map of fixed length, then one propagation.

    .. math:: \mu = \hat A\, s \frac{XW + b}{\|XW + b\|}, \quad \log \sigma = \hat A (XW' + b')

    A graph convolution draws nodes with few links to zero; a fixed length keeps them. The released
    code never applies its KL; here it counts.

    References:
        Ahn & Kim, "Variational Graph Normalized AutoEncoders", CIKM 2021 (arXiv:2108.08046).

    Args:
        project: The map to twice the latent.
        length: :math:`s`, 1.8 in the paper.
    """

    def __init__(self, project: Projection, length: float) -> None:
        super().__init__()
        self.project, self.latent, self.length = project, project.weight.shape[1] // 2, length

    def forward(self, graph: Graph, adjacency: Adjacency, apart: bool = False) -> Latents:
        """The posterior of the latents."""
        h, log_scale = self.project(graph).split(self.latent, dim=1)
        h = self.length * functional.normalize(h, dim=-1)
        loc, log_scale = adjacency.propagate(torch.cat([h, log_scale], dim=1)).chunk(2, dim=1)
        return _normal_of_nodes(loc, log_scale.exp(), apart)


class HopEncoder(nn.Module):
    r"""Directions of projections after several propagations, side by side.

    With :math:`m` a channel's projection of a node, each row divided by its length, the latent of
    hop :math:`k` has the location

    .. math:: \mu_k = \sqrt{d}\, \frac{\hat A^k m}{\|\hat A^k m\|}

    and a scale learned per dimension. An untrained random projection of features already gives
    the cosines of propagated features, a strong method; training turns the projection from there.
    The square root makes a dimension about as wide as the standard normal prior.

    Args:
        projections: One for each channel.
        width: Of each projection, :math:`d`.
        hops: Which :math:`k`.
        dropout: Share of a projection's entries dropped in training.
        noise: Initial scale of the posterior.
    """

    def __init__(
        self,
        projections: Sequence[nn.Module],
        width: int,
        hops: Sequence[int],
        dropout: float,
        noise: float,
    ) -> None:
        super().__init__()
        self.projections = nn.ModuleList(projections)
        self.hops, self.width = tuple(hops), width
        self.latent = len(projections) * len(hops) * width
        self.dropout = nn.Dropout(dropout)
        self.log_scale = nn.Parameter(torch.full((self.latent,), math.log(noise)))

    def forward(self, graph: Graph, adjacency: Adjacency, apart: bool = False) -> Latents:
        """The posterior of the latents: channels, then hops, then dimensions."""
        parts = []
        for projection in self.projections:
            h = functional.normalize(self.dropout(projection(graph)), dim=-1)
            for hop in range(max(self.hops) + 1):
                h = adjacency.propagate(h) if hop else h
                if hop in self.hops:
                    parts.append(functional.normalize(h, dim=-1))
        loc = math.sqrt(self.width) * torch.cat(parts, dim=-1)
        return _normal_of_nodes(loc, self.log_scale.exp().expand_as(loc), apart)


def _of_nodes(posterior: Posterior, raw: Tensor, apart: bool) -> Distribution:
    if not apart:
        return posterior(raw[None])
    single = copy.copy(posterior)
    single.event_dims = 1
    return single(raw)


def _normal_of_nodes(loc: Tensor, scale: Tensor, apart: bool) -> DiagonalNormal:
    return DiagonalNormal(loc, scale) if apart else DiagonalNormal(loc[None], scale[None], 2)
