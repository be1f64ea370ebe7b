"""Factors as functions of the fraction of training done, from 0 at the start to 1 at the end.

A fraction and not a number of epochs: a schedule keeps its shape when the training gets longer.
"""

from __future__ import annotations

import math
from typing import Literal


def check_warmup(warmup: float) -> float:
    """Return the length of a warm-up, or say that it would not end inside the training.

    Raises:
        ValueError: If it is not at least 0 and below 1.
    """
    if not 0 <= warmup < 1:
        raise ValueError(
            f"warmup: {warmup!r} is a fraction of the training that does not end inside it; "
            "give at least 0 and less than 1"
        )
    return warmup


def constant(fraction: float) -> float:
    """Return 1 at every fraction of the training.

    Raises:
        ValueError: If the fraction is not in [0, 1].
    """
    _check_fraction(fraction)
    return 1.0


def linear_warmup(fraction: float, warmup: float) -> float:
    r"""Return a factor that rises linearly from 0 to 1 and then stays there.

    .. math:: \min(1, t / w)

    References:
        Sønderby et al., "Ladder Variational Autoencoders", NeurIPS 2016 (arXiv:1602.02282): the
        warm-up of the KL.

    Args:
        fraction: Fraction of the training done :math:`t`.
        warmup: Fraction of the training over which it rises :math:`w`; 0 for none.

    Raises:
        ValueError: If the warm-up does not end inside the training, or the fraction is not in
            [0, 1].

    Example:
        >>> linear_warmup(0.1, warmup=0.2)
        0.5
    """
    _check_fraction(fraction)
    return 1.0 if fraction >= check_warmup(warmup) else fraction / warmup


def cosine(fraction: float) -> float:
    r"""Return half a cosine, from 1 at the start down to 0 at the end.

    .. math:: \tfrac12 (1 + \cos \pi t)

    References:
        Loshchilov and Hutter, "SGDR: Stochastic Gradient Descent with Warm Restarts", ICLR 2017,
        eq. 5 (arXiv:1608.03983), without restarts.

    Args:
        fraction: Fraction of the training done :math:`t`.

    Raises:
        ValueError: If the fraction is not in [0, 1].

    Example:
        >>> cosine(0.5)
        0.5
    """
    _check_fraction(fraction)
    return 0.5 * (1 + math.cos(math.pi * fraction))


DECAYS = {"constant": constant, "cosine": cosine}


def learning_rate_factor(
    decay: Literal["constant", "cosine"], warmup: float, fraction: float
) -> float:
    """Return the factor on the learning rate: a linear warm-up, then the decay over what is left.

    Args:
        decay: The shape after the warm-up.
        warmup: Fraction of the training over which the rate rises from 0; 0 for none.
        fraction: Fraction of the training done.

    Raises:
        ValueError: If the warm-up does not end inside the training, or the fraction is not in
            [0, 1].

    Example:
        >>> learning_rate_factor("cosine", warmup=0.5, fraction=0.75)
        0.5
    """
    rise = linear_warmup(fraction, warmup)
    return rise if rise < 1 else DECAYS[decay]((fraction - warmup) / (1 - warmup))


def _check_fraction(fraction: float) -> None:
    if not 0 <= fraction <= 1:
        raise ValueError(f"fraction: {fraction!r} of the training; it runs from 0 to 1")
