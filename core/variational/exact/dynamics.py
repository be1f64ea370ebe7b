"""A linear dynamical system whose log-likelihood and smoothing posterior are known."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributions import MultivariateNormal

from core.variational.distributions import DiagonalNormal
from core.variational.dynamics import (
    GaussMarkov,
    StateSpace,
    dense,
    kalman_filter,
    sequence_evidence,
    smoothing_distribution,
)
from core.variational.evidence import Evidence, Latent


class LinearDynamicalSystem(nn.Module):
    r"""A sequence of latents with a known log-likelihood; NaN in the data is missing.

    .. math:: z_1 \sim \mathcal N(m, L_1 L_1^\top), \quad
        z_t \mid z_{t-1} \sim \mathcal N(A z_{t-1}, L L^\top), \quad
        x_t \mid z_t \sim \mathcal N(H z_t + c, \operatorname{diag} s^2)

    The posterior is the exact smoothing distribution unless it is bent on purpose: every deviation
    from its mean times ``stretch``, each mean moved by ``shift`` marginal scales.

    References:
        Ghahramani and Hinton, "Parameter Estimation for Linear Dynamical Systems",
        University of Toronto, technical report CRG-TR-96-2, 1996.

    Args:
        time: Number of steps :math:`T`.
        initial_loc: :math:`m`.
        initial_tril: :math:`L_1`, lower triangular.
        transition: :math:`A`.
        noise_tril: :math:`L`, lower triangular.
        emission: :math:`H`; any, its columns need not be orthogonal.
        offset: :math:`c`.
        scale: :math:`s`, feature by feature.
        stretch: Factor on the deviations of the posterior; above 1 the importance weights are
            bounded.
        shift: Offset of its means in marginal scales of the exact posterior.

    Example:
        >>> model = small_dynamics()
        >>> x = model.sample(3)
        >>> ratios = model.evidence(x, 2).log_joint_ratio()  # exact posterior: all log p(x)
        >>> torch.allclose(ratios, model.log_evidence(x).expand(2, 3))
        True
    """

    initial_loc: Tensor
    initial_tril: Tensor
    transition: Tensor
    noise_tril: Tensor
    emission: Tensor
    offset: Tensor
    scale: Tensor

    def __init__(
        self,
        time: int,
        initial_loc: Float[Tensor, " latent"],
        initial_tril: Float[Tensor, "latent latent"],
        transition: Float[Tensor, "latent latent"],
        noise_tril: Float[Tensor, "latent latent"],
        emission: Float[Tensor, "feature latent"],
        offset: Float[Tensor, " feature"],
        scale: Float[Tensor, " feature"],
        stretch: float = 1.0,
        shift: float = 0.0,
    ) -> None:
        super().__init__()
        self.register_buffer("initial_loc", initial_loc)
        self.register_buffer("initial_tril", initial_tril)
        self.register_buffer("transition", transition)
        self.register_buffer("noise_tril", noise_tril)
        self.register_buffer("emission", emission)
        self.register_buffer("offset", offset)
        self.register_buffer("scale", scale)
        self.time, self.stretch, self.shift = time, stretch, shift

    @property
    def latent(self) -> int:
        """Number of latent dimensions in all."""
        return self.time * len(self.initial_loc)

    @property
    def prior(self) -> GaussMarkov:
        """The distribution of the latent path, without a batch shape."""
        steps, size = self.time - 1, len(self.initial_loc)
        offset = torch.cat([self.initial_loc[None], self.initial_loc.new_zeros(steps, size)])
        scale_tril = torch.cat([self.initial_tril[None], self.noise_tril.expand(steps, -1, -1)])
        return GaussMarkov(self.transition.expand(steps, -1, -1), offset, scale_tril)

    @property
    def state_space(self) -> StateSpace:
        """The prior and how it is measured."""
        return StateSpace(self.prior, self.emission, self.offset, self.scale.diag())

    def log_evidence(self, x: Float[Tensor, "batch time feature"]) -> Float[Tensor, " batch"]:
        """Return the exact log-likelihood of what is not missing, in nats, by the filter."""
        return kalman_filter(self.state_space, x, ~x.isnan()).log_likelihood

    def dense_log_evidence(
        self, x: Float[Tensor, "batch time feature"]
    ) -> Float[Tensor, " batch"]:
        """Return the same from the joint Normal distribution of the whole sequence."""
        path = dense(self.prior)
        emission = torch.block_diag(*[self.emission] * self.time)
        covariance = emission @ path.covariance_matrix @ emission.T
        covariance = covariance + self.scale.square().repeat(self.time).diag()
        loc = emission @ path.mean + self.offset.repeat(self.time)
        terms = []
        for each in x.flatten(1):
            there = ~each.isnan()
            marginal = MultivariateNormal(loc[there], covariance[there][:, there])
            terms.append(marginal.log_prob(each[there]))
        return torch.stack(terms)

    def sample(self, examples: int) -> Float[Tensor, "example time feature"]:
        """Draw from the model, nothing missing."""
        return self.state_space.observe(self.prior.rsample((examples,)))

    def exact_posterior(self, x: Float[Tensor, "batch time feature"]) -> GaussMarkov:
        """Return the true posterior of the latent path."""
        return smoothing_distribution(self.state_space, x, ~x.isnan())

    def posterior(self, x: Float[Tensor, "batch time feature"]) -> GaussMarkov:
        """Return the posterior that the evidence draws from: the true one, bent."""
        return _bend(self.exact_posterior(x), self.stretch, self.shift)

    def evidence(self, batch: Float[Tensor, "batch time feature"], samples: int = 1) -> Evidence:
        """What the model says, from random draws."""
        return self.evidence_at(batch, torch.randn(samples, len(batch), self.latent).to(batch))

    def evidence_at(
        self,
        batch: Float[Tensor, "batch time feature"],
        noise: Float[Tensor, "samples batch latent"],
    ) -> Evidence:
        """What the model says at the draws that this noise makes."""
        posterior = self.posterior(batch)
        z = posterior.from_noise(noise.unflatten(-1, posterior.event_shape))
        loc = z @ self.emission.T + self.offset
        likelihood = DiagonalNormal(loc, self.scale, event_dims=0)
        latent = Latent("z", z, posterior, self.prior.expand(posterior.batch_shape))
        return sequence_evidence(batch, [latent], likelihood, ~batch.isnan())


def small_dynamics(stretch: float = 1.0, shift: float = 0.0) -> LinearDynamicalSystem:
    """Return a model of 5 steps, 3 features and 2 latents, in float64."""
    generator = torch.Generator().manual_seed(7)
    emission = torch.randn(3, 2, generator=generator, dtype=torch.float64)
    offset = torch.randn(3, generator=generator, dtype=torch.float64)
    return LinearDynamicalSystem(
        5,
        _float64([0.5, -1.0]),
        _float64([[1.2, 0.0], [0.4, 0.8]]),
        _float64([[0.8, -0.5], [0.3, 0.9]]),
        _float64([[0.5, 0.0], [-0.2, 0.3]]),
        emission,
        offset,
        _float64([0.4, 0.7, 1.1]),
        stretch,
        shift,
    )


def _float64(numbers: list) -> Tensor:
    return torch.tensor(numbers, dtype=torch.float64)


def _bend(exact: GaussMarkov, stretch: float, shift: float) -> GaussMarkov:
    """Scale the deviations and move the means of a chain, its transitions kept."""
    moved = shift * exact.stddev
    carried = (exact.transition @ moved[..., :-1, :].unsqueeze(-1)).squeeze(-1)
    offset = exact.offset + moved - torch.nn.functional.pad(carried, (0, 0, 1, 0))
    return GaussMarkov(exact.transition, offset, exact.scale_tril * stretch)
