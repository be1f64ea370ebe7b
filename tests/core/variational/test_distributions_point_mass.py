"""Zero inflation and Delta: distributions with mass on single values."""

from __future__ import annotations

import math

import pytest
import torch
from torch.distributions import Gamma, LogNormal, NegativeBinomial, Normal, Poisson

from core.variational.distributions import Delta, ZeroInflated, stop_gradient

COUNTS = torch.arange(200, dtype=torch.float64)


@pytest.mark.parametrize("gate", [-30.0, -1.0, 0.5, 30.0])
def test_zero_inflated_counts_add_up_to_one_with_their_moments(gate: float) -> None:
    rate = torch.tensor([0.3, 4.0], dtype=torch.float64)
    for base in (Poisson(rate), NegativeBinomial(rate, logits=torch.tensor(-0.5).double())):
        counts = ZeroInflated(base, torch.tensor(gate).double(), event_dims=0)
        table = counts.log_prob(COUNTS.unsqueeze(-1).expand(-1, 2)).exp()
        at = COUNTS.unsqueeze(-1)
        mean = (table * at).sum(0)
        torch.testing.assert_close(table.sum(0), torch.ones(2).double(), rtol=0, atol=1e-9)
        torch.testing.assert_close(counts.mean, mean)
        torch.testing.assert_close(counts.variance, (table * (at - mean).square()).sum(0))


def test_zero_inflated_samples_have_their_share_of_zeros() -> None:
    counts = ZeroInflated(Poisson(torch.tensor([2.0])), torch.tensor([-0.4]))
    draws = counts.sample(torch.Size((20_000,)))
    share = counts.log_prob(torch.zeros(1)).exp()
    error = math.sqrt(float(share) * (1 - float(share)) / 20_000)
    assert float((draws == 0).double().mean()) == pytest.approx(float(share), abs=4 * error)


def test_a_continuous_base_has_an_atom_at_zero_and_a_density_elsewhere() -> None:
    shape = torch.tensor([0.5, 3.0], dtype=torch.float64, requires_grad=True)
    gate = torch.tensor([0.2, -2.0], dtype=torch.float64, requires_grad=True)
    data = ZeroInflated(Gamma(shape, torch.ones(2).double()), gate)
    assert not data.is_discrete
    log_prob = data.log_prob(torch.zeros(1, 2).double())
    torch.testing.assert_close(log_prob[0], gate.sigmoid().log().sum())
    log_prob.sum().backward()
    assert shape.grad is not None
    assert (shape.grad == 0).all()
    density = ZeroInflated(Normal(0.3, 1.0), torch.tensor(0.4).double(), event_dims=0)
    grid = torch.linspace(-9, 9, 200_000, dtype=torch.float64)
    total = density.log_prob(grid).exp().sum() * (grid[1] - grid[0])
    assert float(total) == pytest.approx(float(torch.tensor(-0.4).sigmoid()), abs=1e-6)


def test_at_zero_a_continuous_base_has_no_gradient_and_not_its_infinite_one() -> None:
    loc = torch.zeros(2, requires_grad=True)
    data = ZeroInflated(LogNormal(loc, torch.ones(2), validate_args=False), torch.zeros(2))
    data.log_prob(torch.tensor([0.0, 2.0])).backward()
    assert loc.grad is not None
    assert loc.grad.tolist() == pytest.approx([0.0, math.log(2)])


def test_zero_inflated_shapes_and_gradients() -> None:
    gate, rate = torch.zeros(4, 3, requires_grad=True), torch.ones(3, requires_grad=True)
    counts = ZeroInflated(Poisson(rate, validate_args=False), gate)
    assert (counts.batch_shape, counts.event_shape) == ((4,), (3,))
    assert counts.expand((6, 4)).sample().shape == (6, 4, 3)
    fixed = stop_gradient(counts)
    assert not fixed.log_prob(torch.ones(4, 3)).requires_grad
    assert counts.support.check(torch.tensor([[0.0, 1.0, 2.0]])).all()
    assert not counts.support.check(torch.tensor([[0.0, 1.0, -2.0]])).any()
    with pytest.raises(ValueError, match=r"event shape \(3,\)"):
        ZeroInflated(Delta(torch.zeros(4, 3)), gate)


def test_a_value_without_spread_is_its_own_sample_mean_and_mode() -> None:
    value = torch.randn(4, 3, requires_grad=True)
    delta = Delta(value)
    draws = delta.rsample(torch.Size((5,)))
    assert torch.equal(draws, value.expand(5, 4, 3))
    assert (delta.log_prob(draws) == 0).all()
    assert (delta.log_prob(draws + torch.tensor([0.0, 0.0, 1.0])) == -torch.inf).all()
    assert (delta.entropy() == 0).all()
    assert (delta.variance == 0).all()
    (slope,) = torch.autograd.grad(draws.sum(), value)
    assert (slope == 5).all()
    assert not stop_gradient(delta).value.requires_grad
    codes = Delta(torch.tensor([[1, 2], [3, 4]]))
    assert codes.log_prob(torch.tensor([1, 2])).tolist() == [0.0, -torch.inf]
