from __future__ import annotations

import dataclasses
import math
import pickle
from collections.abc import Mapping

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.distributions import Independent, MultivariateNormal, Normal

from core.variational.distributions import DiagonalNormal
from core.variational.evidence import Evidence, Latent
from core.variational.exact import (
    Exact,
    cubature_noise,
    small_linear_gaussian,
    small_two_level,
)
from core.variational.objectives import ELBO, IWAE, effective_sample_size
from core.variational.schedules import Linear

MODELS = pytest.mark.parametrize("build", [small_linear_gaussian, small_two_level])


def latent(samples: int = 2, batch: int = 3, name: str = "z", spread: float = 1.0) -> Latent:
    loc, noise = torch.randn(2, batch, 4, dtype=torch.float64) * spread
    posterior = DiagonalNormal(loc.requires_grad_(), noise.exp())
    prior = DiagonalNormal(torch.zeros_like(loc), torch.ones_like(loc))
    return Latent(name, posterior.rsample((samples,)), posterior, prior)


def evidence(
    weights: Mapping[str, float] | None = None, samples: int = 2, batch: int = 3
) -> Evidence:
    terms = -torch.rand(2, samples, batch, dtype=torch.float64) - 1
    return Evidence(
        {"edges": terms[0].requires_grad_(), "features": terms[1].requires_grad_()},
        [latent(samples, batch)],
        {"smooth": torch.rand(batch, dtype=torch.float64)},
        weights or {},
    )


def plain_elbo(given: Evidence) -> Tensor:
    likelihood = sum(term.mean() for term in given.log_likelihood.values())
    return likelihood - sum(each.kl().mean() for each in given.latents)


@MODELS
def test_an_exact_posterior_makes_the_elbo_the_log_likelihood(build: type[Exact]) -> None:
    model = build()
    x = model.sample(16)
    value = ELBO()(model.evidence_at(x, cubature_noise(model, x))).value
    assert float((value - model.log_evidence(x).mean()).abs()) <= 1e-6


@MODELS
def test_an_exact_posterior_makes_every_importance_weight_the_same(build: type[Exact]) -> None:
    model = build()
    x = model.sample(16)
    given = model.evidence(x, 7)
    assert float(given.log_joint_ratio().var(0).max()) <= 1e-10
    loss = IWAE(samples=7)(given)
    assert float((loss.value - model.log_evidence(x).mean()).abs()) <= 1e-6
    assert float(loss.terms["effective_sample_size"]) == pytest.approx(7)


@MODELS
def test_the_bound_grows_with_the_samples_up_to_the_log_likelihood(build: type[Exact]) -> None:
    torch.manual_seed(0)
    model = build(stretch=1.3, shift=0.3)
    x = model.sample(256)
    exact = model.log_evidence(x)
    below = ELBO()(model.evidence_at(x, cubature_noise(model, x))).value - exact.mean()
    for samples in (1, 5, 50, 1000):
        log_weights = model.evidence(x, samples).log_joint_ratio() - exact
        gaps = torch.logsumexp(log_weights, 0) - math.log(samples)
        error = float(gaps.std()) / math.sqrt(len(gaps))
        assert float(gaps.mean()) >= float(below) - 3 * error
        assert float(gaps.mean()) <= 3 * error
        below = gaps.mean()
    assert abs(float(below)) <= 0.01


def test_the_gap_of_a_wrong_posterior_is_its_divergence_from_the_true_one() -> None:
    model = small_linear_gaussian(stretch=1.4, shift=0.5)
    x = model.sample(8)
    given = model.evidence_at(x, cubature_noise(model, x))
    gap = model.log_evidence(x).mean() - ELBO()(given).value
    wrong, true = given.latents[0].posterior, model.exact_posterior(x)
    torch.testing.assert_close(gap, torch.distributions.kl_divergence(wrong, true).mean())


@settings(max_examples=25, deadline=None)
@given(
    beta=st.floats(0, 10),
    warmup=st.floats(0, 0.9),
    free_bits=st.floats(0, 3),
    weight=st.floats(0, 10),
    fraction=st.floats(0, 1),
)
def test_no_setting_changes_the_reported_value(
    beta: float, warmup: float, free_bits: float, weight: float, fraction: float
) -> None:
    given = evidence({"features": weight})
    objective = ELBO(2, beta, Linear(warmup), free_bits, {"edges": weight})
    loss = objective(given, fraction)
    torch.testing.assert_close(loss.value, plain_elbo(given).detach())
    assert loss.bound == "lower"
    assert not loss.value.requires_grad


def test_the_plain_loss_is_the_negative_value_and_the_penalties() -> None:
    given = evidence()
    loss = ELBO(samples=2)(given)
    torch.testing.assert_close(loss.loss.detach(), given.penalties["smooth"].mean() - loss.value)
    torch.testing.assert_close(loss.terms["penalty/smooth"], given.penalties["smooth"].mean())
    assert loss.unit == "nats per example"


def test_weights_of_the_settings_multiply_those_of_the_evidence() -> None:
    given = evidence({"edges": 3.0})
    loss = ELBO(samples=2, weights={"edges": 0.5, "features": 4.0})(given)
    edges, features = (term.mean() for term in given.log_likelihood.values())
    expected = given.latents[0].kl().mean() + given.penalties["smooth"].mean()
    torch.testing.assert_close(loss.loss, expected - 1.5 * edges - 4 * features)
    assert float(loss.terms["weight/edges"]) == 1.5
    torch.testing.assert_close(
        loss.terms["weighted_log_likelihood/features"], 4 * features.detach()
    )


@pytest.mark.parametrize(
    ("fraction", "expected"), [(0.0, 0.0), (0.1, 1.0), (0.2, 2.0), (0.4, 4.0), (1.0, 4.0)]
)
def test_beta_rises_over_the_warmup(fraction: float, expected: float) -> None:
    given = evidence()
    loss = ELBO(samples=2, beta=4.0, schedule=Linear(0.4))(given, fraction)
    assert float(loss.terms["beta"]) == pytest.approx(expected)
    plain = ELBO(samples=2, beta=0.0)(given)
    torch.testing.assert_close(loss.loss - plain.loss, expected * given.latents[0].kl().mean())


def test_the_effective_beta_is_the_weight_of_the_kl_over_that_of_the_likelihood() -> None:
    same = ELBO(samples=2, beta=3.0, weights={"edges": 2.0, "features": 2.0})(evidence())
    assert float(same.terms["effective_beta"]) == pytest.approx(1.5)
    given = evidence()
    sizes = [float(term.detach().mean().abs()) for term in given.log_likelihood.values()]
    mixed = ELBO(samples=2, beta=3.0, weights={"edges": 2.0})(given)
    mean_weight = (2 * sizes[0] + sizes[1]) / sum(sizes)
    assert float(mixed.terms["effective_beta"]) == pytest.approx(3 / mean_weight)


def test_free_bits_charge_at_least_their_limit_for_each_dimension() -> None:
    given = evidence()
    means = given.latents[0].kl_per_dimension().mean((0, 1))
    limit = float(means.detach().median())
    loss = ELBO(samples=2, free_bits=limit)(given)
    charged = torch.where(means > limit, means, limit).sum()
    torch.testing.assert_close(loss.terms["kl_with_free_bits/z"], charged.detach())
    torch.testing.assert_close(loss.terms["kl/z"], means.sum().detach())


def test_free_bits_leave_a_dimension_below_them_without_a_gradient() -> None:
    loc = torch.tensor([[0.1, 3.0]], requires_grad=True)
    posterior = DiagonalNormal(loc, torch.ones(1, 2))
    prior = DiagonalNormal(torch.zeros(1, 2), torch.ones(1, 2))
    z = posterior.rsample((1,)).detach()
    given = Evidence({"x": torch.zeros(1, 1)}, [Latent("z", z, posterior, prior)])
    ELBO(free_bits=0.5)(given).loss.backward()
    assert loc.grad is not None
    assert loc.grad.tolist() == [[0.0, 3.0]]


def test_free_bits_take_a_group_that_does_not_factorise_as_a_whole() -> None:
    loc = torch.zeros(3, 4)
    posterior = DiagonalNormal(loc, torch.ones(3, 4))
    prior = MultivariateNormal(loc, 2 * torch.eye(4) + 0.5)
    z = posterior.rsample((2,))
    given = Evidence({"x": torch.zeros(2, 3)}, [Latent("z", z, posterior, prior)])
    loss = ELBO(samples=2, free_bits=100.0)(given)
    assert float(loss.loss) == 100.0
    torch.testing.assert_close(loss.value, -given.latents[0].kl().mean())


def test_free_bits_count_a_latent_dimension_once_for_all_nodes() -> None:
    loc, noise = torch.randn(2, 1, 5, 2)
    posterior = DiagonalNormal(loc, noise.exp(), event_dims=2)
    prior = DiagonalNormal(torch.zeros_like(loc), torch.ones_like(loc), event_dims=2)
    z = posterior.rsample((1,))
    given = Evidence({"x": torch.zeros(1, 1)}, [Latent("z", z, posterior, prior)])
    assert float(ELBO(free_bits=1000.0)(given).loss) == 2000.0


def test_a_closed_form_and_samples_of_it_agree() -> None:
    torch.manual_seed(0)
    loc, noise = torch.randn(2, 3, 4, dtype=torch.float64)
    posterior = DiagonalNormal(loc, noise.exp())
    z = posterior.rsample((20_000,))
    zeros, ones = torch.zeros_like(loc), torch.ones_like(loc)
    terms = {"x": torch.zeros(20_000, 3, dtype=torch.float64)}
    closed = Evidence(terms, [Latent("z", z, posterior, DiagonalNormal(zeros, ones))])
    ratios = closed.latents[0].log_ratio()
    error = float((ratios.std(0) / math.sqrt(20_000)).max())
    assert abs(float(ELBO()(closed).value + ratios.mean())) < 4 * error


def test_a_model_without_latents_has_a_value_and_no_bound() -> None:
    given = Evidence({"image": torch.tensor([[-1.0, -3.0]], requires_grad=True)})
    loss = ELBO(beta=5.0)(given)
    assert (float(loss.value), loss.bound) == (-2.0, "none")
    assert set(loss.terms) == {"log_likelihood/image"}
    loss.loss.backward()


def test_the_value_of_iwae_is_the_bound_in_nats() -> None:
    given = evidence()
    expected = (torch.logsumexp(given.log_joint_ratio(), 0) - math.log(2)).mean()
    loss = IWAE(samples=2)(given)
    torch.testing.assert_close(loss.value, expected.detach())
    torch.testing.assert_close(loss.loss, given.penalties["smooth"].mean() - expected)
    assert loss.bound == "lower"


def test_one_sample_of_iwae_is_the_sampled_elbo() -> None:
    given = evidence(samples=1)
    torch.testing.assert_close(
        IWAE(samples=1)(given).value, given.log_joint_ratio().mean().detach()
    )


def test_weights_of_the_evidence_enter_the_loss_of_iwae_and_not_its_value() -> None:
    given = evidence({"edges": 3.0})
    loss = IWAE(samples=2)(given)
    plain = dataclasses.replace(given, weights={})
    torch.testing.assert_close(loss.value, IWAE(samples=2)(plain).value)
    weighted = given.log_joint_ratio() + 2 * given.log_likelihood["edges"]
    bound = (torch.logsumexp(weighted, 0) - math.log(2)).mean()
    torch.testing.assert_close(loss.loss, given.penalties["smooth"].mean() - bound)
    assert float(loss.terms["weight/edges"]) == 3.0


def test_iwae_refuses_evidence_that_it_cannot_weigh() -> None:
    with pytest.raises(ValueError, match="no latents"):
        IWAE(samples=1)(Evidence({"image": torch.zeros(1, 2)}))
    with pytest.raises(ValueError, match="2 samples in the evidence, expected 50"):
        IWAE(samples=50)(evidence())


@pytest.mark.parametrize(
    "settings",
    [
        {"samples": 0},
        {"beta": -1.0},
        {"beta": float("nan")},
        {"free_bits": -0.1},
        {"weights": {"edges": -1.0}},
        {"weights": {"edges": float("inf")}},
    ],
)
def test_settings_out_of_range_are_refused_when_the_objective_is_built(
    settings: dict[str, object],
) -> None:
    with pytest.raises(ValueError, match=next(iter(settings))):
        ELBO(**settings)


def test_a_weight_of_an_unknown_term_names_those_that_exist() -> None:
    with pytest.raises(ValueError, match=r"no likelihood term 'edge'.*'edges', 'features'"):
        ELBO(weights={"edge": 2.0})(evidence())
    with pytest.raises(ValueError, match="no likelihood term 'tokens'"):
        ELBO()(evidence({"tokens": 2.0}))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"log_likelihood": {}}, "no log-likelihood terms"),
        ({"log_likelihood": {"x": torch.zeros(3)}}, r"'x': \(3,\)"),
        ({"log_likelihood": {"x": torch.zeros(2, 3), "y": torch.zeros(1, 3)}}, r"\(1, 3\)"),
        ({"log_likelihood": {"x": torch.zeros(2, 5)}}, "latent 'z'"),
        ({"penalties": {"smooth": torch.zeros(())}}, "penalty 'smooth'"),
    ],
)
def test_a_wrong_shape_is_named(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ELBO()(dataclasses.replace(evidence(), **change))


def test_nodes_that_were_left_out_of_the_event_are_refused_not_averaged() -> None:
    loc, noise = torch.randn(2, 1, 5, 2)
    posterior = DiagonalNormal(loc, noise.exp())
    z = posterior.rsample((1,))
    given = Evidence({"x": torch.zeros(1, 1)}, [Latent("z", z, posterior, posterior)])
    with pytest.raises(ValueError, match=r"batch shape \(1, 5\).*event_dims"):
        ELBO()(given)


@pytest.mark.parametrize("objective", [ELBO(samples=3), IWAE(samples=3)])
def test_splitting_a_batch_leaves_the_sum_over_examples(objective: ELBO | IWAE) -> None:
    model = small_two_level(stretch=1.2)
    x, noise = model.sample(6), torch.randn(3, 6, model.latent, dtype=torch.float64)
    whole = objective(model.evidence_at(x, noise)).value * 6
    parts = [
        objective(model.evidence_at(x[rows], noise[:, rows])).value * len(x[rows])
        for rows in (slice(0, 2), slice(2, 6))
    ]
    torch.testing.assert_close(sum(parts), whole)


@pytest.mark.parametrize("objective", [ELBO(beta=2.0, free_bits=0.1), IWAE(samples=1)])
def test_the_loss_has_the_gradient_of_finite_differences(objective: ELBO | IWAE) -> None:
    torch.manual_seed(0)
    loc, noise = torch.randn(2, 2, 3, dtype=torch.float64)
    draws = torch.randn(1, 2, 3, dtype=torch.float64)

    def loss(loc: Tensor, log_scale: Tensor) -> Tensor:
        posterior = DiagonalNormal(loc, log_scale.exp())
        prior = DiagonalNormal(torch.zeros_like(loc), torch.ones_like(loc))
        z = posterior.loc + posterior.scale * draws
        likelihood = Independent(Normal(z, 0.5), 1).log_prob(torch.ones(2, 3))
        return objective(Evidence({"x": likelihood}, [Latent("z", z, posterior, prior)])).loss

    assert torch.autograd.gradcheck(loss, (loc.requires_grad_(), noise.requires_grad_()))


def test_single_precision_agrees_with_double() -> None:
    model = small_linear_gaussian(stretch=1.2)
    x, noise = model.sample(32), torch.randn(1, 32, model.latent, dtype=torch.float64)
    double = ELBO()(model.evidence_at(x, noise)).value
    single = ELBO()(model.float().evidence_at(x.float(), noise.float())).value
    assert float((single.double() - double).abs() / double.abs()) <= 1e-5


def test_an_objective_can_be_sent_to_another_process() -> None:
    objective = ELBO(beta=2.0, weights={"edges": 3.0})
    assert pickle.loads(pickle.dumps(objective)) == objective


def test_the_effective_sample_size_counts_the_weights_that_matter() -> None:
    log_weights = torch.tensor([[0.0, 0.0], [0.0, -1000.0], [0.0, -1000.0]])
    assert effective_sample_size(log_weights).tolist() == pytest.approx([3.0, 1.0])
