r"""Latents of which an example has some elements and not others: nodes, pixels, frames, views.

.. math:: \log q(z \mid x) = \sum_{j : m_j} \log q(z_j \mid x), \quad
    KL(q \| p) = \sum_{j : m_j} KL(q_j \| p_j)

An element that is not there has no density and no divergence, whatever its parameters and its
value are. A distribution over sequences whose steps depend on each other has no such sum: its
padding, which is at the end only, is cut by `core.variational.dynamics.cut_padding`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Bool
from torch import Generator, Size, Tensor
from torch.distributions import Distribution, Independent, kl_divergence, register_kl

from core.variational.distributions import (
    DiagonalNormal,
    Product,
    check_same_event,
    factors,
    factorwise_kl,
    independent_dims,
    stop_gradient,
)
from core.variational.distributions.base import as_univariate
from core.variational.distributions.registry_examples import add_example
from core.variational.estimators import REPARAMETERISED, Estimator
from core.variational.evidence import Latent


class Masked(Product):
    """A distribution over the elements of an event that are there; see `masked_event`.

    Args:
        distribution: Of all elements.
        mask: True where an element is there; broadcasts against batch and event, and has size 1
            in the dimensions within a factor.
        filler: What stands where no element is.
    """

    def __init__(self, distribution: Distribution, mask: Tensor, filler: float = 0.0) -> None:
        self.distribution, self.mask, self.filler = distribution, mask, filler
        self.event_dims = len(distribution.event_shape)
        self.factor_dims = self.event_dims - independent_dims(distribution)
        super().__init__(distribution.batch_shape, distribution.event_shape, validate_args=False)

    @property
    def has_rsample(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Whether its samples can be differentiated."""
        return self.distribution.has_rsample

    @property
    def mean(self) -> Tensor:
        """The mean, and the filler where no element is."""
        return torch.where(self.mask, self.distribution.mean, self.filler)

    @property
    def variance(self) -> Tensor:
        """The variance, and 0 where no element is."""
        return torch.where(self.mask, self.distribution.variance, 0.0)

    def expand(self, batch_shape: Size | Sequence[int], _instance: None = None) -> Masked:
        """Return the same distribution with the batch shape given."""
        return Masked(self.distribution.expand(Size(batch_shape)), self.mask, self.filler)

    def mapped(self, change: Callable[[Tensor], Tensor], event_dims: int) -> Masked:
        """Return the same with those event dims; ``change`` is for products of numbers only."""
        inner = factors(self.distribution, self.event_dims - event_dims)
        if isinstance(inner, Product):
            inner = inner.mapped(change, event_dims)
        return Masked(inner, self.mask, self.filler)

    def rsample(self, sample_shape: Size | Sequence[int] = ()) -> Tensor:
        """Draw values of shape ``(*sample, *batch, *event)``, differentiably."""
        value = self.distribution.rsample(Size(sample_shape))
        return torch.where(self.mask, value, self.filler)

    def sample(self, sample_shape: Size | Sequence[int] = ()) -> Tensor:
        """Draw values of shape ``(*sample, *batch, *event)``."""
        value = self.distribution.sample(Size(sample_shape))
        return torch.where(self.mask, value, self.filler)

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log density of the elements that are there, in nats."""
        dims = self.event_dims - self.factor_dims
        value = torch.where(self.mask, value, self.filler)
        return self._total(factors(self.distribution, dims).log_prob(value), dims)

    def entropy(self) -> Tensor:
        """Return the entropy of the elements that are there, in nats."""
        dims = self.event_dims - self.factor_dims
        return self._total(factors(self.distribution, dims).entropy(), dims)

    def _total(self, terms: Tensor, dims: int) -> Tensor:
        """Sum what is there of one term for each element of the first ``dims`` dimensions."""
        there = torch.where(_without_last(self.mask, self.event_dims - dims), terms, 0.0)
        return there.flatten(-dims).sum(-1) if dims else there


def masked_event(
    distribution: Distribution, mask: Bool[Tensor, "batch ..."], filler: float = 0.0
) -> Masked:
    """Return the distribution of the elements that are there.

    For a posterior and its prior alike, with one mask. What is elsewhere has neither density nor
    divergence, closed forms stay closed, and samples have the filler there. No value at a masked
    element matters, NaN included, and no gradient reaches its parameters. Those of our own
    distributions may be NaN there, those of torch's not. Put zeros into the features that a
    network makes them from: where they overflow, the gradient of its weights is NaN and not 0.

    Args:
        distribution: Of batch shape ``(batch,)`` or ``(samples, batch)``.
        mask: True where an element is there, of the shape of the batch and of the first dimensions
            of the event, or of size 1 to broadcast: ``(batch, node)`` for nodes with latent
            vectors, ``(batch, 1, height, width)`` for pixels with channels first, ``(batch,)`` for
            a latent that an example has or has not.
        filler: What samples have, and densities are looked at, where no element is; a value that
            the distribution supports, such as 0.5 for a Beta.

    Raises:
        ValueError: If the mask does not fit, or is finer than the independent parts of the event.

    Example:
        >>> nodes = DiagonalNormal(torch.zeros(2, 3, 4), torch.ones(()), event_dims=2)
        >>> mask = torch.tensor([[True, True, False], [False, False, False]])
        >>> masked_event(nodes, mask).entropy() / nodes.entropy()
        tensor([0.6667, 0.0000])
    """
    shape, dims = distribution.event_shape, mask.dim() - 1
    wanted = (*distribution.batch_shape[-1:], *shape[:dims])
    fits = mask.dim() == len(wanted) and all(
        size in (1, full) for size, full in zip(mask.shape, wanted, strict=True)
    )
    if not fits:
        raise ValueError(
            f"masked_event: a mask of shape {tuple(mask.shape)} for a batch of "
            f"{tuple(distribution.batch_shape)} and events of {tuple(shape)}; it must be of shape "
            "(batch, *first dimensions of the event), or of size 1 there"
        )
    if independent_dims(distribution) < dims:
        raise ValueError(
            f"masked_event: a mask of {dims} event dimensions; of the event {tuple(shape)} of "
            f"this {type(distribution).__name__} the first {independent_dims(distribution)} are "
            "independent, and elements that depend on others cannot be left out"
        )
    aligned = mask.reshape(*mask.shape, *[1] * (len(shape) - dims))
    return Masked(_finite_elsewhere(distribution, aligned), aligned, filler)


def masked_latent(
    name: str,
    posterior: Distribution,
    prior: Distribution | Callable[[Distribution], Distribution],
    mask: Bool[Tensor, "batch ..."],
    samples: int,
    estimator: Estimator = REPARAMETERISED,
    filler: float = 0.0,
) -> Latent:
    """Draw a latent of which only some elements are there, as `Latent.draw` does.

    Args:
        name: The group's name.
        posterior: Of all elements.
        prior: A distribution of all elements, or a module that makes one to fit the posterior.
        mask: Which are there, as in `masked_event`.
        samples: Draws per example.
        estimator: How to draw.
        filler: As in `masked_event`.

    Raises:
        ValueError: As `masked_event`, or if the estimator cannot draw from this posterior.
    """
    held = prior if isinstance(prior, Distribution) else prior(posterior)
    ours, theirs = (masked_event(each, mask, filler) for each in (posterior, held))
    return Latent.draw(name, ours, theirs, samples, estimator)


@stop_gradient.register
def _(distribution: Masked) -> Masked:
    return Masked(stop_gradient(distribution.distribution), distribution.mask, distribution.filler)


@register_kl(Masked, Masked)
def _kl_masked_masked(posterior: Masked, prior: Masked) -> Tensor:
    check_same_event(posterior, prior)
    ours, theirs = posterior.distribution, prior.distribution
    if not _same(posterior.mask, prior.mask):
        raise ValueError(
            "kl: the masks of posterior and prior differ; a latent has the same elements in both"
        )
    dims = min(independent_dims(ours), independent_dims(theirs))
    if any(size > 1 for size in _last(posterior.mask, posterior.event_dims - dims)):
        raise NotImplementedError("the mask divides what is not independent in both")
    if dims:
        terms = factorwise_kl(ours, theirs)
    else:
        terms = kl_divergence(as_univariate(ours), as_univariate(theirs))
    return posterior._total(terms, dims)


def _finite_elsewhere(distribution: Distribution, mask: Tensor) -> Distribution:
    """Put ones for the parameters of what is not there: an infinite one has no zero gradient."""
    if isinstance(distribution, Independent):
        base = _finite_elsewhere(distribution.base_dist, mask)
        return Independent(base, distribution.reinterpreted_batch_ndims, validate_args=False)
    if not isinstance(distribution, Product):
        return distribution
    full = len(distribution.batch_shape) + len(distribution.event_shape)

    def replaced(parameter: Tensor) -> Tensor:
        extra = parameter.dim() - full
        fitting = mask[(..., *[None] * extra)] if extra > 0 else _without_last(mask, -extra)
        return torch.where(fitting, parameter, torch.ones_like(parameter))

    return distribution.mapped(replaced, distribution.event_dims)


def _last(mask: Tensor, dims: int) -> Size:
    return mask.shape[mask.dim() - dims :]


def _without_last(mask: Tensor, dims: int) -> Tensor:
    """Return the mask without its last dimensions, which are of size 1."""
    return mask.reshape(mask.shape[: mask.dim() - dims])


def _same(mask: Tensor, other: Tensor) -> bool:
    where, there = ((each.data_ptr(), each.shape, each.stride()) for each in (mask, other))
    return where == there or bool((mask == other).all())  # no look at the values if it is one


def _example(generator: Generator, scale: float) -> Masked:
    """Three of four examples have two of three elements, one has none."""
    loc, noise = torch.randn(2, 4, 3, dtype=torch.float64, generator=generator)
    mask = torch.tensor([[True, True, False]] * 3 + [[False] * 3])
    return masked_event(DiagonalNormal(scale * loc, scale * (0.5 * noise).exp()), mask)


add_example((Masked, Masked), _example, _example)
