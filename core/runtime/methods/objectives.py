"""What is maximised, as settings have it."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt

from core.runtime.sections import Section

Samples = Annotated[PositiveInt, Field(description="posterior draws per example and step")]
AtLeastTwo = Annotated[int, Field(ge=2, description="posterior draws per example and step")]
Weights = Annotated[
    dict[str, NonNegativeFloat],
    Field(description="weights of named terms of the evidence; a term not named weighs 1"),
]
Finite = Annotated[float, Field(allow_inf_nan=False)]


class Objective(Section):
    """What every objective is asked."""

    scheduled: ClassVar[bool] = False  # it has a weight that a schedule can change
    multi_sample: ClassVar[bool] = False  # a function of all importance weights at once


class ELBO(Objective):
    """The evidence lower bound, with a weight of the KL (β-VAE) and free bits."""

    kind: Literal["elbo"] = "elbo"
    samples: Samples = 1
    beta: NonNegativeFloat = Field(
        default=1.0, description="final weight of the KL; 1 is the ELBO"
    )
    free_bits: NonNegativeFloat = Field(
        default=0.0,
        description="nats per example and latent dimension for which the KL costs nothing",
    )
    weights: Weights = Field(default={})
    scheduled: ClassVar[bool] = True


class Capacity(Objective):
    """The KL held at a capacity that the schedule raises."""

    kind: Literal["capacity"] = "capacity"
    samples: Samples = 1
    capacity: NonNegativeFloat = Field(
        default=10.0, description="KL of each latent group at the end, in nats per example"
    )
    gamma: PositiveFloat = Field(default=20.0, description="weight of the distance from it")
    capacities: dict[str, NonNegativeFloat] = Field(
        default={}, description="capacities of named latent groups, in place of capacity"
    )
    weights: Weights = Field(default={})
    scheduled: ClassVar[bool] = True


class AutoGen(Objective):
    """The data and perfect reconstructions of them."""

    kind: Literal["autogen"] = "autogen"
    samples: Samples = 1
    reconstructions: NonNegativeFloat = Field(
        default=1.0, description="how many reconstructions the bound counts beside the data"
    )
    weights: Weights = Field(default={})
    scheduled: ClassVar[bool] = True


class MultiBeta(Objective):
    """Blocks of latent dimensions, each with its own weight of the KL."""

    kind: Literal["multi-beta"] = "multi-beta"
    samples: Samples = 1
    betas: Annotated[tuple[NonNegativeFloat, ...], Field(min_length=1)] = Field(
        default=(1.0,), description="weight of the KL of each block, in the dimensions' order"
    )
    scheduled: ClassVar[bool] = True


class VIB(Objective):
    """The information bottleneck."""

    kind: Literal["vib"] = "vib"
    samples: Samples = 1
    beta: NonNegativeFloat = Field(default=1e-3, description="weight of the rate")
    weights: Weights = Field(default={})
    scheduled: ClassVar[bool] = True


class RateDistortion(Objective):
    """The rate and a price for the distortion."""

    kind: Literal["rate-distortion"] = "rate-distortion"
    samples: Samples = 1
    distortion_weight: NonNegativeFloat = Field(
        default=1.0, description="price of a nat of distortion; 1 is the ELBO"
    )


class EnergyMAP(Objective):
    """The energy of a point estimate, for models without latents."""

    kind: Literal["energy"] = "energy"
    weights: Weights = Field(default={})


class IWAE(Objective):
    """The importance-weighted bound."""

    kind: Literal["iwae"] = "iwae"
    samples: AtLeastTwo = 5
    scheduled: ClassVar[bool] = True
    multi_sample: ClassVar[bool] = True


class Renyi(Objective):
    """The variational Rényi bound."""

    kind: Literal["renyi"] = "renyi"
    samples: AtLeastTwo = 5
    alpha: Finite = Field(default=0.5, description="its order: 1 is the ELBO, 0 the IWAE bound")
    multi_sample: ClassVar[bool] = True


class VIS(Objective):
    """Importance sampling whose proposal is fitted by the forward χ² divergence."""

    kind: Literal["vis"] = "vis"
    samples: AtLeastTwo = 10
    order: PositiveFloat = Field(default=2.0, description="power of the importance weights")
    multi_sample: ClassVar[bool] = True


class InfoVAE(Objective):
    """The ELBO with the aggregated posterior drawn to the prior."""

    kind: Literal["info-vae"] = "info-vae"
    samples: Samples = 1
    alpha: Finite = Field(default=0.0, description="how much of the KL is given up")
    scale: NonNegativeFloat = Field(
        default=10.0, description="weight λ; the discrepancy weighs alpha + scale - 1"
    )
    discrepancy: Literal["mmd", "sliced-wasserstein"] = "mmd"
    projections: PositiveInt = Field(default=64, description="directions of sliced-wasserstein")


class WAE(Objective):
    """Reconstruction with the aggregated posterior drawn to the prior, and no KL."""

    kind: Literal["wae"] = "wae"
    samples: Samples = 1
    scale: NonNegativeFloat = Field(default=10.0, description="weight of the discrepancy")
    discrepancy: Literal["mmd", "sliced-wasserstein"] = "mmd"
    projections: PositiveInt = Field(default=64, description="directions of sliced-wasserstein")


class BetaTC(Objective):
    """The KL taken apart, with a weight on the total correlation."""

    kind: Literal["beta-tc"] = "beta-tc"
    samples: Samples = 1
    examples: PositiveInt = Field(description="number of training examples")
    mutual_information: NonNegativeFloat = Field(default=1.0, description="weight α")
    total_correlation: NonNegativeFloat = Field(default=6.0, description="weight β")
    dimension_wise: NonNegativeFloat = Field(default=1.0, description="weight γ")
    scheduled: ClassVar[bool] = True


class DIP(Objective):
    """The ELBO with the covariance of the aggregated posterior drawn to the identity."""

    kind: Literal["dip"] = "dip"
    samples: Samples = 1
    version: Literal["i", "ii"] = Field(
        default="i", description="covariance of the means (i) or of the samples (ii)"
    )
    off_diagonal: NonNegativeFloat = Field(default=10.0, description="weight off the diagonal")
    diagonal: NonNegativeFloat = Field(default=10.0, description="weight on the diagonal")
    scheduled: ClassVar[bool] = True


AnyObjective = Annotated[
    ELBO
    | Capacity
    | AutoGen
    | MultiBeta
    | VIB
    | RateDistortion
    | EnergyMAP
    | IWAE
    | Renyi
    | VIS
    | InfoVAE
    | WAE
    | BetaTC
    | DIP,
    Field(discriminator="kind"),
]
