from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.distributions import Distribution, Independent, OneHotCategorical

from core.variational.distributions import DiagonalNormal, stop_gradient
from core.variational.divergences import kl
from core.variational.flows import FLOWS
from core.variational.posteriors import (
    CategoricalPosterior,
    DeltaPosterior,
    DiagonalNormalPosterior,
    FlowPosterior,
    FullNormalPosterior,
    GumbelSoftmax,
    GumbelSoftmaxPosterior,
    LowRankNormalPosterior,
    MixturePosterior,
    NormalMixture,
    Posterior,
    PowerSphericalPosterior,
    UniformPosterior,
    VonMisesFisherPosterior,
)
from core.variational.priors import SphericalUniform, StandardNormal


def posteriors(features: int | None, event_dims: int = 1) -> dict[str, Posterior]:
    made: dict[str, Posterior] = {
        "diagonal": DiagonalNormalPosterior(features, 3, event_dims),
        "low-rank": LowRankNormalPosterior(features, 3, 2, event_dims),
        "full": FullNormalPosterior(features, 3, event_dims),
        "mixture": MixturePosterior(features, 3, 4, 0.1, event_dims),
        "categorical": CategoricalPosterior(features, 3, 1, event_dims),
        "gumbel-softmax": GumbelSoftmaxPosterior(features, 3, 0.5, 1, event_dims),
        "von-mises-fisher": VonMisesFisherPosterior(features, 3, event_dims),
        "power-spherical": PowerSphericalPosterior(features, 3, event_dims),
        "uniform": UniformPosterior(features, 3, event_dims),
        "delta": DeltaPosterior(features, 3, event_dims),
    }
    for kind, row in FLOWS.items():
        if "sample" in row.fast:
            made[kind] = FlowPosterior(features, 3, kind, 2, 4, (8,), event_dims)
    return made


NAMES = list(posteriors(None))
WITHOUT_DENSITY = ("delta", "uniform")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("event_dims", [1, 2])
def test_a_posterior_has_the_shapes_of_its_examples(name: str, event_dims: int) -> None:
    q = posteriors(7, event_dims)[name](torch.randn(5, 4, 7))
    batch, event = ((5, 4), (3,)) if event_dims == 1 else ((5,), (4, 3))
    assert (q.batch_shape, q.event_shape) == (batch, event)
    z = q.rsample((6,)) if q.has_rsample else q.sample((6,))
    assert z.shape == (6, 5, 4, 3)
    log_prob = q.log_prob(z)
    assert log_prob.shape == (6, *batch)
    assert log_prob.isfinite().all()


@pytest.mark.parametrize("name", NAMES)
def test_raw_parameters_of_an_encoder_are_as_good_as_a_head(name: str) -> None:
    torch.manual_seed(3)
    with_head = posteriors(7)[name]
    torch.manual_seed(3)
    without = posteriors(None)[name]
    if isinstance(with_head, FlowPosterior) and isinstance(without, FlowPosterior):
        without.flow.load_state_dict(with_head.flow.state_dict())
    features = torch.randn(5, 7)
    raw = with_head.head(features)
    assert raw.shape[-1] == with_head.size == without.size
    value = with_head(features).sample()
    torch.testing.assert_close(with_head(features).log_prob(value), without(raw).log_prob(value))
    with pytest.raises(ValueError, match=f"must be the {without.size} raw parameters"):
        without(torch.randn(5, without.size + 1))


@pytest.mark.parametrize("name", NAMES)
def test_the_gradient_of_a_samples_density_reaches_every_parameter(name: str) -> None:
    posterior = posteriors(7)[name]
    q = posterior(torch.randn(50, 7))
    z = q.rsample((3,)) if q.has_rsample else q.sample((3,))
    weights = torch.randn(3)
    value = (z * weights).sum(-1).sin()
    (value if name in WITHOUT_DENSITY else value + q.log_prob(z)).sum().backward()
    for label, parameter in posterior.named_parameters():
        assert parameter.grad is not None, label
        assert parameter.grad.isfinite().all(), label
        assert float(parameter.grad.abs().sum()) > 0, label


@pytest.mark.parametrize("name", NAMES)
def test_a_posterior_held_fixed_has_the_same_density_and_no_gradient(name: str) -> None:
    q = posteriors(7, 2)[name](torch.randn(2, 4, 7))
    z = q.sample()
    fixed = stop_gradient(q)
    torch.testing.assert_close(fixed.log_prob(z), q.log_prob(z).detach(), rtol=1e-4, atol=1e-4)
    assert not fixed.log_prob(z).requires_grad
    assert type(fixed) is type(q)


@pytest.mark.parametrize("name", NAMES)
def test_half_precision_parameters_have_single_precision_densities(name: str) -> None:
    if name in FLOWS:
        pytest.skip("the networks inside need autocast")
    posterior = posteriors(None)[name]
    q = posterior(torch.randn(5, posterior.size).bfloat16())
    assert q.log_prob(q.sample()).dtype is torch.float32


REPARAMETERISED = ["diagonal", "low-rank", "full", "mixture", "power-spherical", "nsf", "planar"]


@pytest.mark.parametrize("name", REPARAMETERISED)
def test_the_reparameterised_gradient_is_the_score_functions_in_the_mean(name: str) -> None:
    posterior = posteriors(None)[name].double()
    raw = (0.5 * torch.randn(1, posterior.size, dtype=torch.float64)).requires_grad_()

    def value(z: Tensor) -> Tensor:
        return (z[..., 0] * z[..., 1] + z[..., 2].sin()).squeeze(-1)

    def gradients(pathwise: bool) -> Tensor:
        rows = []
        for _ in range(150):
            q = posterior(raw)
            z = q.rsample((200,)) if pathwise else q.sample((200,))
            each = value(z)
            centred = each - each.detach().mean()
            loss = each.mean() if pathwise else (centred * q.log_prob(z).squeeze(-1)).mean()
            rows.append(torch.autograd.grad(loss, raw)[0].squeeze(0))
        return torch.stack(rows)

    path, score = gradients(True), gradients(False) * 200 / 199
    error = ((path.var(0) + score.var(0)) / 150).sqrt()
    assert float(((path.mean(0) - score.mean(0)) / (error + 1e-12)).abs().max()) < 4


def test_full_and_low_rank_covariances_are_what_their_parameters_say() -> None:
    full = FullNormalPosterior(None, 2)(torch.tensor([[0.3, -0.4, 0.1, 0.2, 0.7]]))
    a, b = (math.log1p(math.exp(x)) + 1e-4 for x in (0.1, 0.2))
    factor = torch.tensor([[a, 0.0], [0.7, b]])
    torch.testing.assert_close(full.covariance_matrix[0], factor @ factor.T)
    raw = torch.randn(1, 8)
    low = LowRankNormalPosterior(None, 2, 2)(raw)
    columns = raw[0, 4:].view(2, 2)
    expected = torch.diag((2 * raw[0, 2:4]).exp()) + columns @ columns.T
    torch.testing.assert_close(low.covariance_matrix[0], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["diagonal", "low-rank", "full", "power-spherical"])
def test_closed_forms_are_used_where_there_are_any(name: str) -> None:
    q = posteriors(7)[name](torch.randn(5, 7))
    prior = SphericalUniform() if name == "power-spherical" else StandardNormal()
    divergence, closed = kl(q, prior(q))
    assert closed
    assert (divergence >= 0).all()


@pytest.mark.parametrize(("kind", "slow"), [("maf", True), ("maf-nsf", True), ("iaf", False)])
def test_a_flow_posterior_refuses_to_sample_slowly_unless_told(kind: str, slow: bool) -> None:
    if slow:
        with pytest.raises(
            ValueError, match=f"FlowPosterior: flow {kind!r} is slow in the sample"
        ):
            FlowPosterior(3, 2, kind, 1, 0, (8,))
    q = FlowPosterior(3, 2, kind, 1, 0, (8,), allow_slow=True)(torch.randn(4, 3))
    assert q.log_prob(q.rsample()).isfinite().all()


def random_mixture(components: int, latent: int, seed: int) -> NormalMixture:
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    return NormalMixture(
        normal(components).requires_grad_(),
        normal(components, latent).requires_grad_(),
        (0.5 + 0.3 * normal(components, latent).abs()).requires_grad_(),
    )


@given(components=st.integers(1, 4), latent=st.integers(1, 4), seed=st.integers(0, 999))
@settings(max_examples=8, deadline=None)
def test_the_slopes_of_a_mixtures_transform_are_those_of_autograd(
    components: int, latent: int, seed: int
) -> None:
    mixture = random_mixture(components, latent, seed)
    torch.manual_seed(seed)
    value = mixture.sample()
    by_autograd = torch.autograd.functional.jacobian(mixture._transform, value)
    torch.testing.assert_close(mixture._slopes(value).detach(), by_autograd)


def test_the_transform_of_a_mixtures_samples_is_uniform() -> None:
    mixture = random_mixture(3, 3, 0)
    uniform = mixture._transform(mixture.sample((20_000,))).detach()
    assert float((uniform.mean(0) - 0.5).abs().max()) < 4 / math.sqrt(12 * 20_000)
    assert float((uniform.var(0) - 1 / 12).abs().max()) < 0.005
    covariance = torch.cov(uniform.T) - torch.diag(uniform.var(0))
    assert float(covariance.abs().max()) < 0.003


def test_a_mixtures_samples_have_the_gradient_of_its_moments() -> None:
    mixture = random_mixture(3, 2, 1)
    parameters = (mixture.logits, mixture.loc, mixture.scale)
    weights = mixture.logits.softmax(0)
    exact = (weights * mixture.loc.prod(-1)).sum()
    exact = exact + (weights.unsqueeze(-1) * (mixture.loc.square() + mixture.scale**2)).sum()
    expected = torch.autograd.grad(exact, parameters, retain_graph=True)
    batches = []
    for _ in range(40):
        z = mixture.rsample((2000,))
        value = (z.prod(-1) + z.square().sum(-1)).mean()
        grads = torch.autograd.grad(value, parameters, retain_graph=True)
        batches.append(torch.cat([gradient.flatten() for gradient in grads]))
    estimates = torch.stack(batches)
    error = estimates.std(0) / math.sqrt(40)
    difference = estimates.mean(0) - torch.cat([each.flatten() for each in expected])
    assert float((difference / error).abs().max()) < 4


def test_one_component_has_the_gradient_of_a_normal() -> None:
    loc = torch.zeros(1, 2, dtype=torch.float64, requires_grad=True)
    scale = torch.full((1, 2), 0.7, dtype=torch.float64, requires_grad=True)
    mixture = NormalMixture(torch.zeros(1, dtype=torch.float64), loc, scale)
    z = mixture.rsample()
    by_loc, by_scale = torch.autograd.grad(z.sum(), (loc, scale))
    torch.testing.assert_close(by_loc, torch.ones_like(loc))
    torch.testing.assert_close(by_scale[0], z.detach() / 0.7)


def test_s075_the_kl_of_a_mixture_by_monte_carlo_is_that_by_quadrature() -> None:
    mixture = random_mixture(3, 1, 2)
    prior = DiagonalNormal(torch.zeros(1).double(), torch.ones(1).double())
    grid = torch.linspace(-15, 15, 20_001, dtype=torch.float64).unsqueeze(-1)
    with torch.no_grad():
        log_q = mixture.log_prob(grid)
        exact = torch.trapezoid(log_q.exp() * (log_q - prior.log_prob(grid)), grid.squeeze(-1))
        z = mixture.sample((50_000,))
        terms, closed = kl(mixture, prior, value=z)
    assert not closed
    assert float((terms.mean() - exact).abs()) < 3 * float(terms.std()) / math.sqrt(50_000)


@given(seed=st.integers(0, 999), floor=st.floats(0.0, 0.5))
@settings(max_examples=15, deadline=None)
def test_s075_no_component_is_narrower_than_its_part_of_the_spread(
    seed: int, floor: float
) -> None:
    torch.manual_seed(seed)
    posterior = MixturePosterior(None, 2, 3, floor)
    raw = 5 * torch.randn(4, posterior.size)
    raw[:, 9:] -= 20  # scales that collapse
    q = posterior(raw)
    assert isinstance(q, NormalMixture)
    weights = q.logits.softmax(-1).unsqueeze(-1)
    centre = (weights * q.loc).sum(-2, keepdim=True)
    spread = (weights * (q.loc - centre).square()).sum(-2, keepdim=True).sqrt()
    assert (q.scale >= floor * spread * (1 - 1e-5)).all()


def test_relaxed_codes_become_one_hot_as_the_temperature_falls() -> None:
    logits = torch.tensor([0.2, 1.0, -0.5])
    between = []
    for temperature in (1.0, 0.3, 0.05, 0.005):
        draws = GumbelSoftmax(temperature, logits).rsample((4000,))
        torch.testing.assert_close(draws.sum(-1), torch.ones(4000), rtol=1e-4, atol=0)
        counts = torch.bincount(draws.argmax(-1), minlength=3) / 4000
        assert float((counts - logits.softmax(0)).abs().max()) < 0.04
        between.append(float(((draws > 0.01) & (draws < 0.99)).any(-1).float().mean()))
    assert between == sorted(between, reverse=True)
    assert between[-1] < 0.03


def test_a_relaxed_code_that_underflows_has_a_finite_density() -> None:
    q = GumbelSoftmax(0.05, torch.tensor([0.0, 30.0]))
    z = q.rsample((100,))
    assert bool((z == 0).any())
    assert q.log_prob(z).isfinite().all()


def test_several_categorical_variables_are_one_more_event_dimension() -> None:
    q = CategoricalPosterior(7, 3, variables=5)(torch.randn(4, 7))
    assert (q.batch_shape, q.event_shape) == ((4,), (5, 3))
    assert isinstance(q, Independent)
    assert isinstance(q.base_dist, OneHotCategorical)
    z = q.sample((2,))
    torch.testing.assert_close(z.sum(-1), torch.ones(2, 4, 5))
    expected = (q.base_dist.logits.log_softmax(-1) * z).sum((-1, -2))
    torch.testing.assert_close(q.log_prob(z), expected)


MISTAKES = {
    "event_dims=0; the latent itself is 1": lambda: DiagonalNormalPosterior(3, 2, event_dims=0),
    "rank=3; allowed is 1 to 2": lambda: LowRankNormalPosterior(3, 2, rank=3),
    "components=0": lambda: MixturePosterior(3, 2, 0, 0.1),
    "floor=-0.1": lambda: MixturePosterior(3, 2, 2, -0.1),
    "temperature 0 is not positive": lambda: GumbelSoftmaxPosterior(3, 2, 0),
    "layers=-1": lambda: FlowPosterior(3, 2, "nsf", -1, 0, (8,)),
}


@pytest.mark.parametrize("message", list(MISTAKES))
def test_a_number_out_of_range_is_refused_with_the_number(message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MISTAKES[message]()


def test_all_kinds_are_distributions_with_a_support() -> None:
    for posterior in posteriors(7).values():
        q = posterior(torch.randn(2, 7))
        assert isinstance(q, Distribution)
        assert bool(torch.as_tensor(q.support.check(q.sample())).all())
