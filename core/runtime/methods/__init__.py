"""The methods that settings can name, for every domain: their sections, and what they build.

A section's keys are the arguments of the class of its kind, and its defaults are the only ones
that a run sees. No torch before something is built.
"""

from core.runtime.methods.build import (
    build_estimator,
    build_likelihood,
    build_objective,
    build_posterior,
    build_prior,
    build_schedule,
)
from core.runtime.methods.gradients import (
    AnyEstimator,
    AnySchedule,
    Constant,
    Reparameterised,
    misfit,
)
from core.runtime.methods.latents import AnyLikelihood, AnyPosterior, AnyPrior, misfit_of_latents
from core.runtime.methods.objectives import ELBO, AnyObjective

__all__ = [
    "ELBO",
    "AnyEstimator",
    "AnyLikelihood",
    "AnyObjective",
    "AnyPosterior",
    "AnyPrior",
    "AnySchedule",
    "Constant",
    "Reparameterised",
    "build_estimator",
    "build_likelihood",
    "build_objective",
    "build_posterior",
    "build_prior",
    "build_schedule",
    "misfit",
    "misfit_of_latents",
]
