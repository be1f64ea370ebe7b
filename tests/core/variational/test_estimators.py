from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor
from torch.distributions import (
    Bernoulli,
    Beta,
    Categorical,
    Dirichlet,
    Gamma,
    Independent,
    OneHotCategorical,
)
from torch.nn import functional

from core.variational.distributions import DiagonalNormal, VonMisesFisher, stop_gradient
from core.variational.estimators import (
    BOTH,
    ESTIMATORS,
    VIMCO,
    DoublyReparameterised,
    Enumeration,
    Estimator,
    MeasureValued,
    Path,
    Rejection,
    Reparameterised,
    ScoreFunction,
    SigmaPoints,
    learning_signal,
)
from core.variational.evidence import Evidence, Latent
from core.variational.exact import small_linear_gaussian
from core.variational.objectives import CUBO, ELBO, IWAE, Renyi
from core.variational.posteriors import GumbelSoftmax
from core.variational.schedules import Linear

MODEL = small_linear_gaussian()
torch.manual_seed(5)
X = MODEL.sample(1)
EXACT = MODEL.exact_posterior(X)
# A posterior that is wrong in mean and scale, so that every part of a gradient counts.
LOC = (EXACT.loc + 0.7 * EXACT.scale).detach()
LOG_SCALE = (EXACT.scale.log() + 0.3).detach()


class BiasedSticking(Path):
    """The path derivative where it is biased, for the test that must catch it."""

    unbiased_for: ClassVar[Any] = BOTH


def gradients(objective: Any, estimator: Estimator, draws: int) -> Tensor:
    """One gradient for each draw, of the loss in (loc, log scale): (draws, 6)."""
    loc = LOC.expand(draws, -1).clone().requires_grad_()
    log_scale = LOG_SCALE.expand(draws, -1).clone().requires_grad_()
    posterior = DiagonalNormal(loc, log_scale.exp())
    prior = DiagonalNormal(torch.zeros_like(loc), torch.ones_like(loc))
    latent = Latent.draw("z", posterior, prior, objective.samples, estimator)
    likelihood = DiagonalNormal(
        latent.value @ MODEL.weight.T + MODEL.bias, torch.tensor(MODEL.scale, dtype=X.dtype)
    )
    loss = objective(Evidence({"x": likelihood.log_prob(X)}, [latent])).loss
    return torch.cat(torch.autograd.grad(loss * draws, [loc, log_scale]), -1)


def worst_z(one: Tensor, other: Tensor) -> float:
    """The largest difference of two means in standard errors."""
    error = (one.var(0) / len(one) + other.var(0) / len(other)).sqrt()
    return float(((one.mean(0) - other.mean(0)).abs() / error.clamp(min=1e-12)).max())


def exact_gradient() -> Tensor:
    """The ELBO of this model is quadratic in z: sigma points integrate it without error."""
    return gradients(ELBO(), SigmaPoints(), 2)


@pytest.mark.parametrize(
    ("estimator", "samples"),
    [
        (Reparameterised(), 1),
        (Path(), 1),
        (Path(), 3),
        (DoublyReparameterised(), 2),
        (ScoreFunction("none"), 1),
        (ScoreFunction("batch"), 1),
        (ScoreFunction("leave-one-out"), 4),
        (VIMCO(), 4),
        (MeasureValued(), 1),
        (MeasureValued(), 2),
    ],
)
def test_s051_every_strategy_has_the_mean_gradient_of_the_one_objective(
    estimator: Estimator, samples: int
) -> None:
    measured = gradients(ELBO(samples=samples), estimator, 20_000)
    assert worst_z(measured, exact_gradient()) < 3.5


def test_s051_enumeration_is_the_exact_gradient_and_the_score_agrees_with_it() -> None:
    logits = torch.tensor([0.3, -1.0, 0.8], dtype=torch.float64)
    gain = torch.tensor([-1.0, 0.5, -2.0], dtype=torch.float64)

    def gradient(estimator: Estimator, samples: int, draws: int) -> Tensor:
        leaf = logits.expand(draws, -1).clone().requires_grad_()
        posterior = OneHotCategorical(logits=leaf)
        prior = OneHotCategorical(logits=torch.zeros_like(leaf))
        latent = Latent.draw("c", posterior, prior, samples, estimator)
        loss = ELBO(samples=samples)(Evidence({"x": latent.value @ gain}, [latent])).loss
        return torch.autograd.grad(loss * draws, leaf)[0]

    leaf = logits.clone().requires_grad_()
    probabilities = leaf.softmax(-1)
    elbo = (probabilities * (gain - (3 * probabilities).log())).sum()
    (exact,) = torch.autograd.grad(-elbo, leaf)
    torch.testing.assert_close(gradient(Enumeration(), 1, 2)[0], exact)
    torch.testing.assert_close(gradient(Enumeration(), 3, 1)[0], exact)
    for estimator, samples in ((ScoreFunction(), 1), (ScoreFunction("batch"), 1), (VIMCO(), 3)):
        measured = gradient(estimator, samples, 20_000)
        assert worst_z(measured, exact.expand(2, -1)) < 3.5


def test_a_baseline_takes_variance_away() -> None:
    plain = gradients(ELBO(samples=4), ScoreFunction("none"), 4000).var(0).sum()
    guided = gradients(ELBO(samples=4), VIMCO(), 4000).var(0).sum()
    assert float(guided) < float(plain) / 5


def test_the_path_derivative_has_no_variance_where_the_posterior_is_exact() -> None:
    loc, log_scale = (
        part.expand(50, -1).clone().requires_grad_() for part in (EXACT.loc, EXACT.scale.log())
    )
    posterior = DiagonalNormal(loc, log_scale.exp())
    prior = DiagonalNormal(torch.zeros_like(loc), torch.ones_like(loc))
    for estimator, floor in ((Path(), 0.0), (Reparameterised(), 1e-2)):
        latent = Latent.draw("z", posterior, prior, 1, estimator)
        mean = latent.value @ MODEL.weight.T + MODEL.bias
        terms = DiagonalNormal(mean, torch.tensor(MODEL.scale, dtype=X.dtype)).log_prob(X)
        loss = -(terms - latent.log_ratio()).sum()
        variance = torch.autograd.grad(loss, loc)[0].var(0).max()
        assert float(variance) <= 1e-20 if floor == 0 else float(variance) >= floor


def test_estimators_of_iwae_50_are_unbiased_where_they_say_so_and_sticking_is_not() -> None:
    """The table of research/core.md 6.5: means, and variances far apart."""
    objective = IWAE(samples=50)
    reference = gradients(objective, Reparameterised(), 20_000)
    doubly = gradients(objective, DoublyReparameterised(), 20_000)
    vimco = gradients(objective, VIMCO(), 20_000)
    sticking = gradients(objective, BiasedSticking(), 20_000)
    assert worst_z(doubly, reference) < 3.5
    assert worst_z(vimco, doubly) < 3.5
    assert worst_z(sticking, doubly) > 20
    variances = [float(each.var(0).sum()) for each in (doubly, vimco, reference)]
    assert variances == sorted(variances)
    assert variances[0] <= variances[2] / 100


@dataclass(frozen=True)
class Halfway:
    """An objective in the middle of its warm-up."""

    objective: Any

    @property
    def samples(self) -> int:
        return self.objective.samples

    def __call__(self, evidence: Evidence) -> Any:
        return self.objective(evidence, 0.2)


def test_dreg_stays_unbiased_while_the_weight_of_the_kl_rises() -> None:
    objective = Halfway(IWAE(8, Linear(0.5)))
    reference = gradients(objective, Reparameterised(), 40_000)
    doubly = gradients(objective, DoublyReparameterised(), 40_000)
    assert worst_z(doubly, reference) < 3.5
    assert float(doubly.var(0).sum()) < float(reference.var(0).sum())
    assert worst_z(doubly, gradients(IWAE(8), DoublyReparameterised(), 40_000)) > 10


@pytest.mark.parametrize("objective", [IWAE(5), Renyi(0.5, 5), CUBO(5)])
def test_a_score_with_any_baseline_has_the_gradient_of_the_bound(objective: Any) -> None:
    reference = gradients(objective, Reparameterised(), 40_000)
    for estimator in (VIMCO(), ScoreFunction("leave-one-out")):
        assert worst_z(gradients(objective, estimator, 40_000), reference) < 3.5


def test_dreg_of_one_sample_is_the_path_derivative() -> None:
    torch.manual_seed(1)
    one = gradients(IWAE(samples=1), DoublyReparameterised(), 5)
    torch.manual_seed(1)
    torch.testing.assert_close(one, gradients(ELBO(), Path(), 5))


def test_enumeration_makes_the_importance_weighted_bound_exact() -> None:
    logits = torch.tensor([[0.3, -1.0, 0.8]], dtype=torch.float64)
    likelihoods = torch.tensor([-1.0, 0.5, -2.0], dtype=torch.float64)
    posterior, prior = OneHotCategorical(logits=logits), OneHotCategorical(logits=0 * logits)
    latent = Latent.draw("c", posterior, prior, 1, Enumeration())
    given = Evidence({"x": latent.value @ likelihoods}, [latent])
    exact = torch.logsumexp(likelihoods - math.log(3), 0)
    torch.testing.assert_close(IWAE(samples=1)(given).value, exact)
    estimate = torch.logsumexp(given.log_joint_ratio(), 0) - math.log(3)
    torch.testing.assert_close(estimate[0], exact)
    assert float(ELBO()(given).value) < float(exact)


def test_a_discrete_and_a_continuous_latent_mix() -> None:
    """Gradient of a mixed model by enumeration and reparameterisation against quadrature."""
    logit = torch.tensor([[0.4]], dtype=torch.float64, requires_grad=True)
    loc = torch.zeros(1, 1, dtype=torch.float64, requires_grad=True)
    q_c = OneHotCategorical(logits=torch.cat([logit, 0 * logit], -1))
    q_z = DiagonalNormal(loc, torch.full_like(loc, 0.5))
    p_c = OneHotCategorical(logits=torch.zeros(1, 2, dtype=torch.float64))
    c = Latent.draw("c", q_c, p_c, 4000, Enumeration())
    prior = DiagonalNormal(torch.zeros_like(loc), torch.ones_like(loc))
    z = Latent.draw("z", q_z, prior, len(c.value))
    means = c.value @ torch.tensor([1.0, -1.0], dtype=torch.float64)
    term = -0.5 * (z.value[..., 0] - means).square()
    loss = ELBO()(Evidence({"x": term}, [c, z])).loss
    measured = torch.autograd.grad(loss, [logit, loc], retain_graph=True)
    p = logit.sigmoid()
    expected = 0.5 * (p * ((loc - 1) ** 2 + 0.25) + (1 - p) * ((loc + 1) ** 2 + 0.25))
    divergence = torch.distributions.kl_divergence
    exact = expected.sum() + (divergence(q_c, p_c) + divergence(q_z, prior)).sum()
    for got, wanted in zip(measured, torch.autograd.grad(exact, [logit, loc]), strict=True):
        torch.testing.assert_close(got, wanted, atol=0.02, rtol=0)


def expectation_gradient(
    posterior: Callable[[Tensor], Any],
    start: Tensor,
    function: Callable[[Tensor], Tensor],
    estimator: Estimator,
    draws: int,
) -> Tensor:
    """Gradients of E f in the parameter, a draw each, through the objective's own machinery."""
    leaf = start.expand(draws, *start.shape).clone().requires_grad_()
    q = posterior(leaf)
    latent = Latent.draw("z", q, stop_gradient(q), 1, estimator)
    loss = ELBO(beta=0.0)(Evidence({"f": function(latent.value)}, [latent])).loss
    return -torch.autograd.grad(loss * draws, leaf)[0]


def gamma(alpha: Tensor) -> Independent:
    return Independent(Gamma(alpha, torch.ones_like(alpha)), 1)


@pytest.mark.parametrize("alpha", [0.3, 1.0, 2.5])
def test_s048_the_mean_of_a_gamma_grows_by_one_with_its_shape(alpha: float) -> None:
    start = torch.tensor([alpha], dtype=torch.float64)
    total = expectation_gradient(gamma, start, lambda z: z.sum(-1), Rejection(), 40_000)
    error = total.std() / math.sqrt(len(total))
    assert abs(float(total.mean() - 1)) < 3 * float(error)


def test_s048_rejection_agrees_with_implicit_and_has_a_tenth_of_the_score_s_variance() -> None:
    start = torch.tensor([0.8, 2.0], dtype=torch.float64)

    def square(z: Tensor) -> Tensor:
        return z.square().sum(-1)

    rejection, implicit, score = (
        expectation_gradient(gamma, start, square, estimator, 40_000)
        for estimator in (Rejection(), Reparameterised(), ScoreFunction())
    )
    assert worst_z(rejection, implicit) < 3.5
    assert float(rejection.var(0).sum()) <= 0.1 * float(score.var(0).sum())
    # E z^2 = a (a + 1) for rate 1.
    assert worst_z(rejection, (2 * start + 1).expand(2, -1)) < 3.5


def test_s048_a_dirichlet_is_a_gamma_over_its_sum() -> None:
    start = torch.tensor([0.7, 1.5, 3.0], dtype=torch.float64)
    weight = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    measured = expectation_gradient(Dirichlet, start, lambda z: z @ weight, Rejection(), 40_000)
    leaf = start.clone().requires_grad_()
    (exact,) = torch.autograd.grad(leaf @ weight / leaf.sum(), leaf)
    assert worst_z(measured, exact.expand(2, -1)) < 3.5


@pytest.mark.parametrize("temperature", [0.3, 1.0])
def test_a_relaxed_category_has_a_biased_gradient_and_is_caught(temperature: float) -> None:
    logits = torch.tensor([0.3, -1.0, 0.8], dtype=torch.float64)

    def curved(c: Tensor) -> Tensor:
        return (c @ torch.tensor([1.0, -1.0, 2.0], dtype=c.dtype)).square()

    leaf = logits.expand(20_000, -1).clone().requires_grad_()
    relaxed = GumbelSoftmax(temperature, leaf).rsample()
    (measured,) = torch.autograd.grad(curved(relaxed).sum(), leaf)
    single = logits.clone().requires_grad_()
    exact = single.softmax(-1) @ curved(torch.eye(3, dtype=torch.float64))
    (wanted,) = torch.autograd.grad(exact, single)
    assert worst_z(measured, wanted.expand(2, -1)) > 10


FAMILIES: dict[str, tuple[Callable[[Tensor], Any], list[float]]] = {
    "Normal": (lambda p: DiagonalNormal(p[..., :2], p[..., 2:].exp()), [0.5, -1.0, 0.2, -0.3]),
    "Gamma": (lambda p: Independent(Gamma(p[..., :1].exp(), p[..., 1:].exp()), 1), [0.7, -0.2]),
    "Beta": (lambda p: Independent(Beta(p[..., :1].exp(), p[..., 1:].exp()), 1), [0.7, 0.2]),
    "Dirichlet": (lambda p: Dirichlet(p.exp()), [0.3, 0.9, -0.2]),
    "von Mises-Fisher": (
        lambda p: VonMisesFisher(functional.normalize(p[..., :3], dim=-1), p[..., 3].exp()),
        [0.6, 0.8, 0.1, 1.0],
    ),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_reparameterised_and_score_gradients_have_one_mean(family: str) -> None:
    build, start = FAMILIES[family]
    parameters = torch.tensor(start, dtype=torch.float64)

    def function(z: Tensor) -> Tensor:
        return (z + 0.3 * z.square()).sum(-1) + z[..., 0].sin()

    pathwise, score = (
        expectation_gradient(build, parameters, function, estimator, 30_000)
        for estimator in (Reparameterised(), ScoreFunction("batch"))
    )
    assert worst_z(pathwise, score) < 3.5
    assert float(pathwise.var(0).sum()) < float(score.var(0).sum())


def test_s065_sigma_points_match_mean_and_covariance() -> None:
    posterior = DiagonalNormal(LOC, LOG_SCALE.exp())
    for kappa in (0.0, 1.5):
        drawn = SigmaPoints(kappa).draw(posterior, 1)
        assert drawn.weights is not None
        weights = drawn.weights[..., None]
        mean = (weights * drawn.value).sum(0)
        centred = (drawn.value - mean)[:, 0]
        covariance = (drawn.weights * centred).T @ centred
        torch.testing.assert_close(mean, LOC, atol=1e-6, rtol=0)
        torch.testing.assert_close(
            covariance, torch.diag(posterior.variance[0]), atol=1e-6, rtol=0
        )
        assert float(drawn.weights.sum()) == pytest.approx(1)


def test_s065_sigma_points_of_a_full_covariance_match_it() -> None:
    factor = torch.tensor([[1.0, 0.0], [0.7, 0.4]], dtype=torch.float64)
    posterior = torch.distributions.MultivariateNormal(
        torch.ones(1, 2, dtype=torch.float64), scale_tril=factor
    )
    drawn = SigmaPoints().draw(posterior, 1)
    centred = (drawn.value - 1)[:, 0]
    torch.testing.assert_close(centred.T @ centred / len(centred), factor @ factor.T)


def test_s065_the_loss_over_seeds_varies_less_than_with_random_samples() -> None:
    def losses(estimator: Estimator) -> Tensor:
        values = []
        for seed in range(20):
            torch.manual_seed(seed)
            posterior = DiagonalNormal(LOC, LOG_SCALE.exp())
            latent = Latent.draw(
                "z", posterior, DiagonalNormal(0 * LOC, 0 * LOC + 1), 6, estimator
            )
            mean = torch.tanh(latent.value) @ MODEL.weight.T
            terms = DiagonalNormal(mean, torch.tensor(0.5, dtype=X.dtype)).log_prob(X)
            values.append(ELBO(samples=6)(Evidence({"x": terms}, [latent])).loss)
        return torch.stack(values)

    assert float(losses(SigmaPoints()).var()) == 0
    assert float(losses(Reparameterised()).var()) > 1e-3


@pytest.mark.parametrize(
    ("posterior", "estimator", "message"),
    [
        (Categorical(logits=torch.zeros(2, 3)), Reparameterised(), "no differentiable samples"),
        (DiagonalNormal(torch.zeros(2, 3), torch.ones(2, 3)), Enumeration(), "cannot be enumer"),
        (DiagonalNormal(torch.zeros(2, 3), torch.ones(2, 3)), Rejection(), "must be a Gamma"),
        (Bernoulli(logits=torch.zeros(2)), SigmaPoints(), "must be a Normal"),
        (DiagonalNormal(torch.zeros(1, 9000), torch.ones(())), SigmaPoints(), "18001 points"),
        (DiagonalNormal(torch.zeros(2, 3), torch.ones(2, 3)), VIMCO(), "needs 2 or more"),
    ],
)
def test_a_posterior_that_an_estimator_cannot_draw_from_is_named(
    posterior: Any, estimator: Estimator, message: str
) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        estimator.draw(posterior, 1)
    assert "\n" not in str(caught.value)


def test_objectives_refuse_gradients_that_would_be_biased() -> None:
    with pytest.raises(ValueError, match=r"'path' of latent 'z' is biased.*'dreg'"):
        gradients(IWAE(samples=5), Path(), 3)
    with pytest.raises(ValueError, match="'dreg' is that of the IWAE bound"):
        gradients(Renyi(0.5, 5), DoublyReparameterised(), 3)
    with pytest.raises(ValueError, match="no importance samples"):
        gradients(IWAE(samples=6), SigmaPoints(), 3)


def test_dreg_refuses_a_posterior_that_depends_on_a_sampled_parent() -> None:
    posterior = DiagonalNormal(torch.zeros(5, 2, 3), torch.ones(5, 2, 3))
    latent = Latent.draw("z1", posterior, posterior, 5, DoublyReparameterised())
    with pytest.raises(ValueError, match="'z1' depends on a sampled parent"):
        IWAE(samples=5)(Evidence({"x": torch.zeros(5, 2)}, [latent]))


def test_scores_refuse_penalties_that_they_cannot_learn_from() -> None:
    posterior = DiagonalNormal(torch.zeros(2, 3), torch.ones(2, 3))
    latent = Latent.draw("z", posterior, posterior, 1, ScoreFunction())
    given = Evidence({"x": torch.zeros(1, 2)}, [latent], {"smooth": torch.zeros(2)})
    with pytest.raises(ValueError, match="smooth"):
        ELBO()(given)


def test_a_baseline_without_others_is_refused() -> None:
    with pytest.raises(ValueError, match="1 samples; it needs 2"):
        learning_signal(torch.zeros(1, 3), "leave-one-out")
    with pytest.raises(ValueError, match="1 examples in the batch"):
        learning_signal(torch.zeros(3, 1), "batch")


def test_every_estimator_says_what_it_is_unbiased_for() -> None:
    for kind, estimator in ESTIMATORS.items():
        assert estimator.kind == kind
        assert estimator.unbiased_for <= BOTH
    assert "multi-sample" not in Path.unbiased_for
    assert not SigmaPoints.unbiased_for
