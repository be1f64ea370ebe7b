"""From sections to the objects that they name; torch is imported when something is built."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from core.runtime.errors import UserError
from core.runtime.sections import Section


def build_schedule(schedule: Any) -> Any:
    """The schedule of a section."""
    from core.variational.schedules import SCHEDULES

    return SCHEDULES[schedule.kind](**_arguments(schedule))


def build_objective(objective: Any, schedule: Any) -> Any:
    """The objective of a section; one with a weight to schedule gets the schedule."""
    from core.variational import objectives

    more = {"schedule": build_schedule(schedule)} if objective.scheduled else {}
    return objectives.OBJECTIVES[objective.kind](**_arguments(objective), **more)


def build_estimator(estimator: Any) -> Any:
    """The gradient estimator of a section."""
    from core.variational.estimators import ESTIMATORS
    from core.variational.structures import Relaxed

    kinds = {**ESTIMATORS, Relaxed.kind: Relaxed}
    return kinds[estimator.kind](**_arguments(estimator))


POSTERIORS = {
    "diagonal-normal": "DiagonalNormalPosterior",
    "low-rank-normal": "LowRankNormalPosterior",
    "full-normal": "FullNormalPosterior",
    "mixture": "MixturePosterior",
    "flow": "FlowPosterior",
    "von-mises-fisher": "VonMisesFisherPosterior",
    "power-spherical": "PowerSphericalPosterior",
    "delta": "DeltaPosterior",
    "categorical": "CategoricalPosterior",
    "gumbel-softmax": "GumbelSoftmaxPosterior",
    "uniform": "UniformPosterior",
}
SEQUENCES = ("gauss-markov", "markov")
LIKELIHOODS = {
    "bernoulli": "BernoulliLikelihood",
    "normal": "NormalLikelihood",
    "sigma-vae": "SigmaVAELikelihood",
    "laplace": "LaplaceLikelihood",
    "student-t": "StudentTLikelihood",
    "categorical": "CategoricalLikelihood",
    "discretized-logistic": "DiscretizedLogisticLikelihood",
    "discretized-logistic-mixture": "DiscretizedLogisticMixtureLikelihood",
}
PRIORS = {
    "standard-normal": "StandardNormal",
    "learned-normal": "LearnedNormal",
    "mixture": "MixtureOfNormals",
    "vampprior": "VampPrior",
    "flow": "FlowPrior",
    "autoregressive": "AutoregressivePrior",
    "spherical-uniform": "SphericalUniform",
    "conditional-normal": "ConditionalNormal",
    "class-conditional": "ClassConditionalNormal",
    "codebook": "Codebook",
}
Pseudo = Callable[[int], tuple[Any, Callable[[Any], Any]]]


def build_posterior(
    section: Any,
    features: int | None,
    latent: int,
    event_dims: int = 1,
    sequence: bool = False,
    dynamics: Any = None,
) -> Any:
    """The posterior of a section.

    Args:
        section: Which, with its own values.
        features: Size of what it reads; None if that is the raw parameters.
        latent: Number of latent dimensions, or of categories.
        event_dims: Event dimensions, the latent one included.
        sequence: Whether the event is a sequence of latents.
        dynamics: The linear-dynamics prior over it, if that is the prior.

    Raises:
        UserError: If the model lacks what the posterior needs.
    """
    from core.variational import dynamics as chains
    from core.variational import posteriors

    if section.kind in SEQUENCES and not sequence:
        raise UserError(
            f"posterior.kind {section.kind!r}: it is over a sequence of latents; this model has "
            "none, use 'diagonal-normal'"
        )
    chain_features: Any = features  # a chain always has a head of its own
    if section.kind == "markov":
        return chains.MarkovPosterior(chain_features, latent)
    if section.kind == "gauss-markov":
        if dynamics is None:
            raise UserError(
                "posterior.kind 'gauss-markov': its messages pass under linear dynamics; set "
                "prior.kind to 'linear-dynamics'"
            )
        return chains.GaussMarkovPosterior(chain_features, dynamics)
    arguments = _arguments(section)
    if section.kind == "flow":
        arguments["kind"] = arguments.pop("flow")
    family = getattr(posteriors, POSTERIORS[section.kind])
    return _fitting(
        f"posterior.kind {section.kind!r}",
        lambda: family(features, latent, event_dims=event_dims, **arguments),
    )


def build_prior(
    section: Any,
    latent: int,
    pseudo: Pseudo | None = None,
    classes: int = 0,
    context: int = 0,
    sequence: bool = False,
) -> Any:
    """The prior of a section.

    Args:
        section: Which, with its own values.
        latent: Number of latent dimensions, or of codes.
        pseudo: From a count to that many pseudo-inputs and how the model encodes them; None for a
            model that cannot.
        classes: Number of classes that the data know; 0 for none.
        context: How many numbers the prior is told of every example; 0 for none.
        sequence: Whether the event is a sequence of latents.

    Raises:
        UserError: If the model lacks what the prior needs.
    """
    from core.variational import dynamics, priors

    kind, arguments = section.kind, _arguments(section)
    where = f"prior.kind {kind!r}"
    if kind == "vampprior":
        if pseudo is None:
            raise UserError(f"{where}: this model cannot encode pseudo-inputs; use 'mixture'")
        inputs, encode = pseudo(arguments.pop("components"))
        return priors.VampPrior(inputs, encode, bounds=None, **arguments)
    if kind == "class-conditional" and not classes:
        raise UserError(f"{where}: the data have no classes; use 'mixture'")
    if kind == "conditional-normal" and not context:
        raise UserError(f"{where}: this model gives its prior no context; use 'mixture'")
    if kind == "linear-dynamics" and not sequence:
        raise UserError(f"{where}: this model has no sequence of latents; use 'mixture'")
    if kind == "linear-dynamics":
        return _fitting(where, lambda: dynamics.LinearDynamics(latent, **arguments))
    if kind == "conditional-normal":
        arguments["features"] = context
    if kind == "flow":
        arguments = {"kind": arguments.pop("flow"), "context": 0} | arguments
    if kind == "class-conditional":
        arguments["classes"] = classes
    sized = {"standard-normal": {}, "spherical-uniform": {}, "codebook": {"codes": latent}}
    family = getattr(priors, PRIORS[kind])
    return _fitting(where, lambda: family(**sized.get(kind, {"latent": latent}), **arguments))


def build_likelihood(section: Any, features: int, outputs: int, event_dims: int = 1) -> Any:
    """The likelihood of a section.

    Args:
        section: Which, with its own values.
        features: Size of what it reads.
        outputs: Number of variables in an example.
        event_dims: Event dimensions, that of the variables included.
    """
    from core.variational import likelihoods

    family = getattr(likelihoods, LIKELIHOODS[section.kind])
    return _fitting(
        f"likelihood.kind {section.kind!r}",
        lambda: family(features, outputs, event_dims=event_dims, **_arguments(section)),
    )


def _fitting(where: str, build: Callable[[], Any]) -> Any:
    """Build, and turn what a constructor refuses into a user's mistake."""
    try:
        return build()
    except ValueError as error:
        raise UserError(f"{where}: {error}") from error


def _arguments(section: Section) -> dict[str, Any]:
    return section.model_dump(exclude={"kind"})
