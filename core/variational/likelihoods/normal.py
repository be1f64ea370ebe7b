"""Normal likelihoods: of a scale given, learned or predicted, or the best one for the batch."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Size, Tensor, nn
from torch.distributions import constraints

from core.variational.distributions import DiagonalNormal
from core.variational.distributions.base import Diagonal, at_least_single
from core.variational.likelihoods.scale import LocationScale


class NormalLikelihood(LocationScale):
    r"""A linear head that gives the mean of real data, with a scale fixed, learned or predicted.

    .. math:: p(x \mid z) = \mathcal N(x; W h + b, \operatorname{diag} s^2)

    What ``learned`` and the other arguments mean is said in `LocationScale`.

    Example:
        >>> likelihood = NormalLikelihood(3, 2, scale=0.5, learned="predicted")
        >>> likelihood(torch.randn(4, 3)).scale[0]
        tensor([0.5000, 0.5000], grad_fn=<SelectBackward0>)
    """

    def forward(self, features: Tensor) -> DiagonalNormal:
        """Return the likelihood for features of shape ``(*batch, features)``."""
        return DiagonalNormal(*self.location_scale(features), self.event_dims)


class BatchNormal(Diagonal):
    r"""Normal distribution whose one scale is the best for the very values it is asked about.

    .. math:: \log p(x) = \log \mathcal N(x; \mu, \sigma^{*2} I), \quad
        \sigma^{*2} = \operatorname{mean}\, (x - \mu)^2

    The mean runs over samples, batch and event together; a scale for each variable has its mean
    over all but the last dimension. No density: it integrates to no 1, and
    what it says of an example depends on the others in the batch. It is a density once
    `fitted`.

    Args:
        loc: Mean :math:`\mu` of shape ``(*batch, *event)``.
        scale: Standard deviation to draw samples with, from what was seen before: one, or one for
            each variable, of the shape of the last dimension.
        floor: Least standard deviation.
        event_dims: How many of the last dimensions are one event.
        observe: Told the variance whenever a log-probability is asked for.
    """

    has_rsample = True

    def __init__(
        self,
        loc: Tensor,
        scale: Tensor,
        floor: float,
        event_dims: int = 1,
        observe: Callable[[Tensor], None] | None = None,
    ) -> None:
        self.loc = at_least_single(loc)
        self.scale, self.floor, self.observe = at_least_single(scale), floor, observe
        super().__init__(self.loc.shape, event_dims)

    @property
    def arg_constraints(self) -> dict[str, constraints.Constraint]:
        """What the parameters may be."""
        return {"loc": constraints.real, "scale": constraints.positive}

    @property
    def mean(self) -> Tensor:
        """The mean, of shape ``(*batch, *event)``."""
        return self.loc

    @property
    def mode(self) -> Tensor:
        """The most probable value."""
        return self.loc

    @property
    def variance(self) -> Tensor:
        """The variance of its samples, element by element."""
        return self.scale.square().expand_as(self.loc)

    def mapped(self, change: Callable[[Tensor], Tensor], event_dims: int) -> BatchNormal:
        """Return the same family with ``change`` done to every parameter, and those event dims."""
        return BatchNormal(change(self.loc), self.scale, self.floor, event_dims, self.observe)

    def fitted(self, value: Tensor, mask: Tensor | None = None) -> DiagonalNormal:
        """Return the Normal with the scale that makes the values (where the mask is) likeliest."""
        # By the envelope theorem the scale's gradient is 0 for the mean over the batch.
        squares = (value - self.loc).detach().square()
        if self.scale.dim():
            squares = squares.flatten(0, -2)
        dims = tuple(range(squares.dim() - self.scale.dim()))
        if mask is None:
            variance = squares.mean(dims)
        else:
            seen = mask.expand(value.shape).expand(self.loc.shape).reshape(squares.shape)
            variance = torch.where(seen, squares, 0).sum(dims) / seen.sum(dims).clamp(min=1)
        variance = variance.clamp(min=self.floor**2)
        if self.observe is not None:
            self.observe(variance)
        return DiagonalNormal(self.loc, variance.sqrt(), self.event_dims)

    def rsample(self, sample_shape: Size | Sequence[int] = ()) -> Tensor:
        """Draw with the scale from before, of shape ``(*sample, *batch, *event)``."""
        return DiagonalNormal(self.loc, self.scale, self.event_dims).rsample(sample_shape)

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log density in nats at the best scale for all these values together."""
        self._check(value)
        return self.fitted(value).log_prob(value)


class SigmaVAELikelihood(nn.Module):
    r"""The σ-VAE: a Normal whose scale is, in each batch, the best in closed form.

    .. math:: \sigma^{*2} = \operatorname{mean}\, (x - W h - b)^2, \quad
        \mathbb E \log p(x \mid z) = -\tfrac{D}{2} \left(\log 2 \pi \sigma^{*2} + 1\right)

    What a reported ``value`` then is depends on the mode.

    * In training it is the ELBO maximised over :math:`\sigma` for this batch alone: at least the
      ELBO of any one scale, so no bound on the likelihood of one model. Losses of different
      batches come from different models, by as much as their scales differ.
    * In evaluation it is the ELBO of the scale stored, a running mean of training batches'
      :math:`\sigma^{*2}`: an ordinary Normal likelihood, and an honest lower bound.

    The gradient holds the scale fixed, which changes nothing for a mean over the batch (the
    derivative with respect to the scale is 0 at the optimum), and keeps it defined where examples
    are weighted. In data-parallel training every replica has a scale of its own.

    References:
        Rybkin et al., "Simple and Effective VAE Training with Calibrated Decoders", ICML 2021
        (arXiv:2006.13202), the optimal σ-VAE; the running mean for evaluation is ours.

    Args:
        features: Size of the last dimension of its input.
        outputs: Number of variables in an example.
        momentum: Weight of a new batch in the running mean of the variance.
        floor: Least scale, in the data's unit.
        event_dims: Event dimensions of the distribution, that of the variables included.
        shared: Whether all variables have the same scale.

    Raises:
        ValueError: If the momentum is not in (0, 1] or the floor not positive.
    """

    variance: Tensor
    seen: Tensor

    def __init__(
        self,
        features: int,
        outputs: int,
        momentum: float,
        floor: float,
        event_dims: int = 1,
        shared: bool = True,
    ) -> None:
        super().__init__()
        if not 0 < momentum <= 1 or not 0 < floor < math.inf:
            raise ValueError(
                f"SigmaVAELikelihood: momentum={momentum!r}, floor={floor!r}; the first must be "
                "in (0, 1], the second positive and finite"
            )
        self.head = nn.Linear(features, outputs)
        self.momentum, self.floor, self.event_dims = momentum, floor, event_dims
        self.register_buffer("variance", torch.ones(() if shared else (outputs,)))
        self.register_buffer("seen", torch.zeros((), dtype=torch.bool))

    def forward(self, features: Tensor) -> BatchNormal | DiagonalNormal:
        """Return the likelihood for features of shape ``(*batch, features)``."""
        loc, scale = self.head(features), self.variance.sqrt()
        if not self.training:
            return DiagonalNormal(loc, scale, self.event_dims)
        return BatchNormal(loc, scale, self.floor, self.event_dims, self._observe)

    @torch.no_grad()
    def _observe(self, variance: Tensor) -> None:
        mean = torch.lerp(self.variance, variance.to(self.variance), self.momentum)
        self.variance.copy_(torch.where(self.seen, mean, variance.to(self.variance)))
        self.seen.fill_(True)
