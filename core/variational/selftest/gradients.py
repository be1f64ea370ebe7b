"""Gradient estimators measured side by side: bias in standard errors, variance, signal to noise.

The problem is small and Gaussian, and its posterior wrong in mean and scale, so that every part
of a gradient counts; the gradient of its ELBO is known. `benchmarks/estimators.py` makes its
table from the same functions as the self-test.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions import Distribution, Independent, Normal, kl_divergence

from core.variational.distributions import DiagonalNormal, stop_gradient
from core.variational.estimators import BOTH, Estimator, Path, Target
from core.variational.evidence import Evidence, Latent
from core.variational.exact import LinearGaussian, small_linear_gaussian
from core.variational.objectives import ELBO, Objective

MOST_NUMBERS = 1_000_000  # at once, of the leave-one-out sets of all draws


@dataclass(frozen=True)
class PathEverywhere(Path):
    """The path derivative, declared unbiased where it is not: the control that has to fail.

    References:
        Tucker et al., "Doubly Reparameterized Gradient Estimators for Monte Carlo Objectives",
        ICLR 2019 (arXiv:1810.04152), on its bias with several samples.
    """

    unbiased_for: ClassVar[frozenset[Target]] = BOTH


@dataclass(frozen=True, eq=False)
class GradientSample:
    """Independent estimates of one gradient.

    Args:
        values: Of shape ``(draws, parameter)``; a single row is the exact gradient.
    """

    values: Float[Tensor, "draws parameter"]

    @property
    def mean(self) -> Tensor:
        """The mean of each component."""
        return self.values.mean(0)

    @property
    def squared_error(self) -> Tensor:
        """The squared standard error of the mean."""
        if len(self.values) == 1:
            return torch.zeros_like(self.values[0])
        return self.values.var(0) / len(self.values)

    @property
    def total_variance(self) -> float:
        """The variance of an estimate, summed over the components."""
        return float(self.values.var(0).sum()) if len(self.values) > 1 else 0.0

    @property
    def signal_to_noise(self) -> float:
        """The length of the mean over the root of the total variance.

        References:
            Rainforth et al., "Tighter Variational Bounds are Not Necessarily Better", ICML 2018,
            eq. 5 (arXiv:1802.04537), there for each component.
        """
        return float(self.mean.norm()) / self.total_variance**0.5

    def distance(self, other: GradientSample) -> float:
        """Return the largest difference of a component's two means, in standard errors."""
        error = (self.squared_error + other.squared_error).sqrt()
        return float(((self.mean - other.mean).abs() / error.clamp(min=1e-12)).max())


@dataclass(frozen=True, eq=False)
class GaussianProblem:
    """An observation of a linear-Gaussian model, and a posterior that does not fit.

    Args:
        model: The model.
        x: The observation, a batch of one.
        loc: Mean of the posterior.
        log_scale: Logarithm of its scale.
    """

    model: LinearGaussian
    x: Float[Tensor, "1 feature"]
    loc: Float[Tensor, "1 latent"]
    log_scale: Float[Tensor, "1 latent"]

    def gradients(self, objective: Objective, estimator: Estimator, draws: int) -> GradientSample:
        """Return independent gradients of the loss in (loc, log scale)."""
        samples = getattr(objective, "samples", 1)
        at_once = max(1, MOST_NUMBERS // (samples * max(samples, self.loc.shape[1])))
        sizes = [min(at_once, draws - start) for start in range(0, draws, at_once)]
        parts = [self._gradients(objective, estimator, size) for size in sizes]
        return GradientSample(torch.cat(parts))

    def exact_gradient(self) -> GradientSample:
        r"""Return the gradient of the negative ELBO, whose terms are all known.

        .. math:: \mathbb E_q \log p(x \mid z) = \log \mathcal N(x; W \mu + b, s^2) -
            \frac{1}{2 s^2} \sum_j \|W_j\|^2 \sigma_j^2
        """
        loc, log_scale = (part.clone().requires_grad_() for part in (self.loc, self.log_scale))
        model, variance = self.model, (2 * log_scale).exp()
        noise = torch.full_like(self.x, model.scale)
        likelihood = Normal(loc @ model.weight.T + model.bias, noise).log_prob(self.x).sum()
        spread = (model.weight.square().sum(0) * variance).sum() / (2 * model.scale**2)
        posterior = Normal(loc, log_scale.exp())
        prior = Normal(torch.zeros_like(loc), torch.ones_like(loc))
        loss = spread - likelihood + kl_divergence(posterior, prior).sum()
        return GradientSample(torch.cat(torch.autograd.grad(loss, [loc, log_scale]), -1))

    def _gradients(self, objective: Objective, estimator: Estimator, draws: int) -> Tensor:
        loc = self.loc.repeat(draws, 1).requires_grad_()
        log_scale = self.log_scale.repeat(draws, 1).requires_grad_()
        posterior = DiagonalNormal(loc, log_scale.exp())
        prior = DiagonalNormal(torch.zeros_like(loc), torch.ones_like(loc))
        samples = getattr(objective, "samples", 1)
        latent = Latent.draw("z", posterior, prior, samples, estimator)
        mean = latent.value @ self.model.weight.T + self.model.bias
        likelihood = DiagonalNormal(mean, mean.new_tensor(self.model.scale))
        evidence = Evidence({"x": likelihood.log_prob(self.x)}, [latent])
        loss = objective(evidence).loss * draws  # a mean over the batch of draws
        return torch.cat(torch.autograd.grad(loss, [loc, log_scale]), -1)


def misfit() -> GaussianProblem:
    """Return the problem of the self-test: six features, three latents, in float64.

    The posterior is 0.7 exact scales off and 35 % too wide.
    """
    model = small_linear_gaussian()
    x = model.bias + torch.tensor([[1.5, -1.0, 0.5, 2.0, -0.3, 0.8]]).to(model.bias)
    exact = model.exact_posterior(x)
    return GaussianProblem(model, x, exact.loc + 0.7 * exact.scale, exact.scale.log() + 0.3)


def fitted() -> GaussianProblem:
    """Return the problem whose posterior is exact."""
    problem = misfit()
    exact = problem.model.exact_posterior(problem.x)
    return GaussianProblem(problem.model, problem.x, exact.loc, exact.scale.log())


def expectation_gradients(
    family: Callable[[Tensor], Distribution],
    start: Float[Tensor, " parameter"],
    function: Callable[[Tensor], Tensor],
    estimator: Estimator,
    samples: int,
    draws: int,
) -> GradientSample:
    r"""Return independent gradients of an expectation, by way of an objective.

    .. math:: \nabla_\phi \, \mathbb E_{q_\phi} f(z)

    Args:
        family: From parameters ``(draws, parameter)`` to the distribution :math:`q_\phi`.
        start: The parameters :math:`\phi`.
        function: :math:`f`, from values ``(samples, draws, *event)`` to ``(samples, draws)``.
        estimator: How to draw.
        samples: For each gradient.
        draws: Number of gradients.
    """
    leaf = start.repeat(draws, 1).requires_grad_()
    posterior = family(leaf)
    latent = Latent.draw("z", posterior, stop_gradient(posterior), samples, estimator)
    # The objective is the mean of f alone: its KL weighs nothing.
    evidence = Evidence({"f": function(latent.value)}, [latent])
    loss = ELBO(samples=samples, beta=0.0)(evidence).loss
    return GradientSample(-torch.autograd.grad(loss * draws, leaf)[0])


def gamma(concentration: Tensor) -> Independent:
    """Return a Gamma distribution of rate 1 for each row of parameters."""
    return Independent(torch.distributions.Gamma(concentration, torch.ones_like(concentration)), 1)
