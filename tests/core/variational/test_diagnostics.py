from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Independent, Laplace

from core.variational.diagnostics import (
    active_units,
    importance_weighted_log_likelihood,
    latent_use,
)
from core.variational.distributions import DiagonalNormal
from core.variational.evidence import Evidence, Latent
from core.variational.exact import Exact, small_linear_gaussian, small_two_level
from core.variational.likelihoods import NormalLikelihood


class Identity(nn.Module):
    """The posterior mean is ``strength`` times the data; dropout tells if it is evaluating."""

    def __init__(self, strength: float, event_dims: int = 1, laplace: bool = False) -> None:
        super().__init__()
        self.strength, self.event_dims, self.laplace = strength, event_dims, laplace
        self.dropout = nn.Dropout(0.5)
        self.likelihood = NormalLikelihood(3, 3)
        self.asked: list[int] = []

    def evidence(self, batch: Tensor, samples: int = 1) -> Evidence:
        self.asked.append(samples)
        loc = self.dropout(self.strength * batch)
        ones = torch.ones_like(loc)
        posterior = DiagonalNormal(loc, ones, self.event_dims)
        prior = (
            Independent(Laplace(0 * loc, ones), self.event_dims)
            if self.laplace
            else DiagonalNormal(0 * loc, ones, self.event_dims)
        )
        z = posterior.rsample((samples,))
        likelihood = self.likelihood(z).log_prob(batch)
        terms = likelihood if self.event_dims == 1 else likelihood.sum(-1)
        return Evidence({"x": terms}, [Latent("z", z, posterior, prior)])


@pytest.mark.parametrize("build", [small_linear_gaussian, small_two_level])
def test_importance_sampling_finds_the_log_likelihood_of_each_example(build: type[Exact]) -> None:
    model = build(stretch=1.3, shift=0.3)
    x = model.sample(16)
    estimate = importance_weighted_log_likelihood(model, x, samples=5000, chunk=700)
    errors = (estimate.log_likelihood - model.log_evidence(x)) / estimate.standard_error
    assert estimate.log_likelihood.shape == (16,)
    assert float(errors.abs().max()) < 4
    assert float(errors.square().mean()) == pytest.approx(1.0, abs=0.9)
    assert (
        (estimate.effective_sample_size > 1000) & (estimate.effective_sample_size < 5000)
    ).all()


def test_an_exact_posterior_needs_no_second_sample() -> None:
    model = small_linear_gaussian()
    x = model.sample(4)
    estimate = importance_weighted_log_likelihood(model, x, samples=2, chunk=1)
    torch.testing.assert_close(estimate.log_likelihood, model.log_evidence(x))
    torch.testing.assert_close(estimate.effective_sample_size, torch.full_like(x[:, 0], 2.0))
    assert float(estimate.standard_error.max()) < 1e-6


def test_the_model_is_asked_once_a_chunk_for_all_examples() -> None:
    model = Identity(1.0)
    importance_weighted_log_likelihood(model, torch.randn(8, 3), samples=25, chunk=10)
    assert model.asked == [10, 10, 5]


@pytest.mark.parametrize(("samples", "chunk"), [(1, 1), (10, 0)])
def test_too_few_samples_are_refused(samples: int, chunk: int) -> None:
    with pytest.raises(ValueError, match=f"samples={samples}, chunk={chunk}"):
        importance_weighted_log_likelihood(Identity(1.0), torch.randn(2, 3), samples, chunk)


def test_no_unit_is_active_in_a_collapsed_model_and_all_are_in_the_identity() -> None:
    batches = [torch.randn(64, 3), torch.randn(32, 3)]
    assert latent_use(Identity(0.0), batches)["z"].active_units == 0
    assert latent_use(Identity(1.0), batches)["z"].active_units == 3


def test_the_variance_over_batches_is_that_of_all_data() -> None:
    batches = [5 + torch.randn(64, 3), torch.randn(7, 3), torch.randn(1, 3)]
    use = latent_use(Identity(1.0), batches)["z"]
    torch.testing.assert_close(use.variance, torch.cat(batches).double().var(0))


def test_the_kl_by_dimension_is_the_mean_over_examples() -> None:
    batches = [torch.randn(8, 3), torch.randn(2, 3)]
    use = latent_use(Identity(1.0), batches)["z"]
    assert use.kl is not None
    torch.testing.assert_close(use.kl, 0.5 * torch.cat(batches).double().square().mean(0))


def test_a_pair_that_does_not_factorise_has_no_kl_by_dimension() -> None:
    assert latent_use(Identity(1.0, laplace=True), [torch.randn(8, 3)])["z"].kl is None


def test_the_nodes_of_a_graph_are_the_data_of_its_units() -> None:
    graph = torch.randn(1, 50, 3)
    graph[..., 0] = 2.0
    use = latent_use(Identity(1.0, event_dims=2), [graph])["z"]
    torch.testing.assert_close(use.variance, graph[0].double().var(0))
    assert use.active.tolist() == [False, True, True]
    assert use.kl is not None
    torch.testing.assert_close(use.kl, 0.5 * graph[0].double().square().sum(0))


def test_a_posterior_that_depends_on_parents_is_averaged_over_them() -> None:
    use = latent_use(small_two_level(), [small_two_level().sample(32)])
    assert use["z1"].variance.shape == use["z2"].variance.shape == (3,)


def test_a_model_without_latents_uses_none() -> None:
    class Deterministic(nn.Module):
        def evidence(self, batch: Tensor, samples: int = 1) -> Evidence:
            return Evidence({"x": batch.sum(-1).expand(samples, -1)})

    assert latent_use(Deterministic(), [torch.randn(4, 3)]) == {}


def test_active_units_are_the_columns_that_vary() -> None:
    means = torch.randn(100, 4) * torch.tensor([1.0, 0.2, 0.05, 0.0])
    assert active_units(means) == 2


LOOKS: list[Callable[[nn.Module, Tensor], object]] = [
    lambda model, x: importance_weighted_log_likelihood(model, x, samples=4, chunk=2),
    lambda model, x: latent_use(model, [x]),
]


@pytest.mark.parametrize("look", LOOKS)
def test_looking_does_not_shift_the_global_random_stream(
    look: Callable[[nn.Module, Tensor], object],
) -> None:
    model, x = Identity(1.0), torch.randn(4, 3)
    torch.manual_seed(5)
    expected = torch.randn(4)
    torch.manual_seed(5)
    look(model, x)
    assert torch.equal(torch.randn(4), expected)


@pytest.mark.parametrize("look", LOOKS)
def test_looking_evaluates_and_leaves_the_model_training(
    look: Callable[[nn.Module, Tensor], object],
) -> None:
    model = Identity(1.0)
    model.likelihood.eval()
    look(model, torch.randn(4, 3))
    assert (model.training, model.dropout.training, model.likelihood.training) == (
        True,
        True,
        False,
    )


def test_dropout_is_off_while_looking() -> None:
    x = torch.randn(64, 3)
    use = latent_use(Identity(1.0), [x])["z"]
    torch.testing.assert_close(use.variance, x.double().var(0))


def test_the_same_seed_gives_the_same_estimate_and_another_one_does_not() -> None:
    model, x = small_linear_gaussian(stretch=1.5), small_linear_gaussian().sample(4)
    one, two, other = (
        importance_weighted_log_likelihood(model, x, samples=8, chunk=8, seed=seed).log_likelihood
        for seed in (0, 0, 1)
    )
    assert torch.equal(one, two)
    assert not torch.equal(one, other)


def test_looking_keeps_no_gradient() -> None:
    estimate = importance_weighted_log_likelihood(Identity(1.0), torch.randn(4, 3), samples=4)
    assert not estimate.log_likelihood.requires_grad
