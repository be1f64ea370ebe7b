"""The acceptance checks of the objectives, each named after its row of the catalogue of papers."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from digits import DigitsVAE, digits, fit
from torch import Tensor, nn
from torch.distributions import Independent, Normal, OneHotCategorical

from core.variational.distributions import DiagonalNormal
from core.variational.estimators import Enumeration, ScoreFunction, SigmaPoints
from core.variational.evidence import Evidence, Latent
from core.variational.exact import (
    cubature_noise,
    small_dynamics,
    small_linear_gaussian,
    small_two_level,
)
from core.variational.objectives import (
    CUBO,
    DIP,
    ELBO,
    IWAE,
    VIB,
    VIS,
    WAE,
    AutoGen,
    BetaTC,
    Capacity,
    EnergyMAP,
    InfoVAE,
    MultiBeta,
    RateDistortion,
    Renyi,
    elbo_of,
)
from core.variational.structures import Relaxed, masked_event

BUILDERS = pytest.mark.parametrize(
    "build", [small_linear_gaussian, small_two_level, small_dynamics]
)


def given(samples: int = 2, batch: int = 5, dimensions: int = 4) -> Evidence:
    loc, noise = torch.randn(2, batch, dimensions, dtype=torch.float64)
    posterior = DiagonalNormal(loc.requires_grad_(), noise.exp())
    prior = DiagonalNormal(torch.zeros_like(loc), torch.ones_like(loc))
    z = Latent.draw("z", posterior, prior, samples)
    return Evidence({"x": -z.value.square().sum(-1) - 1}, [z])


def log_weights(build: Callable[..., Any], samples: int, repeats: int = 512) -> tuple[Tensor, ...]:
    """Log importance weights less the exact log-likelihood, (samples, example)."""
    model = build(stretch=1.3, shift=0.3)
    x = model.sample(repeats)
    return model.evidence(x, samples).log_joint_ratio() - model.log_evidence(x), x


def mean_and_error(values: Tensor) -> tuple[float, float]:
    return float(values.mean()), float(values.std()) / math.sqrt(values.numel())


@pytest.mark.parametrize("build", [small_linear_gaussian, small_two_level])
def test_s041_the_elbo_of_the_exact_posterior_is_the_log_likelihood(build: Any) -> None:
    model = build()
    x = model.sample(16)
    value = ELBO()(model.evidence_at(x, cubature_noise(model, x))).value
    assert float((value - model.log_evidence(x).mean()).abs()) <= 1e-6


def test_s041_training_reaches_the_log_likelihood() -> None:
    """A free posterior for each datum, trained by sigma points, ends at the exact one."""
    model = small_linear_gaussian()
    x = model.sample(8)
    loc = torch.zeros(8, 3, dtype=torch.float64, requires_grad=True)
    log_scale = torch.zeros(8, 3, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([loc, log_scale], max_iter=200, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        posterior = DiagonalNormal(loc, log_scale.exp())
        prior = DiagonalNormal(torch.zeros_like(loc), torch.ones_like(loc))
        z = Latent.draw("z", posterior, prior, 1, SigmaPoints())
        mean = z.value @ model.weight.T + model.bias
        likelihood = DiagonalNormal(mean, torch.tensor(model.scale, dtype=x.dtype))
        return ELBO()(Evidence({"x": likelihood.log_prob(x)}, [z])).loss

    def closure() -> Tensor:
        optimizer.zero_grad()
        value = loss()
        value.backward()
        return value

    optimizer.step(closure)  # pyright: ignore[reportArgumentType]
    assert abs(float(loss().detach() + model.log_evidence(x).mean())) <= 1e-3


@BUILDERS
def test_s058_iwae_is_never_above_the_log_likelihood_and_grows_with_its_samples(
    build: Any,
) -> None:
    below, below_error = -math.inf, 0.0
    for samples in (1, 5, 50, 1000):
        gaps = torch.logsumexp(log_weights(build, samples, 256)[0], 0) - math.log(samples)
        value, error = mean_and_error(gaps)
        assert value <= 3 * error
        assert value >= below - 3 * (error + below_error)
        below, below_error = value, error
    assert abs(below) <= 0.01


@BUILDERS
def test_s038_the_log_likelihood_lies_between_elbo_and_cubo(build: Any) -> None:
    ratios, _ = log_weights(build, 2000, 64)
    elbo, elbo_error = mean_and_error(ratios.mean(0))
    iwae, iwae_error = mean_and_error(torch.logsumexp(ratios, 0) - math.log(2000))
    cubo, cubo_error = mean_and_error(CUBO(2000).of(ratios))
    assert elbo <= iwae + 3 * iwae_error
    assert elbo < -3 * elbo_error
    assert abs(iwae) <= 0.01 + 3 * iwae_error
    assert cubo > 3 * cubo_error


def test_cubo_reports_a_bound_from_above_and_is_the_log_of_a_mean_power() -> None:
    evidence = given(samples=6)
    loss = CUBO(6, order=2)(evidence)
    weights = evidence.log_joint_ratio().exp()
    torch.testing.assert_close(loss.value, weights.square().mean(0).log().div(2).mean().detach())
    assert loss.bound == "upper"
    assert float(loss.value) >= float(IWAE(6)(evidence).value)


def test_s150_renyi_runs_from_the_elbo_to_iwae_and_never_rises() -> None:
    evidence = given(samples=8)
    values = [float(Renyi(alpha, 8)(evidence).value) for alpha in (-1, 0, 0.5, 0.9, 1, 2, 5)]
    assert values == sorted(values, reverse=True)
    assert values[1] == pytest.approx(float(IWAE(8)(evidence).value), abs=1e-6)
    assert values[4] == pytest.approx(float(evidence.log_joint_ratio().detach().mean()), abs=1e-6)
    near = float(Renyi(1 - 1e-9, 8)(evidence).value)
    assert near == pytest.approx(values[4], abs=1e-5)
    assert Renyi(0.5, 8)(evidence).bound == "lower"
    assert Renyi(-1.0, 8)(evidence).bound == "none"


def test_s150_the_self_normalised_estimate_errs_in_proportion_to_one_over_k() -> None:
    """The gap of the bound at alpha = 0.5 to its limit falls like 1/K."""
    ratios, _ = log_weights(small_linear_gaussian, 4096, 512)
    limit = float(Renyi(0.5, 1).of(ratios).mean())
    gaps = []
    for samples in (8, 32):
        parts = ratios.unflatten(0, (samples, -1))
        gaps.append(limit - float(Renyi(0.5, 1).of(parts).mean()))
    assert gaps[0] / gaps[1] == pytest.approx(4.0, rel=0.25)


class Mixture(nn.Module):
    """Two Gaussians, and a posterior of the component that may not look at the datum."""

    def __init__(self) -> None:
        super().__init__()
        self.means = nn.Parameter(torch.tensor([-0.3, 0.4]))
        self.logits = nn.Parameter(torch.zeros(2))

    def evidence(self, batch: Tensor, samples: int = 1) -> Evidence:
        posterior = OneHotCategorical(logits=self.logits.expand(len(batch), 2))
        prior = OneHotCategorical(logits=torch.zeros(len(batch), 2))
        c = Latent.draw("c", posterior, prior, samples, ScoreFunction("batch"))
        return Evidence({"x": Normal(c.value @ self.means, 0.7).log_prob(batch)}, [c])

    def log_likelihood(self, x: Tensor) -> float:
        parts = Normal(self.means, 0.7).log_prob(x[:, None]) - math.log(2)
        return float(torch.logsumexp(parts, -1).mean().detach())


def test_s038_vis_finds_a_mixture_that_the_elbo_of_the_same_proposal_does_not() -> None:
    torch.manual_seed(3)
    x = torch.cat([torch.randn(300) * 0.7 - 2, torch.randn(300) * 0.7 + 2])
    trained = {}
    for name, objective in (("elbo", ELBO(samples=8)), ("vis", VIS(samples=8))):
        torch.manual_seed(0)
        model = fit(Mixture(), objective, x, 400, learning_rate=0.05)
        trained[name] = model.log_likelihood(x)
    truth = Mixture()
    truth.means.data = torch.tensor([-2.0, 2.0])
    assert trained["vis"] >= trained["elbo"] + 0.5
    assert trained["vis"] >= truth.log_likelihood(x) - 0.05


@pytest.mark.parametrize("reconstructions", [0, 1, 3])
def test_s093_autogen_is_an_elbo_with_more_weight_on_the_likelihood(reconstructions: int) -> None:
    evidence = given()
    loss = AutoGen(reconstructions)(evidence)
    weighted = ELBO(samples=2, weights={"x": 1.0 + reconstructions})(evidence)
    assert float((loss.loss - weighted.loss).detach().abs()) <= 1e-6
    assert float((loss.value - ELBO(samples=2)(evidence).value).abs()) <= 1e-6


def test_s021_info_vae_without_more_than_the_kl_is_the_elbo() -> None:
    evidence = given(samples=3)
    assert float((InfoVAE(0.0, 1.0)(evidence).loss - ELBO()(evidence).loss).detach().abs()) <= 1e-6


def test_info_vae_charges_the_discrepancy_by_its_weight_and_row() -> None:
    loc = torch.randn(1, 6, 2, dtype=torch.float64) + 3
    posterior = DiagonalNormal(loc, torch.ones_like(loc), event_dims=2)
    prior = DiagonalNormal(torch.zeros_like(loc), torch.ones_like(loc), event_dims=2)
    z = Latent.draw("z", posterior, prior, 1)
    graph = Evidence({"x": torch.zeros(1, 1, dtype=torch.float64)}, [z])
    torch.manual_seed(0)
    loss = InfoVAE(0.5, 4.0)(graph)
    distance = float(loss.terms["discrepancy/z"])
    assert distance > 0
    expected = 0.5 * float(z.kl().mean()) + 3.5 * distance
    assert float(loss.loss.detach()) == pytest.approx(expected)
    torch.manual_seed(0)
    half = Evidence({"x": graph.log_likelihood["x"]}, [z])
    assert float(WAE(2.0)(half).loss) == pytest.approx(2 * distance)


def test_s096_dip_decorrelates_where_beta_does_not() -> None:
    """Factors that are correlated in the data: the aggregated covariance of a linear VAE."""
    torch.manual_seed(0)
    factors = torch.randn(2000, 2) @ torch.tensor([[1.0, 0.8], [0.0, 0.6]])
    x = factors @ torch.tensor([[2.0, 0.0, 1.0, 0.0], [0.0, 2.0, 0.0, 1.0]])
    correlations = {}
    for name, objective in (
        ("beta", ELBO(beta=2.0)),
        ("dip", DIP(off_diagonal=50.0, diagonal=5.0)),
    ):
        torch.manual_seed(1)
        model = fit(LinearVAE(4, 2), objective, x, 600, learning_rate=0.02)
        covariance = torch.cov(model.posterior(x).mean.detach().T)
        correlations[name] = float(covariance[0, 1].abs())
    assert correlations["dip"] <= 0.1 * correlations["beta"], correlations


class LinearVAE(nn.Module):
    """Linear on both sides; the encoder starts along the data's axes."""

    def __init__(self, features: int, latent: int) -> None:
        super().__init__()
        self.encoder = nn.Linear(features, latent)
        self.log_scale = nn.Parameter(torch.full((latent,), -1.0))
        self.decoder = nn.Linear(latent, features)
        with torch.no_grad():
            self.encoder.weight.copy_(torch.eye(latent, features) * 0.5)
            self.decoder.weight.copy_(torch.eye(features, latent))

    def posterior(self, batch: Tensor) -> DiagonalNormal:
        return DiagonalNormal(self.encoder(batch), self.log_scale.exp())

    def evidence(self, batch: Tensor, samples: int = 1) -> Evidence:
        posterior = self.posterior(batch)
        prior = DiagonalNormal(torch.zeros_like(posterior.loc), torch.ones(()))
        z = Latent.draw("z", posterior, prior, samples)
        likelihood = DiagonalNormal(self.decoder(z.value), torch.tensor(0.5))
        return Evidence({"x": likelihood.log_prob(batch)}, [z])


class Bottleneck(nn.Module):
    """A class from a code of two dimensions."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = nn.Linear(2, 4), nn.Linear(2, 2)

    def evidence(self, batch: Tensor, samples: int = 1) -> Evidence:
        loc, log_scale = self.encoder(batch[:, :2]).chunk(2, -1)
        posterior = DiagonalNormal(loc, log_scale.exp())
        prior = DiagonalNormal(torch.zeros_like(loc), torch.ones_like(loc))
        z = Latent.draw("z", posterior, prior, samples)
        label = torch.distributions.Categorical(logits=self.decoder(z.value))
        return Evidence({"label": label.log_prob(batch[:, 2].long())}, [z])


def test_s069_the_bottleneck_without_a_price_is_the_cross_entropy() -> None:
    evidence = given()
    loss = VIB(0.0)(evidence)
    cross_entropy = -evidence.log_likelihood["x"].mean()
    assert float((loss.loss - cross_entropy).detach().abs()) <= 1e-6
    assert float((loss.value + cross_entropy).detach().abs()) <= 1e-6
    assert loss.bound == "none"


def test_s069_the_rate_falls_with_its_price() -> None:
    torch.manual_seed(0)
    label = torch.arange(600) % 2
    x = torch.randn(600, 2) + 1.5 * (2 * label[:, None] - 1)
    data = torch.cat([x, label[:, None].float()], -1)
    rates = []
    for beta in (1e-3, 1e-2, 1e-1, 1.0):
        torch.manual_seed(0)
        model = fit(Bottleneck(), VIB(beta), data, 300, learning_rate=0.02)
        rates.append(float(VIB(beta)(model.evidence(data)).terms["kl/z"]))
    assert rates == sorted(rates, reverse=True), rates
    assert rates[0] > 2 * rates[2]


@pytest.mark.slow
@pytest.mark.parametrize("capacity", [2.0, 6.0, 10.0])
def test_s124_the_kl_of_digits_stays_at_its_capacity(capacity: float) -> None:
    torch.manual_seed(0)
    images, _ = digits()
    objective = Capacity(capacity, gamma=20.0)
    model = fit(DigitsVAE(), objective, images, 1500)
    measured = float(objective(model.evidence(images)).terms["kl/z"])
    assert abs(measured - capacity) <= 0.1


def test_capacity_rises_with_its_schedule_and_by_group() -> None:
    from core.variational.schedules import Linear

    evidence = given()
    objective = Capacity(8.0, 3.0, schedule=Linear(0.5), capacities={"z": 4.0})
    loss = objective(evidence, 0.25)
    assert float(loss.terms["capacity/z"]) == pytest.approx(2.0)
    kl = float(evidence.latents[0].kl().detach().mean())
    gain = float(evidence.log_likelihood["x"].detach().mean())
    assert float(loss.loss.detach()) == pytest.approx(3 * abs(kl - 2) - gain)
    with pytest.raises(ValueError, match=r"no latent \['y'\]"):
        Capacity(8.0, 3.0, capacities={"y": 1.0})(evidence)


def test_s115_one_weight_for_all_blocks_is_the_beta_vae() -> None:
    evidence = given()
    single = MultiBeta((3.0,))(evidence).loss
    torch.testing.assert_close(single, ELBO(samples=2, beta=3.0)(evidence).loss)
    per_dimension = evidence.latents[0].kl_per_dimension()
    assert per_dimension is not None
    means = per_dimension.mean((0, 1))
    loss = MultiBeta((1.0, 5.0))(evidence).loss
    expected = means[:2].sum() + 5 * means[2:].sum() - evidence.log_likelihood["x"].mean()
    torch.testing.assert_close(loss, expected)
    with pytest.raises(ValueError, match="4 dimensions; they do not divide into 3 blocks"):
        MultiBeta((1.0, 2.0, 3.0))(evidence)


def test_rate_and_distortion_add_up_to_the_negative_elbo() -> None:
    evidence = given()
    loss = RateDistortion(0.5)(evidence)
    rate, distortion = loss.terms["rate_nats"], loss.terms["distortion_nats"]
    torch.testing.assert_close(loss.loss.detach(), rate + 0.5 * distortion)
    torch.testing.assert_close(loss.value, -rate - distortion)
    torch.testing.assert_close(loss.terms["rate_bits"] * math.log(2), rate)


def test_the_weights_of_beta_tc_at_one_give_the_sampled_elbo() -> None:
    evidence = given(samples=1)
    loss = BetaTC(5, 1.0, 1.0, 1.0)(evidence)
    sampled = -evidence.log_joint_ratio().mean()
    torch.testing.assert_close(loss.loss, sampled)
    more = BetaTC(5, 1.0, 6.0, 1.0)(evidence)
    torch.testing.assert_close(
        (more.loss - loss.loss).detach(), 5 * loss.terms["total_correlation/z"]
    )


def test_an_energy_has_no_kl_and_refuses_latents() -> None:
    point = Evidence({"y": torch.tensor([[-1.0, -3.0]])}, penalties={"prior": torch.ones(2)})
    loss = EnergyMAP()(point)
    assert (float(loss.loss), float(loss.value), loss.bound) == (3.0, -2.0, "none")
    with pytest.raises(ValueError, match=r"latents \['z'\].*use objective 'elbo'"):
        EnergyMAP()(given())


@pytest.mark.parametrize(
    "objective", [InfoVAE(0.0, 10.0), WAE(1.0), BetaTC(100), DIP(1.0, 1.0), DIP(1.0, 1.0, "ii")]
)
def test_a_batch_of_one_has_no_aggregated_posterior(objective: Any) -> None:
    with pytest.raises(ValueError, match=r"1 |2 "):
        objective(given(samples=1, batch=1))


@pytest.mark.parametrize(
    "objective",
    [
        Capacity(1.0, 1.0),
        MultiBeta((1.0,)),
        VIB(1.0),
        RateDistortion(1.0),
        InfoVAE(0.0, 1.0),
        WAE(1.0),
        BetaTC(9),
        DIP(1.0, 1.0),
        IWAE(2),
        Renyi(0.5, 2),
        CUBO(2),
        VIS(2),
    ],
)
def test_an_objective_says_that_it_needs_latents(objective: Any) -> None:
    with pytest.raises(ValueError, match="no latents"):
        objective(Evidence({"image": torch.zeros(objective.samples, 2)}))


def test_what_is_no_density_of_the_data_bounds_nothing() -> None:
    evidence = given()
    distance = Evidence(evidence.log_likelihood, evidence.latents, density=False)
    for objective in (ELBO(samples=2), IWAE(2), CUBO(2), InfoVAE(0.0, 1.0)):
        assert objective(distance).bound == "none"


def test_latents_held_against_no_prior_of_the_model_bound_nothing() -> None:
    evidence = given()
    apart = Evidence(evidence.log_likelihood, evidence.latents, joint=False)
    for objective in (ELBO(samples=2), IWAE(2), CUBO(2), InfoVAE(0.0, 1.0)):
        assert objective(apart).bound == "none"
    assert elbo_of(apart).bound == "none"
    assert elbo_of(evidence).bound == "lower"


def test_weights_that_all_examples_share_have_no_importance_weights() -> None:
    from core.variational.bayesian import RegressionLastLayer

    layer = RegressionLastLayer(3, 1, 10, "dense", 1, 1.0, "fixed", 0.5, 1.0)
    evidence = layer.evidence(torch.randn(4, 3), torch.randn(4, 1))
    with pytest.raises(ValueError, match="belong to all examples"):
        IWAE(1)(evidence)


def test_an_example_with_nothing_observed_is_skipped_and_counted() -> None:
    evidence = given(batch=4)
    seen = torch.tensor([True, False, True, True])
    masked = Evidence(evidence.log_likelihood, evidence.latents, observed=seen)
    loss = ELBO(samples=2)(masked)
    per_example = evidence.log_likelihood["x"].mean(0) - evidence.latents[0].kl().mean(0)
    torch.testing.assert_close(loss.value, per_example[seen].mean().detach())
    assert float(loss.terms["skipped_examples"]) == 1
    weights = evidence.log_joint_ratio()
    torch.testing.assert_close(
        IWAE(2)(masked).value,
        (torch.logsumexp(weights, 0) - math.log(2))[seen].mean().detach(),
    )
    nothing = Evidence(evidence.log_likelihood, evidence.latents, observed=seen & False)
    with pytest.raises(ValueError, match="none of the 4 examples"):
        ELBO()(nothing)


def enumerated_parent() -> Evidence:
    """A code by enumeration, and a child whose KL depends on it."""
    logits = torch.tensor([[0.3, -1.0, 0.8], [1.0, 0.0, -2.0]], dtype=torch.float64)
    prior = OneHotCategorical(logits=0 * logits)
    c = Latent.draw("c", OneHotCategorical(logits=logits), prior, 1, Enumeration())
    loc = c.value @ torch.tensor([[1.0, 0.0], [3.0, 1.0], [-2.0, 5.0]], dtype=torch.float64)
    child = DiagonalNormal(loc, torch.ones_like(loc))
    z = Latent.draw("z", child, DiagonalNormal(0 * loc, torch.ones_like(loc)), len(c.value))
    return Evidence({"x": -z.value.square().sum(-1)}, [c, z])


def test_free_bits_and_blocks_weigh_enumerated_samples_as_the_bound_does() -> None:
    evidence = enumerated_parent()
    plain = ELBO()(evidence).value
    torch.testing.assert_close(ELBO(free_bits=1e-9)(evidence).value, plain)
    only = Evidence(evidence.log_likelihood, evidence.latents[1:])
    weighted = Evidence(
        evidence.log_likelihood,
        [dataclasses.replace(only.latents[0], weights=evidence.sample_weights)],
    )
    torch.testing.assert_close(MultiBeta((1.0, 1.0))(weighted).value, ELBO()(weighted).value)


@pytest.mark.parametrize(
    "objective", [InfoVAE(0.0, 10.0), WAE(1.0), BetaTC(100), DIP(1.0, 1.0), DIP(1.0, 1.0, "ii")]
)
def test_draws_of_unequal_weight_are_no_sample_of_the_aggregate(objective: Any) -> None:
    with pytest.raises(ValueError, match="'enumeration' have unequal weights"):
        objective(enumerated_parent())


@pytest.mark.parametrize("objective", [InfoVAE(0.0, 10.0), WAE(1.0)])
def test_an_unobserved_example_does_not_count_in_the_aggregate(objective: Any) -> None:
    evidence = given(samples=1, batch=4)
    seen = torch.tensor([True, False, True, True])
    (z,) = evidence.latents

    def loss(moved: float) -> Tensor:
        torch.manual_seed(0)
        value = z.value.detach().clone()
        value[:, 1] += moved
        latent = dataclasses.replace(z, value=value)
        return objective(Evidence(evidence.log_likelihood, [latent], observed=seen)).loss

    torch.testing.assert_close(loss(0.0), loss(100.0))
    for strict in (BetaTC(100), DIP(1.0, 1.0)):
        with pytest.raises(ValueError, match="1 examples of the batch have nothing observed"):
            strict(Evidence(evidence.log_likelihood, [z], observed=seen))


def test_an_unknown_or_negative_weight_is_refused_by_every_objective_that_has_weights() -> None:
    with pytest.raises(ValueError, match="no likelihood term 'typo'"):
        AutoGen(1.0, weights={"typo": 3.0})(given())
    for build in (lambda w: AutoGen(1.0, weights=w), lambda w: VIB(1.0, weights=w)):
        with pytest.raises(ValueError, match=r"weights\['x'\] is -1"):
            build({"x": -1.0})
    with pytest.raises(ValueError, match=r"capacities\['z'\] is -2"):
        Capacity(1.0, 1.0, capacities={"z": -2.0})
    assert Capacity(1.0, 1.0, capacities={"capacity": 2.0}).capacities == {"capacity": 2.0}


def test_points_and_relaxed_codes_bound_nothing() -> None:
    loc = torch.zeros(2, 3, dtype=torch.float64)
    q, p = DiagonalNormal(loc, loc + 1), DiagonalNormal(loc, loc + 1)
    points = Latent.draw("z", q, p, 1, SigmaPoints())
    assert ELBO()(Evidence({"x": -points.value.square().sum(-1)}, [points])).bound == "none"
    code = OneHotCategorical(logits=loc)
    for straight, bound in ((False, "none"), (True, "lower")):
        c = Latent.draw("c", code, code, 1, Relaxed(0.7, straight))
        assert ELBO()(Evidence({"x": c.value.sum(-1)}, [c])).bound == bound


def test_a_mask_on_one_side_only_is_refused() -> None:
    loc = torch.zeros(2, 3, dtype=torch.float64)
    q, p = DiagonalNormal(loc, loc + 1), DiagonalNormal(loc, loc + 1)
    masked = masked_event(q, torch.tensor([[True, True, False], [True, False, False]]))
    evidence = Evidence({"x": torch.zeros(1, 2)}, [Latent.draw("z", masked, p, 1)])
    for objective in (ELBO(), IWAE(1)):
        with pytest.raises(ValueError, match="only one of posterior and prior is masked"):
            objective(evidence)


def test_a_log_density_of_the_wrong_shape_names_the_latent() -> None:
    posterior = DiagonalNormal(torch.zeros(3, 2), torch.ones(3, 2))
    prior = Normal(torch.zeros(3, 2), torch.ones(3, 2))
    latent = Latent("z", posterior.rsample((2,)), posterior, prior)
    with pytest.raises(ValueError, match=r"latent 'z'.*prior has shape \(2, 3, 2\)"):
        latent.log_ratio()
    wrong = Independent(Normal(torch.zeros(3, 2), torch.ones(3, 2)), 2)
    with pytest.raises(ValueError, match=r"posterior of latent 'z' has batch shape \(\)"):
        ELBO()(Evidence({"x": torch.zeros(2, 3)}, [Latent("z", latent.value, wrong, wrong)]))
