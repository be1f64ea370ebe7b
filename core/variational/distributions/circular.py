"""Angles: the wrapped normal distribution, and the KL of von Mises distributions."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Size, Tensor
from torch.distributions import VonMises, register_kl

from core.variational.distributions.base import LocScale
from core.variational.distributions.bessel import log_bessel, log_bessel_and_ratio
from core.variational.distributions.normal import HALF_LOG_TWO_PI

TERMS = 3  # on each side; the crossover makes it enough in float64
CROSSOVER = math.sqrt(2 * math.pi)  # the scale at which a normal and its Fourier series are alike
ENTROPY_NODES = 128
NARROW = 0.4  # below which less than 5e-15 of the mass is beyond half a turn


class WrappedNormal(LocScale):
    r"""Normal distribution wrapped around the circle: angles, with a reparameterised sample.

    .. math:: p(\theta) = \sum_{k \in \mathbb Z} \mathcal N(\theta + 2 \pi k; \mu, \sigma^2)
        = \frac1{2 \pi} \Big(1 + 2 \sum_{n \ge 1} e^{-n^2 \sigma^2 / 2} \cos n (\theta - \mu)\Big)

    The first sum is cut at :math:`|k| \le 3` for :math:`\sigma^2 \le 2 \pi`, the second at
    :math:`n \le 3` beyond: the relative error is below 1e-16 in the first case and 1e-21 in the
    second. Any real angle may be given; samples lie in :math:`[-\pi, \pi)`. Several angles make a
    torus. Moments are the circular ones, as for torch's ``VonMises``.

    References:
        Mardia and Jupp, "Directional Statistics", Wiley 2000, sec. 3.5.7; Jona-Lasinio et al.,
        "Spatial Analysis of Wave Direction Data Using Wrapped Gaussian Processes", Annals of
        Applied Statistics 6, 2012 (on the truncation).

    Args:
        loc: Mean angle :math:`\mu` in radians, of shape ``(*batch, *event)``.
        scale: Standard deviation :math:`\sigma > 0` before wrapping, in radians; broadcasts
            against ``loc``.
        event_dims: How many of the last dimensions are one event.

    Raises:
        ValueError: If there are fewer dimensions than ``event_dims``.

    Example:
        >>> WrappedNormal(torch.zeros(1), torch.tensor(100.0)).entropy()  # log 2π
        tensor(1.8379)
    """

    has_rsample = True

    @property
    def mean(self) -> Tensor:
        """The circular mean."""
        return wrapped(self.loc)

    @property
    def mode(self) -> Tensor:
        """The most probable angle."""
        return wrapped(self.loc)

    @property
    def mean_resultant_length(self) -> Tensor:
        r"""The length of the mean of :math:`e^{i \theta}`."""
        return (-0.5 * self.scale.square()).exp()

    @property
    def variance(self) -> Tensor:
        """The circular variance, from 0 to 1."""
        return -torch.expm1(-0.5 * self.scale.square())

    def rsample(self, sample_shape: Size | Sequence[int] = ()) -> Tensor:
        """Draw angles of shape ``(*sample, *batch, *event)``, in radians."""
        shape = torch.Size(sample_shape) + self.loc.shape
        noise = torch.randn(shape, dtype=self.loc.dtype, device=self.loc.device)
        return wrapped(torch.addcmul(self.loc, noise, self.scale))

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log density in nats, of any real angles in radians."""
        self._check(value)
        return self._sum(_log_density(wrapped(value - self.loc), self.scale))

    def entropy(self) -> Tensor:
        """Return the differential entropy in nats, of shape ``batch``.

        By the trapezoid rule with 128 nodes, which converges exponentially for a periodic
        function; the Normal's below a scale of 0.4. The absolute error is below 1e-11.
        """
        narrow = self.scale < NARROW
        scale = self.scale.clamp(min=NARROW).unsqueeze(-1)
        step = 2 * math.pi / ENTROPY_NODES
        nodes = torch.arange(ENTROPY_NODES, dtype=scale.dtype, device=scale.device) * step
        log_density = _log_density(nodes - math.pi, scale)
        wide = -(log_density.exp() * log_density).sum(-1) * step
        return self._sum(torch.where(narrow, self.scale.log() + 0.5 + HALF_LOG_TWO_PI, wide))


def wrapped(angle: Tensor) -> Tensor:
    r"""Return the same angle in :math:`[-\pi, \pi)`; the gradient passes unchanged."""
    turns = torch.floor((angle.detach() + math.pi) / (2 * math.pi))
    return angle - 2 * math.pi * turns


def _log_density(angle: Tensor, scale: Tensor) -> Tensor:
    """Of an angle from the mean, at most half a turn."""
    few = scale <= CROSSOVER
    narrow, wide = scale.clamp(max=CROSSOVER), scale.clamp(min=CROSSOVER)
    turns = 2 * math.pi * torch.arange(-TERMS, TERMS + 1, dtype=scale.dtype, device=scale.device)
    shifted = (angle.unsqueeze(-1) + turns) / narrow.unsqueeze(-1)
    direct = torch.logsumexp(-0.5 * shifted.square(), -1) - narrow.log() - HALF_LOG_TWO_PI
    order = torch.arange(1, TERMS + 1, dtype=scale.dtype, device=scale.device)
    weights = (-0.5 * (order * wide.unsqueeze(-1)).square()).exp()
    series = 2 * (weights * (order * angle.unsqueeze(-1)).cos()).sum(-1)
    return torch.where(few, direct, series.log1p() - 2 * HALF_LOG_TWO_PI)


@register_kl(VonMises, VonMises)
def _kl_von_mises_von_mises(posterior: VonMises, prior: VonMises) -> Tensor:
    r"""From one von Mises distribution to another.

    .. math:: \log \frac{I_0(\kappa_p)}{I_0(\kappa_q)}
        + A(\kappa_q) \left(\kappa_q - \kappa_p \cos(\mu_q - \mu_p)\right), \quad A = I_1 / I_0
    """
    ours, theirs = posterior.concentration.double(), prior.concentration.double()
    scaled, ratio = log_bessel_and_ratio(0, ours)
    length = ours * ratio
    versine = 2 * ((posterior.loc - prior.loc).double() / 2).sin().square()
    terms = (ours - theirs) * (length - 1) + theirs * length * versine
    return (terms + log_bessel(0, theirs) - scaled).to(posterior.loc)


@register_kl(WrappedNormal, VonMises)
def _kl_wrapped_normal_von_mises(posterior: WrappedNormal, prior: VonMises) -> Tensor:
    r"""From a wrapped normal to a von Mises distribution of the same shape.

    .. math:: \log 2 \pi I_0(\kappa) - \kappa e^{-\sigma^2/2} \cos(\mu_q - \mu_p) - H(q)
    """
    if posterior.event_dims:
        raise NotImplementedError("angles of one event against separate ones")
    kappa = prior.concentration.double()
    cosine = (posterior.loc - prior.loc).double().cos()
    versine = 1 - posterior.mean_resultant_length.double() * cosine
    cross = kappa * versine + log_bessel(0, kappa) + 2 * HALF_LOG_TWO_PI
    return cross.to(posterior.loc) - posterior.entropy()
