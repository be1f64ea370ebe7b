"""Which photographs are trained on, chosen with and tested on."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from core.contract import Split
from core.runtime.errors import UserError

SPLITS: tuple[Split, ...] = ("train", "valid", "test")


def split(
    hashes: Sequence[str],
    seed: int,
    valid: float,
    test: float | None,
    place: str,
    left_out: Sequence[str] = (),
) -> list[Split]:
    """Say of each photograph which split it is in; the whole of it is in one.

    The order is that of a hash of the seed and of the photograph's own; so what is in a split does
    not depend on names, and little on what other photographs there are.

    Args:
        hashes: SHA-256 of each file, no two alike.
        seed: Of the run.
        valid: Share to choose a model with, at least one photograph.
        test: Share to test on, at least one; None where the test has pictures of its own.
        place: What messages call the source.
        left_out: Why others cannot be used, for the message.

    Raises:
        UserError: If there are too few for each split to have one.
    """
    count = len(hashes)
    tested = 0 if test is None else max(round(test * count), 1)
    chosen = max(round(valid * count), 1)
    if tested + chosen >= count:
        needed = "train, valid and test" if tested else "train and valid"
        more = ", or name a folder for the test in data.test" if tested else ""
        why = f" ({'; '.join(left_out)})" if left_out else ""
        raise UserError(
            f"{place}: {count} usable photograph{'s' * (count != 1)}, of which "
            f"data.valid_fraction and data.test_fraction take {tested + chosen}; expected at "
            f"least one for each of {needed}; add photographs{more}{why}"
        )
    keys = [hashlib.sha256(f"{seed}/split/{one}".encode()).digest() for one in hashes]
    names: list[Split] = ["train"] * count
    for rank, place_of in enumerate(sorted(range(count), key=keys.__getitem__)):
        if rank < tested + chosen:
            names[place_of] = "test" if rank < tested else "valid"
    return names
