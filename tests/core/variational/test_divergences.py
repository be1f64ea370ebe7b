from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.distributions import (
    Distribution,
    Independent,
    Laplace,
    LowRankMultivariateNormal,
    Normal,
    RelaxedBernoulli,
    kl,
)

from core.variational import divergences
from core.variational.distributions import CentredNormal, DiagonalNormal

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


BUILDERS: dict[type, Callable[[float], Distribution]] = {
    DiagonalNormal: diagonal,
    CentredNormal: centred,
    Independent: independent,
}
# Every pair that this package registers, read from the registry: none can be without a test.
PAIRS = [pair for pair in kl._KL_REGISTRY if DiagonalNormal in pair or CentredNormal in pair]
pairs = pytest.mark.parametrize(
    ("left", "right"), PAIRS, ids=[f"{left.__name__}-{right.__name__}" for left, right in PAIRS]
)


def test_our_pairs_are_registered_with_torch() -> None:
    assert len(PAIRS) == 4


@pairs
def test_the_closed_form_is_what_samples_say(left: type, right: type) -> None:
    torch.manual_seed(1)
    posterior, prior = BUILDERS[left](1.0), BUILDERS[right](1.5)
    value = posterior.rsample((20_000,))
    ratios = posterior.log_prob(value) - prior.log_prob(value)
    closed, is_closed = divergences.kl(posterior, prior)
    assert is_closed
    assert ((closed - ratios.mean(0)).abs() < 4 * ratios.std(0) / math.sqrt(len(value))).all()


@pairs
@settings(max_examples=25, deadline=None)
@given(scale=SCALES, other=SCALES, seed=SEEDS)
def test_kl_is_not_negative(
    left: type, right: type, scale: float, other: float, seed: int
) -> None:
    torch.manual_seed(seed)
    divergence, _ = divergences.kl(BUILDERS[left](scale), BUILDERS[right](other))
    assert (divergence >= -1e-6).all()


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
    prior = Independent(Laplace(posterior.loc, posterior.scale), 1)
    value = posterior.rsample((5,))
    estimate, is_closed = divergences.kl(posterior, prior, value)
    assert not is_closed
    torch.testing.assert_close(estimate, posterior.log_prob(value) - prior.log_prob(value))


def test_without_a_closed_form_and_samples_the_error_names_the_pair() -> None:
    prior = Independent(Laplace(*parameters()), 1)
    with pytest.raises(ValueError, match=r"DiagonalNormal and Independent\(Laplace\)"):
        divergences.kl(diagonal(), prior)


def test_a_pair_that_is_registered_by_inheritance_only_counts_as_unregistered() -> None:
    relaxed = RelaxedBernoulli(torch.tensor(0.5), logits=torch.zeros(3))
    value = relaxed.rsample((2,))
    assert not divergences.kl(relaxed, relaxed, value)[1]


def test_a_pair_that_does_not_factorise_has_no_elements() -> None:
    full = LowRankMultivariateNormal(torch.zeros(3), torch.ones(3, 1), torch.ones(3))
    assert divergences.elementwise_kl(full, full) is None
    laplace = Independent(Laplace(*parameters()), 1)
    assert divergences.elementwise_kl(diagonal(), laplace) is None


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
