"""Hiding known values: once, to see how well they are found again, or anew at each step."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from core.runtime.errors import UserError
from domains.series.data.records import Array, Mask

Kind = Literal["none", "mcar", "mar", "mnar", "block", "rows"]
STEEPNESS = 2.0  # log-odds of being hidden for one standard deviation more
VARIATION = 0.8  # of the share hidden at a training step, as part of what there is room for
PATTERNS = ("points", "rows", "stretches", "stretches of rows")


def hide(
    rng: np.random.Generator, values: Array, kind: Kind, fraction: float, length: int = 1
) -> Mask:
    r"""Choose known values to hide: that share of them, exact to one value (``rows``: one row).

    ``mcar``: completely at random. ``mnar``: at random without replacement, a value that is one
    standard deviation larger with odds :math:`e^2` times as high. ``mar``: the same, but for how
    large the value of another channel of the row is: the channel with most known values, of which
    none is hidden, so that what is missing depends on what is seen only. ``block``: stretches of
    ``length`` rows of one channel, which may touch; the last is cut to the share. ``rows``: all
    channels of rows.

    References:
        Rubin, "Inference and missing data", Biometrika 63, 1976: the three mechanisms.
        Efraimidis and Spirakis, "Weighted random sampling with a reservoir", 2006: the draws.

    Args:
        rng: Where the randomness comes from.
        values: One series, ``(time, channel)``, NaN where not known.
        kind: Which.
        fraction: Share of the known values (of the rows that hold one) to hide.
        length: Rows of a block.

    Returns:
        Where values are hidden; only where they are known.

    Raises:
        UserError: If ``mar`` can't hide as many, as one channel stays.
    """
    known = np.isfinite(values)
    if kind == "none":
        return np.zeros_like(known)
    if kind == "rows":
        held = known.max(axis=1, keepdims=True)
        order = rng.random(held.shape)
        return _smallest(order, held, round(fraction * held.sum())) & known
    count = round(fraction * known.sum())
    if kind == "mcar":
        return _smallest(rng.random(known.shape), known, count)
    if kind == "block":
        return _smallest(_blocks(rng, known.shape, length), known, count)
    if kind == "mnar":
        return _smallest(_waiting(rng, _standardised(values)), known, count)
    driver = int(known.sum(axis=0).argmax())
    allowed = known & (np.arange(known.shape[1]) != driver)
    if count > allowed.sum():
        raise UserError(
            f"share {fraction:g} of the values to hide with kind 'mar': at most "
            f"{allowed.sum() / known.sum():.3g} is possible here, as one channel stays whole; "
            "give a smaller share or another kind"
        )
    large = np.broadcast_to(_standardised(values)[:, [driver]], known.shape)
    return _smallest(_waiting(rng, large), allowed, count)


def _smallest(keys: Array, allowed: Mask, count: int) -> Mask:
    """Choose the places of the ``count`` smallest keys among those allowed, earlier rows first."""
    order = np.argsort(np.where(allowed, keys, np.inf).ravel(order="F"), kind="stable")
    chosen = np.zeros(allowed.size, dtype=bool)
    chosen[order[:count]] = True
    return chosen.reshape(allowed.shape, order="F")


def _standardised(values: Array) -> Array:
    """Centre and scale each channel; 0 where not known."""
    known = np.isfinite(values)
    count = np.maximum(known.sum(axis=0), 1)
    centred = np.where(known, values - np.where(known, values, 0).sum(axis=0) / count, 0)
    spread = np.sqrt((centred**2).sum(axis=0) / count)
    return centred / np.where(spread > 0, spread, 1)


def _waiting(rng: np.random.Generator, large: Array) -> Array:
    """Draw log waiting times of rate exp(steepness · large); the first are a weighted draw."""
    return np.log(rng.exponential(size=large.shape)) - STEEPNESS * large


def _blocks(rng: np.random.Generator, shape: tuple[int, ...], length: int) -> Array:
    """Give each place the place in a random order of the first block that covers it."""
    rows, channels = shape
    length = min(length, rows)
    starts = rows - length + 1
    order = rng.permutation(starts * channels).reshape(starts, channels).astype(float)
    padded = np.pad(order, ((length - 1, length - 1), (0, 0)), constant_values=np.inf)
    return np.lib.stride_tricks.sliding_window_view(padded, length, axis=0).min(axis=-1)


def hide_anew(
    rng: np.random.Generator, allowed: Mask, share: float, length: int, pattern: str = "mixed"
) -> Mask:
    """Hide values of a batch of windows, each in one of four ways, to train a model to find them.

    Single values, whole rows, stretches of single channels, or stretches of all; each window
    draws which, what share of its values (uniform around ``share``) and how long its stretches
    are (from 2 rows to twice ``length``, at most half of the window). A whole row or stretch is
    not cut, so that the share is exact for single values only.

    Args:
        rng: Where the randomness comes from.
        allowed: Which values may be hidden, ``(window, time, channel)``.
        share: Mean share of them that is hidden.
        length: Typical rows of a stretch.
        pattern: The one way for all windows; ``mixed`` for the four.
    """
    count, rows, channels = allowed.shape
    longest = max(min(2 * length, rows // 2), 2)
    mixed = rng.integers(len(PATTERNS), size=count)
    chosen = mixed if pattern == "mixed" else np.full(count, PATTERNS.index(pattern))
    keys = rng.random((count, longest - 1 + rows, channels), dtype=np.float32)
    together = (chosen == 1) | (chosen == 3)
    keys[together] = keys[together][:, :, :1]
    lengths = np.where(chosen >= 2, rng.integers(2, longest + 1, size=count), 1)
    keys = _stretched(keys, lengths)[:, longest - 1 :]
    wide = VARIATION * min(share, 1 - share)
    shares = share + wide * (2 * rng.random(count) - 1)
    return allowed & (keys <= _quantile(keys, allowed, shares)[:, None, None])


def _stretched(keys: NDArray[np.float32], lengths: NDArray[np.int64]) -> NDArray[np.float32]:
    """Give each row the smallest key of the last ``length`` rows, for each window its own.

    The keys begin so many rows before the window that stretches do so too: its first rows are
    hidden as often as others.
    """
    found = keys.copy()
    for back in range(1, int(lengths.max(initial=1))):
        longer = np.flatnonzero(lengths > back)
        found[longer, back:] = np.minimum(found[longer, back:], keys[longer, :-back])
    return found


def _quantile(keys: NDArray[np.float32], allowed: Mask, shares: Array) -> NDArray[np.float32]:
    """Return the key below which a share of the allowed ones lies; below all for none."""
    flat = np.where(allowed, keys, np.inf).reshape(len(keys), -1)
    flat.sort(axis=1)
    wanted = np.rint(shares * allowed.reshape(len(keys), -1).sum(axis=1)).astype(np.int64)
    found = np.take_along_axis(flat, np.maximum(wanted - 1, 0)[:, None], axis=1)[:, 0]
    return np.where(wanted > 0, found, -1).astype(np.float32)
