"""Numbers and verdicts in words: no more digits and no more claims than an interval supports."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

ARROWS = {"higher": "↑", "lower": "↓", "none": ""}
MINUS, TIMES = "\N{MINUS SIGN}", "\N{MULTIPLICATION SIGN}"
MOST_DECIMALS = 7
_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def number(value: float, decimals: int | None = None) -> str:
    """Return a number for reading: thousands apart, four digits that matter unless told.

    Example:
        >>> [number(x) for x in (2708, 0.95712, 12345.6)]
        ['2,708', '0.9571', '12,346']
    """
    if not math.isfinite(value):
        return str(value)
    if isinstance(value, int):
        return _signed(f"{value:,}")
    if decimals is not None and decimals <= MOST_DECIMALS:
        return _signed(f"{value:,.{decimals}f}")
    size = 0 if value == 0 else math.floor(math.log10(abs(value)))
    if -4 <= size < 9:
        text = f"{value:,.{max(0, 3 - size)}f}"
        return _signed(text.rstrip("0").rstrip(".") if "." in text else text)
    mantissa, exponent = f"{value:.3e}".split("e")
    shortened = mantissa.rstrip("0").rstrip(".")
    return _signed(f"{shortened} {TIMES} 10{str(int(exponent)).translate(_SUPERSCRIPT)}")


def decimals_for(interval: Sequence[float] | None) -> int | None:
    """Return how many decimals an interval supports: two digits of its half-width."""
    if interval is None or not interval[1] > interval[0]:
        return None
    return max(0, 1 - math.floor(math.log10((interval[1] - interval[0]) / 2)))


def between(interval: Sequence[float] | None, decimals: int | None = None) -> str:
    """Return an interval for reading, e.g. ``0.949 to 0.964``; empty where there is none.

    Args:
        interval: Its ends.
        decimals: As many as the interval supports if not given.
    """
    if interval is None:
        return ""
    decimals = decimals_for(interval) if decimals is None else decimals
    return f"{number(float(interval[0]), decimals)} to {number(float(interval[1]), decimals)}"


@dataclass(frozen=True)
class Verdict:
    """What may be said of the primary metric, in a sentence: ``claim: detail``.

    Args:
        kind: Whether it beats its best floor beyond the interval.
        claim: The same in words.
        detail: The numbers behind it.
    """

    kind: Literal["beats", "does not beat", "cannot tell", "none"]
    claim: str
    detail: str = ""


def best_floor(metric: Mapping[str, Any]) -> tuple[str, float] | None:
    """Return the name and value of the floor that is hardest to beat."""
    floors, direction = metric.get("floors") or {}, metric["direction"]
    if not floors or direction == "none":
        return None
    choose = max if direction == "higher" else min
    return choose(sorted(floors.items()), key=lambda floor: floor[1])


def compare_with_floor(
    metric: Mapping[str, Any],
) -> Literal["beats", "does not beat", "cannot tell"]:
    """Say whether the whole interval of a metric lies on the better side of its best floor."""
    floor, interval = best_floor(metric), metric.get("interval")
    if floor is None or interval is None:
        return "cannot tell"
    low, high = interval if metric["direction"] == "higher" else (-interval[1], -interval[0])
    bar = floor[1] if metric["direction"] == "higher" else -floor[1]
    if low > bar:
        return "beats"
    return "does not beat" if high <= bar else "cannot tell"


def verdict(metrics: Mapping[str, Mapping[str, Any]]) -> Verdict:
    """Return what the primary metric says against its best floor."""
    name = next((name for name, metric in metrics.items() if metric.get("primary")), None)
    if name is None:
        return Verdict("none", "This run has no primary metric, so nothing is claimed")
    metric, floor = metrics[name], best_floor(metrics[name])
    if floor is None:
        return Verdict("none", name, f"{quantity(metric)}; there is no floor to compare it with.")
    bar = number(float(floor[1]), decimals_for(metric.get("interval")))
    against = f"{quantity(metric)} against {bar} of {floor[0]}"
    kind = compare_with_floor(metric)
    if kind == "cannot tell":
        inside = (
            "which lies inside the interval" if metric.get("interval") else "without an interval"
        )
        claim = f"Cannot tell whether {name} beats its best floor"
        return Verdict(kind, claim, f"{against}, {inside}.")
    return Verdict(kind, f"{name} {kind} its best floor", f"{against}.")


def quantity(metric: Mapping[str, Any]) -> str:
    """Return value, unit and interval, as in ``0.957 (95 % interval 0.949 to 0.964, n = 99)``."""
    value = number(float(metric["value"]), decimals_for(metric.get("interval")))
    unit = f" {metric['unit']}" if metric["unit"] else ""
    interval = f"95 % interval {between(metric['interval'])}, " if metric.get("interval") else ""
    return f"{value}{unit} ({interval}n = {number(metric['n'])})"


def _signed(text: str) -> str:
    """Use the minus sign, and none before a zero."""
    if text.startswith("-"):
        return text[1:] if not text.strip("-0.,") else MINUS + text[1:]
    return text
