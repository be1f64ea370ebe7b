"""Whether predictive distributions mean what they say: coverage, calibration error."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions import Distribution

from core.variational.diagnostics.estimate import Estimate, Unavailable, share_estimate
from core.variational.diagnostics.looking import own_random_stream, seed_for

LEVELS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)


@dataclass(frozen=True)
class Coverage:
    """How often central predictive intervals hold what was observed.

    Args:
        levels: Nominal coverages.
        observed: The share of values inside, level by level, with its interval.
        error: Mean absolute difference of the two.
        n: Number of values.
    """

    levels: list[float]
    observed: list[Estimate | Unavailable]
    error: float
    n: int


@dataclass(frozen=True)
class CalibrationError:
    r"""How far probabilities are from frequencies.

    Args:
        value: :math:`\sum_b \frac{n_b}{n} |\bar y_b - \bar p_b|` over the bins.
        floor: Its mean for outcomes drawn with these very probabilities: never 0, and larger with
            fewer data. A value near it is as good as perfect.
        floor_95: The 95 % quantile of the same.
        predicted: Mean probability in each bin.
        observed: Share of positive outcomes in each bin.
        counts: How many fall into each bin.
        n: Number of probabilities.
    """

    value: float
    floor: float
    floor_95: float
    predicted: list[float]
    observed: list[float]
    counts: list[int]
    n: int


def probability_integral(draws: Tensor, observed: Tensor) -> Tensor:
    r"""Return the rank of observed values among predictive draws, in 0 to 1.

    .. math:: u = \frac{\#\{y_s < y\} + V (1 + \#\{y_s = y\})}{S + 1}, \quad V \sim U(0, 1)

    It is exactly uniform where the draws have the distribution of the data, whatever it is. The
    :math:`V` come from the stream of the caller.

    References:
        Czado et al., "Predictive Model Assessment for Count Data", Biometrics 65 (2009),
        1254-1261, for the ties.

    Args:
        draws: From the predictive distribution, of shape ``(samples, *observed.shape)``.
        observed: What was observed.
    """
    below = (draws < observed).sum(0).double()
    ties = (draws == observed).sum(0).double()
    return (below + torch.rand_like(below) * (1 + ties)) / (len(draws) + 1)


def central_coverage(ranks: Float[Tensor, "*value"], levels: Sequence[float] = LEVELS) -> Coverage:
    r"""Return the coverage of central intervals from the probability integral transform.

    A central interval of level :math:`\alpha` holds a value of rank :math:`u` if
    :math:`|2 u - 1| \le \alpha`.

    Args:
        ranks: Values of the predictive distribution function at the data, in 0 to 1.
        levels: Nominal coverages, in 0 to 1.

    Raises:
        ValueError: If there are no ranks, or some lie outside 0 to 1.

    Example:
        >>> even = (torch.arange(1000) + 0.5) / 1000
        >>> central_coverage(even, [0.5]).observed[0].value
        0.5
    """
    flat = ranks.detach().double().flatten().cpu()
    if not len(flat) or not bool(((flat >= 0) & (flat <= 1)).all()):
        raise ValueError(
            f"central_coverage: {len(flat)} ranks, not all of them in 0 to 1; give values of a "
            "distribution function"
        )
    centred = (2 * flat - 1).abs()
    counts = [int((centred <= level).sum()) for level in levels]
    gaps = [abs(count / len(flat) - level) for count, level in zip(counts, levels, strict=True)]
    shares = [share_estimate(count, len(flat)) for count in counts]
    return Coverage(list(levels), shares, sum(gaps) / len(gaps), len(flat))


def likelihood_coverage(
    likelihood: Distribution, observed: Tensor, draws: int = 200, seed: int = 0
) -> Coverage:
    """Return the coverage of a likelihood whose parameters carry posterior draws in front.

    The predictive distribution is the mixture over the draws of the latent. Where there is one
    only, ``draws`` values are drawn from it.

    Args:
        likelihood: Its samples have the shape ``(samples, *observed.shape)``.
        observed: The data.
        draws: Values at least for each datum.
        seed: Seed of the draws.
    """
    with torch.no_grad(), own_random_stream(seed_for(seed, "coverage")):
        latents = max(1, likelihood.batch_shape[0] if likelihood.batch_shape else 1)
        repeats = -(-draws // latents)
        values = likelihood.sample(torch.Size([repeats])).flatten(0, 1)
        return central_coverage(probability_integral(values, observed))


def calibration_error(
    probabilities: Float[Tensor, " row"],
    outcomes: Tensor,
    bins: int = 15,
    resamples: int = 200,
    seed: int = 0,
) -> CalibrationError:
    """Return the expected calibration error of probabilities of yes-or-no outcomes.

    Bins hold equally many probabilities. For a classifier give the probability of the class it
    chose, and whether that was right.

    References:
        Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, eq. 3
        (arXiv:1706.04599), there with bins of equal width; Nixon et al., "Measuring Calibration in
        Deep Learning", 2019 (arXiv:1904.01685), for equal counts.

    Args:
        probabilities: In 0 to 1.
        outcomes: 0 or 1, or truth values.
        bins: How many.
        resamples: Draws of the floor.
        seed: Of the floor.

    Raises:
        ValueError: If the two differ in length, are empty, or a probability is outside 0 to 1.
    """
    p = probabilities.detach().double().flatten().cpu()
    y = outcomes.detach().double().flatten().cpu()
    if len(p) != len(y) or not len(p) or not bool(((p >= 0) & (p <= 1)).all()):
        raise ValueError(
            f"calibration_error: {len(p)} probabilities and {len(y)} outcomes; they must be as "
            "many, at least one, and the probabilities in 0 to 1"
        )
    order = p.argsort(stable=True)
    p, y = p[order], y[order]
    index = torch.arange(len(p)) * bins // len(p)
    with own_random_stream(seed_for(seed, "floor")):
        drawn = (torch.rand(resamples, len(p), dtype=torch.float64) < p).double()
    floors = _error(p, drawn, index, bins)
    counts = torch.bincount(index, minlength=bins)
    kept = counts > 0
    return CalibrationError(
        float(_error(p, y[None], index, bins)),
        float(floors.mean()),
        float(floors.quantile(0.95)),
        (_sums(p[None], index, bins)[0][kept] / counts[kept]).tolist(),
        (_sums(y[None], index, bins)[0][kept] / counts[kept]).tolist(),
        counts[kept].tolist(),
        len(p),
    )


def _error(p: Tensor, y: Tensor, index: Tensor, bins: int) -> Tensor:
    return _sums(y - p, index, bins).abs().sum(1) / len(p)


def _sums(rows: Tensor, index: Tensor, bins: int) -> Tensor:
    return rows.new_zeros(len(rows), bins).index_add_(1, index, rows)
