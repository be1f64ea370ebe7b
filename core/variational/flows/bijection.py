"""What a layer of a flow is: a map from noise to value with its log-determinant."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol, runtime_checkable

from torch import Tensor


class Step(NamedTuple):
    r"""One layer applied to its input.

    Args:
        value: :math:`y = f(x)` of the shape of :math:`x`.
        log_det: :math:`\log |\det \partial y / \partial x|` in nats, without the last dimension.
        pull: From the score :math:`\partial \log q / \partial x` to the score
            :math:`\partial \log q / \partial y` (`core.variational.fast_path`), without gradient;
            None where that takes more than one pass.
    """

    value: Tensor
    log_det: Tensor
    pull: Callable[[Tensor], Tensor] | None


@runtime_checkable
class Bijection(Protocol):
    """A layer with its parameters at hand, in the sampling direction: from noise to value."""

    def forward(self, x: Tensor) -> Step:
        """Map noise to value."""
        ...

    def inverse(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Return the noise of a value, and the log-determinant of `forward` there."""
        ...


class Reversed:
    """A bijection run backwards: its inverse makes the samples."""

    def __init__(self, bijection: Bijection) -> None:
        self.bijection = bijection

    def forward(self, x: Tensor) -> Step:
        """Map noise to value."""
        value, log_det = self.bijection.inverse(x)
        return Step(value, -log_det, None)

    def inverse(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Return the noise of a value, and the log-determinant of `forward` there."""
        step = self.bijection.forward(y)
        return step.value, -step.log_det
