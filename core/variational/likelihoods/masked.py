"""Log-likelihoods of what was observed."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool
from torch import Tensor
from torch.distributions import Distribution

from core.variational.distributions.base import factors, independent_dims
from core.variational.likelihoods.normal import BatchNormal


@dataclass(frozen=True, eq=False)
class MaskedLogProb:
    """The log-likelihood of what was observed, and how many examples had nothing of it.

    Args:
        log_prob: Nats per example, of shape ``(*samples, *batch)``; 0 where nothing was observed.
        unobserved: Number of examples with nothing observed, as a tensor without dimensions.
    """

    log_prob: Tensor
    unobserved: Tensor


def masked_log_prob(
    distribution: Distribution,
    value: Tensor,
    mask: Bool[Tensor, "*entries"],
    event_dims: int | None = None,
    filler: float = 0.0,
) -> MaskedLogProb:
    r"""Return the log-likelihood of the observed entries alone.

    .. math:: \log p(x_{\text{obs}}) = \sum_{j : m_j} \log p(x_j)

    That is exact for a distribution that factorises over its elements, and only such are taken:
    what is not observed is integrated out by being left out. Masked entries may be NaN; neither
    they nor the parameters at their places change the value or any gradient.

    References:
        Ma et al., "EDDI: Efficient Dynamic Discovery of High-Value Information with Partial VAE",
        ICML 2019 (arXiv:1809.11142).

    Args:
        distribution: What a likelihood gives; it factorises over its event or has none.
        value: The data, of shape ``(*batch, *event)``.
        mask: True where observed; broadcasts against ``value``.
        event_dims: How many of the last dimensions one example holds; only for a distribution
            over elements, whose own event does not say it.
        filler: Any value that the distribution supports; masked entries are looked at there.

    Raises:
        ValueError: If the distribution does not factorise, or the size of an event is not known.

    Example:
        >>> from core.variational.distributions import DiagonalNormal
        >>> pixels = DiagonalNormal(torch.zeros(2, 3), torch.ones(()))
        >>> mask = torch.tensor([[True, False, False], [False, False, False]])
        >>> masked_log_prob(pixels, torch.full((2, 3), float("nan")).where(~mask, 0.0), mask)
        MaskedLogProb(log_prob=tensor([-0.9189,  0.0000]), unobserved=tensor(1))
    """
    dims = len(distribution.event_shape) or event_dims
    if not dims:
        raise ValueError(
            "masked_log_prob: a distribution over elements and no 'event_dims'; say how many of "
            "the last dimensions one example holds"
        )
    mask = mask.expand(value.shape)
    value = torch.where(mask, value, filler)
    if isinstance(distribution, BatchNormal):
        distribution = distribution.fitted(value, mask)
    terms = elements(distribution).log_prob(value)
    observed = torch.where(mask, terms, 0).flatten(-dims).sum(-1)
    return MaskedLogProb(observed, (~mask.flatten(-dims).any(-1)).sum())


def elements(distribution: Distribution) -> Distribution:
    """Return the distribution of each element of the event by itself.

    Raises:
        ValueError: If its elements are not independent, or do not say so.
    """
    dims = len(distribution.event_shape)
    if independent_dims(distribution) < dims:
        raise ValueError(
            f"masked_log_prob: a {type(distribution).__name__} does not factorise over its event "
            f"of shape {tuple(distribution.event_shape)}; without some entries it has another "
            "density, so integrate them out"
        )
    return factors(distribution, dims)
