"""Categorical posteriors: one-hot vectors, and their Gumbel-softmax relaxation."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Size, Tensor
from torch.distributions import (
    Distribution,
    OneHotCategorical,
    RelaxedOneHotCategorical,
)

from core.variational.distributions import stop_gradient
from core.variational.distributions.base import at_least_single
from core.variational.posteriors.base import Posterior, over_event


class CategoricalPosterior(Posterior):
    r"""One-hot vectors; for estimators that need no derivative of a sample.

    .. math:: q(z = e_k \mid x) = \operatorname{softmax}(l)_k

    Args:
        features: Size of the last dimension of its input; None if that is the raw parameters.
        latent: Number of categories.
        variables: How many categorical variables a latent has; several are one more event
            dimension, before that of the categories.
        event_dims: Event dimensions of the distribution, that of the categories included, that of
            several variables not.
    """

    def __init__(
        self, features: int | None, latent: int, variables: int = 1, event_dims: int = 1
    ) -> None:
        super().__init__(features, variables * latent, event_dims + (variables > 1))
        self.shape = (variables, latent) if variables > 1 else (latent,)

    def forward(self, features: Tensor) -> Distribution:
        """Return the posterior for features of shape ``(*batch, features)``."""
        logits = at_least_single(self.head(features)).unflatten(-1, self.shape)
        return over_event(OneHotCategorical(logits=logits, validate_args=False), self.event_dims)


class GumbelSoftmaxPosterior(Posterior):
    r"""Relaxed one-hot vectors, on the simplex: differentiable, and biased for the discrete model.

    .. math:: z_k = \operatorname{softmax}((l + g) / \tau)_k, \quad g_k \sim \text{Gumbel}(0, 1)

    It is an ordinary continuous posterior if its prior is relaxed too (`Codebook` does that), and
    then the bound is one of the relaxed model. Low temperatures are close to one-hot, and their
    gradients noisy.

    References:
        Jang, Gu and Poole, "Categorical Reparameterization with Gumbel-Softmax", ICLR 2017, eq. 2
        (arXiv:1611.01144). Maddison, Mnih and Teh, "The Concrete Distribution", ICLR 2017, eq. 10
        and section 3.3 on the relaxed prior (arXiv:1611.00712).

    Args:
        features: Size of the last dimension of its input; None if that is the raw parameters.
        latent: Number of categories.
        temperature: :math:`\tau`; may be set again in the course of a training.
        variables: How many categorical variables a latent has; several are one more event
            dimension, before that of the categories.
        event_dims: Event dimensions of the distribution, that of the categories included, that of
            several variables not.

    Raises:
        ValueError: If the temperature is not positive.
    """

    def __init__(
        self,
        features: int | None,
        latent: int,
        temperature: float,
        variables: int = 1,
        event_dims: int = 1,
    ) -> None:
        if not temperature > 0:
            raise ValueError(
                f"GumbelSoftmaxPosterior: temperature {temperature!r} is not positive"
            )
        super().__init__(features, variables * latent, event_dims + (variables > 1))
        self.shape = (variables, latent) if variables > 1 else (latent,)
        self.temperature = temperature

    def forward(self, features: Tensor) -> Distribution:
        """Return the posterior for features of shape ``(*batch, features)``."""
        logits = at_least_single(self.head(features)).unflatten(-1, self.shape)
        return over_event(GumbelSoftmax(self.temperature, logits), self.event_dims)


class GumbelSoftmax(RelaxedOneHotCategorical):
    """torch's relaxed categorical, whose samples may underflow to 0 without an infinite density.

    Args:
        temperature: Its temperature.
        logits: Unnormalised log probabilities of shape ``(*batch, categories)``.
    """

    def __init__(self, temperature: float | Tensor, logits: Tensor) -> None:
        super().__init__(
            torch.as_tensor(temperature, dtype=logits.dtype, device=logits.device),
            logits=logits,
            validate_args=False,
        )

    def expand(self, batch_shape: Size | Sequence[int], _instance: None = None) -> GumbelSoftmax:
        """Return the same distribution with the batch shape given."""
        shape = (*batch_shape, self.logits.shape[-1])
        return GumbelSoftmax(self.temperature, self.logits.expand(shape))

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log density in nats; ``value`` may have further leading dimensions."""
        return super().log_prob(value.clamp(min=torch.finfo(value.dtype).tiny))


@stop_gradient.register
def _(distribution: GumbelSoftmax) -> GumbelSoftmax:
    return GumbelSoftmax(distribution.temperature.detach(), distribution.logits.detach())


@stop_gradient.register
def _(distribution: OneHotCategorical) -> OneHotCategorical:
    return OneHotCategorical(logits=distribution.logits.detach(), validate_args=False)
