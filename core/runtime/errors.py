"""The errors a person meets: one line each, and the exit status that goes with it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path


class UserError(Exception):
    """A mistake in a file, key, name or format: printed without a traceback, exit status 2.

    The message reads *where: what was given; what is allowed; what to do*, in one line.
    """


class RunFailed(Exception):
    """The work itself failed (a term went non-finite, the disk is full): exit status 1."""


class Interrupted(Exception):
    """A signal stopped the work after a checkpoint: exit status 3, resumable."""

    def __init__(self, run: Path, how: str = "") -> None:
        super().__init__(f"interrupted; {how or f'go on with: latentworks resume {run}'}")
        self.run = run


def did_you_mean(given: str, allowed: Iterable[str]) -> str:
    """Return ``; did you mean 'x'?`` for the closest allowed word, else nothing.

    Example:
        >>> did_you_mean("iteration", ["iterations", "seed"])
        "; did you mean 'iterations'?"
    """
    matches = difflib.get_close_matches(given, list(allowed), n=1, cutoff=0.6)
    return f"; did you mean {matches[0]!r}?" if matches else ""
