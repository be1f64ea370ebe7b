r"""Whether importance weights can be trusted: the tail shape k-hat.

`pareto_k` is the estimate of the shape of the generalised Pareto distribution that the largest
weights follow: below 0.5 the variance of the weights is finite, above 0.7 no practical number of
samples is enough.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

TOO_HEAVY = 0.7
FEWEST_IN_TAIL = 5
ROUNDING = 100


def pareto_k(log_weights: Tensor) -> Tensor:
    r"""Return the tail shape :math:`\hat k` of importance weights along the first dimension.

    The :math:`M = \min(S / 5, 3 \sqrt S)` largest of :math:`S` weights are fitted, and the fit is
    drawn to 0.5 by a prior worth ten observations: :math:`(M \hat k + 5) / (M + 10)`.

    Weights that are equal but for rounding (an exact posterior) give :math:`-\infty`, those that
    underflow beside the largest :math:`\infty`. Undefined are weights that are not a number, all
    zero, or so tied that fewer than five lie above the cut (a discrete latent of few values, whose
    weights are bounded anyway): these give NaN.

    References:
        Vehtari et al., "Pareto Smoothed Importance Sampling", JMLR 25(72), 2024
        (arXiv:1507.02646).

    Args:
        log_weights: Log importance weights of shape ``(samples, *batch)`` in nats, in the
            precision that they were computed in.

    Raises:
        ValueError: If there are fewer than 25 samples, which leaves fewer than five in the tail.

    Example:
        >>> pareto_k(torch.zeros(100, 2))
        tensor([-inf, -inf], dtype=torch.float64)
    """
    samples = len(log_weights)
    size = tail_size(samples)
    if size < FEWEST_IN_TAIL:
        raise ValueError(
            f"pareto_k: {samples} samples leave {size} in the tail; at least "
            f"{5 * FEWEST_IN_TAIL} samples are needed"
        )
    columns = log_weights.detach().reshape(samples, -1)
    tolerance = ROUNDING * torch.finfo(columns.dtype).eps
    top = columns.double().sort(0).values[-size - 1 :].T.cpu()
    shapes = [_tail_shape(column, tolerance) for column in top]
    return torch.tensor(shapes, dtype=torch.float64).reshape(log_weights.shape[1:])


def tail_size(samples: int) -> int:
    """Return how many of the largest weights are fitted.

    References:
        Vehtari et al., "Pareto Smoothed Importance Sampling", JMLR 25(72), 2024
        (arXiv:1507.02646).
    """
    return min(samples // 5, math.ceil(3 * math.sqrt(samples)))


def fit_generalised_pareto(exceedances: Float[Tensor, " tail"]) -> tuple[float, float]:
    r"""Return shape and scale of the generalised Pareto distribution of sorted exceedances.

    .. math:: p(y) = \frac1\sigma \left(1 + k \frac{y}{\sigma}\right)^{-1/k - 1}

    With :math:`\theta = -k/\sigma` the likelihood at its best :math:`k(\theta) = \frac1n \sum_i
    \log(1 - \theta y_i)` is averaged over a data-driven prior of :math:`\theta` on a grid, which
    is as accurate as maximum likelihood and always exists. Their :math:`k` has the other sign.

    References:
        Zhang and Stephens, "A New and Efficient Estimation Method for the Generalized Pareto
        Distribution", Technometrics 51 (2009), 316-325.

    Args:
        exceedances: Positive, in increasing order.

    Example:
        >>> uniform = (torch.arange(1000.0) + 0.5) / 1000  # shape -1
        >>> round(fit_generalised_pareto(uniform)[0], 1)
        -1.0
    """
    y = exceedances.double()
    n = len(y)
    points = 30 + math.isqrt(n)
    quartile = y[int(n / 4 + 0.5) - 1]
    place = torch.arange(1, points + 1, dtype=torch.float64) - 0.5
    theta = 1 / y[-1] + (1 - (points / place).sqrt()) / (3 * quartile)
    k = torch.log1p(-theta[:, None] * y).mean(1)
    log_likelihood = n * ((-theta / k).log() - k - 1)
    chosen = (theta * torch.softmax(log_likelihood, 0)).sum()
    shape = torch.log1p(-chosen * y).mean()
    return float(shape), float(-shape / chosen)


def _tail_shape(top: Tensor, tolerance: float) -> float:
    """The shape of the tail above the first of these log weights, which are in order."""
    cut, largest = float(top[0]), float(top[-1])
    if math.isnan(largest) or largest == -math.inf:
        return math.nan
    if largest == math.inf:
        return math.inf
    if largest - cut <= tolerance * max(1.0, abs(largest)):
        return -math.inf
    above = top[1:][top[1:] > cut]
    if len(above) < FEWEST_IN_TAIL:
        return math.nan
    exceedances = torch.exp(above - largest) - math.exp(cut - largest)
    exceedances = exceedances[exceedances > 0]
    size = len(exceedances)
    if size < FEWEST_IN_TAIL:
        return math.inf  # hundreds of nats between the largest weights: the others underflow
    shape, _ = fit_generalised_pareto(exceedances)
    return (size * shape + 5) / (size + 10) if math.isfinite(shape) else math.inf
