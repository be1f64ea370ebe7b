"""zuko's autoregressive flows as layers of ours.

Its Gaussianisation flow is not among them: as implemented it clips at the quantile 1 - 1e-6 and
inverts by bisection on [-10, 10], and with its own initialisation an inverse was off by 2 to 4
(zuko 1.6.0, float64, 3 layers without context).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from core.variational.distributions.base import at_least_single
from core.variational.flows.bijection import Step


def zuko() -> ModuleType:
    """Import zuko, and leave torch's distributions as they are.

    On import, zuko switches the validation of arguments off for every distribution of the process
    and says that none has constraints; both are put back.
    """
    with _untouched(Distribution, "_validate_args", "arg_constraints"):
        import zuko
        import zuko.flows
        import zuko.transforms
    return zuko


class Library(nn.Module):
    """A lazy transform of zuko as a layer, in zuko's own direction.

    Args:
        transform: What zuko calls a ``LazyTransform``.
    """

    def __init__(self, transform: nn.Module) -> None:
        super().__init__()
        self.transform = transform

    def forward(self, context: Tensor | None) -> LibraryBijection:
        """Return the layer for this context."""
        return LibraryBijection(self.transform(context))


class LibraryBijection:
    """A transform of zuko's: no `pull`, since its Jacobian is a full triangle."""

    def __init__(self, transform: Any) -> None:
        self.transform = transform

    def forward(self, x: Tensor) -> Step:
        """Map noise to value."""
        value, log_det = self.transform.call_and_ladj(x)
        return Step(at_least_single(value), at_least_single(log_det), None)

    def inverse(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Return the noise of a value, and the log-determinant of `forward` there."""
        value = self.transform.inv(y)
        _, log_det = self.transform.call_and_ladj(value)
        return at_least_single(value), at_least_single(log_det)


def autoregressive(
    latent: int, context: int, hidden: Sequence[int], index: int, spline: bool
) -> nn.Module:
    """Return a masked autoregressive layer, affine or of splines, its order turned every layer."""
    library = zuko()
    order = torch.arange(latent)
    shapes: dict[str, Any] = {}
    if spline:
        shapes = {
            "univariate": library.transforms.MonotonicRQSTransform,
            "shapes": [(8,), (8,), (7,)],
        }
    return Library(
        library.flows.MaskedAutoregressiveTransform(
            latent,
            context,
            order=order.flip(0) if index % 2 else order,
            hidden_features=tuple(hidden),
            **shapes,
        )
    )


@contextlib.contextmanager
def _untouched(owner: type, *names: str) -> Iterator[None]:
    missing = object()
    before = {name: vars(owner).get(name, missing) for name in names}
    try:
        yield
    finally:
        for name, value in before.items():
            if value is missing:
                delattr(owner, name)
            else:
                setattr(owner, name, value)
