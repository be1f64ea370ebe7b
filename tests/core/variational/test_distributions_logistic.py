from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.distributions import Categorical, MixtureSameFamily

from core.variational.distributions import (
    DiscretizedLogistic,
    DiscretizedLogisticMixture,
    stop_gradient,
)

PIXELS = {"low": -1.0, "high": 1.0, "bins": 256}
SEEDS = st.integers(0, 2**31 - 1)


def grid_of(distribution: DiscretizedLogistic | DiscretizedLogisticMixture) -> Tensor:
    return torch.tensor(distribution.grid, dtype=torch.float64)


def masses(distribution: DiscretizedLogistic | DiscretizedLogisticMixture) -> Tensor:
    """Of every value of the grid, along the first dimension, for event_dims=0."""
    grid = grid_of(distribution)
    return distribution.log_prob(grid.view(-1, *[1] * len(distribution.batch_shape))).exp()


def mixture(seed: int, *shape: int, event_dims: int = 0) -> DiscretizedLogisticMixture:
    generator = torch.Generator().manual_seed(seed)
    logits, loc, noise = torch.randn(3, *shape, 5, dtype=torch.float64, generator=generator)
    return DiscretizedLogisticMixture(
        logits, loc, (noise - 2).exp(), **PIXELS, event_dims=event_dims
    )


@settings(max_examples=30, deadline=None)
@given(loc=st.floats(-300, 300), log_scale=st.floats(-7, 7), bins=st.integers(2, 300))
def test_masses_of_the_grid_add_up_to_one(loc: float, log_scale: float, bins: int) -> None:
    at, scale = torch.tensor([loc, math.exp(log_scale)], dtype=torch.float64)
    distribution = DiscretizedLogistic(at, scale, low=0, high=255, bins=bins, event_dims=0)
    assert float(masses(distribution).sum()) == pytest.approx(1, abs=1e-9)


@settings(max_examples=20, deadline=None)
@given(seed=SEEDS)
def test_masses_of_a_mixture_add_up_to_one(seed: int) -> None:
    total = masses(mixture(seed, 3)).sum(0)
    torch.testing.assert_close(total, torch.ones_like(total), rtol=0, atol=1e-12)


def test_masses_are_differences_of_the_cumulative_distribution() -> None:
    loc, scale = torch.tensor([0.1, 0.05], dtype=torch.float64)
    distribution = DiscretizedLogistic(loc, scale, **PIXELS, event_dims=0)
    grid, half = grid_of(distribution), distribution.step / 2
    upper = ((grid + half - loc) / scale).sigmoid()
    lower = ((grid - half - loc) / scale).sigmoid()
    upper[-1], lower[0] = 1.0, 0.0
    torch.testing.assert_close(masses(distribution), upper - lower, rtol=1e-10, atol=1e-14)


def test_the_tails_keep_value_and_gradient_where_a_difference_would_be_zero() -> None:
    loc = torch.tensor([0.9], requires_grad=True)
    scale = torch.tensor([1e-3], requires_grad=True)
    log_prob = DiscretizedLogistic(loc, scale, **PIXELS).log_prob(torch.tensor([-0.5]))
    log_prob.backward()
    assert float(log_prob.detach()) == pytest.approx(-1396, abs=1)
    assert loc.grad is not None
    assert scale.grad is not None
    assert float(loc.grad) == pytest.approx(-1e3, rel=1e-4)
    assert float(scale.grad) == pytest.approx(1.4e6, rel=1e-2)


def test_gradients_are_those_of_finite_differences() -> None:
    loc, noise = torch.randn(2, 6, 2, dtype=torch.float64)
    loc.requires_grad_()
    scale = (0.5 * noise).exp().requires_grad_()
    value = torch.tensor([-1.0, 1.0, -1 + 2 / 255, 1 - 2 / 255, 0.2, 0.6]).double()
    value = (((value + 1) * 127.5).round() / 127.5 - 1).unsqueeze(-1).expand(6, 2)
    assert torch.autograd.gradcheck(
        lambda loc, scale: DiscretizedLogistic(loc, scale, **PIXELS).log_prob(value), (loc, scale)
    )
    logits = torch.randn(6, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda *parameters: DiscretizedLogisticMixture(
            *parameters, **PIXELS, event_dims=0
        ).log_prob(value[:, 0]),
        (logits, loc, scale),
    )


@pytest.mark.parametrize("build", ["single", "mixture"])
def test_moments_mode_and_entropy_are_those_of_the_masses(build: str) -> None:
    if build == "mixture":
        distribution = mixture(1, 4)
    else:
        loc = torch.tensor([-3.0, 0.2, 0.3, 1.4]).double()
        scale = torch.tensor([0.1, 0.01, 3.0, 0.2]).double()  # at 3 an end holds most
        distribution = DiscretizedLogistic(loc, scale, **PIXELS, event_dims=0)
    table, grid = masses(distribution), grid_of(distribution).unsqueeze(-1)
    mean = (table * grid).sum(0)
    torch.testing.assert_close(distribution.mean, mean)
    torch.testing.assert_close(distribution.variance, (table * (grid - mean).square()).sum(0))
    torch.testing.assert_close(distribution.mode, grid[table.argmax(0)].squeeze(-1))
    torch.testing.assert_close(distribution.entropy(), -torch.xlogy(table, table).sum(0))


@pytest.mark.parametrize("build", ["single", "mixture"])
def test_samples_fall_into_the_bins_as_often_as_their_masses_say(build: str) -> None:
    if build == "mixture":
        parameters = torch.tensor([[0.3, -1.0], [-0.5, 0.8], [0.2, 0.4]]).double()
        distribution = DiscretizedLogisticMixture(*parameters, -1, 1, 9, event_dims=0)
    else:
        loc, scale = torch.tensor([0.3, 0.4], dtype=torch.float64)
        distribution = DiscretizedLogistic(loc, scale, -1, 1, 9, event_dims=0)
    draws = distribution.sample(torch.Size((20_000,)))
    assert distribution.support.check(draws).all()
    counts = (draws.unsqueeze(-1) - grid_of(distribution)).abs().lt(1e-9).double().mean(0)
    expected = masses(distribution).flatten()
    errors = (expected * (1 - expected) / 20_000).sqrt()
    assert ((counts - expected).abs() < 4 * errors).all()


def test_a_mixture_is_torchs_mixture_of_its_components() -> None:
    ours = mixture(3, 4, 2)
    components = DiscretizedLogistic(ours.loc, ours.scale, **PIXELS, event_dims=0)
    theirs = MixtureSameFamily(Categorical(logits=ours.logits), components, validate_args=False)
    value = ours.sample(torch.Size((6,)))
    torch.testing.assert_close(ours.log_prob(value), theirs.log_prob(value))


def test_the_support_says_which_values_are_not_on_the_grid() -> None:
    bytes_ = DiscretizedLogistic(torch.zeros(2), torch.ones(2), 0, 255, 256, event_dims=0)
    value = torch.tensor([[0.0, 255.0], [3.0, 3.5], [-1.0, 256.0]])
    expected = torch.tensor([[True, True], [True, False], [False, False]])
    assert torch.equal(bytes_.support.check(value), expected)
    assert bytes_.support.is_discrete


def test_shapes_types_and_grids_of_logistics() -> None:
    half = torch.zeros(4, 3, 2, 5, dtype=torch.bfloat16)
    deep = DiscretizedLogisticMixture(half, half, half.exp(), **PIXELS, event_dims=2)
    flat = DiscretizedLogistic(half[..., 0], half[..., 0].exp(), **PIXELS, event_dims=2)
    for distribution in (deep, flat):
        assert (distribution.batch_shape, distribution.event_shape) == ((4,), (3, 2))
        wide = distribution.expand((6, 4))
        value = wide.sample(torch.Size((2,)))
        assert value.shape == (2, 6, 4, 3, 2)
        assert wide.log_prob(value).shape == (2, 6, 4)
        assert wide.log_prob(value).dtype == torch.float32
        assert wide.mean.shape == (6, 4, 3, 2)
        assert stop_gradient(distribution).bins == 256
    with pytest.raises(ValueError, match="bins=1"):
        DiscretizedLogistic(torch.zeros(2), torch.ones(2), 0, 1, 1)
    with pytest.raises(ValueError, match="low=1"):
        DiscretizedLogistic(torch.zeros(2), torch.ones(2), 1, 0, 8)


def test_single_precision_agrees_with_double() -> None:
    double = mixture(5, 40, event_dims=1)
    single = double.mapped(Tensor.float, 1)
    value = double.sample(torch.Size((9,)))
    torch.testing.assert_close(
        single.log_prob(value.float()).double(), double.log_prob(value), rtol=1e-5, atol=1e-4
    )
