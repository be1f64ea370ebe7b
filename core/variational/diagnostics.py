"""What a trained model's latents are worth: its likelihood, its active units, its KL by dimension.

Every function here looks at the model in evaluation mode, without gradients and with random
numbers of its own: looking never changes a training.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from core.contract import Model
from core.variational.evidence import Latent
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
        chunk: Draws at a time; the memory is that of ``chunk`` times the batch.
        seed: Seed of this estimate's own random numbers.

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
        ratios = [model.evidence(batch, size).log_joint_ratio().double() for size in sizes]
    log_weights = torch.cat(ratios)
    size = effective_sample_size(log_weights)
    variance = (samples / size - 1).clamp(min=0) / (samples - 1)
    estimate = torch.logsumexp(log_weights, 0) - math.log(samples)
    return ImportanceWeighted(estimate, variance.sqrt(), size)


@dataclass(frozen=True, eq=False)
class LatentUse:
    """How much of a latent group a model uses, dimension by dimension.

    Args:
        variance: Variance over the data of the posterior mean.
        kl: Mean KL in nats per example, or None for a pair that does not factorise.
        active: Which dimensions are active units.
    """

    variance: Float[Tensor, " latent"]
    kl: Float[Tensor, " latent"] | None
    active: Bool[Tensor, " latent"]

    @property
    def active_units(self) -> int:
        """Number of active units."""
        return int(self.active.sum())


def latent_use(
    model: Model, batches: Iterable[Any], threshold: float = 0.01, seed: int = 0
) -> dict[str, LatentUse]:
    r"""Return how much each latent group is used on these batches.

    A unit is active if the variance of its posterior mean over the data exceeds the threshold,

    .. math:: \operatorname{Var}_x \left( \mathbb E_{q(z \mid x)} z_j \right) > 0.01 .

    What shares a latent dimension in an example (the nodes of a graph, the frames of an utterance)
    counts as data here: the variance runs over all of it, and the KL sums over it.

    References:
        Burda et al., "Importance Weighted Autoencoders", ICLR 2016, section 5.2
        (arXiv:1509.00519).

    Args:
        model: Any model; one without latents gives an empty mapping.
        batches: What its ``evidence`` takes, on its device.
        threshold: Variance above which a unit is active, in squared units of the latent.
        seed: Seed of the random numbers that the passes use.
    """
    moments: dict[str, _Moments] = {}
    divergences: dict[str, list[Tensor | None]] = {}
    examples = 0
    with looking_at(model, seed):
        for batch in batches:
            evidence = model.evidence(batch)
            for latent in evidence.latents:
                moments.setdefault(latent.name, _Moments()).add(posterior_means(latent))
                divergence = latent.kl_per_dimension()
                total = None if divergence is None else divergence.double().mean(0).sum(0)
                divergences.setdefault(latent.name, []).append(total)
            examples += next(iter(evidence.log_likelihood.values())).shape[1]
    return {
        name: LatentUse(
            moment.variance, _mean(divergences[name], examples), moment.above(threshold)
        )
        for name, moment in moments.items()
    }


def active_units(means: Float[Tensor, "row latent"], threshold: float = 0.01) -> int:
    r"""Return the number of columns whose variance over the rows exceeds the threshold.

    Args:
        means: Posterior means, one row for each datum.
        threshold: Burda's 0.01, in squared units of the latent.

    Example:
        >>> active_units(torch.tensor([[0.0, 1.0], [0.0, -1.0]]))
        1
    """
    moments = _Moments()
    moments.add(means)
    return int(moments.above(threshold).sum())


def posterior_means(latent: Latent) -> Float[Tensor, "row latent"]:
    """Return the posterior means as rows: all but the last dimension is data.

    A posterior that depends on sampled parents is averaged over them first.
    """
    mean = latent.posterior.mean
    if len(latent.posterior.batch_shape) > 1:
        mean = mean.mean(0)
    return mean.reshape(-1, mean.shape[-1] if latent.posterior.event_shape else 1)


@contextlib.contextmanager
def looking_at(model: Model, seed: int) -> Iterator[None]:
    """Put a model in evaluation mode, without gradients, on its own random stream; undo it after.

    Only the generators of the CPU and of the model's devices are seeded, and all are put back.
    """
    modules = list(model.modules()) if isinstance(model, nn.Module) else []
    modes = [module.training for module in modules]
    with torch.no_grad(), own_random_stream(seed, _cuda_devices(modules)):
        try:
            for module in modules:
                module.training = False
            yield
        finally:
            for module, mode in zip(modules, modes, strict=True):
                module.training = mode


@contextlib.contextmanager
def own_random_stream(seed: int, devices: Iterable[int] = ()) -> Iterator[None]:
    """Seed torch's generators of the CPU and these CUDA devices, and put them back after."""
    devices = list(devices)
    with torch.random.fork_rng(devices):
        # torch.manual_seed would seed every device, those that are not forked too.
        torch.default_generator.manual_seed(seed)
        for device in devices:
            torch.cuda.default_generators[device].manual_seed(seed)
        yield


def _cuda_devices(modules: list[nn.Module]) -> list[int]:
    tensors = [*modules[0].parameters(), *modules[0].buffers()] if modules else []
    return sorted({tensor.get_device() for tensor in tensors if tensor.is_cuda})


def _mean(totals: list[Tensor | None], examples: int) -> Tensor | None:
    known = [total for total in totals if total is not None]
    return torch.stack(known).sum(0) / examples if len(known) == len(totals) else None


class _Moments:
    """Running mean and squared deviations of rows, in float64 (Chan et al. 1979)."""

    def __init__(self) -> None:
        self.count = 0
        self.mean: Tensor = torch.zeros(())
        self.deviations: Tensor = torch.zeros(())

    def add(self, rows: Tensor) -> None:
        rows = rows.double()
        mean, count = rows.mean(0), len(rows)
        total = self.count + count
        offset = mean - self.mean.to(mean)
        self.deviations = (rows - mean).square().sum(0) + self.deviations.to(mean)
        self.deviations = self.deviations + offset.square() * (self.count * count / total)
        self.mean = self.mean.to(mean) + offset * (count / total)
        self.count = total

    @property
    def variance(self) -> Tensor:
        return self.deviations / max(self.count - 1, 1)

    def above(self, threshold: float) -> Tensor:
        return self.variance > threshold
