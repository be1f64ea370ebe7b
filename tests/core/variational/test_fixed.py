from __future__ import annotations

import contextlib
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.distributions import (
    AffineTransform,
    Bernoulli,
    Beta,
    Categorical,
    Distribution,
    Gamma,
    Independent,
    Laplace,
    LowRankMultivariateNormal,
    MixtureSameFamily,
    MultivariateNormal,
    Normal,
    OneHotCategorical,
    Poisson,
    RelaxedBernoulli,
    RelaxedOneHotCategorical,
    StudentT,
    TransformedDistribution,
    VonMises,
    kl_divergence,
)

from core.variational.distributions import (
    CentredNormal,
    Delta,
    DiagonalNormal,
    DiscretizedLogistic,
    DiscretizedLogisticMixture,
    HypersphericalUniform,
    LogitsBernoulli,
    PowerSpherical,
    UniformConvolvedNormal,
    UnitUniform,
    VonMisesFisher,
    WrappedNormal,
    ZeroInflated,
    categorical_kl,
    stop_gradient,
)

Build = Callable[[Tensor, Tensor], Distribution]
# Of a real parameter and a positive one, both of shape (4, 3).
BUILDERS: dict[str, Build] = {
    "diagonal normal": lambda x, s: DiagonalNormal(x, s),
    "logits Bernoulli": lambda x, s: LogitsBernoulli(x),
    "unit uniform": lambda x, s: UnitUniform(x),
    "uniform-convolved normal": lambda x, s: UniformConvolvedNormal(x, s),
    "wrapped normal": lambda x, s: WrappedNormal(x, s),
    "von Mises-Fisher": lambda x, s: VonMisesFisher(x, s[..., 0]),
    "power spherical": lambda x, s: PowerSpherical(x, s[..., 0]),
    "discretised logistic": lambda x, s: DiscretizedLogistic(x, s, -1, 1, 9),
    "its mixture": lambda x, s: DiscretizedLogisticMixture(x, x, s, -1, 1, 9, event_dims=0),
    "zero-inflated": lambda x, s: ZeroInflated(Poisson(s), x),
    "normal": lambda x, s: Normal(x, s),
    "independent": lambda x, s: Independent(Laplace(x, s), 1),
    "Student": lambda x, s: StudentT(torch.tensor(4.0), x, s),
    "von Mises": lambda x, s: VonMises(x, s),
    "gamma": lambda x, s: Gamma(s, s),
    "beta": lambda x, s: Beta(s, s),
    "Bernoulli": lambda x, s: Bernoulli(logits=x),
    "Bernoulli of probabilities": lambda x, s: Bernoulli(probs=x.sigmoid()),
    "categorical": lambda x, s: Categorical(logits=x),
    "one-hot": lambda x, s: OneHotCategorical(logits=x),
    "relaxed one-hot": lambda x, s: RelaxedOneHotCategorical(torch.tensor(0.5), logits=x),
    "relaxed Bernoulli": lambda x, s: RelaxedBernoulli(torch.tensor(0.5), logits=x),
    "full normal": lambda x, s: MultivariateNormal(x, scale_tril=torch.diag_embed(s)),
    "full normal of covariance": lambda x, s: MultivariateNormal(x, torch.diag_embed(s)),
    "low-rank normal": lambda x, s: LowRankMultivariateNormal(x, s.unsqueeze(-1), s),
    "mixture": lambda x, s: MixtureSameFamily(
        Categorical(logits=x), Independent(Normal(torch.stack([x, s], -1), 1.0), 1)
    ),
}
DERIVED = ("mean", "variance", "covariance_matrix", "precision_matrix", "scale_tril", "probs")
every_family = pytest.mark.parametrize("name", BUILDERS)


def parameters() -> tuple[Tensor, Tensor]:
    loc, noise = torch.randn(2, 4, 3)
    return loc.requires_grad_(), (0.3 * noise).exp().requires_grad_()


@every_family
def test_the_parameters_are_held_fixed_and_the_density_is_the_same(name: str) -> None:
    distribution = BUILDERS[name](*parameters())
    value = distribution.sample(torch.Size((5,)))
    for derived in DERIVED:  # what torch computes on demand is stored beside what was given
        with contextlib.suppress(NotImplementedError):
            getattr(distribution, derived, None)
    fixed = stop_gradient(distribution)
    assert type(fixed) is type(distribution)
    assert (fixed.batch_shape, fixed.event_shape) == (
        distribution.batch_shape,
        distribution.event_shape,
    )
    log_prob = fixed.log_prob(value)
    assert not log_prob.requires_grad
    torch.testing.assert_close(log_prob, distribution.log_prob(value).detach())


@every_family
def test_the_density_still_moves_with_its_value(name: str) -> None:
    distribution = stop_gradient(BUILDERS[name](*parameters()))
    if distribution.has_rsample and not name.startswith("unit"):
        value = distribution.sample().requires_grad_()
        (slope,) = torch.autograd.grad(distribution.log_prob(value).sum(), value)
        assert slope.abs().sum() > 0


def test_a_prior_without_parameters_is_itself() -> None:
    prior = CentredNormal(torch.zeros(4, 3), 2.0)
    assert stop_gradient(prior) is prior
    assert stop_gradient(HypersphericalUniform(torch.zeros(4, 3))).entropy().shape == (4,)
    assert stop_gradient(Delta(torch.ones(3))).mean.tolist() == [1.0, 1.0, 1.0]


def test_a_transformed_distribution_has_to_say_how() -> None:
    shifted = TransformedDistribution(Normal(torch.zeros(3), 1.0), [AffineTransform(1.0, 2.0)])
    with pytest.raises(NotImplementedError, match="TransformedDistribution"):
        stop_gradient(shifted)


def test_a_distribution_without_named_parameters_has_to_say_how() -> None:
    class Nameless(Distribution):
        arg_constraints = {}  # noqa: RUF012

    with pytest.raises(NotImplementedError, match="Nameless"):
        stop_gradient(Nameless(validate_args=False))


def test_the_categorical_kl_of_relaxed_classes_is_that_of_their_logits() -> None:
    logits, others = torch.randn(2, 6, 5, dtype=torch.float64)
    relaxed = RelaxedOneHotCategorical(torch.tensor(0.3).double(), logits=logits)
    prior = OneHotCategorical(logits=others)
    exact = kl_divergence(Categorical(logits=logits), Categorical(logits=others))
    torch.testing.assert_close(categorical_kl(relaxed, prior), exact)
    flat = OneHotCategorical(logits=torch.zeros(5).double())
    assert (categorical_kl(relaxed, flat) <= torch.tensor(5.0).log() + 1e-9).all()
    assert categorical_kl(relaxed, relaxed).abs().max() < 1e-12


def test_the_surrogate_is_less_than_the_relaxed_divergence_which_no_temperature_changes() -> None:
    """By data processing: the class is a function of the relaxed vector. Heat is a bijection."""
    logits = torch.tensor([1.0, -0.5, 0.2], dtype=torch.float64)
    estimates, errors = [], []
    for temperature in (2.0, 0.1):
        heat = torch.tensor(temperature).double()
        posterior = RelaxedOneHotCategorical(heat, logits=logits)
        prior = RelaxedOneHotCategorical(heat, logits=torch.zeros(3).double())
        inner, outer = posterior.base_dist, prior.base_dist  # the same KL, in logs: stable
        value = inner.sample(torch.Size((40_000,)))
        ratios = inner.log_prob(value) - outer.log_prob(value)
        estimates.append(ratios.mean())
        errors.append(ratios.std() / 200)
        assert estimates[-1] - categorical_kl(posterior, prior) > 10 * errors[-1]
    assert abs(estimates[0] - estimates[1]) < 4 * (errors[0].square() + errors[1].square()).sqrt()


def test_other_families_have_no_categorical_kl() -> None:
    one_hot = OneHotCategorical(logits=torch.zeros(3))
    with pytest.raises(ValueError, match="Normal is not one of"):
        categorical_kl(Normal(0.0, 1.0), one_hot)
    with pytest.raises(ValueError, match="3 classes against 4"):
        categorical_kl(one_hot, OneHotCategorical(logits=torch.zeros(4)))
