from __future__ import annotations

import math

import mpmath
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.distributions import Independent, Normal, Uniform

from core.variational.distributions import (
    CentredNormal,
    UniformConvolvedNormal,
    UnitUniform,
    stop_gradient,
)
from core.variational.divergences import kl

mpmath.mp.dps = 60
DISTANCES = [0.0, 0.2, 0.499, 0.5, 0.501, 0.7, 3.0, 40.0, 1e3]
SCALES = [1e-3, 0.05, 0.4, 1.0, 7.0, 60.0, 1e3, 1e5, 1e7]
SEEDS = st.integers(0, 2**31 - 1)


def log_mass(distance: float, scale: float) -> mpmath.mpf:
    """In 60 digits, by the tail that does not cancel to less than 30."""
    near, far = ((mpmath.mpf(distance) + side) / scale for side in (-0.5, 0.5))
    root = mpmath.sqrt(2)
    mass = (mpmath.erfc(near / root) - mpmath.erfc(far / root)) / 2
    return mpmath.log(mass)


def derivatives(distance: float, scale: float) -> tuple[float, float]:
    near, far = ((mpmath.mpf(distance) + side) / scale for side in (-0.5, 0.5))
    mass = mpmath.exp(log_mass(distance, scale))
    low, high = mpmath.npdf(near) / mass, mpmath.npdf(far) / mass
    return float((high - low) / scale), float((far * -high + near * low) / scale)


def prior(loc: Tensor, scale: Tensor | float) -> UniformConvolvedNormal:
    return UniformConvolvedNormal(loc, torch.as_tensor(scale, dtype=loc.dtype), event_dims=0)


@pytest.mark.parametrize("scale", SCALES)
def test_log_mass_and_gradient_are_exact_at_any_distance_and_scale(scale: float) -> None:
    for distance in DISTANCES:
        for sign in (-1, 1):
            loc = torch.tensor(0.0, dtype=torch.float64, requires_grad=True)
            spread = torch.tensor(scale, dtype=torch.float64, requires_grad=True)
            value = torch.tensor(sign * distance, dtype=torch.float64)
            ours = UniformConvolvedNormal(loc, spread, event_dims=0).log_prob(value)
            assert float(ours.detach()) == pytest.approx(
                float(log_mass(distance, scale)), rel=1e-10, abs=1e-14
            )
            by_loc, by_scale = torch.autograd.grad(ours, (loc, spread))
            by_distance, expected = derivatives(distance, scale)
            assert float(by_scale) == pytest.approx(expected, rel=1e-9, abs=1e-300)
            assert float(by_loc) == pytest.approx(-sign * by_distance, rel=1e-9, abs=1e-300)


@pytest.mark.parametrize("scale", SCALES)
def test_single_precision_agrees_with_double(scale: float) -> None:
    distance = torch.tensor(DISTANCES, dtype=torch.float64)
    double = prior(torch.zeros_like(distance), scale).log_prob(distance)
    single = prior(torch.zeros(len(distance)), scale).log_prob(distance.float())
    # Rounding the distance moves the log mass by distance² / scale² times the precision.
    torch.testing.assert_close(single.double(), double, rtol=1e-5, atol=3e-5)


def test_far_out_the_gradient_still_points_home() -> None:
    """Where a clamp at 1e-6 gives none: 4,000 standard deviations away, in single precision."""
    loc = torch.zeros(1, requires_grad=True)
    scale = torch.full((1,), 0.01, requires_grad=True)
    UniformConvolvedNormal(loc, scale).log_prob(torch.tensor([40.0])).backward()
    assert loc.grad is not None
    assert scale.grad is not None
    assert float(loc.grad) == pytest.approx(39.5 / 0.01**2, rel=1e-3)
    assert float(scale.grad) == pytest.approx(39.5**2 / 0.01**3, rel=1e-3)


@pytest.mark.parametrize("scale", [0.01, 0.3, 1.0, 5.0, 30.0])
@pytest.mark.parametrize("loc", [0.0, 0.37, -12.5])
def test_masses_of_the_grid_add_up_to_one(loc: float, scale: float) -> None:
    centre = torch.tensor(loc, dtype=torch.float64)
    integers = torch.arange(-400, 401, dtype=torch.float64)
    for grid in (centre + integers, integers):  # the grid of `nearest`, and the integers
        total = prior(centre, scale).log_prob(grid).exp().sum()
        assert float(total) == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("scale", [0.05, 0.5, 4.0])
def test_the_density_integrates_to_one_with_the_moments_said(scale: float) -> None:
    density = prior(torch.tensor(0.3).double(), scale)
    z = torch.linspace(-40, 40, 400_001, dtype=torch.float64)
    weights = density.log_prob(z).exp() * (z[1] - z[0])
    assert float(weights.sum()) == pytest.approx(1, abs=1e-6)
    assert float((weights * z).sum()) == pytest.approx(0.3, abs=1e-6)
    variance = (weights * (z - 0.3).square()).sum()
    assert float(variance) == pytest.approx(float(density.variance), abs=1e-6)
    draws = density.rsample(torch.Size((20_000,)))
    assert float(draws.var()) == pytest.approx(float(variance), rel=0.05)


def test_the_rate_of_rounded_values_is_their_ideal_code_length() -> None:
    """Coded values cost on average the entropy of the rounded variable: the ideal code."""
    loc, scale = torch.tensor([0.3, -2.2]).double(), torch.tensor([1.5, 0.4]).double()
    model = UniformConvolvedNormal(loc, scale)
    values = Normal(loc, scale).sample(torch.Size((20_000,)))
    coded = model.nearest(values)
    torch.testing.assert_close(coded - loc, (coded - loc).round())
    assert ((values - coded).abs() <= 0.5 + 1e-12).all()
    bits = model.code_length(values)
    grid = loc + torch.arange(-30, 31).unsqueeze(-1)
    masses = UniformConvolvedNormal(loc, scale, event_dims=0).log_prob(grid).exp()
    entropy = -torch.xlogy(masses, masses).sum() / math.log(2)
    assert abs(bits.mean() - entropy) < 4 * bits.std() / math.sqrt(len(bits))
    assert float(model.code_length(loc)) == pytest.approx(
        -float(model.log_prob(loc)) / math.log(2)
    )


@settings(max_examples=15, deadline=None)
@given(seed=SEEDS, scale=st.floats(0.05, 20.0))
def test_uniform_noise_costs_in_expectation_the_kl_that_quadrature_finds(
    seed: int, scale: float
) -> None:
    torch.manual_seed(seed)
    loc, mean = torch.randn(2, 3, dtype=torch.float64)
    posterior = UnitUniform(loc)
    model = UniformConvolvedNormal(mean, torch.tensor(scale, dtype=torch.float64))
    offsets = (torch.arange(2000, dtype=torch.float64) + 0.5) / 2000 - 0.5
    at = loc + offsets.unsqueeze(-1)
    expected = -prior(mean, scale).log_prob(at).mean(0).sum()
    estimate, is_closed = kl(posterior, model, posterior.rsample(torch.Size((20_000,))))
    assert not is_closed
    error = estimate.std() / math.sqrt(20_000)
    assert abs(estimate.mean() - expected) < 4.5 * error + 1e-6 * expected.abs()


def test_unit_uniform_is_torchs_uniform() -> None:
    loc = torch.randn(4, 3, dtype=torch.float64)
    ours, theirs = UnitUniform(loc), Independent(Uniform(loc - 0.5, loc + 0.5), 1)
    value = ours.rsample(torch.Size((50,)))
    torch.testing.assert_close(ours.log_prob(value), theirs.log_prob(value))
    torch.testing.assert_close(ours.entropy(), theirs.entropy(), rtol=0, atol=1e-12)
    torch.testing.assert_close(ours.variance, theirs.variance)
    assert ours.support.check(value).all()
    assert (ours.log_prob(value + 1.5) == -torch.inf).all()
    wide = CentredNormal(loc, 2.0)
    torch.testing.assert_close(kl(ours, wide)[0], kl(theirs, wide)[0])


def test_its_own_samples_are_inside_whatever_the_rounding() -> None:
    posterior = UnitUniform(torch.tensor([[1e-3], [7.3], [1e4], [1e6]]))
    assert (posterior.log_prob(posterior.rsample(torch.Size((2000,)))) == 0).all()


def test_noise_passes_the_gradient_and_rounding_does_not() -> None:
    loc = torch.randn(4, 3, requires_grad=True)
    (slope,) = torch.autograd.grad(UnitUniform(loc).rsample().sum(), loc)
    assert (slope == 1).all()
    model = UniformConvolvedNormal(torch.zeros(4, 3), torch.ones(3))
    assert not model.nearest(loc).requires_grad
    assert not stop_gradient(UnitUniform(loc)).loc.requires_grad
    assert stop_gradient(model).event_shape == (3,)


def test_shapes_and_types_are_kept() -> None:
    half = torch.zeros(4, 5, 2, dtype=torch.bfloat16)
    for distribution in (
        UnitUniform(half, event_dims=2),
        UniformConvolvedNormal(half, half.exp(), event_dims=2),
    ):
        assert (distribution.batch_shape, distribution.event_shape) == ((4,), (5, 2))
        wide = distribution.expand((3, 4))
        value = wide.rsample(torch.Size((2,)))
        assert value.shape == (2, 3, 4, 5, 2)
        assert wide.log_prob(value).dtype == torch.float32
        with pytest.raises(ValueError, match="event shape"):
            distribution.log_prob(value[..., :1])
