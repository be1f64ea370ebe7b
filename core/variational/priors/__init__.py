"""Priors: modules whose forward gives the distribution that a posterior is held against."""

from core.variational.priors.base import Prior
from core.variational.priors.class_conditional import ClassConditionalNormal
from core.variational.priors.codebook import Codebook
from core.variational.priors.flow import AutoregressivePrior, FlowPrior
from core.variational.priors.mixture import MixtureOfNormals, VampPrior
from core.variational.priors.normal import ConditionalNormal, LearnedNormal, StandardNormal
from core.variational.priors.sphere import SphericalUniform

__all__ = [
    "AutoregressivePrior",
    "ClassConditionalNormal",
    "Codebook",
    "ConditionalNormal",
    "FlowPrior",
    "LearnedNormal",
    "MixtureOfNormals",
    "Prior",
    "SphericalUniform",
    "StandardNormal",
    "VampPrior",
]
