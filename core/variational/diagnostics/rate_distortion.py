"""Rate and distortion of a model: what the latents cost, and what they leave unexplained."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from core.contract import Model
from core.variational.diagnostics.estimate import Estimate, Unavailable, mean_estimate
from core.variational.diagnostics.looking import looking_at
from core.variational.diagnostics.rows import mean_over_samples, seen

NO_LATENTS = "the model has no latents"


@dataclass(frozen=True)
class RateDistortion:
    r"""The two terms of the negative ELBO, averaged over the examples.

    Args:
        rate: Total KL of all latent groups, in nats per example.
        rates: The same group by group.
        distortion: :math:`-\mathbb E_q \log p(x \mid z)` over all terms, in nats per example.
        distortions: The same term by term.
        negative_elbo: Their sum, in nats per example.
        bits_per_dimension: The sum over the number of data dimensions, in bits.
        points: Rate and distortion of single examples, in nats, for a plot.
        unobserved: Examples left out because nothing is observed in them.
    """

    rate: Estimate | Unavailable
    rates: Mapping[str, Estimate | Unavailable]
    distortion: Estimate | Unavailable
    distortions: Mapping[str, Estimate | Unavailable]
    negative_elbo: Estimate | Unavailable
    bits_per_dimension: Estimate | Unavailable
    points: list[list[float]]
    unobserved: int


def rate_distortion(
    model: Model,
    batches: Iterable[Any],
    samples: int = 1,
    dimensions: int | None = None,
    seed: int = 0,
    most: int = 500,
) -> RateDistortion:
    """Return rate and distortion over these batches, with intervals over the examples.

    Args:
        model: Any model; one without latents has a distortion only.
        batches: What its ``evidence`` takes, on its device.
        samples: Posterior draws for each example.
        dimensions: Data dimensions of an example, for the bits per dimension.
        seed: Seed of the draws.
        most: Points for the plot at most; the first examples.

    References:
        Alemi et al., "Fixing a Broken ELBO", ICML 2018 (arXiv:1711.00464).
    """
    rates: dict[str, list[Tensor]] = {}
    distortions: dict[str, list[Tensor]] = {}
    unobserved = 0
    with looking_at(model, seed):
        for batch in batches:
            evidence = model.evidence(batch, samples)
            for name, term in evidence.log_likelihood.items():
                cost = seen(evidence, -mean_over_samples(evidence, term)).double().cpu()
                distortions.setdefault(name, []).append(cost)
            for latent in evidence.latents:
                cost = seen(evidence, mean_over_samples(evidence, latent.kl())).double().cpu()
                rates.setdefault(latent.name, []).append(cost)
            if evidence.observed is not None:
                unobserved += int((~evidence.observed).sum())
    rate, distortion = _total(rates), _total(distortions)
    total = distortion + rate if rates else distortion
    return RateDistortion(
        rate=mean_estimate(rate) if rates else Unavailable(NO_LATENTS),
        rates={name: mean_estimate(torch.cat(parts)) for name, parts in rates.items()},
        distortion=mean_estimate(distortion),
        distortions={name: mean_estimate(torch.cat(each)) for name, each in distortions.items()},
        negative_elbo=mean_estimate(total),
        bits_per_dimension=_bits(total, dimensions),
        points=torch.stack([rate, distortion], 1)[:most].tolist() if rates else [],
        unobserved=unobserved,
    )


def _total(parts: Mapping[str, list[Tensor]]) -> Tensor:
    terms = [torch.cat(each) for each in parts.values()]
    return torch.stack(terms).sum(0) if terms else torch.zeros(0)


def _bits(total: Tensor, dimensions: int | None) -> Estimate | Unavailable:
    if dimensions is None:
        return Unavailable("the number of data dimensions of an example was not given")
    return mean_estimate(total / (dimensions * math.log(2)))
