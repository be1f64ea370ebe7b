"""Bounds from importance weights: IWAE, Rényi, and χ² from above."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from core.variational.bayesian import PerExample
from core.variational.estimators import learning_signal
from core.variational.evidence import Evidence
from core.variational.objectives.base import (
    Bound,
    Loss,
    batch_mean,
    check_evidence,
    check_settings,
    times,
    total,
    weights_of,
)
from core.variational.schedules import Constant, Schedule


@dataclass(frozen=True)
class IWAE:
    r"""The importance-weighted bound, tighter with every sample.

    .. math:: \log \frac1K \sum_{k=1}^K \frac{p(x, z_k)}{q(z_k \mid x)}, \quad z_k \sim q(z \mid x)

    ``value`` is this bound in nats, and ``loss`` its negative; under a schedule, whose factor is
    :math:`\beta`, it is the negative of the same of :math:`\log p(x \mid z) - \beta (\log q -
    \log p)`. With reparameterised samples the
    gradient of the posterior gets noisier with :math:`K` (Rainforth et al. 2018,
    arXiv:1802.04537); estimator ``dreg`` mends it. An enumerated latent makes it exact.
    Weights that come with the evidence (a class balance) enter the loss and never the value.
    The terms ``kl/<latent>`` are plain means of :math:`\log q - \log p`, and
    ``effective_sample_size`` is :math:`1 / \sum_k \tilde w_k^2`, between 1 and :math:`K`.

    References:
        Burda et al., "Importance Weighted Autoencoders", ICLR 2016, eq. 8 (arXiv:1509.00519).

    Args:
        samples: Posterior draws for each example :math:`K`.
        schedule: Factor on the weight of the KL by the fraction of training done.

    Raises:
        ValueError: If the evidence has no latents or another number of samples.
    """

    samples: int
    schedule: Schedule = field(default_factory=Constant)

    def __post_init__(self) -> None:
        check_settings(self)

    def __call__(self, evidence: Evidence, fraction: float = 1.0) -> Loss:
        """Return the loss at this fraction of the training, and the bound."""
        check_multi_sample(evidence, self)
        beta = self.schedule(fraction)
        log_weights, honest, terms = _log_weights(evidence, beta)
        value = batch_mean(_log_mean_exp(honest), evidence)
        terms["beta"] = beta
        if any(latent.estimator.doubly for latent in evidence.latents):
            loss = _doubly_reparameterised(log_weights, evidence, beta)
        else:
            loss = _with_scores(log_weights, _log_mean_exp, evidence)
        return _penalised(loss, value.detach(), evidence, terms, "lower")


@dataclass(frozen=True)
class Renyi:
    r"""The variational Rényi bound, from the ELBO at :math:`\alpha = 1` to IWAE at 0.

    .. math:: \frac{1}{1 - \alpha} \log \frac1K \sum_k w_k^{1 - \alpha}

    Non-increasing in :math:`\alpha`. For :math:`\alpha \ge 0` it bounds :math:`\log p(x)` from
    below with any number of samples; for :math:`\alpha < 0` it bounds nothing, since it lies above
    only in the limit of many samples.

    References:
        Li and Turner, "Rényi Divergence Variational Inference", NeurIPS 2016, theorem 2
        (arXiv:1602.02311). Liévin et al., "Variational Open-Domain Question Answering", ICML 2023
        (arXiv:2210.06345), for its use with self-normalised weights.

    Args:
        alpha: The order :math:`\alpha`.
        samples: Posterior draws for each example :math:`K`.

    Raises:
        ValueError: As in `IWAE`.
    """

    alpha: float
    samples: int

    def __post_init__(self) -> None:
        check_settings(self)
        if not math.isfinite(self.alpha):
            raise ValueError(f"Renyi: alpha is {self.alpha!r}; it must be finite")

    def __call__(self, evidence: Evidence, fraction: float = 1.0) -> Loss:
        """Return the bound; the fraction of the training changes nothing."""
        check_multi_sample(evidence, self)
        _refuse_doubly(evidence, self)
        log_weights, honest, terms = _log_weights(evidence)
        value = batch_mean(self.of(honest), evidence)
        loss = _with_scores(log_weights, self.of, evidence)
        bound = "lower" if self.alpha >= 0 else "none"
        return _penalised(loss, value.detach(), evidence, terms, bound)

    def of(self, log_weights: Tensor) -> Tensor:
        """Return the bound of log importance weights ``(samples, *batch)``."""
        if self.alpha == 1:
            return log_weights.mean(0)
        power = 1 - self.alpha
        return _log_mean_exp(power * log_weights) / power


@dataclass(frozen=True)
class CUBO:
    r"""The χ upper bound, for fitting a posterior that covers.

    .. math:: \frac1n \log \frac1K \sum_k w_k^n \;\to\; \frac1n \log \mathbb E_q w^n \ge \log p(x)

    ``value`` bounds from above in the limit of many samples; with few it is too low, as any log of
    a mean. It is minimised: in the parameters of the posterior that closes the gap, in those of
    the model it would lower :math:`\log p(x)`, so hold them fixed, or use `VIS`.

    References:
        Dieng et al., "Variational Inference via χ Upper Bound Minimization", NeurIPS 2017
        (arXiv:1611.00328).

    Args:
        samples: Posterior draws for each example :math:`K`.
        order: :math:`n \ge 1`.

    Raises:
        ValueError: As in `IWAE`.
    """

    samples: int
    order: float = 2.0

    def __post_init__(self) -> None:
        check_settings(self)
        if not 1 <= self.order < math.inf:
            raise ValueError(f"CUBO: order is {self.order!r}; it must be finite and at least 1")

    def __call__(self, evidence: Evidence, fraction: float = 1.0) -> Loss:
        """Return the bound as loss and value; the fraction of the training changes nothing."""
        check_multi_sample(evidence, self)
        _refuse_doubly(evidence, self)
        log_weights, honest, terms = _log_weights(evidence)
        value = batch_mean(self.of(honest), evidence)
        loss = -_with_scores(log_weights, self.of, evidence)
        return _penalised(loss, value.detach(), evidence, terms, "upper")

    def of(self, log_weights: Tensor) -> Tensor:
        """Return the bound of log importance weights ``(samples, *batch)``."""
        return _log_mean_exp(self.order * log_weights) / self.order


@dataclass(frozen=True)
class VIS:
    r"""Variational importance sampling: the model by IWAE, its proposal by the forward χ².

    .. math:: \nabla_\theta: \sum_k \tilde w_k \nabla \log p_\theta(x, z_k), \qquad
        \nabla_\phi: \sum_k \tilde v_k \nabla \log q_\phi(z_k \mid x), \quad
        \tilde v_k \propto w_k^n

    The second lowers :math:`\chi^n(p(z \mid x) \| q)`, hence the variance of the estimate of
    :math:`\log p(x)`, and covers all modes of the posterior. Both are self-normalised: consistent,
    with a bias that falls as :math:`1/K`. Draws must carry no gradient: estimator ``score``.
    ``value`` is the importance-weighted bound; the terms have ``cubo`` beside it.

    References:
        Li et al., "Forward χ² Divergence Based Variational Importance Sampling", ICLR 2024
        (arXiv:2311.02516).

    Args:
        samples: Posterior draws for each example :math:`K`.
        order: :math:`n`, 2 in the paper.

    Raises:
        ValueError: As in `IWAE`, or if a draw carries a gradient.
    """

    samples: int
    order: float = 2.0

    def __post_init__(self) -> None:
        check_settings(self, order=self.order)

    def __call__(self, evidence: Evidence, fraction: float = 1.0) -> Loss:
        """Return the surrogate loss and the importance-weighted bound."""
        check_multi_sample(evidence, self)
        for latent in evidence.latents:
            if latent.score is None or latent.value.requires_grad:
                raise ValueError(
                    f"VIS: latent {latent.name!r} is drawn by estimator "
                    f"{latent.estimator.kind!r}; its draws must carry no gradient: set "
                    "estimator.kind to 'score'"
                )
        log_weights, honest, terms = _log_weights(evidence)
        held = log_weights.detach()
        proposal = total([latent.posterior.log_prob(latent.value) for latent in evidence.latents])
        joint = log_weights + proposal  # the log q inside the weights cancels
        gain = torch.softmax(held, 0) * joint + torch.softmax(self.order * held, 0) * proposal
        value = batch_mean(_log_mean_exp(honest), evidence)
        terms["cubo"] = batch_mean(CUBO(self.samples, max(self.order, 1)).of(honest), evidence)
        return _penalised(batch_mean(-gain.sum(0), evidence), value, evidence, terms, "lower")


def effective_sample_size(log_weights: Tensor) -> Tensor:
    r"""Return how many equal weights would be worth the ones given along the first dimension.

    .. math:: 1 / \sum_k \tilde w_k^2, \quad \tilde w_k = w_k / \sum_i w_i

    References:
        Kong, "A Note on Importance Sampling Using Standardized Weights", University of Chicago,
        technical report 348, 1992.

    Args:
        log_weights: Log importance weights of shape ``(samples, *batch)``, in nats.

    Returns:
        Between 1 and the number of samples, of shape ``batch``.

    Example:
        >>> effective_sample_size(torch.zeros(8))
        tensor(8.)
    """
    return 1 / torch.softmax(log_weights, 0).square().sum(0)


def check_multi_sample(evidence: Evidence, who: IWAE | Renyi | CUBO | VIS) -> None:
    """Say so if evidence cannot be importance-weighted.

    Raises:
        ValueError: If it has no latents, or other samples than asked for.
    """
    name = type(who).__name__
    shape = check_evidence(evidence, "multi-sample", name)
    if not evidence.latents:
        raise ValueError(f"{name}: the evidence has no latents to weight; use ELBO")
    shared = [
        latent.name for latent in evidence.latents if isinstance(latent.posterior, PerExample)
    ]
    if shared:
        raise ValueError(
            f"{name}: latents {shared} belong to all examples, and their likelihood is an "
            "expectation already; use ELBO"
        )
    if evidence.sample_weights is None and shape[0] != who.samples:
        raise ValueError(f"{name}: {shape[0]} samples in the evidence, expected {who.samples}")
    kinds = [latent.estimator for latent in evidence.latents]
    unfit = [estimator.kind for estimator in kinds if not estimator.unbiased_for]
    if unfit:
        raise ValueError(f"{name}: the points of {unfit[0]!r} are no importance samples; use ELBO")


def _log_weights(
    evidence: Evidence, beta: float = 1.0
) -> tuple[Tensor, Tensor, dict[str, Tensor | float]]:
    """Return the log importance weights to train on, the honest ones, and what is reported.

    They differ where the evidence weighs its likelihood terms or ``beta`` its KL. The honest ones
    have no gradient.
    """
    ratios = {latent.name: latent.log_ratio() for latent in evidence.latents}
    likelihoods, applied = evidence.log_likelihood, weights_of(evidence, {})
    ratio = total([*ratios.values()])
    weighted = [times(term, applied.get(name, 1.0)) for name, term in likelihoods.items()]
    log_weights = total(weighted) - times(ratio, beta)
    honest = log_weights.detach()
    if beta != 1 or any(weight != 1 for weight in applied.values()):
        honest = (total([*likelihoods.values()]) - ratio).detach()
    terms: dict[str, Tensor | float] = {
        f"log_likelihood/{name}": batch_mean(term.detach(), evidence)
        for name, term in evidence.log_likelihood.items()
    }
    terms |= {f"kl/{name}": batch_mean(ratio.detach(), evidence) for name, ratio in ratios.items()}
    terms |= {f"weight/{n}": w for n, w in applied.items() if w != 1}
    weights = evidence.sample_weights
    if weights is not None:
        share = weights.log() + math.log(len(weights))
        log_weights, honest = log_weights + share, honest + share.detach()
    terms["effective_sample_size"] = batch_mean(effective_sample_size(honest), evidence)
    return log_weights, honest, terms


def _log_mean_exp(log_weights: Tensor) -> Tensor:
    return torch.logsumexp(log_weights, 0) - math.log(len(log_weights))


def _doubly_reparameterised(log_weights: Tensor, evidence: Evidence, beta: float) -> Tensor:
    """Return a loss whose gradient is DReG's; the densities hold their parameters already.

    The score that is reparameterised again comes with the factor beta, hence a path weight of
    w (1 - beta + beta w), of which the loss has the first w.
    """
    normalised = torch.softmax(log_weights.detach(), 0)
    again = 1 - beta + beta * normalised
    if evidence.penalties:
        raise ValueError(
            f"estimator 'dreg': the gradient of the penalties {list(evidence.penalties)} would "
            "be weighted with that of the bound; use estimator 'reparameterised'"
        )
    for latent in evidence.latents:
        if len(latent.posterior.batch_shape) > 1:
            raise ValueError(
                f"estimator 'dreg': the posterior of latent {latent.name!r} depends on a sampled "
                "parent, and its score would have to be kept; use estimator 'reparameterised'"
            )
        if latent.estimator.doubly and latent.value.requires_grad:
            shape = (*normalised.shape, *[1] * (latent.value.dim() - 2))
            latent.value.register_hook(functools.partial(torch.mul, again.view(shape)))
    return batch_mean(-(normalised * log_weights).sum(0), evidence)


def _with_scores(
    log_weights: Tensor, bound: Callable[[Tensor], Tensor], evidence: Evidence
) -> Tensor:
    """Return the negative bound, with the scores of latents drawn without a gradient.

    The learning signal is the bound of all samples; the leave-one-out baseline of a sample is the
    bound with its log weight replaced by the mean of the others (VIMCO).
    """
    values = bound(log_weights)
    loss = batch_mean(-values, evidence)
    for latent in evidence.latents:
        if latent.score is not None:
            signal = values.detach().expand_as(log_weights)
            if latent.estimator.baseline == "leave-one-out":
                signal = signal - _leave_one_out(log_weights.detach(), bound)
            else:
                signal = learning_signal(signal, latent.estimator.baseline)
            score = (signal * (latent.score - latent.score.detach())).sum(0)
            loss = loss - batch_mean(score, evidence)
    return loss


def _leave_one_out(log_weights: Tensor, bound: Callable[[Tensor], Tensor]) -> Tensor:
    """Return the bound of each set in which one log weight is the mean of the others."""
    count = len(log_weights)
    others = (log_weights.sum(0) - log_weights) / (count - 1)
    own = torch.eye(count, dtype=torch.bool, device=log_weights.device)[..., None]
    # Sample, set, example: set k has its own weight replaced.
    return bound(torch.where(own, others[None], log_weights[:, None]))


def _refuse_doubly(evidence: Evidence, who: Renyi | CUBO) -> None:
    if any(latent.estimator.doubly for latent in evidence.latents):
        raise ValueError(
            f"{type(who).__name__}: estimator 'dreg' is that of the IWAE bound; use "
            "'reparameterised'"
        )


def _penalised(
    loss: Tensor, value: Tensor, evidence: Evidence, terms: dict[str, Tensor | float], bound: Bound
) -> Loss:
    for name, penalty in evidence.penalties.items():
        mean = batch_mean(penalty, evidence)
        loss, terms[f"penalty/{name}"] = loss + mean, mean.detach()
    return Loss(loss, value, bound=bound if evidence.bounds else "none", terms=terms)
