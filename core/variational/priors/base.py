"""What all priors share: they follow the shapes of the posterior that they are held against."""

from __future__ import annotations

import abc

import torch
from torch import Size, Tensor, nn
from torch.distributions import Categorical, Distribution, Independent, MixtureSameFamily

from core.variational.distributions import DiagonalNormal


class Prior(nn.Module, abc.ABC):
    """A module that gives the distribution a posterior is held against.

    A prior is over the vectors of the last event dimension; those of the other event dimensions
    (the nodes of a graph) are independent.
    """

    @abc.abstractmethod
    def forward(self, posterior: Distribution, context: Tensor | None = None) -> Distribution:
        """Return the prior in the posterior's shapes.

        Args:
            posterior: Of batch shape ``(batch,)`` or ``(samples, batch)``.
            context: What a conditional prior knows of every example; others take none.
        """


def vectors(posterior: Distribution) -> Size:
    """Return the shape in which the posterior's event holds vectors, those of the batch first."""
    return posterior.batch_shape + posterior.event_shape[:-1]


def check_latent(prior: nn.Module, latent: int, posterior: Distribution) -> None:
    """Refuse a posterior over vectors of another length.

    Raises:
        ValueError: If its event does not end in ``latent``.
    """
    if posterior.event_shape[-1:] != (latent,):
        raise ValueError(
            f"{type(prior).__name__}: over vectors of length {latent}; the posterior has event "
            f"shape {tuple(posterior.event_shape)}"
        )


def refuse_context(prior: nn.Module, context: Tensor | None) -> None:
    """Refuse a context where there is nothing to do with it.

    Raises:
        ValueError: If there is one.
    """
    if context is not None:
        raise ValueError(
            f"{type(prior).__name__}: context of shape {tuple(context.shape)} given; this prior "
            "knows no context, use a conditional one"
        )


def over_event_of(posterior: Distribution, prior: Distribution) -> Distribution:
    """Count the last batch dimensions to the event, until it is the posterior's."""
    extra = len(posterior.event_shape) - len(prior.event_shape)
    return Independent(prior, extra, validate_args=False) if extra else prior


def mixture(logits: Tensor, components: Distribution, posterior: Distribution) -> Distribution:
    """Return a mixture in the posterior's shapes.

    Args:
        logits: Unnormalised log weights of shape ``(components,)``.
        components: Distributions of batch shape ``(components,)``.
        posterior: Whose shapes to take; its event may have more dimensions than the components'.
    """
    extra = len(posterior.event_shape) - len(components.event_shape)
    shape = posterior.batch_shape + posterior.event_shape[:extra]
    mixed = MixtureSameFamily(
        Categorical(logits=logits.expand(*shape, -1), validate_args=False),
        components.expand(Size((*shape, *logits.shape))),
        validate_args=False,
    )
    return over_event_of(posterior, mixed)


def spread_out(context: Tensor, posterior: Distribution) -> Tensor:
    """Repeat a context given per example for every vector of the example's event.

    Args:
        context: Of shape ``(batch, size)``, or ``(batch, *event[:-1], size)`` for a context of
            every vector; or either with the posterior's samples in front.
        posterior: Whose event it is.

    Raises:
        ValueError: If it is of another shape.
    """
    shape, inner = vectors(posterior), len(posterior.event_shape) - 1
    given, size = context.shape[:-1], context.shape[-1]
    # Two leading dimensions are (batch, nodes) where there are nodes, else (samples, batch).
    if len(given) in (1, len(posterior.batch_shape)) and len(given) != 1 + inner:
        context = context.reshape(*given, *[1] * inner, size)
    try:
        return context.expand(*shape, size)
    except RuntimeError:
        raise ValueError(
            f"context: of shape {tuple(context.shape)} (with the size last); the posterior has "
            f"batch shape {tuple(posterior.batch_shape)} and event shape "
            f"{tuple(posterior.event_shape)}"
        ) from None


def diagonal(loc: Tensor, log_scale: Tensor, posterior: Distribution) -> DiagonalNormal:
    """Return a diagonal Normal of these parameters, expanded to the posterior's shapes."""
    shape = posterior.batch_shape + posterior.event_shape
    return DiagonalNormal(
        loc.expand(shape), log_scale.exp().expand(shape), len(posterior.event_shape)
    )


def learned(*shape: int, spread: float = 0.0) -> nn.Parameter:
    """Return a parameter that starts at 0, or as noise of the spread given."""
    return nn.Parameter(spread * torch.randn(*shape))
