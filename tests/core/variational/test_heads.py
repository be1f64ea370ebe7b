from __future__ import annotations

import pytest
import torch

from core.variational.divergences import kl
from core.variational.evidence import Evidence, Latent
from core.variational.likelihoods import BernoulliLikelihood, NormalLikelihood
from core.variational.objectives import ELBO
from core.variational.posteriors import DiagonalNormalPosterior
from core.variational.priors import StandardNormal


def test_a_posterior_head_gives_one_latent_for_each_example() -> None:
    posterior = DiagonalNormalPosterior(7, 3)(torch.randn(5, 7))
    assert (posterior.batch_shape, posterior.event_shape) == ((5,), (3,))
    assert (posterior.scale > 0).all()


def test_a_posterior_head_gives_one_latent_for_each_node_of_a_graph() -> None:
    posterior = DiagonalNormalPosterior(7, 3, event_dims=2)(torch.randn(1, 11, 7))
    assert (posterior.batch_shape, posterior.event_shape) == ((1,), (11, 3))


def test_the_prior_takes_the_shapes_of_the_posterior() -> None:
    posterior = DiagonalNormalPosterior(7, 3, event_dims=2)(torch.randn(1, 11, 7))
    prior = StandardNormal(scale=2.0)(posterior)
    assert (prior.batch_shape, prior.event_shape) == (posterior.batch_shape, posterior.event_shape)
    assert float(prior.scale[0, 0, 0]) == 2.0
    assert kl(posterior, prior)[1]


def test_the_prior_is_centred_with_the_scale_given() -> None:
    posterior = DiagonalNormalPosterior(2, 1)(torch.randn(1, 2))
    draws = StandardNormal(scale=3.0)(posterior).rsample((20_000,))
    assert float(draws.mean()) == pytest.approx(0.0, abs=0.1)
    assert float(draws.std()) == pytest.approx(3.0, rel=0.05)


@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan")])
def test_a_scale_that_is_not_positive_is_refused(scale: float) -> None:
    with pytest.raises(ValueError, match="not positive"):
        StandardNormal(scale)
    with pytest.raises(ValueError, match="not positive"):
        NormalLikelihood(3, 2, scale=scale)


@pytest.mark.parametrize("learned", [True, False])
def test_a_normal_likelihood_learns_its_scale_only_if_told(learned: bool) -> None:
    likelihood = NormalLikelihood(3, 2, scale=0.5, learned=learned)
    distribution = likelihood(torch.randn(4, 5, 3))
    assert distribution.batch_shape == (4, 5)
    torch.testing.assert_close(distribution.scale, torch.full((4, 5, 2), 0.5))
    assert likelihood.log_scale.requires_grad is learned


def test_a_learned_scale_finds_the_spread_of_the_data() -> None:
    torch.manual_seed(0)
    likelihood = NormalLikelihood(1, 1, learned=True)
    data = 3 * torch.randn(2000, 1)
    optimizer = torch.optim.Adam(likelihood.parameters(), lr=0.05)
    for _ in range(200):
        optimizer.zero_grad()
        (-likelihood(torch.zeros(2000, 1)).log_prob(data).mean()).backward()
        optimizer.step()
    assert float(likelihood.log_scale.detach().exp()) == pytest.approx(float(data.std()), rel=0.01)


def test_the_gradient_of_a_plain_model_reaches_every_parameter() -> None:
    head, likelihood = DiagonalNormalPosterior(6, 2), BernoulliLikelihood(2, 6)
    x = torch.ones(4, 6)
    posterior = head(x)
    z = posterior.rsample((3,))
    evidence = Evidence(
        {"x": likelihood(z).log_prob(x)}, [Latent("z", z, posterior, StandardNormal()(posterior))]
    )
    ELBO(samples=3)(evidence).loss.backward()
    for parameter in (*head.parameters(), *likelihood.parameters()):
        assert parameter.grad is not None
        assert parameter.grad.abs().sum() > 0
