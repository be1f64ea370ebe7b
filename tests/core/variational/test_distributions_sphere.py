from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, special, stats
from torch import Tensor
from torch.distributions import VonMises

from core.variational.distributions import (
    HypersphericalUniform,
    PowerSpherical,
    VonMisesFisher,
    stop_gradient,
)
from core.variational.distributions.bessel import bessel_ratio, log_bessel
from core.variational.distributions.sphere import log_sphere_area
from core.variational.distributions.von_mises_fisher import versine_slope, wood_versines
from core.variational.divergences import kl

SEEDS = st.integers(0, 2**31 - 1)
CONCENTRATIONS = [0.0, 1e-4, 0.3, 2.0, 30.0, 1e3, 1e6]
Build = Callable[..., VonMisesFisher | PowerSpherical]
both = pytest.mark.parametrize("build", [VonMisesFisher, PowerSpherical])


def pole(dimension: int) -> Tensor:
    loc = torch.zeros(dimension, dtype=torch.float64)
    loc[0] = 1
    return loc


def at_pole(build: Build, dimension: int, kappa: float) -> VonMisesFisher | PowerSpherical:
    return build(pole(dimension), torch.tensor(kappa, dtype=torch.float64))


def at_cosines(dimension: int, cosines: Tensor) -> Tensor:
    x = torch.zeros(len(cosines), dimension, dtype=torch.float64)
    x[:, 0] = cosines
    x[:, 1] = (1 - cosines.square()).clamp(min=0).sqrt()
    return x


@pytest.mark.parametrize("order", [0, 0.5, 1, 4, 9.5, 14.5, 24, 255])
def test_bessel_functions_of_any_order_are_scipys(order: float) -> None:
    x = torch.logspace(-3, 6, 200, dtype=torch.float64)
    with np.errstate(invalid="ignore"):
        ratio = special.ive(order + 1, x.numpy()) / special.ive(order, x.numpy()) / x.numpy()
    logs = (
        special.gammaln(order + 1)
        - order * (x / 2).log().numpy()
        + torch.from_numpy(special.ive(order, x.numpy())).log().numpy()
    )
    there = torch.from_numpy(special.ive(order + 1, x.numpy()) > 1e-280)  # scipy underflows
    torch.testing.assert_close(
        bessel_ratio(order, x)[there], torch.from_numpy(ratio)[there], rtol=1e-12, atol=0
    )
    torch.testing.assert_close(
        log_bessel(order, x)[there], torch.from_numpy(logs)[there], rtol=1e-12, atol=1e-11
    )


def test_bessel_functions_of_order_one_half_are_elementary() -> None:
    x = torch.logspace(-8, 8, 100, dtype=torch.float64)
    expected = (-torch.expm1(-2 * x) / (2 * x)).log()
    torch.testing.assert_close(log_bessel(0.5, x), expected, rtol=1e-14, atol=1e-14)
    ratio = (1 / x.tanh() - 1 / x) / x
    large = x > 1e-2  # below, the elementary form cancels
    torch.testing.assert_close(bessel_ratio(0.5, x)[large], ratio[large], rtol=1e-11, atol=0)


@pytest.mark.parametrize("order", [0, 0.5, 4, 24])
@pytest.mark.parametrize("x", [0.0, 0.5, 3.0, 40.0])
def test_bessel_functions_have_the_slope_of_finite_differences(order: float, x: float) -> None:
    at = torch.tensor([x, x + 0.1], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: log_bessel(order, x), (at + 1e-3,))
    assert torch.autograd.gradcheck(lambda x: bessel_ratio(order, x), (at + 1e-3,))


@pytest.mark.parametrize("dimension", [2, 3, 10, 600])
def test_the_slope_of_the_log_normaliser_is_the_mean_resultant_length(dimension: int) -> None:
    order = dimension / 2 - 1
    kappa = torch.tensor(CONCENTRATIONS, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(log_bessel(order, kappa).sum(), kappa)
    length = kappa * bessel_ratio(order, kappa)
    torch.testing.assert_close(slope + 1, length.detach(), rtol=1e-12, atol=1e-14)
    (variance,) = torch.autograd.grad(length.sum(), kappa)
    # For 1 - t: Var = A' -> (d - 1) / 2κ² at large κ, where A' from 1 - A² - ... would cancel.
    assert float(variance[-1]) == pytest.approx((dimension - 1) / 2 / 1e12, rel=1e-3, abs=0)
    identity = 1 - length.square() - (dimension - 1) * length / kappa
    torch.testing.assert_close(variance[1:-2], identity[1:-2].detach(), rtol=1e-10, atol=0)
    assert float(variance[0]) == pytest.approx(1 / dimension, rel=1e-12)


def _quadrature(cuts: list[float]) -> tuple[Tensor, Tensor]:
    """Gauss–Legendre nodes and weights of the pieces between 0 and π."""
    nodes, weights = (torch.from_numpy(each) for each in np.polynomial.legendre.leggauss(64))
    edges = torch.tensor(sorted({min(cut, math.pi) for cut in cuts}), dtype=torch.float64)
    half = (edges[1:] - edges[:-1]).unsqueeze(-1) / 2
    centres = (edges[1:] + edges[:-1]).unsqueeze(-1) / 2
    return (centres + half * nodes).flatten(), (half * weights).flatten()


@both
@pytest.mark.parametrize("dimension", [2, 3, 5, 50])
@pytest.mark.parametrize("kappa", [0.0, 0.5, 5.0, 100.0, 1e4])
def test_densities_integrate_to_one_and_give_entropy_and_moments(
    build: Build, dimension: int, kappa: float
) -> None:
    distribution = at_pole(build, dimension, kappa)
    width = math.sqrt(dimension / (kappa + dimension))
    angles, weights = _quadrature([0.0, *(width * k for k in (0.25, 0.5, 1, 2, 4, 8)), math.pi])
    ring = log_sphere_area(dimension - 1) if dimension > 2 else math.log(2)
    areas = weights * (ring + (dimension - 2) * angles.sin().log()).exp()
    cosines = angles.cos()
    log_density = distribution.log_prob(at_cosines(dimension, cosines))

    def expected(function: Callable[[Tensor, Tensor], Tensor]) -> float:
        return float((areas * log_density.exp() * function(cosines, log_density)).sum())

    assert expected(lambda t, p: torch.ones_like(t)) == pytest.approx(1, abs=1e-9)
    assert expected(lambda t, p: -p) == pytest.approx(float(distribution.entropy()), abs=1e-8)
    assert expected(lambda t, p: t) == pytest.approx(float(distribution.mean[0]), abs=1e-9)
    along = expected(lambda t, p: (t - distribution.mean[0]).square())
    assert along == pytest.approx(float(distribution.variance[0]), abs=1e-9)
    across = expected(lambda t, p: 1 - t.square()) / (dimension - 1)
    assert across == pytest.approx(float(distribution.variance[1]), abs=1e-9)


@pytest.mark.parametrize("kappa", [0.1, 3.0, 500.0])
def test_on_the_circle_it_is_torchs_von_mises(kappa: float) -> None:
    angles = torch.linspace(-3, 3, 13, dtype=torch.float64)
    theirs = VonMises(torch.tensor(0.4).double(), torch.tensor(kappa).double())
    loc = torch.stack([theirs.loc.cos(), theirs.loc.sin()])
    ours = VonMisesFisher(loc, torch.tensor(kappa).double())
    value = torch.stack([angles.cos(), angles.sin()], -1)
    torch.testing.assert_close(
        ours.log_prob(value), theirs.log_prob(angles), rtol=1e-6, atol=1e-5
    )  # torch's Bessel function is a polynomial of single precision


@pytest.mark.parametrize("dimension", [3, 8])
def test_it_is_scipys_von_mises_fisher(dimension: int) -> None:
    loc = torch.nn.functional.normalize(torch.randn(dimension, dtype=torch.float64), dim=0)
    ours = VonMisesFisher(loc, torch.tensor(7.0, dtype=torch.float64))
    theirs = stats.vonmises_fisher(loc.numpy(), 7.0)
    value = ours.sample(torch.Size((5,)))
    expected = torch.from_numpy(theirs.logpdf(value.numpy()))
    torch.testing.assert_close(ours.log_prob(value), expected)
    assert float(ours.entropy()) == pytest.approx(theirs.entropy())


@pytest.mark.parametrize("dimension", [3, 10, 50])
def test_s161_kl_to_the_uniform_is_what_samples_say_and_the_mean_is_as_long_as_said(
    dimension: int,
) -> None:
    """Seed S161's check, for the sphere in 3, 10 and 50 dimensions; and for power spherical."""
    loc = torch.randn(4, dimension, dtype=torch.float64)
    kappa = torch.tensor([0.5, 5.0, 50.0, 500.0], dtype=torch.float64)
    uniform = HypersphericalUniform(loc)
    for distribution in (VonMisesFisher(loc, kappa), PowerSpherical(loc, kappa)):
        value = distribution.sample(torch.Size((20_000,)))
        ratios = distribution.log_prob(value) - uniform.log_prob(value)
        closed, is_closed = kl(distribution, uniform)
        assert is_closed
        assert ((closed - ratios.mean(0)).abs() < 3 * ratios.std(0) / math.sqrt(20_000)).all()
        cosines = (value * distribution.loc).sum(-1)
        errors = 4 * cosines.std(0) / math.sqrt(20_000)
        length = distribution.mean_resultant_length
        assert ((cosines.mean(0) - length).abs() < errors).all()
    assert (distribution.mean.norm(dim=-1) - length).abs().max() < 1e-12


@both
@settings(max_examples=25, deadline=None)
@given(seed=SEEDS, dimension=st.integers(2, 40), log_kappa=st.floats(-7, 14))
def test_samples_are_unit_vectors_of_the_shape_asked_for(
    build: Build, seed: int, dimension: int, log_kappa: float
) -> None:
    torch.manual_seed(seed)
    kappa = torch.full((2, 3), math.exp(log_kappa))
    distribution = build(torch.randn(2, 3, dimension), kappa, event_dims=2)
    value = distribution.rsample(torch.Size((5,)))
    assert value.shape == (5, 2, 3, dimension)
    assert (value.norm(dim=-1) - 1).abs().max() < 1e-5
    assert distribution.support.check(value).all()
    assert not distribution.support.check(1.1 * value).any()
    log_prob = distribution.log_prob(value)
    assert log_prob.shape == (5, 2)
    assert log_prob.isfinite().all()


@pytest.mark.parametrize("dimension", [2, 3, 7, 40])
@pytest.mark.parametrize("kappa", [0.0, 0.2, 4.0, 300.0])
def test_accepted_proposals_are_distributed_as_they_should(dimension: int, kappa: float) -> None:
    kappas = torch.tensor(kappa, dtype=torch.float64)
    versines = wood_versines(kappas, dimension, torch.Size((4000,))).numpy()
    grid = torch.linspace(0, math.pi, 20_001, dtype=torch.float64)
    log_density = kappa * (grid.cos() - 1) + (dimension - 2) * grid.sin().clamp(min=1e-300).log()
    cumulative = integrate.cumulative_trapezoid(log_density.exp().numpy(), grid.numpy(), initial=0)
    angles = 2 * np.arcsin(np.sqrt(versines / 2))
    shares = np.interp(angles, grid.numpy(), cumulative / cumulative[-1])
    assert stats.kstest(shares, "uniform").pvalue > 1e-3


@pytest.mark.parametrize("dimension", [2, 3, 4, 10, 200])
@pytest.mark.parametrize("kappa", [0.1, 2.0, 50.0, 1e4])
def test_the_implicit_derivative_is_that_of_the_quantiles(dimension: int, kappa: float) -> None:
    """Against scipy's integral of the derivative of the density, at the quantiles of samples."""
    kappas = torch.tensor(kappa, dtype=torch.float64)
    versines = wood_versines(kappas, dimension, torch.Size((6,)))
    slopes = versine_slope(kappas, versines, dimension)
    mean = 1 - float(kappas * bessel_ratio(dimension / 2 - 1, kappas))
    for versine, slope in zip(versines.tolist(), slopes.tolist(), strict=True):
        angle = 2 * math.asin(math.sqrt(versine / 2))

        def ratio(other: float, angle: float = angle, versine: float = versine) -> float:
            there = 2 * math.sin(other / 2) ** 2
            sines = math.sin(other) / math.sin(angle)
            density = math.exp(-kappa * (there - versine)) * sines ** (dimension - 2)
            return (mean - there) * density

        width = 3 * math.sqrt(mean / 2)
        points = [min(math.pi, angle + width * k) for k in (0.1, 0.3, 1, 3)]
        if versine <= mean:
            integral = -integrate.quad(ratio, 0, angle, epsabs=1e-13, limit=200)[0]
        else:
            integral = integrate.quad(
                ratio, angle, math.pi, points=points, epsabs=1e-13, limit=200
            )[0]
        assert slope == pytest.approx(math.sin(angle) * integral, rel=1e-7, abs=0)


def test_in_three_dimensions_the_samples_have_an_elementary_quantile_function() -> None:
    """1 - t = -log(u + (1 - u) e^(-2κ)) / κ, whose derivative at fixed u is the gradient."""
    share = torch.linspace(0.01, 0.99, 21, dtype=torch.float64)
    for kappa in (0.5, 10.0, 200.0):
        at = torch.full_like(share, kappa).requires_grad_()
        versine = -(share + (1 - share) * (-2 * at).exp()).log() / at
        (expected,) = torch.autograd.grad(versine.sum(), at)
        slope = versine_slope(at.detach(), versine.detach(), 3)
        torch.testing.assert_close(slope, expected, rtol=1e-9, atol=1e-15)


@both
@pytest.mark.parametrize("dimension", [2, 3, 20])
def test_path_gradients_are_unbiased(build: Build, dimension: int) -> None:
    """Of E (w·x) and E (w·x)² with respect to concentration and direction, for any direction."""
    generator = torch.Generator().manual_seed(dimension)
    weights = torch.randn(dimension, dtype=torch.float64, generator=generator)
    raw = torch.randn(dimension, dtype=torch.float64, generator=generator).requires_grad_()
    kappa = torch.tensor(4.0, dtype=torch.float64, requires_grad=True)
    one = build(raw, kappa)
    exact = [(one.mean * weights).sum()]
    covariance = _covariance(one)
    exact.append(weights @ covariance @ weights + exact[0].square())
    draws = 20_000
    many = build(raw.expand(draws, -1), kappa.expand(draws))
    sums = (many.rsample() * weights).sum(-1)
    per_draw_raw, per_draw_kappa = raw.expand(draws, -1), kappa.expand(draws)
    for value, expected in zip((sums, sums.square()), exact, strict=True):
        slopes = torch.autograd.grad(expected, (raw, kappa), retain_graph=True)
        estimate = torch.autograd.grad(value.mean(), (raw, kappa), retain_graph=True)
        spread = _spread(build, per_draw_raw, per_draw_kappa, weights, value is not sums)
        for got, wanted, error in zip(estimate, slopes, spread, strict=True):
            assert ((got - wanted).abs() < 4.5 * error / math.sqrt(draws)).all()


def _covariance(distribution: VonMisesFisher | PowerSpherical) -> Tensor:
    dimension = distribution.dimension
    first = at_pole(type(distribution), dimension, 0.0)
    aligned = type(distribution)(first.loc, distribution.concentration)
    along, across = aligned.variance[0], aligned.variance[1]
    outer = distribution.loc.outer(distribution.loc)
    return along * outer + across * (torch.eye(dimension).double() - outer)


def _spread(
    build: Build, raw: Tensor, kappa: Tensor, weights: Tensor, squared: bool
) -> tuple[Tensor, Tensor]:
    raw, kappa = raw.detach().clone().requires_grad_(), kappa.detach().clone().requires_grad_()
    value = (build(raw, kappa).rsample() * weights).sum(-1)
    value = value.square() if squared else value
    by_raw, by_kappa = torch.autograd.grad(value.sum(), (raw, kappa))
    return by_raw.std(0), by_kappa.std(0)


@both
def test_log_densities_keep_their_digits_in_single_precision(build: Build) -> None:
    for dimension in (3, 50):
        kappa = torch.tensor([1e-3, 1.0, 100.0, 1e4], dtype=torch.float64)
        double = build(torch.randn(4, dimension, dtype=torch.float64), kappa)
        single = build(double.loc.float(), kappa.float())
        value = double.sample(torch.Size((50,)))
        for function in ("log_prob", "entropy"):
            arguments = (value,) if function == "log_prob" else ()
            rounded = (value.float(),) if function == "log_prob" else ()
            exact = getattr(double, function)(*arguments)
            ours = getattr(single, function)(*rounded)
            assert ours.dtype == torch.float32
            # A unit vector of single precision is off by 6e-8, which the density multiplies.
            slack = 1e-5 * (1 + exact.abs()) + 4e-6 * kappa.sqrt()
            assert ((ours.double() - exact).abs() < slack).all()


@both
def test_shapes_follow_the_event_dimensions_and_gradients_stop(build: Build) -> None:
    loc = torch.randn(4, 5, 3, requires_grad=True)
    distribution = build(loc, torch.ones(5), event_dims=2)
    assert (distribution.batch_shape, distribution.event_shape) == ((4,), (5, 3))
    assert distribution.entropy().shape == (4,)
    wide = distribution.expand((6, 4))
    assert wide.rsample().shape == (6, 4, 5, 3)
    assert wide.mean.shape == (6, 4, 5, 3)
    assert not stop_gradient(distribution).loc.requires_grad
    half = build(torch.randn(4, 3, dtype=torch.bfloat16), torch.ones(4, dtype=torch.bfloat16))
    assert half.entropy().dtype == torch.float32
    with pytest.raises(ValueError, match="event_dims=0"):
        build(loc, torch.ones(5), event_dims=0)
    with pytest.raises(ValueError, match="2 numbers or more"):
        build(torch.ones(4, 1), torch.ones(4))
    with pytest.raises(ValueError, match="event shape"):
        distribution.log_prob(torch.ones(4, 5, 2))


def test_the_density_moves_a_sample_as_finite_differences_say() -> None:
    value = torch.nn.functional.normalize(torch.randn(3, 4, dtype=torch.float64), dim=-1)
    loc = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    kappa = torch.tensor([0.5, 5.0, 50.0], dtype=torch.float64, requires_grad=True)
    for build in (VonMisesFisher, PowerSpherical):
        assert torch.autograd.gradcheck(
            lambda loc, kappa, build=build: build(loc, kappa).log_prob(value), (loc, kappa)
        )
        assert torch.autograd.gradcheck(
            lambda kappa, build=build: build(value, kappa).entropy(), (kappa,)
        )


def test_uniform_directions_have_a_constant_density_and_no_direction() -> None:
    uniform = HypersphericalUniform(torch.zeros(2, 3, dtype=torch.float64))
    value = uniform.rsample(torch.Size((20_000,)))
    assert (value.mean(0).abs() < 5 / math.sqrt(3 * 20_000)).all()
    torch.testing.assert_close(value.var(0), uniform.variance, rtol=0.03, atol=0)
    torch.testing.assert_close(uniform.log_prob(value[0]), -uniform.entropy())
    assert float(uniform.entropy()[0]) == pytest.approx(math.log(4 * math.pi))
    assert uniform.expand((5, 2)).rsample().shape == (5, 2, 3)
