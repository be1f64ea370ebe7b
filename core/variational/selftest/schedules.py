"""Schedules: at their target in the end, never out of range, rising where they say so."""

from __future__ import annotations

import itertools

from core.variational.schedules import (
    SCHEDULES,
    Capacity,
    Constant,
    Cosine,
    Cyclical,
    Exponential,
    Linear,
    Schedule,
    learning_rate_factor,
)
from core.variational.selftest.check import Check, none_missing, worst_of

FRACTIONS = [step / 1000 for step in range(1001)]
WARMUPS = (0.0, 0.1, 1 / 3, 0.99)
# Each with the value that it ends at.
RISING: dict[str, tuple[Schedule, float]] = {
    "constant": (Constant(2.5), 2.5),
    **{f"linear, {w:.2g}": (Linear(w, 0.1, 0.7), 0.7) for w in WARMUPS},
    **{f"cosine, {w:.2g}": (Cosine(w, 0.1, 0.7), 0.7) for w in WARMUPS},
    **{f"exponential, {w:.2g}": (Exponential(w, 1e-3, 0.7), 0.7) for w in WARMUPS},
    **{f"capacity, {w:.2g}": (Capacity(25.0, w), 25.0) for w in WARMUPS},
}
CYCLICAL: dict[str, tuple[Schedule, float]] = {
    f"cyclical, {n}": (Cyclical(n, 0.5, 0.1, 0.7), 0.7) for n in (1, 3, 4)
}


def check_schedules() -> list[Check]:
    """Hold every schedule to its target and to its range."""
    every = RISING | CYCLICAL
    away = {name: abs(schedule(1.0) - end) for name, (schedule, end) in every.items()}
    outside = {name: _outside(schedule) for name, (schedule, _) in every.items()}
    falls = {name: _fall(schedule) for name, (schedule, _) in RISING.items()}
    kinds = {type(schedule) for schedule, _ in every.values()}
    missing = [kind for kind, build in SCHEDULES.items() if build not in kinds]
    rates = {f"warm-up {w:.2g}": abs(learning_rate_factor("cosine", w, w) - 1) for w in WARMUPS}
    return [
        worst_of("distance from the target at the end", away, 0, "absolute"),
        worst_of("outside of the range", outside, 0, "absolute"),
        worst_of("fall of what never falls", falls, 0, "absolute"),
        worst_of("learning rate after its warm-up − 1", rates, 1e-12, "absolute"),
        none_missing("schedules that nothing tests", len(SCHEDULES), missing),
    ]


def _outside(schedule: Schedule) -> float:
    low, high = schedule.range
    values = [schedule(fraction) for fraction in FRACTIONS]
    return max(0.0, low - min(values), max(values) - high)


def _fall(schedule: Schedule) -> float:
    values = [schedule(fraction) for fraction in FRACTIONS]
    return max(0.0, *(before - after for before, after in itertools.pairwise(values)))
