"""What models with one latent group share: draws of its prior, and their evidence."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from core.variational.distributions import DiagonalNormal
from core.variational.evidence import Evidence, Latent
from core.variational.likelihoods import masked_log_prob
from domains.series.data import Windows


def evidence_of(
    batch: Windows,
    likelihood: Distribution,
    latent: Latent,
    targets: Tensor | None = None,
    **more: Any,
) -> Evidence:
    """Return what is said of the targets of a batch; windows without any are skipped.

    Args:
        batch: The windows.
        likelihood: Of every value, of batch shape ``(samples, batch, time, channel)``.
        latent: The one group.
        targets: What is explained; the batch's if not given.
        more: Penalties and what else `Evidence` takes.
    """
    targets = batch.targets if targets is None else targets
    term = masked_log_prob(likelihood, batch.values, targets, event_dims=2).log_prob
    explained = targets.flatten(1).any(1)
    return Evidence(
        log_likelihood={"values": term},
        latents=[latent],
        observed=None if bool(explained.all()) else explained,
        **more,
    )


def draws_of_prior(
    prior: nn.Module, count: int, latent: int, like: Tensor, context: Tensor | None = None
) -> Tensor:
    """Draw one latent vector for each of ``count`` windows.

    Args:
        prior: Any prior.
        count: How many windows.
        latent: Length of the vector.
        like: A tensor of the type and device wanted.
        context: What a conditional prior knows of each.
    """
    zeros = torch.zeros(count, latent, dtype=like.dtype, device=like.device)
    shape = DiagonalNormal(zeros, torch.ones_like(zeros))
    return prior(shape).sample() if context is None else prior(shape, context).sample()
