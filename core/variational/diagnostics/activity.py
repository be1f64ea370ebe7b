"""How much of its latents a trained model uses: active units, KL by dimension."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.distributions import Distribution

from core.contract import Model
from core.variational.diagnostics.looking import looking_at
from core.variational.diagnostics.rows import seen
from core.variational.evidence import Latent

DRAWS_FOR_A_MEAN = 1000
DRAWS_AT_A_TIME = 50


@dataclass(frozen=True, eq=False)
class LatentUse:
    """How much of a latent group a model uses, dimension by dimension.

    Args:
        variance: Variance over the data of the posterior mean.
        kl: Mean KL in nats per example, or None for a pair that does not factorise.
        active: Which dimensions are active units.
        rows: How many data the variance is over.
    """

    variance: Float[Tensor, " latent"]
    kl: Float[Tensor, " latent"] | None
    active: Bool[Tensor, " latent"]
    rows: int = 0

    @property
    def active_units(self) -> int:
        """Number of active units."""
        return int(self.active.sum())


def latent_use(
    model: Model, batches: Iterable[Any], threshold: float = 0.01, seed: int = 0
) -> dict[str, LatentUse]:
    r"""Return how much each latent group is used on these batches.

    A unit is active if the variance of its posterior mean over the data exceeds the threshold,

    .. math:: \operatorname{Var}_x \left( \mathbb E_{q(z \mid x)} z_j \right) > 0.01 .

    What shares a latent dimension in an example (the nodes of a graph, the frames of an utterance)
    counts as data here: the variance runs over all of it, and the KL sums over it.

    References:
        Burda et al., "Importance Weighted Autoencoders", ICLR 2016, section 5.2
        (arXiv:1509.00519).

    Args:
        model: Any model; one without latents gives an empty mapping.
        batches: What its ``evidence`` takes, on its device.
        threshold: Variance above which a unit is active, in squared units of the latent.
        seed: Seed of the random numbers that the passes use.
    """
    moments: dict[str, _Moments] = {}
    divergences: dict[str, list[Tensor | None]] = {}
    examples = 0
    with looking_at(model, seed):
        for batch in batches:
            evidence = model.evidence(batch)
            examples += len(seen(evidence, next(iter(evidence.log_likelihood.values()))[0]))
            for latent in evidence.latents:
                rows = posterior_means(latent)
                rows = rows.unflatten(0, (latent.value.shape[1], -1))
                moments.setdefault(latent.name, _Moments()).add(seen(evidence, rows).flatten(0, 1))
                divergence = latent.kl_per_dimension()
                if divergence is not None:
                    divergence = seen(evidence, divergence.double().mean(0)).sum(0)
                divergences.setdefault(latent.name, []).append(divergence)
    return {
        name: LatentUse(
            moment.variance,
            _mean(divergences[name], examples),
            moment.above(threshold),
            moment.count,
        )
        for name, moment in moments.items()
    }


def active_units(means: Float[Tensor, "row latent"], threshold: float = 0.01) -> int:
    r"""Return the number of columns whose variance over the rows exceeds the threshold.

    Args:
        means: Posterior means, one row for each datum.
        threshold: Burda's 0.01, in squared units of the latent.

    Example:
        >>> active_units(torch.tensor([[0.0, 1.0], [0.0, -1.0]]))
        1
    """
    moments = _Moments()
    moments.add(means)
    return int(moments.above(threshold).sum())


def posterior_means(latent: Latent) -> Float[Tensor, "row latent"]:
    """Return the posterior means as rows: all but the last dimension is data.

    A posterior that depends on sampled parents is averaged over them first. One whose mean has no
    formula (a flow) is averaged over 1,000 draws, which adds a thousandth of its variance to that
    of the means.
    """
    try:
        mean = latent.posterior.mean
    except NotImplementedError:
        mean = _mean_of_draws(latent.posterior)
    if len(latent.posterior.batch_shape) > 1:
        mean = mean.mean(0)
    return mean.reshape(-1, mean.shape[-1] if latent.posterior.event_shape else 1)


def _mean_of_draws(posterior: Distribution) -> Tensor:
    rounds = DRAWS_FOR_A_MEAN // DRAWS_AT_A_TIME
    totals = [posterior.sample(torch.Size([DRAWS_AT_A_TIME])).sum(0) for _ in range(rounds)]
    return torch.stack(totals).sum(0) / DRAWS_FOR_A_MEAN


def _mean(totals: list[Tensor | None], examples: int) -> Tensor | None:
    known = [total for total in totals if total is not None]
    return torch.stack(known).sum(0) / examples if len(known) == len(totals) else None


class _Moments:
    """Running mean and squared deviations of rows, in float64 (Chan et al. 1979)."""

    def __init__(self) -> None:
        self.count = 0
        self.mean: Tensor = torch.zeros(())
        self.deviations: Tensor = torch.zeros(())

    def add(self, rows: Tensor) -> None:
        rows = rows.double()
        mean, count = rows.mean(0), len(rows)
        total = self.count + count
        offset = mean - self.mean.to(mean)
        self.deviations = (rows - mean).square().sum(0) + self.deviations.to(mean)
        self.deviations = self.deviations + offset.square() * (self.count * count / total)
        self.mean = self.mean.to(mean) + offset * (count / total)
        self.count = total

    @property
    def variance(self) -> Tensor:
        return self.deviations / max(self.count - 1, 1)

    def above(self, threshold: float) -> Tensor:
        return self.variance > threshold
