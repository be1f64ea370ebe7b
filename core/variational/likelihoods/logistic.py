"""Likelihoods of values on an even grid: counts, grey levels, quantised audio."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from core.variational.distributions import DiscretizedLogistic, DiscretizedLogisticMixture
from core.variational.distributions.base import at_least_single
from core.variational.likelihoods.scale import LocationScale


class DiscretizedLogisticLikelihood(LocationScale):
    r"""A linear head that gives the centre of values on an even grid.

    .. math:: x_j \mid z \sim \text{Logistic}(\mu_j, s_j) \text{ rounded to the grid}, \quad
        \mu = \tfrac12 (\text{high} + \text{low}) + \tfrac12 (\text{high} - \text{low}) (W h + b)

    Log-likelihoods are of probabilities, not densities: at most 0, and comparable with those of a
    categorical likelihood of the same grid. `LocationScale` says what may be learned of the scale.

    References:
        Kingma et al., "Improving Variational Inference with Inverse Autoregressive Flow", NeurIPS
        2016 (arXiv:1606.04934).

    Args:
        features: Size of the last dimension of its input.
        outputs: Number of variables in an example.
        low: The lowest value of the grid, e.g. 0.
        high: The highest, e.g. 255.
        bins: How many values it has, the ends included, e.g. 256.
        scale: Scale :math:`s` in the data's unit; where it starts if it is learned.
        learned: What of the scale is trained.
        event_dims: Event dimensions of the distribution, that of the variables included.
        floor: Added to the scale, in the data's unit.

    Raises:
        ValueError: If the grid is empty, or as for `LocationScale`.
    """

    def __init__(
        self,
        features: int,
        outputs: int,
        low: float,
        high: float,
        bins: int,
        scale: float,
        learned: bool | str,
        event_dims: int = 1,
        floor: float = 0.0,
    ) -> None:
        super().__init__(features, outputs, scale, learned, event_dims, floor)
        _check_grid(type(self).__name__, low, high, bins)
        self.low, self.high, self.bins = low, high, bins

    def forward(self, features: Tensor) -> DiscretizedLogistic:
        """Return the likelihood for features of shape ``(*batch, features)``."""
        loc, scale = self.location_scale(features)
        loc = _onto(loc, self.low, self.high)
        return DiscretizedLogistic(loc, scale, self.low, self.high, self.bins, self.event_dims)


class DiscretizedLogisticMixtureLikelihood(nn.Module):
    r"""A linear head that gives a mixture of rounded logistics for each variable.

    .. math:: P(x_j \mid z) = \sum_k \pi_{jk} P_k(x_j), \quad
        (\operatorname{logit} \pi, \mu, \log s) = W h + b

    For values of which several are likely, with little between. The locations start evenly
    spread over the grid, so that the components are not alike.

    References:
        Salimans et al., "PixelCNN++", ICLR 2017, eq. 2 (arXiv:1701.05517).

    Args:
        features: Size of the last dimension of its input.
        outputs: Number of variables in an example.
        components: Number of logistics in a mixture.
        low: The lowest value of the grid.
        high: The highest.
        bins: How many values it has, the ends included.
        scale: Where every scale starts, in the data's unit.
        event_dims: Event dimensions of the distribution, that of the variables included.

    Raises:
        ValueError: If the grid is empty, the scale not positive or there are no components.
    """

    def __init__(
        self,
        features: int,
        outputs: int,
        components: int,
        low: float,
        high: float,
        bins: int,
        scale: float,
        event_dims: int = 1,
    ) -> None:
        super().__init__()
        name = type(self).__name__
        if components < 1 or not 0 < scale < math.inf:
            raise ValueError(
                f"{name}: components={components}, scale={scale!r}; there must be at least one "
                "component, and the scale positive and finite"
            )
        _check_grid(name, low, high, bins)
        self.low, self.high, self.bins, self.event_dims = low, high, bins, event_dims
        self.sizes = (3, outputs, components)
        self.head = nn.Linear(features, math.prod(self.sizes))
        with torch.no_grad():
            start = self.head.bias.view(self.sizes)
            start[0], start[2] = 0, math.log(scale)
            start[1] = (2 * torch.arange(components) + 1) / components - 1

    def forward(self, features: Tensor) -> DiscretizedLogisticMixture:
        """Return the likelihood for features of shape ``(*batch, features)``."""
        parameters = at_least_single(self.head(features)).unflatten(-1, self.sizes)
        logits, loc, log_scale = parameters.unbind(-3)
        loc, scale = _onto(loc, self.low, self.high), log_scale.exp()
        return DiscretizedLogisticMixture(
            logits, loc, scale, self.low, self.high, self.bins, self.event_dims
        )


def _onto(loc: Tensor, low: float, high: float) -> Tensor:
    """Return locations in the data's unit, of numbers for which -1 and 1 are the ends."""
    return 0.5 * (high + low) + 0.5 * (high - low) * loc


def _check_grid(name: str, low: float, high: float, bins: int) -> None:
    if bins < 2 or not low < high:
        raise ValueError(
            f"{name}: bins={bins} from low={low} to high={high}; it takes 2 bins or more, and low "
            "below high"
        )
