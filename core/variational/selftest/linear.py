"""Linear operators and their adjoints, and the solver that needs no matrix."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from core.variational.inverse import (
    LinearOperator,
    check_adjoint,
    coils,
    conjugate_gradients,
    convolution,
    fourier,
    mask,
    matrix,
    operator_norm,
    sampled_fourier,
)
from core.variational.inverse.total_variation import gradient, gradient_adjoint
from core.variational.selftest.check import Check, largest, worst_of

OPERATORS: dict[str, Callable[[], LinearOperator]] = {
    "matrix": lambda: matrix(_real(5, 3)),
    "complex matrix": lambda: matrix(_complex(3, 5)),
    "mask": lambda: mask(_seen(4, 5), (4, 5)),
    "complex mask": lambda: mask(_seen(5), (4, 5), complex=True),
    "Fourier, odd and even": lambda: fourier((3, 5, 4), (-2, -1)),
    "Fourier of real images": lambda: fourier((4, 5), (-2, -1), real=True),
    "coils": lambda: coils(_maps(3, 4, 5)),
    "sampled Fourier": lambda: sampled_fourier(_maps(3, 4, 6), _seen(6)),
    "convolution, 1-D": lambda: convolution(_real(3), (7,)),
    "convolution, 2-D": lambda: convolution(_real(3, 5), (6, 7)),
    "convolution, 3-D": lambda: convolution(_real(3, 1, 3), (4, 3, 5)),
    "composed": lambda: mask(_seen(4, 5), (4, 5)) @ convolution(_real(3, 3), (4, 5)),
    "differences": lambda: LinearOperator(
        lambda x: gradient(x, 2), lambda y: gradient_adjoint(y, 2), (4, 5), (2, 4, 5)
    ),
}


@torch.no_grad()
def check_operators() -> list[Check]:
    """Hold each operator to ⟨Ax, y⟩ = ⟨x, A*y⟩, and the solver to a direct one."""
    gaps = {name: check_adjoint(make(), torch.float64) for name, make in OPERATORS.items()}
    excess = operator_norm(sampled_fourier(_maps(3, 8, 8), _seen(8)), dtype=torch.float64) - 1
    solved = {name: _solver_error(draw) for name, draw in (("real", _real), ("complex", _complex))}
    return [
        worst_of("⟨Ax, y⟩ − ⟨x, A*y⟩", gaps, 1e-12, "relative"),
        worst_of(
            "norm of coils that sum to 1, above 1", {"sampled Fourier": excess}, 1e-9, "absolute"
        ),
        worst_of("conjugate gradients − direct solution", solved, 1e-9, "absolute"),
    ]


def _solver_error(draw: Callable[..., Tensor]) -> float:
    factor, right = draw(4, 6, 6), draw(4, 6)
    system = factor @ factor.mH + torch.eye(6, dtype=factor.dtype)
    found = conjugate_gradients(
        lambda x: (system @ x.unsqueeze(-1)).squeeze(-1),
        right,
        event_dims=1,
        iterations=50,
        tolerance=1e-13,
    )
    return largest(found.x - torch.linalg.solve(system, right))


def _real(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64)


def _complex(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.complex128)


def _seen(*shape: int) -> Tensor:
    return torch.rand(shape) < 0.5


def _maps(coil: int, height: int, width: int) -> Tensor:
    """Return sensitivities whose squares sum to 1 at each place."""
    raw = _complex(coil, height, width)
    return raw / raw.abs().square().sum(0).sqrt()
