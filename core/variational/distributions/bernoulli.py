"""Binary data."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Size, Tensor
from torch.distributions import Bernoulli, constraints, register_kl
from torch.nn import functional

from core.variational.distributions.base import Diagonal, at_least_single, check_same_event

MINUS_ONE = torch.tensor(-1.0)


class LogitsBernoulli(Diagonal):
    r"""Independent Bernoulli variables, from their logits.

    .. math:: \log p(x) = \sum_j x_j l_j - \log(1 + e^{l_j})

    Stable at any logit. A value between 0 and 1 (a grey level read as a probability) gives the
    cross-entropy, which is an expected log-likelihood.

    Args:
        logits: Log odds :math:`l` of shape ``(*batch, *event)``.
        event_dims: How many of the last dimensions are one event.

    Raises:
        ValueError: If there are fewer dimensions than ``event_dims``.

    Example:
        >>> LogitsBernoulli(torch.zeros(3, 2)).log_prob(torch.ones(3, 2)).shape
        torch.Size([3])
    """

    bounded = True

    def __init__(self, logits: Tensor, event_dims: int = 1) -> None:
        self.logits = logits = at_least_single(logits)
        super().__init__(logits.shape, event_dims)

    @property
    def arg_constraints(self) -> dict[str, constraints.Constraint]:
        """What the parameters may be."""
        return {"logits": constraints.real}

    @property
    def support(self) -> constraints.Constraint:
        """The values that it covers."""
        return constraints.independent(constraints.boolean, self.event_dims)

    @property
    def mean(self) -> Tensor:
        """The mean, of shape ``(*batch, *event)``."""
        return self.logits.sigmoid()

    @property
    def mode(self) -> Tensor:
        """The most probable value."""
        return (self.logits >= 0).to(self.logits.dtype)

    @property
    def variance(self) -> Tensor:
        """The variance, element by element."""
        return self.logits.sigmoid() * (-self.logits).sigmoid()

    def mapped(self, change: Callable[[Tensor], Tensor], event_dims: int) -> LogitsBernoulli:
        """Return the same family with ``change`` done to every parameter, and those event dims."""
        return LogitsBernoulli(change(self.logits), event_dims)

    def univariate(self) -> Bernoulli:
        """Return torch's name for it when no dimension is an event."""
        return Bernoulli(logits=self.logits, validate_args=False)

    @torch.no_grad()
    def sample(self, sample_shape: Size | Sequence[int] = ()) -> Tensor:
        """Draw zeros and ones of shape ``(*sample, *batch, *event)``."""
        shape = torch.Size(sample_shape) + self.logits.shape
        return torch.bernoulli(self.logits.sigmoid().expand(shape))

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log probability in nats; ``value`` may have further leading dimensions."""
        self._check(value)
        logits = self.logits
        if value.dtype != logits.dtype or value.device != logits.device:
            value = value.to(logits)
        if value.shape != logits.shape:
            if value.dim() <= logits.dim():
                value = value.expand(logits.shape)
            else:
                value, logits = torch.broadcast_tensors(value, logits)
        # One kernel forward and one backward, where value * logits - softplus(logits) takes three;
        # weighed by -1 it is the log probability.
        cross_entropy = functional.binary_cross_entropy_with_logits
        return self._sum(cross_entropy(logits, value, MINUS_ONE, reduction="none"))

    def entropy(self) -> Tensor:
        """Return the entropy in nats, of shape ``batch``."""
        return self._sum(functional.softplus(self.logits) - self.logits * self.logits.sigmoid())


@register_kl(LogitsBernoulli, LogitsBernoulli)
def _kl_bernoulli_bernoulli(posterior: LogitsBernoulli, prior: LogitsBernoulli) -> Tensor:
    check_same_event(posterior, prior)
    ours, theirs = posterior.logits, prior.logits
    costs = functional.softplus(theirs) - functional.softplus(ours)
    return posterior._sum(ours.sigmoid() * (ours - theirs) + costs)
