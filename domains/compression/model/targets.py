"""The rate index at which a file has a wanted size, or a picture a wanted PSNR."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from core.runtime.errors import UserError
from domains.compression.model.rates import LAST, MIDDLE

MOST_TRIALS = 8
PEAK, MOST_PSNR_DB = 255.0, 99.99

Kind = Literal["bpp", "bytes", "psnr"]
_OPTIONS: dict[str, tuple[str, str]] = {
    "bpp": ("--target-bpp", "bits per pixel"),
    "bytes": ("--target-bytes", "bytes"),
    "psnr": ("--target-psnr", "dB"),
}
_SIZE_PER_INDEX, _PSNR_PER_INDEX = 0.009, 0.04  # in logarithms and dB, where nothing is known yet
_SIZE_WITHIN, _PSNR_WITHIN = math.log(1.01), 0.05


@dataclass(frozen=True)
class Target:
    """What is wanted of a file.

    Args:
        kind: ``"bpp"``, ``"bytes"`` or ``"psnr"``.
        value: How much of it.
    """

    kind: Kind
    value: float

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
    """

    rate: int
    value: float
    trials: int


def psnr_db(mean_squared_error: float) -> float:
    """Return the PSNR of a squared error in grey levels of 8 bits, 99.99 at most."""
    if mean_squared_error <= 0:
        return MOST_PSNR_DB
    return min(10 * math.log10(PEAK**2 / mean_squared_error), MOST_PSNR_DB)


def search(measure: Callable[[int], float], target: Target) -> Found:
    """Find the rate index at which a target is met, in at most 8 trials.

    Interpolates between what was measured while that converges, else halves what is left; where
    no index comes near enough the nearest that was tried is returned.

    Args:
        measure: What a rate index gives; it grows, all but for small exceptions.
        target: What is wanted.

    Raises:
        UserError: If it is less than the lowest rate gives, or more than the highest.
    """
    values: dict[int, float] = {}
    low, high = -1, LAST + 1  # below and above the wanted index
    rate = MIDDLE
    while True:
        values[rate] = measure(rate)
        off = target.off(values[rate])
        if abs(off) <= target.within or len(values) == MOST_TRIALS:
            break
        low, high = (rate, high) if off < 0 else (low, rate)
        if high - low <= 1:
            break
        rate = _next(values, target, low, high)
    best = min(values, key=lambda each: abs(target.off(values[each])))
    if low == LAST or high == 0:
        _refuse(measure, values, target)
    return Found(best, values[best], len(values))


def _next(values: dict[int, float], target: Target, low: int, high: int) -> int:
    """Return the index to try next, strictly between two."""
    tried = len(values)
    inside = low >= 0 and high <= LAST
    if tried % 3 == 0 and inside:
        return (low + high) // 2
    if inside:
        below, above = target.off(values[low]), target.off(values[high])
        guess = low + (high - low) * below / (below - above)
    else:
        known = low if low >= 0 else high
        off = target.off(values[known])
        guess = known - off / target.slope * 1.1
    return min(max(round(guess), low + 1), high - 1)


def _refuse(measure: Callable[[int], float], values: dict[int, float], target: Target) -> None:
    """Say what can be reached."""
    ends = [values[end] if end in values else measure(end) for end in (0, LAST)]
    option, unit = _OPTIONS[target.kind]
    shown = [f"{value:,.0f}" if target.kind == "bytes" else f"{value:.3g}" for value in ends]
    wanted = f"{target.value:,.0f}" if target.kind == "bytes" else f"{target.value:.4g}"
    raise UserError(
        f"{option}: got {wanted}; this picture can have {shown[0]} to {shown[1]} {unit}"
    )
