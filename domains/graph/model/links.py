"""The model of links: latents for nodes, a Bernoulli variable for each pair of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from core.variational.distributions import DiagonalNormal
from core.variational.evidence import Evidence, Latent
from core.variational.priors import StandardNormal
from domains.graph.config import GAE, VGAE, VGNAE, Config, CosineVGAE, LinearVGAE
from domains.graph.data import Dataset, Graph, load
from domains.graph.model.decoders import CosineDecoder, Decoder, InnerProduct
from domains.graph.model.encoders import (
    GCN,
    HiddenProjection,
    HopEncoder,
    LinearGCN,
    NormalisedGCN,
    Projection,
)
from domains.graph.model.features import FeatureScaling, chosen
from domains.graph.model.propagation import Adjacency


class LinkModel(nn.Module):
    r"""A latent for each node; whether two nodes are linked is a Bernoulli variable.

    .. math:: p(A, Z) = \prod_i \mathcal N(z_i; 0, I) \prod_{i<j} p(A_{ij} \mid z_i, z_j),
        \quad q(Z \mid X, A) = \prod_i \mathcal N(z_i; \mu_i, \operatorname{diag} \sigma_i^2)

    One example is the graph: the terms ``edges`` and ``non_edges`` are log-likelihoods in nats per
    graph over unordered pairs, sampled ones scaled up so that they are unbiased. A sampled
    neighbourhood of :math:`n` of :math:`N` nodes counts as :math:`n/N` of the graph, which keeps
    the proportion to its KL. Links are few, so the training weight of ``edges`` is the number of
    non-edges per edge: both classes count the same.

    Kipf & Welling's loss times :math:`N^2` is their factor ``norm`` times the weighted
    cross-entropy of all :math:`N^2` ordered pairs, plus the summed KL. With ``norm`` close to 1/2
    each unordered pair counts once: it is this ELBO with :math:`\beta = 1` and edges so weighted.
    They also count each node as linked to itself. That is no data, so here it is the penalty
    ``self_links``, of the same weight as in their loss: it lengthens the latents of isolated nodes
    (CiteSeer has many) and is worth 2 to 3 points of AUC there.

    Args:
        encoder: Graph → location and scale of each node's latent.
        decoder: Latents → logits of pairs.
        self_links: Whether each node is drawn to a link with itself.
    """

    def __init__(self, encoder: nn.Module, decoder: Decoder, self_links: bool) -> None:
        super().__init__()
        self.encoder, self.decoder, self.prior = encoder, decoder, StandardNormal()
        self.self_links = self_links

    def encode(self, graph: Graph) -> tuple[Tensor, Tensor | None, Adjacency]:
        """Location and scale of each node's latent, and the adjacency they came from."""
        dtype = next(self.parameters()).dtype
        adjacency = Adjacency(graph.messages, len(graph.nodes), dtype)
        loc, scale = self.encoder(graph, adjacency)
        return loc, scale, adjacency

    def evidence(self, batch: Graph, samples: int = 1) -> Evidence:
        """What the model says about a graph, from ``samples`` posterior draws."""
        loc, scale, adjacency = self.encode(batch)
        latents = []
        if scale is None:
            z = loc.expand(samples, *loc.shape)
        else:
            posterior = DiagonalNormal(loc[None], scale[None], event_dims=2)
            value = posterior.rsample((samples,))
            latents = [Latent("z", value, posterior, self.prior(posterior))]
            z = value[:, 0]
        share = len(batch.nodes) / batch.total_nodes
        terms = {
            "edges": share * self.edges(z, adjacency, batch),
            "non_edges": share * self.non_edges(z, adjacency, batch),
        }
        balance = batch.total_non_edges / max(batch.total_edges, 1)
        penalties = {}
        if self.self_links:
            own = torch.arange(z.shape[1], device=z.device).expand(2, -1)
            logits = self.decoder.logits(z, adjacency, own)
            penalties["self_links"] = (
                balance / 2 * functional.softplus(-logits).sum(1).mean(0)[None]
            )
        return Evidence(
            log_likelihood={name: term[:, None] for name, term in terms.items()},
            latents=latents,
            penalties=penalties,
            weights={"edges": balance},
        )

    def edges(
        self, z: Float[Tensor, "sample node latent"], adjacency: Adjacency, graph: Graph
    ) -> Float[Tensor, " sample"]:
        """Log-likelihood of the edges of the whole graph, in nats."""
        scale = graph.total_edges / max(graph.edges.shape[1], 1)
        return scale * functional.logsigmoid(self.decoder.logits(z, adjacency, graph.edges)).sum(1)

    def non_edges(
        self, z: Float[Tensor, "sample node latent"], adjacency: Adjacency, graph: Graph
    ) -> Float[Tensor, " sample"]:
        """Log-likelihood of the non-edges of the whole graph, in nats: sampled, or all of them."""
        if graph.non_edges is not None:
            scale = graph.total_non_edges / max(graph.non_edges.shape[1], 1)
            logits = self.decoder.logits(z, adjacency, graph.non_edges)
            return -scale * functional.softplus(logits).sum(1)
        linked = _linked(graph)
        nodes = len(graph.nodes)
        # 1 unless ordered pairs count: the decoders cannot tell the two directions apart.
        scale = graph.total_non_edges / max(nodes * (nodes - 1) // 2 - linked.shape[1], 1)
        rest = functional.softplus(self.decoder.logits(z, adjacency, linked)).sum(1)
        return -scale * (self.decoder.softplus_of_all(z, adjacency) - rest)

    @property
    def has_own_vectors(self) -> bool:
        """Whether there is a vector for each node of the graph it was built for."""
        return any(isinstance(m, Projection) and m.scaling is None for m in self.modules())

    @torch.no_grad()
    def embed(self, graph: Graph) -> Float[Tensor, "node latent"]:
        """The posterior mean of each node."""
        return self.encode(graph)[0]

    @torch.no_grad()
    def score(self, graph: Graph, pairs: Int[Tensor, "2 pair"]) -> np.ndarray:
        """Logits of some pairs at the posterior means, in float64."""
        loc, _, adjacency = self.encode(graph)
        return self.decoder.logits(loc[None], adjacency, pairs)[0].double().cpu().numpy()

    @torch.no_grad()
    def score_rows(self, graph: Graph, sources: Int[Tensor, " source"]) -> np.ndarray:
        """Logits of some nodes with every node, in float64; in memory sources × nodes."""
        loc, _, adjacency = self.encode(graph)
        z = loc[None]
        parts = sources.split(self.decoder.rows_at_once(z))
        rows = [self.decoder.rows(z, adjacency, part)[0].cpu() for part in parts]
        return torch.cat(rows).double().numpy()


def _linked(graph: Graph) -> Tensor:
    """Every pair that is an edge or carries messages, once."""
    forward = graph.messages[:, graph.messages[0] < graph.messages[1]]
    pairs = torch.cat([graph.edges.sort(dim=0).values, forward], dim=1)
    numbers = torch.unique(pairs[0] * len(graph.nodes) + pairs[1])
    return torch.stack([numbers // len(graph.nodes), numbers % len(graph.nodes)])


def build(config: Config, folder: Path) -> LinkModel:
    """A new, initialised model for the prepared graph."""
    return assemble(config.model, load(folder))


def assemble(model: Any, dataset: Dataset) -> LinkModel:
    """A new, initialised model of one of the kinds for a graph."""
    nodes = len(dataset.names)
    scaling = None
    if dataset.features is not None:
        scaling = FeatureScaling(chosen(model.features, dataset.features), dataset.features)
    match model:
        case VGAE() | GAE():
            project = Projection(scaling, nodes, model.hidden)
            encoder = GCN(project, model.latent, stochastic=model.kind == "vgae")
        case LinearVGAE():
            encoder = LinearGCN(Projection(scaling, nodes, 2 * model.latent))
        case VGNAE():
            project = Projection(scaling, nodes, 2 * model.latent, bias=scaling is not None)
            encoder = NormalisedGCN(project, model.length)
        case CosineVGAE():
            return _cosine(model, scaling, nodes)
        case _:
            raise ValueError(f"no model of kind {model.kind!r}")
    return LinkModel(encoder, InnerProduct(), model.self_links)


def _cosine(model: CosineVGAE, scaling: FeatureScaling | None, nodes: int) -> LinkModel:
    spread = model.length / model.latent**0.5
    channels: list[nn.Module] = []
    if scaling is not None and model.hidden:
        columns = len(scaling.scale)
        first = Projection(scaling, nodes, model.hidden, spread=3 * columns**-0.5, bias=True)
        channels.append(HiddenProjection(first, model.latent, spread))
    elif scaling is not None:
        channels.append(Projection(scaling, nodes, model.latent, spread))
    if scaling is None or model.identity:
        channels.append(Projection(None, nodes, model.latent, spread))
    encoder = HopEncoder(channels, model.latent, model.hops, model.dropout, model.noise)
    decoder = CosineDecoder(
        len(channels), len(model.hops), model.latent, model.crossed, model.units
    )
    return LinkModel(encoder, decoder, self_links=False)
