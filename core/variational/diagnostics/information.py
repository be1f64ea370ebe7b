"""How much a latent tells of the data, and how far the aggregated posterior is from the prior."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions import Distribution

from core.contract import Model
from core.variational.diagnostics.estimate import Estimate, Unavailable, around, log_mean_exp
from core.variational.diagnostics.rows import LatentRows, latent_rows, log_densities

MOST_OF_THE_LIMIT = 0.9
PROBES = 4


@dataclass(frozen=True)
class Information:
    r"""Mutual information of data and latent under the posterior, and what the rate has above it.

    The mean KL to the prior is the sum of two: what the latent tells, and a distance that tells
    nothing,

    .. math:: \mathbb E_x KL(q(z \mid x) \| p(z)) = I_q(x; z) + KL(q(z) \| p(z)), \quad
        q(z) = \mathbb E_x q(z \mid x).

    Args:
        mutual_information: Between its two bounds, in nats per row; its interval covers both with
            their errors. Unavailable where the rows are too few to tell.
        lower: InfoNCE with the true density ratio: never above ``limit``.
        upper: The leave-one-out bound, in nats.
        rate: Mean KL to the prior, an upper bound too, in nats.
        marginal_kl: :math:`KL(q(z) \| p(z))`, between ``rate - upper`` and ``rate - lower``.
        limit: Log of the number of rows, in nats: no more information can be seen with these.
        rows: Number of rows.
    """

    mutual_information: Estimate | Unavailable
    lower: Estimate
    upper: Estimate
    rate: Estimate | Unavailable
    marginal_kl: Estimate | Unavailable
    limit: float
    rows: int


def information(
    model: Model, batches: Iterable[Any], rows: int = 500, seed: int = 0
) -> dict[str, Information | Unavailable]:
    r"""Return the mutual information of the data and each latent group, with bounds.

    With one draw :math:`z_i` from each of :math:`N` rows,

    .. math:: \frac1N \sum_i \log \frac{q(z_i \mid x_i)}{\frac1N \sum_j q(z_i \mid x_j)} \le I
        \le \frac1N \sum_i
        \log \frac{q(z_i \mid x_i)}{\frac{1}{N-1} \sum_{j \ne i} q(z_i \mid x_j)}

    in expectation. Both meet where :math:`N` is far above :math:`e^I`; the lower one is at most
    :math:`\log N`. Errors are those of the infinitesimal jackknife, since the rows share their
    denominators.

    References:
        Poole et al., "On Variational Bounds of Mutual Information", ICML 2019
        (arXiv:1905.06922); Hoffman and Johnson, "ELBO Surgery", NIPS workshop on Advances in
        Approximate Bayesian Inference, 2016, for the decomposition.

    Args:
        model: Any model; one without latents gives an empty mapping.
        batches: What its ``evidence`` takes, on its device.
        rows: Rows at most; time and memory grow with their square.
        seed: Seed of the draws and of the choice of rows.
    """
    groups = latent_rows(model, batches, rows, seed)
    return {name: information_of(group) for name, group in groups.items()}


def information_of(group: LatentRows | Unavailable) -> Information | Unavailable:
    """Return the information of one latent group from its rows."""
    if isinstance(group, Unavailable):
        return group
    n = len(group.value)
    if n < 3:
        return Unavailable(f"{n} rows; at least 3 are needed")
    try:
        densities = log_densities(group.posterior, group.value)
    except NotImplementedError:
        name = type(group.posterior[0]).__name__
        return Unavailable(f"the posterior, a {name}, has no density")
    if not bool(torch.isfinite(densities.diagonal()).all()):
        return Unavailable("the posterior's density is not finite at its own draws")
    own, shares = densities.diagonal(), torch.softmax(densities, 1).sum(0)
    others = densities.masked_fill(torch.eye(n, dtype=torch.bool, device=own.device), -math.inf)
    mixture = log_mean_exp(densities, 1)
    rest = torch.logsumexp(others, 1) - math.log(n - 1)
    lower = _estimate(own - mixture, own - mixture - shares)
    upper = _estimate(own - rest, own - rest - torch.softmax(others, 1).nan_to_num().sum(0))
    prior = log_prior(group)
    rate: Estimate | Unavailable = prior if isinstance(prior, Unavailable) else Unavailable("")
    marginal: Estimate | Unavailable = rate
    if isinstance(prior, Tensor):
        rate = _estimate(own - prior, own - prior)
        marginal = _marginal(own, mixture, rest, prior, shares)
    limit = math.log(n)
    return Information(_between(lower, upper, limit), lower, upper, rate, marginal, limit, n)


def log_prior(group: LatentRows) -> Float[Tensor, " row"] | Unavailable:
    """Return the log-density of the prior at each draw, in nats.

    A prior that differs between rows (conditional) enters as the mixture over the rows.
    """
    if isinstance(group.prior, Unavailable):
        return group.prior
    try:
        probes = log_densities(group.prior, group.value[:PROBES])
        if _same_everywhere(probes):
            return _log_density_of_first_row(group.prior[0], group.value)
        return log_mean_exp(log_densities(group.prior, group.value), 1)
    except NotImplementedError:
        return Unavailable(f"the prior, a {type(group.prior[0]).__name__}, has no density")


def _same_everywhere(probes: Tensor) -> bool:
    spread = probes.amax(1) - probes.amin(1)
    return bool((spread <= 1e-4 * (1 + probes.abs().amax(1))).all())


def _log_density_of_first_row(prior: Distribution, value: Tensor) -> Tensor:
    """All rows are alike, so that each stands for its own: one density for each value."""
    batch = prior.batch_shape
    count = batch.numel()
    parts = []
    for part in value.split(count):
        padded = torch.cat([part, part[:1].expand(count - len(part), -1)])
        shaped = padded.reshape(*batch, *prior.event_shape)
        parts.append(prior.log_prob(shaped).double().reshape(-1)[: len(part)])
    return torch.cat(parts)


def _estimate(terms: Tensor, influence: Tensor) -> Estimate:
    n, spread = len(terms), float(influence.std())
    error = spread / math.sqrt(n) if math.isfinite(spread) else None
    return around(float(terms.mean()), error, n)


def _between(lower: Estimate, upper: Estimate, limit: float) -> Estimate | Unavailable:
    ends = _span(lower, upper)
    if not math.isfinite(upper.value) or lower.value > MOST_OF_THE_LIMIT * limit:
        return Unavailable(
            f"at least {lower.value:.2f} nats, and {lower.n} rows show no more than {limit:.2f}"
        )
    return Estimate((lower.value + upper.value) / 2, ends, lower.n)


def _span(lower: Estimate, upper: Estimate) -> tuple[float, float] | None:
    if lower.interval is None or upper.interval is None:
        return None
    return max(0.0, lower.interval[0]), max(0.0, upper.interval[1])


def _marginal(
    own: Tensor, mixture: Tensor, rest: Tensor, prior: Tensor, shares: Tensor
) -> Estimate | Unavailable:
    """The KL of the aggregated posterior: with itself among the rows, and left out."""
    high = _estimate(mixture - prior, mixture - prior + shares)
    low = _estimate(rest - prior, rest - prior + shares)
    if float((own - mixture).mean()) > MOST_OF_THE_LIMIT * math.log(len(own)):
        return Unavailable(
            f"at most {max(0.0, high.value):.2f} nats, and {len(own)} rows are too few to tell"
        )
    return Estimate(max(0.0, (high.value + low.value) / 2), _span(low, high), high.n)
