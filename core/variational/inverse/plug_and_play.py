"""Inverse problems with a variational autoencoder for a prior."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from core.variational.distributions import DiagonalNormal
from core.variational.inverse.fidelity import DataFidelity, single

Level = Callable[[Tensor, Sequence[Tensor]], tuple[DiagonalNormal, DiagonalNormal]]


@dataclass(frozen=True, eq=False)
class Restored:
    """What plug-and-play found.

    Args:
        x: The images, of shape ``(*batch, *domain)``.
        latents: The latents of each level, from the top.
        energies: The joint energy after each iteration in nats, of shape ``(iterations, *batch)``.
        change: Norm of the last change of each image over that of the image.
        converged: Which examples changed by less than the tolerance in the last iteration.
    """

    x: Tensor
    latents: Sequence[Tensor]
    energies: Tensor
    change: Tensor
    converged: Tensor


@torch.no_grad()
def plug_and_play(
    fidelity: DataFidelity,
    levels: Sequence[Level],
    decode: Callable[[Sequence[Tensor]], DiagonalNormal],
    start: Tensor,
    temperatures: Sequence[float],
    iterations: int,
    tolerance: float,
    solver_iterations: int = 100,
    solver_tolerance: float = 1e-6,
) -> Restored:
    r"""Restore images by PnP-HVAE: by turns latents from the encoder, images from a quadratic.

    It goes down the joint energy of image and latents,

    .. math:: J(x, z) = -\log p(y \mid x) - \log p(x \mid z)
        - \sum_l \tau_l^{-2} \log p(z_l \mid z_{<l}) .

    Given the image, each level in turn is the mode of
    :math:`q(z_l \mid z_{<l}, x)\, p(z_l \mid z_{<l})^{\tau_l^{-2} - 1}`, which the encoder gives
    without a gradient through the decoder. Given the latents, the image solves

    .. math:: (A^* A / \sigma^2 + \Gamma^{-1})\, x = A^* y / \sigma^2 + \Gamma^{-1} \mu(z)

    with the decoder's mean :math:`\mu` and variances :math:`\Gamma`. A temperature below 1 trusts
    the prior of its level more; where it is 0 the level stands at the prior's mean. If encoder and
    model are linear-Gaussian, the encoder exact and there is one level (or all temperatures are
    1), the fixed point is the MAP estimate under the marginal prior of the image.

    References:
        Prost et al., "Inverse Problem Regularization with Hierarchical Variational Autoencoders",
        ICCV 2023, algorithm 1 (arXiv:2303.11217). González et al., "Solving Inverse Problems by
        Joint Posterior Maximization with Autoencoding Prior", SIAM J. Imaging Sci. 15(2), 2022
        (arXiv:2103.01648), for one level.

    Args:
        fidelity: The first term of the energy, of real images.
        levels: For each level from the top, a function of the image and of the latents above that
            gives posterior and prior.
        decode: The likelihood of the image for the latents of all levels, with the event shape of
            the operator's domain.
        start: Images of shape ``(*batch, *domain)`` to begin with.
        temperatures: :math:`\tau_l`, from 0 to 1, one for each level.
        iterations: At most so many.
        tolerance: Relative change of an image below which it has converged.
        solver_iterations: Conjugate gradients in an iteration, at most.
        solver_tolerance: Relative residual that they are to reach.

    Raises:
        ValueError: If there are no iterations or levels, or a temperature is missing or out of
            range.
    """
    _check(levels, temperatures, iterations)
    x = start = single(start)
    dims = tuple(range(-len(fidelity.operator.domain), 0))
    energies, latents = [], []
    change = torch.full(start.shape[: dims[0]], torch.inf, device=start.device)
    for _ in range(iterations):
        latents, latent_energy = _latents(x, levels, temperatures)
        expected = decode(latents)
        precision = expected.scale.square().reciprocal()
        before, solution = (
            x,
            fidelity.proximal(
                expected.loc, precision, solver_iterations, solver_tolerance, start=x
            ),
        )
        x = solution.x
        energies.append(fidelity(x) - expected.log_prob(x) + latent_energy)
        moved = torch.linalg.vector_norm(x - before, dim=dims)
        change = moved / torch.linalg.vector_norm(x, dim=dims).clamp(min=1e-30)
        if bool((change < tolerance).all()):
            break
    return Restored(x, latents, torch.stack(energies), change, change < tolerance)


def tempered_mode(posterior: DiagonalNormal, prior: DiagonalNormal, temperature: float) -> Tensor:
    r"""Return the mode of :math:`q(z)\, p(z)^{\tau^{-2} - 1}`.

    A mean of both means, weighted by :math:`\sigma_q^{-2}` and
    :math:`(\tau^{-2} - 1)\, \sigma_p^{-2}`.
    """
    if temperature == 0:
        return prior.loc.expand_as(posterior.loc)
    if temperature == 1:
        return posterior.loc
    excess = temperature**-2 - 1
    weight = 1 / (1 + excess * (posterior.scale / prior.scale).square())
    return prior.loc + weight * (posterior.loc - prior.loc)


def _latents(
    x: Tensor, levels: Sequence[Level], temperatures: Sequence[float]
) -> tuple[list[Tensor], Tensor | float]:
    """Return the latents of an image, and their energy without the levels of temperature 0."""
    latents: list[Tensor] = []
    energy: Tensor | float = 0.0
    for level, temperature in zip(levels, temperatures, strict=True):
        posterior, prior = level(x, latents)
        z = tempered_mode(posterior, prior, temperature)
        if temperature:
            energy = energy - prior.log_prob(z) / temperature**2
        latents.append(z)
    return latents, energy


def _check(levels: Sequence[Level], temperatures: Sequence[float], iterations: int) -> None:
    if iterations < 1 or not levels:
        raise ValueError(
            f"plug_and_play: {iterations} iterations, {len(levels)} levels; at least 1 of each"
        )
    if len(temperatures) != len(levels) or not all(0 <= each <= 1 for each in temperatures):
        raise ValueError(
            f"plug_and_play: temperatures {tuple(temperatures)} for {len(levels)} levels; there "
            "must be one for each, from 0 to 1"
        )
