"""The loss of a model's own samples beside that of held-out data."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from core.contract import Model
from core.variational.diagnostics.estimate import Estimate, Unavailable, around, mean_estimate
from core.variational.diagnostics.looking import looking_at
from core.variational.diagnostics.rows import mean_over_samples, seen


@dataclass(frozen=True)
class GeneratedLoss:
    """Negative ELBO of what a model generates and of held-out data, in nats per example.

    Args:
        generated: Of its own samples.
        held_out: Of the data.
        difference: Generated less held-out, with Welch's interval. Neither sign is good or bad by
            itself: samples blander than the data cost less, samples off the data cost more.
    """

    generated: Estimate | Unavailable
    held_out: Estimate | Unavailable
    difference: Estimate | Unavailable


def generated_loss(
    model: Model,
    batches: Iterable[Any],
    examples: int = 200,
    samples: int = 1,
    seed: int = 0,
) -> GeneratedLoss | Unavailable:
    """Compare the negative ELBO of generated examples with that of held-out ones.

    Args:
        model: Any model with a method ``generate(examples) -> batch``.
        batches: Held-out data.
        examples: How many to generate.
        samples: Posterior draws for each example.
        seed: Seed of all draws.
    """
    generate = getattr(model, "generate", None)
    if generate is None:
        return Unavailable("the model has no method 'generate(examples) -> batch'")
    with looking_at(model, seed):
        own = negative_elbo(model, generate(examples), samples)
        data = torch.cat([negative_elbo(model, batch, samples) for batch in batches])
    return GeneratedLoss(mean_estimate(own), mean_estimate(data), _difference(own, data))


def negative_elbo(model: Model, batch: Any, samples: int) -> Tensor:
    """Return the negative ELBO of each example of a batch, in nats; within `looking_at`."""
    evidence = model.evidence(batch, samples)
    total = -torch.stack(list(evidence.log_likelihood.values())).sum(0)
    for latent in evidence.latents:
        total = total + latent.kl()
    return seen(evidence, mean_over_samples(evidence, total)).double().cpu()


def _difference(own: Tensor, data: Tensor) -> Estimate | Unavailable:
    value = float(own.mean() - data.mean())
    if not math.isfinite(value):
        return Unavailable("a loss is not finite")
    if min(len(own), len(data)) < 2:
        return Estimate(value, None, min(len(own), len(data)))
    squares = own.var() / len(own) + data.var() / len(data)
    return around(value, float(squares.sqrt()), min(len(own), len(data)))
