"""The location and scale that real data's likelihoods share."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from core.variational.distributions.base import at_least_single


class LocationScale(nn.Module):
    r"""A linear head for the location, and a scale that is told, learned or predicted.

    ========================== ============================================================
    ``learned``                the scale of variable :math:`j`
    ========================== ============================================================
    ``False``, ``"fixed"``     :math:`s`, the number given
    ``"shared"``               :math:`e^{a}`, one parameter
    ``True``, ``"per_variable"`` :math:`e^{a_j}`, a parameter for each variable
    ``"predicted"``            :math:`e^{(V h + c)_j}`, from the features, at first ``scale``
    ========================== ============================================================

    A predicted scale can shrink without limit on data that are fitted exactly, and the likelihood
    with it grow without limit: ``floor``, the resolution of the data, forbids it.

    Abstract: the subclasses say which distribution has that location and scale.

    References:
        Takahashi et al., "Student-t Variational Autoencoder for Robust Density Estimation", IJCAI
        2018, for what unbounded scales do.

    Args:
        features: Size of the last dimension of its input.
        outputs: Number of variables in an example.
        scale: Scale :math:`s` in the data's unit; where it starts if it is learned.
        learned: What of the scale is trained.
        event_dims: Event dimensions of the distribution, that of the variables included.
        floor: Added to the scale, in the data's unit.

    Raises:
        ValueError: If the scale is not positive, the floor negative or ``learned`` unknown.
    """

    def __init__(
        self,
        features: int,
        outputs: int,
        scale: float = 1.0,
        learned: bool | str = False,
        event_dims: int = 1,
        floor: float = 0.0,
    ) -> None:
        super().__init__()
        kind = learned if isinstance(learned, str) else ("fixed", "per_variable")[learned]
        self._check(scale, kind, floor)
        self.floor, self.event_dims = floor, event_dims
        self.predicted = kind == "predicted"
        self.head = nn.Linear(features, 2 * outputs if self.predicted else outputs)
        if self.predicted:
            self._start_at(math.log(scale))
        else:
            start = torch.full(() if kind == "shared" else (outputs,), math.log(scale))
            self.log_scale = nn.Parameter(start, requires_grad=kind != "fixed")

    def location_scale(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Return location and scale for features of shape ``(*batch, features)``."""
        if self.predicted:
            loc, log_scale = self.head(features).chunk(2, dim=-1)
        else:
            loc, log_scale = self.head(features), self.log_scale
        # In half precision the exponential would be 0 below e^-17.
        scale = at_least_single(log_scale).exp()
        return at_least_single(loc), scale + self.floor if self.floor else scale

    @torch.no_grad()
    def _start_at(self, log_scale: float) -> None:
        half = len(self.head.bias) // 2
        self.head.weight[half:] = 0
        self.head.bias[half:] = log_scale

    def _check(self, scale: float, kind: str, floor: float) -> None:
        name = type(self).__name__
        if not 0 < scale < math.inf:
            raise ValueError(f"{name}: scale {scale!r} is not positive and finite")
        if not 0 <= floor < math.inf:
            raise ValueError(f"{name}: floor {floor!r} is negative or not finite")
        allowed = ("fixed", "shared", "per_variable", "predicted")
        if kind not in allowed:
            raise ValueError(f"{name}: learned is {kind!r}; allowed are a bool and {allowed}")
