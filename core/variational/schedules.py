"""Factors as functions of the fraction of training done, from 0 at the start to 1 at the end.

A fraction and not a number of epochs: a schedule keeps its shape when the training gets longer.
It has no state either, so that a resumed training is exactly where it was.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable


def check_warmup(warmup: float) -> float:
    """Return the length of a warm-up, or say that it would not end inside the training.

    Raises:
        ValueError: If it is not at least 0 and below 1.
    """
    if not 0 <= warmup < 1:
        raise ValueError(
            f"warmup: {warmup!r} is a fraction of the training that does not end inside it; "
            "give at least 0 and less than 1"
        )
    return warmup


def constant(fraction: float) -> float:
    """Return 1 at every fraction of the training.

    Raises:
        ValueError: If the fraction is not in [0, 1].
    """
    _check_fraction(fraction)
    return 1.0


def linear_warmup(fraction: float, warmup: float) -> float:
    r"""Return a factor that rises linearly from 0 to 1 and then stays there.

    .. math:: \min(1, t / w)

    References:
        Sønderby et al., "Ladder Variational Autoencoders", NeurIPS 2016 (arXiv:1602.02282): the
        warm-up of the KL.

    Args:
        fraction: Fraction of the training done :math:`t`.
        warmup: Fraction of the training over which it rises :math:`w`; 0 for none.

    Raises:
        ValueError: If the warm-up does not end inside the training, or the fraction is not in
            [0, 1].

    Example:
        >>> linear_warmup(0.1, warmup=0.2)
        0.5
    """
    _check_fraction(fraction)
    return 1.0 if fraction >= check_warmup(warmup) else fraction / warmup


def cosine(fraction: float) -> float:
    r"""Return half a cosine, from 1 at the start down to 0 at the end.

    .. math:: \tfrac12 (1 + \cos \pi t)

    References:
        Loshchilov and Hutter, "SGDR: Stochastic Gradient Descent with Warm Restarts", ICLR 2017,
        eq. 5 (arXiv:1608.03983), without restarts.

    Args:
        fraction: Fraction of the training done :math:`t`.

    Raises:
        ValueError: If the fraction is not in [0, 1].

    Example:
        >>> cosine(0.5)
        0.5
    """
    _check_fraction(fraction)
    return 0.5 * (1 + math.cos(math.pi * fraction))


DECAYS = {"constant": constant, "cosine": cosine}


def learning_rate_factor(
    decay: Literal["constant", "cosine"], warmup: float, fraction: float
) -> float:
    """Return the factor on the learning rate: a linear warm-up, then the decay over what is left.

    Args:
        decay: The shape after the warm-up.
        warmup: Fraction of the training over which the rate rises from 0; 0 for none.
        fraction: Fraction of the training done.

    Raises:
        ValueError: If the warm-up does not end inside the training, or the fraction is not in
            [0, 1].

    Example:
        >>> learning_rate_factor("cosine", warmup=0.5, fraction=0.75)
        0.5
    """
    rise = linear_warmup(fraction, warmup)
    return rise if rise < 1 else DECAYS[decay]((fraction - warmup) / (1 - warmup))


@runtime_checkable
class Schedule(Protocol):
    """A number for every fraction of the training: its target at the end, never out of range."""

    @property
    def range(self) -> tuple[float, float]:
        """The least and the greatest value it takes."""
        ...

    def __call__(self, fraction: float) -> float:
        """Return the number at this fraction of the training."""
        ...


@dataclass(frozen=True)
class Constant:
    """One value at every fraction of the training.

    Args:
        end: The value.

    Raises:
        ValueError: If the value is not finite, or a fraction is not in [0, 1].

    Example:
        >>> Constant(2.0)(0.3)
        2.0
    """

    end: float = 1.0

    def __post_init__(self) -> None:
        _check_ends(self, self.end)

    @property
    def range(self) -> tuple[float, float]:
        """The value, twice."""
        return self.end, self.end

    def __call__(self, fraction: float) -> float:
        """Return the value."""
        return _between(self.end, self.end, constant(fraction))


@dataclass(frozen=True)
class Linear:
    r"""A straight line over the warm-up, then its end: monotone.

    .. math:: a + (b - a) \min(1, t / w)

    References:
        Sønderby et al., "Ladder Variational Autoencoders", NeurIPS 2016 (arXiv:1602.02282): the
        warm-up of the KL.

    Args:
        warmup: Fraction of the training that it takes :math:`w`; 0 for none.
        start: Where it starts :math:`a`.
        end: Where it ends :math:`b`.

    Raises:
        ValueError: If the warm-up does not end inside the training, an end is not finite, or a
            fraction is not in [0, 1].

    Example:
        >>> Linear(warmup=0.5)(0.25)
        0.5
    """

    warmup: float
    start: float = 0.0
    end: float = 1.0

    def __post_init__(self) -> None:
        check_warmup(self.warmup)
        _check_ends(self, self.start, self.end)

    @property
    def range(self) -> tuple[float, float]:
        """The lower and the higher end."""
        return _sorted(self.start, self.end)

    def __call__(self, fraction: float) -> float:
        """Return the value at this fraction of the training."""
        return _between(self.start, self.end, linear_warmup(fraction, self.warmup))


@dataclass(frozen=True)
class Cosine:
    r"""Half a cosine over the warm-up, then its end: monotone, without corners.

    .. math:: a + (b - a) \tfrac12 (1 - \cos \pi \min(1, t / w))

    Args:
        warmup: Fraction of the training that it takes :math:`w`; 0 for none.
        start: Where it starts :math:`a`.
        end: Where it ends :math:`b`.

    Raises:
        ValueError: If the warm-up does not end inside the training, an end is not finite, or a
            fraction is not in [0, 1].

    Example:
        >>> Cosine(warmup=0.5)(0.25)
        0.5
    """

    warmup: float
    start: float = 0.0
    end: float = 1.0

    def __post_init__(self) -> None:
        check_warmup(self.warmup)
        _check_ends(self, self.start, self.end)

    @property
    def range(self) -> tuple[float, float]:
        """The lower and the higher end."""
        return _sorted(self.start, self.end)

    def __call__(self, fraction: float) -> float:
        """Return the value at this fraction of the training."""
        progress = 1 - cosine(linear_warmup(fraction, self.warmup))
        return _between(self.start, self.end, progress)


@dataclass(frozen=True)
class Exponential:
    r"""A geometric path over the warm-up, then its end: monotone, for temperatures.

    .. math:: a \, (b / a)^{\min(1, t / w)}

    References:
        Jang et al., "Categorical Reparameterization with Gumbel-Softmax", ICLR 2017
        (arXiv:1611.01144), for the annealed temperature, there in steps.

    Args:
        warmup: Fraction of the training that it takes :math:`w`; 0 for none.
        start: Where it starts :math:`a > 0`.
        end: Where it ends :math:`b > 0`.

    Raises:
        ValueError: If the warm-up does not end inside the training, an end is not finite and
            above 0, or a fraction is not in [0, 1].

    Example:
        >>> round(Exponential(warmup=0.5, start=1.0, end=0.25)(0.25), 12)
        0.5
    """

    warmup: float
    start: float
    end: float

    def __post_init__(self) -> None:
        check_warmup(self.warmup)
        _check_ends(self, self.start, self.end)
        if not (self.start > 0 and self.end > 0):
            raise ValueError(
                f"Exponential: from {self.start!r} to {self.end!r}; both must be above 0"
            )

    @property
    def range(self) -> tuple[float, float]:
        """The lower and the higher end."""
        return _sorted(self.start, self.end)

    def __call__(self, fraction: float) -> float:
        """Return the value at this fraction of the training."""
        progress = linear_warmup(fraction, self.warmup)
        value = math.exp(_between(math.log(self.start), math.log(self.end), progress))
        return self.end if progress == 1 else _clamp(value, *self.range)


@dataclass(frozen=True)
class Cyclical:
    r"""Linear warm-ups one after the other, each followed by a rest at the end value.

    .. math:: a + (b - a) \min(1, \tau / R), \quad \tau = M t \bmod 1

    and :math:`b` at :math:`t = 1`. Each new warm-up starts from what the last one has learned.

    References:
        Fu et al., "Cyclical Annealing Schedule: A Simple Approach to Mitigating KL Vanishing",
        NAACL 2019 (arXiv:1903.10145), whose four cycles, half of each rising, are the defaults.

    Args:
        cycles: How many :math:`M`.
        ratio: Fraction of a cycle that its warm-up takes :math:`R`.
        start: Where each cycle starts :math:`a`.
        end: Where each ends :math:`b`.

    Raises:
        ValueError: If there is no cycle, a warm-up does not end inside its cycle, an end is not
            finite, or a fraction is not in [0, 1].

    Example:
        >>> [Cyclical(cycles=2)(fraction) for fraction in (0.0, 0.125, 0.4, 0.5, 1.0)]
        [0.0, 0.5, 1.0, 0.0, 1.0]
    """

    cycles: int = 4
    ratio: float = 0.5
    start: float = 0.0
    end: float = 1.0

    def __post_init__(self) -> None:
        _check_ends(self, self.start, self.end)
        if self.cycles < 1 or not 0 < self.ratio <= 1:
            raise ValueError(
                f"Cyclical: {self.cycles!r} cycles with a warm-up of {self.ratio!r} of each; give "
                "at least 1 cycle, and a ratio above 0 and at most 1"
            )

    @property
    def range(self) -> tuple[float, float]:
        """The lower and the higher end."""
        return _sorted(self.start, self.end)

    def __call__(self, fraction: float) -> float:
        """Return the value at this fraction of the training."""
        _check_fraction(fraction)
        phase = 1.0 if fraction == 1 else math.fmod(self.cycles * fraction, 1)
        return _between(self.start, self.end, min(1.0, phase / self.ratio))


@dataclass(frozen=True)
class Capacity:
    r"""The capacity :math:`C(t)` that a KL is held at, rising linearly, in nats per example.

    .. math:: \gamma \, | KL - C(t) |

    References:
        Burgess et al., "Understanding disentangling in β-VAE", 2018, eq. 8 (arXiv:1804.03599).

    Args:
        end: Capacity at the end, in nats.
        warmup: Fraction of the training over which it rises; 0 for none.
        start: Capacity at the start, in nats.

    Raises:
        ValueError: If the warm-up does not end inside the training, a capacity is negative or not
            finite, or a fraction is not in [0, 1].

    Example:
        >>> Capacity(end=25.0, warmup=0.5)(0.25)
        12.5
    """

    end: float
    warmup: float
    start: float = 0.0

    def __post_init__(self) -> None:
        check_warmup(self.warmup)
        _check_ends(self, self.start, self.end)
        if self.start < 0 or self.end < 0:
            raise ValueError(
                f"Capacity: from {self.start!r} to {self.end!r} nats; a KL is never below 0"
            )

    @property
    def range(self) -> tuple[float, float]:
        """The lower and the higher end, in nats."""
        return _sorted(self.start, self.end)

    def __call__(self, fraction: float) -> float:
        """Return the capacity at this fraction of the training, in nats."""
        return _between(self.start, self.end, linear_warmup(fraction, self.warmup))


SCHEDULES: dict[str, Callable[..., Schedule]] = {
    "constant": Constant,
    "linear": Linear,
    "cosine": Cosine,
    "cyclical": Cyclical,
}


def _between(start: float, end: float, progress: float) -> float:
    """Interpolate; the end exactly at 1, and within the ends whatever the rounding."""
    if progress == 1:
        return end
    return _clamp(start + (end - start) * progress, *_sorted(start, end))


def _clamp(value: float, low: float, high: float) -> float:
    return min(max(value, low), high)


def _sorted(one: float, other: float) -> tuple[float, float]:
    return (one, other) if one <= other else (other, one)


def _check_ends(schedule: object, *ends: float) -> None:
    if not all(math.isfinite(end) for end in ends):
        given = " and ".join(map(repr, ends))
        raise ValueError(f"{type(schedule).__name__}: {given}; a value must be finite")


def _check_fraction(fraction: float) -> None:
    if not 0 <= fraction <= 1:
        raise ValueError(f"fraction: {fraction!r} of the training; it runs from 0 to 1")
