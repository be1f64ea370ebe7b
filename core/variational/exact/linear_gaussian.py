"""Models whose log-likelihood is known, and the self-test that holds the mathematics against it.

All is linear and Gaussian, and the columns of the weight are orthogonal: the exact posterior is
then a `DiagonalNormal`, so that the very classes of a training are tested.
"""

from __future__ import annotations

import math
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributions import MultivariateNormal

from core.variational.distributions import DiagonalNormal
from core.variational.evidence import Evidence, Latent


@runtime_checkable
class Exact(Protocol):
    """A model of continuous latents that says its own log-likelihood exactly."""

    @property
    def latent(self) -> int:
        """Number of latent dimensions in all."""
        ...

    def log_evidence(self, x: Tensor) -> Tensor:
        """Return the exact log-likelihood of each example, in nats."""
        ...

    def sample(self, examples: int) -> Tensor:
        """Draw from the model."""
        ...

    def evidence(self, batch: Tensor, samples: int = 1) -> Evidence:
        """What the model says, from random draws."""
        ...

    def evidence_at(self, batch: Tensor, noise: Tensor) -> Evidence:
        """What the model says at the draws that this noise makes, ``(samples, batch, latent)``."""
        ...


class LinearGaussian(nn.Module):
    r"""One latent group with a known log-likelihood.

    .. math:: z \sim \mathcal N(0, I), \quad x \mid z \sim \mathcal N(W z + b, s^2 I), \quad
        x \sim \mathcal N(b, W W^\top + s^2 I)

    The posterior is exact unless it is bent on purpose: each scale times ``stretch``, each mean
    moved by ``shift`` exact scales.

    References:
        Tipping and Bishop, "Probabilistic Principal Component Analysis", JRSS B 61, 1999, eq. 3-7.

    Args:
        weight: :math:`W`, with orthogonal columns.
        bias: :math:`b`.
        scale: Standard deviation of the noise :math:`s`.
        stretch: Factor on the scales of the posterior; above 1 the importance weights are bounded.
        shift: Offset of its means in exact posterior scales.

    Raises:
        ValueError: If the columns of the weight are not orthogonal.
    """

    weight: Tensor
    bias: Tensor

    def __init__(
        self,
        weight: Float[Tensor, "feature latent"],
        bias: Float[Tensor, " feature"],
        scale: float,
        stretch: float = 1.0,
        shift: float = 0.0,
    ) -> None:
        super().__init__()
        self.register_buffer("weight", _orthogonal(weight))
        self.register_buffer("bias", bias)
        self.scale, self.stretch, self.shift = scale, stretch, shift

    @property
    def latent(self) -> int:
        """Number of latent dimensions in all."""
        return self.weight.shape[1]

    def log_evidence(self, x: Float[Tensor, "batch feature"]) -> Float[Tensor, " batch"]:
        """Return the exact log-likelihood, in nats."""
        return _log_evidence(x, self, torch.ones_like(self.weight[0]))

    def sample(self, examples: int) -> Float[Tensor, "example feature"]:
        """Draw from the model."""
        z = torch.randn(examples, self.latent).to(self.weight)
        return _observe(z, self).rsample()

    def exact_posterior(self, x: Float[Tensor, "batch feature"]) -> DiagonalNormal:
        """Return the true posterior of the latent."""
        seen, precision = _projection(x, self)
        return _normal(seen / (1 + precision), 1 + precision)

    def evidence(self, batch: Float[Tensor, "batch feature"], samples: int = 1) -> Evidence:
        """What the model says, from random draws."""
        return self.evidence_at(batch, torch.randn(samples, len(batch), self.latent).to(batch))

    def evidence_at(
        self, batch: Float[Tensor, "batch feature"], noise: Float[Tensor, "samples batch latent"]
    ) -> Evidence:
        """What the model says at the draws that this noise makes."""
        posterior = _bend(self.exact_posterior(batch), self)
        z = posterior.loc + posterior.scale * noise
        return Evidence(
            {"x": _observe(z, self).log_prob(batch)},
            [Latent("z", z, posterior, _standard(posterior))],
        )


class TwoLevelLinearGaussian(nn.Module):
    r"""Two latent groups, one the parent of the other, with a known log-likelihood.

    .. math:: z_2 \sim \mathcal N(0, I), \quad z_1 \mid z_2 \sim \mathcal N(a z_2, t^2 I), \quad
        x \mid z_1 \sim \mathcal N(W z_1 + b, s^2 I)

    The posterior runs from the top, :math:`q(z_2 \mid x)\, q(z_1 \mid z_2, x)`, and is exact
    unless it is bent on purpose as in `LinearGaussian`.

    Args:
        slope: :math:`a`, element by element.
        middle_scale: :math:`t`.
        weight: :math:`W`, with orthogonal columns.
        bias: :math:`b`.
        scale: :math:`s`.
        stretch: Factor on the scales of the posteriors.
        shift: Offset of their means in exact posterior scales.

    Raises:
        ValueError: If the columns of the weight are not orthogonal.
    """

    slope: Tensor
    weight: Tensor
    bias: Tensor

    def __init__(
        self,
        slope: Float[Tensor, " latent"],
        middle_scale: float,
        weight: Float[Tensor, "feature latent"],
        bias: Float[Tensor, " feature"],
        scale: float,
        stretch: float = 1.0,
        shift: float = 0.0,
    ) -> None:
        super().__init__()
        self.register_buffer("slope", slope)
        self.register_buffer("weight", _orthogonal(weight))
        self.register_buffer("bias", bias)
        self.middle_scale, self.scale = middle_scale, scale
        self.stretch, self.shift = stretch, shift

    @property
    def latent(self) -> int:
        """Number of latent dimensions in all."""
        return 2 * self.weight.shape[1]

    def log_evidence(self, x: Float[Tensor, "batch feature"]) -> Float[Tensor, " batch"]:
        """Return the exact log-likelihood, in nats."""
        return _log_evidence(x, self, self.slope.square() + self.middle_scale**2)

    def sample(self, examples: int) -> Float[Tensor, "example feature"]:
        """Draw from the model."""
        top, noise = torch.randn(2, examples, len(self.slope)).to(self.weight)
        return _observe(self.slope * top + self.middle_scale * noise, self).rsample()

    def evidence(self, batch: Float[Tensor, "batch feature"], samples: int = 1) -> Evidence:
        """What the model says, from random draws."""
        return self.evidence_at(batch, torch.randn(samples, len(batch), self.latent).to(batch))

    def evidence_at(
        self, batch: Float[Tensor, "batch feature"], noise: Float[Tensor, "samples batch latent"]
    ) -> Evidence:
        """What the model says at the draws that this noise makes."""
        noise_top, noise_middle = noise.chunk(2, -1)
        seen, precision = _projection(batch, self)
        # Given z_2, the estimate seen / precision of z_1 has this variance around a z_2.
        spread = self.middle_scale**2 + 1 / precision
        weight = self.slope / spread
        precision_top = 1 + self.slope * weight
        top = _bend(_normal(weight * seen / precision / precision_top, precision_top), self)
        z_top = top.loc + top.scale * noise_top
        precision_middle = precision + self.middle_scale**-2
        expected = self.slope * z_top
        loc = (seen + expected * self.middle_scale**-2) / precision_middle
        middle = _bend(_normal(loc, precision_middle), self)
        z_middle = middle.loc + middle.scale * noise_middle
        prior = DiagonalNormal(expected, torch.full_like(expected, self.middle_scale))
        return Evidence(
            {"x": _observe(z_middle, self).log_prob(batch)},
            [
                Latent("z2", z_top, top, _standard(top)),
                Latent("z1", z_middle, middle, prior),
            ],
        )


_Projected = LinearGaussian | TwoLevelLinearGaussian


def cubature_noise(model: Exact, batch: Tensor) -> Float[Tensor, "samples batch latent"]:
    r"""Return noise at which the plain mean of any quadratic is its exact expectation.

    .. math:: \pm \sqrt d\, e_j, \quad j = 1 \dots d

    With it a mean over samples is an integral: an ELBO of a linear-Gaussian model has no noise.

    References:
        Arasaratnam and Haykin, "Cubature Kalman Filters", IEEE TAC 54(6), 2009: the third-degree
        spherical-radial rule.
    """
    points = math.sqrt(model.latent) * torch.eye(model.latent).to(batch)
    return torch.cat([points, -points]).unsqueeze(1).expand(-1, len(batch), -1)


def small_linear_gaussian(stretch: float = 1.0, shift: float = 0.0) -> LinearGaussian:
    """Return a model of 6 features and 3 latents, in float64."""
    weight, bias = _small_parameters()
    return LinearGaussian(weight, bias, 0.7, stretch, shift)


def small_two_level(stretch: float = 1.0, shift: float = 0.0) -> TwoLevelLinearGaussian:
    """Return a model of 6 features and 3 latents on each of two levels, in float64."""
    weight, bias = _small_parameters()
    slope = torch.tensor([0.9, -0.5, 1.4], dtype=torch.float64)
    return TwoLevelLinearGaussian(slope, 0.6, weight, bias, 0.7, stretch, shift)


def _small_parameters() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(7)
    matrix = torch.randn(6, 3, generator=generator, dtype=torch.float64)
    columns = torch.linalg.qr(matrix).Q * torch.tensor([2.0, 1.0, 0.4], dtype=torch.float64)
    return columns, torch.randn(6, generator=generator, dtype=torch.float64)


def _orthogonal(weight: Tensor) -> Tensor:
    gram = weight.T @ weight
    off_diagonal = (gram - gram.diagonal().diag()).abs().max()
    if off_diagonal > 1e-6 * gram.diagonal().max():
        raise ValueError(
            f"weight: columns with an inner product of {float(off_diagonal):.3g}; they must be "
            "orthogonal for the posterior to be diagonal"
        )
    return weight


def _projection(x: Tensor, model: _Projected) -> tuple[Tensor, Tensor]:
    """Return :math:`W^T (x - b) / s^2` and the precision :math:`diag(W^T W) / s^2`."""
    precision = model.weight.square().sum(0) / model.scale**2
    return (x - model.bias) @ model.weight / model.scale**2, precision


def _normal(loc: Tensor, precision: Tensor) -> DiagonalNormal:
    return DiagonalNormal(loc, precision.rsqrt())


def _standard(posterior: DiagonalNormal) -> DiagonalNormal:
    return DiagonalNormal(torch.zeros_like(posterior.loc), torch.ones_like(posterior.loc))


def _bend(exact: DiagonalNormal, model: _Projected) -> DiagonalNormal:
    return DiagonalNormal(exact.loc + model.shift * exact.scale, exact.scale * model.stretch)


def _observe(z: Tensor, model: _Projected) -> DiagonalNormal:
    loc = z @ model.weight.T + model.bias
    return DiagonalNormal(loc, torch.full_like(loc, model.scale))


def _log_evidence(x: Tensor, model: _Projected, variances: Tensor) -> Tensor:
    noise = model.scale**2 * torch.eye(len(model.bias)).to(model.weight)
    covariance = (model.weight * variances) @ model.weight.T + noise
    return MultivariateNormal(model.bias, covariance).log_prob(x)
