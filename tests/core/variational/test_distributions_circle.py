from __future__ import annotations

import math

import mpmath
import pytest
import torch
from torch import Tensor
from torch.distributions import Independent, VonMises

from core.variational.distributions import DiagonalNormal, WrappedNormal, stop_gradient
from core.variational.divergences import kl

SCALES = [0.05, 0.3, 0.399, 0.401, 1.0, 2.0, 2.5, 2.51, 4.0, 50.0]


def circle(nodes: int = 4096) -> Tensor:
    return torch.arange(nodes, dtype=torch.float64) * (2 * math.pi / nodes) - math.pi


def of_scale(scale: float, loc: float = 0.0) -> WrappedNormal:
    loc_, scale_ = torch.tensor([loc, scale], dtype=torch.float64)
    return WrappedNormal(loc_, scale_, event_dims=0)


@pytest.mark.parametrize("scale", SCALES)
def test_the_truncated_sums_have_the_relative_error_stated(scale: float) -> None:
    mpmath.mp.dps = 40
    for angle in (0.0, 0.7, 2.0, 3.1, math.pi):
        terms = [
            mpmath.exp(-((angle + 2 * mpmath.pi * k) ** 2) / (2 * mpmath.mpf(scale) ** 2))
            for k in range(-80, 81)
        ]
        exact = mpmath.log(mpmath.fsum(terms) / (scale * mpmath.sqrt(2 * mpmath.pi)))
        ours = float(of_scale(scale).log_prob(torch.tensor(angle, dtype=torch.float64)))
        assert ours == pytest.approx(float(exact), rel=2e-15, abs=2e-15)


@pytest.mark.parametrize("scale", SCALES)
def test_the_density_integrates_to_one_on_the_circle(scale: float) -> None:
    """By the trapezoid rule, which is exact for a periodic function with enough nodes."""
    angles = circle()
    log_density = of_scale(scale, loc=1.0).log_prob(angles)
    step = 2 * math.pi / len(angles)
    density = log_density.exp() * step
    assert float(density.sum()) == pytest.approx(1, abs=1e-12)
    entropy = -(density * log_density).sum()
    assert float(of_scale(scale).entropy()) == pytest.approx(float(entropy), abs=1e-11)
    length = (density * (angles - 1).cos()).sum()
    assert float(of_scale(scale).mean_resultant_length) == pytest.approx(float(length), abs=1e-12)


def test_the_density_is_the_same_one_turn_on() -> None:
    distribution = WrappedNormal(torch.randn(3).double(), torch.rand(3).double() + 0.2)
    value = torch.randn(5, 3, dtype=torch.float64)
    for turns in (-2, 1, 7):
        torch.testing.assert_close(
            distribution.log_prob(value + 2 * math.pi * turns), distribution.log_prob(value)
        )


def test_samples_are_a_normals_taken_modulo_a_turn() -> None:
    loc, scale = torch.tensor([3.0, -2.0]), torch.tensor([2.0, 0.3])
    torch.manual_seed(4)
    angles = WrappedNormal(loc, scale).rsample(torch.Size((1000,)))
    torch.manual_seed(4)
    straight = DiagonalNormal(loc, scale).rsample(torch.Size((1000,)))
    assert ((angles >= -math.pi) & (angles < math.pi + 1e-6)).all()
    turns = (straight - angles) / (2 * math.pi)
    torch.testing.assert_close(turns, turns.round(), rtol=0, atol=1e-5)


def test_several_angles_make_a_torus() -> None:
    loc = torch.randn(4, 2, 3, dtype=torch.float64)
    torus = WrappedNormal(loc, torch.ones(3), event_dims=2)
    single = WrappedNormal(loc, torch.ones(3), event_dims=0)
    value = torus.rsample(torch.Size((5,)))
    assert (torus.batch_shape, torus.event_shape) == ((4,), (2, 3))
    torch.testing.assert_close(torus.log_prob(value), single.log_prob(value).sum((-2, -1)))
    torch.testing.assert_close(torus.entropy(), single.entropy().sum((-2, -1)))
    assert torus.expand((6, 4)).rsample().shape == (6, 4, 2, 3)
    assert not stop_gradient(WrappedNormal(loc.requires_grad_(), loc.exp())).loc.requires_grad


def test_gradients_are_those_of_finite_differences() -> None:
    loc = torch.randn(6, dtype=torch.float64, requires_grad=True)
    scale = torch.tensor([0.1, 0.3, 0.6, 2.0, 3.0, 9.0], dtype=torch.float64, requires_grad=True)
    value = loc.detach() + torch.tensor([0.1, 0.5, 3.0, 2.0, 1.0, 1.0]).double()
    assert torch.autograd.gradcheck(
        lambda loc, scale: WrappedNormal(loc, scale, 0).log_prob(value), (loc, scale)
    )
    assert torch.autograd.gradcheck(
        lambda loc, scale: WrappedNormal(loc, scale, 0).entropy(), (loc, scale)
    )


def test_single_precision_agrees_with_double_and_half_is_not_kept() -> None:
    loc, value = torch.randn(2, 50, dtype=torch.float64)
    scale = torch.logspace(-1, 1, 50, dtype=torch.float64)
    double = WrappedNormal(loc, scale, 0).log_prob(value)
    single = WrappedNormal(loc.float(), scale.float(), 0).log_prob(value.float())
    torch.testing.assert_close(single.double(), double, rtol=1e-5, atol=1e-5)
    half = WrappedNormal(loc.bfloat16(), scale.bfloat16(), 0)
    assert half.log_prob(value.float()).dtype == torch.float32


def test_the_kl_of_von_mises_distributions_is_their_integral() -> None:
    concentrations = torch.tensor([1e-3, 0.5, 4.0, 80.0], dtype=torch.float64)
    posterior = VonMises(torch.zeros(4).double(), concentrations)
    prior = VonMises(torch.full((4,), 0.4).double(), concentrations.flip(0))
    angles = circle().unsqueeze(-1)
    step = 2 * math.pi / len(angles)
    log_ratio = posterior.log_prob(angles) - prior.log_prob(angles)
    expected = (posterior.log_prob(angles).exp() * log_ratio).sum(0) * step
    # torch's own densities are of single precision.
    torch.testing.assert_close(kl(posterior, prior)[0], expected, rtol=1e-5, atol=1e-6)


def test_a_torus_has_a_kl_to_independent_von_mises_angles() -> None:
    loc = torch.randn(4, 3, dtype=torch.float64)
    torus, prior = WrappedNormal(loc, loc.exp()), Independent(VonMises(0 * loc, loc.exp()), 1)
    value = torus.rsample(torch.Size((20_000,)))
    ratios = torus.log_prob(value) - prior.log_prob(value)
    closed, is_closed = kl(torus, prior)
    assert is_closed
    assert ((closed - ratios.mean(0)).abs() < 4 * ratios.std(0) / math.sqrt(20_000)).all()
