"""Which positions of k-space are sampled, with exactly the acceleration that was asked for.

A mask by lines samples whole columns and takes ``round(width / acceleration)`` of them, the others
take ``round(height * width / acceleration)`` positions; both with the middle, that is calibrated
on, in that number. Frequency 0 is at ``size // 2``. Randomness is that of the seed alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import get_args

import numpy as np
import torch
from jaxtyping import Bool as BoolOf
from numpy.typing import NDArray
from torch import Tensor

from core.runtime.errors import UserError, did_you_mean
from core.runtime.order import generator
from domains.mri.config import Sampling

Where = NDArray[np.bool_]
Random = np.random.Generator
Chooser = Callable[[Random, Where, int], Where]  # of the positions that are free, so many

HALF_WIDTH = 0.35  # of half a side: where a Gaussian density is half of that in the middle
SLOPE = 2.0  # of 0 to 30 best for CG-SENSE, wavelets and TV at R = 5 and 10, on one head
JAMMED = 0.547  # share of a plane that discs cover once no other fits, put down at random
SURPLUS = 0.01  # share of positions that may be too many before some are left out at random
TRIES = 16  # to find the size of discs or the number of turns
ARMS = 8  # of a spiral
GOLDEN = (math.sqrt(5) - 1) / 2


def mask(
    kind: str, shape: tuple[int, int], acceleration: float, acs: int = 0, seed: int = 0
) -> BoolOf[Tensor, "height width"]:
    """Return which positions are sampled.

    ==============  ==========================================================================
    ``equispaced``  lines at even distances, from a random one on (GRAPPA)
    ``random``      lines, each as likely as any other
    ``magic``       lines at even distances, of which none is the mirror image of another, so
                    that a picture's conjugate symmetry tells what is between them
    ``gaussian-1d`` lines, most of them near the middle
    ``gaussian-2d`` positions, most of them near the middle
    ``poisson``     positions at random but never close, closer near the middle
    ``radial``      positions along spokes through the middle, turned by the golden angle
    ``spiral``      positions along eight Archimedean spirals
    ==============  ==========================================================================

    Args:
        kind: One of these.
        shape: Height and width.
        acceleration: Positions divided by sampled positions.
        acs: Lines in the middle, or side of the square there, that are sampled fully.
        seed: Equal seeds give equal masks.

    Raises:
        UserError: If there is no such kind, or nothing has this acceleration with so many
            calibration lines.

    Example:
        >>> int(mask("poisson", (60, 50), 4.0, acs=8).sum())
        750
    """
    if kind not in KINDS:
        raise UserError(
            f"mask: unknown kind {kind!r}{did_you_mean(kind, KINDS)}; expected one of "
            f"{', '.join(KINDS)}"
        )
    lines, choose = KINDS[kind]
    sides = shape[1:] if lines else shape
    count = _count(kind, shape, sides, acceleration, acs)
    middle = np.zeros(sides, np.bool_)
    middle[tuple(slice(size // 2 - acs // 2, size // 2 - acs // 2 + acs) for size in sides)] = True
    left = count - int(middle.sum())
    chosen = middle | choose(generator(seed, "mask", kind), ~middle, left) if left else middle
    assert int(chosen.sum()) == count
    return torch.from_numpy(np.array(np.broadcast_to(chosen, shape)))


def _count(
    kind: str, shape: tuple[int, int], sides: tuple[int, ...], acceleration: float, acs: int
) -> int:
    """Return how many lines or positions are sampled."""
    where = f"mask {kind!r} of {' x '.join(map(str, shape))}"
    if len(shape) != 2 or min(shape) < 1:
        raise UserError(f"{where}: expected height and width of at least 1; give two such numbers")
    if not 1 <= acceleration < math.inf:
        raise UserError(
            f"{where}: acceleration {acceleration!r}; expected at least 1, which samples all; "
            "give a larger number"
        )
    if not 0 <= acs <= min(sides):
        raise UserError(
            f"{where}: acs {acs!r}; expected 0 to {min(sides)}, the lines that there are; give "
            "such a number"
        )
    total = math.prod(sides)
    count, unit = round(total / acceleration), "lines" if len(sides) == 1 else "positions"
    least = max(1, acs ** len(sides))
    if count < least:
        most = math.isqrt(count) if len(sides) == 2 else count
        raise UserError(
            f"{where}: acceleration {acceleration:g} leaves {count} {unit} of {total}; expected "
            f"at least {least}{f', which acs {acs} takes' if acs else ''}; give an acceleration "
            f"of at most {_floored(total / least)}{f', or acs of at most {most}' if acs else ''}"
        )
    return count


def _floored(value: float) -> str:
    return f"{math.floor(value * 100) / 100:g}"


# Choosers


def _equispaced(random: Random, free: Where, count: int) -> Where:
    """Take free lines at even distances, counted among the free ones."""
    chosen = np.zeros_like(free)
    chosen[np.flatnonzero(free)[_evenly(random, int(free.sum()), count)]] = True
    return chosen


def _magic(random: Random, free: Where, count: int) -> Where:
    r"""Take frequencies :math:`|f|` at even distances, on either side in turn.

    Where there are too few frequencies for that, all of them, and further lines at even distances.

    References:
        Defazio, "Offset Sampling Improves Deep Learning Based Accelerated MRI Reconstructions by
        Exploiting Symmetry", 2019 (arXiv:1912.01101).
    """
    middle, side = len(free) // 2, int(random.integers(2))
    frequencies = np.unique(np.abs(np.flatnonzero(free) - middle))
    chosen = np.zeros_like(free)
    taken = _evenly(random, len(frequencies), min(count, len(frequencies)))
    for turn, frequency in enumerate(frequencies[taken]):
        signs = (1, -1) if (turn + side) % 2 else (-1, 1)
        places = [middle + sign * int(frequency) for sign in signs]
        chosen[next(place for place in places if place < len(free) and free[place])] = True
    return chosen | _equispaced(random, free & ~chosen, count - len(taken))


def _random(random: Random, free: Where, count: int) -> Where:
    """Take any free positions, none rather than another."""
    return _first(random.random(free.shape), free, count)


def _gaussian(random: Random, free: Where, count: int) -> Where:
    r"""Take free positions one after another, each with odds that fall as a Gaussian does.

    References:
        Efraimidis and Spirakis, "Weighted random sampling with a reservoir", Information
        Processing Letters 97, 2006: waiting times, here as logarithms so that none vanishes.
    """
    log_odds = -math.log(2) * (_radius(free.shape) / HALF_WIDTH) ** 2
    return _first(-random.gumbel(size=free.shape) - log_odds, free, count)


def _poisson(random: Random, free: Where, count: int) -> Where:
    r"""Take free positions of an ellipse in random order unless one close by was taken before.

    Close is nearer than :math:`s (1 + 2 \rho)` positions, :math:`\rho` the distance from the
    middle in half sides. The scale :math:`s` is searched for; up to 1 % too many are left out
    at random. Corners are used once the ellipse is full.

    References:
        Bridson, "Fast Poisson Disk Sampling in Arbitrary Dimensions", SIGGRAPH 2007, for what is
        made; Lustig and Pauly, "SPIRiT", MRM 64, 2010, for what it is good for.
    """
    inside = free & (_radius(free.shape) <= 1)
    if count >= inside.sum():
        return inside | _random(random, free & ~inside, count - int(inside.sum()))
    order = random.permutation(np.flatnonzero(inside))
    growth = 1 + SLOPE * _radius(free.shape)
    expected = JAMMED * 4 / math.pi * (growth[inside] ** -2.0).sum()
    guess = math.sqrt(count / expected)

    def take(closeness: float) -> Where:
        return _apart(order, (growth / closeness) ** 2)

    return _random(random, _just_enough(take, inside, count, guess, power=2.0), count)


def _radial(random: Random, free: Where, count: int) -> Where:
    """Take free positions along spokes, each from the middle outwards, corners at last.

    References:
        Winkelmann et al., "An Optimal Radial Profile Order Based on the Golden Ratio for
        Time-Resolved MRI", IEEE TMI 26, 2007.
    """
    size = max(free.shape)
    angles = math.pi * (random.random() + GOLDEN * np.arange(2 * size))
    along = np.repeat(np.linspace(0, 1, size + 1), 2) * np.tile([1, -1], size + 1)
    met = _met(free, np.cos(angles)[:, None] * along, np.sin(angles)[:, None] * along)
    chosen = np.zeros_like(free)
    chosen.flat[met[:count]] = True
    return chosen | _random(random, free & ~chosen, count - int(chosen.sum()))


def _spiral(random: Random, free: Where, count: int) -> Where:
    """Take free positions along spirals that turn as often as it needs, corners at last."""
    inside = free & (_radius(free.shape) <= 1)
    if count >= inside.sum():
        return inside | _random(random, free & ~inside, count - int(inside.sum()))
    start = random.random()

    def take(turns: float) -> Where:
        steps = math.ceil(2 * max(free.shape) * (1 + math.pi * turns))
        along = np.linspace(0, 1, steps)
        angles = 2 * math.pi * (turns * along + (start + np.arange(ARMS)[:, None]) / ARMS)
        chosen = np.zeros_like(free)
        chosen.flat[_met(inside, np.cos(angles) * along, np.sin(angles) * along)] = True
        return chosen

    turns = count / (math.pi * ARMS * max(free.shape) / 2)
    return _random(random, _just_enough(take, inside, count, turns, power=1.0), count)


KINDS: dict[str, tuple[bool, Chooser]] = {  # whether by lines, and how
    "equispaced": (True, _equispaced),
    "random": (True, _random),
    "magic": (True, _magic),
    "gaussian-1d": (True, _gaussian),
    "gaussian-2d": (False, _gaussian),
    "poisson": (False, _poisson),
    "radial": (False, _radial),
    "spiral": (False, _spiral),
}
assert set(KINDS) == set(get_args(Sampling))


# What they are made of


def _evenly(random: Random, size: int, count: int) -> NDArray[np.intp]:
    """Return ``count`` different indices below ``size``; distances differ by at most one."""
    return ((np.arange(count) + random.random()) * size / max(1, count)).astype(np.intp)


def _first(keys: NDArray[np.float64], free: Where, count: int) -> Where:
    """Return the free positions of the smallest keys."""
    chosen = np.zeros_like(free)
    chosen.flat[np.argsort(np.where(free, keys, np.inf), axis=None)[:count]] = True
    return chosen


def _radius(sides: tuple[int, ...]) -> NDArray[np.float64]:
    """Return the distance from the middle, where half a side is 1."""
    parts = [(np.arange(size) - size // 2) / max(1, size // 2) for size in sides]
    return np.sqrt(sum(part**2 for part in np.meshgrid(*parts, indexing="ij")))


def _just_enough(
    take: Callable[[float], Where], everything: Where, count: int, guess: float, power: float
) -> Where:
    """Return the smallest set with ``count`` positions that was found, or all of them.

    Args:
        take: Returns a set for an amount; a larger amount has more in it, but not always.
        everything: What is returned if no set is large enough.
        count: How many it needs.
        guess: The amount that the search begins with.
        power: Of the amount to which the number in a set is proportional, about.
    """
    best, amount, low, high = everything, guess, 0.0, math.inf
    wanted = count * (1 + SURPLUS / 2)
    for _ in range(TRIES):
        found = take(amount)
        number = int(found.sum())
        if count <= number < best.sum():
            best = found
        if count <= number <= count * (1 + SURPLUS):
            break
        low, high = (low, amount) if number > count else (amount, high)
        amount *= (wanted / max(1, number)) ** (1 / power)
        if not low < amount < high:
            amount = math.sqrt(low * high)
    return best


def _apart(order: NDArray[np.intp], reach: NDArray[np.float64]) -> Where:
    """Take positions in order, leaving out those that are too near to one taken before.

    Args:
        order: Flat indices.
        reach: Squared distance that must be kept from each position.
    """
    height, width = reach.shape
    squares = np.ceil(np.minimum(reach, height**2 + width**2)).astype(int)
    margin = math.isqrt(int(squares.max()))
    near = np.zeros((height + 2 * margin, width + 2 * margin), np.bool_)
    taken = np.zeros(reach.shape, np.bool_)
    discs: dict[int, Where] = {}
    for place, square in zip(order.tolist(), squares.flat[order].tolist(), strict=True):
        y, x = divmod(place, width)
        if near[y + margin, x + margin]:
            continue
        taken[y, x] = True
        disc = discs[square] = discs[square] if square in discs else _disc(square)
        top, left = y + margin - len(disc) // 2, x + margin - len(disc) // 2
        near[top : top + len(disc), left : left + len(disc)] |= disc
    return taken


def _disc(square: int) -> Where:
    """Return which offsets have a squared length below ``square``."""
    half = math.isqrt(square - 1)
    away = np.arange(-half, half + 1) ** 2
    return away[:, None] + away < square


def _met(free: Where, rows: NDArray[np.float64], columns: NDArray[np.float64]) -> NDArray[np.intp]:
    """Return the free positions next to points, in the order in which they are met first.

    Args:
        free: Which positions count.
        rows: Of the points, where half a side is 1.
        columns: The same.
    """
    sides = zip((rows, columns), free.shape, strict=True)
    places = [np.rint(part * (size // 2)).astype(np.intp) + size // 2 for part, size in sides]
    valid = np.logical_and.reduce(
        [(place >= 0) & (place < size) for place, size in zip(places, free.shape, strict=True)]
    )
    flat = np.ravel_multi_index([place[valid] for place in places], free.shape)
    positions, first = np.unique(flat, return_index=True)
    met = positions[np.argsort(first)]
    return met[free.flat[met]]
