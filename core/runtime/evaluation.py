"""Everything that is measured on the test split of a trained model, as in ``metrics.json``."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from core.contract import Domain, Model, Split
from core.runtime.config import Settings
from core.runtime.engine import build_objective
from core.runtime.order import derive
from core.variational import diagnostics
from core.variational.objectives import elbo_of

LATENTS_AT_A_TIME = 2**24  # 64 MB in single precision, of importance samples
DRAWS_AT_A_TIME = 16
FEWEST_SAMPLES = 2
GRADIENTS_KEPT = 2**25  # elements of gradients, 128 MB
MOST_GRADIENTS, FEWEST_GRADIENTS = 20, 3
NO_WEIGHT = 1e-300  # of a KL that costs nothing: the theory of collapse takes its logarithm


def evaluate(
    domain: Domain[Any, Any, Any], config: Settings, data: Path, model: Any
) -> dict[str, Any]:
    """Return the domain's metrics, the evidence and the diagnosis on the test split."""
    with diagnostics.looking_at(model, derive(config.seed, "evaluation")):
        metrics = domain.metrics(config, data, model)
    test = every_batch(domain, config, data, "test")
    weights = weights_of(config, model, domain.batches(config, data, "train").batch(0, 0))
    evidence = evidence_of(config, model, test) | weights
    return {
        "metrics": {name: dataclasses.asdict(metric) for name, metric in metrics.items()},
        "evidence": evidence,
        "examples": evidence.pop("examples"),
        "diagnosis": diagnosis_of(config, model, test, weights).to_dict(),
    }


def diagnose(
    domain: Domain[Any, Any, Any],
    config: Settings,
    data: Path,
    model: Any,
    split: Split = "test",
    samples: int | None = None,
) -> dict[str, Any]:
    """Return the diagnosis alone; on the test split the same numbers as those of `evaluate`.

    Args:
        domain: The domain.
        config: The settings of the run.
        data: Folder of the prepared data.
        model: The trained model.
        split: What to look at.
        samples: Importance samples for each example; those of the settings if not given.
    """
    weights = weights_of(config, model, domain.batches(config, data, "train").batch(0, 0))
    batches = every_batch(domain, config, data, split)
    return diagnosis_of(config, model, batches, weights, samples).to_dict()


def every_batch(
    domain: Domain[Any, Any, Any], config: Settings, data: Path, split: Split
) -> list[Any]:
    """All batches of a split."""
    batches = domain.batches(config, data, split)
    return [batches.batch(0, index) for index in range(len(batches))]


def evidence_of(config: Settings, model: Model, batches: Sequence[Any]) -> dict[str, Any]:
    """The ELBO and its terms, averaged over the examples, in nats per example.

    The ELBO is the unweighted one, whatever was trained on.
    """
    options, samples = config.objective, build_objective(config).samples
    losses, sizes, closed = [], [], {}
    with diagnostics.looking_at(model, derive(config.seed, "evidence")):
        for batch in batches:
            evidence = model.evidence(batch, samples)
            losses.append(elbo_of(evidence))
            sizes.append(next(iter(evidence.log_likelihood.values())).shape[1])
            closed |= {latent.name: latent.closed_form for latent in evidence.latents}
    names = losses[0].terms
    terms = {name: _mean([loss.terms[name] for loss in losses], sizes) for name in names}
    return {
        "objective": options.kind,
        "samples": samples,
        "elbo": _mean([loss.value for loss in losses], sizes),
        "unit": losses[0].unit,
        "bound": losses[0].bound,
        "log_likelihood": _below("log_likelihood/", terms),
        "kl": _below("kl/", terms),
        "kl_closed_form": closed,
        "penalties": _below("penalty/", terms),
        "examples": sum(sizes),
    }


def weights_of(config: Settings, model: Model, batch: Any) -> dict[str, Any]:
    """What the loss made of the terms at the end of the training, on a batch of it."""
    objective = build_objective(config)
    with diagnostics.looking_at(model, derive(config.seed, "weights")):
        terms = objective(model.evidence(batch, objective.samples)).terms
    numbers = {name: float(term) for name, term in terms.items() if math.isfinite(float(term))}
    return {
        "weights": _below("weight/", numbers),
        "beta": numbers.get("beta"),
        "effective_beta": numbers.get("effective_beta"),
    }


def diagnosis_of(
    config: Settings,
    model: Model,
    batches: Sequence[Any],
    weights: Mapping[str, Any],
    samples: int | None = None,
) -> diagnostics.Diagnosis:
    """What the latents are worth on these batches, in bounded time and memory.

    Args:
        config: The settings; their objective is what the gradient's noise is that of.
        model: The trained model.
        batches: Of one split.
        weights: Of `weights_of`.
        samples: Importance samples for each example; those of the settings if not given.
    """
    objective = build_objective(config)
    betas = (weights["effective_beta"], weights["beta"], 1.0)
    beta = next(beta for beta in betas if beta is not None)
    with diagnostics.looking_at(model, derive(config.seed, "size")):
        latents = model.evidence(batches[0]).latents if batches else []
    size = sum(latent.value.numel() for latent in latents)
    return diagnostics.diagnose(
        model,
        batches,
        seed=derive(config.seed, "diagnosis"),
        samples=max(FEWEST_SAMPLES, samples or config.evaluation.samples),
        chunk=_between(1, LATENTS_AT_A_TIME // max(size, 1), DRAWS_AT_A_TIME),
        draws=_between(
            FEWEST_GRADIENTS, GRADIENTS_KEPT // max(_trained(model), 1), MOST_GRADIENTS
        ),
        beta=max(beta, NO_WEIGHT),
        loss=lambda evidence: objective(evidence).loss,
        loss_samples=objective.samples,
    )


def _trained(model: Any) -> int:
    return sum(each.numel() for each in model.parameters() if each.requires_grad)


def _between(low: int, value: int, high: int) -> int:
    return max(low, min(value, high))


def _below(prefix: str, terms: Mapping[str, float]) -> dict[str, float]:
    return {
        name.removeprefix(prefix): value
        for name, value in terms.items()
        if name.startswith(prefix)
    }


def _mean(values: Sequence[Tensor | float], sizes: Sequence[int]) -> float:
    weights = torch.tensor(sizes, dtype=torch.float64)
    numbers = torch.tensor([float(value) for value in values], dtype=torch.float64)
    return float((numbers * weights).sum() / weights.sum())
