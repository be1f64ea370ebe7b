"""A number that the self-test has measured, and the limits of what is measured by samples."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import NormalDist

import torch
from torch import Tensor

FALSE_ALARM = 0.01
# What one rounding may add to a difference of means whose samples do not vary.
ROUNDING = 1e-9


@dataclass(frozen=True)
class Check:
    """The worst of some numbers, and the limit that it has to keep.

    Args:
        name: What was measured.
        cases: How many numbers.
        worst: The worst of them; NaN if there is none.
        limit: The largest allowed; the least where ``at_least``.
        unit: Unit of both.
        at: The case that the worst number is of.
        at_least: Whether the number has to reach the limit and not to stay below it: a control
            that something wrong is found.
    """

    name: str
    cases: int
    worst: float
    limit: float
    unit: str
    at: str = ""
    at_least: bool = False

    @property
    def passed(self) -> bool:
        """Whether the limit is kept; NaN keeps none."""
        return self.worst >= self.limit if self.at_least else self.worst <= self.limit


def worst_of(
    name: str, values: Mapping[str, float], limit: float, unit: str, at_least: bool = False
) -> Check:
    """Return the worst of the values of some cases, which is NaN wherever there is one.

    Example:
        >>> found = worst_of("error", {"one": 1e-9, "two": 3e-9}, 1e-8, "nats")
        >>> found.at, found.passed
        ('two', True)
    """
    if not values:
        return Check(name, 0, math.nan, limit, unit, "no cases", at_least)
    sign = -1.0 if at_least else 1.0
    at = max(
        values, key=lambda case: math.inf if math.isnan(values[case]) else sign * values[case]
    )
    return Check(name, len(values), float(values[at]), limit, unit, at, at_least)


def none_missing(name: str, cases: int, missing: Iterable[str]) -> Check:
    """Return the check that nothing of a table goes untested, naming what does."""
    names = list(missing)
    return Check(name, cases, len(names), 0, "missing", ", ".join(names))


def z_limit(comparisons: int, most: float) -> float:
    r"""Return how many standard errors the largest of some comparisons may be away.

    .. math:: \Phi^{-1}\left(1 - \frac{\alpha}{2 n}\right)

    the Bonferroni bound with which a right result is called wrong with a probability of at most
    :math:`\alpha = 0.01` over the seeds, whatever the comparisons have to do with each other.

    Args:
        comparisons: Their number :math:`n`.
        most: A limit from elsewhere, which is kept where it is the smaller.

    Example:
        >>> round(z_limit(1, most=4.0), 2), z_limit(1000, most=4.0)
        (2.58, 4.0)
    """
    return min(most, NormalDist().inv_cdf(1 - FALSE_ALARM / (2 * comparisons)))


def deviation(samples: Tensor, expected: Tensor) -> Tensor:
    """Return how many standard errors the means of samples are away from what is expected.

    Args:
        samples: Independent along the first dimension, of shape ``(samples, *batch)``.
        expected: Their expectations, of shape ``batch``.
    """
    error = samples.std(0) / math.sqrt(len(samples))
    return (samples.mean(0) - expected).abs() / (error + ROUNDING * (1 + samples.abs().mean(0)))


def largest(errors: Tensor) -> float:
    """Return the largest size of some errors; NaN if any is."""
    return float(torch.as_tensor(errors).detach().abs().max())
