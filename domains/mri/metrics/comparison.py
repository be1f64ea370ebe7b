"""Whether a method is better than the best classical one on the same slices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from core.runtime.statistics import Interval, difference_interval
from domains.mri.metrics import quality
from domains.mri.metrics.protocols import Scores

Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Difference:
    """How far the mean of a method is from that of another one.

    Args:
        method: Its name.
        baseline: Name of the other one.
        measure: As `quality.BETTER` names it.
        value: Mean of the method minus mean of the baseline.
        interval: 95 % paired bootstrap interval of it; None where there is one unit to draw.
        won: Share of slices or volumes on which the method is better; equal ones count half.
        n: Number of slices or volumes.
        drawn: What the bootstrap draws, and how many.
        protocol: How values were taken, in words.
    """

    method: str
    baseline: str
    measure: str
    value: float
    interval: Interval | None
    won: float
    n: int
    drawn: str
    protocol: str

    @property
    def verdict(self) -> Literal["better", "worse", "undecided"]:
        """Whether the interval is on one side of 0, and on which."""
        if self.interval is None or self.interval[0] <= 0 <= self.interval[1]:
            return "undecided"
        above = self.interval[0] > 0
        return "better" if above == (quality.BETTER[self.measure] == "higher") else "worse"


def best_of(scores: Mapping[str, Scores], measure: str, methods: Sequence[str]) -> str:
    """Return which of some methods has the best mean; of equal ones the first.

    Raises:
        ValueError: If none is among the scores.
    """
    known = [method for method in methods if method in scores]
    if not known:
        raise ValueError(f"none of {list(methods)} among the scores of {list(scores)}")
    sign = 1 if quality.BETTER[measure] == "higher" else -1
    return max(known, key=lambda method: sign * scores[method].mean(measure))


def against_best(
    scores: Mapping[str, Scores],
    measure: str,
    classical: Sequence[str],
    subjects: Sequence[str] | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Difference]:
    """Compare each method that isn't classical with the best classical one.

    The best is chosen on these very slices, which favours it; the interval doesn't count the
    choice. An interval over slices speaks of slices of these heads, one over subjects of heads.

    Args:
        scores: Of each method, on the same slices in the same order.
        measure: As `quality.BETTER` names it.
        classical: Names of the classical methods.
        subjects: Whose head each slice is of, with those that were left out; the bootstrap then
            draws heads with all their slices.
        resamples: Of the bootstrap.
        seed: Of the bootstrap.

    Raises:
        ValueError: If scores are of other slices or of another protocol, or no classical method
            is among them.
    """
    best = best_of(scores, measure, classical)
    base = scores[best]
    groups = _groups(base, subjects)
    units = int(groups.max()) + 1
    unit = base.protocol.unit if subjects is None else "subject"
    found = {}
    for method, own in scores.items():
        if method in classical:
            continue
        if own.words != base.words or not np.array_equal(own.kept, base.kept):
            raise ValueError(f"{method}: {own.words}; but {best}: {base.words}, or other slices")
        a, b = base.values[measure], own.values[measure]
        found[method] = Difference(
            method=method,
            baseline=best,
            measure=measure,
            value=float(b.mean() - a.mean()),
            interval=_interval(a, b, groups, resamples, seed) if units > 1 else None,
            won=_won(a, b, quality.BETTER[measure] == "higher"),
            n=len(a),
            drawn=f"{units} {unit}{'s' if units > 1 else ''}",
            protocol=base.words,
        )
    return found


def _interval(
    a: Array, b: Array, groups: NDArray[np.int64], resamples: int, seed: int
) -> Interval:
    """Of the mean of b minus that of a, from whole groups of slices."""
    counts = np.bincount(groups).astype(np.float64)
    one, other = ([np.bincount(groups, weights=values), counts] for values in (a, b))
    return difference_interval(_ratio, one, other, resamples=resamples, seed=seed)


def _won(a: Array, b: Array, higher: bool) -> float:
    gain = b - a if higher else a - b
    return float(((gain > 0) + (gain == 0) / 2).mean())


def _groups(base: Scores, subjects: Sequence[str] | None) -> NDArray[np.int64]:
    """Number of the unit that each value is of."""
    if subjects is None:
        return np.arange(len(base))
    if len(subjects) != len(base.kept):
        raise ValueError(
            f"{len(subjects)} subjects of {len(base.kept)} {base.protocol.unit}s; expected one of "
            "each, with those left out"
        )
    kept = [name for name, has in zip(subjects, base.kept, strict=True) if has]
    return np.unique(np.array(kept), return_inverse=True)[1].astype(np.int64)


def _ratio(sums: Array, counts: Array, axis: int = -1) -> Any:
    return sums.sum(axis) / counts.sum(axis)
