"""The noise of a gradient: signal to noise of an estimator, and what theory says of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from core.contract import Model
from core.variational.diagnostics.estimate import Estimate, Unavailable, around
from core.variational.diagnostics.looking import looking_at
from core.variational.evidence import Evidence

Structure = Literal["diagonal", "triangular", "full"]
ALL = "all"
ROUNDING = 1e-12


@dataclass(frozen=True)
class GradientNoise:
    r"""The gradient of a group of parameters over repeated draws.

    Args:
        signal: :math:`\|\mathbb E g\|^2`, without the bias of a mean of few draws.
        variance: :math:`\operatorname{tr} \operatorname{Var} g`.
        signal_to_noise: :math:`\sqrt{\|\mathbb E g\|^2 / \operatorname{tr} \operatorname{Var} g}`;
            0 where the signal drowns.
        parameters: How many numbers the group has.
    """

    signal: Estimate | Unavailable
    variance: Estimate | Unavailable
    signal_to_noise: Estimate | Unavailable
    parameters: int


def gradient_noise(
    model: Model,
    batch: Any,
    loss: Callable[[Evidence], Tensor],
    samples: int = 1,
    draws: int = 20,
    seed: int = 0,
) -> dict[str, GradientNoise] | Unavailable:
    r"""Measure mean and variance of the gradient of a loss on a fixed batch.

    The posterior is drawn anew each time; batch and parameters stay. With the matrix :math:`G` of
    inner products of the draws' gradients,

    .. math:: \widehat{\operatorname{tr} \operatorname{Var}} = \frac{1}{R} \sum_r G_{rr} - S, \quad
        S = \frac{1}{R (R - 1)} \sum_{r \ne s} G_{rs}

    are unbiased for variance and signal. Intervals are those of the jackknife over the draws.
    The memory is that of ``draws`` times the parameters.

    References:
        Rainforth et al., "Tighter Variational Bounds are Not Necessarily Better", ICML 2018
        (arXiv:1802.04537), there element by element.

    Args:
        model: A torch module.
        batch: What its ``evidence`` takes, on its device.
        loss: What is differentiated, e.g. ``lambda evidence: objective(evidence).loss``.
        samples: Posterior draws for each example and gradient.
        draws: Gradients :math:`R`.
        seed: Seed of the draws.

    Returns:
        One entry for each first name of a parameter (``encoder``, ``decoder``) and ``all``.

    Raises:
        ValueError: If there are fewer than 3 draws.
    """
    if draws < 3:
        raise ValueError(f"gradient_noise: draws={draws}; at least 3 are needed")
    parameters = _trained(model)
    if not parameters:
        return Unavailable("the model has no parameters that are trained")
    with looking_at(model, seed), torch.enable_grad():
        try:
            gradients = [
                _gradient(loss(model.evidence(batch, samples)), parameters) for _ in range(draws)
            ]
        except ValueError as error:  # an objective that needs more of a batch than this one has
            return Unavailable(str(error))
    groups: dict[str, list[str]] = {}
    for name in parameters:
        groups.setdefault(name.split(".")[0], []).append(name)
    if len(groups) > 1:
        groups[ALL] = list(parameters)
    products = {name: _products([each[name] for each in gradients]) for name in parameters}
    return {
        group: noise_of(
            torch.stack([products[name] for name in names]).sum(0),
            sum(parameters[name].numel() for name in names),
        )
        for group, names in groups.items()
    }


def noise_of(products: Float[Tensor, "draw draw"], parameters: int) -> GradientNoise:
    """Return signal and noise from the inner products of the gradients of the draws."""
    products = products.double().cpu()
    draws = len(products)
    if not bool(torch.isfinite(products).all()):
        missing = Unavailable("a gradient is not finite")
        return GradientNoise(missing, missing, missing, parameters)
    total, diagonal, rows = products.sum(), products.diagonal(), products.sum(1)
    # Leave out draw r: its row, its column, and its square that both hold.
    kept = draws - 1
    squares = (diagonal.sum() - diagonal) / kept
    signals = (total - 2 * rows + diagonal - (diagonal.sum() - diagonal)) / (kept * (kept - 1))
    signal = (total - diagonal.sum()) / (draws * kept)
    variance = diagonal.mean() - signal
    return GradientNoise(
        _jackknife(signal, signals),
        _jackknife(variance, squares - signals),
        Unavailable("the gradient has no noise")
        if variance <= ROUNDING * diagonal.mean()
        else _jackknife(_ratio(signal, variance), _ratio(signals, squares - signals)),
        parameters,
    )


def quadratic_gradient_variance(
    precision: Float[Tensor, "latent latent"],
    offset: Float[Tensor, " latent"],
    scale: Float[Tensor, "latent latent"],
    structure: Structure = "full",
) -> float:
    r"""Return the total variance of the reparameterised gradient for a Gaussian target.

    For :math:`\log p(z) = -\tfrac12 (z - z^*)^\top A (z - z^*)` and :math:`z = m + C u`,
    :math:`u \sim \mathcal N(0, I)`, one draw gives the gradients :math:`-(a + B u)` of :math:`m`
    and :math:`-(a + B u) u^\top` of :math:`C`, where :math:`a = A (m - z^*)` and :math:`B = A C`.
    With :math:`\mathbb E u_k u_l u_j^2 = \delta_{kl} (1 + 2 \delta_{jk})`,

    .. math:: \operatorname{tr} \operatorname{Var} = \|B\|_F^2 + \sum_{(i, j) \in M}
        \left( a_i^2 + \|B_{i \cdot}\|^2 + B_{ij}^2 \right)

    over the entries :math:`M` of :math:`C` that are parameters: :math:`d` in a mean field, which
    lets the variance grow as the norms do, :math:`d (d+1) / 2` or :math:`d^2` with correlations,
    which is a power of :math:`d` more. Summed over all, with the squared means
    :math:`\|a\|^2 + \|B\|_F^2` added, it is :math:`(d+1) \|a\|^2 + (d+3) \|B\|_F^2`, where
    Domke's bound is tight. An entropy in closed form adds nothing, and the mean of :math:`K` draws
    has a :math:`K`-th of it.

    References:
        Domke, "Provable Gradient Variance Guarantees for Black-Box Variational Inference", NeurIPS
        2019 (arXiv:1906.08241); Kim et al., "Practical and Matching Gradient Variance
        Bounds for Black-Box Variational Bayesian Inference", ICML 2023 (arXiv:2303.10472). The
        exact sum is derived here.

    Args:
        precision: :math:`A`, symmetric.
        offset: :math:`m - z^*`.
        scale: :math:`C`.
        structure: Which entries of :math:`C` are parameters: its diagonal, its lower triangle, or
            all.

    Example:
        >>> eye = torch.eye(3)
        >>> quadratic_gradient_variance(eye, torch.zeros(3), eye, "diagonal")
        9.0
    """
    pull, matrix = precision @ offset, precision @ scale
    ones = torch.ones_like(matrix)
    mask = {"diagonal": torch.eye(len(ones)).to(ones), "triangular": ones.tril(), "full": ones}
    rows = pull.square() + matrix.square().sum(1)
    entries = mask[structure] * (rows[:, None] + matrix.square())
    return float(matrix.square().sum() + entries.sum())


def _trained(model: Model) -> dict[str, Tensor]:
    if not isinstance(model, nn.Module):
        return {}
    return {name: each for name, each in model.named_parameters() if each.requires_grad}


def _gradient(loss: Tensor, parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
    if not loss.requires_grad:
        return {name: torch.zeros_like(each) for name, each in parameters.items()}
    found = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
    return {
        name: torch.zeros_like(parameters[name]) if each is None else each.detach()
        for name, each in zip(parameters, found, strict=True)
    }


def _products(gradients: list[Tensor]) -> Tensor:
    rows = torch.stack([gradient.to_dense().flatten() for gradient in gradients]).double()
    return rows @ rows.T


def _ratio(signal: Tensor, variance: Tensor) -> Tensor:
    tiny = torch.finfo(torch.float64).tiny
    return (signal.clamp(min=0) / variance.clamp(min=tiny)).sqrt()


def _jackknife(value: Tensor, left_out: Tensor) -> Estimate:
    n = len(left_out)
    error = float((left_out - left_out.mean()).square().sum() * (n - 1) / n) ** 0.5
    return around(float(value), error, n)
