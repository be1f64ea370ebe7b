"""Likelihoods: modules whose forward turns features into a distribution of the data."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from core.variational.distributions import DiagonalNormal, LogitsBernoulli


class BernoulliLikelihood(nn.Module):
    r"""A linear head that gives the logits of binary data.

    .. math:: \operatorname{logit} p(x_j = 1 \mid z) = (W h + b)_j

    Args:
        features: Size of the last dimension of its input.
        outputs: Number of binary variables in an example.
    """

    def __init__(self, features: int, outputs: int) -> None:
        super().__init__()
        self.head = nn.Linear(features, outputs)

    def forward(self, features: Tensor) -> LogitsBernoulli:
        """Return the likelihood for features of shape ``(*batch, features)``."""
        return LogitsBernoulli(self.head(features))


class NormalLikelihood(nn.Module):
    r"""A linear head that gives the mean of real data, with one scale for each variable.

    .. math:: p(x \mid z) = \mathcal N(x; W h + b, \operatorname{diag} s^2)

    Args:
        features: Size of the last dimension of its input.
        outputs: Number of variables in an example.
        scale: Standard deviation :math:`s` in the data's unit; where it starts if it is learned.
        learned: Whether the scales, one for each variable, are trained with the rest.

    Raises:
        ValueError: If the scale is not positive.
    """

    def __init__(
        self, features: int, outputs: int, scale: float = 1.0, learned: bool = False
    ) -> None:
        super().__init__()
        if not scale > 0:
            raise ValueError(f"NormalLikelihood: scale {scale!r} is not positive")
        self.head = nn.Linear(features, outputs)
        start = torch.full((outputs,), math.log(scale))
        self.log_scale = nn.Parameter(start, requires_grad=learned)

    def forward(self, features: Tensor) -> DiagonalNormal:
        """Return the likelihood for features of shape ``(*batch, features)``."""
        return DiagonalNormal(self.head(features), self.log_scale.exp())
