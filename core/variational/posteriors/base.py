"""What all posteriors share: a linear head, or none, and dimensions of the event."""

from __future__ import annotations

import abc

from torch import Tensor, nn
from torch.distributions import Distribution, Independent


class Posterior(nn.Module, abc.ABC):
    """A module that turns features into a distribution of the latent.

    Args:
        features: Size of the last dimension of its input, and a linear head of its own makes the
            raw parameters; or None if the input is the raw parameters already, as of an encoder
            that makes them by message passing.
        size: How many raw parameters a latent vector has.
        event_dims: Event dimensions of the distribution, the latent one included: 2 for the nodes
            and latents of a graph.

    Raises:
        ValueError: If a number is out of range.
    """

    def __init__(self, features: int | None, size: int, event_dims: int) -> None:
        super().__init__()
        if event_dims < 1:
            name = type(self).__name__
            raise ValueError(f"{name}: event_dims={event_dims}; the latent itself is 1")
        self.head = Raw(size) if features is None else nn.Linear(features, size)
        self.size = size
        self.event_dims = event_dims

    @abc.abstractmethod
    def forward(self, features: Tensor) -> Distribution:
        """Return the posterior for features of shape ``(*batch, features)``."""


class Raw(nn.Module):
    """No head: what comes in is as many raw parameters as are needed."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def forward(self, features: Tensor) -> Tensor:
        """Return the features.

        Raises:
            ValueError: If they are not as many as the raw parameters.
        """
        if features.shape[-1] != self.size:
            raise ValueError(
                f"posterior: features of shape {tuple(features.shape)}; without a head the last "
                f"dimension must be the {self.size} raw parameters"
            )
        return features


def over_event(distribution: Distribution, event_dims: int) -> Distribution:
    """Count the last batch dimensions to the event, until it has as many as asked for."""
    extra = event_dims - len(distribution.event_shape)
    return Independent(distribution, extra, validate_args=False) if extra else distribution
