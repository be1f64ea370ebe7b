"""Posteriors: modules whose forward turns features into a distribution of the latent."""

from core.variational.posteriors.base import Posterior
from core.variational.posteriors.categorical import (
    CategoricalPosterior,
    GumbelSoftmax,
    GumbelSoftmaxPosterior,
)
from core.variational.posteriors.flow import FlowPosterior
from core.variational.posteriors.mixture import MixturePosterior, NormalMixture
from core.variational.posteriors.normal import (
    DiagonalNormalPosterior,
    FullNormalPosterior,
    LowRankNormalPosterior,
)
from core.variational.posteriors.point import DeltaPosterior, UniformPosterior
from core.variational.posteriors.sphere import PowerSphericalPosterior, VonMisesFisherPosterior

__all__ = [
    "CategoricalPosterior",
    "DeltaPosterior",
    "DiagonalNormalPosterior",
    "FlowPosterior",
    "FullNormalPosterior",
    "GumbelSoftmax",
    "GumbelSoftmaxPosterior",
    "LowRankNormalPosterior",
    "MixturePosterior",
    "NormalMixture",
    "Posterior",
    "PowerSphericalPosterior",
    "UniformPosterior",
    "VonMisesFisherPosterior",
]
