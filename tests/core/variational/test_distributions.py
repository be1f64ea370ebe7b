from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.distributions import Bernoulli, Independent, Normal

from core.variational.distributions import CentredNormal, DiagonalNormal, LogitsBernoulli

SHAPES = [((4, 3), 1), ((1, 5, 2), 2), ((6, 4, 3), 1), ((4, 3), 0)]


def normal(shape: tuple[int, ...], event_dims: int) -> DiagonalNormal:
    loc, noise = torch.randn(2, *shape, dtype=torch.float64)
    return DiagonalNormal(loc, noise.exp(), event_dims)


def torchs_normal(ours: DiagonalNormal) -> Independent:
    return Independent(Normal(ours.loc, ours.scale), ours.event_dims)


@pytest.mark.parametrize(("shape", "event_dims"), SHAPES)
def test_diagonal_normal_is_torchs_independent_normal(
    shape: tuple[int, ...], event_dims: int
) -> None:
    ours = normal(shape, event_dims)
    theirs = torchs_normal(ours)
    value = ours.rsample((7,))
    assert (ours.batch_shape, ours.event_shape) == (theirs.batch_shape, theirs.event_shape)
    assert value.shape == theirs.rsample((7,)).shape
    torch.testing.assert_close(ours.log_prob(value), theirs.log_prob(value))
    torch.testing.assert_close(ours.entropy(), theirs.entropy())
    for moment in ("mean", "mode", "stddev", "variance"):
        torch.testing.assert_close(getattr(ours, moment), getattr(theirs, moment))


@pytest.mark.parametrize(("shape", "event_dims"), SHAPES)
def test_logits_bernoulli_is_torchs_independent_bernoulli(
    shape: tuple[int, ...], event_dims: int
) -> None:
    ours = LogitsBernoulli(4 * torch.randn(shape, dtype=torch.float64), event_dims)
    theirs = Independent(Bernoulli(logits=ours.logits), event_dims)
    value = ours.sample((7,))
    torch.testing.assert_close(ours.log_prob(value), theirs.log_prob(value))
    torch.testing.assert_close(ours.entropy(), theirs.entropy())
    torch.testing.assert_close(ours.mean, theirs.mean)
    torch.testing.assert_close(ours.variance, theirs.variance)


def test_samples_have_the_moments_of_the_distribution() -> None:
    torch.manual_seed(0)
    distribution = normal((3,), 1)
    draws = distribution.rsample((40_000,))
    errors = distribution.scale / math.sqrt(len(draws))
    assert ((draws.mean(0) - distribution.loc).abs() < 5 * errors).all()
    torch.testing.assert_close(draws.std(0), distribution.scale, rtol=0.02, atol=0)


def test_coins_fall_as_often_as_their_logits_say() -> None:
    torch.manual_seed(0)
    coins = LogitsBernoulli(torch.tensor([-2.0, 0.0, 2.0]))
    draws = coins.sample((40_000,))
    assert set(draws.unique().tolist()) == {0.0, 1.0}
    torch.testing.assert_close(draws.mean(0), coins.mean, rtol=0, atol=0.02)


@pytest.mark.parametrize("logit", [-200.0, -17.0, 17.0, 200.0])
def test_extreme_logits_keep_value_and_gradient(logit: float) -> None:
    logits = torch.full((1, 1), logit, requires_grad=True)
    wrong = torch.full((1, 1), float(logit < 0))
    log_prob = LogitsBernoulli(logits).log_prob(wrong)
    log_prob.sum().backward()
    assert float(log_prob.detach()) == pytest.approx(-abs(logit))
    assert logits.grad is not None
    assert abs(float(logits.grad)) == pytest.approx(1.0)


def test_a_confident_right_answer_costs_a_little_and_not_nothing() -> None:
    log_prob = LogitsBernoulli(torch.full((1, 1), 20.0)).log_prob(torch.ones(1, 1))
    assert float(log_prob) == pytest.approx(-math.exp(-20), rel=1e-5)


def test_grey_levels_give_the_expected_log_likelihood() -> None:
    coin = LogitsBernoulli(torch.tensor([[0.7]]))
    grey = coin.log_prob(torch.tensor([[0.3]]))
    expected = 0.3 * coin.log_prob(torch.ones(1, 1)) + 0.7 * coin.log_prob(torch.zeros(1, 1))
    torch.testing.assert_close(grey, expected)


def test_centred_normal_is_a_diagonal_normal_of_zeros() -> None:
    like = torch.randn(4, 3, dtype=torch.float64)
    ours = CentredNormal(like, 2.0)
    plain = DiagonalNormal(torch.zeros_like(like), torch.full_like(like, 2.0))
    torch.testing.assert_close(ours.log_prob(like), plain.log_prob(like))
    assert ours.batch_shape == (4,)


@pytest.mark.parametrize("build", [DiagonalNormal, LogitsBernoulli])
def test_expand_repeats_the_batch(build: type) -> None:
    parameters = [torch.randn(4, 3).exp() for _ in range(1 + (build is DiagonalNormal))]
    distribution = build(*parameters)
    wide = distribution.expand((5, 4))
    value = torch.ones(4, 3)
    assert wide.batch_shape == (5, 4)
    torch.testing.assert_close(wide.log_prob(value), distribution.log_prob(value).expand(5, 4))


def test_a_value_of_another_event_is_refused_not_broadcast() -> None:
    with pytest.raises(ValueError, match=r"\(4, 1\).*event shape \(3,\)"):
        LogitsBernoulli(torch.zeros(4, 3)).log_prob(torch.ones(4, 1))
    with pytest.raises(ValueError, match="event shape"):
        DiagonalNormal(torch.zeros(4, 3), torch.ones(())).log_prob(torch.ones(4, 1))


def test_more_event_dimensions_than_dimensions_are_refused() -> None:
    with pytest.raises(ValueError, match="event_dims=3"):
        DiagonalNormal(torch.zeros(4, 3), torch.ones(4, 3), event_dims=3)


def test_a_masked_element_changes_neither_value_nor_gradient() -> None:
    mask = torch.tensor([[True, True, False]])
    gradients, values = [], []
    for hidden in (0.0, 7.0):
        logits = torch.tensor([[0.3, -0.2, hidden]], requires_grad=True)
        terms = LogitsBernoulli(logits, event_dims=0).log_prob(torch.tensor([[1.0, 0.0, hidden]]))
        value = torch.where(mask, terms, 0.0).sum()
        value.backward()
        values.append(value.detach())
        gradients.append(logits.grad)
    assert values[0] == values[1]
    assert torch.equal(gradients[0], gradients[1])


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 5), st.integers(0, 2**31 - 1))
def test_splitting_a_batch_leaves_each_example_alone(size: int, seed: int) -> None:
    torch.manual_seed(seed)
    distribution, value = normal((2 * size, 3), 1), torch.randn(2 * size, 3, dtype=torch.float64)
    halves = [
        DiagonalNormal(loc, scale).log_prob(part)
        for loc, scale, part in zip(
            distribution.loc.split(size),
            distribution.scale.split(size),
            value.split(size),
            strict=True,
        )
    ]
    torch.testing.assert_close(torch.cat(halves), distribution.log_prob(value))


def test_gradients_are_those_of_finite_differences() -> None:
    torch.manual_seed(0)
    loc, noise, value = torch.randn(3, 2, 3, dtype=torch.float64)
    loc.requires_grad_()
    scale = noise.exp().requires_grad_()
    logits = noise.clone().requires_grad_()
    coins = (value > 0).double()
    assert torch.autograd.gradcheck(
        lambda loc, scale: DiagonalNormal(loc, scale).log_prob(value), (loc, scale)
    )
    assert torch.autograd.gradcheck(
        lambda loc, scale: DiagonalNormal(loc, scale).entropy(), (loc, scale)
    )
    assert torch.autograd.gradcheck(
        lambda logits: LogitsBernoulli(logits).log_prob(coins), (logits,)
    )


def test_a_half_precision_network_gives_single_precision_densities() -> None:
    half = torch.zeros(2, 3, dtype=torch.bfloat16)
    assert LogitsBernoulli(half).log_prob(torch.ones(2, 3)).dtype == torch.float32
    assert DiagonalNormal(half, half.exp()).entropy().dtype == torch.float32
