"""The KL divergence: closed form where one is registered, else Monte Carlo, and it says which."""

from __future__ import annotations

from torch import Tensor
from torch.distributions import Distribution, Independent, kl_divergence

from core.variational.distributions import (
    DiagonalNormal,
    as_diagonal_normal,
    check_same_event,
    diagonal_normal_kl_terms,
)


def kl(
    posterior: Distribution, prior: Distribution, value: Tensor | None = None
) -> tuple[Tensor, bool]:
    r"""Return :math:`KL(q \| p)` in nats, and whether it is in closed form.

    The registry is torch's (`torch.distributions.register_kl`), asked by calling it: a look-up by
    class finds pairs (through ``TransformedDistribution``) that then have no formula. Without one,
    the estimate is :math:`\log q(z) - \log p(z)` at ``value``, unbiased if that was drawn from
    ``q``.

    Args:
        posterior: :math:`q`.
        prior: :math:`p`, over the same event.
        value: Samples of ``posterior``, of shape ``(*samples, *batch, *event)``.

    Returns:
        The divergence, of shape ``batch`` in closed form and ``(*samples, *batch)`` otherwise; and
        True for the closed form.

    Raises:
        ValueError: If there is no closed form and no ``value``, or the events differ.

    Example:
        >>> import torch
        >>> posterior = DiagonalNormal(torch.ones(1, 2), torch.ones(1, 2))
        >>> kl(posterior, DiagonalNormal(torch.zeros(1, 2), torch.ones(1, 2)))
        (tensor([1.]), True)
    """
    try:
        return kl_divergence(posterior, prior), True
    except NotImplementedError:
        if value is None:
            raise ValueError(
                f"kl: no closed form for {_name(posterior)} and {_name(prior)}; give samples of "
                "the posterior as 'value' for a Monte Carlo estimate"
            ) from None
    return posterior.log_prob(value) - prior.log_prob(value), False


def elementwise_kl(posterior: Distribution, prior: Distribution) -> Tensor | None:
    """Return the KL of each element of the event, or None for a pair that does not factorise.

    Summed over the event dimensions it is the closed form of `kl`.

    Returns:
        Nats, of shape ``(*batch, *event)``.

    Raises:
        ValueError: If the events differ.
    """
    try:
        if isinstance(posterior, DiagonalNormal) or isinstance(prior, DiagonalNormal):
            return diagonal_normal_kl_terms(
                as_diagonal_normal(posterior), as_diagonal_normal(prior)
            )
        if isinstance(posterior, Independent) and isinstance(prior, Independent):
            return _elementwise_kl_of_independent(posterior, prior)
    except NotImplementedError:
        return None
    return None


def _elementwise_kl_of_independent(posterior: Independent, prior: Independent) -> Tensor | None:
    check_same_event(posterior, prior)
    if posterior.base_dist.event_shape or prior.base_dist.event_shape:
        return None
    return kl_divergence(posterior.base_dist, prior.base_dist)


def _name(distribution: Distribution) -> str:
    if isinstance(distribution, Independent):
        return f"Independent({_name(distribution.base_dist)})"
    return type(distribution).__name__
