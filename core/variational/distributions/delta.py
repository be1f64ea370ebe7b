"""All mass on one value: the posterior of maximum-a-posteriori and of deterministic encoders."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Size, Tensor
from torch.distributions import constraints

from core.variational.distributions.base import Diagonal, at_least_single


class Delta(Diagonal):
    r"""All mass on one value.

    .. math:: P(z = \mu) = 1

    ``log_prob`` is a log **mass**: 0 at the value and -inf elsewhere. No KL is registered for it,
    because against a density there is none that is finite. ``kl`` then falls back to
    :math:`\log q(z) - \log p(z) = -\log p(\mu)`, the cross-entropy. That is

    * the KL itself, exactly, if the prior is discrete too (:math:`\log K` for a uniform codebook);
    * not a KL if the prior is a density: the objective is then the joint
      :math:`\log p(x, \mu)`, which MAP maximises, and no bound of :math:`\log p(x)`. Its value
      depends on the unit of :math:`z`.

    Either way it has no variance, and its gradient reaches the value through ``rsample``.

    Args:
        value: The value :math:`\mu`, of shape ``(*batch, *event)``.
        event_dims: How many of the last dimensions are one event.

    Raises:
        ValueError: If there are fewer dimensions than ``event_dims``.

    Example:
        >>> Delta(torch.ones(2, 3)).log_prob(torch.ones(3))
        tensor([0., 0.])
    """

    has_rsample = True

    def __init__(self, value: Tensor, event_dims: int = 1) -> None:
        self.value = value if not value.is_floating_point() else at_least_single(value)
        super().__init__(value.shape, event_dims)

    @property
    def arg_constraints(self) -> dict[str, constraints.Constraint]:
        """What the parameters may be."""
        return {"value": constraints.real}

    def mapped(self, change: Callable[[Tensor], Tensor], event_dims: int) -> Delta:
        """Return the same family with ``change`` done to every parameter, and those event dims."""
        return Delta(change(self.value), event_dims)

    @property
    def mean(self) -> Tensor:
        """The value."""
        return self.value

    @property
    def mode(self) -> Tensor:
        """The value."""
        return self.value

    @property
    def variance(self) -> Tensor:
        """Nothing."""
        return torch.zeros_like(self.value)

    def rsample(self, sample_shape: Size | Sequence[int] = ()) -> Tensor:
        """Return the value, repeated to the shape ``(*sample, *batch, *event)``."""
        return self.value.expand(torch.Size(sample_shape) + self.value.shape)

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log mass in nats: 0 or -inf."""
        self._check(value)
        zero = torch.zeros((), dtype=torch.get_default_dtype(), device=self.value.device)
        zero = zero.to(self.value) if self.value.is_floating_point() else zero
        return self._sum(torch.where(value == self.value, zero, -torch.inf))

    def entropy(self) -> Tensor:
        """Return the entropy of one outcome: 0 nats."""
        return self.log_prob(self.value)
