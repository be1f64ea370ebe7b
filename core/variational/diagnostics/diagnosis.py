"""Everything that can be said of a trained model's latents, in one record for the report."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from core.contract import Model
from core.variational.diagnostics.activity import LatentUse, latent_use
from core.variational.diagnostics.aggregate import Aggregated, aggregated_of
from core.variational.diagnostics.collapse import CollapsePrediction, predicted_collapse
from core.variational.diagnostics.estimate import (
    NORMAL_QUANTILE,
    Estimate,
    Unavailable,
    mean_estimate,
    share_estimate,
)
from core.variational.diagnostics.generated import GeneratedLoss, generated_loss
from core.variational.diagnostics.gradients import GradientNoise, gradient_noise
from core.variational.diagnostics.information import Information, information_of
from core.variational.diagnostics.likelihood import (
    BoundOfSamples,
    bound_against_samples,
    importance_weighted,
    log_importance_weights,
)
from core.variational.diagnostics.looking import looking_at, seed_for
from core.variational.diagnostics.pareto import FEWEST_IN_TAIL, TOO_HEAVY, pareto_k
from core.variational.diagnostics.rate_distortion import RateDistortion, rate_distortion
from core.variational.diagnostics.rows import first_batches, latent_rows, seen
from core.variational.evidence import Evidence
from core.variational.objectives import ELBO

K_HAT_EDGES = (-0.5, -0.25, 0.0, 0.25, 0.5, 0.7, 1.0, 1.5)
NO_LATENTS = "the model has no latents"


@dataclass(frozen=True)
class Histogram:
    """Counts between edges.

    Args:
        edges: In increasing order, in the unit of what is counted.
        counts: How many lie between an edge and the next.
        below: How many lie under the first edge.
        above: How many lie over the last.
        undefined: How many are not a number.
    """

    edges: list[float]
    counts: list[int]
    below: int
    above: int
    undefined: int


@dataclass(frozen=True)
class Importance:
    """The importance-weighted likelihood, and whether its weights can be trusted.

    Args:
        log_likelihood: Averaged over the examples, in nats per example; the interval is over
            examples.
        standard_error: Of the sampling alone, in nats.
        effective_sample_size: Averaged over the examples.
        samples: Draws for each example.
        heavy_share: Share of examples with a k-hat above 0.7.
        k_hat: Their histogram.
        curve: The bound against the number of samples.
    """

    log_likelihood: Estimate | Unavailable
    standard_error: float
    effective_sample_size: float
    samples: int
    heavy_share: Estimate | Unavailable
    k_hat: Histogram | Unavailable
    curve: tuple[BoundOfSamples, ...]


@dataclass(frozen=True)
class LatentDiagnosis:
    """One latent group.

    Args:
        dimensions: How many it has.
        active_units: Dimensions whose posterior mean varies by more than the threshold.
        threshold: That variance, in squared units of the latent.
        variance_of_mean: The variances, in the order of the dimensions.
        kl_per_dimension: Mean KL of each in nats per example, largest first.
        information: Mutual information with the data, and the KL of the aggregated posterior.
        aggregated: The aggregated posterior beside the prior.
    """

    dimensions: int
    active_units: Estimate | Unavailable
    threshold: float
    variance_of_mean: list[float]
    kl_per_dimension: list[float] | Unavailable
    information: Information | Unavailable
    aggregated: Aggregated | Unavailable


@dataclass(frozen=True)
class Diagnosis:
    """What a trained model's latents are worth.

    Args:
        examples: How many examples were looked at.
        seed: Seed of all of it.
        rate_distortion: The two terms of the negative ELBO.
        importance: Importance-weighted likelihood, its k-hat and its curve.
        latents: Group by group.
        collapse: Predicted active units, for a Normal likelihood.
        gradients: Signal and noise of the gradient by group of parameters.
        generated: Loss of the model's own samples beside that of the data.
    """

    examples: int
    seed: int
    rate_distortion: RateDistortion
    importance: Importance | Unavailable
    latents: Mapping[str, LatentDiagnosis]
    collapse: CollapsePrediction | Unavailable
    gradients: Mapping[str, GradientNoise] | Unavailable
    generated: GeneratedLoss | Unavailable

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON has it: numbers that are finite, None, text, lists and mappings.

        What is unavailable has ``"value": None`` and a ``"reason"``.
        """
        return _plain(self)


def diagnose(
    model: Model,
    batches: Iterable[Any],
    *,
    seed: int,
    samples: int = 256,
    chunk: int = 16,
    examples: int = 200,
    rows: int = 500,
    draws: int = 20,
    threshold: float = 0.01,
    beta: float = 1.0,
    dimensions: int | None = None,
    loss: Callable[[Evidence], Tensor] | None = None,
    loss_samples: int = 1,
    observed: Callable[[Any], Tensor] | None = None,
) -> Diagnosis:
    """Return everything that can be said of a trained model's latents.

    What cannot be computed for this model is `Unavailable`, with its reason. Each part has random
    numbers of its own, so that another part more or less changes none.

    Args:
        model: Any model.
        batches: Held-out data as its ``evidence`` takes them, on its device.
        seed: Seed of all draws and choices.
        samples: Importance samples for each example.
        chunk: Importance samples at a time; bounds the memory.
        examples: Examples at most, but for the rest of a batch; batches are chosen at random.
        rows: Latent rows for information and aggregated posterior at most.
        draws: Gradients.
        threshold: Variance of the posterior mean above which a unit is active.
        beta: Weight of the KL in training.
        dimensions: Data dimensions of an example, for bits per dimension.
        loss: What the gradient noise is that of; the negative ELBO if not given.
        loss_samples: Posterior draws that it asks for.
        observed: The data of a batch, for the collapse prediction.

    Raises:
        ValueError: If there are no batches.
    """
    chosen = first_batches(batches, model, examples, seed)
    if not chosen:
        raise ValueError("diagnose: no batches; there must be at least one")
    split = rate_distortion(
        model, chosen, dimensions=dimensions, seed=seed_for(seed, "rate and distortion")
    )
    latents = _latents(model, chosen, rows, threshold, seed)
    made = generated_loss(model, chosen, examples, seed=seed_for(seed, "generated loss"))
    known = split.distortion.n if isinstance(split.distortion, Estimate) else 0
    if not latents:
        none = Unavailable(NO_LATENTS)
        return Diagnosis(known, seed, split, none, latents, none, none, made)
    return Diagnosis(
        examples=known,
        seed=seed,
        rate_distortion=split,
        importance=_importance(model, chosen, samples, chunk, seed_for(seed, "importance")),
        latents=latents,
        collapse=predicted_collapse(
            model, chosen, beta, observed, seed=seed_for(seed, "collapse")
        ),
        gradients=gradient_noise(
            model, chosen[0], loss or _elbo, loss_samples, draws, seed_for(seed, "gradients")
        ),
        generated=made,
    )


def k_hat_histogram(k: Tensor, edges: Sequence[float] = K_HAT_EDGES) -> Histogram:
    """Return the counts of k-hats; what is constant lies below, undefined ones are counted apart.

    Example:
        >>> k_hat_histogram(torch.tensor([-torch.inf, 0.1, 0.8])).below
        1
    """
    known = k[~k.isnan()].double()
    bounds = list(itertools.pairwise(edges))
    return Histogram(
        list(edges),
        [int(((known >= low) & (known < high)).sum()) for low, high in bounds],
        int((known < edges[0]).sum()),
        int((known >= edges[-1]).sum()),
        len(k) - len(known),
    )


def _latents(
    model: Model, batches: Sequence[Any], rows: int, threshold: float, seed: int
) -> dict[str, LatentDiagnosis]:
    use = latent_use(model, batches, threshold, seed_for(seed, "latent use"))
    groups = latent_rows(model, batches, rows, seed_for(seed, "rows")) if use else {}
    with looking_at(model, seed):
        return {
            name: LatentDiagnosis(
                dimensions=len(each.variance),
                active_units=_active_units(each, threshold),
                threshold=threshold,
                variance_of_mean=each.variance.tolist(),
                kl_per_dimension=_sorted_kl(each),
                information=information_of(groups[name]),
                aggregated=aggregated_of(groups[name], seed),
            )
            for name, each in use.items()
        }


def _importance(
    model: Model, batches: Sequence[Any], samples: int, chunk: int, seed: int
) -> Importance:
    parts = []
    for batch in batches:
        log_weights = log_importance_weights(model, batch, samples, chunk, seed).cpu()
        with looking_at(model, seed):
            parts.append(seen(model.evidence(batch), log_weights.T))
    log_weights = torch.cat(parts).T
    estimate = importance_weighted(log_weights)
    enough = len(log_weights) >= 5 * FEWEST_IN_TAIL
    k = pareto_k(log_weights) if enough else torch.zeros(0)
    short = Unavailable(f"{len(log_weights)} samples; at least {5 * FEWEST_IN_TAIL} are needed")
    known = int((~k.isnan()).sum())
    undefined = Unavailable("k-hat is undefined for every example: its weights are tied or broken")
    heavy = share_estimate(int((k > TOO_HEAVY).sum()), known) if known else undefined
    return Importance(
        log_likelihood=mean_estimate(estimate.log_likelihood),
        standard_error=float(estimate.standard_error.square().sum().sqrt() / log_weights.shape[1]),
        effective_sample_size=float(estimate.effective_sample_size.mean()),
        samples=len(log_weights),
        heavy_share=heavy if enough else short,
        k_hat=k_hat_histogram(k) if enough else short,
        curve=bound_against_samples(log_weights),
    )


def _active_units(use: LatentUse, threshold: float) -> Estimate | Unavailable:
    """The count, with the counts at both ends of the variances' intervals for Normal data."""
    if not bool(torch.isfinite(use.variance).all()):
        return Unavailable("the mean of the posterior is not defined")
    interval = None
    if use.rows > 1:
        relative = NORMAL_QUANTILE * math.sqrt(2 / (use.rows - 1))
        ends = (max(0.0, 1 - relative), 1 + relative)
        low, high = (float((use.variance * end > threshold).sum()) for end in ends)
        interval = (low, high)
    return Estimate(float(use.active_units), interval, use.rows)


def _sorted_kl(use: LatentUse) -> list[float] | Unavailable:
    if use.kl is None:
        return Unavailable("the KL of this posterior and prior does not split by dimension")
    return use.kl.sort(descending=True).values.tolist()


def _elbo(evidence: Evidence) -> Tensor:
    return ELBO()(evidence).loss


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = dataclasses.fields(value)
        return {field.name: _plain(getattr(value, field.name)) for field in fields}
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value
