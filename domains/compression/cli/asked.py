"""What was asked for on the command line, checked before anything heavy is imported."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any, get_args

from core.runtime.errors import UserError, did_you_mean
from domains.compression.config import Baseline, CompressionEvaluation

QUALITY, BEST = 32, 63
TARGETS = ("--quality", "--target-bpp", "--target-bytes", "--target-psnr")


def one_target(
    quality: int | None, bpp: float | None, size: int | None, psnr: float | None
) -> dict[str, Any]:
    """The one thing that a file is to meet; quality 32 if none was given.

    Raises:
        UserError: If there are two, or it is out of its range.
    """
    given: dict[str, Any] = dict(zip(TARGETS, (quality, bpp, size, psnr), strict=True))
    asked = [name for name, value in given.items() if value is not None]
    if len(asked) > 1:
        raise UserError(f"{' and '.join(asked)}: a file can meet one of them; leave out the other")
    if quality is not None and not 0 <= quality <= BEST:
        raise UserError(f"--quality: got {quality}, expected 0 (smallest) to {BEST} (best)")
    for name in asked:
        if name != "--quality" and not 0 < given[name] < math.inf:
            raise UserError(f"{name}: got {given[name]:g}, expected more than 0")
    if not asked:
        quality = QUALITY
    return {"quality": quality, "target_bpp": bpp, "target_bytes": size, "target_psnr": psnr}


def effort(given: int) -> int:
    """How hard to look for a better code.

    Raises:
        UserError: If it is not 0 to 3.
    """
    if not 0 <= given <= 3:
        raise UserError(f"--effort: got {given}, expected 0 (fast) to 3 (about a minute)")
    return given


def pixels(given: int | None) -> int | None:
    """How many pixels a picture may have; None for as many as usual.

    Raises:
        UserError: If it is not 1 or more.
    """
    if given is not None and given < 1:
        raise UserError(f"--max-pixels: got {given}, expected at least 1")
    return given


def side(given: int | None) -> int | None:
    """The side of a tile.

    Raises:
        UserError: If it is not 1 or more.
    """
    if given is not None and given < 1:
        raise UserError(f"--tile: got {given}, expected pixels of a side, as 1024")
    return given


def place_of(given: str | None) -> tuple[int, int] | None:
    """A tile's row and column; None if none is named.

    Raises:
        UserError: If it is no such pair.

    Example:
        >>> place_of("2,0")
        (2, 0)
    """
    if given is None:
        return None
    match = re.fullmatch(r"\s*(\d{1,6})\s*,\s*(\d{1,6})\s*", given)
    if match is None:
        raise UserError(f"--tile: got {given!r}, expected row,column counted from 0, as 1,0")
    return int(match[1]), int(match[2])


def baselines(given: str | None) -> tuple[Baseline, ...]:
    """The codecs to compare with; those of the settings if none is named.

    Raises:
        UserError: If one is not known.

    Example:
        >>> baselines("jpeg,avif")
        ('jpeg', 'avif')
    """
    if given is None:
        return CompressionEvaluation().baselines
    known: tuple[Baseline, ...] = get_args(Baseline)
    names = [name.strip() for name in given.split(",") if name.strip()]
    for name in names:
        if name not in known:
            raise UserError(
                f"--baselines: no codec {name!r}{did_you_mean(name, known)}; there are: "
                f"{', '.join(known)}"
            )
    return tuple(name for name in known if name in names)


def qualities(given: str | None) -> tuple[int, ...]:
    """The qualities to write at; those of the settings if none is named.

    Raises:
        UserError: If they are no qualities, or fewer than two.

    Example:
        >>> qualities("40,0,20")
        (0, 20, 40)
    """
    if given is None:
        return CompressionEvaluation().qualities
    words = [word.strip() for word in given.split(",") if word.strip()]
    for word in words:
        if not re.fullmatch(r"\d{1,3}", word) or int(word) > BEST:
            raise UserError(f"--qualities: got {word!r}, expected numbers from 0 to {BEST}")
    found = tuple(sorted({int(word) for word in words}))
    if len(found) < 2:
        raise UserError(f"--qualities: got {given!r}, expected two or more, as 0,20,40,60")
    return found


def refuse_for_runs(given: Mapping[str, object]) -> None:
    """Refuse what only a folder of pictures can be asked for.

    Raises:
        UserError: If something was given.
    """
    for option, value in given.items():
        if value is not None:
            raise UserError(
                f"{option}: belongs to a folder of pictures; a run is measured as its settings "
                "say (evaluation.*), and keeps the result in its folder"
            )
