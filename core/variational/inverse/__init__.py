"""Inverse problems: linear operators, their data fidelity, and solvers with and without priors."""

from core.variational.inverse.fidelity import (
    DataFidelity,
    LinearOperatorNormal,
    MeasurementNormal,
    map_energy,
    measure,
)
from core.variational.inverse.operators import (
    LinearOperator,
    check_adjoint,
    coils,
    convolution,
    fourier,
    mask,
    matrix,
    operator_norm,
    sampled_fourier,
)
from core.variational.inverse.plug_and_play import Restored, plug_and_play, tempered_mode
from core.variational.inverse.solvers import Solution, conjugate_gradients
from core.variational.inverse.total_variation import total_variation
from core.variational.inverse.unrolled import Trace, UnrolledSolver

__all__ = [
    "DataFidelity",
    "LinearOperator",
    "LinearOperatorNormal",
    "MeasurementNormal",
    "Restored",
    "Solution",
    "Trace",
    "UnrolledSolver",
    "check_adjoint",
    "coils",
    "conjugate_gradients",
    "convolution",
    "fourier",
    "map_energy",
    "mask",
    "matrix",
    "measure",
    "operator_norm",
    "plug_and_play",
    "sampled_fourier",
    "tempered_mode",
    "total_variation",
]
