from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.distributions import (
    Bernoulli,
    Distribution,
    Independent,
    Laplace,
    LowRankMultivariateNormal,
    Normal,
    RelaxedBernoulli,
    StudentT,
    VonMises,
)

from core.variational import divergences
from core.variational.distributions import (
    CentredNormal,
    Delta,
    DiagonalNormal,
    LogitsBernoulli,
    UniformConvolvedNormal,
    UnitUniform,
    VonMisesFisher,
    WrappedNormal,
)

SCALES = st.floats(1e-3, 1e3)
SEEDS = st.integers(0, 2**31 - 1)


def parameters(scale: float = 1.0, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    loc, noise = torch.randn(2, 4, 3, dtype=dtype)
    return scale * loc, scale * noise.exp()


def independent(scale: float = 1.0) -> Independent:
    return Independent(Normal(*parameters(scale)), 1)


def diagonal(scale: float = 1.0) -> DiagonalNormal:
    return DiagonalNormal(*parameters(scale))


def centred(scale: float = 1.0) -> CentredNormal:
    return CentredNormal(torch.zeros(4, 3, dtype=torch.float64), scale)


@settings(max_examples=25, deadline=None)
@given(scale=SCALES, seed=SEEDS)
def test_kl_of_a_distribution_with_itself_is_zero(scale: float, seed: int) -> None:
    torch.manual_seed(seed)
    ours = diagonal(scale)
    theirs = Independent(Normal(ours.loc, ours.scale), 1)
    for posterior, prior in ((ours, ours), (ours, theirs), (theirs, ours)):
        assert (divergences.kl(posterior, prior)[0].abs() <= 1e-6).all()


@settings(max_examples=25, deadline=None)
@given(scale=st.floats(0.01, 100.0), shift=st.floats(-5, 5), seed=SEEDS)
def test_kl_does_not_change_under_a_joint_affine_map(
    scale: float, shift: float, seed: int
) -> None:
    torch.manual_seed(seed)
    before, after = [], []
    for loc, spread in (parameters(), parameters()):
        before.append(DiagonalNormal(loc, spread))
        after.append(DiagonalNormal(scale * loc + shift, scale * spread))
    torch.testing.assert_close(
        divergences.kl(*after)[0], divergences.kl(*before)[0], rtol=1e-6, atol=1e-9
    )


def test_ours_is_torchs_kl_of_normals() -> None:
    posterior, prior = diagonal(), diagonal()
    theirs = [Independent(Normal(each.loc, each.scale), 1) for each in (posterior, prior)]
    torch.testing.assert_close(divergences.kl(posterior, prior)[0], divergences.kl(*theirs)[0])


@pytest.mark.parametrize("scale", [0.5, 1.0, 3.0])
def test_the_fast_form_for_a_centred_prior_is_the_general_one(scale: float) -> None:
    posterior, prior = diagonal(), centred(scale)
    general = DiagonalNormal(prior.loc, prior.scale)
    torch.testing.assert_close(
        divergences.kl(posterior, prior)[0], divergences.kl(posterior, general)[0]
    )


@pytest.mark.parametrize(
    ("posterior", "prior"),
    [
        (diagonal(), diagonal()),
        (diagonal(), centred(2.0)),
        (diagonal(), independent()),
        (independent(), independent()),
        (diagonal(), Independent(Laplace(*parameters()), 1)),
        (Independent(Laplace(*parameters()), 1), diagonal()),
        (UnitUniform(parameters()[0]), centred(2.0)),
        (LogitsBernoulli(parameters()[0]), LogitsBernoulli(parameters()[0])),
        (LogitsBernoulli(parameters()[0]), Independent(Bernoulli(logits=parameters()[0]), 1)),
        (WrappedNormal(*parameters()), Independent(VonMises(*parameters()), 1)),
    ],
)
def test_the_elements_add_up_to_the_closed_form(
    posterior: Distribution, prior: Distribution
) -> None:
    terms = divergences.elementwise_kl(posterior, prior)
    assert terms is not None
    assert terms.shape == (4, 3)
    torch.testing.assert_close(terms.sum(-1), divergences.kl(posterior, prior)[0])


def test_nodes_and_latents_are_one_event_of_a_graph() -> None:
    loc, noise = torch.randn(2, 1, 5, 2)
    posterior = DiagonalNormal(loc, noise.exp(), event_dims=2)
    assert divergences.kl(posterior, CentredNormal(loc, event_dims=2))[0].shape == (1,)


def test_without_a_closed_form_the_samples_decide() -> None:
    posterior = diagonal()
    prior = Independent(StudentT(torch.tensor(3.0), posterior.loc, posterior.scale), 1)
    value = posterior.rsample((5,))
    estimate, is_closed = divergences.kl(posterior, prior, value)
    assert not is_closed
    torch.testing.assert_close(estimate, posterior.log_prob(value) - prior.log_prob(value))


def test_without_a_closed_form_and_samples_the_error_names_the_pair() -> None:
    prior = Independent(StudentT(torch.tensor(3.0), *parameters()), 1)
    with pytest.raises(ValueError, match=r"DiagonalNormal and Independent\(StudentT\)"):
        divergences.kl(diagonal(), prior)


def test_a_pair_that_is_registered_by_inheritance_only_counts_as_unregistered() -> None:
    relaxed = RelaxedBernoulli(torch.tensor(0.5), logits=torch.zeros(3))
    value = relaxed.rsample((2,))
    assert not divergences.kl(relaxed, relaxed, value)[1]


def test_directions_have_no_elements_but_a_closed_form() -> None:
    loc = torch.randn(2, 5, 3, dtype=torch.float64)
    posterior = VonMisesFisher(loc, torch.ones(2, 5), event_dims=2)
    assert divergences.elementwise_kl(posterior, posterior) is None
    assert divergences.kl(posterior, posterior)[1]


def test_the_elements_of_nodes_and_latents_keep_both_dimensions() -> None:
    loc, noise = torch.randn(2, 1, 5, 2)
    posterior = DiagonalNormal(loc, noise.exp(), event_dims=2)
    prior = Independent(Laplace(loc, noise.exp()), 2)
    terms = divergences.elementwise_kl(posterior, prior)
    assert terms is not None
    assert terms.shape == (1, 5, 2)


def test_the_code_length_of_a_quantised_latent_is_its_one_sample_kl() -> None:
    posterior = UnitUniform(parameters()[0])
    prior = UniformConvolvedNormal(*parameters())
    value = posterior.rsample((7,))
    estimate, is_closed = divergences.kl(posterior, prior, value)
    assert not is_closed
    torch.testing.assert_close(estimate, -prior.log_prob(value))


def test_a_value_without_spread_costs_its_cross_entropy_and_is_no_closed_form() -> None:
    posterior, prior = Delta(parameters()[0]), diagonal()
    cost, is_closed = divergences.kl(posterior, prior, posterior.rsample((2,)))
    assert not is_closed
    torch.testing.assert_close(cost, -prior.log_prob(posterior.value).expand(2, 4))


def test_a_pair_that_does_not_factorise_has_no_elements() -> None:
    full = LowRankMultivariateNormal(torch.zeros(3), torch.ones(3, 1), torch.ones(3))
    assert divergences.elementwise_kl(full, full) is None
    heavy = Independent(StudentT(torch.tensor(3.0), *parameters()), 1)
    assert divergences.elementwise_kl(diagonal(), heavy) is None


@pytest.mark.parametrize("prior", [centred(), diagonal()])
def test_different_events_are_refused(prior: DiagonalNormal) -> None:
    posterior = DiagonalNormal(torch.zeros(4, 2), torch.ones(4, 2))
    with pytest.raises(ValueError, match=r"event shapes \(2,\).*\(3,\)"):
        divergences.kl(posterior, prior)


@pytest.mark.parametrize("prior", [centred(2.0), diagonal()])
def test_gradients_are_those_of_finite_differences(prior: DiagonalNormal) -> None:
    loc, scale = (each.requires_grad_() for each in parameters())
    assert torch.autograd.gradcheck(
        lambda loc, scale: divergences.kl(DiagonalNormal(loc, scale), prior)[0], (loc, scale)
    )


def test_single_precision_agrees_with_double() -> None:
    torch.manual_seed(0)
    (loc, scale), (other, wide) = parameters(), parameters()
    double, _ = divergences.kl(DiagonalNormal(loc, scale), DiagonalNormal(other, wide))
    single, _ = divergences.kl(
        DiagonalNormal(loc.float(), scale.float()), DiagonalNormal(other.float(), wide.float())
    )
    torch.testing.assert_close(single.double(), double, rtol=1e-5, atol=1e-6)
