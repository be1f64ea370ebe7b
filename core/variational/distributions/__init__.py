"""The distributions that torch lacks, and lean ones for the hot path; all else is torch's own."""

from core.variational.distributions import multivariate_normal  # registers its KL pairs
from core.variational.distributions.base import (
    Diagonal,
    Product,
    check_same_event,
    factors,
    factorwise_kl,
    independent_dims,
    sum_of_factors,
)
from core.variational.distributions.bernoulli import LogitsBernoulli
from core.variational.distributions.circular import WrappedNormal
from core.variational.distributions.delta import Delta
from core.variational.distributions.fixed import stop_gradient
from core.variational.distributions.logistic import DiscretizedLogistic, DiscretizedLogisticMixture
from core.variational.distributions.normal import (
    CentredNormal,
    DiagonalNormal,
    as_diagonal_normal,
    diagonal_normal_kl_terms,
)
from core.variational.distributions.quantized import UniformConvolvedNormal, UnitUniform
from core.variational.distributions.relaxed import categorical_kl
from core.variational.distributions.sphere import HypersphericalUniform, PowerSpherical
from core.variational.distributions.von_mises_fisher import VonMisesFisher
from core.variational.distributions.zero_inflated import ZeroInflated

__all__ = [
    "CentredNormal",
    "Delta",
    "Diagonal",
    "DiagonalNormal",
    "DiscretizedLogistic",
    "DiscretizedLogisticMixture",
    "HypersphericalUniform",
    "LogitsBernoulli",
    "PowerSpherical",
    "Product",
    "UniformConvolvedNormal",
    "UnitUniform",
    "VonMisesFisher",
    "WrappedNormal",
    "ZeroInflated",
    "as_diagonal_normal",
    "categorical_kl",
    "check_same_event",
    "diagonal_normal_kl_terms",
    "factors",
    "factorwise_kl",
    "independent_dims",
    "multivariate_normal",
    "stop_gradient",
    "sum_of_factors",
]
