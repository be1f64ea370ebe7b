"""How its gradient is estimated and its weight scheduled, as settings have it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt

from core.runtime.sections import Section

FractionOfTraining = Annotated[float, Field(ge=0, lt=1)]


class Constant(Section):
    """A factor that stays 1."""

    kind: Literal["constant"] = "constant"


class Linear(Section):
    """A linear rise from 0."""

    kind: Literal["linear"] = "linear"
    warmup: FractionOfTraining = Field(
        default=0.2, description="fraction of the training over which the factor grows from 0"
    )


class Cosine(Section):
    """A rise from 0 along half a cosine."""

    kind: Literal["cosine"] = "cosine"
    warmup: FractionOfTraining = Field(
        default=0.2, description="fraction of the training over which the factor grows from 0"
    )


class Cyclical(Section):
    """Several rises from 0, one after the other."""

    kind: Literal["cyclical"] = "cyclical"
    cycles: PositiveInt = Field(default=4, description="how many rises")
    ratio: Annotated[float, Field(gt=0, le=1)] = Field(
        default=0.5, description="share of a cycle in which the factor rises"
    )


AnySchedule = Annotated[Constant | Linear | Cosine | Cyclical, Field(discriminator="kind")]


class Reparameterised(Section):
    """Samples as a differentiable function of noise."""

    kind: Literal["reparameterised"] = "reparameterised"


class Path(Section):
    """The path derivative alone (sticking the landing)."""

    kind: Literal["path"] = "path"


class DReG(Section):
    """Doubly reparameterised, for the IWAE bound."""

    kind: Literal["dreg"] = "dreg"


class Score(Section):
    """The score function, for any posterior."""

    kind: Literal["score"] = "score"
    baseline: Literal["none", "batch", "leave-one-out"] = "none"


class VIMCO(Section):
    """The score function with a baseline from the other samples."""

    kind: Literal["vimco"] = "vimco"


class Enumeration(Section):
    """Every value of a discrete latent."""

    kind: Literal["enumeration"] = "enumeration"


class SigmaPoints(Section):
    """Points that match mean and covariance, without noise."""

    kind: Literal["sigma-points"] = "sigma-points"
    kappa: NonNegativeFloat = Field(default=0.0, description="how far out the points lie")


class Rejection(Section):
    """Through the rejection sampler of a Gamma or Dirichlet posterior."""

    kind: Literal["rejection"] = "rejection"
    boost: PositiveInt = Field(default=4, description="by how much the shape is raised")
    baseline: Literal["none", "batch", "leave-one-out"] = "none"


class MeasureValued(Section):
    """Differences of pairs of draws, for Normal posteriors of few dimensions."""

    kind: Literal["measure-valued"] = "measure-valued"


class Relaxed(Section):
    """One-hot latents drawn as relaxed ones."""

    kind: Literal["relaxed"] = "relaxed"
    temperature: PositiveFloat = Field(default=0.67, description="0 is the code itself")
    straight_through: bool = Field(
        default=False, description="whether values are one-hot and only gradients relaxed"
    )


AnyEstimator = Annotated[
    Reparameterised
    | Path
    | DReG
    | Score
    | VIMCO
    | Enumeration
    | SigmaPoints
    | Rejection
    | MeasureValued
    | Relaxed,
    Field(discriminator="kind"),
]


def misfit(objective: Any, schedule: Any, estimator: Any) -> str | None:
    """Return why these three cannot go together, or None where they can."""
    if schedule.kind != "constant" and not objective.scheduled:
        return (
            f"schedule.kind {schedule.kind!r}: objective.kind {objective.kind!r} has no weight to "
            "schedule; leave schedule out, or use objective.kind 'elbo'"
        )
    draws = estimator.kind
    if objective.kind == "vis" and draws != "score":
        return (
            f"objective.kind 'vis': estimator.kind is {draws!r}, but its draws must carry no "
            "gradient; set estimator.kind to 'score'"
        )
    if objective.multi_sample and draws in ("path", "measure-valued", "sigma-points", "relaxed"):
        return (
            f"estimator.kind {draws!r}: its gradient is biased for objective.kind "
            f"{objective.kind!r}; use 'dreg' (iwae only) or 'reparameterised'"
        )
    if draws == "dreg" and objective.kind in ("renyi", "vis"):
        return (
            f"estimator.kind 'dreg': it belongs to objective.kind 'iwae', not {objective.kind!r}; "
            "use 'reparameterised'"
        )
    alone = draws == "vimco" or getattr(estimator, "baseline", "none") == "leave-one-out"
    if alone and getattr(objective, "samples", 1) < 2:
        return (
            f"estimator.kind {draws!r}: its baseline is from an example's other samples; set "
            "objective.samples to 2 or more"
        )
    return None
