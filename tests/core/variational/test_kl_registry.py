"""Every KL that ``core`` registers, found by reading the registry: none can be added untested."""

from __future__ import annotations

import importlib
import math
import pkgutil
import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Generator
from torch.distributions import (
    Distribution,
    Independent,
    Laplace,
    LowRankMultivariateNormal,
    MultivariateNormal,
    Normal,
    VonMises,
    kl_divergence,
)

import core.variational
from core.variational.distributions import (
    CentredNormal,
    DiagonalNormal,
    HypersphericalUniform,
    LogitsBernoulli,
    PowerSpherical,
    UnitUniform,
    VonMisesFisher,
    WrappedNormal,
    registry_examples,
)
from core.variational.distributions.registry_examples import (
    Pair,
    add_example,
    examples,
    registered_pairs,
)
from core.variational.divergences import kl

with torch.random.fork_rng(devices=[]):
    for module in pkgutil.walk_packages(core.variational.__path__, "core.variational."):
        importlib.import_module(module.name)

DRAWS = 20_000
SEEDS = st.integers(0, 2**31 - 1)
FACTORS = st.floats(1e-3, 1e3)
every_pair = pytest.mark.parametrize(
    "pair",
    registered_pairs(),
    ids=[f"{left.__name__}-{right.__name__}" for left, right in registered_pairs()],
)


def example(
    pair: Pair, seed: int, scale: float = 1.0, other: float = 1.0
) -> tuple[Distribution, Distribution]:
    left, right = pair
    if pair not in examples():
        pytest.fail(
            f"the KL of {left.__name__} and {right.__name__} is registered by "
            f"core and has no example; add one with registry_examples.add_example"
        )
    return examples()[pair](Generator().manual_seed(seed), scale, other)


def deviation(posterior: Distribution, prior: Distribution, draws: int = DRAWS) -> float:
    """How many standard errors the closed form is away from samples, at most over the batch."""
    value = posterior.sample((draws,))
    ratios = posterior.log_prob(value) - prior.log_prob(value)
    closed, is_closed = kl(posterior, prior)
    assert is_closed
    assert closed.shape == ratios.shape[1:]
    rounding = 1e-9 * (1 + ratios.abs().mean(0))
    errors = (closed - ratios.mean(0)).abs() / (ratios.std(0) / math.sqrt(draws) + rounding)
    return float(errors.max())


def test_there_are_pairs_and_every_example_is_of_a_registered_pair() -> None:
    assert len(registered_pairs()) >= 23
    assert set(examples()) <= set(registered_pairs())


@every_pair
def test_the_closed_form_is_what_samples_say(pair: Pair) -> None:
    for seed in range(3):
        posterior, prior = example(pair, seed, 1.0, 1.3)
        assert isinstance(posterior, pair[0])
        assert isinstance(prior, pair[1])
        assert deviation(posterior, prior) < 4


@every_pair
@settings(max_examples=20, deadline=None)
@given(seed=SEEDS, scale=FACTORS, other=FACTORS)
def test_kl_is_finite_and_not_negative(pair: Pair, seed: int, scale: float, other: float) -> None:
    divergence, _ = kl(*example(pair, seed, scale, other))
    assert divergence.isfinite().all()
    assert (divergence >= -1e-6).all()


@every_pair
@settings(max_examples=10, deadline=None)
@given(seed=SEEDS, scale=FACTORS)
def test_kl_of_a_distribution_with_itself_is_zero(pair: Pair, seed: int, scale: float) -> None:
    if pair[0] is pair[1]:
        posterior, _ = example(pair, seed, scale)
        assert (kl(posterior, posterior)[0].abs() <= 1e-6).all()


@every_pair
def test_kl_is_chosen_without_ambiguity_and_keeps_the_type(pair: Pair) -> None:
    posterior, prior = example(pair, 0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert kl_divergence(posterior, prior).dtype == torch.float64


@every_pair
def test_different_events_are_refused(pair: Pair) -> None:
    posterior, prior = example(pair, 0)
    if not prior.event_shape:
        pytest.skip("over single numbers, which have one event shape only")
    try:
        wider = prior.expand(torch.Size((5, *prior.batch_shape)))
    except NotImplementedError:
        pytest.skip("a distribution that says nothing of other batch shapes")
    with pytest.raises(ValueError, match="event shapes"):
        kl(posterior, Independent(wider, 1))


def test_a_pair_without_an_example_fails_by_its_name() -> None:
    with pytest.raises(pytest.fail.Exception, match="Laplace and CentredNormal"):
        example((Laplace, CentredNormal), 0)


def test_who_registers_a_pair_elsewhere_can_add_its_example() -> None:
    pair = (DiagonalNormal, DiagonalNormal)
    before = examples()[pair]
    ones = DiagonalNormal(torch.ones(4, 3), torch.ones(()))
    add_example(pair, lambda generator, scale: ones, lambda generator, scale: ones)
    try:
        assert example(pair, 0) == (ones, ones)
    finally:
        registry_examples._EXAMPLES[pair] = before


def _same_both_ways() -> list[tuple[Distribution, Distribution]]:
    loc, noise = torch.randn(2, 4, 3, dtype=torch.float64)
    scale = noise.exp()
    ours = DiagonalNormal(loc, scale)
    full = MultivariateNormal(loc, scale_tril=torch.diag_embed(scale))
    low_rank = LowRankMultivariateNormal(loc, torch.zeros(4, 3, 1).double(), scale.square())
    still = VonMisesFisher(loc, torch.zeros(4, dtype=torch.float64))
    flat = PowerSpherical(loc, torch.zeros(4, dtype=torch.float64))
    return [
        (ours, full),
        (full, ours),
        (ours, low_rank),
        (low_rank, ours),
        (ours, Independent(Normal(loc, scale), 1)),
        (Independent(Normal(loc, scale), 1), full),
        (still, HypersphericalUniform(loc)),
        (HypersphericalUniform(loc), still),
        (flat, HypersphericalUniform(loc)),
        (HypersphericalUniform(loc), flat),
        (flat, still),
    ]


def test_the_same_distribution_in_two_classes_has_no_divergence() -> None:
    for posterior, prior in _same_both_ways():
        assert (kl(posterior, prior)[0].abs() <= 1e-9).all(), (posterior, prior)


def test_kl_to_a_correlated_normal_is_torchs_of_full_covariances() -> None:
    generator = Generator().manual_seed(0)
    for pair in [
        (DiagonalNormal, MultivariateNormal),
        (MultivariateNormal, DiagonalNormal),
        (DiagonalNormal, LowRankMultivariateNormal),
        (LowRankMultivariateNormal, DiagonalNormal),
    ]:
        posterior, prior = examples()[pair](generator, 1.0, 2.0)
        full = [
            MultivariateNormal(each.loc, torch.diag_embed(each.variance))
            if isinstance(each, DiagonalNormal)
            else MultivariateNormal(each.loc, each.covariance_matrix)
            for each in (posterior, prior)
        ]
        torch.testing.assert_close(kl(posterior, prior)[0], kl_divergence(*full))


def test_a_low_rank_prior_much_wider_than_its_diagonal_keeps_its_digits() -> None:
    torch.manual_seed(0)
    factor, loc = 1e4 * torch.randn(5, 2, dtype=torch.float64), torch.randn(5).double()
    narrow = torch.full((5,), 1e-3, dtype=torch.float64)
    prior = LowRankMultivariateNormal(torch.zeros_like(loc), factor, narrow.square())
    posterior = DiagonalNormal(loc, narrow)
    columns = torch.linalg.qr(factor)[0]
    outside = loc - columns @ (columns.mT @ loc)
    # Along the factor the prior is so wide that only its log-volume counts.
    singular = torch.linalg.svdvals(factor)
    expected = 0.5 * (3 + outside.square().sum() / 1e-6 - 5) + (
        singular.log().sum() + 3 * math.log(1e-3) - 5 * math.log(1e-3)
    )
    torch.testing.assert_close(kl(posterior, prior)[0], expected, rtol=1e-9, atol=0)


GRAPHS = (2, 5, 3)  # graphs, nodes, latents


def _per_node() -> dict[str, tuple[Distribution, Distribution]]:
    loc, other, noise = torch.randn(3, *GRAPHS, dtype=torch.float64)
    lower = torch.randn(*GRAPHS, 3, dtype=torch.float64).tril(-1) + torch.diag_embed(noise.exp())
    full = Independent(MultivariateNormal(loc, scale_tril=lower), 1)
    wide = Independent(Normal(other, noise.exp()), 2)
    laplace = Independent(Laplace(other, noise.exp()), 2)
    ours = DiagonalNormal(loc, noise.exp(), event_dims=2)
    kappa = noise[..., 0].exp()
    return {
        "full nodes, centred": (full, CentredNormal(loc, 2.0, event_dims=2)),
        "full nodes, diagonal": (full, DiagonalNormal(other, noise.exp(), event_dims=2)),
        "full nodes, independent": (full, wide),
        "full nodes, nested": (full, Independent(DiagonalNormal(other, noise.exp()), 1)),
        "diagonal, full nodes": (
            ours,
            Independent(MultivariateNormal(other, scale_tril=lower), 1),
        ),
        "independent, full nodes": (wide, full),
        "nested, independent": (Independent(Independent(Normal(loc, noise.exp()), 1), 1), wide),
        "diagonal, laplace": (ours, laplace),
        "laplace, diagonal": (laplace, ours),
        "laplace, centred": (laplace, CentredNormal(loc, 2.0, event_dims=2)),
        "uniform, independent": (UnitUniform(loc, event_dims=2), wide),
        "directions of nodes": (
            VonMisesFisher(loc, kappa, event_dims=2),
            VonMisesFisher(other, 2 * kappa, event_dims=2),
        ),
        "directions of nodes, uniform": (
            VonMisesFisher(loc, kappa, event_dims=2),
            Independent(HypersphericalUniform(loc), 1),
        ),
        "a torus": (
            WrappedNormal(loc, noise.exp(), event_dims=2),
            Independent(VonMises(other, noise.exp()), 2),
        ),
        "coins": (
            LogitsBernoulli(loc, event_dims=2),
            Independent(LogitsBernoulli(other), 1),
        ),
    }


@pytest.mark.parametrize("name", _per_node())
def test_the_independent_dimensions_of_an_event_are_summed_over(name: str) -> None:
    posterior, prior = _per_node()[name]
    assert deviation(posterior, prior) < 4


@settings(max_examples=15, deadline=None)
@given(seed=SEEDS, scale=st.floats(0.1, 10.0), shift=st.floats(-5, 5))
def test_kl_of_normals_does_not_change_under_a_joint_affine_map(
    seed: int, scale: float, shift: float
) -> None:
    generator = Generator().manual_seed(seed)
    full, ours = examples()[MultivariateNormal, DiagonalNormal](generator, 1.0, 1.0)
    stretched = MultivariateNormal(scale * full.loc + shift, scale_tril=scale * full.scale_tril)
    moved = DiagonalNormal(scale * ours.loc + shift, scale * ours.scale)
    for before, after in (((full, ours), (stretched, moved)), ((ours, full), (moved, stretched))):
        torch.testing.assert_close(kl(*after)[0], kl(*before)[0], rtol=1e-6, atol=1e-9)


def test_gradients_are_those_of_finite_differences() -> None:
    loc, other, noise = torch.randn(3, 2, 3, dtype=torch.float64)
    kappa = noise[:, 0].exp().requires_grad_()
    lower = torch.randn(2, 3, 3, dtype=torch.float64).tril(-1) + torch.eye(3)
    full = MultivariateNormal(other, scale_tril=lower)
    low_rank = LowRankMultivariateNormal(other, lower[..., :2], torch.ones(2, 3).double())
    scale = noise.exp().requires_grad_()
    functions = {
        "vMF, vMF": lambda k: kl(VonMisesFisher(loc, k), VonMisesFisher(other, k.square()))[0],
        "vMF, uniform": lambda k: kl(VonMisesFisher(loc, k), HypersphericalUniform(loc))[0],
        "power, vMF": lambda k: kl(PowerSpherical(loc, k), VonMisesFisher(other, k))[0],
        "uniform, power": lambda k: kl(HypersphericalUniform(loc), PowerSpherical(other, k))[0],
        "von Mises": lambda k: kl(VonMises(loc[:, 0], k), VonMises(other[:, 0], k.square()))[0],
        "wrapped": lambda k: kl(WrappedNormal(loc[:, 0], k, 0), VonMises(other[:, 0], k))[0],
    }
    for name, function in functions.items():
        assert torch.autograd.gradcheck(function, (kappa,)), name
    for prior in (full, low_rank):
        for pair in (
            lambda s, prior=prior: kl(DiagonalNormal(loc, s), prior)[0],
            lambda s, prior=prior: kl(prior, DiagonalNormal(loc, s))[0],
        ):
            assert torch.autograd.gradcheck(pair, (scale,))
