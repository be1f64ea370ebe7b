"""Arguments that are one word of several."""

from __future__ import annotations

from collections.abc import Sequence


def check_choice(what: str, given: str, allowed: Sequence[str]) -> None:
    """Refuse a word that is none of those allowed.

    Args:
        what: Where it was given, and its name.
        given: The word.
        allowed: The words that there are.

    Raises:
        ValueError: If it is another.

    Example:
        >>> check_choice("RoundingQuantizer: mode", "ceil", ("noise", "hard"))
        Traceback (most recent call last):
        ValueError: RoundingQuantizer: mode is 'ceil'; it must be one of noise, hard
    """
    if given not in allowed:
        raise ValueError(f"{what} is {given!r}; it must be one of {', '.join(allowed)}")
