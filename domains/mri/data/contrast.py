"""Other contrasts of the same anatomy: brightness mapped anew, tissues weighted anew."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float32

Picture = Float32[np.ndarray, "height width"]
Tissues = Float32[np.ndarray, "tissue height width"]

KNOTS = 5  # of a curve of brightness, beside the one at 0
DARKEST = 0.05  # of a tissue in a curve that is not monotone


def curve(random: np.random.Generator, monotone: bool) -> Float32[np.ndarray, " knot"]:
    """Draw a piecewise linear curve from brightness to brightness at evenly spaced knots.

    0 stays 0, so that air stays dark, and the brightest knot is 1.

    Args:
        random: Where it is drawn from.
        monotone: Whether brighter stays brighter.
    """
    if monotone:
        heights = np.cumsum(random.gamma(1.0, size=KNOTS) + DARKEST)
    else:
        heights = random.uniform(DARKEST, 1.0, size=KNOTS)
    return np.concatenate([[0.0], heights / heights.max()]).astype(np.float32)


def remapped(picture: Picture, heights: Float32[np.ndarray, " knot"]) -> Picture:
    """Map brightness by a curve; beyond 1 it goes on with the last height.

    Args:
        picture: Magnitude; most is between 0 and 1.
        heights: Of the curve at evenly spaced knots from 0 to 1.

    Example:
        >>> remapped(np.float32([[0.0, 0.25, 2.0]]), np.float32([0.0, 1.0, 0.5])).tolist()
        [[0.0, 0.5, 0.5]]
    """
    knots = np.linspace(0, 1, len(heights))
    return np.interp(picture, knots, heights).astype(np.float32)


def reweighted(picture: Picture, tissues: Tissues, gains: Float32[np.ndarray, " gain"]) -> Picture:
    r"""Weight a picture by tissue: another contrast with the texture of the same.

    .. math:: x' = x \sum_t g_t p_t

    Args:
        picture: Magnitude.
        tissues: Shares :math:`p_t` of grey and of white matter; the rest is taken for fluid.
        gains: Of grey matter, white matter and the rest.
    """
    rest = np.clip(1 - tissues.sum(0), 0, 1)
    return picture * np.tensordot(gains, np.concatenate([tissues, rest[None]]), 1)


def gains(random: np.random.Generator) -> Float32[np.ndarray, " 3"]:
    """Draw gains of grey matter, white matter and the rest, from T1- to T2-weighted.

    In a T1-weighted picture fluid is about a quarter and grey matter three quarters as bright as
    white matter; in a T2-weighted one fluid is twice as bright as grey matter, and that brighter
    than white matter.
    """
    weight = random.random()
    t2 = np.array([0.85, 0.45, 3.0]) * random.uniform(0.8, 1.2, size=3)
    mixed = (1 - weight) + weight * t2
    return (mixed / mixed.max()).astype(np.float32)


def varied(
    picture: Picture, tissues: Tissues | None, random: np.random.Generator, not_monotone: float
) -> Picture:
    """Draw another contrast of a slice; where its tissues are known, half of them by these.

    Args:
        picture: Magnitude, 1 where the head is brightest.
        tissues: Shares of grey and white matter, if they are known.
        random: Where it is drawn from.
        not_monotone: Share of the curves in which brighter may become darker.
    """
    if tissues is not None and random.random() < 0.5:
        return reweighted(picture, tissues, gains(random))
    return remapped(picture, curve(random, monotone=random.random() >= not_monotone))
