from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import (
    Distribution,
    Independent,
    OneHotCategorical,
    StudentT,
    TransformedDistribution,
)
from torch.distributions.transforms import AffineTransform

from core.variational.diagnostics import (
    active_units,
    bound_against_samples,
    importance_weighted_log_likelihood,
    latent_use,
    log_importance_weights,
)
from core.variational.diagnostics.estimate import Estimate, t_quantile
from core.variational.distributions import DiagonalNormal
from core.variational.evidence import Evidence, Latent
from core.variational.exact import Exact, small_linear_gaussian, small_two_level
from core.variational.likelihoods import NormalLikelihood


class Identity(nn.Module):
    """The posterior mean is ``strength`` times the data; dropout tells if it is evaluating."""

    def __init__(self, strength: float, event_dims: int = 1, student: bool = False) -> None:
        super().__init__()
        self.strength, self.event_dims, self.student = strength, event_dims, student
        self.dropout = nn.Dropout(0.5)
        self.likelihood = NormalLikelihood(3, 3)
        self.asked: list[int] = []

    def evidence(self, batch: Tensor, samples: int = 1) -> Evidence:
        self.asked.append(samples)
        loc = self.dropout(self.strength * batch)
        ones = torch.ones_like(loc)
        posterior = DiagonalNormal(loc, ones, self.event_dims)
        prior = (
            Independent(StudentT(3.0, 0 * loc, ones), self.event_dims)
            if self.student
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
    assert latent_use(Identity(1.0, student=True), [torch.randn(8, 3)])["z"].kl is None


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


class Given(nn.Module):
    """A model whose posterior and prior are whatever the test makes of the batch."""

    def __init__(self, posterior: Callable[[Tensor], Distribution]) -> None:
        super().__init__()
        self.posterior = posterior
        self.observed: Tensor | None = None

    def evidence(self, batch: Tensor, samples: int = 1) -> Evidence:
        posterior = self.posterior(batch)
        z = posterior.sample(torch.Size([samples]))
        latent = Latent("z", z, posterior, posterior)
        return Evidence({"x": torch.zeros(z.shape[:2])}, [latent], observed=self.observed)


def test_a_posterior_without_a_formula_for_its_mean_is_averaged_over_draws() -> None:
    def flow(x: Tensor) -> Distribution:
        base = DiagonalNormal(x, torch.tensor(0.5))
        return TransformedDistribution(base, [AffineTransform(1.0, 2.0, event_dim=1)])

    x = torch.randn(50, 2) * torch.tensor([1.0, 0.0])
    use = latent_use(Given(flow), [x])["z"]
    expected = (1 + 2 * x).double().var(0)
    # A mean of 1,000 draws of variance 1 adds 0.001.
    torch.testing.assert_close(use.variance, expected + 0.001, rtol=0.05, atol=5e-4)
    assert use.active.tolist() == [True, False]


def test_a_discrete_latent_has_active_units() -> None:
    def posterior(x: Tensor) -> Distribution:
        return OneHotCategorical(logits=x)

    use = latent_use(Given(posterior), [torch.randn(50, 3)])["z"]
    assert use.active_units == 3


def test_examples_of_which_nothing_is_observed_do_not_count() -> None:
    model = Given(lambda x: DiagonalNormal(x, torch.ones(())))
    x = torch.randn(20, 3)
    x[10:] = 100.0
    model.observed = torch.arange(20) < 10
    use = latent_use(model, [x])["z"]
    torch.testing.assert_close(use.variance, x[:10].double().var(0))
    assert use.rows == 10


def test_s058_the_bound_grows_with_the_samples_towards_the_log_likelihood() -> None:
    model = small_linear_gaussian(stretch=1.5, shift=0.5)
    x = model.sample(64)
    curve = bound_against_samples(log_importance_weights(model, x, samples=2000))
    assert [point.samples for point in curve] == [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000]
    values = [point.bound.value for point in curve if isinstance(point.bound, Estimate)]
    assert values[:7] == sorted(values[:7])
    exact = float(model.log_evidence(x).mean())
    assert values[0] < exact - 0.1
    assert values[-1] == pytest.approx(exact, abs=0.01)


def test_the_first_point_of_the_curve_is_the_elbo() -> None:
    model = small_linear_gaussian(stretch=1.5)
    weights = log_importance_weights(model, model.sample(10), samples=100)
    first = bound_against_samples(weights, [1])[0].bound
    assert isinstance(first, Estimate)
    assert first.value == pytest.approx(float(weights.mean()))


@pytest.mark.parametrize("size", [0, 11])
def test_a_bound_of_more_samples_than_there_are_is_refused(size: int) -> None:
    with pytest.raises(ValueError, match=f"a size of {size} with 10 draws"):
        bound_against_samples(torch.zeros(10, 3), [size])


@pytest.mark.parametrize("degrees", [1, 2, 3, 4, 5, 10, 30, 1000])
def test_students_quantile_is_that_of_scipy(degrees: int) -> None:
    stats = pytest.importorskip("scipy.stats")
    assert t_quantile(degrees) == pytest.approx(stats.t.ppf(0.975, degrees), rel=2e-3)


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
