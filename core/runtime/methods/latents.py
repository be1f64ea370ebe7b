"""What latents are like: posteriors, priors and likelihoods, as settings have them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from core.runtime.sections import Section

FlowKind = Literal[
    "nice", "realnvp", "nsf", "iaf", "maf", "iaf-nsf", "maf-nsf", "planar", "radial", "sylvester",
    "householder",
]  # fmt: skip
Hidden = Annotated[tuple[PositiveInt, ...], Field(description="widths of the networks inside it")]


class DiagonalNormal(Section):
    """Independent Normal dimensions."""

    kind: Literal["diagonal-normal"] = "diagonal-normal"


class LowRankNormal(Section):
    """A Normal with a covariance of low rank and a diagonal."""

    kind: Literal["low-rank-normal"] = "low-rank-normal"
    rank: PositiveInt = Field(default=2, description="columns beside the diagonal")


class FullNormal(Section):
    """A Normal with any covariance."""

    kind: Literal["full-normal"] = "full-normal"


class Mixture(Section):
    """A mixture of diagonal Normals."""

    kind: Literal["mixture"] = "mixture"
    components: PositiveInt = Field(default=4, description="how many Normals")
    floor: PositiveFloat = Field(
        default=0.1, description="least scale of a component, in units of the mixture's spread"
    )


class Flow(Section):
    """A diagonal Normal bent by a normalising flow."""

    kind: Literal["flow"] = "flow"
    flow: FlowKind = Field(default="realnvp", description="which kind of layer")
    layers: PositiveInt = Field(default=4, description="how many layers")
    context: NonNegativeInt = Field(
        default=0, description="numbers of each example that the layers know"
    )
    hidden: Hidden = (32,)


class VonMisesFisher(Section):
    """A bump on the sphere."""

    kind: Literal["von-mises-fisher"] = "von-mises-fisher"


class PowerSpherical(Section):
    """A bump on the sphere that is cheap to draw from."""

    kind: Literal["power-spherical"] = "power-spherical"


class Delta(Section):
    """One point: no noise."""

    kind: Literal["delta"] = "delta"


class GaussMarkov(Section):
    """A Gaussian chain over a sequence, by message passing under its linear-dynamics prior."""

    kind: Literal["gauss-markov"] = "gauss-markov"


class Markov(Section):
    """A Gaussian chain over a sequence with a transition of its own."""

    kind: Literal["markov"] = "markov"


class Categorical(Section):
    """One of several codes."""

    kind: Literal["categorical"] = "categorical"
    variables: PositiveInt = Field(default=1, description="how many such variables")


class GumbelSoftmax(Section):
    """One of several codes, relaxed so that it can be differentiated."""

    kind: Literal["gumbel-softmax"] = "gumbel-softmax"
    temperature: PositiveFloat = Field(default=0.67, description="0 is the code itself")
    variables: PositiveInt = Field(default=1, description="how many such variables")


class Uniform(Section):
    """A unit interval around the mean: rounding, as training sees it."""

    kind: Literal["uniform"] = "uniform"


AnyPosterior = Annotated[
    DiagonalNormal
    | LowRankNormal
    | FullNormal
    | Mixture
    | Flow
    | VonMisesFisher
    | PowerSpherical
    | Delta
    | Categorical
    | GumbelSoftmax
    | Uniform
    | GaussMarkov
    | Markov,
    Field(discriminator="kind"),
]


class StandardNormal(Section):
    """Mean 0 and one scale, nothing learned."""

    kind: Literal["standard-normal"] = "standard-normal"
    scale: PositiveFloat = Field(default=1.0, description="standard deviation")


class LearnedNormal(Section):
    """A Normal whose mean and scales are learned."""

    kind: Literal["learned-normal"] = "learned-normal"


class MixtureOfNormals(Section):
    """A mixture of learned Normals."""

    kind: Literal["mixture"] = "mixture"
    components: PositiveInt = Field(default=16, description="how many Normals")


class VampPrior(Section):
    """A mixture of the posteriors of learned pseudo-inputs."""

    kind: Literal["vampprior"] = "vampprior"
    components: PositiveInt = Field(default=16, description="how many pseudo-inputs")
    learned_weights: bool = Field(default=False, description="whether their weights are learned")


class FlowPrior(Section):
    """A standard Normal bent by a normalising flow."""

    kind: Literal["flow"] = "flow"
    flow: FlowKind = Field(default="maf", description="which kind of layer")
    layers: PositiveInt = Field(default=2, description="how many layers")
    hidden: Hidden = (32,)


class AutoregressivePrior(Section):
    """Each dimension Normal given those before it."""

    kind: Literal["autoregressive"] = "autoregressive"
    hidden: Hidden = (32,)


class SphericalUniform(Section):
    """Every direction alike."""

    kind: Literal["spherical-uniform"] = "spherical-uniform"


class ConditionalNormal(Section):
    """A Normal that a network makes from what is known of the example."""

    kind: Literal["conditional-normal"] = "conditional-normal"
    hidden: Hidden = (32,)


class ClassConditionalNormal(Section):
    """A Normal for each class: a generative classifier of the latents."""

    kind: Literal["class-conditional"] = "class-conditional"
    shared_scale: bool = Field(default=True, description="whether all classes share their scales")


class LinearDynamics(Section):
    """A sequence under linear dynamics."""

    kind: Literal["linear-dynamics"] = "linear-dynamics"
    spectrum: Literal["stable", "circle", "real"] = Field(
        default="stable", description="where the eigenvalues may lie"
    )
    stationary: bool = Field(
        default=False, description="whether the first step has the process's own spread"
    )
    half_lives: tuple[PositiveFloat, PositiveFloat] = Field(
        default=(1.0, 100.0), description="shortest and longest half-life to start with, in steps"
    )
    periods: tuple[PositiveFloat, PositiveFloat] = Field(
        default=(4.0, 100.0), description="shortest and longest period to start with, in steps"
    )


class Codebook(Section):
    """Codes with equal or learned probabilities."""

    kind: Literal["codebook"] = "codebook"
    learned_weights: bool = Field(default=False, description="whether they are learned")


AnyPrior = Annotated[
    StandardNormal
    | LearnedNormal
    | MixtureOfNormals
    | VampPrior
    | FlowPrior
    | AutoregressivePrior
    | SphericalUniform
    | ConditionalNormal
    | ClassConditionalNormal
    | LinearDynamics
    | Codebook,
    Field(discriminator="kind"),
]

Learned = Annotated[
    Literal["fixed", "shared", "per_variable", "predicted"],
    Field(description="what of the scale is learned"),
]
Scale = Annotated[PositiveFloat, Field(description="scale in the data's unit, or its start")]


class Bernoulli(Section):
    """Yes or no."""

    kind: Literal["bernoulli"] = "bernoulli"


class Normal(Section):
    """Real numbers with Gaussian noise."""

    kind: Literal["normal"] = "normal"
    scale: Scale = 1.0
    learned: Learned = "fixed"
    floor: NonNegativeFloat = Field(default=0.0, description="least scale: the data's resolution")


class SigmaVAE(Section):
    """Real numbers with the Gaussian noise that fits a batch best."""

    kind: Literal["sigma-vae"] = "sigma-vae"
    momentum: Annotated[float, Field(gt=0, le=1)] = Field(
        default=0.1, description="weight of a new batch in the scale that evaluation uses"
    )
    floor: PositiveFloat = Field(default=1e-3, description="least scale: the data's resolution")
    shared: bool = Field(default=True, description="whether all variables have the same scale")


class Laplace(Section):
    """Real numbers with more outliers than Gaussian noise has."""

    kind: Literal["laplace"] = "laplace"
    scale: Scale = 1.0
    learned: Learned = "fixed"
    floor: NonNegativeFloat = Field(default=0.0, description="least scale: the data's resolution")


class StudentT(Section):
    """Real numbers with many outliers."""

    kind: Literal["student-t"] = "student-t"
    freedom: PositiveFloat = Field(default=4.0, description="degrees of freedom")
    scale: Scale = 1.0
    learned: Learned = "fixed"


class CategoricalLikelihood(Section):
    """One of several classes for each variable."""

    kind: Literal["categorical"] = "categorical"
    classes: Annotated[int, Field(ge=2)] = Field(default=2, description="how many classes")


class DiscretizedLogistic(Section):
    """Numbers on a grid, such as pixels."""

    kind: Literal["discretized-logistic"] = "discretized-logistic"
    low: float = Field(default=0.0, description="lowest value of the grid")
    high: float = Field(default=1.0, description="highest value of the grid")
    bins: Annotated[int, Field(ge=2)] = Field(default=256, description="values of the grid")
    scale: Scale = 0.1
    learned: Learned = "predicted"


class DiscretizedLogisticMixture(Section):
    """Numbers on a grid, of which several may be likely."""

    kind: Literal["discretized-logistic-mixture"] = "discretized-logistic-mixture"
    components: PositiveInt = Field(default=5, description="how many logistics")
    low: float = Field(default=0.0, description="lowest value of the grid")
    high: float = Field(default=1.0, description="highest value of the grid")
    bins: Annotated[int, Field(ge=2)] = Field(default=256, description="values of the grid")
    scale: Scale = 0.1


AnyLikelihood = Annotated[
    Bernoulli
    | Normal
    | SigmaVAE
    | Laplace
    | StudentT
    | CategoricalLikelihood
    | DiscretizedLogistic
    | DiscretizedLogisticMixture,
    Field(discriminator="kind"),
]

SPHERES = ("von-mises-fisher", "power-spherical")
CODES = ("categorical", "gumbel-softmax")


def misfit_of_latents(posterior: Any, prior: Any) -> str | None:
    """Return why this posterior cannot be held against this prior, or None where it can."""
    q, p = posterior.kind, prior.kind
    for kinds, needed, place in (
        (SPHERES, "spherical-uniform", "on a sphere"),
        (CODES, "codebook", "over codes"),
    ):
        if (q in kinds) != (p == needed):
            wrong = (
                f"prior.kind to {needed!r}" if q in kinds else f"posterior.kind to {kinds[0]!r}"
            )
            whose, other = ("posterior", "prior") if q in kinds else ("prior", "posterior")
            kind, against = (q, p) if q in kinds else (p, q)
            return (
                f"{whose}.kind {kind!r} is {place}, {other}.kind {against!r} is not; set {wrong}"
            )
    return None
