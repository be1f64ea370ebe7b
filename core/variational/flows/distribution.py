"""The distribution that a flow makes of a simple one."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TypeVar

import torch
from torch import Size, Tensor, nn
from torch.distributions import Distribution, constraints

from core.variational import fast_path
from core.variational.distributions import stop_gradient
from core.variational.flows.bijection import Bijection
from core.variational.flows.table import Flow

ModuleT = TypeVar("ModuleT", bound=nn.Module)


class FlowDistribution(Distribution):
    r"""A simple distribution, bent by a flow.

    .. math:: z = f_L \circ \dots \circ f_1(u), \quad u \sim q_0, \quad
        \log q(z) = \log q_0(u) - \sum_l \log |\det \partial f_l|

    The flow acts on the last dimension; further event dimensions (nodes) are mapped one by one
    and their log-determinants added up.

    **The log density of its own last sample costs nothing.** ``log_prob`` of the very tensor that
    ``rsample`` returned last (the same object, unchanged) uses the noise that made it, and
    inverts nothing. Its gradient with respect to the parameters is then that of
    :math:`\log q_\phi(z_\phi(\epsilon))` as a whole; it does not pass through the tensor, so ask
    ``stop_gradient(q).log_prob(z)`` for the derivative by ``z`` alone, which for the last sample
    is the fast path gradient (`core.variational.fast_path`). Any other tensor, a detached copy
    too, is inverted.

    Args:
        base: :math:`q_0`, its event ending in the flow's dimension.
        flow: The layers.
        context: What the layers know, of shape ``(*batch, *event[:-1], context)``; None if they
            know nothing.

    Raises:
        ValueError: If the base's last dimension is not the flow's.

    Example:
        >>> from core.variational.distributions import DiagonalNormal
        >>> base = DiagonalNormal(torch.zeros(5, 2), torch.ones(5, 2))
        >>> q = FlowDistribution(base, Flow("planar", 2, layers=3, context=0, hidden=()))
        >>> q.log_prob(q.rsample((7,))).shape
        torch.Size([7, 5])
    """

    has_rsample = True

    def __init__(self, base: Distribution, flow: Flow, context: Tensor | None = None) -> None:
        if base.event_shape[-1:] != (flow.latent,):
            raise ValueError(
                f"FlowDistribution: base of event shape {tuple(base.event_shape)}; the flow maps "
                f"vectors of length {flow.latent}"
            )
        self.base, self.flow, self.context = base, flow, context
        self._bijections: list[Bijection] | None = None
        self._last: fast_path.Draw | None = None
        self._stopped = self._with_gradient = False
        super().__init__(base.batch_shape, base.event_shape, validate_args=False)

    @property
    def arg_constraints(self) -> dict[str, constraints.Constraint]:
        """What the parameters may be: it has none of its own."""
        return {}

    @property
    def support(self) -> constraints.Constraint:
        """The values that it covers."""
        return constraints.independent(constraints.real, len(self.event_shape))

    @property
    def bijections(self) -> list[Bijection]:
        """The layers in this context."""
        bijections = self._bijections
        # Those made for a sample without gradients know nothing of the context's.
        if bijections is None or (torch.is_grad_enabled() and not self._with_gradient):
            flow = frozen(self.flow) if self._stopped else self.flow
            bijections = self._bijections = flow(self.context)
            self._with_gradient = torch.is_grad_enabled()
        return bijections

    def expand(
        self, batch_shape: Size | Sequence[int], _instance: None = None
    ) -> FlowDistribution:
        """Return the same distribution with the batch shape given."""
        shape, context = torch.Size(batch_shape), self.context
        if context is not None:
            context = context.expand(*shape, *self.event_shape[:-1], -1)
        expanded = FlowDistribution(self.base.expand(shape), self.flow, context)
        expanded._stopped = self._stopped
        return expanded

    def rsample(self, sample_shape: Size | Sequence[int] = ()) -> Tensor:
        """Draw values of shape ``(*sample, *batch, *event)``."""
        noise = self.base.rsample(torch.Size(sample_shape))
        if torch.is_grad_enabled() and not noise.requires_grad:
            noise.requires_grad_()  # the path gradient asks for slopes by it
        value, log_dets, pulls = noise, [], []
        for bijection in self.bijections:
            step = bijection.forward(value)
            value = step.value
            log_dets.append(step.log_det)
            pulls.append(step.pull)
        if not pulls:
            value = noise.clone()
        graph, version = torch.is_grad_enabled(), value._version
        self._last = fast_path.Draw(value, noise, log_dets, pulls, graph, version)
        return value

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log density in nats; ``value`` may have further leading dimensions."""
        last = self._last
        if last is not None and last.is_of(value):
            if not self._stopped:
                return self._log_prob_of_draw(last)
            if last.can_pull:
                with torch.no_grad():
                    log_prob = self._log_prob_of_draw(last)
                return fast_path.log_prob_with_score(value, log_prob, last.score(self.base))
        shape = torch.broadcast_shapes(value.shape, self._batch_shape + self._event_shape)
        value = value.expand(shape)
        total: Tensor | None = None
        for bijection in reversed(self.bijections):
            value, log_det = bijection.inverse(value)
            total = log_det if total is None else total + log_det
        log_prob = self.base.log_prob(value)
        return log_prob if total is None else log_prob - self._sum(total)

    def _log_prob_of_draw(self, draw: fast_path.Draw) -> Tensor:
        log_prob = self.base.log_prob(draw.noise)
        for log_det in draw.log_dets:
            log_prob = log_prob - self._sum(log_det)
        return log_prob

    def _sum(self, log_det: Tensor) -> Tensor:
        extra = len(self.event_shape) - 1
        return log_det.flatten(-extra).sum(-1) if extra else log_det


@stop_gradient.register
def _(distribution: FlowDistribution) -> FlowDistribution:
    context = distribution.context
    fixed = FlowDistribution(
        stop_gradient(distribution.base),
        distribution.flow,
        None if context is None else context.detach(),
    )
    fixed._last, fixed._stopped = distribution._last, True
    return fixed


def frozen(module: ModuleT) -> ModuleT:
    """Return the same module, sharing its memory, whose parameters get no gradient."""
    twin = copy.copy(module)
    twin.__dict__ = module.__dict__.copy()
    twin.__dict__["_parameters"] = {
        name: None if parameter is None else parameter.detach()
        for name, parameter in module._parameters.items()
    }
    twin.__dict__["_modules"] = {
        name: None if child is None else frozen(child) for name, child in module._modules.items()
    }
    return twin
