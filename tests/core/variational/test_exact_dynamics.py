from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor
from torch.distributions import MultivariateNormal, kl_divergence

from core.variational.distributions import DiagonalNormal, stop_gradient
from core.variational.dynamics import (
    GaussMarkov,
    dense,
    sequential_kalman_filter,
    sequential_rts_smoother,
)
from core.variational.exact import LinearDynamicalSystem, small_dynamics
from core.variational.objectives import ELBO, IWAE


def cubature(model: LinearDynamicalSystem, batch: Tensor) -> Tensor:
    """Noise at which the mean of any quadratic is its expectation (Arasaratnam, Haykin 2009)."""
    points = math.sqrt(model.latent) * torch.eye(model.latent).to(batch)
    return torch.cat([points, -points]).unsqueeze(1).expand(-1, len(batch), -1)


def with_gaps(x: Tensor) -> Tensor:
    """Take out a feature, whole steps and a tail."""
    x = x.clone()
    x[0, 1, 2] = x[1, 2:4] = x[2, 4:] = math.nan
    return x


@pytest.mark.parametrize("gaps", [False, True])
def test_filter_and_joint_normal_agree_on_log_p(gaps: bool) -> None:
    model = small_dynamics()
    x = with_gaps(model.sample(8)) if gaps else model.sample(8)
    difference = model.log_evidence(x) - model.dense_log_evidence(x)
    assert difference.abs().max() < 1e-8


def test_samples_of_the_system_have_the_likelihood_it_claims() -> None:
    model = small_dynamics()
    own = model.log_evidence(model.sample(40_000))
    path = dense(model.prior)
    emission = torch.block_diag(*[model.emission] * model.time)
    covariance = emission @ path.covariance_matrix @ emission.T
    covariance = covariance + model.scale.square().repeat(model.time).diag()
    entropy = MultivariateNormal(torch.zeros(15).double(), covariance).entropy()
    # log p of one's own samples has mean -H and, for a Normal, variance half its dimensions.
    assert (own.mean() + entropy).abs() < 4 * math.sqrt(15 / 2 / len(own))


@pytest.mark.parametrize("gaps", [False, True])
def test_exact_posterior_makes_the_elbo_log_p_and_the_weights_constant(gaps: bool) -> None:
    model = small_dynamics()
    x = with_gaps(model.sample(8)) if gaps else model.sample(8)
    exact = model.log_evidence(x)
    elbo = ELBO()(model.evidence_at(x, cubature(model, x))).value
    assert (elbo - exact.mean()).abs() < 1e-6
    log_weights = model.evidence(x, 64).log_joint_ratio()
    assert log_weights.var(0).max() < 1e-10
    assert (log_weights - exact).abs().max() < 1e-6
    assert (IWAE(64)(model.evidence(x, 64)).value - exact.mean()).abs() < 1e-6


def test_path_gradient_of_an_exact_posterior_is_zero_at_every_draw() -> None:
    """Invariant 7: log p(x, z) - log q(z) is constant in z, so nothing flows along the path."""
    model = small_dynamics()
    x = model.sample(4)
    exact = model.exact_posterior(x)
    leaves = [
        each.detach().requires_grad_()
        for each in (exact.transition, exact.offset, exact.scale_tril)
    ]
    path = GaussMarkov(*leaves)
    z = path.rsample((16,))
    joint = DiagonalNormal(z @ model.emission.T + model.offset, model.scale, 2).log_prob(x)
    ratios = joint + model.prior.log_prob(z) - stop_gradient(path).log_prob(z)
    for gradient in torch.autograd.grad(ratios.sum(), leaves):
        assert gradient.abs().max() < 1e-9
    plain = torch.autograd.grad(path.log_prob(path.rsample((16,))).sum(), leaves[2])[0]
    assert plain.abs().max() > 1  # what is left out is not zero


def test_gap_of_a_bent_posterior_is_its_divergence_from_the_exact_one() -> None:
    model = small_dynamics(stretch=1.4, shift=0.5)
    x = with_gaps(model.sample(8))
    elbo = ELBO()(model.evidence_at(x, cubature(model, x))).value
    gap = model.log_evidence(x).mean() - elbo
    divergence = kl_divergence(model.posterior(x), model.exact_posterior(x)).mean()
    assert (gap - divergence).abs() < 1e-8
    assert gap > 1


def test_bent_posterior_is_stretched_and_moved_as_it_says() -> None:
    model = small_dynamics(stretch=1.4, shift=0.5)
    x = model.sample(4)
    exact, bent = dense(model.exact_posterior(x)), dense(model.posterior(x))
    torch.testing.assert_close(bent.covariance_matrix, 1.4**2 * exact.covariance_matrix)
    torch.testing.assert_close(bent.mean, exact.mean + 0.5 * exact.stddev)


def test_bounds_stand_in_their_order_around_log_p() -> None:
    """Invariant 3; the posterior is wider than the exact one, so that the weights are bounded."""
    model = small_dynamics(stretch=1.2, shift=0.15)
    x = model.sample(1).expand(4000, -1, -1)  # repetitions of one sequence, for standard errors
    exact = model.log_evidence(x[:1])
    log_weights = model.evidence(x, 16).log_joint_ratio()

    def iwae(samples: int) -> Tensor:
        return torch.logsumexp(log_weights[:samples], 0) - math.log(samples)

    bounds = [iwae(samples) for samples in (1, 2, 3, 8, 16)]
    for looser, tighter in itertools.pairwise(bounds):
        step = tighter - looser
        assert step.mean() > 3 * step.std() / math.sqrt(len(step))
    assert (exact - bounds[-1].mean()) > 3 * bounds[-1].std() / math.sqrt(len(bounds[-1]))
    squares = (2 * log_weights.flatten() - 2 * exact).exp()
    error = squares.std() / math.sqrt(len(squares))
    assert squares.mean() > 1 + 3 * error  # CUBO_2 - log p is half its logarithm
    # The objectives say the same numbers.
    evidence = model.evidence(x, 16)
    again = evidence.log_joint_ratio()
    expected = (torch.logsumexp(again, 0) - math.log(16)).mean()
    torch.testing.assert_close(IWAE(16)(evidence).value, expected)
    elbo = ELBO(samples=16)(evidence).value
    assert elbo < IWAE(16)(evidence).value < exact


def test_missing_values_are_imputed_as_by_the_smoother() -> None:
    model = small_dynamics()
    x = with_gaps(model.sample(8))
    space, seen = model.state_space, ~x.isnan()
    smoothed = sequential_rts_smoother(space, sequential_kalman_filter(space, x, seen))
    posterior = model.exact_posterior(x)
    torch.testing.assert_close(posterior.mean, smoothed.loc, rtol=0, atol=1e-10)
    torch.testing.assert_close(
        posterior.covariance_matrix, smoothed.covariance, rtol=0, atol=1e-10
    )


def test_sequence_of_nothing_has_log_p_zero_and_the_prior_for_posterior() -> None:
    model = small_dynamics()
    x = torch.full((1, 5, 3), math.nan).double()
    assert model.log_evidence(x).abs() < 1e-12
    assert kl_divergence(model.posterior(x), model.prior).abs() < 1e-12


def test_padding_leaves_the_evidence_of_the_shorter_sequence() -> None:
    """The dynamics carry on after the last value, and integrate to 1."""
    long, short = small_dynamics(), small_dynamics()
    short.time = 3
    x = long.sample(4)
    x[:, 3:] = math.nan
    torch.testing.assert_close(long.log_evidence(x), short.log_evidence(x[:, :3]))
    elbo = ELBO()(long.evidence_at(x, cubature(long, x))).value
    alone = ELBO()(short.evidence_at(x[:, :3], cubature(short, x))).value
    torch.testing.assert_close(elbo, alone)


def test_examples_keep_their_terms_in_another_order_and_in_parts() -> None:
    model = small_dynamics(stretch=1.2, shift=0.3)
    x = with_gaps(model.sample(6))
    noise = torch.randn(4, 6, model.latent).double()
    whole = model.evidence_at(x, noise).log_joint_ratio()
    order = torch.randperm(6)
    shuffled = model.evidence_at(x[order], noise[:, order]).log_joint_ratio()
    torch.testing.assert_close(shuffled, whole[:, order])
    parts = [
        model.evidence_at(x[at], noise[:, at]).log_joint_ratio() for at in (slice(2), slice(2, 6))
    ]
    torch.testing.assert_close(torch.cat(parts, 1), whole)


def test_reversing_a_reversible_stationary_system_leaves_log_p() -> None:
    decay = torch.tensor([0.9, 0.4]).double()
    model = small_dynamics()
    model.initial_loc = torch.zeros(2).double()
    model.initial_tril = torch.eye(2).double()
    model.transition, model.noise_tril = decay.diag(), (1 - decay.square()).sqrt().diag()
    x = model.sample(8)
    torch.testing.assert_close(model.log_evidence(x), model.log_evidence(x.flip(1)))
    elbo, reverse = (
        ELBO()(model.evidence_at(y, cubature(model, y))).value for y in (x, x.flip(1))
    )
    torch.testing.assert_close(elbo, reverse)
    turning = small_dynamics()
    y = turning.sample(8)
    assert not torch.isclose(turning.log_evidence(y), turning.log_evidence(y.flip(1))).any()


def test_likelihood_of_a_system_can_be_trained() -> None:
    model = small_dynamics()
    x = model.sample(64)
    model.transition = torch.zeros(2, 2).double().requires_grad_()
    gradient = torch.autograd.grad(model.log_evidence(x).mean(), model.transition)[0]
    step = 1e-6 * torch.eye(2).double()
    with torch.no_grad():
        moved = []
        for sign in (1, -1):
            model.transition = sign * step
            moved.append(model.log_evidence(x).mean())
    expected = (moved[0] - moved[1]) / 2e-6
    assert float(gradient.trace()) == pytest.approx(float(expected), rel=1e-5)
