"""The ELBO and its family: each a function of `Evidence` and nothing else."""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

import torch
from torch import Tensor

from core.variational.divergences import kl
from core.variational.evidence import Evidence, Latent
from core.variational.schedules import check_warmup, linear_warmup


@dataclass(frozen=True, eq=False)
class Loss:
    """What an objective says of a batch: a number to train on, and an honest one to report.

    Args:
        loss: What is differentiated, averaged over the batch.
        value: What is reported: no weights, constants kept, averaged over the batch; no gradient.
        unit: The unit of both.
        bound: ``"lower"`` if ``value`` is, in expectation, at most the log-likelihood of the data;
            ``"none"`` where the model has no latents and so makes no such claim.
        terms: Scalars for the history: ``log_likelihood/<name>``, ``kl/<latent>``,
            ``penalty/<name>``, weights. No gradient.
    """

    loss: Tensor
    value: Tensor
    unit: str = "nats per example"
    bound: Literal["lower", "none"] = "lower"
    terms: Mapping[str, Tensor] = field(default_factory=dict)


class Objective(Protocol):
    """Evidence and the fraction of training done in, `Loss` out."""

    @property
    def samples(self) -> int:
        """How many posterior draws it asks the model for."""
        ...

    def __call__(self, evidence: Evidence, fraction: float = 1.0) -> Loss:
        """Return what to train on and what to report."""
        ...


@dataclass(frozen=True)
class ELBO:
    r"""The evidence lower bound, with what is done to it in training kept apart from what it is.

    .. math:: \log p(x) \ge \mathbb E_q \log p(x \mid z) - KL(q(z \mid x) \| p(z))

    ``value`` is this bound whatever the settings. ``loss`` is, averaged over the batch,

    .. math:: -\sum_n w_n \log p(x_n \mid z) + \beta(t) \sum_g KL_g + \text{penalties}

    where :math:`\beta(t)` rises linearly from 0 over the warm-up, and with free bits
    :math:`KL_g = \sum_j \max(\lambda, \overline{KL}_{gj})` with the batch mean
    :math:`\overline{KL}` of each latent dimension. A group that does not factorise counts as one
    dimension.

    The terms name what was applied: ``beta``, and ``effective_beta``, the weight of the KL over
    that of the likelihood. With several likelihood terms the latter is their mean weighted by
    :math:`|\log p(x_n \mid z)|`, the factor by which the log-likelihood is scaled as a whole.

    References:
        Kingma and Welling, "Auto-Encoding Variational Bayes", ICLR 2014, eq. 3 (arXiv:1312.6114).
        Higgins et al., "beta-VAE", ICLR 2017, eq. 4, for the weight of the KL.
        Kingma et al., "Improving Variational Inference with Inverse Autoregressive Flow", NeurIPS
        2016 (arXiv:1606.04934), for the free bits, there in groups of dimensions.

    Args:
        samples: Posterior draws for each example.
        beta: Weight of the KL after the warm-up.
        warmup: Fraction of the training over which the weight of the KL rises.
        free_bits: KL that costs nothing, in nats per example and latent dimension.
        weights: Weights of likelihood terms by name, in the loss only; they multiply those that
            come with the evidence. Terms not named weigh 1.

    Raises:
        ValueError: If a setting is out of range, or the evidence has no term of a weight's name.
    """

    samples: int = 1
    beta: float = 1.0
    warmup: float = 0.0
    free_bits: float = 0.0
    weights: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check_samples(self)
        check_warmup(self.warmup)
        settings = {"beta": self.beta, "free_bits": self.free_bits}
        settings |= {f"weights[{name!r}]": weight for name, weight in self.weights.items()}
        for name, setting in settings.items():
            if not 0 <= setting < math.inf:
                raise ValueError(f"ELBO: {name} is {setting!r}; it must be finite and at least 0")

    def __call__(self, evidence: Evidence, fraction: float = 1.0) -> Loss:
        """Return the loss at this fraction of the training, and the ELBO."""
        _check_shapes(evidence)
        weights = _weights(evidence, self.weights)
        likelihoods = {name: term.mean() for name, term in evidence.log_likelihood.items()}
        terms = {f"log_likelihood/{name}": term.detach() for name, term in likelihoods.items()}
        value = _total([*terms.values()])
        costs = []
        if evidence.latents:
            beta = self.beta * linear_warmup(fraction, self.warmup)
            for latent in evidence.latents:
                divergence, charged = _divergences(latent, self.free_bits)
                costs.append(_times(charged, beta))
                terms[f"kl/{latent.name}"] = divergence.detach()
                value = value - terms[f"kl/{latent.name}"]
                if self.free_bits:
                    terms[f"kl_with_free_bits/{latent.name}"] = charged.detach()
            terms |= _weights_of_kl(beta, likelihoods, weights)
        terms |= _weighted(likelihoods, weights)
        penalties = {name: penalty.mean() for name, penalty in evidence.penalties.items()}
        terms |= {f"penalty/{name}": penalty.detach() for name, penalty in penalties.items()}
        gain = _total([_times(term, weights.get(name, 1.0)) for name, term in likelihoods.items()])
        costs += penalties.values()
        loss = _total(costs) - gain if costs else -gain
        return Loss(loss, value, bound="lower" if evidence.latents else "none", terms=terms)


@dataclass(frozen=True)
class IWAE:
    r"""The importance-weighted bound, tighter with every sample.

    .. math:: \log \frac1K \sum_{k=1}^K \frac{p(x, z_k)}{q(z_k \mid x)}, \quad z_k \sim q(z \mid x)

    ``value`` is this bound in nats, and ``loss`` its negative. With reparameterised samples the
    gradient of the posterior gets noisier with :math:`K` (Rainforth et al. 2018,
    arXiv:1802.04537).
    The terms ``kl/<latent>`` are plain means of :math:`\log q - \log p`, and
    ``effective_sample_size`` is :math:`1 / \sum_k \tilde w_k^2`, between 1 and :math:`K`.

    References:
        Burda et al., "Importance Weighted Autoencoders", ICLR 2016, eq. 8 (arXiv:1509.00519).

    Args:
        samples: Posterior draws for each example :math:`K`.
        beta: Must be 1: with another weight this is no bound.
        warmup: Must be 0.
        free_bits: Must be 0.
        weights: Must be 1.

    Raises:
        ValueError: If a weight is not 1, or the evidence has no latents, another number of samples
            or weights of its own.
    """

    samples: int
    beta: float = 1.0
    warmup: float = 0.0
    free_bits: float = 0.0
    weights: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check_samples(self)
        neutral = {"beta": 1.0, "warmup": 0.0, "free_bits": 0.0}
        for name, allowed in neutral.items():
            given = getattr(self, name)
            if given != allowed:
                raise ValueError(
                    f"IWAE: {name} is {given!r}; only {allowed} makes a bound, use ELBO"
                )
        self._refuse_weights(self.weights)

    def __call__(self, evidence: Evidence, fraction: float = 1.0) -> Loss:
        """Return the bound; the fraction of the training changes nothing."""
        self._check_evidence(evidence)
        ratios = {latent.name: latent.log_ratio() for latent in evidence.latents}
        log_weights = _total(list(evidence.log_likelihood.values())) - _total(
            list(ratios.values())
        )
        value = (torch.logsumexp(log_weights, 0) - math.log(self.samples)).mean()
        terms = {
            f"log_likelihood/{name}": term.detach().mean()
            for name, term in evidence.log_likelihood.items()
        }
        terms |= {f"kl/{name}": ratio.detach().mean() for name, ratio in ratios.items()}
        terms["effective_sample_size"] = effective_sample_size(log_weights.detach()).mean()
        loss, penalties = _penalised(-value, evidence)
        return Loss(loss, value.detach(), terms=terms | penalties)

    def _check_evidence(self, evidence: Evidence) -> None:
        shape = _check_shapes(evidence)
        if not evidence.latents:
            raise ValueError("IWAE: the evidence has no latents to weight; use ELBO")
        if shape[0] != self.samples:
            raise ValueError(f"IWAE: {shape[0]} samples in the evidence, expected {self.samples}")
        self._refuse_weights(_weights(evidence, {}))

    def _refuse_weights(self, weights: Mapping[str, float]) -> None:
        refused = {name: weight for name, weight in weights.items() if weight != 1}
        if refused:
            raise ValueError(f"IWAE: weights are {refused}; only 1 makes a bound, use ELBO")


def effective_sample_size(log_weights: Tensor) -> Tensor:
    r"""Return how many equal weights would be worth the ones given along the first dimension.

    .. math:: 1 / \sum_k \tilde w_k^2, \quad \tilde w_k = w_k / \sum_i w_i

    Args:
        log_weights: Log importance weights of shape ``(samples, *batch)``, in nats.

    Returns:
        Between 1 and the number of samples, of shape ``batch``.

    Example:
        >>> effective_sample_size(torch.zeros(8))
        tensor(8.)
    """
    return 1 / torch.softmax(log_weights, 0).square().sum(0)


def _check_samples(objective: ELBO | IWAE) -> None:
    if objective.samples < 1:
        name = type(objective).__name__
        raise ValueError(f"{name}: samples is {objective.samples!r}; it must be at least 1")


def _check_shapes(evidence: Evidence) -> torch.Size:
    if not evidence.log_likelihood:
        raise ValueError("evidence: no log-likelihood terms; an objective needs at least one")
    first = next(iter(evidence.log_likelihood.values())).shape
    for term in evidence.log_likelihood.values():
        if term.shape != first or len(first) != 2:
            given = {name: tuple(each.shape) for name, each in evidence.log_likelihood.items()}
            raise ValueError(
                f"evidence: log-likelihood shapes {given}; each must be (samples, batch)"
            )
    for latent in evidence.latents:
        if latent.value.shape[:2] != first:
            raise ValueError(
                f"evidence: latent {latent.name!r} has shape {tuple(latent.value.shape)}; it must "
                f"start with (samples, batch) = {tuple(first)}"
            )
        batch_shape = latent.posterior.batch_shape
        if batch_shape[-1:] != first[1:] or len(batch_shape) > 2:
            # Averaged over anything but examples, its KL would hide a factor 1/N.
            raise ValueError(
                f"evidence: the posterior of latent {latent.name!r} has batch shape "
                f"{tuple(batch_shape)}; it must be (batch,) or (samples, batch); are its "
                "event_dims too few?"
            )
    for name, penalty in evidence.penalties.items():
        if penalty.shape != first[1:]:
            raise ValueError(
                f"evidence: penalty {name!r} has shape {tuple(penalty.shape)}; it must be "
                f"(batch,) = {tuple(first[1:])}"
            )
    return first


def _weights(evidence: Evidence, weights: Mapping[str, float]) -> dict[str, float]:
    """Return the weight of every term, or nothing where there are no weights at all."""
    if not weights and not evidence.weights:
        return {}
    for name in (*weights, *evidence.weights):
        if name not in evidence.log_likelihood:
            there = ", ".join(map(repr, evidence.log_likelihood))
            raise ValueError(f"weights: no likelihood term {name!r}; the evidence has {there}")
    return {
        name: weights.get(name, 1.0) * evidence.weights.get(name, 1.0)
        for name in evidence.log_likelihood
    }


def _divergences(latent: Latent, free_bits: float) -> tuple[Tensor, Tensor]:
    """Return the KL of a group and what of it is charged, averaged over the batch."""
    per_dimension = latent.kl_per_dimension() if free_bits else None
    if per_dimension is None:
        divergence = kl(latent.posterior, latent.prior, latent.value)[0].mean()
        return divergence, divergence.clamp(min=free_bits) if free_bits else divergence
    means = per_dimension.mean((0, 1))
    return means.sum(), means.clamp(min=free_bits).sum()


def _weights_of_kl(
    beta: float, likelihoods: Mapping[str, Tensor], weights: Mapping[str, float]
) -> dict[str, Tensor]:
    """Return the weight of the KL, and the same over the weight of the likelihood."""
    first = next(iter(likelihoods.values())).detach()
    if len(set(weights.values())) <= 1:
        weight = next(iter(weights.values()), 1.0)
        applied = _scalar(first, beta)
        return {"beta": applied, "effective_beta": applied if weight == 1 else applied / weight}
    tiny = torch.finfo(first.dtype).tiny  # all terms 0: the plain mean of the weights
    sizes = {name: term.detach().abs() + tiny for name, term in likelihoods.items()}
    scaled = _total([weights[name] * size for name, size in sizes.items()])
    return {
        "beta": _scalar(first, beta),
        "effective_beta": beta * _total(list(sizes.values())) / scaled,
    }


def _weighted(
    likelihoods: Mapping[str, Tensor], weights: Mapping[str, float]
) -> dict[str, Tensor]:
    """Return the terms whose weight is not 1 as they stand in the loss, with their weights."""
    terms = {}
    for name, weight in weights.items():
        if weight != 1:
            term = likelihoods[name].detach()
            terms[f"weighted_log_likelihood/{name}"] = weight * term
            terms[f"weight/{name}"] = _scalar(term, weight)
    return terms


def _penalised(loss: Tensor, evidence: Evidence) -> tuple[Tensor, dict[str, Tensor]]:
    penalties = {name: penalty.mean() for name, penalty in evidence.penalties.items()}
    for penalty in penalties.values():
        loss = loss + penalty
    return loss, {f"penalty/{name}": penalty.detach() for name, penalty in penalties.items()}


def _total(terms: list[Tensor]) -> Tensor:
    return functools.reduce(operator.add, terms)


def _times(term: Tensor, weight: float) -> Tensor:
    return term if weight == 1 else term * weight


def _scalar(like: Tensor, value: float) -> Tensor:
    return torch.full((), value, dtype=like.dtype, device=like.device)
