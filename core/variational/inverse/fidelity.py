"""How well an image explains a measurement: the likelihood of a linear operator."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Size, Tensor, nn
from torch.distributions import Distribution, constraints

from core.variational.distributions import stop_gradient
from core.variational.distributions.base import at_least_single
from core.variational.distributions.normal import HALF_LOG_TWO_PI
from core.variational.inverse.operators import LinearOperator
from core.variational.inverse.solvers import Solution, conjugate_gradients


class MeasurementNormal(Distribution):
    r"""White noise around a measurement, real or complex, where there is one.

    .. math:: \log p(y) = -\frac{\|y - m\|^2}{2 \sigma^2} - n \log \sigma \sqrt{2 \pi}

    over the :math:`n` real numbers observed: a complex entry is two, and :math:`\sigma` is the
    standard deviation of **each** of its parts, so that :math:`\mathbb E |y - m|^2 = 2 \sigma^2`.
    Entries that are not observed are no data: they may be NaN and count for nothing.

    Args:
        loc: Mean :math:`m` of shape ``(*batch, *event)``.
        scale: Standard deviation :math:`\sigma > 0`, one number.
        event_dims: How many of the last dimensions are one event.
        observed: Which entries are measured, broadcasting against ``loc``; None for all.
    """

    has_rsample = True

    def __init__(
        self, loc: Tensor, scale: Tensor, event_dims: int, observed: Tensor | None = None
    ) -> None:
        self.loc, self.scale = single(loc), at_least_single(scale)
        self.event_dims, self.observed = event_dims, observed
        split = loc.dim() - event_dims
        super().__init__(loc.shape[:split], loc.shape[split:], validate_args=False)

    @property
    def arg_constraints(self) -> dict[str, constraints.Constraint]:
        """What the parameters may be."""
        return {"scale": constraints.positive}

    @property
    def mean(self) -> Tensor:
        """The mean, of shape ``(*batch, *event)``."""
        return self.loc

    @property
    def variance(self) -> Tensor:
        r"""The expected :math:`|y - m|^2` of each entry, real."""
        parts = 2 if self.loc.is_complex() else 1
        return (parts * self.scale.square()).expand(self.loc.shape)

    def expand(
        self, batch_shape: Size | Sequence[int], _instance: None = None
    ) -> MeasurementNormal:
        """Return the same distribution with the batch shape given."""
        loc = self.loc.expand(torch.Size(batch_shape) + self._event_shape)
        return MeasurementNormal(loc, self.scale, self.event_dims, self.observed)

    def rsample(self, sample_shape: Size | Sequence[int] = ()) -> Tensor:
        """Draw measurements of shape ``(*sample, *batch, *event)``, 0 where there is none."""
        shape = torch.Size(sample_shape) + self.loc.shape
        noise = torch.randn(shape, dtype=self.loc.dtype, device=self.loc.device)
        # torch's complex normal has variance 1 in all, half of it in each part.
        unit = math.sqrt(2) if self.loc.is_complex() else 1.0
        drawn = self.loc + unit * self.scale * noise
        return drawn if self.observed is None else torch.where(self.observed, drawn, 0)

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log density in nats of what was observed."""
        return self.log_prob_of_residual(value - self.loc)

    def log_prob_of_residual(self, residual: Tensor) -> Tensor:
        r"""Return the log density in nats for a residual :math:`y - m`."""
        parts = 1
        if self.observed is None:
            count: Tensor | int = self._event_shape.numel()
        else:
            residual = torch.where(self.observed, residual, 0)
            count = self._sum(self.observed.expand(self.loc.shape).to(self.scale.dtype))
        if residual.is_complex():
            residual, parts = torch.view_as_real(residual), 2
            squares = residual.square().sum(-1)
        else:
            squares = residual.square()
        quadratic = 0.5 * self._sum(squares) / self.scale.square()
        return -quadratic - count * parts * (self.scale.log() + HALF_LOG_TWO_PI)

    def _sum(self, terms: Tensor) -> Tensor:
        return terms.flatten(-self.event_dims).sum(-1)


@stop_gradient.register
def _(distribution: MeasurementNormal) -> MeasurementNormal:
    return MeasurementNormal(
        distribution.loc.detach(),
        distribution.scale.detach(),
        distribution.event_dims,
        distribution.observed,
    )


def measure(operator: LinearOperator, x: Tensor, scale: Tensor) -> MeasurementNormal:
    r"""Return :math:`p(y \mid x) = \mathcal N(A x, \sigma^2 I)` over the entries observed.

    Args:
        operator: :math:`A`.
        x: Images of shape ``(*batch, *domain)``.
        scale: :math:`\sigma` of each real number measured, in the measurement's unit.
    """
    return MeasurementNormal(operator(single(x)), scale, len(operator.range), operator.observed)


class LinearOperatorNormal(nn.Module):
    r"""The likelihood of a noisy linear measurement of the image that it is given.

    .. math:: p(y \mid x) = \mathcal N(A x, \sigma^2 I)

    A decoder ends in it as in any likelihood, and inverse problems are solved with the same
    numbers: `DataFidelity` is its negative logarithm.

    Args:
        operator: :math:`A`, for all that is measured alike; None to give one in each call.
        scale: :math:`\sigma` of each real number measured; where it starts if it is learned.
        learned: Whether it is trained.

    Raises:
        ValueError: If the scale is not positive, or a call has no operator.
    """

    def __init__(
        self, operator: LinearOperator | None, scale: float, learned: bool = False
    ) -> None:
        super().__init__()
        self.operator = operator
        start = torch.tensor(math.log(_positive(scale, "LinearOperatorNormal")))
        self.log_scale = nn.Parameter(start, requires_grad=learned)

    def forward(
        self, features: Tensor, operator: LinearOperator | None = None
    ) -> MeasurementNormal:
        """Return the likelihood for images of shape ``(*batch, *domain)``."""
        operator = self.operator if operator is None else operator
        if operator is None:
            raise ValueError(
                "LinearOperatorNormal: no operator, neither in the constructor nor in the call"
            )
        return measure(operator, features, self.log_scale.exp())


@dataclass(frozen=True, eq=False)
class DataFidelity:
    r"""The energy of an image under a measurement: exactly :math:`-\log p(y \mid x)`.

    .. math:: D(x) = \frac{\|A x - y\|^2}{2 \sigma^2} + n \log \sigma \sqrt{2 \pi}

    Args:
        operator: :math:`A`.
        measurement: :math:`y` of shape ``(*batch, *range)``.
        scale: :math:`\sigma` of each real number measured, in the measurement's unit.

    Raises:
        ValueError: If the scale is not positive or the measurement has another shape.
    """

    operator: LinearOperator
    measurement: Tensor
    scale: float

    def __post_init__(self) -> None:
        _positive(self.scale, "DataFidelity")
        given, expected = tuple(self.measurement.shape), self.operator.range
        if given[-len(expected) :] != expected:
            raise ValueError(
                f"DataFidelity: measurement of shape {given} does not end in the operator's range "
                f"{expected}"
            )

    def __call__(self, x: Tensor) -> Tensor:
        """Return the energy in nats, of shape ``batch``."""
        return self.energy_and_gradient(x)[0]

    def gradient(self, x: Tensor) -> Tensor:
        r"""Return :math:`A^* (A x - y) / \sigma^2`, nats per unit of the image.

        For a complex image that is :math:`\partial_{\operatorname{Re} x} D
        + i\, \partial_{\operatorname{Im} x} D`, which is also torch's convention.
        """
        return self.energy_and_gradient(x)[1]

    def energy_and_gradient(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return both, for one product with the operator and one with its adjoint."""
        x = single(x)
        scale = torch.tensor(self.scale, dtype=x.real.dtype, device=x.device)
        expected = measure(self.operator, x, scale)
        residual = expected.loc - self.seen
        back = self.operator.adjoint(residual) / self.scale**2
        return -expected.log_prob_of_residual(residual), back

    @property
    def seen(self) -> Tensor:
        """The measurement, 0 where nothing was observed, whatever stood there."""
        measurement, observed = single(self.measurement), self.operator.observed
        return measurement if observed is None else torch.where(observed, measurement, 0)

    def back_projection(self) -> Tensor:
        r"""Return :math:`A^* y`: where solvers start."""
        return self.operator.adjoint(self.seen)

    def proximal(
        self,
        centre: Tensor,
        precision: Tensor | float,
        iterations: int,
        tolerance: float,
        start: Tensor | None = None,
    ) -> Solution:
        r"""Minimise the energy near a centre, by conjugate gradients on the normal equations.

        .. math:: \arg\min_x D(x) + \tfrac12 \|x - c\|^2_\Lambda, \quad
            (A^* A + \sigma^2 \Lambda)\, x = A^* y + \sigma^2 \Lambda c

        With :math:`\Lambda = I / \tau` it is the proximal map of :math:`\tau D`.

        Args:
            centre: :math:`c` of shape ``(*batch, *domain)``.
            precision: Diagonal of :math:`\Lambda`, positive, broadcasting against the centre.
            iterations: At most so many.
            tolerance: Relative residual to reach.
            start: Where to begin; the centre if not given.
        """
        weight = self.scale**2 * precision
        return conjugate_gradients(
            lambda x: self.operator.normal(x) + weight * x,
            self.back_projection() + weight * centre,
            len(self.operator.domain),
            iterations,
            tolerance,
            start=centre if start is None else start,
        )


def map_energy(fidelity: DataFidelity, log_prior: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    r"""Return :math:`-\log p(y \mid x) - \log p(x)`, whose least :math:`x` is the MAP estimate.

    Args:
        fidelity: The first term.
        log_prior: :math:`\log p(x)` in nats, of shape ``batch``: a distribution's ``log_prob``. An
            unnormalised one shifts the energy by a constant.
        x: Images of shape ``(*batch, *domain)``.
    """
    return fidelity(x) - log_prior(x)


def single(x: Tensor) -> Tensor:
    """Return half-precision numbers in single precision, complex ones too."""
    return x.to(torch.complex64) if x.dtype == torch.complex32 else at_least_single(x)


def _positive(scale: float, where: str) -> float:
    if not 0 < scale < math.inf:
        raise ValueError(f"{where}: scale {scale!r} is not positive and finite")
    return scale
