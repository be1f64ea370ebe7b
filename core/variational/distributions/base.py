"""What the lean distributions share: shapes, sums over an event, and checks."""

from __future__ import annotations

import torch
from torch import Size, Tensor
from torch.distributions import Distribution, constraints


def at_least_single(parameter: Tensor) -> Tensor:
    """Half-precision networks are fine, half-precision log-densities and KLs are not."""
    half = parameter.dtype in (torch.float16, torch.bfloat16)
    return parameter.float() if half else parameter


class Diagonal(Distribution):
    """Shapes of a distribution whose last ``event_dims`` dimensions are one event."""

    event_dims: int

    def __init__(self, shape: Size, event_dims: int) -> None:
        if not 0 <= event_dims <= len(shape):
            raise ValueError(
                f"{type(self).__name__}: event_dims={event_dims} with parameters of shape "
                f"{tuple(shape)}; allowed is 0 to {len(shape)}"
            )
        self.event_dims = event_dims
        split = len(shape) - event_dims
        # Validation off for this object only: the global switch is other people's.
        super().__init__(shape[:split], shape[split:], validate_args=False)

    def _sum(self, terms: Tensor) -> Tensor:
        if self.event_dims == 1:
            return terms.sum(-1)
        return terms.flatten(-self.event_dims).sum(-1) if self.event_dims else terms

    def _check(self, value: Tensor) -> None:
        if self.event_dims and value.shape[-self.event_dims :] != self._event_shape:
            raise ValueError(
                f"{type(self).__name__}: value of shape {tuple(value.shape)} does not end in the "
                f"event shape {tuple(self._event_shape)}"
            )

    @property
    def support(self) -> constraints.Constraint:
        """The values that it covers."""
        return constraints.independent(constraints.real, self.event_dims)
