"""Models whose log-likelihood is known, to hold the mathematics against."""

from core.variational.exact.dynamics import LinearDynamicalSystem, small_dynamics
from core.variational.exact.linear_gaussian import (
    Exact,
    LinearGaussian,
    TwoLevelLinearGaussian,
    cubature_noise,
    small_linear_gaussian,
    small_two_level,
)

__all__ = [
    "Exact",
    "LinearDynamicalSystem",
    "LinearGaussian",
    "TwoLevelLinearGaussian",
    "cubature_noise",
    "small_dynamics",
    "small_linear_gaussian",
    "small_two_level",
]
