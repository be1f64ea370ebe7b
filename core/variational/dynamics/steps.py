"""What is known of a sequence's steps: when they were, which are padding, which were seen."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.distributions import Distribution

from core.variational.distributions import DiagonalNormal


@dataclass(frozen=True, eq=False)
class Steps:
    """The steps of a batch of sequences.

    A step that is padding does not exist: it is cut out of posterior and prior alike. A step that
    was not observed exists and has a latent; only the recognition has nothing to say about it.

    Args:
        times: When each step was, increasing, in the unit of the rates; None for 0, 1, 2, …
        present: False for padding, which is at the end; None where there is none.
        observed: False where the features say nothing; None if they always do.

    Raises:
        ValueError: If a step that is present follows padding, or times do not increase.
    """

    times: Float[Tensor, "*batch time"] | None = None
    present: Bool[Tensor, "*batch time"] | None = None
    observed: Bool[Tensor, "*batch time"] | None = None

    def __post_init__(self) -> None:
        if self.present is not None and (self.present[..., 1:] & ~self.present[..., :-1]).any():
            raise ValueError(
                "Steps: a step is present after one that is not; padding is at the end only, and "
                "a step without data is present but not observed"
            )
        if self.times is not None and not (self._real_intervals() > 0).all():
            smallest = float(self._real_intervals().min())
            raise ValueError(
                f"Steps: an interval of {smallest:.6g} between two times; they must increase"
            )

    def intervals(self, time: int, like: Tensor) -> Float[Tensor, "*batch interval"]:
        """Return the time that passes before steps 2…T; 1 before padding."""
        if self.times is None:
            return like.new_ones(time - 1)
        return self._real_intervals().to(like)

    def informative(self) -> Bool[Tensor, "*batch time"] | None:
        """Return which steps are present and observed; None for all."""
        if self.present is None or self.observed is None:
            return self.observed if self.present is None else self.present
        return self.present & self.observed

    def _real_intervals(self) -> Tensor:
        assert self.times is not None
        intervals = self.times.diff(dim=-1)
        if self.present is None:
            return intervals
        return torch.where(self.present[..., 1:], intervals, 1.0)


def as_steps(context: Steps | Tensor | None) -> Steps:
    """Return a context as `Steps`: a tensor is its times, or which steps are present if bool."""
    if isinstance(context, Tensor):
        return Steps(present=context) if context.dtype == torch.bool else Steps(times=context)
    return context if context is not None else Steps()


@functools.singledispatch
def cut_padding(
    distribution: Distribution, present: Bool[Tensor, "*batch time"] | None
) -> Distribution:
    """Return a distribution over sequences whose padding is standard Normal, by itself.

    Done to posterior and prior, it takes the padding out of every objective: there the two are
    the same, so their log-ratio and their KL are 0 whatever stood there, and so is the gradient.

    Raises:
        NotImplementedError: If it is no distribution over sequences that this is known for.
    """
    if present is None:
        return distribution
    raise NotImplementedError(
        f"cut_padding: {type(distribution).__name__}; register it with @cut_padding.register"
    )


@cut_padding.register
def _(distribution: DiagonalNormal, present: Tensor | None) -> DiagonalNormal:
    if present is None:
        return distribution
    there = present.unsqueeze(-1)
    return DiagonalNormal(
        torch.where(there, distribution.loc, 0.0),
        torch.where(there, distribution.scale, 1.0),
        distribution.event_dims,
    )
