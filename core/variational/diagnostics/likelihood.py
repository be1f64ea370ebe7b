"""How probable a model finds each example: importance sampling from the posterior."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from core.contract import Model
from core.variational.diagnostics.estimate import (
    Estimate,
    Unavailable,
    log_mean_exp,
    mean_estimate,
)
from core.variational.diagnostics.looking import looking_at
from core.variational.objectives import effective_sample_size


@dataclass(frozen=True, eq=False)
class ImportanceWeighted:
    """An estimate of the log-likelihood of each example.

    Args:
        log_likelihood: The estimate, in nats; in expectation a lower bound.
        standard_error: Its standard error, in nats, by the delta method. It is too small where the
            effective sample size is a handful.
        effective_sample_size: How many equally weighted samples the ones drawn are worth.
    """

    log_likelihood: Float[Tensor, " batch"]
    standard_error: Float[Tensor, " batch"]
    effective_sample_size: Float[Tensor, " batch"]


@dataclass(frozen=True)
class BoundOfSamples:
    """The importance-weighted bound with one number of samples.

    Args:
        samples: The number :math:`K`.
        bound: The bound averaged over the examples, in nats per example.
    """

    samples: int
    bound: Estimate | Unavailable


def importance_weighted_log_likelihood(
    model: Model, batch: Any, samples: int = 1000, chunk: int = 100, seed: int = 0
) -> ImportanceWeighted:
    r"""Estimate :math:`\log p(x)` of each example by importance sampling from the posterior.

    .. math:: \log \frac1K \sum_k w_k, \quad w_k = \frac{p(x, z_k)}{q(z_k \mid x)}

    The model is asked :math:`\lceil K / \text{chunk} \rceil` times, all examples at once, and
    encodes once each time. The standard error is
    :math:`\sqrt{(K \sum_k \tilde w_k^2 - 1) / (K - 1)}` with
    the normalised weights :math:`\tilde w_k`. The weights are summed in float64.

    References:
        Burda et al., "Importance Weighted Autoencoders", ICLR 2016, eq. 8 (arXiv:1509.00519).

    Args:
        model: Any model.
        batch: What its ``evidence`` takes, on its device.
        samples: Draws for each example :math:`K`.
        chunk: Draws at a time; the memory is that of ``chunk`` times the batch, and 8 bytes for
            each weight. On a CPU a thousand rows at a time (chunk times batch) are fastest.
        seed: Seed of this estimate's own random numbers.

    Raises:
        ValueError: If there are fewer than 2 samples, or a chunk is empty.
    """
    return importance_weighted(log_importance_weights(model, batch, samples, chunk, seed))


def log_importance_weights(
    model: Model, batch: Any, samples: int = 1000, chunk: int = 100, seed: int = 0
) -> Float[Tensor, "samples batch"]:
    r"""Return :math:`\log p(x, z_k) - \log q(z_k \mid x)` of posterior draws, in nats.

    What the likelihood, its curve over :math:`K` and the k-hat are all made of, drawn once. They
    stay in the model's precision, which tells rounding from weights that differ. A model that
    enumerates its latent gives as many as it needs.

    Args:
        model: Any model.
        batch: What its ``evidence`` takes, on its device.
        samples: Draws for each example.
        chunk: Draws at a time; the encoder runs once for each chunk.
        seed: Seed of these draws' own random numbers.

    Raises:
        ValueError: If there are fewer than 2 samples, or a chunk is empty.
    """
    if samples < 2 or chunk < 1:
        raise ValueError(
            f"importance_weighted_log_likelihood: samples={samples}, chunk={chunk}; there must be "
            "at least 2 samples, in chunks of at least 1"
        )
    sizes = [min(chunk, samples - start) for start in range(0, samples, chunk)]
    with looking_at(model, seed):
        return torch.cat([model.evidence(batch, size).log_joint_ratio() for size in sizes])


def importance_weighted(log_weights: Float[Tensor, "samples batch"]) -> ImportanceWeighted:
    """Return the estimate of the log-likelihood that these importance weights make."""
    log_weights = log_weights.double()
    samples = len(log_weights)
    size = effective_sample_size(log_weights)
    variance = (samples / size - 1).clamp(min=0) / (samples - 1)
    return ImportanceWeighted(log_mean_exp(log_weights, 0), variance.sqrt(), size)


def bound_against_samples(
    log_weights: Float[Tensor, "samples batch"], sizes: Sequence[int] = ()
) -> tuple[BoundOfSamples, ...]:
    r"""Return the importance-weighted bound for growing numbers of samples, from the same draws.

    .. math:: \mathcal L_K = \mathbb E \log \frac1K \sum_{k=1}^K w_k \le \mathcal L_{K+1}
        \le \log p(x)

    Draws are taken in disjoint groups of :math:`K`, the mean over the groups being unbiased for
    :math:`\mathcal L_K`. :math:`K = 1` is the ELBO without a closed-form KL. The intervals are
    over examples; points of one curve share their examples and draws.

    References:
        Burda et al., "Importance Weighted Autoencoders", ICLR 2016, theorem 1 (arXiv:1509.00519).

    Args:
        log_weights: Of `log_importance_weights`.
        sizes: The numbers of samples; 1, 2, 5, 10, 20, 50 … up to all if none are given.

    Raises:
        ValueError: If a size is not between 1 and the number of draws.
    """
    log_weights = log_weights.double()
    samples = len(log_weights)
    chosen = list(sizes) or _one_two_five(samples)
    for size in chosen:
        if not 1 <= size <= samples:
            raise ValueError(
                f"bound_against_samples: a size of {size} with {samples} draws; allowed is 1 to "
                f"{samples}"
            )
    return tuple(BoundOfSamples(size, mean_estimate(_bound(log_weights, size))) for size in chosen)


def _bound(log_weights: Tensor, size: int) -> Tensor:
    groups = len(log_weights) // size
    grouped = log_weights[: groups * size].reshape(groups, size, -1)
    return log_mean_exp(grouped, 1).mean(0)


def _one_two_five(most: int) -> list[int]:
    powers = range(len(str(most)))
    sizes = [digit * 10**power for power in powers for digit in (1, 2, 5)]
    return sorted({*(size for size in sizes if size <= most), most})
