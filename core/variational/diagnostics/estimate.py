"""A number with its interval, or the reason why there is none."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import torch
from torch import Tensor

NORMAL_QUANTILE = NormalDist().inv_cdf(0.975)


@dataclass(frozen=True)
class Estimate:
    """A number with its 95 % interval.

    Args:
        value: The number.
        interval: 95 % interval; None where the data do not give one, such as a single example.
        n: How many independent data are behind it.
    """

    value: float
    interval: tuple[float, float] | None
    n: int


@dataclass(frozen=True)
class Unavailable:
    """What stands where a number cannot be computed.

    Args:
        reason: Why, in a sentence that a reader of the report understands.
        value: None, so that it reads like an `Estimate` without a number.
    """

    reason: str
    value: None = None


def mean_estimate(values: Tensor) -> Estimate | Unavailable:
    r"""Return the mean of independent values with Student's interval.

    .. math:: \bar x \pm t_{n-1} \, s / \sqrt n

    Example:
        >>> mean_estimate(torch.tensor([1.0, 2.0, 3.0])).n
        3
    """
    values = values.detach().double().flatten().cpu()
    n = len(values)
    if not n:
        return Unavailable("there are no examples")
    mean = float(values.mean())
    if not math.isfinite(mean):
        broken = int((~torch.isfinite(values)).sum())
        return Unavailable(f"{broken} of {n} values are not finite")
    return around(mean, float(values.std()) / math.sqrt(n) if n > 1 else None, n)


def around(value: float, error: float | None, n: int) -> Estimate:
    """Return a number with Student's interval from its standard error; None gives no interval."""
    if error is None or n < 2:
        return Estimate(value, None, n)
    half = t_quantile(n - 1) * error
    return Estimate(value, (value - half, value + half), n)


def log_mean_exp(logs: Tensor, dim: int) -> Tensor:
    r"""Return the log of the mean of numbers along a dimension, from their logs.

    .. math:: \log \frac1K \sum_k e^{l_k}

    Example:
        >>> log_mean_exp(torch.zeros(4, 3), 0)
        tensor([0., 0., 0.])
    """
    return torch.logsumexp(logs, dim) - math.log(logs.shape[dim])


def share_estimate(count: int, n: int) -> Estimate | Unavailable:
    r"""Return a share with Wilson's interval, which is never empty and stays in 0 to 1.

    References:
        Wilson, "Probable Inference, the Law of Succession, and Statistical Inference", JASA 22
        (1927), 209-212.

    Example:
        >>> share_estimate(5, 10).value
        0.5
    """
    if not n:
        return Unavailable("there are no examples")
    share, z = count / n, NORMAL_QUANTILE
    centre = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * math.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    return Estimate(share, (max(0.0, centre - half), min(1.0, centre + half)), n)


def t_quantile(degrees: int) -> float:
    """Return the 97.5 % quantile of Student's t, within 0.2 %.

    References:
        Abramowitz and Stegun, Handbook of Mathematical Functions, 26.7.5 for 3 degrees and more.
    """
    if degrees == 1:
        return math.tan(math.pi * 0.475)
    if degrees == 2:
        return 0.95 * math.sqrt(2 / (1 - 0.95**2))
    z = NORMAL_QUANTILE
    terms = (
        z,
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return sum(term / degrees**power for power, term in enumerate(terms))
