from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.distributions import (
    Independent,
    Laplace,
    LowRankMultivariateNormal,
    MultivariateNormal,
    Normal,
)

from core.variational.discrepancies import (
    KERNEL_SCALES,
    KERNELS,
    mmd,
    sinkhorn_divergence,
    sliced_wasserstein,
    squared_distances,
    wasserstein2_gaussian,
)
from core.variational.distributions import DiagonalNormal

EVERY_KERNEL = pytest.mark.parametrize("kernel", KERNELS)
SAMPLED: list[Callable[[Tensor, Tensor], Tensor]] = [
    mmd,
    lambda x, y: sliced_wasserstein(x, y, projections=4),
    lambda x, y: sinkhorn_divergence(x, y, temperature=1.0),
]


def draws(rows: int, columns: int, loc: float = 0.0, scale: float = 1.0) -> Tensor:
    return loc + scale * torch.randn(rows, columns, dtype=torch.float64)


def whitened(rows: int, columns: int) -> Tensor:
    """Normal draws whose mean and covariance are 0 and the identity, without sampling error."""
    x = draws(rows, columns)
    x = x - x.mean(0)
    root = torch.linalg.cholesky(x.T @ x / rows)
    return torch.linalg.solve_triangular(root, x.T, upper=False).T


def by_hand(x: Tensor, y: Tensor, kernel: str, scale: float) -> float:
    """The definition, pair by pair."""
    widths = [2 * x.shape[1] * scale**2 * factor for factor in KERNEL_SCALES]

    def similarity(a: Tensor, b: Tensor) -> float:
        squared = sum((float(s) - float(t)) ** 2 for s, t in zip(a, b, strict=True))
        forms = {
            "imq": lambda width: width / (width + squared),
            "rbf": lambda width: math.exp(-squared / width),
            "laplace": lambda width: math.exp(-math.sqrt(squared / width)),
        }
        return sum(forms[kernel](width) for width in widths)

    def within(rows: Tensor) -> float:
        pairs = [similarity(a, b) for a, b in itertools.permutations(rows, 2)]
        return sum(pairs) / len(pairs)

    across = [similarity(a, b) for a, b in itertools.product(x, y)]
    return within(x) + within(y) - 2 * sum(across) / len(across)


@EVERY_KERNEL
def test_mmd_is_its_definition_pair_by_pair(kernel: str) -> None:
    x, y = draws(5, 3), draws(7, 3, loc=0.5)
    assert float(mmd(x, y, kernel, 1.5)) == pytest.approx(by_hand(x, y, kernel, 1.5), rel=1e-10)


@EVERY_KERNEL
def test_s021_mmd_of_equal_laws_is_0_on_average(kernel: str) -> None:
    values = torch.stack([mmd(draws(32, 4), draws(24, 4), kernel) for _ in range(400)])
    error = float(values.std()) / math.sqrt(len(values))
    assert abs(float(values.mean())) <= 3 * error
    assert bool((values < 0).any())  # what an estimate that is biased upwards never is


def test_s021_mmd_of_two_normals_is_the_closed_form_on_average() -> None:
    """Of two normal variables, the difference is normal, and so is its mean RBF a power."""
    columns, shift, scale = 2, 1.5, 0.7

    def mean_similarity(squared: float, variance: float) -> float:
        widths = [2 * columns * factor for factor in KERNEL_SCALES]
        return sum(
            (1 + 2 * variance / width) ** (-columns / 2)
            * math.exp(-squared / (width + 2 * variance))
            for width in widths
        )

    exact = (
        mean_similarity(0.0, 2.0)
        + mean_similarity(0.0, 2 * scale**2)
        - 2 * mean_similarity(columns * shift**2, 1 + scale**2)
    )
    values = torch.stack(
        [mmd(draws(16, columns), draws(16, columns, shift, scale), "rbf") for _ in range(1000)]
    )
    error = float(values.std()) / math.sqrt(len(values))
    assert abs(float(values.mean()) - exact) <= 3 * error


@EVERY_KERNEL
def test_a_gradient_step_on_the_mmd_brings_two_samples_together(kernel: str) -> None:
    x, y = draws(64, 2, loc=2.0).requires_grad_(), draws(64, 2)
    before = mmd(x, y, kernel)
    (gradient,) = torch.autograd.grad(before, x)
    before = before.detach()
    assert bool(gradient.isfinite().all())
    assert float(mmd(x.detach() - gradient, y, kernel)) < float(before)


@EVERY_KERNEL
def test_the_mmd_has_the_gradient_of_finite_differences_even_at_equal_points(
    kernel: str,
) -> None:
    y = draws(4, 2)
    x = draws(5, 2).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: mmd(x, y, kernel), x)
    copies = torch.zeros(3, 2, requires_grad=True)
    (gradient,) = torch.autograd.grad(mmd(copies, torch.zeros(2, 2), kernel), copies)
    assert gradient.abs().max() == 0


@settings(max_examples=20, deadline=None)
@given(st.floats(1e-2, 1e2), st.floats(-1e3, 1e3))
def test_the_mmd_does_not_see_a_common_unit_or_origin(unit: float, origin: float) -> None:
    x, y = draws(6, 3), draws(5, 3, loc=1.0)
    moved = mmd(unit * x + origin, unit * y + origin, scale=unit)
    torch.testing.assert_close(moved, mmd(x, y), rtol=1e-6, atol=1e-8)


def test_distances_far_from_the_origin_keep_their_digits() -> None:
    x, y = draws(8, 3).float(), draws(9, 3).float()
    exact = (x.double()[:, None] - y.double()).square().sum(-1).float()
    torch.testing.assert_close(squared_distances(x, y), exact, rtol=1e-5, atol=1e-5)
    origin = 1024.0  # a power of two: the shift itself rounds to 2**-13
    x, y = x + origin, y + origin
    exact = (x.double()[:, None] - y.double()).square().sum(-1).float()
    torch.testing.assert_close(squared_distances(x, y), exact, rtol=1e-4, atol=1e-4)


def test_mixed_precision_leaves_distances_in_full() -> None:
    x, y = draws(32, 8).float(), draws(32, 8, loc=0.3).float()
    torch.manual_seed(1)
    plain = [distance(x, y) for distance in SAMPLED]
    torch.manual_seed(1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = [distance(x, y) for distance in SAMPLED]
    torch.testing.assert_close(mixed, plain)
    assert all(value.dtype == torch.float32 for value in mixed)
    assert mmd(x.bfloat16(), y.bfloat16()).dtype == torch.float32


@pytest.mark.parametrize("scale", [0.1, 1.0, 10.0])
def test_s102_equal_laws_are_at_no_sliced_distance(scale: float) -> None:
    """A squared distance, so of the scale squared; of two finite samples it is not exactly 0."""
    x, y = draws(20_000, 4, scale=scale), draws(20_000, 4, scale=scale)
    assert float(sliced_wasserstein(x, y, projections=32)) <= 1e-3 * scale**2
    assert float(sliced_wasserstein(x, x.flip(0), projections=32)) <= 1e-12 * scale**2


@pytest.mark.parametrize(
    ("loc", "scale"), [(0.0, 2.0), (1.0, 1.0), (0.5, 1.8)], ids=["wider", "shifted", "both"]
)
def test_s102_normals_are_at_the_closed_form_with_2000_slices(loc: float, scale: float) -> None:
    """Along every direction the scales differ alike and the shift costs its square over d."""
    columns = 4
    x, y = whitened(2000, columns), loc + scale * whitened(2000, columns)
    exact = loc**2 + (scale - 1) ** 2
    assert float(sliced_wasserstein(x, y, projections=2000)) == pytest.approx(exact, rel=0.02)


def test_s102_normals_of_any_covariance_are_at_the_closed_form() -> None:
    """In two dimensions: the mean over the angle of the squared difference of the scales."""
    root = torch.tensor([[2.0, 0.0], [0.9, 0.5]], dtype=torch.float64)
    angle = torch.linspace(0, math.pi, 10_001, dtype=torch.float64)[:-1]
    directions = torch.stack([angle.cos(), angle.sin()])
    exact = float(((root.T @ directions).norm(dim=0) - 1).square().mean())
    x, y = whitened(2000, 2), whitened(2000, 2) @ root.T
    assert float(sliced_wasserstein(x, y, projections=2000)) == pytest.approx(exact, rel=0.02)


def test_a_shift_costs_its_square_over_the_dimensions_whatever_the_directions() -> None:
    x, shift = draws(50, 5), draws(1, 5)
    for projections in (5, 10, 25):
        value = sliced_wasserstein(x, x + shift, projections)
        torch.testing.assert_close(value, shift.square().mean())


@pytest.mark.parametrize("projections", [1, 3, 7])
def test_directions_of_an_unfinished_basis_are_uniform_too(projections: int) -> None:
    x, shift = torch.zeros(2, 5, dtype=torch.float64), draws(1, 5)
    values = torch.stack([sliced_wasserstein(x, x + shift, projections) for _ in range(2000)])
    error = float(values.std()) / math.sqrt(len(values))
    assert abs(float(values.mean() - shift.square().mean())) <= 4 * error


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 9), st.integers(2, 9))
def test_samples_of_different_sizes_are_transported_exactly(rows: int, others: int) -> None:
    """As if each point of one were as many equal points as the other has points."""
    x, y = draws(rows, 1), draws(others, 1)
    copied = x.repeat_interleave(others, 0), y.repeat_interleave(rows, 0)
    torch.testing.assert_close(
        sliced_wasserstein(x, y, projections=1), sliced_wasserstein(*copied, projections=1)
    )


def test_a_sliced_distance_draws_from_its_own_generator() -> None:
    x, y = draws(10, 3), draws(10, 3)
    before = torch.get_rng_state()
    values = [
        sliced_wasserstein(x, y, 2, torch.Generator().manual_seed(seed)) for seed in (3, 3, 4)
    ]
    assert torch.equal(before, torch.get_rng_state())
    assert float(values[0]) == float(values[1]) != float(values[2])


@pytest.mark.parametrize("others", [6, 9])
def test_the_sliced_distance_has_the_gradient_of_finite_differences(others: int) -> None:
    x, y = draws(6, 3).requires_grad_(), draws(others, 3)

    def distance(x: Tensor) -> Tensor:
        return sliced_wasserstein(x, y, 5, torch.Generator().manual_seed(0))

    assert torch.autograd.gradcheck(distance, x)


def covariances(batch: int, size: int) -> Tensor:
    root = draws(batch * size, size).view(batch, size, size)
    return root @ root.mT + 0.1 * torch.eye(size)


def matrix_root(matrix: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(matrix)
    return (vectors * values.clamp(min=0).sqrt().unsqueeze(-2)) @ vectors.mT


def test_wasserstein2_of_full_normals_is_the_formula_with_roots() -> None:
    p_cov, q_cov, p_loc, q_loc = covariances(4, 3), covariances(4, 3), draws(4, 3), draws(4, 3)
    root = matrix_root(p_cov)
    trace = (p_cov + q_cov - 2 * matrix_root(root @ q_cov @ root)).diagonal(0, -1, -2).sum(-1)
    p, q = MultivariateNormal(p_loc, p_cov), MultivariateNormal(q_loc, q_cov)
    expected = (p_loc - q_loc).square().sum(-1) + trace
    torch.testing.assert_close(wasserstein2_gaussian(p, q), expected)
    torch.testing.assert_close(wasserstein2_gaussian(q, p), expected)


def test_wasserstein2_is_the_same_however_a_normal_is_written() -> None:
    loc, scale = draws(3, 2), draws(3, 2).exp()
    factor = draws(6, 1).view(3, 2, 1)
    low_rank = LowRankMultivariateNormal(loc, factor, scale.square())
    full = MultivariateNormal(loc, low_rank.covariance_matrix)
    forms = [
        DiagonalNormal(loc, scale),
        Independent(Normal(loc, scale), 1),
        MultivariateNormal(loc, torch.diag_embed(scale.square())),
    ]
    expected = wasserstein2_gaussian(forms[2], full)
    for form, other in itertools.product(forms, (low_rank, full)):
        torch.testing.assert_close(wasserstein2_gaussian(form, other), expected)
    for one, other in itertools.product(forms, forms):
        torch.testing.assert_close(
            wasserstein2_gaussian(one, other), torch.zeros(3).double(), rtol=0, atol=1e-10
        )


def test_wasserstein2_has_the_gradient_of_finite_differences_at_equal_eigenvalues_too() -> None:
    root = (2 * torch.eye(3, dtype=torch.float64)).requires_grad_()
    other = MultivariateNormal(draws(1, 3)[0], torch.eye(3, dtype=torch.float64))

    def distance(root: Tensor) -> Tensor:
        lower = root.tril()
        return wasserstein2_gaussian(
            MultivariateNormal(torch.zeros(3).double(), scale_tril=lower), other
        )

    assert torch.autograd.gradcheck(distance, root)


def test_wasserstein2_sums_over_an_event_of_several_dimensions() -> None:
    p = DiagonalNormal(torch.zeros(5, 2, 3), torch.ones(5, 2, 3), event_dims=2)
    q = DiagonalNormal(torch.ones(5, 2, 3), 3 * torch.ones(5, 2, 3), event_dims=2)
    torch.testing.assert_close(wasserstein2_gaussian(p, q), torch.full((5,), 30.0))


def test_wasserstein2_refuses_what_is_not_normal() -> None:
    p = DiagonalNormal(torch.zeros(1, 2), torch.ones(1, 2))
    with pytest.raises(ValueError, match="Independent is not normal"):
        wasserstein2_gaussian(p, Independent(Laplace(p.loc, p.scale), 1))
    with pytest.raises(ValueError, match="event shapes"):
        wasserstein2_gaussian(p, DiagonalNormal(torch.zeros(1, 3), torch.ones(1, 3)))


@pytest.mark.parametrize("temperature", [0.05, 1.0, 100.0])
def test_a_sample_is_at_no_sinkhorn_divergence_from_itself(temperature: float) -> None:
    x = draws(40, 3)
    assert abs(float(sinkhorn_divergence(x, x.clone(), temperature))) <= 1e-6
    assert abs(float(sinkhorn_divergence(x, x.flip(0), temperature))) <= 1e-6


def test_a_cold_sinkhorn_divergence_is_the_best_assignment() -> None:
    x, y = draws(8, 2), draws(8, 2, loc=1.0)
    cost = squared_distances(x, y).numpy()
    best = cost[linear_sum_assignment(cost)].mean()
    assert float(sinkhorn_divergence(x, y, 0.02, 20_000)) == pytest.approx(best, rel=0.01)


def test_a_hot_sinkhorn_divergence_is_the_squared_distance_of_the_means() -> None:
    x, y = draws(30, 2), draws(20, 2, loc=1.0, scale=2.0)
    expected = (x.mean(0) - y.mean(0)).square().sum()
    torch.testing.assert_close(
        sinkhorn_divergence(x, y, 1e5, tolerance=1e-8), expected, rtol=1e-3, atol=0
    )


def entropic_cost(cost: Tensor, temperature: float) -> Tensor:
    """The primal value, of the plan of Sinkhorn's plain iterations."""
    kernel = (-cost / temperature).exp() / cost.numel()
    left = torch.ones(len(cost), dtype=cost.dtype)
    right = torch.ones(cost.shape[1], dtype=cost.dtype)
    for _ in range(2000):
        left = 1 / (len(cost) * (kernel @ right))
        right = 1 / (cost.shape[1] * (kernel.T @ left))
    plan = left[:, None] * kernel * right
    return (plan * cost).sum() + temperature * (plan * (plan * cost.numel()).log()).sum()


@pytest.mark.parametrize("temperature", [0.3, 2.0])
def test_the_sinkhorn_divergence_is_that_of_the_primal_problem(temperature: float) -> None:
    x, y = draws(10, 2), draws(7, 2, loc=0.5)
    across, one, other = (
        entropic_cost((a[:, None] - b).square().sum(-1), temperature)
        for a, b in ((x, y), (x, x), (y, y))
    )
    value = sinkhorn_divergence(x, y, temperature, tolerance=1e-6)
    torch.testing.assert_close(value, across - (one + other) / 2, rtol=1e-6, atol=1e-8)


def test_the_sinkhorn_divergence_has_the_gradient_of_finite_differences() -> None:
    x, y = draws(4, 2).requires_grad_(), draws(3, 2, loc=0.5).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda x, y: sinkhorn_divergence(x, y, 1.0, 10_000, tolerance=1e-8), (x, y)
    )


def test_the_sinkhorn_divergence_works_in_single_precision() -> None:
    x, y = draws(64, 8), draws(64, 8, loc=0.5)
    exact = float(sinkhorn_divergence(x, y, 0.5))
    assert float(sinkhorn_divergence(x.float(), y.float(), 0.5)) == pytest.approx(exact, rel=1e-4)


def test_iterations_that_do_not_reach_the_tolerance_are_an_error() -> None:
    with pytest.raises(ValueError, match=r"marginals wrong by .* after 30 iterations"):
        sinkhorn_divergence(draws(20, 2), draws(20, 2, loc=3.0), 0.001, iterations=30)


@pytest.mark.parametrize("distance", SAMPLED)
def test_a_batch_of_one_is_refused(distance: Callable[[Tensor, Tensor], Tensor]) -> None:
    for x, y in ((draws(1, 2), draws(4, 2)), (draws(4, 2), draws(1, 2))):
        with pytest.raises(ValueError, match="batch of at least 2 is needed"):
            distance(x, y)


@pytest.mark.parametrize("distance", SAMPLED)
def test_samples_of_different_dimensions_are_refused(
    distance: Callable[[Tensor, Tensor], Tensor],
) -> None:
    with pytest.raises((ValueError, TypeError), match="latent"):  # a TypeError with shapes checked
        distance(draws(4, 2), draws(4, 3))


@pytest.mark.parametrize(
    "call",
    [
        lambda x: mmd(x, x, "cosine"),
        lambda x: mmd(x, x, scale=0.0),
        lambda x: sliced_wasserstein(x, x, projections=0),
        lambda x: sinkhorn_divergence(x, x, temperature=0.0),
    ],
)
def test_a_setting_out_of_range_is_refused(call: Callable[[Tensor], Tensor]) -> None:
    with pytest.raises(ValueError, match=r"must be one of|at least 1|above 0"):
        call(draws(4, 2))
