"""Linear systems of operators, without their matrices."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from core.variational.inverse.operators import inner


@dataclass(frozen=True, eq=False)
class Solution:
    """What an iterative solver found, example by example.

    Args:
        x: The solution, of shape ``(*batch, *event)``.
        iterations: Products with the operator that each example took, of shape ``batch``.
        residual: Norm of what is left over that of the right-hand side, dimensionless.
    """

    x: Tensor
    iterations: Tensor
    residual: Tensor


def conjugate_gradients(
    apply: Callable[[Tensor], Tensor],
    right: Tensor,
    event_dims: int,
    iterations: int,
    tolerance: float,
    start: Tensor | None = None,
    preconditioner: Callable[[Tensor], Tensor] | None = None,
) -> Solution:
    r"""Solve :math:`H x = b` for a Hermitian positive definite :math:`H`, each example by itself.

    An example stops when :math:`\|b - H x\| \le \text{tolerance}\, \|b\|` for the residual that
    the recursion carries; the one returned is that. Differentiable with respect to everything
    that ``apply`` and ``right`` depend on, through the iterations.

    References:
        Hestenes and Stiefel, "Methods of Conjugate Gradients for Solving Linear Systems", J. Res.
        NBS 49, 1952, section 3.

    Args:
        apply: :math:`H`, on ``(*batch, *event)``, real or complex.
        right: :math:`b`.
        event_dims: How many of the last dimensions are one example's system.
        iterations: At most so many.
        tolerance: Relative residual to reach.
        start: Where to begin; zeros if not given.
        preconditioner: An approximation of :math:`H^{-1}`, Hermitian positive definite.

    Example:
        >>> solution = conjugate_gradients(lambda x: 4 * x, torch.ones(2, 3), 1, 10, 1e-6)
        >>> solution.x[0], solution.iterations
        (tensor([0.2500, 0.2500, 0.2500]), tensor([1, 1]))
    """
    x = torch.zeros_like(right) if start is None else start
    residual = right if start is None else right - apply(x)
    size = inner(right, right, event_dims)
    left = inner(residual, residual, event_dims)
    better = residual if preconditioner is None else preconditioner(residual)
    direction, progress = better, inner(residual, better, event_dims)
    count = torch.zeros_like(size, dtype=torch.long)
    for _ in range(iterations):
        active = left > tolerance**2 * size
        if not bool(active.any()):
            break
        applied = apply(direction)
        length = _ratio(progress, inner(direction, applied, event_dims), active)
        x = x + length * direction
        residual = residual - length * applied
        better = residual if preconditioner is None else preconditioner(residual)
        before, progress = progress, inner(residual, better, event_dims)
        direction = better + _ratio(progress, before, active) * direction
        left = inner(residual, residual, event_dims)
        count = count + active
    relative = (left.detach() / torch.where(size > 0, size, 1)).sqrt()
    return Solution(
        x, count.flatten(-event_dims).squeeze(-1), relative.flatten(-event_dims)[..., 0]
    )


def _ratio(numerator: Tensor, denominator: Tensor, active: Tensor) -> Tensor:
    """Return the ratio where active and 0 elsewhere, with a gradient that is never NaN."""
    valid = active & (denominator > 0)
    return torch.where(valid, numerator / torch.where(valid, denominator, 1), 0)
