"""Objectives that look at the aggregated posterior of a batch: InfoVAE, WAE, β-TCVAE, DIP-VAE."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from core.variational.decomposition import (
    aggregated_covariance,
    covariance_penalty,
    decompose_kl,
    mean_covariance,
)
from core.variational.discrepancies import mmd, sliced_wasserstein
from core.variational.evidence import Evidence, Latent
from core.variational.objectives.base import (
    Loss,
    check_evidence,
    check_settings,
    mean_divergences,
    require_latents,
    take_account,
    times,
    total,
)
from core.variational.objectives.elbo import closed
from core.variational.schedules import Constant, Schedule

Discrepancy = Literal["mmd", "sliced-wasserstein"]


@dataclass(frozen=True)
class InfoVAE:
    r"""An ELBO that gives up part of the KL and draws the aggregated posterior to the prior.

    .. math:: -\mathbb E_q \log p(x \mid z) + (1 - \alpha)\, KL(q(z \mid x) \| p(z))
        + (\alpha + \lambda - 1)\, D(q(z) \| p(z))

    :math:`\alpha = 0, \lambda = 1` is the ELBO. :math:`D` is a discrepancy between the values of
    the batch and as many draws of the prior. What shares a latent dimension in an example (nodes,
    frames) counts as rows, and :math:`D` is multiplied by the rows of an example, so that it keeps
    its proportion to the likelihood. ``value`` is the ELBO.

    References:
        Zhao, Song and Ermon, "InfoVAE: Balancing Learning and Inference in Variational
        Autoencoders", AAAI 2019 (arXiv:1706.02262).

    Args:
        alpha: :math:`\alpha`.
        scale: :math:`\lambda`.
        samples: Posterior draws for each example.
        discrepancy: :math:`D`: squared MMD or squared sliced Wasserstein distance.
        projections: Directions of the latter.

    Raises:
        ValueError: If the weight of :math:`D` is negative, the model has no latents, or the batch
            has a single row.
    """

    alpha: float
    scale: float
    samples: int = 1
    discrepancy: Discrepancy = "mmd"
    projections: int = 64

    def __post_init__(self) -> None:
        check_settings(self, scale=self.scale)
        if not math.isfinite(self.alpha) or self.alpha + self.scale < 1:
            raise ValueError(
                f"InfoVAE: alpha {self.alpha!r} and scale {self.scale!r} give the discrepancy the "
                f"weight {self.alpha + self.scale - 1:g}; it must be at least 0"
            )

    def __call__(self, evidence: Evidence, fraction: float = 1.0) -> Loss:
        """Return the loss, and the ELBO; the fraction of the training changes nothing."""
        _check_aggregate(evidence, "InfoVAE")
        account = take_account(evidence, {}, mean_divergences(evidence))
        costs = [(1 - self.alpha) * divergence for divergence in account.divergences.values()]
        weight = self.alpha + self.scale - 1
        if weight:
            measure = _measure(self.discrepancy, self.projections)
            for latent in evidence.latents:
                distance = rows_discrepancy(latent, measure, evidence.observed)
                costs.append(weight * distance)
                account.terms[f"discrepancy/{latent.name}"] = distance.detach()
        return closed(account, costs, evidence, 1 - self.alpha if not weight else None)


@dataclass(frozen=True)
class WAE:
    r"""Reconstruction, and the aggregated posterior drawn to the prior.

    .. math:: -\mathbb E_q \log p(x \mid z) + \lambda D(q(z) \| p(z))

    With a deterministic encoder the Wasserstein auto-encoder, with ``"sliced-wasserstein"`` the
    sliced one. Rows as in `InfoVAE`. There is no KL and no bound: ``value`` is the mean
    log-likelihood at the draws.

    References:
        Tolstikhin et al., "Wasserstein Auto-Encoders", ICLR 2018, eq. 4 (arXiv:1711.01558);
        Kolouri et al., "Sliced-Wasserstein Autoencoder", ICLR 2019 (arXiv:1804.01947).

    Args:
        scale: :math:`\lambda`.
        samples: Posterior draws for each example.
        discrepancy: As in `InfoVAE`.
        projections: As in `InfoVAE`.

    Raises:
        ValueError: If the model has no latents, or the batch has a single row.
    """

    scale: float
    samples: int = 1
    discrepancy: Discrepancy = "mmd"
    projections: int = 64

    def __post_init__(self) -> None:
        check_settings(self, scale=self.scale)

    def __call__(self, evidence: Evidence, fraction: float = 1.0) -> Loss:
        """Return the loss, and the mean log-likelihood."""
        _check_aggregate(evidence, "WAE")
        account, costs = take_account(evidence, {}, {}), []
        measure = _measure(self.discrepancy, self.projections)
        for latent in evidence.latents:
            distance = rows_discrepancy(latent, measure, evidence.observed)
            costs.append(self.scale * distance)
            account.terms[f"discrepancy/{latent.name}"] = distance.detach()
        if any(latent.score is not None for latent in evidence.latents):
            raise ValueError(
                "WAE: draws without a gradient cannot be moved towards the prior; use estimator "
                "'reparameterised'"
            )
        return closed(account, costs, evidence, None, bound="none")


@dataclass(frozen=True)
class BetaTC:
    r"""The KL taken apart, with a weight on what makes the dimensions depend on each other.

    .. math:: -\mathbb E_q \log p(x \mid z) + \alpha I_q(z; n) + \beta\, TC(z)
        + \gamma \sum_j KL(q(z_j) \| p(z_j))

    by minibatch-stratified estimates. ``value`` is the ELBO.

    References:
        Chen et al., "Isolating Sources of Disentanglement in Variational Autoencoders", NeurIPS
        2018, eq. 4 (arXiv:1802.04942).

    Args:
        examples: Number of training examples.
        mutual_information: :math:`\alpha`.
        total_correlation: :math:`\beta`.
        dimension_wise: :math:`\gamma`.
        samples: Posterior draws for each example.
        schedule: Factor on all three.

    Raises:
        ValueError: If the model has no latents, the batch has one example, or a posterior has
            dependent dimensions.
    """

    examples: int
    mutual_information: float = 1.0
    total_correlation: float = 6.0
    dimension_wise: float = 1.0
    samples: int = 1
    schedule: Schedule = field(default_factory=Constant)

    def __post_init__(self) -> None:
        check_settings(
            self,
            mutual_information=self.mutual_information,
            total_correlation=self.total_correlation,
            dimension_wise=self.dimension_wise,
        )

    def __call__(self, evidence: Evidence, fraction: float = 1.0) -> Loss:
        """Return the loss at this fraction of the training, and the ELBO."""
        _check_aggregate(evidence, "BetaTC")
        _require_all_observed(evidence, "BetaTC")
        account = take_account(evidence, {}, mean_divergences(evidence))
        costs, factor = [], self.schedule(fraction)
        for latent in evidence.latents:
            parts = decompose_kl(latent.posterior, latent.prior, latent.value, self.examples)
            for name in ("mutual_information", "total_correlation", "dimension_wise_kl"):
                part = getattr(parts, name).mean()
                weight = getattr(self, name.removesuffix("_kl"))
                costs.append(times(part, weight * factor))
                account.terms[f"{name}/{latent.name}"] = part.detach()
        return closed(account, costs, evidence, None)


@dataclass(frozen=True)
class DIP:
    r"""The ELBO, and a covariance of the aggregated posterior drawn to the identity.

    .. math:: \lambda_{od} \sum_{i \ne j} C_{ij}^2 + \lambda_d \sum_i (C_{ii} - 1)^2

    with the covariance of the posterior means (``"i"``) or of the samples (``"ii"``). Rows as in
    `InfoVAE`, but the penalty is not multiplied by them. ``value`` is the ELBO.

    References:
        Kumar et al., "Variational Inference of Disentangled Latent Concepts from Unlabeled
        Observations", ICLR 2018, eq. 6 and 7 (arXiv:1711.00848).

    Args:
        off_diagonal: :math:`\lambda_{od}`.
        diagonal: :math:`\lambda_d`.
        version: Which covariance.
        samples: Posterior draws for each example.
        schedule: Factor on the penalty.

    Raises:
        ValueError: If the model has no latents, or the batch has a single row.
    """

    off_diagonal: float
    diagonal: float
    version: Literal["i", "ii"] = "i"
    samples: int = 1
    schedule: Schedule = field(default_factory=Constant)

    def __post_init__(self) -> None:
        check_settings(self, off_diagonal=self.off_diagonal, diagonal=self.diagonal)

    def __call__(self, evidence: Evidence, fraction: float = 1.0) -> Loss:
        """Return the loss at this fraction of the training, and the ELBO."""
        _check_aggregate(evidence, "DIP")
        _require_all_observed(evidence, "DIP")
        account = take_account(evidence, {}, mean_divergences(evidence))
        covariance = {"i": mean_covariance, "ii": aggregated_covariance}[self.version]
        costs, factor = [total([*account.divergences.values()])], self.schedule(fraction)
        for latent in evidence.latents:
            penalty = covariance_penalty(
                covariance(latent.posterior), self.off_diagonal, self.diagonal
            )
            costs.append(times(penalty, factor))
            account.terms[f"covariance_penalty/{latent.name}"] = penalty.detach()
        return closed(account, costs, evidence, None)


def rows_discrepancy(
    latent: Latent, measure: Callable[[Tensor, Tensor], Tensor], observed: Tensor | None = None
) -> Tensor:
    """Return the discrepancy between a latent's values and its prior, times the rows per example.

    Args:
        latent: Whose event's last dimension is the latent vector; all others are rows.
        measure: Of two samples ``(row, latent)``.
        observed: Which examples count; None for all.
    """
    prior = latent.prior
    leading = torch.Size(latent.value.shape[: 2 - len(prior.batch_shape)])
    draws = prior.rsample(leading) if prior.has_rsample else prior.sample(leading)
    values = latent.value
    if observed is not None:
        values, draws = values[:, observed], draws[:, observed]
    if values.dim() < 3:
        values, draws = values.unsqueeze(-1), draws.unsqueeze(-1)
    rows_per_example = math.prod(values.shape[2:-1])
    return times(measure(values.flatten(0, -2), draws.flatten(0, -2)), rows_per_example)


def _check_aggregate(evidence: Evidence, who: str) -> None:
    check_evidence(evidence, "elbo", who)
    require_latents(evidence, who)
    if evidence.sample_weights is not None:
        kinds = [each.estimator.kind for each in evidence.latents if each.weights is not None]
        raise ValueError(
            f"{who}: the draws of estimator {kinds[0]!r} have unequal weights and are no sample "
            "of the aggregated posterior; use 'reparameterised'"
        )


def _require_all_observed(evidence: Evidence, who: str) -> None:
    if evidence.observed is not None and not bool(evidence.observed.all()):
        raise ValueError(
            f"{who}: {int((~evidence.observed).sum())} examples of the batch have nothing "
            "observed, and their posteriors would count in the aggregate; leave such examples out"
        )


def _measure(kind: Discrepancy, projections: int) -> Callable[[Tensor, Tensor], Tensor]:
    if kind == "mmd":
        return mmd
    return lambda x, y: sliced_wasserstein(x, y, projections)
