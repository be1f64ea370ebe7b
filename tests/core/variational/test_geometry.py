from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import dijkstra
from scipy.stats import chi2
from torch import Tensor
from torch.distributions import (
    Distribution,
    Independent,
    Laplace,
    LowRankMultivariateNormal,
    MultivariateNormal,
    Normal,
)

from core.variational.distributions import DiagonalNormal
from core.variational.geometry import (
    PosteriorMetric,
    curve_energy,
    curve_length,
    exponential_map,
    geodesics,
    logarithm_map,
    neighbour_distance,
    posterior_metric,
    sample_uniform,
)

SEEDS = st.integers(0, 2**31 - 1)


def random_metric(
    centres: int = 12, latent: int = 2, floor: float = 0.05, decay: float = 0.05
) -> PosteriorMetric:
    means = 1.5 * torch.randn(centres, latent).double()
    factors = torch.randn(centres, latent, latent).double()
    precisions = factors @ factors.mT + torch.eye(latent).double()
    return PosteriorMetric(means, precisions, 1.2, floor, decay)


def floor_only(latent: int = 2, floor: float = 0.7, decay: float = 0.3) -> PosteriorMetric:
    """Return a metric whose posteriors are so wide that they weigh nothing."""
    precisions = 1e-14 * torch.eye(latent).double()[None]
    return PosteriorMetric(torch.zeros(1, latent).double(), precisions, 1.0, floor, decay)


def test_the_metric_is_its_formula() -> None:
    metric = random_metric(5, 3)
    z = torch.randn(4, 3).double()
    for point, found in zip(z.numpy(), metric(z).numpy(), strict=True):
        expected = 0.05 * math.exp(-0.05 * point @ point) * np.eye(3)
        for mean, precision in zip(metric.means.numpy(), metric.precisions.numpy(), strict=True):
            distance = (point - mean) @ precision @ (point - mean)
            expected += precision * math.exp(-distance / 1.2**2)
        np.testing.assert_allclose(found, expected, rtol=1e-10)


@settings(max_examples=40, deadline=None)
@given(
    seed=SEEDS,
    latent=st.integers(1, 5),
    floor=st.floats(1e-6, 10.0),
    decay=st.floats(0.0, 1.0),
    reach=st.floats(0.1, 15.0),
)
def test_s063_the_metric_is_symmetric_and_positive_definite_everywhere(
    seed: int, latent: int, floor: float, decay: float, reach: float
) -> None:
    torch.manual_seed(seed)
    metric = random_metric(6, latent, floor, decay)
    z = reach * torch.rand(32, latent).double()
    found = metric(z)
    assert torch.equal(found, found.mT) or (found - found.mT).abs().max() <= 1e-12 * found.max()
    assert (torch.linalg.eigvalsh(found) > 0).all()
    torch.testing.assert_close(metric.log_volume(z), 0.5 * torch.logdet(found))


def test_s063_the_log_volume_is_finite_where_the_metric_underflows() -> None:
    metric = random_metric()
    single = PosteriorMetric(metric.means.float(), metric.precisions.float(), 1.2, 1e-3, 0.1)
    far = torch.tensor([[30.0, 40.0]])
    assert float(single(far).abs().max()) == 0
    assert float(single.log_volume(far)) == pytest.approx(math.log(1e-3) - 250, rel=1e-6)


def test_the_volume_of_the_floor_is_known() -> None:
    metric = floor_only()
    axis = torch.linspace(-12, 12, 801, dtype=torch.float64)
    volume = metric.log_volume(torch.cartesian_prod(axis, axis)).exp().sum() * (24 / 800) ** 2
    assert float(volume) == pytest.approx(0.7 * math.pi / 0.3, rel=1e-9)


def test_the_speed_gradient_is_that_of_differentiation() -> None:
    metric = random_metric(5, 3)
    z = torch.randn(4, 3).double().requires_grad_()
    velocity = torch.randn(4, 3).double()
    speed = 0.5 * torch.einsum("bi,bij,bj->", velocity, metric(z), velocity)
    (expected,) = torch.autograd.grad(speed, z)
    torch.testing.assert_close(metric.speed_gradient(z, velocity).detach(), expected)


def test_the_gradient_of_the_log_volume_is_that_of_differentiation() -> None:
    metric = random_metric(5, 3)
    z = (2 * torch.randn(9, 3)).double().requires_grad_()
    expected = metric.log_volume(z)
    (slope,) = torch.autograd.grad(expected.sum(), z)
    found = metric.log_volume_gradient(z.detach())
    torch.testing.assert_close(found[0], expected.detach())
    torch.testing.assert_close(found[1], slope)


def test_s063_no_geodesic_is_longer_than_the_straight_line() -> None:
    metric = random_metric()
    start, end = 2 * torch.randn(2, 100, 2).double()
    found = geodesics(metric, start, end)
    straight = torch.stack([start, end], 1)
    independent = curve_length(metric, straight, 1024)
    torch.testing.assert_close(found.straight_length, independent, rtol=1e-3, atol=0)
    assert (found.length <= found.straight_length).sum() == 100
    assert (found.length < 0.99 * found.straight_length).sum() > 60
    assert torch.equal(found.curve[:, 0], start)
    assert torch.equal(found.curve[:, -1], end)


def test_a_geodesic_does_not_depend_on_the_other_pairs() -> None:
    metric = random_metric()
    start, end = torch.randn(2, 5, 2).double()
    together = geodesics(metric, start, end).length
    alone = geodesics(metric, start[2:3], end[2:3]).length
    torch.testing.assert_close(together[2:3], alone, rtol=1e-6, atol=0)


def test_geodesics_of_a_constant_metric_are_straight() -> None:
    precision = torch.tensor([[4.0, 1.0], [1.0, 2.0]]).double()
    metric = PosteriorMetric(torch.zeros(1, 2).double(), precision[None], 1e6, 1e-9, 0.0)
    start, end = torch.randn(2, 5, 2).double()
    found = geodesics(metric, start, end)
    step = end - start
    torch.testing.assert_close(found.length, (step @ precision * step).sum(-1).sqrt())
    times = torch.linspace(0, 1, 17).double()[:, None]
    expected = start[:, None] + times * step[:, None]
    torch.testing.assert_close(found.curve, expected, atol=1e-6, rtol=0)


def test_geodesics_through_the_origin_of_a_radial_metric_have_a_known_length() -> None:
    r""":math:`\int_0^r \sqrt\lambda e^{-\tau s^2 / 2} ds`, an error function."""
    metric = floor_only()
    end = torch.tensor([[1.0, 0.0], [1.2, -1.6]]).double()
    found = geodesics(metric, torch.zeros_like(end), end)
    radius = end.norm(dim=-1)
    scale = math.sqrt(0.7 * math.pi / (2 * 0.3))
    expected = scale * torch.erf(radius * math.sqrt(0.15))
    torch.testing.assert_close(found.length, expected, rtol=1e-4, atol=0)


def grid_distances(metric: PosteriorMetric, side: int, reach: int) -> tuple[Tensor, np.ndarray]:
    """Return a grid's points and the shortest paths from its middle, by Dijkstra."""
    axis = torch.linspace(-3, 3, side).double()
    points = torch.cartesian_prod(axis, axis)
    index = torch.arange(side * side).view(side, side)
    rows, columns, lengths = [], [], []
    for right in range(-reach, reach + 1):
        for up in range(0, reach + 1):
            if math.gcd(right, up) != 1 or (up == 0 and right < 0):
                continue
            left = slice(max(0, -right), side - max(0, right))
            moved = slice(max(0, right), side - max(0, -right))
            near, far = index[left, : side - up].flatten(), index[moved, up:].flatten()
            edges = torch.stack([points[near], points[far]], 1)
            rows.append(near)
            columns.append(far)
            lengths.append(curve_length(metric, edges, 4))
    edges = (torch.cat(lengths).numpy(), (torch.cat(rows).numpy(), torch.cat(columns).numpy()))
    graph = coo_matrix(edges, shape=(side * side,) * 2).tocsr()
    middle = int(index[side // 2, side // 2])
    return points, dijkstra(graph, directed=False, indices=middle)


def test_geodesics_are_as_short_as_the_shortest_paths_of_a_fine_grid() -> None:
    metric = random_metric(floor=0.3)
    points, distances = grid_distances(metric, 61, 5)
    chosen = torch.randperm(len(points))[:40]
    found = geodesics(metric, torch.zeros(40, 2).double(), points[chosen], pieces=24)
    expected = torch.tensor(distances)[chosen]
    ratio = found.length / expected
    assert (ratio <= 1.01).double().mean() > 0.8  # the others are local optima, or hug the border
    assert (ratio >= 0.97).double().mean() > 0.9  # a path on the grid is a little too long


def test_energy_is_at_least_the_square_of_the_length() -> None:
    metric = random_metric()
    curve = torch.randn(20, 7, 2).double()
    length, energy = curve_length(metric, curve), curve_energy(metric, curve)
    assert (energy >= length.square()).all()
    found = geodesics(metric, torch.randn(9, 2).double(), torch.randn(9, 2).double())
    energy = curve_energy(metric, found.curve)
    torch.testing.assert_close(energy.sqrt(), found.length, rtol=0.03, atol=0)


def test_the_exponential_map_keeps_its_speed_and_its_length() -> None:
    metric = random_metric(floor=0.5)
    start, velocity = 0.5 * torch.randn(2, 6, 2).double()
    times = torch.linspace(0, 1, 41).double()
    curve = exponential_map(
        metric, start[:, None].expand(-1, 41, -1), times[:, None] * velocity[:, None]
    )
    speed = torch.einsum("bi,bij,bj->b", velocity, metric(start), velocity).sqrt()
    torch.testing.assert_close(curve_length(metric, curve), speed, rtol=2e-3, atol=0)
    torch.testing.assert_close(curve_energy(metric, curve), speed.square(), rtol=4e-3, atol=0)


def test_exponential_and_logarithm_undo_each_other() -> None:
    metric = random_metric(floor=0.5)
    start, step = torch.randn(2, 8, 2).double()
    end = start + 0.4 * step
    found = logarithm_map(metric, start, end)
    assert found.residual.max() <= 1e-8
    reached = exponential_map(metric, start, found.velocity)
    torch.testing.assert_close(reached, end, atol=1e-8, rtol=0)
    speed = torch.einsum("bi,bij,bj->b", found.velocity, metric(start), found.velocity).sqrt()
    length = geodesics(metric, start, end, pieces=32).length
    torch.testing.assert_close(speed, length, rtol=5e-3, atol=0)
    velocity = 0.1 * torch.randn(8, 2).double()
    again = logarithm_map(metric, start, exponential_map(metric, start, velocity))
    torch.testing.assert_close(again.velocity, velocity, atol=1e-6, rtol=0)


def test_s063_samples_are_uniform_by_volume() -> None:
    """A chi-square test of 1,600 points of chains side by side against quadrature."""
    metric = random_metric(6, floor=0.4, decay=0.25)
    samples = sample_uniform(
        metric, 800, 2, step_size=0.25, leapfrog=8, burn_in=60, thin=40, seed=0
    )
    assert 0.6 < samples.acceptance_rate < 1
    bins, fine, reach = 8, 40, 5.0
    width = 2 * reach / (bins * fine)
    axis = torch.arange(bins * fine).double() * width - reach + width / 2
    masses = metric.log_volume(torch.cartesian_prod(axis, axis)).exp() * width**2
    masses = masses.view(bins, fine, bins, fine).sum((1, 3)).flatten()
    wide = torch.linspace(-25, 25, 1251).double()
    total = metric.log_volume(torch.cartesian_prod(wide, wide)).exp().sum() * (50 / 1250) ** 2
    points = samples.value.flatten(0, 1)
    inside = (points.abs() < reach).all(1)
    cell = ((points[inside] + reach) / (fine * width)).floor().long()
    counts = torch.bincount(cell[:, 0] * bins + cell[:, 1], minlength=bins**2).double()
    expected = len(points) * masses / total
    large = expected >= 5
    observed = torch.cat([counts[large], (len(points) - counts[large].sum())[None]])
    expected = torch.cat([expected[large], (len(points) - expected[large].sum())[None]])
    statistic = ((observed - expected).square() / expected).sum()
    assert len(observed) > 20
    assert chi2.sf(float(statistic), len(observed) - 1) > 0.01
    spread = torch.full_like(expected, len(points) / len(expected))
    uneven = ((observed - spread).square() / spread).sum()
    assert chi2.sf(float(uneven), len(observed) - 1) < 1e-10  # the test can tell


def test_the_sampler_draws_from_a_generator_of_its_own() -> None:
    metric = random_metric()
    settings = {"step_size": 0.2, "leapfrog": 3, "burn_in": 2, "thin": 2}
    state = torch.get_rng_state()
    first = sample_uniform(metric, 5, 3, seed=1, **settings)
    assert torch.equal(torch.get_rng_state(), state)
    assert first.value.shape == (3, 5, 2)
    assert torch.equal(first.value, sample_uniform(metric, 5, 3, seed=1, **settings).value)
    assert not torch.equal(first.value, sample_uniform(metric, 5, 3, seed=2, **settings).value)


def test_the_metric_is_that_of_the_posteriors_in_any_form() -> None:
    loc, scale = torch.randn(7, 3).double(), torch.rand(7, 3).double() + 0.5
    forms: list[Distribution] = [
        DiagonalNormal(loc, scale),
        Independent(Normal(loc, scale), 1),
        MultivariateNormal(loc, scale_tril=torch.diag_embed(scale)),
        LowRankMultivariateNormal(loc, torch.zeros(7, 3, 1).double(), scale.square()),
    ]
    z = torch.randn(4, 3).double()
    expected = posterior_metric(forms[0], 0.1, 0.1)
    assert expected.temperature == pytest.approx(float(neighbour_distance(loc)))
    for form in forms[1:]:
        torch.testing.assert_close(posterior_metric(form, 0.1, 0.1)(z), expected(z))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: PosteriorMetric(torch.zeros(1, 2), torch.eye(2)[None], 0.0, 1.0, 1.0), r"=0.0"),
        (lambda: random_metric(floor=0.0), r"floor=0.0"),
        (lambda: PosteriorMetric(torch.zeros(1, 2), -torch.eye(2)[None], 1.0, 1.0, 1.0), "1 of 1"),
        (lambda: neighbour_distance(torch.zeros(1, 2)), r"1 points"),
        (lambda: geodesics(random_metric(), torch.zeros(1, 2), torch.ones(1, 2), 1), r"1 pieces"),
        (lambda: sample_uniform(random_metric(decay=0.0), 1, 1, 0.1, 1, 0, 1, 0), r"infinite"),
        (lambda: sample_uniform(random_metric(), 0, 1, 0.1, 1, 0, 1, 0), r"chains=0"),
    ],
)
def test_mistakes_are_named(build: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()


def test_a_posterior_that_is_not_normal_has_no_metric() -> None:
    laplace = Independent(Laplace(torch.zeros(3, 2), torch.ones(3, 2)), 1)
    with pytest.raises(NotImplementedError, match="no diagonal normal"):
        posterior_metric(laplace, 0.1, 0.1)
