r"""The path gradient of a flow in one pass: the score is carried along with the sample.

The path-derivative gradient of :math:`E_q[\log q(z) - \log p(z)]` needs
:math:`\partial \log q(z) / \partial z` at :math:`z = f_L \circ \dots \circ f_1(u)`. Instead of
inverting the flow, start from the score of the noise and pull it through one layer after another:

.. math:: g_0 = \frac{\partial \log q_0(u)}{\partial u}, \quad
    g_l = J_l^{-T} \left(g_{l - 1} - \frac{\partial \log |\det J_l|}{\partial x_{l - 1}}\right)

For a coupling layer :math:`J_l^{-T}` is a division and one vector-Jacobian product of the
conditioner; for planar, radial and Sylvester layers it is in closed form. For an autoregressive
layer it is the solution of a full triangular system, one pass a dimension: no faster than the
inverse, which is what is used there.

References:
    Vaitl, Winkler, Richter and Kessel, "Fast and Unified Path Gradient Estimators for Normalizing
    Flows", ICLR 2024 (arXiv:2403.15881).
    Roeder et al., "Sticking the Landing", NeurIPS 2017 (arXiv:1703.09194).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution

from core.variational.distributions import stop_gradient


@dataclass(eq=False)
class Draw:
    """How the last sample of a flow came about.

    Args:
        value: The sample.
        noise: What the first layer got.
        log_dets: The log-determinant of each layer.
        pulls: How each layer pulls a score from its input to its output; None for one that
            cannot in one pass.
        has_graph: Whether gradients were recorded.
        version: The sample's count of changes in place, to notice one.
    """

    value: Tensor
    noise: Tensor
    log_dets: Sequence[Tensor]
    pulls: Sequence[Callable[[Tensor], Tensor] | None]
    has_graph: bool
    version: int
    _score: Tensor | None = None

    def is_of(self, value: Tensor) -> bool:
        """Whether a tensor is this draw, with gradients recorded if they are wanted now."""
        same = value is self.value and value._version == self.version
        return same and (self.has_graph or not torch.is_grad_enabled())

    @property
    def can_pull(self) -> bool:
        """Whether every layer can pull a score along in one pass."""
        return self.has_graph and all(pull is not None for pull in self.pulls)

    def score(self, base: Distribution) -> Tensor:
        r"""Return :math:`\partial \log q(z) / \partial z` at the sample, without a graph.

        Has to be asked for before the graph of the sample is freed by ``backward``.

        Raises:
            ValueError: If a layer cannot pull a score along in one pass.
        """
        if not self.can_pull:
            raise ValueError(
                "fast path gradient: the flow has layers whose Jacobian is a full triangle, or "
                "the sample was drawn without gradients; use a coupling, planar, radial or "
                "Sylvester flow and rsample"
            )
        if self._score is None:
            score = _score_of_noise(base, self.noise)
            for pull in self.pulls:
                assert pull is not None
                score = pull(score)
            self._score = score.detach()
        return self._score


def log_prob_with_score(value: Tensor, log_prob: Tensor, score: Tensor) -> Tensor:
    """Return a log density whose gradient by the value is known, and by nothing else is.

    Args:
        value: Samples of shape ``(*samples, *batch, *event)``.
        log_prob: Their log density in nats, of shape ``(*samples, *batch)``.
        score: The gradient of that by the value, of the value's shape.

    Example:
        >>> z = torch.ones(3, 2, requires_grad=True)
        >>> log_prob_with_score(z, torch.zeros(3), -z.detach()).sum().backward()
        >>> z.grad[0]
        tensor([-1., -1.])
    """
    known: Any = _KnownScore.apply(value, log_prob, score)
    return known


class _KnownScore(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor, log_prob: Tensor, score: Tensor) -> Tensor:
        ctx.save_for_backward(score)
        return log_prob.clone()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor, None, None]:
        (score,), (gradient,) = ctx.saved_tensors, outer
        within = [1] * (score.dim() - gradient.dim())
        return gradient.reshape(*gradient.shape, *within) * score, None, None


def _score_of_noise(base: Distribution, noise: Tensor) -> Tensor:
    with torch.enable_grad():
        leaf = noise.detach().requires_grad_()
        log_prob = stop_gradient(base).log_prob(leaf)
        (score,) = torch.autograd.grad(log_prob.sum(), leaf)
    return score
