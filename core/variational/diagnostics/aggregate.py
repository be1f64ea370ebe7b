"""Whether the latents that the data have are those that the prior draws: the prior hole."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from core.contract import Model
from core.variational.diagnostics.estimate import Unavailable
from core.variational.diagnostics.looking import own_random_stream, seed_for
from core.variational.diagnostics.rows import LatentRows, latent_rows

RELABELLINGS = 199


@dataclass(frozen=True)
class TwoSample:
    """A distance of two samples, held against that of two samples of the same distribution.

    Args:
        value: Energy distance, in units of the latent; unbiased, so that it may be negative.
        floor: Mean of the distance between two samples of the reference, in the same units.
        floor_95: Its 95 % quantile.
        p_value: Probability of a distance as large if the two distributions were the same.
        n: Size of each sample.
    """

    value: float
    floor: float
    floor_95: float
    p_value: float
    n: int


@dataclass(frozen=True)
class Aggregated:
    """The aggregated posterior of a latent group beside its prior.

    Args:
        distance: Between draws from the two, with its floor.
        mean: Mean of each dimension under the aggregated posterior.
        variance: Its variance.
        prior_mean: Mean under the prior.
        prior_variance: Its variance.
        points: Draws from the aggregated posterior, on its first two principal axes.
        prior_points: Draws from the prior on the same axes.
        explained: Share of the variance that the two axes hold.
    """

    distance: TwoSample | Unavailable
    mean: list[float]
    variance: list[float]
    prior_mean: list[float] | Unavailable
    prior_variance: list[float] | Unavailable
    points: list[list[float]]
    prior_points: list[list[float]] | Unavailable
    explained: float


def aggregated_posterior(
    model: Model, batches: Iterable[Any], rows: int = 500, seed: int = 0
) -> dict[str, Aggregated | Unavailable]:
    r"""Compare :math:`q(z) = \mathbb E_x q(z \mid x)` with the prior, for each latent group.

    Its KL to the prior comes with `information`.

    Args:
        model: Any model; one without latents gives an empty mapping.
        batches: What its ``evidence`` takes, on its device.
        rows: Rows at most.
        seed: Seed of the draws, the choice of rows and the relabellings.
    """
    groups = latent_rows(model, batches, rows, seed)
    return {name: aggregated_of(group, seed) for name, group in groups.items()}


def aggregated_of(
    group: LatentRows | Unavailable, seed: int, most: int = 500
) -> Aggregated | Unavailable:
    """Return the comparison for one latent group from its rows, with so many points at most."""
    if isinstance(group, Unavailable):
        return group
    value = group.value.double().cpu()
    if len(value) < 2 or not bool(torch.isfinite(value).all()):
        return Unavailable(f"{len(value)} rows, or draws that are not finite")
    centre = value.mean(0)
    axes = _principal_axes(value - centre)
    variance = value.var(0)
    explained = ((value - centre) @ axes).var(0).sum() / variance.sum().clamp(min=1e-300)
    prior = group.prior_value
    if isinstance(prior, Tensor):
        prior = prior.double().cpu()
    return Aggregated(
        distance=_distance(value, prior, seed),
        mean=centre.tolist(),
        variance=variance.tolist(),
        prior_mean=prior if isinstance(prior, Unavailable) else prior.mean(0).tolist(),
        prior_variance=prior if isinstance(prior, Unavailable) else prior.var(0).tolist(),
        points=((value[:most] - centre) @ axes).tolist(),
        prior_points=prior
        if isinstance(prior, Unavailable)
        else ((prior[:most] - centre) @ axes).tolist(),
        explained=float(explained),
    )


def energy_distance(x: Float[Tensor, "row latent"], y: Float[Tensor, "other latent"]) -> float:
    r"""Return the energy distance of two samples.

    .. math:: 2\, \mathbb E \|X - Y\| - \mathbb E \|X - X'\| - \mathbb E \|Y - Y'\|

    Zero in expectation for equal distributions and positive for all others. Without the zeros of
    the diagonals it is unbiased.

    References:
        Székely and Rizzo, "Energy Statistics: A Class of Statistics Based on Distances", Journal
        of Statistical Planning and Inference 143 (2013), 1249-1272.

    Args:
        x: One sample.
        y: The other.

    Raises:
        ValueError: If a sample has fewer than two rows.
    """
    if min(len(x), len(y)) < 2:
        raise ValueError(f"energy_distance: {len(x)} and {len(y)} rows; each needs at least 2")
    labels = torch.cat([torch.ones(len(x)), torch.zeros(len(y))])[:, None].double()
    return float(_energies(_distances(torch.cat([x, y])), labels))


def energy_test(
    sample: Float[Tensor, "row latent"],
    reference: Float[Tensor, "row latent"],
    seed: int = 0,
    relabellings: int = RELABELLINGS,
) -> TwoSample:
    """Test whether two samples of one size have the same distribution.

    The p-value is that of a permutation test, exact at any size. The floor is the distance of two
    halves of the reference among themselves, relabelled at random and scaled to the full size: it
    says how large a distance is nothing.

    Args:
        sample: What is tested.
        reference: What it is held against.
        seed: Seed of the relabellings.
        relabellings: How many.

    Raises:
        ValueError: If a sample has fewer than four rows.
    """
    n = len(sample)
    if min(n, len(reference)) < 4:
        raise ValueError(f"energy_test: {n} and {len(reference)} rows; each needs at least 4")
    value = energy_distance(sample, reference)
    with own_random_stream(seed_for(seed, "relabellings")):
        pooled = _null(torch.cat([sample, reference]), n, relabellings)
        half = len(reference) // 2
        # The spread of a degenerate U-statistic falls with the size, and its mean is 0.
        among = _null(reference, half, relabellings) * half / n
    above = int((pooled >= value).sum())
    return TwoSample(
        value,
        float(among.mean()),
        float(among.quantile(0.95)),
        (above + 1) / (relabellings + 1),
        n,
    )


def _distance(value: Tensor, prior: Tensor | Unavailable, seed: int) -> TwoSample | Unavailable:
    if isinstance(prior, Unavailable):
        return prior
    if len(value) < 4 or not bool(torch.isfinite(prior).all()):
        return Unavailable(f"{len(value)} rows, or prior draws that are not finite")
    return energy_test(value, prior, seed)


def _distances(rows: Tensor) -> Tensor:
    rows = rows.double()
    return torch.cdist(rows, rows).fill_diagonal_(0.0)


def _null(rows: Tensor, first: int, relabellings: int) -> Tensor:
    """The distances between random parts of one sample, the first of this size."""
    order = torch.rand(len(rows), relabellings, dtype=torch.float64).argsort(0)
    return _energies(_distances(rows), (order < first).double())


def _energies(distances: Tensor, labels: Tensor) -> Tensor:
    """The energy distance for each column of labels, 1 for one sample and 0 for the other."""
    others = 1 - labels
    n, m = labels.sum(0), others.sum(0)
    to_first = distances @ labels
    within = (labels * to_first).sum(0)
    between = (others * to_first).sum(0)
    rest = distances.sum() - within - 2 * between
    return 2 * between / (n * m) - within / (n * (n - 1)) - rest / (m * (m - 1))


def _principal_axes(centred: Tensor) -> Tensor:
    """The two directions of largest variance as columns; one of zeros where there is but one."""
    axes = torch.linalg.svd(centred, full_matrices=False).Vh[:2].T
    signs = torch.sign(axes.gather(0, axes.abs().argmax(0, keepdim=True)))
    axes = axes * torch.where(signs == 0, torch.ones_like(signs), signs)
    missing = 2 - axes.shape[1]
    return torch.cat([axes, axes.new_zeros(len(axes), missing)], 1) if missing else axes
