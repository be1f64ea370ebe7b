"""Coupling layers: one half of the vector decides how each number of the other is mapped."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from core.variational.distributions.base import at_least_single
from core.variational.flows.bijection import Step
from core.variational.flows.conditioner import Conditioner
from core.variational.flows.spline import rational_quadratic_spline


@runtime_checkable
class Elementwise(Protocol):
    """A map of single numbers with ``size`` parameters each.

    Numbers have shape ``(numbers, vectors)`` and parameters ``(size, numbers, vectors)``.
    """

    @property
    def size(self) -> int:
        """How many parameters a number's map has."""
        ...

    def forward(self, x: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        """Return the mapped numbers and the log slopes."""
        ...

    def inverse(self, y: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        """Return the numbers that are mapped to ``y``, and the log slopes of `forward` there."""
        ...

    def pull(
        self, x: Tensor, raw: Tensor, mapped: tuple[Tensor, Tensor], score: Tensor
    ) -> tuple[Tensor, Tensor]:
        r"""Pull a score along.

        Args:
            x: The numbers.
            raw: Their parameters.
            mapped: What `forward` made of them.
            score: :math:`g`, the score by ``x``.

        Returns:
            The score by the mapped numbers, :math:`h = (g - \partial_x \log \tau') / \tau'`; and
            the gradient of :math:`h \cdot \tau(x) + \log \tau'(x)` by the parameters.
        """
        ...


@dataclass(frozen=True)
class Shift:
    """Add a number: NICE, which preserves volume."""

    size: int = 1

    def forward(self, x: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        """Return the mapped numbers and the log slopes."""
        return x + raw.squeeze(0), torch.zeros_like(x)

    def inverse(self, y: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        """Return the numbers that are mapped to ``y``, and the log slopes of `forward` there."""
        return y - raw.squeeze(0), torch.zeros_like(y)

    def pull(
        self, x: Tensor, raw: Tensor, mapped: tuple[Tensor, Tensor], score: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Pull a score along: it does not change."""
        return score, score.unsqueeze(0)


@dataclass(frozen=True)
class Affine:
    """Scale and add: RealNVP, with a log scale between minus and plus ``bound``."""

    bound: float = 3.0
    size: int = 2

    def forward(self, x: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        """Return the mapped numbers and the log slopes."""
        shift, log_scale = self._parameters(raw)
        return torch.addcmul(shift, x, log_scale.exp()), log_scale

    def inverse(self, y: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        """Return the numbers that are mapped to ``y``, and the log slopes of `forward` there."""
        shift, log_scale = self._parameters(raw)
        return (y - shift) * (-log_scale).exp(), log_scale

    def pull(
        self, x: Tensor, raw: Tensor, mapped: tuple[Tensor, Tensor], score: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Pull a score along, in closed form."""
        log_scale = mapped[1]
        by_log_scale = (score * x + 1) * (1 - (log_scale / self.bound).square())
        pulled = score * (-log_scale).exp()
        return pulled, torch.stack([pulled, by_log_scale])

    def _parameters(self, raw: Tensor) -> tuple[Tensor, Tensor]:
        shift, log_scale = raw.unbind(0)
        return shift, self.bound * torch.tanh(log_scale / self.bound)


@dataclass(frozen=True)
class Spline:
    """Map by a rational-quadratic spline of ``bins`` bins between minus and plus ``bound``."""

    bins: int = 4
    bound: float = 5.0

    @property
    def size(self) -> int:
        """How many parameters a number's map has."""
        return 3 * self.bins - 1

    def forward(self, x: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        """Return the mapped numbers and the log slopes."""
        return rational_quadratic_spline(x, raw, self.bound)

    def inverse(self, y: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        """Return the numbers that are mapped to ``y``, and the log slopes of `forward` there."""
        return rational_quadratic_spline(y, raw, self.bound, inverse=True)

    def pull(
        self, x: Tensor, raw: Tensor, mapped: tuple[Tensor, Tensor], score: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Pull a score along, by differentiating the spline itself once more."""
        log_slope = mapped[1]
        one = torch.ones_like(score)
        (bent,) = torch.autograd.grad(log_slope, x, one, retain_graph=True)
        pulled = (score - bent) * (-log_slope.detach()).exp()
        (by_raw,) = torch.autograd.grad(mapped, raw, (pulled, one), retain_graph=True)
        return pulled, by_raw


class Coupling(nn.Module):
    r"""A layer that keeps one half of the vector and maps the other, knowing the first.

    .. math:: y_a = x_a, \quad y_b = \tau(x_b; \theta(x_a, c)), \quad
        \log |\det J| = \sum_b \log \tau'(x_b)

    Equally fast both ways. A vector of one number has no half to keep: it is mapped knowing the
    context only.

    References:
        Dinh et al., "NICE", ICLR 2015 workshop (arXiv:1410.8516); Dinh et al., "Density
        Estimation Using Real NVP", ICLR 2017, eq. 4 to 8 (arXiv:1605.08803).

    Args:
        latent: Length of the vectors.
        context: Length of the context :math:`c`; 0 for none.
        hidden: Widths of the conditioner's hidden layers.
        elementwise: The map :math:`\tau`.
        swap: Whether the second half is kept.
    """

    def __init__(
        self,
        latent: int,
        context: int,
        hidden: Sequence[int],
        elementwise: Elementwise,
        swap: bool,
    ) -> None:
        super().__init__()
        first = latent // 2
        self.swap = swap and latent > 1
        self.sizes = (first, latent - first)
        kept, mapped = reversed(self.sizes) if self.swap else self.sizes
        self.elementwise = elementwise
        self.conditioner = Conditioner(kept + context, hidden, mapped * elementwise.size)

    def forward(self, context: Tensor | None) -> CouplingBijection:
        """Return the layer for this context."""
        return CouplingBijection(self, context)

    def split(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the half that is kept and the half that is mapped."""
        first, second = x.split(self.sizes, -1)
        return (second, first) if self.swap else (first, second)

    def join(self, kept: Tensor, mapped: Tensor) -> Tensor:
        """Put the two halves back in place."""
        return torch.cat([mapped, kept] if self.swap else [kept, mapped], -1)

    def parameters_for(self, kept: Tensor, context: Tensor | None) -> tuple[Tensor, list[Tensor]]:
        """Return the parameters of every number that is mapped, and the hidden units."""
        if context is not None:
            kept = torch.cat([kept, context.expand(*kept.shape[:-1], context.shape[-1])], -1)
        raw, hidden = self.conditioner.columns(_flat(kept))
        return at_least_single(raw).unflatten(0, (self.elementwise.size, -1)), hidden


class CouplingBijection:
    """A `Coupling` in one context."""

    def __init__(self, layer: Coupling, context: Tensor | None) -> None:
        self.layer = layer
        self.context = context

    def forward(self, x: Tensor) -> Step:
        """Map noise to value."""
        layer, shape = self.layer, x.shape
        kept, mapped = layer.split(x)
        raw, hidden = layer.parameters_for(kept, self.context)
        numbers = _columns(mapped)
        y, log_slope = out = layer.elementwise.forward(numbers, raw)

        def pull(score: Tensor) -> Tensor:
            of_kept, of_mapped = layer.split(score)
            pulled, by_raw = layer.elementwise.pull(numbers, raw, out, _columns(of_mapped))
            through = layer.conditioner.pull(by_raw.flatten(0, 1), hidden, kept.shape[-1])
            of_kept = of_kept - through.view(of_kept.shape)
            return layer.join(of_kept, _rows(pulled, shape)).detach()

        return Step(layer.join(kept, _rows(y, shape)), log_slope.sum(0).view(shape[:-1]), pull)

    def inverse(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Return the noise of a value, and the log-determinant of `forward` there."""
        layer, shape = self.layer, y.shape
        kept, mapped = layer.split(y)
        raw, _ = layer.parameters_for(kept, self.context)
        x, log_slope = layer.elementwise.inverse(_columns(mapped), raw)
        return layer.join(kept, _rows(x, shape)), log_slope.sum(0).view(shape[:-1])


def _flat(vectors: Tensor) -> Tensor:
    return vectors.reshape(vectors.shape[:-1].numel(), vectors.shape[-1])


def _columns(vectors: Tensor) -> Tensor:
    """Turn vectors of shape ``(*batch, numbers)`` into columns, ``(numbers, vectors)``."""
    return _flat(vectors).mT


def _rows(columns: Tensor, shape: torch.Size) -> Tensor:
    """Turn columns back into vectors."""
    return columns.mT.reshape(*shape[:-1], -1)


ELEMENTWISE: dict[str, Callable[[], Elementwise]] = {
    "nice": Shift,
    "realnvp": Affine,
    "nsf": Spline,
}
