"""The KL divergence: closed form where one is registered, else Monte Carlo, and it says which."""

from __future__ import annotations

from torch import Tensor
from torch.distributions import Distribution, Independent, kl_divergence

from core.variational.distributions import (
    DiagonalNormal,
    check_same_event,
    diagonal_normal_kl_terms,
    factorwise_kl,
    independent_dims,
    sum_of_factors,
)


def kl(
    posterior: Distribution, prior: Distribution, value: Tensor | None = None
) -> tuple[Tensor, bool]:
    r"""Return :math:`KL(q \| p)` in nats, and whether it is in closed form.

    The registry is torch's (`torch.distributions.register_kl`), asked by calling it: a look-up by
    class finds pairs (through ``TransformedDistribution``) that then have no formula. If the pair
    as it stands has none, its factors are asked: an ``Independent`` of nodes, each with a full
    covariance, has one against a diagonal normal over nodes and latents. Else the estimate is
    :math:`\log q(z) - \log p(z)` at ``value``, unbiased if that was drawn from ``q``.

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
    divergence = _closed_form(posterior, prior)
    if divergence is not None:
        return divergence, True
    if value is None:
        raise ValueError(
            f"kl: no closed form for {_name(posterior)} and {_name(prior)}; give samples of "
            "the posterior as 'value' for a Monte Carlo estimate"
        )
    return posterior.log_prob(value) - prior.log_prob(value), False


def _closed_form(posterior: Distribution, prior: Distribution) -> Tensor | None:
    for attempt in (kl_divergence, sum_of_factors):
        try:
            return attempt(posterior, prior)
        except NotImplementedError:
            continue
    return None


def elementwise_kl(posterior: Distribution, prior: Distribution) -> Tensor | None:
    """Return the KL of each element of the event, or None for a pair that does not factorise.

    Both have to be products of univariate distributions with a closed form for each: a
    `DiagonalNormal` against an ``Independent(Laplace)``, say. Summed over the event dimensions it
    is the closed form of `kl`.

    Returns:
        Nats, of shape ``(*batch, *event)``.

    Raises:
        ValueError: If the events differ.
    """
    if isinstance(posterior, DiagonalNormal) and isinstance(prior, DiagonalNormal):
        return diagonal_normal_kl_terms(posterior, prior)
    check_same_event(posterior, prior)
    dims = min(independent_dims(posterior), independent_dims(prior))
    if dims < len(posterior.event_shape):
        return None
    try:
        return factorwise_kl(posterior, prior)
    except NotImplementedError:
        return None


def _name(distribution: Distribution) -> str:
    if isinstance(distribution, Independent):
        return f"Independent({_name(distribution.base_dist)})"
    return type(distribution).__name__
