"""Likelihoods that an outlier costs less than under a Normal."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.distributions import Independent, Laplace, StudentT

from core.variational.likelihoods.scale import LocationScale


class LaplaceLikelihood(LocationScale):
    r"""A linear head that gives the median of real data whose errors count as they are.

    .. math:: \log p(x \mid z) = \sum_j -\frac{|x_j - (W h + b)_j|}{s_j} - \log 2 s_j

    The scale :math:`s` is the mean absolute error; `LocationScale` says what may be learned of it.
    """

    def forward(self, features: Tensor) -> Independent:
        """Return the likelihood for features of shape ``(*batch, features)``."""
        loc, scale = self.location_scale(features)
        return Independent(Laplace(loc, scale, validate_args=False), self.event_dims, False)


class StudentTLikelihood(LocationScale):
    r"""A linear head that gives the centre of real data with outliers.

    .. math:: p(x_j \mid z) \propto
        \left(1 + \frac{(x_j - (W h + b)_j)^2}{\nu s_j^2}\right)^{-(\nu + 1) / 2}

    Normal as :math:`\nu \to \infty`, Cauchy at :math:`\nu = 1`. `LocationScale` says what may be
    learned of the scale :math:`s`, which is no standard deviation:
    that is :math:`s \sqrt{\nu / (\nu - 2)}`.

    References:
        Takahashi et al., "Student-t Variational Autoencoder for Robust Density Estimation", IJCAI
        2018.

    Args:
        features: Size of the last dimension of its input.
        outputs: Number of variables in an example.
        freedom: Degrees of freedom :math:`\nu`; where they start if they are learned.
        scale: Scale :math:`s` in the data's unit; where it starts if it is learned.
        learned: What of the scale is trained.
        learned_freedom: Whether :math:`\nu`, one for all variables, is trained.
        event_dims: Event dimensions of the distribution, that of the variables included.
        floor: Added to the scale, in the data's unit.

    Raises:
        ValueError: If the degrees of freedom are not positive, or as for `LocationScale`.
    """

    def __init__(
        self,
        features: int,
        outputs: int,
        freedom: float,
        scale: float = 1.0,
        learned: bool | str = False,
        learned_freedom: bool = False,
        event_dims: int = 1,
        floor: float = 0.0,
    ) -> None:
        super().__init__(features, outputs, scale, learned, event_dims, floor)
        if not 0 < freedom < math.inf:
            raise ValueError(
                f"StudentTLikelihood: freedom {freedom!r} is not positive and finite; for a "
                "Normal use NormalLikelihood"
            )
        start = torch.tensor(math.log(freedom))
        self.log_freedom = nn.Parameter(start, requires_grad=learned_freedom)

    def forward(self, features: Tensor) -> Independent:
        """Return the likelihood for features of shape ``(*batch, features)``."""
        loc, scale = self.location_scale(features)
        freedom = self.log_freedom.to(loc.dtype).exp()
        return Independent(
            StudentT(freedom, loc, scale, validate_args=False), self.event_dims, False
        )
