"""What every objective shares: the loss it returns, the means of a batch, and the checks."""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol, runtime_checkable

import torch
from torch import Tensor

from core.variational.estimators import Target, learning_signal
from core.variational.evidence import Evidence, Latent

Bound = Literal["lower", "upper", "none"]


@dataclass(frozen=True, eq=False)
class Loss:
    """What an objective says of a batch: a number to train on, and an honest one to report.

    Args:
        loss: What is differentiated, averaged over the batch.
        value: What is reported: no weights, constants kept, averaged over the batch; no gradient.
        unit: The unit of both.
        bound: How ``value`` stands, in expectation, to the log-likelihood of the data: at most it
            (``"lower"``), at least it (``"upper"``), or neither (``"none"``), as where the model
            has no latents.
        terms: Scalars for the history: ``log_likelihood/<name>``, ``kl/<latent>``,
            ``penalty/<name>``, weights. No gradient; what is known without the batch is a number.
    """

    loss: Tensor
    value: Tensor
    unit: str = "nats per example"
    bound: Bound = "lower"
    terms: Mapping[str, Tensor | float] = field(default_factory=dict)


@runtime_checkable
class Objective(Protocol):
    """Evidence and the fraction of training done in, `Loss` out."""

    @property
    def samples(self) -> int:
        """How many posterior draws it asks the model for."""
        ...

    def __call__(self, evidence: Evidence, fraction: float = 1.0) -> Loss:
        """Return what to train on and what to report."""
        ...


@dataclass(eq=False, slots=True)
class Account:
    """A batch's averages, still differentiable, and the terms that every objective reports.

    Args:
        likelihoods: Mean of each likelihood term.
        divergences: Mean KL of each latent group.
        penalties: Mean of each penalty.
        weights: Weight of every likelihood term, or nothing where there are no weights at all.
        value: The ELBO.
        terms: What goes into the history.
    """

    likelihoods: dict[str, Tensor]
    divergences: Mapping[str, Tensor]
    penalties: dict[str, Tensor]
    weights: dict[str, float]
    value: Tensor
    terms: dict[str, Tensor | float]

    @property
    def gain(self) -> Tensor:
        """The weighted log-likelihood."""
        weights = self.weights
        if not weights:
            return total([*self.likelihoods.values()])
        return total([times(term, weights[name]) for name, term in self.likelihoods.items()])


def take_account(
    evidence: Evidence, weights: Mapping[str, float], divergences: Mapping[str, Tensor]
) -> Account:
    """Average a batch.

    Args:
        evidence: Of the batch; its shapes are checked.
        weights: The objective's weights of likelihood terms.
        divergences: Mean KL of each latent group, differentiable.
    """
    applied = weights_of(evidence, weights) if weights or evidence.weights else {}
    likelihoods = {n: batch_mean(term, evidence) for n, term in evidence.log_likelihood.items()}
    penalties: dict[str, Tensor] = {}
    reported = {f"log_likelihood/{name}": term.detach() for name, term in likelihoods.items()}
    value = total([*reported.values()])
    terms: dict[str, Tensor | float] = {**reported}
    for name, divergence in divergences.items():
        terms[f"kl/{name}"] = rate = divergence.detach()
        value = value - rate
    if evidence.penalties:
        penalties = {n: batch_mean(term, evidence) for n, term in evidence.penalties.items()}
        terms |= {f"penalty/{name}": penalty.detach() for name, penalty in penalties.items()}
    if applied:
        terms |= _weighted(likelihoods, applied)
    if evidence.observed is not None:
        terms["skipped_examples"] = (~evidence.observed).sum().to(value)
    return Account(likelihoods, divergences, penalties, applied, value, terms)


def elbo_of(evidence: Evidence) -> Loss:
    """Return the plain ELBO of a batch with its terms, whatever is trained on; no gradient."""
    check_evidence(evidence, None, "ELBO")
    account = take_account(evidence, {}, mean_divergences(evidence))
    bound = "lower" if evidence.latents and evidence.bounds else "none"
    return Loss(-account.value, account.value, bound=bound, terms=account.terms)


def elbo_value(evidence: Evidence) -> Tensor:
    """Return the ELBO of a batch, in nats per example; no gradient."""
    return elbo_of(evidence).value


def mean_divergences(evidence: Evidence) -> dict[str, Tensor]:
    """Return the mean KL of each latent group, in nats per example."""
    return {latent.name: batch_mean(latent.divergence(), evidence) for latent in evidence.latents}


def batch_mean(term: Tensor, evidence: Evidence) -> Tensor:
    """Return the mean over samples and examples, as the evidence weighs them.

    Args:
        term: Of shape ``(samples, batch)`` or ``(batch,)``.
        evidence: Whose samples may be weighted and whose examples may be unobserved.
    """
    if evidence.plain:
        return term.mean()
    weights, seen = evidence.sample_weights, evidence.observed
    if weights is not None and term.dim() > 1:
        term = (weights * term).sum(0)
    if seen is None:
        return term.mean()
    per_example = term.mean(0) if term.dim() > 1 else term
    return torch.where(seen, per_example, per_example.new_zeros(())).sum() / seen.sum()


def score_surrogate(
    evidence: Evidence, weights: Mapping[str, float], kl_weight: float | None
) -> Tensor:
    r"""Return a term of value 0 whose gradient is that of the score-function estimators.

    .. math:: \mathbb E\, (\ell_k - b_k) \nabla_\phi \log q_\phi(z_k), \quad
        \ell = -\sum_n w_n \log p(x_n \mid z) + \beta \sum_g KL_g

    Args:
        evidence: With a latent or more that came with a score.
        weights: Of the likelihood terms.
        kl_weight: :math:`\beta`; None where the loss is no linear function of the KL.

    Raises:
        ValueError: If the loss has a part that cannot be learned from in this way.
    """
    scored = [latent for latent in evidence.latents if latent.score is not None]
    if evidence.penalties:
        raise ValueError(
            f"estimator {scored[0].estimator.kind!r}: the penalties {list(evidence.penalties)} "
            "come averaged over samples and give the score nothing to learn from; use estimator "
            "'reparameterised'"
        )
    costs = [-weights.get(n, 1.0) * term for n, term in evidence.log_likelihood.items()]
    for latent in evidence.latents:
        divergence = latent.divergence()
        if divergence.dim() > 1:
            if kl_weight is None:
                raise ValueError(
                    f"estimator {scored[0].estimator.kind!r}: the KL of latent {latent.name!r} "
                    "has no closed form and the objective does not weigh it linearly; use "
                    "objective 'elbo' without free_bits"
                )
            costs.append(kl_weight * divergence)
    signal = total(costs).detach()
    parts = []
    for latent in scored:
        assert latent.score is not None
        advantage = learning_signal(signal, latent.estimator.baseline)
        parts.append(batch_mean(advantage * (latent.score - latent.score.detach()), evidence))
    return total(parts)


def check_evidence(evidence: Evidence, target: Target | None, who: str) -> torch.Size:
    """Return (samples, batch), or say what is wrong with the evidence for this objective.

    Raises:
        ValueError: If a shape is wrong, or a gradient would be biased.
    """
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
        _check_latent(latent, first)
        estimator = latent.estimator
        if target and target not in estimator.unbiased_for and estimator.unbiased_for:
            raise ValueError(
                f"{who}: estimator {estimator.kind!r} of latent {latent.name!r} is biased here; "
                "it is unbiased for means over samples only; use 'dreg' or 'reparameterised'"
            )
    for name, penalty in evidence.penalties.items():
        if penalty.shape != first[1:]:
            raise ValueError(
                f"evidence: penalty {name!r} has shape {tuple(penalty.shape)}; it must be "
                f"(batch,) = {tuple(first[1:])}"
            )
    if evidence.observed is not None and not bool(evidence.observed.any()):
        raise ValueError(
            f"evidence: none of the {first[1]} examples of the batch has anything observed; give "
            "larger batches, or leave such examples out"
        )
    return first


def _check_latent(latent: Latent, first: torch.Size) -> None:
    masks = getattr(latent.posterior, "mask", None), getattr(latent.prior, "mask", None)
    if (masks[0] is None) != (masks[1] is None):
        raise ValueError(
            f"evidence: of latent {latent.name!r} only one of posterior and prior is masked, and "
            "the other would count what is not there; use masked_latent, or masked_event on both"
        )
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


def check_settings(
    who: object,
    by_name: Mapping[str, float] | None = None,
    what: str = "weights",
    **settings: float,
) -> None:
    """Say so if a setting of an objective is not finite or below 0.

    Args:
        who: The objective.
        by_name: Numbers by the name of a term or latent.
        what: What these are.
        settings: Its other numbers.

    Raises:
        ValueError: If one is not.
    """
    name = type(who).__name__
    samples = getattr(who, "samples", 1)
    if samples < 1:
        raise ValueError(f"{name}: samples is {samples!r}; it must be at least 1")
    named = {f"{what}[{key!r}]": setting for key, setting in (by_name or {}).items()}
    for key, setting in (settings | named).items():
        if not 0 <= setting < math.inf:
            raise ValueError(f"{name}: {key} is {setting!r}; it must be finite and at least 0")


def require_latents(evidence: Evidence, who: str) -> None:
    """Say so if a model has no latents.

    Raises:
        ValueError: If it has none.
    """
    if not evidence.latents:
        raise ValueError(f"{who}: the model has no latents; use objective 'elbo' or 'energy'")


def weights_of(evidence: Evidence, weights: Mapping[str, float]) -> dict[str, float]:
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


def weights_of_kl(
    beta: float, likelihoods: Mapping[str, Tensor], weights: Mapping[str, float]
) -> dict[str, Tensor | float]:
    """Return the weight of the KL, and the same over the weight of the likelihood."""
    if not weights or len(set(weights.values())) == 1:
        weight = next(iter(weights.values()), 1.0)
        return {"beta": beta, "effective_beta": beta / weight if weight else math.inf}
    first = next(iter(likelihoods.values()))
    tiny = torch.finfo(first.dtype).tiny  # all terms 0: the plain mean of the weights
    sizes = {name: term.detach().abs() + tiny for name, term in likelihoods.items()}
    scaled = total([weights[name] * size for name, size in sizes.items()])
    return {
        "beta": beta,
        "effective_beta": beta * total(list(sizes.values())) / scaled,
    }


def _weighted(
    likelihoods: Mapping[str, Tensor], weights: Mapping[str, float]
) -> dict[str, Tensor | float]:
    """Return the terms whose weight is not 1 as they stand in the loss, with their weights."""
    terms: dict[str, Tensor | float] = {}
    for name, weight in weights.items():
        if weight != 1:
            term = likelihoods[name].detach()
            terms[f"weighted_log_likelihood/{name}"] = weight * term
            terms[f"weight/{name}"] = weight
    return terms


def total(terms: list[Tensor]) -> Tensor:
    """Return the sum of a list that is not empty."""
    return functools.reduce(operator.add, terms)


def times(term: Tensor, weight: float) -> Tensor:
    """Return the product, without a kernel for a weight of 1."""
    return term if weight == 1 else term * weight
