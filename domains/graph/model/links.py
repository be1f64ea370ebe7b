"""The model of links: latents for nodes, a Bernoulli variable for each pair of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.distributions import Distribution
from torch.nn import functional

from core.runtime import methods
from core.runtime.errors import UserError
from core.runtime.methods import latents
from core.variational.diagnostics import own_random_stream
from core.variational.estimators import REPARAMETERISED, Estimator
from core.variational.evidence import Evidence, Latent
from core.variational.posteriors import Posterior
from core.variational.priors import StandardNormal
from domains.graph.config import GAE, VGAE, VGNAE, Config, CosineVGAE, LinearVGAE
from domains.graph.data import Dataset, Graph, load
from domains.graph.model.decoders import CosineDecoder, Decoder, InnerProduct
from domains.graph.model.encoders import (
    GCN,
    HiddenProjection,
    HopEncoder,
    Latents,
    LinearGCN,
    NormalisedGCN,
    Projection,
)
from domains.graph.model.features import FeatureScaling, chosen
from domains.graph.model.propagation import Adjacency

MEAN_DRAWS = 256


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
        encoder: Graph → posterior of each node's latent.
        decoder: Latents → logits of pairs.
        self_links: Whether each node is drawn to a link with itself.
        estimator: How latents are drawn, and so how gradients reach the encoder.
    """

    encoder: Any
    prior: nn.Module

    def __init__(
        self,
        encoder: nn.Module,
        decoder: Decoder,
        self_links: bool,
        estimator: Estimator = REPARAMETERISED,
    ) -> None:
        super().__init__()
        self.encoder, self.decoder, self.prior = encoder, decoder, StandardNormal()
        self.self_links, self.estimator = self_links, estimator

    def encode(self, graph: Graph) -> tuple[Latents, Adjacency]:
        """The posterior of all nodes (or their latents), and the adjacency it came from."""
        dtype = next(self.parameters()).dtype
        adjacency = Adjacency(graph.messages, len(graph.nodes), dtype)
        return self.encoder(graph, adjacency), adjacency

    def encode_lone_nodes(self, features: Float[Tensor, "node feature"]) -> Distribution:
        """The posterior of nodes that have features and no links, one node an example."""
        nodes = torch.arange(len(features), device=features.device)
        none = nodes.new_zeros((2, 0))
        graph = Graph(features, none, none, None, 0, 0, nodes, len(nodes))
        return self.encoder(graph, Adjacency(none, len(nodes), features.dtype), apart=True)

    def evidence(self, batch: Graph, samples: int = 1) -> Evidence:
        """What the model says about a graph, from ``samples`` posterior draws."""
        encoded, adjacency = self.encode(batch)
        latents = []
        if isinstance(encoded, Tensor):
            z = encoded.expand(samples, *encoded.shape)
        else:
            latents = [Latent.draw("z", encoded, self.prior, samples, self.estimator)]
            z = latents[0].value[:, 0]
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
        return _mean(self.encode(graph)[0])

    @torch.no_grad()
    def score(self, graph: Graph, pairs: Int[Tensor, "2 pair"]) -> np.ndarray:
        """Logits of some pairs at the posterior means, in float64."""
        encoded, adjacency = self.encode(graph)
        z = _mean(encoded)[None]
        return self.decoder.logits(z, adjacency, pairs)[0].double().cpu().numpy()

    @torch.no_grad()
    def score_rows(self, graph: Graph, sources: Int[Tensor, " source"]) -> np.ndarray:
        """Logits of some nodes with every node, in float64; in memory sources × nodes."""
        encoded, adjacency = self.encode(graph)
        z = _mean(encoded)[None]
        parts = sources.split(self.decoder.rows_at_once(z))
        rows = [self.decoder.rows(z, adjacency, part)[0].cpu() for part in parts]
        return torch.cat(rows).double().numpy()


def _linked(graph: Graph) -> Tensor:
    """Every pair that is an edge or carries messages, once."""
    forward = graph.messages[:, graph.messages[0] < graph.messages[1]]
    pairs = torch.cat([graph.edges.sort(dim=0).values, forward], dim=1)
    numbers = torch.unique(pairs[0] * len(graph.nodes) + pairs[1])
    return torch.stack([numbers // len(graph.nodes), numbers % len(graph.nodes)])


def _mean(encoded: Latents) -> Float[Tensor, "node latent"]:
    """The mean of each node's latent; of draws from a stream of its own if it has no formula."""
    if isinstance(encoded, Tensor):
        return encoded
    try:
        return encoded.mean[0]
    except NotImplementedError:
        with own_random_stream(0):
            return encoded.sample(torch.Size((MEAN_DRAWS,))).mean(0)[0]


def build(config: Config, folder: Path) -> LinkModel:
    """A new, initialised model for the prepared graph.

    Raises:
        UserError: If the model cannot have the posterior or the prior.
    """
    dataset = load(folder)
    model = assemble(config.model, dataset, config.posterior)
    model.estimator = methods.build_estimator(config.estimator)
    model.prior = methods.build_prior(
        config.prior, model.encoder.latent, pseudo=lambda count: _pseudo(model, dataset, count)
    )
    return model


def _pseudo(model: LinkModel, dataset: Dataset, count: int) -> tuple[Tensor, Any]:
    """Where the pseudo-nodes of a VampPrior start, and how they are encoded."""
    if dataset.features is None:
        raise UserError(
            "prior.kind 'vampprior': its pseudo-nodes are made of features and this graph has "
            "none; use prior.kind 'mixture'"
        )
    rows = torch.randint(dataset.features.shape[0], (count,))
    chosen: Any = dataset.features[rows.numpy()]
    dense = chosen.toarray() if hasattr(chosen, "toarray") else chosen
    return torch.as_tensor(np.asarray(dense)).float(), model.encode_lone_nodes


def assemble(model: Any, dataset: Dataset, posterior: Any = None) -> LinkModel:
    """A new, initialised model of one of the kinds for a graph.

    Args:
        model: The section of its settings.
        dataset: The graph.
        posterior: The section of its posterior, for the kinds that leave it open; None for the
            diagonal Normal.
    """
    posterior = posterior or latents.DiagonalNormal()
    nodes = len(dataset.names)
    scaling = None
    if dataset.features is not None:
        scaling = FeatureScaling(chosen(model.features, dataset.features), dataset.features)
    match model:
        case VGAE() | GAE():
            project = Projection(scaling, nodes, model.hidden)
            family = _family(posterior, model.latent) if model.kind == "vgae" else None
            encoder = GCN(project, model.latent, family)
        case LinearVGAE():
            family = _family(posterior, model.latent)
            encoder = LinearGCN(Projection(scaling, nodes, family.size), model.latent, family)
        case VGNAE():
            project = Projection(scaling, nodes, 2 * model.latent, bias=scaling is not None)
            encoder = NormalisedGCN(project, model.length)
        case CosineVGAE():
            return _cosine(model, scaling, nodes)
        case _:
            raise ValueError(f"no model of kind {model.kind!r}")
    return LinkModel(encoder, InnerProduct(), model.self_links)


def _family(posterior: Any, latent: int) -> Posterior:
    return methods.build_posterior(posterior, None, latent, event_dims=2)


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
