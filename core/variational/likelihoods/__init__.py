"""Likelihoods: modules whose forward turns features into a distribution of the data."""

from core.variational.inverse.fidelity import LinearOperatorNormal, MeasurementNormal
from core.variational.likelihoods.autoregressive import (
    Autoregressive,
    AutoregressiveLikelihood,
)
from core.variational.likelihoods.discrete import BernoulliLikelihood, CategoricalLikelihood
from core.variational.likelihoods.heavy_tailed import LaplaceLikelihood, StudentTLikelihood
from core.variational.likelihoods.logistic import (
    DiscretizedLogisticLikelihood,
    DiscretizedLogisticMixtureLikelihood,
)
from core.variational.likelihoods.masked import MaskedLogProb, elements, masked_log_prob
from core.variational.likelihoods.normal import (
    BatchNormal,
    NormalLikelihood,
    SigmaVAELikelihood,
)
from core.variational.likelihoods.perceptual import FeatureNormal, PerceptualLikelihood
from core.variational.likelihoods.support import check_support

__all__ = [
    "Autoregressive",
    "AutoregressiveLikelihood",
    "BatchNormal",
    "BernoulliLikelihood",
    "CategoricalLikelihood",
    "DiscretizedLogisticLikelihood",
    "DiscretizedLogisticMixtureLikelihood",
    "FeatureNormal",
    "LaplaceLikelihood",
    "LinearOperatorNormal",
    "MaskedLogProb",
    "MeasurementNormal",
    "NormalLikelihood",
    "PerceptualLikelihood",
    "SigmaVAELikelihood",
    "StudentTLikelihood",
    "check_support",
    "elements",
    "masked_log_prob",
]
