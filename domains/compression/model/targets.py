"""The rate index at which a file has a wanted size, or a picture a wanted PSNR."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NoReturn

from core.runtime.errors import UserError
from domains.compression.model.rates import LAST, MIDDLE

MOST_TRIALS, TRIALS_WITHOUT_EFFORT = 8, 5
PEAK, MOST_PSNR_DB = 255.0, 99.99

Kind = Literal["bpp", "bytes", "psnr"]
_SHOWN = {
    "bpp": ("--target-bpp", "bits per pixel", ".4g"),
    "bytes": ("--target-bytes", "bytes", ",.0f"),
    "psnr": ("--target-psnr", "dB", ".2f"),
}  # option, unit and digits
OVERSHOOT = 1.5  # past where the target should be, to have it between two sooner
_SIZE_PER_INDEX, _PSNR_PER_INDEX = 0.009, 0.04  # in logarithms and dB, where nothing is known yet
_SIZE_WITHIN, _PSNR_WITHIN = math.log(1.01), 0.05


@dataclass(frozen=True)
class Target:
    """What is wanted of a file.

    Args:
        kind: ``"bpp"``, ``"bytes"`` or ``"psnr"``.
        value: How much of it.

    Raises:
        ValueError: If it is not above 0 and finite.
    """

    kind: Kind
    value: float

    def __post_init__(self) -> None:
        if not 0 < self.value < math.inf:
            raise ValueError(f"target: {self.value} {self.kind}; above 0")

    def met(self, value: float) -> bool:
        """Return whether a value is near enough."""
        return abs(self.off(value)) <= self.within

    def off(self, value: float) -> float:
        """Return how far a value is above what is wanted: in logarithms of size, or in dB."""
        if self.kind == "psnr":
            return value - self.value
        return math.log(value / self.value)

    @property
    def within(self) -> float:
        """How far off is near enough."""
        return _PSNR_WITHIN if self.kind == "psnr" else _SIZE_WITHIN

    @property
    def slope(self) -> float:
        """How much a rate index usually changes it."""
        return _PSNR_PER_INDEX if self.kind == "psnr" else _SIZE_PER_INDEX


@dataclass(frozen=True)
class Found:
    """The rate index that came nearest.

    Args:
        rate: Rate index.
        value: What is reached there.
        trials: How many rate indices were tried.
        outside: Whether even the first gives more, or even the last less than what is wanted.
    """

    rate: int
    value: float
    trials: int
    outside: bool


def psnr_db(mean_squared_error: float) -> float:
    """Return the PSNR of a squared error in grey levels of 8 bits, 99.99 at most."""
    if mean_squared_error <= 0:
        return MOST_PSNR_DB
    return min(10 * math.log10(PEAK**2 / mean_squared_error), MOST_PSNR_DB)


def search(
    measure: Callable[[int], float],
    target: Target,
    start: int = MIDDLE,
    most: int = MOST_TRIALS,
) -> Found:
    """Find the rate index at which a target is met.

    What it gives is taken to grow with the index, small exceptions aside. From a first index it
    goes on by the usual slope until the target lies between two, then by their line, and by
    halves where that does not converge. Where no index is near enough, or trials run out, the
    nearest of those tried is returned.

    Args:
        measure: What a rate index gives.
        target: What is wanted.
        start: Rate index to try first.
        most: How many trials are allowed.

    Example:
        >>> search(lambda rate: 0.1 * 1.01**rate, Target("bpp", 0.5), most=4).rate
        162
    """
    values: dict[int, float] = {}
    low, high = -1, LAST + 1  # the wanted index is between these
    widths: list[int] = []
    rate = start
    while True:
        values[rate] = measure(rate)
        off = target.off(values[rate])
        low, high = (rate, high) if off < 0 else (low, rate)
        if target.met(values[rate]) or len(values) == most or high - low <= 1:
            break
        widths.append(high - low)
        rate = _between(low, high, _guess(values, target, low, high, widths))
    nearest = min(values, key=lambda each: abs(target.off(values[each])))
    outside = not target.met(values[nearest]) and (low == LAST or high == 0)
    return Found(nearest, values[nearest], len(values), outside)


def refuse(target: Target, lowest: float, highest: float) -> NoReturn:
    """Say what can be reached, if the target cannot.

    Args:
        target: What is wanted.
        lowest: What the lowest rate index gives.
        highest: What the highest gives.

    Raises:
        UserError: Always.
    """
    option, unit, digits = _SHOWN[target.kind]
    wanted, low, high = (format(value, digits) for value in (target.value, lowest, highest))
    raise UserError(f"{option}: got {wanted}; this picture can have {low} to {high} {unit}")


def _guess(
    values: Mapping[int, float], target: Target, low: int, high: int, widths: Sequence[int]
) -> float:
    """Return where the target should be, given what was measured."""
    if low < 0 or high > LAST:
        known = high if low < 0 else low
        return known - target.off(values[known]) / target.slope * OVERSHOOT
    if len(widths) >= 3 and 2 * widths[-1] > widths[-3]:
        return (low + high) / 2
    below, above = target.off(values[low]), target.off(values[high])
    return low + (high - low) * below / (below - above)


def _between(low: int, high: int, guess: float) -> int:
    return min(max(round(guess), low + 1), high - 1)
