"""The settings of a link-prediction run."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from core.runtime.config import Section, Settings, Training
from core.runtime.methods import AnyLikelihood, AnyPosterior, AnyPrior, misfit_of_latents
from core.runtime.methods.latents import Bernoulli, DiagonalNormal, StandardNormal

Fraction = Annotated[float, Field(gt=0, lt=0.5)]
Probability = Annotated[float, Field(ge=0, lt=1)]


class Data(Section):
    """Where the graph comes from and how its links are split.

    Args:
        source: What is read; ``airline-routes`` comes with an installed package.
        name: Which Planetoid graph.
        root: The file to read, or the folder of the Planetoid files; None downloads those.
        features: A file of node features for an edge list: CSV, parquet or npz.
        directed: Whether direction counts; to be said where the source leaves it open.
        allow_pickle: Whether arrays and csr matrices may be read from objects in an npz file.
        use_features: Whether models see the node features.
        valid_fraction: Share of the links to choose a model with.
        test_fraction: Share of the links to test on, once.
        batch_edges: Links explained at a step when neighbourhoods are sampled.
    """

    source: Literal["airline-routes", "planetoid", "npz", "edges", "graphml"] = "airline-routes"
    name: Literal["Cora", "CiteSeer", "PubMed"] = "Cora"
    root: str | None = None
    features: str | None = None
    directed: bool | None = None
    allow_pickle: bool = False
    use_features: bool = True
    valid_fraction: Fraction = 0.05
    test_fraction: Fraction = 0.10
    batch_edges: PositiveInt = 4096

    @model_validator(mode="after")
    def _source_has_what_it_needs(self) -> Data:
        if self.source in ("npz", "edges", "graphml") and self.root is None:
            raise ValueError(f"source {self.source!r} needs 'root', the file to read")
        if self.features is not None and self.source != "edges":
            raise ValueError(f"'features' belongs to source 'edges', not to {self.source!r}")
        return self


EXACT_NODES = 8192  # up to here the sum over all pairs is cheap


class Links(Section):
    """What every model says of its features and of the pairs that a step explains."""

    features: Literal["auto", "raw", "tfidf", "row-normalised", "standardised"] = Field(
        default="auto",
        description="how features are prepared; auto is tfidf for bags of words (mostly zero, "
        "none negative) and standardised for others",
    )
    hide: Probability = Field(
        default=0.0,
        description="share of the train links that a step hides from the messages to explain "
        "only those; 0 explains links that also carry messages",
    )
    negatives: Literal["auto"] | NonNegativeInt = Field(
        default="auto",
        description="non-edges drawn per explained link; 0 is the exact sum over all pairs; auto "
        f"is exact up to {EXACT_NODES} nodes, 5 beyond and with neighbours",
    )
    neighbours: tuple[PositiveInt, ...] | None = Field(
        default=None,
        description="fan-outs of the neighbourhood sampled around data.batch_edges links; null "
        "takes the whole graph at each step",
    )


class InnerProducts(Links):
    """What the models of Kipf & Welling's kind share: raw features, inner products of latents."""

    features: Literal["auto", "raw", "tfidf", "row-normalised", "standardised"] = "raw"
    latent: PositiveInt = 16
    self_links: bool = Field(
        default=True, description="whether each node is drawn to a link with itself"
    )


class VGAE(InnerProducts):
    """Kipf & Welling's: two graph convolutions, inner products."""

    kind: Literal["vgae"] = "vgae"
    hidden: PositiveInt = 32


class GAE(InnerProducts):
    """The VGAE without noise and without a KL."""

    kind: Literal["gae"] = "gae"
    hidden: PositiveInt = 32


class LinearVGAE(InnerProducts):
    """Salha et al.'s: one propagation and a linear map, inner products."""

    kind: Literal["linear-vgae"] = "linear-vgae"


class VGNAE(Links):
    """Ahn & Kim's: normalised before the propagation, so that isolated nodes do not shrink."""

    kind: Literal["vgnae"] = "vgnae"
    features: Literal["auto", "raw", "tfidf", "row-normalised", "standardised"] = "row-normalised"
    negatives: Literal["auto"] | NonNegativeInt = 1
    latent: PositiveInt = 128
    length: PositiveFloat = Field(
        default=1.8, description="length of each node's mean before the propagation"
    )
    self_links: bool = Field(
        default=False, description="whether each node is drawn to a link with itself"
    )


class CosineVGAE(Links):
    """Cosines between projections propagated over several hops."""

    kind: Literal["cosine-vgae"] = "cosine-vgae"
    hide: Probability = 0.3
    negatives: Literal["auto"] | NonNegativeInt = 2
    latent: PositiveInt = Field(default=64, description="width of each channel's latent of a hop")
    hops: Annotated[tuple[NonNegativeInt, ...], Field(min_length=1)] = Field(
        default=(0, 1, 2, 3), description="after how many propagations a latent is taken"
    )
    hidden: NonNegativeInt = Field(
        default=64, description="units of a layer before the projection; 0 for none"
    )
    identity: bool = Field(
        default=True,
        description="whether each node also has a vector of its own; always so without features",
    )
    crossed: bool = Field(
        default=True, description="whether the decoder also compares different hops"
    )
    units: NonNegativeInt = Field(
        default=32, description="units of the decoder's network; 0 for a weighted sum"
    )
    dropout: Probability = Field(default=0.1, description="share of a projection that is dropped")
    noise: PositiveFloat = Field(default=0.5, description="initial scale of the posterior")
    length: PositiveFloat = Field(
        default=20.0,
        description="initial length of a projection, of which only the direction matters: the "
        "longer, the more slowly it turns",
    )


Model = Annotated[VGAE | GAE | LinearVGAE | VGNAE | CosineVGAE, Field(discriminator="kind")]


class GraphTraining(Training):
    """How it is maximised; where a step sees the whole graph, it is an epoch."""

    epochs: PositiveInt = Field(default=200, description="passes over the train links")
    learning_rate: PositiveFloat = Field(default=0.02, description="step size after the warm-up")
    monitor: str = Field(
        default="auc_plus_ap", description="validation score that chooses the checkpoint"
    )
    validate_every: PositiveInt = Field(default=5, description="epochs between validations")
    checkpoint_every: PositiveInt = Field(default=50, description="steps between checkpoints")
    log_every: PositiveInt = Field(default=5, description="steps between rows of the history")


class Config(Settings):
    """The settings of a link-prediction run."""

    domain: Literal["graph"] = "graph"
    data: Data = Data()
    model: Model = CosineVGAE()
    posterior: AnyPosterior = DiagonalNormal()
    prior: AnyPrior = StandardNormal()
    likelihood: AnyLikelihood = Bernoulli()
    training: GraphTraining = GraphTraining()

    @model_validator(mode="after")
    def _neighbourhoods_need_sampled_non_edges(self) -> Config:
        if self.model.neighbours and self.model.negatives == 0:
            raise ValueError(
                "model.neighbours with model.negatives 0: the exact sum needs the whole graph; "
                "set negatives to 1 or more, or leave neighbours out"
            )
        return self

    @model_validator(mode="after")
    def _latents_fit_the_nodes(self) -> Config:
        reason = _refused(self.model.kind, self.posterior.kind, self.prior.kind)
        reason = reason or misfit_of_latents(self.posterior, self.prior)
        if self.likelihood.kind != "bernoulli":
            reason = (
                f"likelihood.kind {self.likelihood.kind!r}: two nodes are linked or not; only "
                "'bernoulli' can be had"
            )
        if reason is not None:
            raise ValueError(reason)
        return self


OPEN_POSTERIOR = ("vgae", "linear-vgae")
VECTORS = (
    "diagonal-normal", "low-rank-normal", "full-normal", "mixture", "flow", "von-mises-fisher",
    "power-spherical", "delta",
)  # fmt: skip
NO_PRIOR = {
    "linear-dynamics": "nodes have no order in time",
    "conditional-normal": "nothing is known of a node that the encoder does not see",
    "class-conditional": "links are predicted without labels",
    "codebook": "a node's latent is a vector, not a code",
}


def _refused(model: str, posterior: str, prior: str) -> str | None:
    """Why nodes of this model cannot have this posterior or prior, or None where they can."""
    if model == "gae" and (posterior, prior) != ("diagonal-normal", "standard-normal"):
        return "model.kind 'gae' has no noise, so no posterior or prior; use model.kind 'vgae'"
    if posterior not in VECTORS:
        return (
            f"posterior.kind {posterior!r}: links are inner products of real vectors; use one of "
            f"{', '.join(VECTORS)}"
        )
    if posterior != "diagonal-normal" and model not in OPEN_POSTERIOR:
        return (
            f"posterior.kind {posterior!r}: model.kind {model!r} makes mean and scale of its "
            "posterior itself; use 'diagonal-normal', or model.kind 'vgae' or 'linear-vgae'"
        )
    if prior in NO_PRIOR:
        return f"prior.kind {prior!r}: {NO_PRIOR[prior]}; use 'mixture', 'vampprior' or 'flow'"
    return None


def resolve(config: Config, nodes: int) -> tuple[Config, str]:
    """Settle ``negatives: auto`` by the size of the graph.

    Returns:
        Settings with a number in its place, and the regime in words.
    """
    model = config.model
    negatives = model.negatives
    if negatives == "auto":
        negatives = 0 if nodes <= EXACT_NODES and not model.neighbours else 5
    reach = "sampled neighbourhoods" if model.neighbours else "the whole graph at each step"
    pairs = f"{negatives} sampled non-edges per link" if negatives else "all pairs, in row blocks"
    model = model.model_copy(update={"negatives": negatives})
    return config.model_copy(update={"model": model}), f"{reach}, {pairs}"


CONFIG = Config
