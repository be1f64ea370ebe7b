"""Which heads are trained on, chosen with and tested on; where they are too few, which slices."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from core.contract import Split
from core.runtime.errors import UserError, did_you_mean
from domains.mri.config import Data

SPLITS: tuple[Split, ...] = ("train", "valid", "test")
ALONG: tuple[Split, ...] = ("test", "train", "valid")  # parts of one head, along an axis
ENOUGH = 4  # heads that are not tested on, of which one is then taken to choose a model with


@dataclass(frozen=True)
class Plan:
    """What each head is for.

    Args:
        splits: Of each subject; a head that is shared counts as trained on.
        shared: Subject of the one head of which validation, or test as well, takes slices.
        parts: What its slices are parted into, in order.
    """

    splits: Mapping[str, Split]
    shared: str | None = None
    parts: tuple[Split, ...] = ("train",)

    @property
    def notes(self) -> tuple[str, ...]:
        """Say what a reader must know of a head that is in more than one split."""
        if self.shared is None:
            return ()
        if "test" in self.parts:
            return (
                f"only one head ({self.shared}): train, valid and test are parts of it, far-apart "
                "slices of one axis with a gap between; the test says nothing about other heads",
            )
        return (
            f"no head to choose a model with: the end slices of {self.shared}, which is trained "
            "on, are taken for it, with a gap between; of it only slices of one axis are used",
        )


def plan(subjects: Sequence[str], data: Data, place: str) -> Plan:
    """Say what each head is for; a head is in one split unless there are too few.

    Args:
        subjects: Whose heads there are.
        data: The settings; those without names are chosen by a hash of the seed and the name.
        place: What messages call the source.

    Raises:
        UserError: If the settings name a subject that is not there, or leave none to train on.
    """
    _check_named(subjects, data, place)
    free = [one for one in subjects if one not in {*data.valid_subjects, *data.test_subjects}]
    free.sort(key=lambda one: hashlib.sha256(f"{data.seed}/split/{one}".encode()).digest())
    splits: dict[str, Split] = dict.fromkeys(data.valid_subjects, "valid")
    splits |= dict.fromkeys(data.test_subjects, "test")
    if not data.test_subjects and len(free) > 1:
        splits[free.pop()] = "test"
    if not data.valid_subjects and len(free) >= ENOUGH:
        splits[free.pop()] = "valid"
    if not free:
        raise UserError(
            f"{place}: all {len(subjects)} subjects ({', '.join(sorted(subjects))}) are for "
            "validation or test; expected one at least to train on; take one out of "
            "data.valid_subjects or data.test_subjects, or add heads"
        )
    splits |= dict.fromkeys(free, "train")
    present = set(splits.values())
    if len(present) == len(SPLITS):
        return Plan(splits)
    parts: tuple[Split, ...] = tuple(one for one in ALONG if one == "train" or one not in present)
    return Plan(splits, max(free), parts)


def _check_named(subjects: Sequence[str], data: Data, place: str) -> None:
    for setting in ("valid_subjects", "test_subjects"):
        for name in getattr(data, setting):
            if name not in subjects:
                raise UserError(
                    f"{place}: no subject {name!r}, which data.{setting} names; there are "
                    f"{', '.join(sorted(subjects))}{did_you_mean(name, subjects)}"
                )


def parted(
    where: NDArray[np.int64], spacing_mm: float, plan: Plan, data: Data, place: str
) -> dict[Split, NDArray[np.int64]]:
    """Part the slices of a shared head; between two parts slices are left out.

    Args:
        where: Indices of its slices along one axis, in order.
        spacing_mm: Between indices.
        plan: What each head is for.
        data: The settings.
        place: What messages call the head.

    Raises:
        UserError: If a part is left without slices.
    """
    shares = {"valid": data.valid_fraction, "test": data.test_fraction}
    counts = {
        part: max(round(shares[part] * len(where)), 1) for part in plan.parts if part != "train"
    }
    counts["train"] = max(len(where) - sum(counts.values()), 0)
    edges = np.cumsum([0, *(counts[part] for part in plan.parts)])
    found: dict[Split, NDArray[np.int64]] = {}
    for part, start, stop in zip(plan.parts, edges, edges[1:], strict=False):
        kept = where[start:stop]
        if part == "train":  # gaps are taken from where most is
            before, after = where[:start], where[stop:]
            kept = kept[_far(kept, before, spacing_mm, data) & _far(kept, after, spacing_mm, data)]
        if not len(kept):
            raise UserError(
                f"{place}: {len(where)} usable slices leave none for {part} with data.gap_mm "
                f"{data.gap_mm:g}; expected one at least; make the gap or data.step smaller, or "
                "add heads"
            )
        found[part] = kept
    return found


def _far(
    where: NDArray[np.int64], others: NDArray[np.int64], spacing_mm: float, data: Data
) -> NDArray[np.bool_]:
    """Say which slices are far from all others."""
    away = np.abs(np.subtract.outer(where, others)) * spacing_mm
    return np.asarray((away >= data.gap_mm).all(axis=1))


def spread_out(count: int, most: int | None) -> NDArray[np.int64]:
    """Return at most so many of the indices below a count, evenly spread.

    Example:
        >>> spread_out(10, 4).tolist()
        [1, 3, 6, 8]
    """
    kept = count if most is None else min(most, count)
    return (2 * np.arange(kept) + 1) * count // (2 * max(kept, 1))
