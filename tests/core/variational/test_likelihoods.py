from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.distributions import Bernoulli, Categorical, Distribution, Laplace, Normal, StudentT

from core.variational.distributions import DiagonalNormal, LogitsBernoulli, stop_gradient
from core.variational.likelihoods import (
    AutoregressiveLikelihood,
    BatchNormal,
    BernoulliLikelihood,
    CategoricalLikelihood,
    DiscretizedLogisticLikelihood,
    DiscretizedLogisticMixtureLikelihood,
    LaplaceLikelihood,
    NormalLikelihood,
    PerceptualLikelihood,
    SigmaVAELikelihood,
    StudentTLikelihood,
    check_support,
    masked_log_prob,
)

FEATURES, OUTPUTS = 3, 4
HEADS: dict[str, Callable[[], Any]] = {
    "bernoulli": lambda: BernoulliLikelihood(FEATURES, OUTPUTS),
    "categorical": lambda: CategoricalLikelihood(FEATURES, OUTPUTS, classes=5),
    "normal": lambda: NormalLikelihood(FEATURES, OUTPUTS, scale=0.7),
    "normal-shared": lambda: NormalLikelihood(FEATURES, OUTPUTS, learned="shared"),
    "normal-each": lambda: NormalLikelihood(FEATURES, OUTPUTS, learned="per_variable"),
    "normal-predicted": lambda: NormalLikelihood(FEATURES, OUTPUTS, learned="predicted"),
    "sigma-vae": lambda: SigmaVAELikelihood(FEATURES, OUTPUTS, momentum=0.1, floor=1e-3),
    "laplace": lambda: LaplaceLikelihood(FEATURES, OUTPUTS, scale=0.7),
    "laplace-each": lambda: LaplaceLikelihood(FEATURES, OUTPUTS, learned=True),
    "laplace-predicted": lambda: LaplaceLikelihood(FEATURES, OUTPUTS, learned="predicted"),
    "student": lambda: StudentTLikelihood(FEATURES, OUTPUTS, freedom=3.0),
    "student-learned": lambda: StudentTLikelihood(
        FEATURES, OUTPUTS, freedom=3.0, learned="predicted", learned_freedom=True
    ),
    "logistic": lambda: DiscretizedLogisticLikelihood(
        FEATURES, OUTPUTS, low=-1, high=1, bins=5, scale=0.3, learned="fixed"
    ),
    "logistic-predicted": lambda: DiscretizedLogisticLikelihood(
        FEATURES, OUTPUTS, low=-1, high=1, bins=5, scale=0.3, learned="predicted"
    ),
    "logistic-mixture": lambda: DiscretizedLogisticMixtureLikelihood(
        FEATURES, OUTPUTS, components=3, low=-1, high=1, bins=5, scale=0.3
    ),
    "autoregressive": lambda: AutoregressiveLikelihood(FEATURES, (2, 2), 1, channels=3),
    "autoregressive-normal": lambda: AutoregressiveLikelihood(
        FEATURES, (OUTPUTS,), 2, channels=3, elements="normal"
    ),
}
FACTORISED = [name for name in HEADS if not name.startswith("autoregressive")]


def data_of(name: str, *batch: int) -> Tensor:
    if name == "categorical":
        return torch.randint(0, 5, (*batch, OUTPUTS))
    if name in ("bernoulli", "autoregressive"):
        shape = (2, 2) if name == "autoregressive" else (OUTPUTS,)
        return torch.bernoulli(torch.full((*batch, *shape), 0.5))
    if name.startswith("logistic"):
        return torch.randint(0, 5, (*batch, OUTPUTS)) / 2 - 1
    return torch.randn(*batch, OUTPUTS)


@pytest.mark.parametrize("name", HEADS)
def test_every_likelihood_gives_nats_per_example_and_reaches_every_parameter(name: str) -> None:
    likelihood, x = HEADS[name](), data_of(name, 6)
    features = torch.randn(7, 6, FEATURES, requires_grad=True)
    log_prob = likelihood(features).log_prob(x)
    assert log_prob.shape == (7, 6)
    assert torch.isfinite(log_prob).all()
    log_prob.mean().backward()
    trained = [each for each in likelihood.parameters() if each.requires_grad]
    for parameter in (*trained, features):
        assert parameter.grad is not None
        assert parameter.grad.abs().sum() > 0


@pytest.mark.parametrize("name", HEADS)
def test_half_precision_features_give_single_precision_densities(name: str) -> None:
    likelihood, x = HEADS[name](), data_of(name, 6)
    features = torch.randn(6, FEATURES)
    full = likelihood(features).log_prob(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = likelihood(features).log_prob(x)
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, full, rtol=0.05, atol=0.2)


@pytest.mark.parametrize("name", HEADS)
def test_single_precision_agrees_with_double(name: str) -> None:
    likelihood, x, features = HEADS[name](), data_of(name, 40), torch.randn(40, FEATURES)
    single = likelihood(features).log_prob(x).mean()
    double = likelihood.double()(features.double()).log_prob(x.double()).mean()
    assert double.dtype == torch.float64
    assert float(single.detach()) == pytest.approx(float(double.detach()), rel=1e-5)


@pytest.mark.parametrize("name", FACTORISED)
def test_the_event_dimensions_of_a_likelihood_may_be_more_than_one(name: str) -> None:
    likelihood = HEADS[name]()
    x, features = data_of(name, 1, 5), torch.randn(1, 5, FEATURES)
    apart = likelihood.eval()(features).log_prob(x)
    likelihood.event_dims = 2
    together = likelihood(features)
    assert together.event_shape == (5, OUTPUTS)
    torch.testing.assert_close(together.log_prob(x), apart.sum(-1))


def test_the_numbers_are_those_of_torchs_distributions() -> None:
    features = torch.randn(6, FEATURES)
    bernoulli, categorical = HEADS["bernoulli"](), HEADS["categorical"]()
    normal, laplace, student = HEADS["normal"](), HEADS["laplace"](), HEADS["student"]()
    scale = torch.tensor(0.7)
    logits = categorical.head(features).view(6, OUTPUTS, 5)
    pairs: list[tuple[str, nn.Module, Distribution]] = [
        ("bernoulli", bernoulli, Bernoulli(logits=bernoulli.head(features))),
        ("categorical", categorical, Categorical(logits=logits)),
        ("normal", normal, Normal(normal.head(features), scale)),
        ("laplace", laplace, Laplace(laplace.head(features), scale)),
        ("student", student, StudentT(3.0, student.head(features))),
    ]
    for name, likelihood, theirs in pairs:
        x = data_of(name, 6)
        expected = theirs.log_prob(x).sum(-1)
        torch.testing.assert_close(likelihood(features).log_prob(x), expected)


def test_the_state_of_a_normal_likelihood_has_the_names_it_always_had() -> None:
    for learned in (True, False, "per_variable", "fixed"):
        state = NormalLikelihood(FEATURES, OUTPUTS, 0.5, learned).state_dict()
        shapes = {name: tuple(value.shape) for name, value in state.items()}
        assert shapes == {
            "log_scale": (OUTPUTS,),
            "head.weight": (OUTPUTS, FEATURES),
            "head.bias": (OUTPUTS,),
        }


def test_a_shared_scale_is_one_parameter_and_a_predicted_one_starts_where_told() -> None:
    assert NormalLikelihood(FEATURES, OUTPUTS, learned="shared").log_scale.shape == ()
    predicted = NormalLikelihood(FEATURES, OUTPUTS, scale=0.3, learned="predicted")
    scale = predicted(torch.randn(5, FEATURES)).scale
    torch.testing.assert_close(scale, torch.full((5, OUTPUTS), 0.3))


def test_a_predicted_scale_finds_a_spread_that_depends_on_the_input() -> None:
    features = torch.randn(4000, 1)
    x = torch.randn(4000, 1) * (0.5 * features).exp()
    likelihood = NormalLikelihood(1, 1, learned="predicted")
    optimizer = torch.optim.Adam(likelihood.parameters(), lr=0.05)
    for _ in range(150):
        optimizer.zero_grad()
        (-likelihood(features).log_prob(x).mean()).backward()
        optimizer.step()
    assert float(likelihood.head.weight.detach()[1, 0]) == pytest.approx(0.5, abs=0.05)
    assert float(likelihood.head.bias.detach()[1]) == pytest.approx(0.0, abs=0.05)


@pytest.mark.parametrize("kind", [LaplaceLikelihood, NormalLikelihood])
def test_the_likeliest_scale_is_the_mean_error_of_the_family(kind: type[Any]) -> None:
    errors = torch.randn(3000, 1, dtype=torch.float64)
    expected = errors.abs().mean() if kind is LaplaceLikelihood else errors.square().mean().sqrt()
    likelihood = kind(1, 1, scale=float(expected), learned="shared").double()
    with torch.no_grad():
        likelihood.head.weight.zero_()
        likelihood.head.bias.zero_()
    likelihood(torch.zeros(3000, 1, dtype=torch.float64)).log_prob(errors).mean().backward()
    gradient = likelihood.log_scale.grad
    assert gradient is not None
    assert float(gradient) == pytest.approx(0.0, abs=1e-6)


def test_learned_freedom_tells_heavy_tails_from_light_ones() -> None:
    found = {}
    for name, x in {
        "heavy": StudentT(2.0).sample((4000, 1)),
        "light": torch.randn(4000, 1),
    }.items():
        likelihood = StudentTLikelihood(1, 1, freedom=5.0, learned="shared", learned_freedom=True)
        optimizer = torch.optim.Adam(likelihood.parameters(), lr=0.05)
        for _ in range(150):
            optimizer.zero_grad()
            (-likelihood(torch.zeros(4000, 1)).log_prob(x).mean()).backward()
            optimizer.step()
        found[name] = float(likelihood.log_freedom.detach().exp())
    assert found["heavy"] == pytest.approx(2.0, rel=0.15)
    assert found["light"] > 20


def test_an_outlier_pulls_less_under_a_student_t_than_under_a_normal() -> None:
    pulls = {}
    for name, likelihood in {
        "normal": NormalLikelihood(1, 1),
        "student": StudentTLikelihood(1, 1, freedom=2.0),
    }.items():
        likelihood(torch.zeros(1, 1)).log_prob(torch.tensor([[100.0]])).sum().backward()
        pulls[name] = float(likelihood.head.bias.grad)
    assert pulls["student"] < 0.001 * pulls["normal"]


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: NormalLikelihood(3, 2, scale=-1.0), "not positive"),
        (lambda: LaplaceLikelihood(3, 2, floor=-0.1), "floor"),
        (lambda: NormalLikelihood(3, 2, learned="each"), "per_variable"),
        (lambda: StudentTLikelihood(3, 2, freedom=math.inf), "NormalLikelihood"),
        (lambda: CategoricalLikelihood(3, 2, classes=1), "at least 2"),
        (lambda: DiscretizedLogisticLikelihood(3, 2, 0, 255, 1, 1.0, "fixed"), "2 bins or more"),
        (lambda: DiscretizedLogisticMixtureLikelihood(3, 2, 0, 0, 255, 256, 1.0), "components=0"),
        (lambda: DiscretizedLogisticMixtureLikelihood(3, 2, 2, 5, 5, 256, 1.0), "low below high"),
        (lambda: SigmaVAELikelihood(3, 2, momentum=0.0, floor=0.1), "momentum"),
        (lambda: AutoregressiveLikelihood(3, (2, 2, 2), 1, 4), "dimensions"),
        (lambda: AutoregressiveLikelihood(3, (2, 2), -1, 4), "receptive_field=-1"),
        (lambda: PerceptualLikelihood(torch.relu, [0.0], 1), "positive"),
    ],
)
def test_a_setting_out_of_range_is_refused_with_its_number(
    build: Callable[[], nn.Module], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        build()


# values on a grid


@pytest.mark.parametrize("name", ["logistic", "logistic-predicted", "logistic-mixture"])
def test_the_probabilities_of_a_grid_sum_to_one(name: str) -> None:
    distribution = HEADS[name]().double()(torch.randn(7, FEATURES).double())
    grid = torch.tensor([-1.0, -0.5, 0.0, 0.5, 1.0]).double()
    values = grid.view(5, 1, 1).expand(5, 7, OUTPUTS)
    masses = masked_log_prob(distribution, values, torch.tensor([True, False, False, False]))
    torch.testing.assert_close(masses.log_prob.detach().exp().sum(0), torch.ones(7).double())


def test_the_location_of_a_discretised_logistic_is_in_the_units_of_the_data() -> None:
    likelihood = DiscretizedLogisticLikelihood(1, 3, 0, 255, 256, 4.0, "fixed")
    with torch.no_grad():
        likelihood.head.weight.zero_()
        likelihood.head.bias.copy_(torch.tensor([-1.0, 0.0, 1.0]))
    distribution = likelihood(torch.zeros(1, 1))
    assert distribution.loc.tolist() == [[0.0, 127.5, 255.0]]
    assert distribution.scale.unique().tolist() == pytest.approx([4.0])


def test_a_mixture_learns_two_peaks_that_one_logistic_cannot() -> None:
    x = torch.where(torch.rand(1000, 1) < 0.5, 2.0, 13.0)
    found = {}
    for components in (1, 2):
        likelihood = DiscretizedLogisticMixtureLikelihood(1, 1, components, 0, 15, 16, scale=2.0)
        optimizer = torch.optim.Adam(likelihood.parameters(), lr=0.05)
        for _ in range(200):
            optimizer.zero_grad()
            loss = -likelihood(torch.zeros(1, 1)).log_prob(x).mean()
            loss.backward()
            optimizer.step()
        found[components] = float(loss.detach())
    assert found[2] == pytest.approx(math.log(2), abs=0.02)
    assert found[1] > 2


# σ-VAE


def test_sigma_vae_has_the_best_scale_and_the_closed_form_value() -> None:
    likelihood, features = HEADS["sigma-vae"]().double(), torch.randn(8, FEATURES).double()
    x = torch.randn(8, OUTPUTS, dtype=torch.float64)
    loc = likelihood.head(features)
    variance = (x - loc).square().mean()
    closed_form = -OUTPUTS / 2 * (torch.log(2 * torch.pi * variance) + 1)
    value = likelihood(features).log_prob(x).mean().detach()
    torch.testing.assert_close(value, closed_form.detach())
    for factor in (0.9, 1.1):
        other = DiagonalNormal(loc, factor * variance.sqrt()).log_prob(x).mean()
        assert float(other.detach()) < float(value)


def test_sigma_vae_has_the_gradient_of_the_closed_form_through_the_scale() -> None:
    x, loc = torch.randn(8, OUTPUTS), torch.randn(8, OUTPUTS, requires_grad=True)
    BatchNormal(loc, torch.ones(()), 1e-3).log_prob(x).mean().backward()
    held = loc.grad
    loc.grad = None
    variance = (x - loc).square().mean()
    (-OUTPUTS / 2 * (torch.log(2 * torch.pi * variance) + 1)).backward()
    torch.testing.assert_close(held, loc.grad)


def test_sigma_vae_in_evaluation_is_a_normal_of_the_scale_seen_in_training() -> None:
    likelihood = SigmaVAELikelihood(FEATURES, OUTPUTS, momentum=0.5, floor=1e-3)
    features = torch.zeros(5000, FEATURES)
    for scale in (3.0, 1.0):
        loc = likelihood.head(features)
        likelihood(features).log_prob(loc.detach() + scale * torch.randn(5000, OUTPUTS))
    evaluated = likelihood.eval()(features)
    assert isinstance(evaluated, DiagonalNormal)
    assert float(evaluated.scale[0, 0]) == pytest.approx(math.sqrt(5.0), rel=0.05)
    likelihood(features).log_prob(torch.zeros(5000, OUTPUTS))
    assert float(likelihood.variance) == pytest.approx(float(evaluated.variance[0, 0]), rel=1e-6)


def test_sigma_vae_never_goes_below_its_floor() -> None:
    loc = torch.zeros(5, 2)
    distribution = BatchNormal(loc, torch.ones(()), floor=0.01)
    expected = DiagonalNormal(loc, torch.tensor(0.01)).log_prob(loc)
    torch.testing.assert_close(distribution.log_prob(loc), expected)


def test_sigma_vae_holds_its_parameters_still_when_told() -> None:
    loc = torch.randn(5, 2, requires_grad=True)
    held = stop_gradient(BatchNormal(loc, torch.ones(()), 0.01))
    assert not held.log_prob(torch.randn(5, 2)).requires_grad


# masks


@pytest.mark.parametrize("name", FACTORISED)
@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_masked_entries_change_neither_value_nor_gradient(name: str, seed: int) -> None:
    torch.manual_seed(seed)
    likelihood, features = HEADS[name](), torch.randn(3, 5, FEATURES)
    x, mask = data_of(name, 5), torch.rand(5, OUTPUTS) < 0.5
    results = []
    for hidden in (0.0, 1.0, math.nan):
        value = x.float().masked_fill(~mask, hidden)
        found = masked_log_prob(likelihood(features), value, mask)
        gradients = torch.autograd.grad(
            found.log_prob.sum(), [each for each in likelihood.parameters() if each.requires_grad]
        )
        results.append((found.log_prob.detach(), *gradients))
        assert int(found.unobserved) == int((~mask.any(-1)).sum())
    for result in results:
        assert all(torch.isfinite(each).all() for each in result)
        for ours, first in zip(result, results[0], strict=True):
            assert torch.equal(ours, first)


@pytest.mark.parametrize("name", [each for each in FACTORISED if each != "sigma-vae"])
def test_a_mask_of_everything_changes_nothing(name: str) -> None:
    likelihood, features, x = HEADS[name](), torch.randn(5, FEATURES), data_of(name, 5)
    found = masked_log_prob(likelihood(features), x, torch.ones(5, OUTPUTS, dtype=torch.bool))
    torch.testing.assert_close(found.log_prob, likelihood(features).log_prob(x))
    assert int(found.unobserved) == 0


def test_the_masked_log_likelihood_is_the_marginal_of_what_was_observed() -> None:
    loc, scale = torch.randn(2, 5, OUTPUTS, dtype=torch.float64)
    x, mask = torch.randn(5, OUTPUTS).double(), torch.tensor([True, False, True, False])
    kept = DiagonalNormal(loc[:, mask], scale.exp()[:, mask]).log_prob(x[:, mask])
    found = masked_log_prob(DiagonalNormal(loc, scale.exp()), x, mask)
    torch.testing.assert_close(found.log_prob, kept)


def test_an_example_without_observations_counts_zero_and_is_counted() -> None:
    x = torch.full((4, OUTPUTS), math.nan)
    x[1] = 0.5
    found = masked_log_prob(DiagonalNormal(torch.zeros(4, OUTPUTS), torch.ones(())), x, ~x.isnan())
    assert found.log_prob.ne(0).tolist() == [False, True, False, False]
    assert int(found.unobserved) == 3


def test_a_distribution_over_elements_says_how_many_one_example_holds() -> None:
    pixels = DiagonalNormal(torch.zeros(3, 2, 2), torch.ones(()), event_dims=0)
    x, mask = torch.randn(3, 2, 2), torch.rand(3, 2, 2) < 0.5
    found = masked_log_prob(pixels, x, mask, event_dims=2)
    expected = masked_log_prob(DiagonalNormal(pixels.loc, torch.ones(()), 2), x, mask)
    torch.testing.assert_close(found.log_prob, expected.log_prob)
    with pytest.raises(ValueError, match="event_dims"):
        masked_log_prob(pixels, x, mask)


def test_sigma_vae_under_a_mask_takes_the_scale_of_what_was_observed() -> None:
    loc, mask = torch.zeros(500, 2), torch.tensor([True, False])
    x = torch.stack([3 * torch.randn(500), torch.full((500,), math.nan)], -1)
    found = masked_log_prob(BatchNormal(loc, torch.ones(()), 1e-3), x, mask)
    spread = x[:, :1].square().mean().sqrt()
    expected = DiagonalNormal(loc[:, :1], spread).log_prob(x[:, :1])
    torch.testing.assert_close(found.log_prob, expected)


def test_what_does_not_factorise_cannot_be_masked() -> None:
    distribution = HEADS["autoregressive"]()(torch.randn(3, FEATURES))
    with pytest.raises(ValueError, match="does not factorise"):
        masked_log_prob(distribution, torch.zeros(3, 2, 2), torch.ones(2, 2, dtype=torch.bool))


# features of a backbone


def backbone() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.Tanh())


def test_a_perceptual_likelihood_is_a_normal_of_the_features_and_bounds_nothing() -> None:
    network = backbone()
    likelihood = PerceptualLikelihood(network, [0.5], event_dims=3)
    reconstruction, x = torch.randn(2, 4, 1, 6, 6), torch.randn(4, 1, 6, 6)
    expected = network(reconstruction.flatten(0, 1)).view(2, 4, -1)
    seen = network(x).view(4, -1)
    theirs = Normal(expected, 0.5).log_prob(seen).sum(-1)
    torch.testing.assert_close(likelihood(reconstruction).log_prob(x), theirs)
    assert likelihood.bound == "none"


def test_a_perceptual_likelihood_leaves_its_backbone_as_it_is() -> None:
    network = backbone()
    likelihood = PerceptualLikelihood(network, [1.0], event_dims=3).train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    reconstruction = torch.randn(4, 1, 6, 6, requires_grad=True)
    likelihood(reconstruction).log_prob(torch.randn(4, 1, 6, 6)).sum().backward()
    assert reconstruction.grad is not None
    assert reconstruction.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in network.parameters())
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_a_plain_function_with_several_layers_may_be_a_backbone() -> None:
    def layers(x: Tensor) -> list[Tensor]:
        return [x, x.cumsum(-1)]

    x, reconstruction = torch.randn(4, 3), torch.randn(4, 3)
    found = PerceptualLikelihood(layers, [1.0, 2.0], 1)(reconstruction).log_prob(x)
    first = DiagonalNormal(reconstruction, torch.ones(())).log_prob(x)
    second = DiagonalNormal(reconstruction.cumsum(-1), torch.tensor(2.0)).log_prob(x.cumsum(-1))
    torch.testing.assert_close(found, first + second)
    with pytest.raises(ValueError, match="3 scales for 2 layers"):
        PerceptualLikelihood(layers, [1.0, 1.0, 1.0], 1)(reconstruction).log_prob(x)


# support


@pytest.mark.parametrize(
    ("kind", "value", "message"),
    [
        ("bernoulli", [0.0, 255.0], r"up to 255; .*\[0, 1\]: divide by 255 or use .*'normal'"),
        ("bernoulli", [0.0, 254.0], "up to 254; .* divide by 255"),
        ("bernoulli", [0.0, 16.0], "divide by 16"),
        ("bernoulli", [-1.0, 1.0], "subtract -1 and divide by 2"),
        ("bernoulli", [0.0, math.nan], "1 of 2 are not finite.*masked_log_prob"),
        ("normal", [0.0, math.inf], "1 of 2 are not finite"),
        ("categorical", [0.0, 0.5], "with fractions"),
        ("categorical", [0.0, 5.0], "0 to 4.*set its classes to 6"),
        ("categorical", [-1.0, 2.0], "renumber"),
    ],
)
def test_data_outside_the_support_are_refused_with_what_to_do(
    kind: str, value: list[float], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        check_support(kind, torch.tensor(value), classes=5, name="pixels")


def test_the_support_is_read_off_a_distribution_too() -> None:
    features = torch.randn(2, FEATURES)
    pixels = torch.full((2, OUTPUTS), 200.0)
    check_support(HEADS["normal"]()(features), pixels)
    check_support(HEADS["student"]()(features), pixels)
    for name in ("bernoulli", "autoregressive"):
        with pytest.raises(ValueError, match="divide by 255"):
            check_support(HEADS[name]()(features), pixels)
    with pytest.raises(ValueError, match="0 to 4"):
        check_support(HEADS["categorical"]()(features), pixels)
    for value in (200.0, 0.3):
        with pytest.raises(ValueError, match=r"8 of them off the grid.*5 values from -1 to 1 in"):
            check_support(HEADS["logistic-mixture"]()(features), torch.full_like(pixels, value))


@pytest.mark.parametrize("name", HEADS)
def test_what_a_likelihood_draws_is_in_its_support(name: str) -> None:
    distribution = HEADS[name]()(torch.randn(3, FEATURES))
    check_support(distribution, distribution.sample((4,)))


def test_only_what_was_observed_is_checked() -> None:
    check_support("bernoulli", torch.tensor([0.5, 300.0]), mask=torch.tensor([True, False]))
    check_support("bernoulli", torch.tensor([300.0]), mask=torch.tensor([False]))


# autoregressive


def depends(likelihood: AutoregressiveLikelihood, shape: tuple[int, ...]) -> Tensor:
    """Return which logits (rows) depend on which values (columns), by autograd's Jacobian."""
    features = torch.randn(FEATURES, dtype=torch.float64)
    distribution = likelihood.double()(features)

    def logits(value: Tensor) -> Tensor:
        given = distribution.given(value.view(shape))
        assert isinstance(given, LogitsBernoulli)
        return given.logits.flatten()

    x = torch.rand(math.prod(shape), dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(logits, x)
    assert isinstance(jacobian, Tensor)
    return jacobian != 0


@pytest.mark.parametrize("shape", [(5, 4), (7,), (1, 3), (3, 1)])
@pytest.mark.parametrize("field", [0, 1, 2, 3, 9])
def test_s119_an_element_sees_exactly_those_before_it_within_the_field(
    shape: tuple[int, ...], field: int
) -> None:
    likelihood = AutoregressiveLikelihood(FEATURES, shape, field, channels=6)
    places = torch.cartesian_prod(*map(torch.arange, (1, *shape)[-2:]))
    apart = (places[:, None] - places[None, :]).abs().amax(-1)
    order = torch.arange(len(places))
    expected = (order[None, :] < order[:, None]) & (apart <= field)
    assert torch.equal(depends(likelihood, shape), expected)


def test_s119_without_a_field_the_decoder_is_the_plain_factorised_one() -> None:
    likelihood = AutoregressiveLikelihood(FEATURES, (2, 2), 0, channels=5)
    plain = BernoulliLikelihood(FEATURES, 4)
    plain.load_state_dict(likelihood.state_dict())
    features, x = torch.randn(7, 3, FEATURES), torch.bernoulli(torch.full((3, 2, 2), 0.5))
    ours = likelihood(features).log_prob(x)
    assert torch.equal(ours, plain(features).log_prob(x.flatten(1)))


def every_image(shape: tuple[int, ...]) -> Tensor:
    pixels = math.prod(shape)
    numbers = torch.arange(2**pixels)
    return (numbers[:, None] >> torch.arange(pixels) & 1).double().view(-1, *shape)


@pytest.mark.parametrize("shape", [(3, 3), (6,)])
def test_autoregressive_probabilities_of_all_images_sum_to_one(shape: tuple[int, ...]) -> None:
    likelihood = AutoregressiveLikelihood(FEATURES, shape, 1, channels=4).double()
    log_prob = likelihood(torch.randn(FEATURES).double()).log_prob(every_image(shape))
    assert float(log_prob.detach().exp().sum()) == pytest.approx(1.0, abs=1e-12)


def test_autoregressive_samples_are_as_frequent_as_their_probability() -> None:
    likelihood = AutoregressiveLikelihood(FEATURES, (2, 2), 1, channels=4)
    with torch.no_grad():
        for parameter in likelihood.parameters():
            parameter.mul_(2)  # far from a fair coin
    distribution = likelihood(torch.randn(FEATURES))
    draws = distribution.sample((20_000,)).flatten(1) @ torch.tensor([1.0, 2.0, 4.0, 8.0])
    counts = torch.bincount(draws.long(), minlength=16) / len(draws)
    probability = distribution.log_prob(every_image((2, 2)).float()).exp()
    error = (probability * (1 - probability) / len(draws)).sqrt()
    assert ((counts - probability).abs() < 4.5 * error).all()


def test_an_autoregressive_normal_learns_the_correlation_a_factorised_one_cannot() -> None:
    noise = torch.randn(2000, 6)
    walk = noise.cumsum(-1)
    found = {}
    for field in (0, 1):
        likelihood = AutoregressiveLikelihood(1, (6,), field, channels=8, elements="normal")
        optimizer = torch.optim.Adam(likelihood.parameters(), lr=0.03)
        for _ in range(200):
            optimizer.zero_grad()
            loss = -likelihood(torch.zeros(1)).log_prob(walk).mean()
            loss.backward()
            optimizer.step()
        found[field] = float(loss.detach())
    exact = 6 * (0.5 * math.log(2 * math.pi) + 0.5)
    assert found[1] == pytest.approx(exact, abs=0.25)
    assert found[0] > found[1] + 2
