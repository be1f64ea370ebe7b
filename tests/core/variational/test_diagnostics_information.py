from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import (
    Categorical,
    Distribution,
    Independent,
    MultivariateNormal,
    Normal,
    OneHotCategorical,
)

from core.variational.diagnostics import (
    Estimate,
    Information,
    Unavailable,
    aggregated_posterior,
    energy_distance,
    energy_test,
    information,
)
from core.variational.distributions import DiagonalNormal
from core.variational.evidence import Evidence, Latent
from core.variational.exact import small_linear_gaussian, small_two_level


class Channel(nn.Module):
    """What a posterior built from the data and a prior built from the posterior say."""

    def __init__(self, posterior: object, prior: object) -> None:
        super().__init__()
        self.posterior, self.prior = posterior, prior

    def evidence(self, batch: Tensor, samples: int = 1) -> Evidence:
        posterior = self.posterior(batch)  # pyright: ignore[reportCallIssue]
        prior = self.prior(posterior)  # pyright: ignore[reportCallIssue]
        z = posterior.sample((samples,))
        return Evidence(
            {"x": torch.zeros(samples, len(batch))}, [Latent("z", z, posterior, prior)]
        )


def additive(noise: float, event_dims: int = 1) -> Channel:
    """The latent is the data with Normal noise; the prior is standard."""
    return Channel(
        lambda x: DiagonalNormal(x, torch.tensor(noise).to(x), event_dims),
        lambda q: DiagonalNormal(0 * q.loc, torch.ones_like(q.loc), event_dims),
    )


def of(found: dict[str, Information | Unavailable]) -> Information:
    only = found["z"]
    assert isinstance(only, Information)
    return only


def held(estimate: Estimate | Unavailable, truth: float) -> bool:
    assert isinstance(estimate, Estimate)
    assert estimate.interval is not None
    return estimate.interval[0] <= truth <= estimate.interval[1]


@pytest.mark.parametrize("noise", [2.0, 1.0, 0.5])
def test_the_information_of_a_gaussian_channel_is_in_its_interval(noise: float) -> None:
    truth = 2 * 0.5 * math.log(1 + 1 / noise**2)
    hits = [
        held(
            of(information(additive(noise), [torch.randn(500, 2)], seed=seed)).mutual_information,
            truth,
        )
        for seed in range(20)
    ]
    assert sum(hits) >= 18


def test_the_information_of_a_linear_gaussian_model_is_in_its_interval() -> None:
    model = small_linear_gaussian()
    precision = model.weight.square().sum(0) / model.scale**2
    truth = float(0.5 * (1 + precision).log().sum())
    x = model.sample(600)
    found = of(information(model, [x[:400], x[400:]], rows=500))
    assert held(found.mutual_information, truth)
    assert isinstance(found.rate, Estimate)
    assert held(found.rate, truth)  # an exact posterior: q(z) is the prior, and the KL all of it
    assert held(found.marginal_kl, 0.0)
    assert found.rows == 500


def test_the_information_of_a_channel_does_not_depend_on_the_prior() -> None:
    near, far = additive(1.0), additive(1.0)
    far.prior = lambda q: DiagonalNormal(q.loc * 0 + 3.0, torch.ones_like(q.loc))
    x = torch.randn(300, 2)
    a, b = of(information(near, [x])), of(information(far, [x]))
    assert a.mutual_information == b.mutual_information
    # KL(N(0, 2) || N(m, 1)) in two dimensions.
    truth = 2 * (0.5 * (2 + 9 - 1) - 0.5 * math.log(2))
    assert held(b.marginal_kl, truth)


def test_the_marginal_kl_is_the_rate_less_the_information() -> None:
    found = of(information(additive(0.7), [torch.randn(400, 2)]))
    assert isinstance(found.rate, Estimate)
    assert isinstance(found.marginal_kl, Estimate)
    middle = (found.lower.value + found.upper.value) / 2
    assert found.marginal_kl.value == pytest.approx(found.rate.value - middle, abs=1e-9)


@pytest.mark.parametrize("noise", [1.0, 1e-2, 1e-4])
@pytest.mark.parametrize("rows", [4, 40])
def test_the_lower_bound_never_exceeds_the_log_of_the_rows(noise: float, rows: int) -> None:
    found = of(information(additive(noise), [torch.randn(rows, 8)]))
    assert found.lower.value <= math.log(rows) + 1e-9
    assert found.lower.value <= found.upper.value


def test_information_that_the_rows_cannot_show_has_no_value_but_a_reason() -> None:
    found = of(information(additive(1e-3), [torch.randn(50, 16)]))
    assert isinstance(found.mutual_information, Unavailable)
    assert "at least 3.91 nats, and 50 rows show no more than 3.91" in (
        found.mutual_information.reason
    )
    assert isinstance(found.marginal_kl, Unavailable)


def test_a_collapsed_posterior_holds_no_information() -> None:
    model = Channel(
        lambda x: DiagonalNormal(0 * x, torch.ones_like(x)),
        lambda q: DiagonalNormal(q.loc, q.scale),
    )
    found = of(information(model, [torch.randn(100, 3)]))
    assert found.lower.value == pytest.approx(0.0, abs=1e-6)
    assert found.upper.value == pytest.approx(0.0, abs=1e-6)


def test_the_nodes_of_a_graph_are_the_rows() -> None:
    graph = torch.randn(1, 400, 2)
    found = of(information(additive(1.0, event_dims=2), [graph], rows=300))
    assert found.rows == 300
    assert held(found.mutual_information, math.log(2.0))


def _full_normal(x: Tensor) -> Distribution:
    return MultivariateNormal(x, torch.eye(2).to(x))


def _independent(x: Tensor) -> Distribution:
    return Independent(Normal(x, torch.ones_like(x)), 1)


@pytest.mark.parametrize("posterior", [_full_normal, _independent])
def test_other_families_than_the_diagonal_normal_agree_with_it(posterior: object) -> None:
    model = Channel(posterior, lambda q: MultivariateNormal(0 * q.mean, torch.eye(2).to(q.mean)))
    found = of(information(model, [torch.randn(300, 2), torch.randn(200, 2)], rows=500))
    assert held(found.mutual_information, math.log(2.0))
    assert isinstance(found.rate, Estimate)


def test_the_information_of_a_discrete_channel_is_in_its_interval() -> None:
    # A binary symmetric channel with flip probability 0.1.
    def posterior(x: Tensor) -> Distribution:
        return OneHotCategorical(probs=0.1 + 0.8 * torch.nn.functional.one_hot(x, 2).float())

    model = Channel(posterior, lambda q: OneHotCategorical(probs=0 * q.probs + 0.5))
    found = of(information(model, [torch.randint(2, (500,))]))
    truth = math.log(2) + 0.1 * math.log(0.1) + 0.9 * math.log(0.9)
    assert held(found.mutual_information, truth)


def test_a_categorical_index_has_information_too() -> None:
    model = Channel(
        lambda x: Categorical(logits=8 * torch.nn.functional.one_hot(x, 4).float()),
        lambda q: Categorical(logits=torch.zeros_like(q.logits)),
    )
    found = of(information(model, [torch.randint(4, (400,))]))
    assert found.lower.value == pytest.approx(math.log(4), abs=0.1)


def test_a_posterior_given_sampled_parents_has_a_reason_instead() -> None:
    model = small_two_level()
    found = information(model, [model.sample(50)])
    assert isinstance(found["z2"], Information)
    assert isinstance(found["z1"], Unavailable)
    assert "depends on sampled parents" in found["z1"].reason


def test_a_posterior_over_nodes_that_does_not_factorise_has_a_reason() -> None:
    class Joint(MultivariateNormal):
        """Pretends to be over nodes and latents."""

        event_shape = torch.Size([3, 2])

    model = Channel(lambda x: Joint(x, torch.eye(6)), lambda q: q)
    found = information(model, [torch.randn(5, 6)])["z"]
    assert isinstance(found, Unavailable)
    assert "does not factorise into rows" in found.reason


def test_two_rows_are_too_few() -> None:
    found = information(additive(1.0), [torch.randn(2, 3)])["z"]
    assert found == Unavailable("2 rows; at least 3 are needed")


def test_a_conditional_prior_enters_as_its_mixture_over_the_rows() -> None:
    # Posterior and prior are the same for each datum: no KL anywhere, and the same marginals.
    model = Channel(
        lambda x: DiagonalNormal(x, torch.ones_like(x)), lambda q: DiagonalNormal(q.loc, q.scale)
    )
    found = of(information(model, [torch.randn(300, 2)]))
    assert isinstance(found.marginal_kl, Estimate)
    assert found.marginal_kl.value == pytest.approx(0.0, abs=0.02)


def test_the_energy_distance_of_one_sample_with_a_shifted_one_is_that_of_theory() -> None:
    # In one dimension, uniform on [0, 1] and on [2, 3]: 2 * 2 - 1/3 - 1/3.
    x, y = torch.rand(2000, 1), 2 + torch.rand(2000, 1)
    assert energy_distance(x, y) == pytest.approx(4 - 2 / 3, abs=0.05)


def test_the_energy_distance_of_equal_distributions_is_zero_in_expectation() -> None:
    values = torch.tensor([energy_distance(*torch.randn(2, 20, 3)) for _ in range(300)])
    assert abs(float(values.mean())) < 4 * float(values.std()) / math.sqrt(300)


def test_the_p_value_is_uniform_under_the_null_and_small_for_a_shift() -> None:
    null = torch.tensor([energy_test(*torch.randn(2, 30, 2), seed=s).p_value for s in range(100)])
    assert 0.4 < float(null.mean()) < 0.6
    assert float((null <= 0.05).float().mean()) <= 0.12
    shifted = energy_test(torch.randn(100, 2) + 1, torch.randn(100, 2))
    assert shifted.p_value == pytest.approx(1 / 200)
    assert shifted.value > 10 * shifted.floor_95


def test_the_floor_is_that_of_two_samples_of_the_prior() -> None:
    value = energy_test(torch.randn(200, 2), torch.randn(200, 2))
    real = torch.tensor([energy_distance(*torch.randn(2, 200, 2)) for _ in range(100)])
    assert value.floor_95 == pytest.approx(float(real.quantile(0.95)), rel=0.6)


def test_an_exact_posterior_leaves_no_hole_and_a_shifted_one_does() -> None:
    exact, moved = small_linear_gaussian(), small_linear_gaussian(shift=2.0)
    x = exact.sample(300)
    found = [aggregated_posterior(model, [x])["z"] for model in (exact, moved)]
    assert not any(isinstance(each, Unavailable) for each in found)
    values = [each.distance for each in found if not isinstance(each, Unavailable)]
    assert not any(isinstance(each, Unavailable) for each in values)
    p = [each.p_value for each in values if not isinstance(each, Unavailable)]
    assert p[0] > 0.01
    assert p[1] == pytest.approx(1 / 200)


def test_the_points_lie_on_the_axes_of_largest_variance() -> None:
    model = additive(0.1)
    x = torch.randn(400, 3) * torch.tensor([0.1, 3.0, 1.0]) + 5
    found = aggregated_posterior(model, [x])["z"]
    assert not isinstance(found, Unavailable)
    points = torch.tensor(found.points)
    assert points.shape == (400, 2)
    torch.testing.assert_close(points.mean(0), torch.zeros(2), atol=1e-4, rtol=0)
    assert float(points[:, 0].var()) == pytest.approx(9.0, rel=0.2)
    assert float(points[:, 1].var()) == pytest.approx(1.0, rel=0.2)
    assert 0.99 < found.explained <= 1
    assert found.mean == pytest.approx([5.0] * 3, abs=0.6)
    assert isinstance(found.prior_points, list)
    assert torch.tensor(found.prior_points).mean(0).norm() > 4  # the prior is at the origin


def test_one_latent_dimension_has_points_too() -> None:
    found = aggregated_posterior(additive(1.0), [torch.randn(20, 1)])["z"]
    assert not isinstance(found, Unavailable)
    assert all(second == 0.0 for _, second in found.points)
