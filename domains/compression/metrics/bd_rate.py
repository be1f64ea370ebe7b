"""How much rate one codec saves over another at equal quality (Bjøntegaard)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FEWEST = 3  # points of each curve where both are compared

Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Saving:
    """A difference of rates, with where it was taken.

    Args:
        percent: More rate than the anchor at equal quality; below 0 is less.
        low_db: Lowest quality that both curves reach.
        high_db: Highest.
        inside: Points between the two, of the anchor and of the other.
    """

    percent: float
    low_db: float
    high_db: float
    inside: tuple[int, int]


def bd_rate(
    anchor_rate: Sequence[float],
    anchor_db: Sequence[float],
    rate: Sequence[float],
    quality_db: Sequence[float],
) -> Saving | None:
    r"""Return the mean difference of rates at equal quality, in percent of the anchor's.

    .. math:: 100 \left( \exp \frac{1}{h - l}
        \int_l^h \left( \ln R(q) - \ln R_\mathrm{anchor}(q) \right) dq - 1 \right)

    over the qualities :math:`[l, h]` that both reach, :math:`\ln R` between points a piecewise
    cubic that keeps to their order (pchip), integrated exactly. Of points of one quality the
    cheapest counts.

    References:
        Bjøntegaard, "Calculation of average PSNR differences between RD-curves", ITU-T VCEG-M33,
        2001, which fits one cubic; pchip in its place: JVET-L0242, 2018, and the software of HM
        and VTM.

    Args:
        anchor_rate: Of each point of the anchor, above 0.
        anchor_db: Its quality.
        rate: Of each point of the other.
        quality_db: Its quality.

    Returns:
        None where fewer than 3 points of a curve lie in what both reach: the number would be one
        of a curve that nobody measured.

    Raises:
        ValueError: If a rate is not above 0, or a number is not finite.

    Example:
        >>> half = bd_rate([1, 2, 4], [30, 33, 36], [0.5, 1, 2], [30, 33, 36])
        >>> round(half.percent, 6), half.low_db, half.inside
        (-50.0, 30.0, (3, 3))
    """
    anchor = _curve(anchor_rate, anchor_db)
    other = _curve(rate, quality_db)
    low = max(anchor[0][0], other[0][0])
    high = min(anchor[0][-1], other[0][-1])
    inside = [int(((db >= low) & (db <= high)).sum()) for db, _ in (anchor, other)]
    if min(inside) < FEWEST:
        return None
    mean = (_area(*other, low, high) - _area(*anchor, low, high)) / (high - low)
    return Saving(
        percent=100 * math.expm1(mean),
        low_db=float(low),
        high_db=float(high),
        inside=(inside[0], inside[1]),
    )


def _curve(rate: Sequence[float], quality_db: Sequence[float]) -> tuple[Array, Array]:
    """Qualities in order, each once, and the log of the rate there."""
    rates, db = np.asarray(rate, np.float64), np.asarray(quality_db, np.float64)
    if rates.shape != db.shape or rates.ndim != 1 or not len(rates):
        raise ValueError(f"rates of shape {rates.shape}, qualities of {db.shape}; one of each")
    if not (np.isfinite(rates).all() and np.isfinite(db).all() and (rates > 0).all()):
        raise ValueError(f"rates {rates} at {db} dB; expected finite numbers, rates above 0")
    order = np.lexsort((rates, db))
    rates, db = rates[order], db[order]
    first = np.append(True, db[1:] > db[:-1])
    return db[first], np.log(rates[first])


def _area(quality_db: Array, log_rate: Array, low: float, high: float) -> float:
    from scipy.interpolate import PchipInterpolator

    return float(PchipInterpolator(quality_db, log_rate).integrate(low, high))
