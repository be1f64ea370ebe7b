"""Everything that is measured on the test split of a trained model, as in ``metrics.json``."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from core.contract import Domain, Model
from core.runtime.config import Settings
from core.runtime.engine import build_objective
from core.runtime.order import derive
from core.variational import diagnostics
from core.variational.objectives import elbo_of


def evaluate(
    domain: Domain[Any, Any, Any], config: Settings, data: Path, model: Any
) -> dict[str, Any]:
    """Return the domain's metrics, the evidence and the latents on the test split."""
    with diagnostics.looking_at(model, derive(config.seed, "evaluation")):
        metrics = domain.metrics(config, data, model)
    test = domain.batches(config, data, "test")
    batches = [test.batch(0, index) for index in range(len(test))]
    train = domain.batches(config, data, "train").batch(0, 0)
    evidence = evidence_of(config, model, batches) | weights_of(config, model, train)
    return {
        "metrics": {name: dataclasses.asdict(metric) for name, metric in metrics.items()},
        "evidence": evidence,
        "examples": evidence.pop("examples"),
        "latents": latents_of(config, model, batches),
    }


def evidence_of(config: Settings, model: Model, batches: Sequence[Any]) -> dict[str, Any]:
    """The ELBO and its terms, averaged over the examples, in nats per example.

    The ELBO is the unweighted one, whatever was trained on. For a model with latents also the
    importance-weighted log-likelihood.
    """
    options, samples = config.objective, build_objective(config).samples
    losses, sizes, has_latents = [], [], False
    with diagnostics.looking_at(model, derive(config.seed, "evidence")):
        for batch in batches:
            evidence = model.evidence(batch, samples)
            losses.append(elbo_of(evidence))
            sizes.append(next(iter(evidence.log_likelihood.values())).shape[1])
            has_latents = has_latents or len(evidence.latents) > 0
    names = losses[0].terms
    terms = {name: _mean([loss.terms[name] for loss in losses], sizes) for name in names}
    described = {
        "objective": options.kind,
        "samples": samples,
        "elbo": _mean([loss.value for loss in losses], sizes),
        "unit": losses[0].unit,
        "bound": losses[0].bound,
        "log_likelihood": _below("log_likelihood/", terms),
        "kl": _below("kl/", terms),
        "penalties": _below("penalty/", terms),
        "examples": sum(sizes),
    }
    if has_latents:
        described["importance_weighted"] = _importance_weighted(config, model, batches)
    return described


def weights_of(config: Settings, model: Model, batch: Any) -> dict[str, Any]:
    """What the loss made of the terms at the end of the training, on a batch of it."""
    objective = build_objective(config)
    with diagnostics.looking_at(model, derive(config.seed, "weights")):
        terms = objective(model.evidence(batch, objective.samples)).terms
    numbers = {name: float(term) for name, term in terms.items()}
    return {
        "weights": _below("weight/", numbers),
        "beta": numbers.get("beta"),
        "effective_beta": numbers.get("effective_beta"),
    }


def _below(prefix: str, terms: Mapping[str, float]) -> dict[str, float]:
    return {
        name.removeprefix(prefix): value
        for name, value in terms.items()
        if name.startswith(prefix)
    }


def latents_of(config: Settings, model: Model, batches: Sequence[Any]) -> dict[str, Any]:
    """Active units and the KL of each dimension, by latent group."""
    use = diagnostics.latent_use(model, batches, seed=derive(config.seed, "latents"))
    return {
        name: {
            "dimensions": len(latent.active),
            "active_units": latent.active_units,
            "kl_per_dimension": None if latent.kl is None else latent.kl.tolist(),
            "variance_of_mean": latent.variance.tolist(),
        }
        for name, latent in use.items()
    }


def _importance_weighted(config: Settings, model: Model, batches: Sequence[Any]) -> dict[str, Any]:
    samples, seed = config.evaluation.samples, derive(config.seed, "importance")
    estimates = [
        diagnostics.importance_weighted_log_likelihood(
            model, batch, samples, chunk=min(samples, 16), seed=seed
        )
        for batch in batches
    ]
    errors = torch.cat([estimate.standard_error for estimate in estimates]).double()
    return {
        "value": float(torch.cat([e.log_likelihood for e in estimates]).double().mean()),
        "se": float(errors.square().sum().sqrt() / len(errors)),
        "effective_sample_size": float(
            torch.cat([e.effective_sample_size for e in estimates]).double().mean()
        ),
        "samples": samples,
    }


def _mean(values: Sequence[Tensor], sizes: Sequence[int]) -> float:
    weights = torch.tensor(sizes, dtype=torch.float64)
    return float((torch.stack(list(values)).double() * weights).sum() / weights.sum())
