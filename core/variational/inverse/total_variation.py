"""Total variation: the baseline without learning that a learned prior has to beat."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from core.variational.inverse.fidelity import DataFidelity
from core.variational.inverse.operators import operator_norm


@torch.no_grad()
def total_variation(
    fidelity: DataFidelity, weight: float, iterations: int, norm: float | None = None
) -> Tensor:
    r"""Minimise a data fidelity with an edge-preserving penalty, by a primal-dual method.

    .. math:: \arg\min_x D(x) + \lambda \sum_i \|(\nabla x)_i\|_2

    with forward differences over all dimensions of an example, the border replicated.

    References:
        Rudin, Osher and Fatemi, "Nonlinear Total Variation Based Noise Removal Algorithms",
        Physica D 60, 1992. Chambolle and Pock, "A First-Order Primal-Dual Algorithm for Convex
        Problems", JMIV 40, 2011, algorithm 1, here with :math:`K = (A, \nabla)`.

    Args:
        fidelity: :math:`D`; the images may be real or complex.
        weight: :math:`\lambda` in nats per unit of the image.
        iterations: Number of iterations.
        norm: :math:`\|A\|`, if known; else by power iteration.

    Returns:
        Images of shape ``(*batch, *domain)``.

    Raises:
        ValueError: If the weight is negative or not finite.
    """
    if not 0 <= weight < math.inf:
        raise ValueError(f"total_variation: weight {weight!r} is negative or not finite")
    operator, dims = fidelity.operator, len(fidelity.operator.domain)
    y = fidelity.seen
    if norm is None:
        norm = 1.01 * operator_norm(operator, dtype=y.real.dtype, device=y.device)
    # The dual of the data term moves in units of 1 / sigma: balance the steps by it.
    step = 1 / math.sqrt(norm**2 + 4 * dims)
    primal, dual = step * fidelity.scale, step / fidelity.scale
    x = fidelity.back_projection()
    ahead, data, slopes = x, torch.zeros_like(y), torch.zeros_like(gradient(x, dims))
    for _ in range(iterations):
        data = (data + dual * (operator(ahead) - y)) / (1 + dual * fidelity.scale**2)
        slopes = _within(slopes + dual * gradient(ahead, dims), weight)
        before = x
        x = x - primal * (operator.adjoint(data) + gradient_adjoint(slopes, dims))
        ahead = 2 * x - before
    return x


def gradient(x: Tensor, dims: int) -> Tensor:
    """Return the forward differences along each of the last dimensions, stacked in front."""
    slopes = torch.zeros((dims, *x.shape), dtype=x.dtype, device=x.device)
    for index in range(dims):
        dim = x.dim() - dims + index
        slopes[index].narrow(dim, 0, x.shape[dim] - 1).copy_(x.diff(dim=dim))
    return slopes


def gradient_adjoint(slopes: Tensor, dims: int) -> Tensor:
    """Return the adjoint of `gradient`, the negative divergence."""
    x = torch.zeros_like(slopes[0])
    for index in range(dims):
        dim = x.dim() - dims + index
        inside = slopes[index].narrow(dim, 0, x.shape[dim] - 1)
        x.narrow(dim, 0, x.shape[dim] - 1).sub_(inside)
        x.narrow(dim, 1, x.shape[dim] - 1).add_(inside)
    return x


def _within(slopes: Tensor, radius: float) -> Tensor:
    """Project the vectors along the first dimension onto a ball."""
    length = slopes.abs().square().sum(0).sqrt()
    return slopes * (radius / length.clamp(min=max(radius, torch.finfo(length.dtype).tiny)))
