"""Units of a window's own: what a model need not know to predict what has changed its level."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions import Distribution, Independent, Laplace, StudentT

from core.variational.distributions import DiagonalNormal
from core.variational.likelihoods import BatchNormal
from domains.series.data import Windows

LEAST = 0.01  # of a channel's scale: what a channel that hardly moves in a window is divided by


@dataclass(frozen=True, eq=False)
class Frame:
    """A shift and a scale for each channel of each window.

    Args:
        centre: What is taken from the values; None for nothing.
        spread: What they are divided by then; None for nothing.
    """

    centre: Float[Tensor, "batch one channel"] | None = None
    spread: Float[Tensor, "batch one channel"] | None = None

    def enter(self, batch: Windows) -> Windows:
        """Return the windows in these units."""
        values = batch.values if self.centre is None else batch.values - self.centre
        return replace(batch, values=values if self.spread is None else values / self.spread)

    def leave(self, distribution: Distribution) -> Distribution:
        """Return what a distribution in these units says of the values themselves."""
        if self.centre is None:
            return distribution
        return placed(distribution, self.centre, self.spread)


def absolute(batch: Windows) -> Frame:
    """Leave windows as they are."""
    return Frame()


def own_level(batch: Windows) -> Frame:
    """Measure from the mean of what is seen of each channel."""
    return Frame(mean_of_seen(batch.values, batch))


def own_scale(batch: Windows) -> Frame:
    """Measure from that mean, in standard deviations of what is seen.

    References:
        Kim et al., "Reversible Instance Normalization for Accurate Time-Series Forecasting against
        Distribution Shift", ICLR 2022; without its learned scale and shift.
    """
    centre = mean_of_seen(batch.values, batch)
    variance = mean_of_seen((batch.values - centre).square(), batch)
    several = batch.seen.sum(1, keepdim=True) > 1
    return Frame(centre, torch.where(several, variance.sqrt().clamp(min=LEAST), 1))


FRAMES: dict[str, Callable[[Windows], Frame]] = {
    "network": absolute,
    "level": own_level,
    "scale": own_scale,
}


@functools.singledispatch
def placed(distribution: Distribution, centre: Tensor, spread: Tensor | None) -> Distribution:
    r"""Return the distribution of :math:`c + s x`.

    Raises:
        NotImplementedError: If it is of no known family of locations and scales.
    """
    raise NotImplementedError(f"placed: {type(distribution).__name__}")


@placed.register
def _(distribution: DiagonalNormal, centre: Tensor, spread: Tensor | None) -> Distribution:
    loc, scale = _placed(distribution, centre, spread)
    return DiagonalNormal(loc, scale, distribution.event_dims)


@placed.register
def _(distribution: BatchNormal, centre: Tensor, spread: Tensor | None) -> Distribution:
    if spread is not None:
        raise NotImplementedError("placed: a BatchNormal has a scale for all windows together")
    moved = distribution.loc + centre
    dims, observe = distribution.event_dims, distribution.observe
    return BatchNormal(moved, distribution.scale, distribution.floor, dims, observe)


@placed.register
def _(distribution: Laplace, centre: Tensor, spread: Tensor | None) -> Distribution:
    return Laplace(*_placed(distribution, centre, spread), validate_args=False)


@placed.register
def _(distribution: StudentT, centre: Tensor, spread: Tensor | None) -> Distribution:
    return StudentT(distribution.df, *_placed(distribution, centre, spread), validate_args=False)


@placed.register
def _(distribution: Independent, centre: Tensor, spread: Tensor | None) -> Distribution:
    dims = distribution.reinterpreted_batch_ndims
    return Independent(placed(distribution.base_dist, centre, spread), dims, validate_args=False)


def _placed(distribution: Any, centre: Tensor, spread: Tensor | None) -> tuple[Tensor, Tensor]:
    if spread is None:
        return distribution.loc + centre, distribution.scale
    return centre + spread * distribution.loc, spread * distribution.scale


def mean_of_seen(values: Tensor, batch: Windows) -> Tensor:
    """Return the mean over time of what is seen of each channel; 0 where nothing is."""
    total = torch.where(batch.seen, values, 0).sum(1, keepdim=True)
    return total / batch.seen.sum(1, keepdim=True).clamp(min=1)
