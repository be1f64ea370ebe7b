"""Whether data can have come from a likelihood at all, and what to do if not."""

from __future__ import annotations

import functools

import torch
from torch import Tensor
from torch.distributions import Categorical, Distribution, Independent

from core.variational.distributions import LogitsBernoulli
from core.variational.distributions.logistic import Gridded
from core.variational.likelihoods.autoregressive import Autoregressive


def check_support(
    likelihood: str | Distribution,
    value: Tensor,
    classes: int | None = None,
    mask: Tensor | None = None,
    name: str = "values",
) -> None:
    """Say so, and how to mend it, if values are outside a likelihood's support.

    For the first batch of a training: it reads every value, which the hot path must not.

    Args:
        likelihood: What a likelihood gives, or its kind: ``"bernoulli"``, ``"categorical"`` or any
            likelihood of real data.
        value: The data.
        classes: Number of classes of categorical data, where only the kind is given.
        mask: True where observed; what is not is not looked at.
        name: What the values are, for the message, e.g. ``"pixels"``.

    Raises:
        ValueError: If a value is outside the support.

    Example:
        >>> check_support("bernoulli", torch.tensor([0.0, 255.0]), name="pixels")
        Traceback (most recent call last):
        ...
        ValueError: pixels up to 255; Bernoulli needs values in [0, 1]: divide by 255 or use \
likelihood.kind 'normal'
    """
    value = value if mask is None else value[mask.expand(value.shape)]
    if value.numel() == 0:
        return
    _check_finite(value, name)
    if isinstance(likelihood, Distribution):
        _check(likelihood, value, name)
    elif likelihood == "bernoulli":
        _check_unit_interval(value, name)
    elif likelihood == "categorical":
        _check_classes(value, classes, name)


def _check_finite(value: Tensor, name: str) -> None:
    wrong = int((~torch.isfinite(value)).sum())
    if wrong:
        raise ValueError(
            f"{name}: {wrong} of {value.numel()} are not finite; remove them, or mask them and "
            "use masked_log_prob"
        )


def _check_unit_interval(value: Tensor, name: str) -> None:
    least, most = float(value.min()), float(value.max())
    needs = "Bernoulli needs values in [0, 1]"
    if least < 0:
        raise ValueError(
            f"{name} from {least:g} to {most:g}; {needs}: subtract {least:g} and divide by "
            f"{most - least:g}, or use likelihood.kind 'normal'"
        )
    if most > 1:
        raise ValueError(
            f"{name} up to {most:g}; {needs}: divide by {_full_scale(value, most):g} or use "
            "likelihood.kind 'normal'"
        )


def _full_scale(value: Tensor, most: float) -> float:
    """Return what the data were probably meant to be divided by: a batch may lack its whitest."""
    whole = bool((value == value.round()).all())
    full = next((bits for bits in (255.0, 65535.0) if most <= bits), most)
    return full if whole and most > 64 else most


def _check_classes(value: Tensor, classes: int | None, name: str) -> None:
    least, most = float(value.min()), float(value.max())
    if bool((value != value.round()).any()):
        raise ValueError(
            f"{name} from {least:g} to {most:g} with fractions; a categorical likelihood needs "
            "class numbers 0, 1, 2…: number the classes or use likelihood.kind 'normal'"
        )
    if least < 0 or (classes is not None and most >= classes):
        allowed = f"0 to {classes - 1}" if classes is not None else "0 and above"
        raise ValueError(
            f"{name} from {least:g} to {most:g}; a categorical likelihood here needs class "
            f"numbers {allowed}: renumber them, or set its classes to {int(most - least) + 1}"
        )


def _check_grid(value: Tensor, distribution: Gridded, name: str) -> None:
    low, high, bins = distribution.low, distribution.high, distribution.bins
    index = (value - low) / distribution.step
    off = (index - index.round()).abs() > 0.01
    wrong = off | (index < -0.5) | (index > bins - 0.5)
    if bool(wrong.any()):
        least, most = float(value.min()), float(value.max())
        raise ValueError(
            f"{name} from {least:g} to {most:g}, {int(wrong.sum())} of them off the grid; a "
            f"discretised logistic here needs the {bins} values from {low:g} to {high:g} in steps "
            f"of {distribution.step:g}: scale and round them, set its low, high and bins, or use "
            "likelihood.kind 'normal'"
        )


@functools.singledispatch
def _check(distribution: Distribution, value: Tensor, name: str) -> None:
    """All finite numbers are welcome, unless the distribution's class says otherwise below."""


@_check.register
def _(distribution: LogitsBernoulli, value: Tensor, name: str) -> None:
    _check_unit_interval(value, name)


@_check.register
def _(distribution: Categorical, value: Tensor, name: str) -> None:
    _check_classes(value, distribution.logits.shape[-1], name)


@_check.register
def _(distribution: Gridded, value: Tensor, name: str) -> None:
    _check_grid(value, distribution, name)


@_check.register
def _(distribution: Independent, value: Tensor, name: str) -> None:
    _check(distribution.base_dist, value, name)


@_check.register
def _(distribution: Autoregressive, value: Tensor, name: str) -> None:
    empty = distribution.like.new_zeros(distribution.batch_shape + distribution.event_shape)
    _check(distribution.given(empty), value, name)
