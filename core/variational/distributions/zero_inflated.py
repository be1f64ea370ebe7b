"""Data with more zeros than their family has: counts of sparse events, silence, dropouts."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Size, Tensor
from torch.distributions import Distribution, constraints
from torch.nn import functional

from core.variational.distributions.base import Diagonal, at_least_single
from core.variational.distributions.fixed import stop_gradient


class _OrZero(constraints.Constraint):
    """The values of another constraint, and zero."""

    def __init__(self, base: constraints.Constraint) -> None:
        self.base = base
        self.is_discrete = base.is_discrete

    def check(self, value: Tensor) -> Tensor:
        return self.base.check(value) | (value == 0)


class ZeroInflated(Diagonal):
    r"""A mixture of zero and another distribution, element by element.

    .. math:: P(x) = \pi\, \mathbb 1[x = 0] + (1 - \pi)\, p(x), \quad
        \operatorname{logit} \pi = g

    For counts :math:`p(0)` adds to the probability of zero. For a continuous base zero is an atom:
    ``log_prob`` is the log mass :math:`\log \pi` there and the log density
    :math:`\log (1 - \pi) p(x)` elsewhere, and log-likelihoods may be compared only with models of
    the same form.

    References:
        Lambert, "Zero-Inflated Poisson Regression", Technometrics 34, 1992; Lopez et al., "Deep
        generative modeling for single-cell transcriptomics", Nature Methods 15, 2018.

    Args:
        base: A univariate distribution of batch shape ``(*batch, *event)``.
        gate_logits: Log odds :math:`g` of the extra zeros; broadcasts against the base.
        event_dims: How many of the last dimensions are one event.

    Raises:
        ValueError: If the base is over vectors, or there are fewer dimensions than ``event_dims``.

    Example:
        >>> from torch.distributions import Poisson
        >>> counts = ZeroInflated(Poisson(torch.ones(3)), torch.zeros(3))
        >>> counts.mean
        tensor([0.5000, 0.5000, 0.5000])
    """

    def __init__(self, base: Distribution, gate_logits: Tensor, event_dims: int = 1) -> None:
        if base.event_shape:
            raise ValueError(
                f"ZeroInflated: a base of event shape {tuple(base.event_shape)}; it must be "
                "univariate (event shape ()): put all dimensions into its batch, and say here how "
                "many are one event"
            )
        shape = torch.broadcast_shapes(base.batch_shape, gate_logits.shape)
        self.base = base.expand(shape) if base.batch_shape != shape else base
        self.gate_logits = at_least_single(gate_logits).expand(shape)
        super().__init__(shape, event_dims)

    @property
    def arg_constraints(self) -> dict[str, constraints.Constraint]:
        """What the parameters may be."""
        return {"gate_logits": constraints.real}

    @property
    def support(self) -> constraints.Constraint:
        """The values that it covers."""
        base: constraints.Constraint = self.base.support  # pyright: ignore[reportAssignmentType]
        return constraints.independent(_OrZero(base), self.event_dims)

    @property
    def is_discrete(self) -> bool:
        """Whether the base has a probability at zero, rather than a density."""
        return bool(self.support.is_discrete)

    def mapped(self, change: Callable[[Tensor], Tensor], event_dims: int) -> ZeroInflated:
        """Raise: the parameters of the base are its own.

        Raises:
            NotImplementedError: Always.
        """
        raise NotImplementedError("ZeroInflated: the parameters of the base are its own")

    def expand(self, batch_shape: Size | Sequence[int], _instance: None = None) -> ZeroInflated:
        """Return the same distribution with the batch shape given."""
        shape = torch.Size(batch_shape) + self._event_shape
        return ZeroInflated(
            self.base.expand(shape), self.gate_logits.expand(shape), self.event_dims
        )

    @property
    def mean(self) -> Tensor:
        """The mean, of shape ``(*batch, *event)``."""
        return (-self.gate_logits).sigmoid() * self.base.mean

    @property
    def variance(self) -> Tensor:
        """The variance, element by element."""
        share = (-self.gate_logits).sigmoid()
        mean = self.base.mean
        return share * (self.base.variance + self.gate_logits.sigmoid() * mean.square())

    @torch.no_grad()
    def sample(self, sample_shape: Size | Sequence[int] = ()) -> Tensor:
        """Draw values of shape ``(*sample, *batch, *event)``."""
        value = self.base.sample(torch.Size(sample_shape))
        zero = torch.bernoulli(self.gate_logits.sigmoid().expand(value.shape)) > 0
        return torch.where(zero, torch.zeros_like(value), value)

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log probability or density in nats; see above for zero."""
        self._check(value)
        log_gate = functional.logsigmoid(self.gate_logits)
        log_rest = functional.logsigmoid(-self.gate_logits)
        zero = value == 0
        # A continuous base is never asked about zero, where its gradient may be infinite.
        asked = value if self.is_discrete else torch.where(zero, torch.ones_like(value), value)
        rest = log_rest + self.base.log_prob(asked)
        at_zero = torch.logaddexp(log_gate, rest) if self.is_discrete else log_gate
        return self._sum(torch.where(zero, at_zero, rest))


@stop_gradient.register
def _(distribution: ZeroInflated) -> ZeroInflated:
    gate = distribution.gate_logits.detach()
    return ZeroInflated(stop_gradient(distribution.base), gate, distribution.event_dims)
