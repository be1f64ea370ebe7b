"""Prefix products of an associative operation in a logarithmic number of steps."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import TypeVar

import torch
from torch import Tensor

Elements = tuple[Tensor, ...]
Combine = Callable[[Elements, Elements], Elements]
F = TypeVar("F", bound=Callable[..., object])


def associative_scan(
    combine: Combine, elements: Elements, dim: int, reverse: bool = False
) -> Elements:
    r"""Return all prefix products :math:`a_1 \otimes \dots \otimes a_t` along a dimension.

    Neighbours are combined in pairs, the pairs are scanned, and the places between are filled in:
    at most :math:`2 T` products in :math:`2 \log_2 T` batched steps, and as many backward.

    References:
        Blelloch, "Scans as Primitive Parallel Operations", IEEE Transactions on Computers 38(11),
        1989.

    Args:
        combine: The associative operation, the earlier elements first; batched along ``dim``.
        elements: Tensors that together make one element for each index along ``dim``.
        dim: The dimension, counted from the last (negative) where the tensors' ranks differ.
        reverse: Return the suffix products :math:`a_t \otimes \dots \otimes a_T`.

    Example:
        >>> numbers = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0])
        >>> associative_scan(lambda a, b: (a[0] + b[0],), (numbers,), dim=-1)
        (tensor([ 1.,  3.,  6., 10., 15.]),)
    """
    if reverse:
        backward = tuple(each.flip(dim) for each in elements)
        scanned = _scan(lambda later, earlier: combine(earlier, later), backward, dim)
        return tuple(each.flip(dim) for each in scanned)
    return _scan(combine, elements, dim)


def _scan(combine: Combine, elements: Elements, dim: int) -> Elements:
    length = elements[0].shape[dim]
    if length < 2:
        return elements
    pairs = combine(
        _every_other(elements, 0, length - 1, dim), _every_other(elements, 1, None, dim)
    )
    odd = _scan(combine, pairs, dim)
    before = tuple(each.narrow(dim, 0, (length - 1) // 2) for each in odd)
    rest = combine(before, _every_other(elements, 2, None, dim)) if length > 2 else before
    return tuple(
        _interleave(torch.cat([first.narrow(dim, 0, 1), even], dim), second, dim)
        for first, even, second in zip(elements, rest, odd, strict=True)
    )


def _every_other(elements: Elements, start: int, stop: int | None, dim: int) -> Elements:
    trailing = (slice(None),) * (-dim - 1)
    return tuple(each[(..., slice(start, stop, 2), *trailing)] for each in elements)


def _interleave(even: Tensor, odd: Tensor, dim: int) -> Tensor:
    """Return even[0], odd[0], even[1], …; there are as many odd ones, or one less."""
    shared = odd.shape[dim]
    both = torch.stack([even.narrow(dim, 0, shared), odd], dim).flatten(dim - 1, dim)
    return torch.cat([both, even.narrow(dim, shared, even.shape[dim] - shared)], dim)


@contextlib.contextmanager
def _no_autocast() -> Iterator[None]:
    with torch.autocast("cpu", enabled=False), torch.autocast("cuda", enabled=False):
        yield


def in_full_precision(function: F) -> F:
    """Let a function's matrix products keep the type of its arguments under autocast.

    Densities and covariances in bfloat16 are no densities and no covariances.
    """

    @functools.wraps(function)
    def wrapped(*args: object, **kwargs: object) -> object:
        if not torch.is_autocast_enabled("cpu") and not torch.is_autocast_enabled("cuda"):
            return function(*args, **kwargs)
        with _no_autocast():
            return function(*args, **kwargs)

    return wrapped  # type: ignore[return-value]
