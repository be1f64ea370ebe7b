"""The ELBO and what training does to it: weights, free bits, capacities, rate–distortion."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from core.variational.evidence import Evidence, Latent
from core.variational.objectives.base import (
    Account,
    Bound,
    Loss,
    batch_mean,
    check_evidence,
    check_settings,
    mean_divergences,
    require_latents,
    score_surrogate,
    take_account,
    times,
    total,
    weights_of_kl,
)
from core.variational.schedules import Constant, Schedule


@dataclass(frozen=True)
class ELBO:
    r"""The evidence lower bound, with what is done to it in training kept apart from what it is.

    .. math:: \log p(x) \ge \mathbb E_q \log p(x \mid z) - KL(q(z \mid x) \| p(z))

    ``value`` is this bound whatever the settings. ``loss`` is, averaged over the batch,

    .. math:: -\sum_n w_n \log p(x_n \mid z) + \beta(t) \sum_g KL_g + \text{penalties}

    where :math:`\beta(t)` is ``beta`` times the schedule, and with free bits
    :math:`KL_g = \sum_j \max(\lambda, \overline{KL}_{gj})` with the batch mean
    :math:`\overline{KL}` of each latent dimension. A group that does not factorise counts as one
    dimension.

    The terms name what was applied: ``beta``, and ``effective_beta``, the weight of the KL over
    that of the likelihood. With several likelihood terms the latter is their mean weighted by
    :math:`|\log p(x_n \mid z)|`, the factor by which the log-likelihood is scaled as a whole.

    References:
        Kingma and Welling, "Auto-Encoding Variational Bayes", ICLR 2014, eq. 3 (arXiv:1312.6114).
        Higgins et al., "β-VAE: Learning Basic Visual Concepts with a Constrained Variational
        Framework", ICLR 2017, eq. 4, for the weight of the KL.
        Kingma et al., "Improving Variational Inference with Inverse Autoregressive Flow", NeurIPS
        2016 (arXiv:1606.04934), for the free bits, there in groups of dimensions.

    Args:
        samples: Posterior draws for each example.
        beta: Weight of the KL where the schedule is at 1.
        schedule: Factor on ``beta`` by the fraction of training done.
        free_bits: KL that costs nothing, in nats per example and latent dimension.
        weights: Weights of likelihood terms by name, in the loss only; they multiply those that
            come with the evidence. Terms not named weigh 1.

    Raises:
        ValueError: If a setting is out of range, or the evidence has no term of a weight's name.
    """

    samples: int = 1
    beta: float = 1.0
    schedule: Schedule = field(default_factory=Constant)
    free_bits: float = 0.0
    weights: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_settings(self, self.weights, beta=self.beta, free_bits=self.free_bits)

    def __call__(self, evidence: Evidence, fraction: float = 1.0) -> Loss:
        """Return the loss at this fraction of the training, and the ELBO."""
        check_evidence(evidence, "elbo", "ELBO")
        if self.free_bits:
            both = {each.name: self._charge(each, evidence) for each in evidence.latents}
            divergences = {name: pair[0] for name, pair in both.items()}
            charges = {name: pair[1] for name, pair in both.items()}
        else:
            divergences = charges = mean_divergences(evidence)
        account = take_account(evidence, self.weights, divergences)
        if not evidence.latents:
            return closed(account, [], evidence, None, bound="none")
        beta = self.beta * self.schedule(fraction)
        account.terms.update(weights_of_kl(beta, account.likelihoods, account.weights))
        if self.free_bits:
            account.terms.update(
                {f"kl_with_free_bits/{name}": charge.detach() for name, charge in charges.items()}
            )
        costs = [times(charge, beta) for charge in charges.values()]
        return closed(account, costs, evidence, None if self.free_bits else beta)

    def _charge(self, latent: Latent, evidence: Evidence) -> tuple[Tensor, Tensor]:
        """Return the KL of a group and what of it is charged, averaged over the batch."""
        per_dimension = latent.kl_per_dimension()
        if per_dimension is None:
            divergence = batch_mean(latent.divergence(), evidence)
            return divergence, divergence.clamp(min=self.free_bits)
        means = _mean_of_dimensions(per_dimension, evidence)
        return means.sum(), means.clamp(min=self.free_bits).sum()


@dataclass(frozen=True)
class Capacity:
    r"""The KL of each group held at a capacity that the schedule raises from 0.

    .. math:: \mathcal L = -\log p(x \mid z) + \gamma \sum_g |KL_g - C_g(t)|

    ``value`` is the ELBO.

    References:
        Burgess et al., "Understanding disentangling in β-VAE", 2018, eq. 8 (arXiv:1804.03599).
        Dupont, "Learning Disentangled Joint Continuous and Discrete Representations", NeurIPS
        2018, eq. 7, for one capacity for each group (arXiv:1804.00104).

    Args:
        capacity: :math:`C` where the schedule is at 1, in nats per example.
        gamma: Weight of the distance :math:`\gamma`.
        samples: Posterior draws for each example.
        schedule: Factor on the capacity by the fraction of training done.
        capacities: Capacities of latent groups by name, in place of ``capacity``.
        weights: As in `ELBO`.

    Raises:
        ValueError: If a setting is out of range, the model has no latents, or none of a name.
    """

    capacity: float
    gamma: float
    samples: int = 1
    schedule: Schedule = field(default_factory=Constant)
    capacities: Mapping[str, float] = field(default_factory=dict)
    weights: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_settings(self, self.weights, capacity=self.capacity, gamma=self.gamma)
        check_settings(self, self.capacities, what="capacities")

    def __call__(self, evidence: Evidence, fraction: float = 1.0) -> Loss:
        """Return the loss at this fraction of the training, and the ELBO."""
        check_evidence(evidence, "elbo", "Capacity")
        require_latents(evidence, "Capacity")
        account = take_account(evidence, self.weights, mean_divergences(evidence))
        unknown = set(self.capacities) - set(account.divergences)
        if unknown:
            raise ValueError(
                f"Capacity: no latent {sorted(unknown)}; there are {list(account.divergences)}"
            )
        costs, factor = [], self.schedule(fraction)
        for name, divergence in account.divergences.items():
            target = factor * self.capacities.get(name, self.capacity)
            costs.append(self.gamma * (divergence - target).abs())
            account.terms[f"capacity/{name}"] = target
        return closed(account, costs, evidence, None)


@dataclass(frozen=True)
class AutoGen:
    r"""The data together with perfect reconstructions of them: more weight on the likelihood.

    .. math:: (1 + m)\, \mathbb E_q \log p(x \mid z) - KL(q(z \mid x) \| p(z))

    It bounds the log-likelihood of the data and :math:`m` reconstructions equal to them. ``value``
    is the ELBO of the data alone.

    References:
        Mansbridge, Fierimonte, Feige and Barber, "Improving latent variable descriptiveness by
        modelling rather than ad-hoc factors", Machine Learning 108, 2019 (arXiv:1806.04480, there
        "… with AutoGen").

    Args:
        reconstructions: :math:`m`, at least 0.
        samples: Posterior draws for each example.
        schedule: Factor on the weight of the KL.
        weights: As in `ELBO`.
    """

    reconstructions: float
    samples: int = 1
    schedule: Schedule = field(default_factory=Constant)
    weights: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_settings(self, self.weights, reconstructions=self.reconstructions)

    def __call__(self, evidence: Evidence, fraction: float = 1.0) -> Loss:
        """Return the loss, and the ELBO."""
        factor = 1 + self.reconstructions
        weights = dict.fromkeys(evidence.log_likelihood, factor)
        weights |= {name: factor * weight for name, weight in self.weights.items()}
        return ELBO(self.samples, 1.0, self.schedule, weights=weights)(evidence, fraction)


@dataclass(frozen=True)
class MultiBeta:
    r"""Several weights of the KL at once: equal blocks of a latent's dimensions, each its own.

    .. math:: -\log p(x \mid z) + \sum_b \beta_b \sum_{j \in b} KL_j

    A code whose blocks hold what is worth its price, coarse to fine. One weight is the β-VAE.
    ``value`` is the ELBO.

    References:
        Chou and Hathi, "Generated Loss, Augmented Training, and Multiscale VAE", 2019
        (arXiv:1904.10446).

    Args:
        betas: One for each block, in the order of the dimensions.
        samples: Posterior draws for each example.
        schedule: Factor on all of them.

    Raises:
        ValueError: If the dimensions do not divide into the blocks, or the KL does not factorise.
    """

    betas: tuple[float, ...]
    samples: int = 1
    schedule: Schedule = field(default_factory=Constant)

    def __post_init__(self) -> None:
        if not self.betas:
            raise ValueError("MultiBeta: no betas; give one for each block of dimensions")
        check_settings(self, {str(i): beta for i, beta in enumerate(self.betas)}, what="betas")

    def __call__(self, evidence: Evidence, fraction: float = 1.0) -> Loss:
        """Return the loss, and the ELBO."""
        check_evidence(evidence, "elbo", "MultiBeta")
        require_latents(evidence, "MultiBeta")
        costs, divergences = [], {}
        for latent in evidence.latents:
            blocks = self._blocks(latent, evidence)
            divergences[latent.name] = blocks.sum()
            costs.append((blocks * blocks.new_tensor(self.betas)).sum())
        factor = self.schedule(fraction)
        account = take_account(evidence, {}, divergences)
        return closed(account, [times(cost, factor) for cost in costs], evidence, None)

    def _blocks(self, latent: Latent, evidence: Evidence) -> Tensor:
        per_dimension = latent.kl_per_dimension()
        if per_dimension is None:
            raise ValueError(
                f"MultiBeta: the KL of latent {latent.name!r} does not factorise over dimensions; "
                "use posterior and prior with a diagonal covariance"
            )
        size, count = per_dimension.shape[-1], len(self.betas)
        if size % count:
            raise ValueError(
                f"MultiBeta: latent {latent.name!r} has {size} dimensions; they do not divide "
                f"into {count} blocks"
            )
        return _mean_of_dimensions(per_dimension, evidence).unflatten(-1, (count, -1)).sum(-1)


@dataclass(frozen=True)
class VIB:
    r"""The variational information bottleneck: predict a target from a code of bounded rate.

    .. math:: -\mathbb E_q \log p(y \mid z) + \beta\, KL(q(z \mid x) \| r(z))

    The likelihood terms are of the target. ``value`` is the mean log-probability of the target
    under single draws, which bounds no marginal of :math:`x`; :math:`\beta \to 0` leaves the
    cross-entropy.

    References:
        Alemi et al., "Deep Variational Information Bottleneck", ICLR 2017, eq. 17
        (arXiv:1612.00410).

    Args:
        beta: Weight of the rate.
        samples: Posterior draws for each example.
        schedule: Factor on the weight.
        weights: As in `ELBO`.
    """

    beta: float
    samples: int = 1
    schedule: Schedule = field(default_factory=Constant)
    weights: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_settings(self, self.weights, beta=self.beta)

    def __call__(self, evidence: Evidence, fraction: float = 1.0) -> Loss:
        """Return the loss, and the mean log-probability of the target."""
        require_latents(evidence, "VIB")
        elbo = ELBO(self.samples, self.beta, self.schedule, weights=self.weights)(
            evidence, fraction
        )
        value = total(
            [batch_mean(term.detach(), evidence) for term in evidence.log_likelihood.values()]
        )
        return Loss(elbo.loss, value, bound="none", terms=elbo.terms)


@dataclass(frozen=True)
class RateDistortion:
    r"""Nats for the code and a price for the error: an ELBO whose KL is the bit rate.

    .. math:: R + \lambda D, \quad R = \sum_g KL_g, \quad D = -\mathbb E_q \log p(x \mid z)

    ``value`` is the ELBO :math:`-(R + D)`. The terms have the rate in nats and in bits.

    References:
        Ballé et al., "End-to-end Optimized Image Compression", ICLR 2017
        (arXiv:1611.01704); Alemi et al., "Fixing a Broken ELBO", ICML 2018 (arXiv:1711.00464).

    Args:
        distortion_weight: :math:`\lambda`.
        samples: Posterior draws for each example.
    """

    distortion_weight: float
    samples: int = 1

    def __post_init__(self) -> None:
        check_settings(self, distortion_weight=self.distortion_weight)

    def __call__(self, evidence: Evidence, fraction: float = 1.0) -> Loss:
        """Return the loss; the fraction of the training changes nothing."""
        check_evidence(evidence, "elbo", "RateDistortion")
        require_latents(evidence, "RateDistortion")
        weights = dict.fromkeys(evidence.log_likelihood, self.distortion_weight)
        account = take_account(evidence, weights, mean_divergences(evidence))
        rate = total([*account.divergences.values()])
        account.terms["rate_nats"] = rate.detach()
        account.terms["rate_bits"] = rate.detach() / math.log(2)
        account.terms["distortion_nats"] = -account.value - rate.detach()
        return closed(account, [*account.divergences.values()], evidence, 1.0)


@dataclass(frozen=True)
class EnergyMAP:
    r"""The energy of a point estimate: no entropy, no KL, no bound.

    .. math:: E(x) = -\log p(y \mid x) - \log p(x)

    The likelihood terms are the first part; a log-prior, where there is one, is a penalty.

    Args:
        weights: As in `ELBO`.

    Raises:
        ValueError: If the model has latents.
    """

    weights: Mapping[str, float] = field(default_factory=dict)
    samples: int = 1

    def __post_init__(self) -> None:
        check_settings(self, self.weights)

    def __call__(self, evidence: Evidence, fraction: float = 1.0) -> Loss:
        """Return the energy as the loss, and the log-likelihood."""
        check_evidence(evidence, "elbo", "EnergyMAP")
        if evidence.latents:
            names = [latent.name for latent in evidence.latents]
            raise ValueError(
                f"EnergyMAP: the latents {names} have a posterior with an entropy, and this "
                "objective has no KL; use objective 'elbo'"
            )
        return closed(take_account(evidence, self.weights, {}), [], evidence, None, bound="none")


def closed(
    account: Account,
    costs: list[Tensor],
    evidence: Evidence,
    kl_weight: float | None,
    bound: Bound = "lower",
) -> Loss:
    """Return the loss of an objective from its costs.

    Args:
        account: The averages of the batch.
        costs: What is added to the negative weighted log-likelihood, besides the penalties.
        evidence: Of the batch.
        kl_weight: As in `score_surrogate`.
        bound: How the value stands to the log-likelihood.
    """
    costs += account.penalties.values()
    for latent in evidence.latents:
        if latent.score is not None:
            costs.append(score_surrogate(evidence, account.weights, kl_weight))
            break
    loss = total(costs) - account.gain if costs else -account.gain
    bound = bound if evidence.bounds else "none"
    return Loss(loss, account.value, bound=bound, terms=account.terms)


def _mean_of_dimensions(per_dimension: Tensor, evidence: Evidence) -> Tensor:
    """Return the mean over samples and examples of a KL ``(samples, batch, latent)``."""
    weights, seen = evidence.sample_weights, evidence.observed
    if weights is None:
        means = per_dimension.mean(0)
    else:
        means = (weights[..., None] * per_dimension).sum(0)
    return means.mean(0) if seen is None else means[seen].mean(0)
