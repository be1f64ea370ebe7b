"""What our distributions share: shapes, sums over an event, and the KL factor by factor."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Size, Tensor
from torch.distributions import (
    Distribution,
    Independent,
    constraints,
    kl_divergence,
    register_kl,
)


def at_least_single(parameter: Tensor) -> Tensor:
    """Half-precision networks are fine, half-precision log-densities and KLs are not."""
    half = parameter.dtype in (torch.float16, torch.bfloat16)
    return parameter.float() if half else parameter


class Product(Distribution):
    """A distribution whose last ``event_dims`` dimensions are one event of independent factors.

    A factor is itself over the last ``factor_dims`` of them: 0 for numbers, 1 for vectors.
    """

    event_dims: int
    factor_dims = 0

    def mapped(self, change: Callable[[Tensor], Tensor], event_dims: int) -> Product:
        """Return the same family with ``change`` done to every parameter, and those event dims."""
        raise NotImplementedError

    def expand(self, batch_shape: Size | Sequence[int], _instance: None = None) -> Product:
        """Return the same distribution with the batch shape given."""
        batch = len(self._batch_shape)
        shape = torch.Size(batch_shape)
        return self.mapped(
            lambda parameter: parameter.expand(shape + parameter.shape[batch:]), self.event_dims
        )


class Diagonal(Product):
    """Shapes of a distribution of numbers whose last ``event_dims`` dimensions are one event."""

    bounded = False  # whether there are numbers outside its support
    checks_values = False  # whether log_prob then also looks at them, see `checking_values`

    def __init__(self, shape: Size, event_dims: int) -> None:
        if not 0 <= event_dims <= len(shape):
            raise ValueError(
                f"{type(self).__name__}: event_dims={event_dims} with parameters of shape "
                f"{tuple(shape)}; allowed is 0 to {len(shape)}"
            )
        self.event_dims = event_dims
        split = len(shape) - event_dims
        # Validation off for this object only: the global switch is other people's.
        super().__init__(shape[:split], shape[split:], validate_args=False)

    def _sum(self, terms: Tensor) -> Tensor:
        if self.event_dims == 1:
            return terms.sum(-1)
        return terms.flatten(-self.event_dims).sum(-1) if self.event_dims else terms

    def _check(self, value: Tensor) -> None:
        if self.event_dims and value.shape[-self.event_dims :] != self._event_shape:
            raise ValueError(
                f"{type(self).__name__}: value of shape {tuple(value.shape)} does not end in the "
                f"event shape {tuple(self._event_shape)}"
            )
        if self.bounded and Diagonal.checks_values:
            from core.variational.likelihoods.support import check_support

            check_support(self, value)

    @property
    def support(self) -> constraints.Constraint:
        """The values that it covers."""
        return constraints.independent(constraints.real, self.event_dims)

    def univariate(self) -> Distribution:
        """Return torch's name for it when no dimension is an event, or itself.

        What torch's registry knows of the univariate families is then known of ours.
        """
        return self


class LocScale(Diagonal):
    """What distributions of numbers with a location and a scale share; abstract."""

    def __init__(self, loc: Tensor, scale: Tensor, event_dims: int = 1) -> None:
        self.loc, self.scale = torch.broadcast_tensors(
            at_least_single(loc), at_least_single(scale)
        )
        super().__init__(self.loc.shape, event_dims)

    @property
    def arg_constraints(self) -> dict[str, constraints.Constraint]:
        """What the parameters may be."""
        return {"loc": constraints.real, "scale": constraints.positive}

    def mapped(self, change: Callable[[Tensor], Tensor], event_dims: int) -> LocScale:
        """Return the same family with ``change`` done to every parameter, and those event dims."""
        return type(self)(change(self.loc), change(self.scale), event_dims)


@contextlib.contextmanager
def checking_values() -> Iterator[None]:
    """Let densities of bounded support look at every value, and say how to mend it.

    For the first batch of a training: it costs more than the density.
    """
    Diagonal.checks_values = True
    try:
        yield
    finally:
        Diagonal.checks_values = False


def check_same_event(posterior: Distribution, prior: Distribution) -> None:
    """Say so if two distributions are not over the same event.

    Raises:
        ValueError: If their event shapes differ.
    """
    if posterior.event_shape != prior.event_shape:
        raise ValueError(
            f"kl: event shapes {tuple(posterior.event_shape)} of the posterior and "
            f"{tuple(prior.event_shape)} of the prior differ"
        )


def independent_dims(distribution: Distribution) -> int:
    """Return over how many leading event dimensions it is a product of independent factors."""
    if isinstance(distribution, Product):
        return distribution.event_dims - distribution.factor_dims
    if isinstance(distribution, Independent):
        return distribution.reinterpreted_batch_ndims + independent_dims(distribution.base_dist)
    return 0


def factors(distribution: Distribution, dims: int) -> Distribution:
    """Return the distribution of the factors: the first ``dims`` event dimensions become batch.

    Raises:
        NotImplementedError: If fewer dimensions are independent.
    """
    if dims == 0:
        return distribution
    if isinstance(distribution, Product):
        return distribution.mapped(lambda parameter: parameter, distribution.event_dims - dims)
    if isinstance(distribution, Independent):
        own = distribution.reinterpreted_batch_ndims
        if dims < own:
            return Independent(distribution.base_dist, own - dims, validate_args=False)
        return factors(distribution.base_dist, dims - own)
    raise NotImplementedError(f"{type(distribution).__name__} has no independent factors")


def factorwise_kl(posterior: Distribution, prior: Distribution) -> Tensor:
    r"""Return the KL of each factor that both have, in nats.

    .. math:: KL\Big(\prod_j q_j \Big\| \prod_j p_j\Big) = \sum_j KL(q_j \| p_j)

    Returns:
        Of shape ``(*batch, *factors)``; to be summed over the factors.

    Raises:
        NotImplementedError: If they share no independent dimension, or the factors have no closed
            form.
        ValueError: If they are over different events.
    """
    check_same_event(posterior, prior)
    dims = min(independent_dims(posterior), independent_dims(prior))
    if dims == 0:
        raise NotImplementedError("no dimension of the event is independent in both")
    ours, theirs = factors(posterior, dims), factors(prior, dims)
    return kl_divergence(as_univariate(ours), as_univariate(theirs))


def as_univariate(factor: Distribution) -> Distribution:
    """Return torch's name for a distribution of separate numbers; any other as it is."""
    if isinstance(factor, Diagonal) and factor.event_dims == 0:
        return factor.univariate()
    return factor


def sum_of_factors(posterior: Distribution, prior: Distribution) -> Tensor:
    """Return the KL of two products as the sum over the factors that both have, in nats.

    Raises:
        NotImplementedError: As in `factorwise_kl`.
        ValueError: If they are over different events.
    """
    terms = factorwise_kl(posterior, prior)
    dims = min(independent_dims(posterior), independent_dims(prior))
    return terms.flatten(-dims).sum(-1)


@register_kl(Product, Independent)
def _kl_product_independent(posterior: Product, prior: Independent) -> Tensor:
    return sum_of_factors(posterior, prior)


@register_kl(Independent, Product)
def _kl_independent_product(posterior: Independent, prior: Product) -> Tensor:
    return sum_of_factors(posterior, prior)
