"""Linear dynamics with a diagonal transition: damped rotations, in closed form at any times."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Size, Tensor, nn
from torch.distributions import Distribution, Independent, constraints, register_kl

from core.variational.choices import check_choice
from core.variational.distributions import (
    DiagonalNormal,
    as_diagonal_normal,
    check_same_event,
    stop_gradient,
)
from core.variational.distributions.base import at_least_single
from core.variational.distributions.normal import HALF_LOG_TWO_PI
from core.variational.dynamics.gauss_markov import GaussMarkov, as_gauss_markov, chain_rule_kl
from core.variational.dynamics.scan import Elements, associative_scan
from core.variational.dynamics.steps import Steps, as_steps, cut_padding

SPECTRA = ("stable", "circle", "real")


class LinearDynamicsPath(Distribution):
    r"""A linear-Gaussian chain whose transition is diagonal; the whole path is one event.

    .. math:: z_{tj} = \lambda_{tj} z_{t-1,j} + s_{tj} \epsilon_{tj}, \quad
        z_{1j} = m_j + s_{1j} \epsilon_{1j}

    A mode :math:`j` is one latent if :math:`\lambda` is real. If it is complex a mode is two
    latents side by side, real and imaginary part, each with noise of scale :math:`s_{tj}`: in real
    terms a scaled rotation of the pair.

    Args:
        transition: :math:`\lambda_{2:T}` of shape ``(*batch, time - 1, mode)``, real or complex.
        scale: :math:`s_{1:T} > 0` of shape ``(*batch, time, mode)``.
        loc: :math:`m` of shape ``(*batch, latent)``.

    The three batch shapes broadcast.

    Raises:
        ValueError: If the shapes do not fit together.

    Example:
        >>> turn = torch.polar(torch.full((4, 1), 0.9), torch.full((4, 1), 0.5))
        >>> path = LinearDynamicsPath(turn, torch.ones(5, 1), torch.zeros(3, 2))
        >>> path.rsample((7,)).shape, path.log_prob(path.mean).shape
        (torch.Size([7, 3, 5, 2]), torch.Size([3]))
    """

    has_rsample = True

    def __init__(self, transition: Tensor, scale: Tensor, loc: Tensor) -> None:
        self.transition = transition if transition.is_complex() else at_least_single(transition)
        self.scale = at_least_single(scale)
        self.loc = at_least_single(loc)
        self.width = 2 if transition.is_complex() else 1
        (time, modes), latent = scale.shape[-2:], loc.shape[-1]
        expected = (time - 1, modes), (time, modes), modes * self.width
        if (transition.shape[-2:], scale.shape[-2:], latent) != expected:
            raise ValueError(
                f"LinearDynamicsPath: transition {tuple(transition.shape)}, scale "
                f"{tuple(scale.shape)}, loc {tuple(loc.shape)}; with {self.width} latents to a "
                f"mode they must end in {expected[0]}, {expected[1]}, {expected[2]}"
            )
        batch = torch.broadcast_shapes(transition.shape[:-2], scale.shape[:-2], loc.shape[:-1])
        super().__init__(batch, Size((time, latent)), validate_args=False)

    @property
    def arg_constraints(self) -> dict[str, constraints.Constraint]:
        """What the parameters may be; a complex transition is not checked."""
        return {
            "scale": constraints.independent(constraints.positive, 2),
            "loc": constraints.real_vector,
        }

    @property
    def support(self) -> constraints.Constraint:
        """The values that it covers."""
        return constraints.independent(constraints.real, 2)

    @property
    def mean(self) -> Tensor:
        """The means of the marginals, of shape ``(*batch, time, latent)``."""
        start = self.loc.unsqueeze(-2)
        rest = start.new_zeros(*start.shape[:-2], len(self), start.shape[-1])
        return self._propagate(torch.cat([start, rest[..., 1:, :]], -2).expand(self._shape))

    @property
    def mode(self) -> Tensor:
        """The most probable path."""
        return self.mean

    @property
    def variance(self) -> Tensor:
        """The variances of the marginals, of shape ``(*batch, time, latent)``."""
        squares = _first_zero(_square(self.transition))
        noise = self.scale.square().expand(*self._batch_shape, -1, -1)
        variances = associative_scan(_elementwise_affine, (squares, noise), dim=-2)[1]
        return self._to_latents(variances)

    def __len__(self) -> int:
        return self._event_shape[0]

    def expand(
        self, batch_shape: Size | Sequence[int], _instance: None = None
    ) -> LinearDynamicsPath:
        """Return the same distribution with the batch shape given."""
        return LinearDynamicsPath(
            self.transition.expand(*batch_shape, *self.transition.shape[-2:]),
            self.scale.expand(*batch_shape, *self.scale.shape[-2:]),
            self.loc.expand(*batch_shape, self.loc.shape[-1]),
        )

    def rsample(self, sample_shape: Size | Sequence[int] = ()) -> Tensor:
        """Draw paths of shape ``(*sample, *batch, time, latent)``."""
        shape = self._extended_shape(Size(sample_shape))
        noise = torch.randn(shape, dtype=self.loc.dtype, device=self.loc.device)
        return self.from_noise(noise)

    def from_noise(
        self, noise: Float[Tensor, "*shape time latent"]
    ) -> Float[Tensor, "*shape time latent"]:
        r"""Return the paths that this standard normal noise :math:`\epsilon` makes."""
        inputs = self._to_latents(self.scale) * noise
        start = inputs[..., :1, :] + self.loc.unsqueeze(-2)
        return self._propagate(torch.cat([start, inputs[..., 1:, :]], -2))

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log density in nats; ``value`` may have further leading dimensions."""
        if value.shape[-2:] != self._event_shape:
            raise ValueError(
                f"LinearDynamicsPath: value of shape {tuple(value.shape)} does not end in the "
                f"event shape {tuple(self._event_shape)}"
            )
        squares = (self._surprise(value) / self._to_latents(self.scale)).square().sum((-2, -1))
        return -0.5 * squares - self._log_scale - self._event_shape.numel() * HALF_LOG_TWO_PI

    def entropy(self) -> Tensor:
        """Return the differential entropy in nats, of shape ``batch``."""
        constant = self._event_shape.numel() * (0.5 + HALF_LOG_TWO_PI)
        return (self._log_scale + constant).expand(self._batch_shape)

    @property
    def _shape(self) -> Size:
        return self._batch_shape + self._event_shape

    @property
    def _log_scale(self) -> Tensor:
        return self.width * self.scale.log().sum((-2, -1))

    def _surprise(self, path: Tensor) -> Tensor:
        """Return what each step has that the one before did not say."""
        predicted = self._from_modes(self.transition * self._to_modes(path[..., :-1, :]))
        start = path[..., :1, :] - self.loc.unsqueeze(-2)
        rest = path[..., 1:, :] - predicted
        start = start.expand(*rest.shape[:-2], -1, -1)
        return torch.cat([start, rest], -2)

    def _propagate(self, inputs: Tensor) -> Tensor:
        elements = _first_zero(self.transition), self._to_modes(inputs)
        return self._from_modes(associative_scan(_elementwise_affine, elements, dim=-2)[1])

    def _to_modes(self, latents: Tensor) -> Tensor:
        if self.width == 1:
            return latents
        return torch.view_as_complex(latents.unflatten(-1, (-1, 2)).contiguous())

    def _from_modes(self, modes: Tensor) -> Tensor:
        return modes if self.width == 1 else torch.view_as_real(modes).flatten(-2)

    def _to_latents(self, per_mode: Tensor) -> Tensor:
        return per_mode if self.width == 1 else per_mode.repeat_interleave(2, -1)

    def _sum_in_modes(self, per_latent: Tensor) -> Tensor:
        return per_latent if self.width == 1 else per_latent.unflatten(-1, (-1, 2)).sum(-1)


class LinearDynamics(nn.Module):
    r"""A prior of linear dynamics in continuous time, one complex number for each pair of latents.

    .. math:: \lambda_j = e^{-r_j + i \omega_j}, \quad
        z_t = \lambda^{\Delta t} z_{t-1} + s_t \epsilon_t

    ``"stable"`` has a rate :math:`r_j = e^{\nu_j} > 0`, so :math:`|\lambda| < 1` by construction;
    ``"circle"`` has :math:`r_j = 0`; ``"real"`` has :math:`\omega_j = 0` and one latent to a mode.
    A stationary process has the same scale :math:`s` at all times,

    .. math:: z_1 \sim \mathcal N(0, s^2), \quad s_t^2 = s^2 (1 - |\lambda|^{2 \Delta t}) .

    Otherwise the start is learned, and so is the noise :math:`\sigma_j` per unit of time:

    .. math:: z_1 \sim \mathcal N(m, s_1^2), \quad
        s_t^2 = \sigma^2 \int_0^{\Delta t} |\lambda|^{2 u} du
        = \sigma^2 \frac{1 - e^{-2 r \Delta t}}{2 r} .

    Both are the exact transition of :math:`dz = (-r + i\omega) z\, dt + \sigma\, dW`: a step of 2
    is two steps of 1. Logarithms of rates are learned, not :math:`\lambda`, so that slow modes
    keep their gradients.

    References:
        Naiman et al., "Generative Modeling of Regular and Irregular Time Series Data via Koopman
        VAEs", ICLR 2024 (arXiv:2310.02619), for linear latent dynamics as a prior; there the
        operator is fitted to prior samples of each batch, here its spectrum is the parameter.
        Orvieto et al., "Resurrecting Recurrent Neural Networks for Long Sequences", ICML 2023
        (arXiv:2303.06349), section 3.3, for the exponential parametrisation.
        Särkkä and Solin, "Applied Stochastic Differential Equations", 2019, chapter 6, for the
        transition.

    Args:
        latent: Number of latents; even unless the spectrum is real.
        spectrum: ``"stable"``, ``"circle"`` or ``"real"``.
        stationary: Whether the process starts in its stationary distribution.
        half_lives: Shortest and longest time in which a mode halves, at the start of training;
            the modes are spread between geometrically. Unused on the circle.
        periods: Shortest and longest period at the start of training. Unused if real.
        scale: Stationary standard deviation :math:`s`, which is not learned, or where the learned
            scales start.

    Raises:
        ValueError: If a pair of latents is incomplete, a number is not positive, or a process on
            the circle is to be stationary.

    Example:
        >>> posterior = DiagonalNormal(torch.zeros(3, 5, 4), torch.ones(()), event_dims=2)
        >>> prior = LinearDynamics(4, "stable", stationary=True, half_lives=(1.0, 50.0),
        ...     periods=(4.0, 100.0))
        >>> torch.distributions.kl_divergence(posterior, prior(posterior)).shape
        torch.Size([3])
    """

    def __init__(
        self,
        latent: int,
        spectrum: str,
        stationary: bool,
        half_lives: tuple[float, float],
        periods: tuple[float, float],
        scale: float = 1.0,
    ) -> None:
        super().__init__()
        _check_settings(latent, spectrum, stationary, (*half_lives, *periods, scale))
        self.latent, self.spectrum, self.stationary, self.scale = (
            latent,
            spectrum,
            stationary,
            scale,
        )
        modes = latent if spectrum == "real" else latent // 2
        if spectrum != "circle":
            self.log_rate = nn.Parameter((math.log(2) / _spread(half_lives, modes)).log())
        if spectrum != "real":
            self.frequency = nn.Parameter(2 * math.pi / _spread(periods, modes))
        if not stationary:
            self.loc = nn.Parameter(torch.zeros(latent))
            self.log_initial_scale = nn.Parameter(torch.full((modes,), math.log(scale)))
            self.log_noise_scale = nn.Parameter(torch.full((modes,), math.log(scale)))

    @property
    def modes(self) -> int:
        """Number of modes: latents if real, pairs of latents otherwise."""
        return self.latent if self.spectrum == "real" else self.latent // 2

    @property
    def eigenvalues(self) -> Tensor:
        r""":math:`\lambda` for one unit of time, of shape ``(mode,)``."""
        return self._transition(self._like.new_ones(1)).squeeze(0)

    @property
    def half_lives(self) -> Float[Tensor, " mode"]:
        """Time in which each mode halves, in the unit of the times; infinite on the circle."""
        return math.log(2) / self._rate

    @property
    def periods(self) -> Float[Tensor, " mode"]:
        """Period of each mode, in the unit of the times; infinite if real."""
        if self.spectrum == "real":
            return torch.full_like(self._like, math.inf)
        return 2 * math.pi / self.frequency

    def forward(
        self, posterior: Distribution, context: Steps | Tensor | None = None
    ) -> LinearDynamicsPath:
        """Return the prior in the posterior's shapes.

        Args:
            posterior: A distribution whose event is (time, latent).
            context: `Steps`, or their times as a tensor of shape ``(batch, time)``, or which steps
                are present if it is bool. Without times a step is one unit.

        Raises:
            ValueError: If the posterior's event is another.
        """
        if len(posterior.event_shape) != 2 or posterior.event_shape[-1] != self.latent:
            raise ValueError(
                f"LinearDynamics: a posterior of event shape {tuple(posterior.event_shape)}; it "
                f"must be (time, {self.latent}); are its event_dims too few?"
            )
        return self.path(posterior.event_shape[0], as_steps(context)).expand(posterior.batch_shape)

    def path(self, time: int, steps: Steps) -> LinearDynamicsPath:
        """Return the prior over this many steps, with the batch shape of the steps."""
        intervals = steps.intervals(time, self._like)
        scale = torch.cat(
            [
                self._initial_scale.expand(*intervals.shape[:-1], 1, self.modes),
                self._noise_scale(intervals),
            ],
            -2,
        )
        path = LinearDynamicsPath(self._transition(intervals), scale, self._loc)
        return path if steps.present is None else cut_padding(path, steps.present)  # type: ignore

    @property
    def _like(self) -> Tensor:
        return self.frequency if self.spectrum == "circle" else self.log_rate

    @property
    def _rate(self) -> Tensor:
        if self.spectrum == "circle":
            return torch.zeros_like(self.frequency)
        return self.log_rate.exp()

    @property
    def _loc(self) -> Tensor:
        return self._like.new_zeros(self.latent) if self.stationary else self.loc

    @property
    def _initial_scale(self) -> Tensor:
        if self.stationary:
            return torch.full_like(self._like, self.scale)
        return self.log_initial_scale.exp()

    def _transition(self, intervals: Float[Tensor, "*batch interval"]) -> Tensor:
        passed = intervals.unsqueeze(-1)
        modulus = torch.exp(-self._rate * passed)
        return (
            modulus if self.spectrum == "real" else torch.polar(modulus, self.frequency * passed)
        )

    def _noise_scale(
        self, intervals: Float[Tensor, "*batch interval"]
    ) -> Float[Tensor, "*batch interval mode"]:
        passed = intervals.unsqueeze(-1)
        lost = -torch.expm1(-2 * self._rate * passed)  # 1 - |lambda|^(2 dt), exact for slow modes
        if self.stationary:
            return self.scale * lost.sqrt()
        time = passed.expand_as(lost) if self.spectrum == "circle" else lost / (2 * self._rate)
        return self.log_noise_scale.exp() * time.sqrt()


def expected_surprise(
    posterior: DiagonalNormal, prior: LinearDynamicsPath
) -> Float[Tensor, "*batch time mode"]:
    r"""Return :math:`-\mathbb E_q \log p(z_{tj} \mid z_{t-1,j})` under a factorised q, in nats.

    .. math:: \frac{|\mu_t - \lambda_t \mu_{t-1}|^2 + v_t + |\lambda_t|^2 v_{t-1}}{2 s_t^2}
        + n \log s_t + \frac n2 \log 2\pi

    with the means :math:`\mu` and, summed over the mode's :math:`n` latents, the variances
    :math:`v` of :math:`q`: no loop over time, and no scan.

    Raises:
        ValueError: If the events differ.
    """
    check_same_event(posterior, prior)
    variance = prior._sum_in_modes(posterior.variance)
    carried = _square(prior.transition) * variance[..., :-1, :]
    carried = nn.functional.pad(carried, (0, 0, 1, 0))
    squares = prior._sum_in_modes(prior._surprise(posterior.loc).square()) + variance + carried
    constant = prior.width * (prior.scale.log() + HALF_LOG_TWO_PI)
    return 0.5 * squares / prior.scale.square() + constant


@register_kl(DiagonalNormal, LinearDynamicsPath)
def _kl_diagonal_dynamics(posterior: DiagonalNormal, prior: LinearDynamicsPath) -> Tensor:
    return expected_surprise(posterior, prior).sum((-2, -1)) - posterior.entropy()


@register_kl(Independent, LinearDynamicsPath)
def _kl_independent_dynamics(posterior: Independent, prior: LinearDynamicsPath) -> Tensor:
    return _kl_diagonal_dynamics(as_diagonal_normal(posterior), prior)


for _other in (DiagonalNormal, Independent, GaussMarkov, LinearDynamicsPath):
    register_kl(LinearDynamicsPath, _other)(chain_rule_kl)
register_kl(GaussMarkov, LinearDynamicsPath)(chain_rule_kl)


@as_gauss_markov.register
def _(distribution: LinearDynamicsPath) -> GaussMarkov:
    time, latent = distribution.event_shape
    start = distribution.loc.unsqueeze(-2)
    offset = torch.cat([start, start.new_zeros(*start.shape[:-2], time - 1, latent)], -2)
    scale_tril = torch.diag_embed(distribution._to_latents(distribution.scale))
    return GaussMarkov(_blocks(distribution.transition), offset, scale_tril)


@stop_gradient.register
def _(distribution: LinearDynamicsPath) -> LinearDynamicsPath:
    return LinearDynamicsPath(
        distribution.transition.detach(), distribution.scale.detach(), distribution.loc.detach()
    )


@cut_padding.register
def _(
    distribution: LinearDynamicsPath, present: Bool[Tensor, "*batch time"] | None
) -> LinearDynamicsPath:
    if present is None:
        return distribution
    there = present.unsqueeze(-1)
    return LinearDynamicsPath(
        torch.where(there[..., 1:, :], distribution.transition, 0.0),
        torch.where(there, distribution.scale, 1.0),
        torch.where(there[..., 0, :], distribution.loc, 0.0),
    )


def _blocks(transition: Tensor) -> Tensor:
    """Return the real matrices that multiply (real part, imaginary part) pairs."""
    if not transition.is_complex():
        return torch.diag_embed(transition)
    real, imaginary = transition.real, transition.imag
    between = torch.stack([imaginary, torch.zeros_like(imaginary)], -1).flatten(-2)[..., :-1]
    diagonal = torch.diag_embed(real.repeat_interleave(2, -1))
    return diagonal + torch.diag_embed(between, offset=-1) - torch.diag_embed(between, offset=1)


def _elementwise_affine(first: Elements, second: Elements) -> Elements:
    return second[0] * first[0], second[0] * first[1] + second[1]


def _square(transition: Tensor) -> Tensor:
    if transition.is_complex():
        return transition.real.square() + transition.imag.square()
    return transition.square()


def _first_zero(transition: Tensor) -> Tensor:
    return nn.functional.pad(transition, (0, 0, 1, 0))


def _spread(limits: tuple[float, float], count: int) -> Tensor:
    """Return numbers in geometric progression from the first limit to the second."""
    low, high = map(math.log, limits)
    return torch.linspace(low, high, count).exp()


def _check_settings(
    latent: int, spectrum: str, stationary: bool, positive: Sequence[float]
) -> None:
    check_choice("LinearDynamics: spectrum", spectrum, SPECTRA)
    if latent < 1 or (spectrum != "real" and latent % 2):
        raise ValueError(
            f"LinearDynamics: {latent} latents with a {spectrum!r} spectrum, whose modes are "
            "pairs; give an even number, or make the spectrum 'real'"
        )
    if stationary and spectrum == "circle":
        raise ValueError(
            "LinearDynamics: a process on the circle forgets nothing, so it has no stationary "
            "distribution; set stationary to false, or the spectrum to 'stable'"
        )
    if not all(0 < number < math.inf for number in positive):
        raise ValueError(
            f"LinearDynamics: half_lives, periods and scale are {tuple(positive)}; each must be "
            "positive and finite"
        )
