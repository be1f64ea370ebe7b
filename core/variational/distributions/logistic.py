"""Discretised logistic distributions: counts, grey levels, quantised audio on an even grid."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Size, Tensor
from torch.distributions import constraints
from torch.nn import functional

from core.variational.distributions.base import Diagonal, at_least_single


class _EvenGrid(constraints.Constraint):
    """Values on an even grid, to a hundredth of its step."""

    is_discrete = True

    def __init__(self, low: float, high: float, bins: int) -> None:
        self.low, self.high, self.bins = low, high, bins

    def check(self, value: Tensor) -> Tensor:
        index = (value - self.low) / (self.high - self.low) * (self.bins - 1)
        near = (index - index.round()).abs() <= 0.01
        return near & (index > -0.5) & (index < self.bins - 0.5)

    def __repr__(self) -> str:
        return f"EvenGrid(low={self.low}, high={self.high}, bins={self.bins})"


class Gridded(Diagonal):
    """What distributions on an even grid share: the grid, and sums over it one bin at a time."""

    bounded = True
    low: float
    high: float
    bins: int

    def _set_grid(self, low: float, high: float, bins: int) -> None:
        if bins < 2 or not low < high:
            raise ValueError(
                f"{type(self).__name__}: bins={bins} from low={low} to high={high}; it takes 2 "
                "bins or more, and low below high"
            )
        self.low, self.high, self.bins = low, high, bins

    @property
    def step(self) -> float:
        """The distance between two values of the grid."""
        return (self.high - self.low) / (self.bins - 1)

    @property
    def grid(self) -> list[float]:
        """All values, in ascending order."""
        return [self.low + k * self.step for k in range(self.bins)]

    @property
    def support(self) -> constraints.Constraint:
        """The values that it covers; its ``check`` says which of some data are on the grid."""
        return constraints.independent(_EvenGrid(self.low, self.high, self.bins), self.event_dims)

    def log_masses(self, value: Tensor) -> Tensor:
        """Return the log probability of each element, in nats, not summed over the event."""
        raise NotImplementedError

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log probability in nats of values on the grid, which is not checked."""
        self._check(value)
        return self._sum(self.log_masses(value))

    def _moment(self, power: int) -> Tensor:
        template = self._template()
        total = torch.zeros_like(template)
        for level in self.grid:
            masses = self.log_masses(torch.full_like(template, level)).exp()
            total = total + (level - self.low) ** power * masses
        return total

    def _template(self) -> Tensor:
        raise NotImplementedError

    @property
    def mean(self) -> Tensor:
        """The mean, of shape ``(*batch, *event)``: exact, one bin at a time."""
        return self.low + self._moment(1)

    @property
    def variance(self) -> Tensor:
        """The variance, element by element: exact, one bin at a time."""
        return (self._moment(2) - self._moment(1).square()).clamp(min=0)

    def entropy(self) -> Tensor:
        """Return the entropy in nats, of shape ``batch``: exact, one bin at a time."""
        template = self._template()
        total = torch.zeros_like(template)
        for level in self.grid:
            log_masses = self.log_masses(torch.full_like(template, level))
            total = total - log_masses.exp() * log_masses
        return self._sum(total)

    @property
    def mode(self) -> Tensor:
        """The most probable value; the lowest of several."""
        best = torch.full_like(self._template(), self.low)
        highest = self.log_masses(best)
        for level in self.grid[1:]:
            log_masses = self.log_masses(torch.full_like(best, level))
            best = torch.where(log_masses > highest, level, best)
            highest = torch.maximum(highest, log_masses)
        return best

    def _rounded(self, value: Tensor) -> Tensor:
        index = ((value - self.low) / self.step).round().clamp(0, self.bins - 1)
        return self.low + self.step * index


class DiscretizedLogistic(Gridded):
    r"""Logistic distribution rounded to an even grid, whose ends take the tails.

    .. math:: P(x) = \sigma(b) - \sigma(a), \quad
        b, a = \frac{x \pm \Delta / 2 - \mu}{s}, \quad
        P(x_{\text{low}}) = \sigma(b), \quad P(x_{\text{high}}) = 1 - \sigma(a)

    In logs as :math:`\log \sigma(b) + \log \sigma(-a) + \log(1 - e^{-\Delta/s})`, which is the
    same number: nothing cancels and nothing is clamped, so that value and gradient are right in
    the tails and at any scale.

    References:
        Kingma et al., "Improving Variational Inference with Inverse Autoregressive Flow", NeurIPS
        2016 (arXiv:1606.04934); Salimans et al., "PixelCNN++", ICLR 2017, eq. 2
        (arXiv:1701.05517).

    Args:
        loc: Location :math:`\mu` of shape ``(*batch, *event)``, in the data's unit.
        scale: Scale :math:`s > 0`; broadcasts against ``loc``.
        low: The lowest value of the grid.
        high: The highest.
        bins: How many values it has, the ends included.
        event_dims: How many of the last dimensions are one event.

    Raises:
        ValueError: If the grid is empty, or there are fewer dimensions than ``event_dims``.

    Example:
        >>> coin = DiscretizedLogistic(torch.zeros(1), torch.ones(1), low=-1, high=1, bins=2)
        >>> coin.log_prob(torch.tensor([1.0])).exp()
        tensor(0.5000)
    """

    def __init__(
        self,
        loc: Tensor,
        scale: Tensor,
        low: float,
        high: float,
        bins: int,
        event_dims: int = 1,
    ) -> None:
        self._set_grid(low, high, bins)
        self.loc, self.scale = torch.broadcast_tensors(
            at_least_single(loc), at_least_single(scale)
        )
        super().__init__(self.loc.shape, event_dims)

    @property
    def arg_constraints(self) -> dict[str, constraints.Constraint]:
        """What the parameters may be."""
        return {"loc": constraints.real, "scale": constraints.positive}

    def mapped(self, change: Callable[[Tensor], Tensor], event_dims: int) -> DiscretizedLogistic:
        """Return the same family with ``change`` done to every parameter, and those event dims."""
        loc, scale = change(self.loc), change(self.scale)
        return DiscretizedLogistic(loc, scale, self.low, self.high, self.bins, event_dims)

    def _template(self) -> Tensor:
        return self.loc

    @torch.no_grad()
    def sample(self, sample_shape: Size | Sequence[int] = ()) -> Tensor:
        """Draw values of the grid, of shape ``(*sample, *batch, *event)``."""
        shape = torch.Size(sample_shape) + self.loc.shape
        return self._rounded(self.loc + self.scale * _logistic_noise(shape, self.loc))

    def log_masses(self, value: Tensor) -> Tensor:
        """Return the log probability of each element, in nats, not summed over the event."""
        return _log_masses(value.to(self.loc), self.loc, self.scale, self)


class DiscretizedLogisticMixture(Gridded):
    r"""Mixture of logistic distributions rounded to an even grid, element by element.

    .. math:: P(x) = \sum_k \pi_k P_k(x)

    with the `DiscretizedLogistic` :math:`P_k`. Elements are independent; PixelCNN++'s channels,
    of which the later depend on the earlier, are for an autoregressive likelihood to give in
    ``loc``.

    References:
        Salimans et al., "PixelCNN++", ICLR 2017, eq. 2 (arXiv:1701.05517).

    Args:
        logits: Log weights, up to a constant, of shape ``(*batch, *event, components)``.
        loc: Locations in the data's unit; broadcasts against ``logits``.
        scale: Scales :math:`s > 0`; broadcasts against ``logits``.
        low: The lowest value of the grid.
        high: The highest.
        bins: How many values it has, the ends included.
        event_dims: How many of the last dimensions of ``(*batch, *event)`` are one event.

    Raises:
        ValueError: If the grid is empty, or there are fewer dimensions than ``event_dims``.

    Example:
        >>> logits = torch.zeros(4, 3, 5)
        >>> DiscretizedLogisticMixture(logits, logits, logits.exp(), -1, 1, 256).sample().shape
        torch.Size([4, 3])
    """

    def __init__(
        self,
        logits: Tensor,
        loc: Tensor,
        scale: Tensor,
        low: float,
        high: float,
        bins: int,
        event_dims: int = 1,
    ) -> None:
        self._set_grid(low, high, bins)
        self.logits, self.loc, self.scale = torch.broadcast_tensors(
            at_least_single(logits), at_least_single(loc), at_least_single(scale)
        )
        super().__init__(self.loc.shape[:-1], event_dims)

    @property
    def arg_constraints(self) -> dict[str, constraints.Constraint]:
        """What the parameters may be."""
        real, positive = constraints.real, constraints.positive
        return {"logits": constraints.real_vector, "loc": real, "scale": positive}

    def mapped(
        self, change: Callable[[Tensor], Tensor], event_dims: int
    ) -> DiscretizedLogisticMixture:
        """Return the same family with ``change`` done to every parameter, and those event dims."""
        logits, loc, scale = change(self.logits), change(self.loc), change(self.scale)
        return DiscretizedLogisticMixture(
            logits, loc, scale, self.low, self.high, self.bins, event_dims
        )

    def _template(self) -> Tensor:
        return self.loc[..., 0]

    @torch.no_grad()
    def sample(self, sample_shape: Size | Sequence[int] = ()) -> Tensor:
        """Draw values of the grid, of shape ``(*sample, *batch, *event)``."""
        shape = torch.Size(sample_shape) + self.loc.shape
        # The largest of the weights' logarithms with Gumbel noise is at a component of its weight.
        uniform = torch.rand(shape, dtype=self.loc.dtype, device=self.loc.device)
        gumbel = -(-uniform.clamp(min=torch.finfo(uniform.dtype).tiny).log()).log()
        chosen = (self.logits + gumbel).argmax(-1, keepdim=True)
        loc = self.loc.expand(shape).gather(-1, chosen).squeeze(-1)
        scale = self.scale.expand(shape).gather(-1, chosen).squeeze(-1)
        return self._rounded(loc + scale * _logistic_noise(shape[:-1], self.loc))

    def log_masses(self, value: Tensor) -> Tensor:
        """Return the log probability of each element, in nats, not summed over the event."""
        value = value.to(self.loc).unsqueeze(-1)
        masses = _log_masses(value, self.loc, self.scale, self)
        return torch.logsumexp(functional.log_softmax(self.logits, -1) + masses, -1)


def _log_masses(value: Tensor, loc: Tensor, scale: Tensor, grid: Gridded) -> Tensor:
    half = 0.5 * grid.step
    below = functional.logsigmoid((value + half - loc) / scale)
    above = functional.logsigmoid((loc - value + half) / scale)
    within = (-torch.expm1(-grid.step / scale)).log()
    inside = torch.where(value < grid.low + half, below, below + above + within)
    return torch.where(value > grid.high - half, above, inside)


def _logistic_noise(shape: Size, like: Tensor) -> Tensor:
    uniform = torch.rand(shape, dtype=like.dtype, device=like.device)
    return torch.logit(uniform, eps=torch.finfo(like.dtype).tiny)
