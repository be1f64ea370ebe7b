"""The same distribution with its parameters held fixed: what path gradients need."""

from __future__ import annotations

import functools
import inspect
from typing import Any

from torch import Tensor
from torch.distributions import (
    Distribution,
    Independent,
    MixtureSameFamily,
    RelaxedBernoulli,
    RelaxedOneHotCategorical,
    TransformedDistribution,
)

from core.variational.distributions.base import Product
from core.variational.distributions.normal import CentredNormal

# Torch stores whichever of these was given, and the others once they are asked for.
ALTERNATIVES = (("logits", "probs"), ("scale_tril", "precision_matrix", "covariance_matrix"))


@functools.singledispatch
def stop_gradient(distribution: Distribution) -> Distribution:
    r"""Return the same distribution with no gradient to its parameters.

    Its ``log_prob`` still differentiates with respect to the value. That is
    :math:`\log q_{\bar\phi}(z)` of the path-derivative and doubly reparameterised gradients.

    A plain distribution of torch's is rebuilt from the parameters that its ``arg_constraints``
    name. A composed one registers how: ``@stop_gradient.register``.

    References:
        Roeder et al., "Sticking the Landing", NeurIPS 2017 (arXiv:1703.09194).

    Raises:
        NotImplementedError: If the distribution cannot be rebuilt that way; the message names it.

    Example:
        >>> import torch
        >>> from core.variational.distributions import DiagonalNormal
        >>> loc = torch.zeros(2, requires_grad=True)
        >>> stop_gradient(DiagonalNormal(loc, torch.ones(2))).loc.requires_grad
        False
    """
    names = [name for name in distribution.arg_constraints if _is_stored(distribution, name)]
    for alternatives in ALTERNATIVES:
        surplus = [name for name in alternatives if name in names][1:]
        names = [name for name in names if name not in surplus]
    if not names:
        raise NotImplementedError(
            f"stop_gradient: {type(distribution).__name__} does not say which of its parameters "
            "it was built from; register it with @stop_gradient.register"
        )
    parameters = {name: _detached(getattr(distribution, name)) for name in names}
    rebuild: Any = type(distribution)
    return rebuild(**parameters, validate_args=False)


@stop_gradient.register
def _(distribution: Product) -> Product:
    return distribution.mapped(Tensor.detach, distribution.event_dims)


@stop_gradient.register
def _(distribution: CentredNormal) -> CentredNormal:
    return distribution


@stop_gradient.register
def _(distribution: Independent) -> Independent:
    base = stop_gradient(distribution.base_dist)
    return Independent(base, distribution.reinterpreted_batch_ndims, validate_args=False)


@stop_gradient.register
def _(distribution: MixtureSameFamily) -> MixtureSameFamily:
    weights: Any = stop_gradient(distribution.mixture_distribution)
    return MixtureSameFamily(
        weights, stop_gradient(distribution.component_distribution), validate_args=False
    )


@stop_gradient.register
def _(distribution: TransformedDistribution) -> TransformedDistribution:
    raise NotImplementedError(
        f"stop_gradient: the transforms of a {type(distribution).__name__} may hold parameters of "
        "their own; register its class with @stop_gradient.register"
    )


@stop_gradient.register(RelaxedBernoulli)
@stop_gradient.register(RelaxedOneHotCategorical)
def _(distribution: Any) -> Distribution:
    temperature = _detached(distribution.temperature)
    logits = distribution.logits.detach()
    return type(distribution)(temperature, logits=logits, validate_args=False)


def _is_stored(distribution: Distribution, name: str) -> bool:
    """Whether a parameter is held by it, or by what it is made of; not computed on demand."""
    attribute = inspect.getattr_static(type(distribution), name, None)
    return name in vars(distribution) or isinstance(attribute, property)


def _detached(parameter: Any) -> Any:
    return parameter.detach() if isinstance(parameter, Tensor) else parameter
