from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.distributions import MultivariateNormal, Normal

from core.variational.distributions import DiagonalNormal, stop_gradient
from core.variational.inverse import (
    DataFidelity,
    LinearOperator,
    LinearOperatorNormal,
    MeasurementNormal,
    UnrolledSolver,
    check_adjoint,
    coils,
    conjugate_gradients,
    convolution,
    fourier,
    map_energy,
    mask,
    matrix,
    measure,
    operator_norm,
    sampled_fourier,
    total_variation,
)
from core.variational.inverse.total_variation import gradient, gradient_adjoint


def normal(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, dtype=dtype)


def maps(coil: int, height: int, width: int) -> Tensor:
    """Sensitivities whose squares sum to 1 at each place."""
    raw = normal(coil, height, width, dtype=torch.complex128)
    return raw / raw.abs().square().sum(0).sqrt()


OPERATORS: dict[str, Callable[[], LinearOperator]] = {
    "matrix": lambda: matrix(normal(5, 3)),
    "complex matrix": lambda: matrix(normal(3, 5, dtype=torch.complex128)),
    "mask": lambda: mask(torch.rand(4, 5) < 0.5, (4, 5)),
    "complex mask": lambda: mask(torch.rand(5) < 0.5, (4, 5), complex=True),
    "fourier": lambda: fourier((6,), (-1,)),
    "fourier of an odd size": lambda: fourier((3, 5, 4), (-2, -1)),
    "fourier in 3-D": lambda: fourier((3, 4, 5), (-3, -2, -1)),
    "fourier of real images": lambda: fourier((4, 5), (-2, -1), real=True),
    "coils": lambda: coils(maps(3, 4, 5)),
    "sampled fourier": lambda: sampled_fourier(maps(3, 4, 6), torch.rand(6) < 0.5),
    "sampled fourier in 1-D": lambda: sampled_fourier(
        normal(3, 6, dtype=torch.complex128), torch.rand(6) < 0.5, dims=1
    ),
    "convolution in 1-D": lambda: convolution(normal(3), (7,)),
    "convolution in 2-D": lambda: convolution(normal(3, 5), (6, 7)),
    "convolution in 3-D": lambda: convolution(normal(3, 1, 3), (4, 3, 5)),
    "composed": lambda: mask(torch.rand(4, 5) < 0.5, (4, 5)) @ convolution(normal(3, 3), (4, 5)),
    "composed into complex": lambda: (
        mask(torch.rand(4, 5) < 0.5, (4, 5), complex=True) @ fourier((4, 5), (-2, -1), real=True)
    ),
}


def dense(operator: LinearOperator) -> Tensor:
    """Return the matrix of an operator, column by column."""
    size = math.prod(operator.domain)
    dtype = torch.complex128 if operator.complex_domain else torch.float64
    columns = operator(torch.eye(size, dtype=dtype).view(size, *operator.domain))
    return columns.reshape(size, -1).T


def images(operator: LinearOperator, *batch: int) -> Tensor:
    dtype = torch.complex128 if operator.complex_domain else torch.float64
    return normal(*batch, *operator.domain, dtype=dtype)


def measurements(operator: LinearOperator, *batch: int) -> Tensor:
    dtype = torch.complex128 if operator.complex_range else torch.float64
    return normal(*batch, *operator.range, dtype=dtype)


@pytest.mark.parametrize("name", OPERATORS)
@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_every_operator_has_its_adjoint(name: str, seed: int) -> None:
    torch.manual_seed(seed)
    assert check_adjoint(OPERATORS[name](), torch.float64, seed=seed) < 1e-12


@pytest.mark.parametrize("name", OPERATORS)
def test_the_adjoint_is_the_conjugate_transpose(name: str) -> None:
    operator = OPERATORS[name]()
    y = measurements(operator, 2)
    expected = y.reshape(2, -1) @ dense(operator).conj()
    expected = expected if operator.complex_domain else expected.real
    torch.testing.assert_close(operator.adjoint(y).reshape(2, -1), expected)


@pytest.mark.parametrize("name", OPERATORS)
def test_an_operator_takes_any_batch(name: str) -> None:
    operator = OPERATORS[name]()
    x = images(operator, 2, 3)
    expected = torch.stack([torch.stack([operator(each) for each in row]) for row in x])
    torch.testing.assert_close(operator(x), expected)


def test_a_false_adjoint_is_found_and_the_random_stream_left_alone() -> None:
    entries = normal(4, 4)
    false = LinearOperator(lambda x: x @ entries.T, lambda y: y @ entries.T, (4,), (4,))
    before = torch.get_rng_state()
    assert check_adjoint(false, torch.float64) > 0.01
    operator_norm(false, dtype=torch.float64)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_centred_fourier_transform_is_the_defining_sum_and_orthonormal() -> None:
    for size in (4, 5):
        operator, x = fourier((size,), (-1,)), normal(size, dtype=torch.complex128)
        index = torch.arange(size, dtype=torch.float64) - size // 2
        phases = torch.exp(-2j * math.pi * torch.outer(index, index) / size)
        torch.testing.assert_close(operator(x), phases @ x / math.sqrt(size))
        torch.testing.assert_close(operator.adjoint(operator(x)), x)


def test_a_convolution_is_the_defining_sum() -> None:
    kernel, x = normal(3), normal(5)
    padded = torch.cat([torch.zeros(1), x, torch.zeros(1)]).double()
    expected = torch.stack([(kernel.flip(0) * padded[n : n + 3]).sum() for n in range(5)])
    torch.testing.assert_close(convolution(kernel, (5,))(x), expected)


@pytest.mark.parametrize("name", OPERATORS)
def test_the_norm_comes_from_below_to_the_largest_singular_value(name: str) -> None:
    operator = OPERATORS[name]()
    found = operator_norm(operator, iterations=2000, tolerance=1e-10, dtype=torch.float64)
    entries = dense(operator)
    if not operator.complex_domain and operator.complex_range:
        entries = torch.cat([entries.real, entries.imag])
    exact = float(torch.linalg.matrix_norm(entries, 2))
    assert 0.999 * exact <= found <= exact * (1 + 1e-9)


def test_coils_that_sum_to_one_make_an_operator_of_norm_at_most_one() -> None:
    assert operator_norm(OPERATORS["sampled fourier"](), dtype=torch.float64) <= 1 + 1e-9


def test_shapes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="does not end in the domain's shape"):
        matrix(normal(5, 3))(normal(2, 4))
    with pytest.raises(ValueError, match="must be the same"):
        _ = matrix(normal(5, 3)) @ matrix(normal(4, 3))
    with pytest.raises(ValueError, match="must be the same"):
        _ = mask(torch.ones(4, dtype=torch.bool), (4,)) @ fourier((4,), (-1,))
    with pytest.raises(ValueError, match="odd sizes"):
        convolution(normal(2), (5,))
    with pytest.raises(ValueError, match="from -1 to -1"):
        fourier((4,), (0,))


# conjugate gradients


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
@pytest.mark.parametrize("preconditioned", [False, True])
def test_conjugate_gradients_solve_each_example_as_a_direct_solver(
    dtype: torch.dtype, preconditioned: bool
) -> None:
    factor = normal(4, 6, 6, dtype=dtype)
    diagonal = torch.logspace(0, 3, 6, dtype=torch.float64)
    system = factor @ factor.mH + torch.diag(diagonal).to(dtype)
    right = normal(4, 6, dtype=dtype)
    solution = conjugate_gradients(
        lambda x: (system @ x.unsqueeze(-1)).squeeze(-1),
        right,
        event_dims=1,
        iterations=50,
        tolerance=1e-12,
        preconditioner=(lambda r: r / diagonal) if preconditioned else None,
    )
    torch.testing.assert_close(solution.x, torch.linalg.solve(system, right))
    assert (solution.residual <= 1e-12).all()
    assert solution.iterations.shape == (4,)


def test_a_good_preconditioner_saves_iterations() -> None:
    diagonal = torch.logspace(0, 4, 50, dtype=torch.float64)
    counts = [
        int(
            conjugate_gradients(
                lambda x: diagonal * x, normal(50), 1, 500, 1e-8, preconditioner=better
            ).iterations
        )
        for better in (None, lambda r: r / diagonal)
    ]
    assert counts[1] == 1
    assert counts[0] > 20


def test_conjugate_gradients_need_one_iteration_for_each_distinct_eigenvalue() -> None:
    """The one property of the method that no other first-order solver has."""
    eigenvalues = torch.tensor([1.0, 1.0, 5.0, 5.0, 9.0, 9.0], dtype=torch.float64)
    solution = conjugate_gradients(lambda x: eigenvalues * x, normal(3, 6), 1, 50, 1e-10)
    assert solution.iterations.tolist() == [3, 3, 3]


def test_an_example_stops_by_itself_and_a_zero_one_at_once() -> None:
    eigenvalues = torch.tensor([1.0, 4.0, 9.0], dtype=torch.float64)
    right = torch.tensor([[0.0, 0.0, 0.0], [0.0, 1.0, 0.0], [1.0, 2.0, 3.0]]).double()
    solution = conjugate_gradients(lambda x: eigenvalues * x, right, 1, 50, 1e-10)
    assert solution.iterations.tolist() == [0, 1, 3]
    torch.testing.assert_close(solution.x, right / eigenvalues)
    alone = conjugate_gradients(lambda x: eigenvalues * x, right[1:2], 1, 50, 1e-10)
    assert torch.equal(alone.x[0], solution.x[1])


def test_the_gradient_through_conjugate_gradients_is_that_of_the_solution() -> None:
    right = normal(2, 4).requires_grad_()
    weight = torch.rand(4, dtype=torch.float64).add(1).requires_grad_()

    def solve(b: Tensor, w: Tensor) -> Tensor:
        return conjugate_gradients(lambda x: w * x, b, 1, 20, 1e-14).x

    ours = torch.autograd.grad(solve(right, weight).square().sum(), (right, weight))
    exact = torch.autograd.grad((right / weight).square().sum(), (right, weight))
    torch.testing.assert_close(ours, exact)


# data fidelity


@pytest.mark.parametrize("name", OPERATORS)
def test_data_fidelity_is_minus_the_log_density_of_the_linear_operator_normal(name: str) -> None:
    operator = OPERATORS[name]()
    x, y = images(operator, 3), measurements(operator, 3)
    likelihood = LinearOperatorNormal(operator, 0.3).double()
    torch.testing.assert_close(
        DataFidelity(operator, y, 0.3)(x), -likelihood(x).log_prob(y), rtol=1e-6, atol=1e-6
    )


@pytest.mark.parametrize("name", OPERATORS)
def test_the_log_density_is_torchs_over_the_real_numbers_observed(name: str) -> None:
    operator = OPERATORS[name]()
    x, y = images(operator, 3), measurements(operator, 3)
    expected, seen = operator(x), y
    if operator.complex_range:
        expected, seen = torch.view_as_real(expected), torch.view_as_real(y)
    terms = Normal(expected, 0.3).log_prob(seen)
    if operator.observed is not None:
        observed = operator.observed.expand(operator.range)
        kept = observed.unsqueeze(-1) if operator.complex_range else observed
        terms = terms * kept
    found = measure(operator, x, torch.tensor(0.3, dtype=torch.float64)).log_prob(y)
    torch.testing.assert_close(found, terms.flatten(1).sum(1))


@pytest.mark.parametrize("name", OPERATORS)
def test_the_gradient_of_the_data_fidelity_is_autograds(name: str) -> None:
    operator = OPERATORS[name]()
    x, fidelity = (
        images(operator, 3).requires_grad_(),
        DataFidelity(operator, measurements(operator, 3), 0.3),
    )
    (expected,) = torch.autograd.grad(fidelity(x).sum(), x)
    torch.testing.assert_close(fidelity.gradient(x).detach(), expected)


@pytest.mark.parametrize("name", OPERATORS)
def test_the_proximal_step_is_where_its_gradient_vanishes(name: str) -> None:
    operator = OPERATORS[name]()
    fidelity = DataFidelity(operator, measurements(operator, 3), 0.5)
    centre, precision = images(operator, 3), 0.7
    x = fidelity.proximal(centre, precision, iterations=200, tolerance=1e-13).x
    slope = fidelity.gradient(x) + precision * (x - centre)
    assert float(slope.abs().max()) < 1e-9


@pytest.mark.parametrize("name", OPERATORS)
def test_the_proximal_step_is_data_consistent_as_the_noise_vanishes(name: str) -> None:
    operator = OPERATORS[name]()
    y = operator(images(operator, 3))
    gaps = []
    for scale in (1e-1, 1e-2, 1e-3):
        x = DataFidelity(operator, y, scale).proximal(images(operator, 3), 1.0, 2000, 1e-12).x
        gaps.append(float((operator(x) - y).abs().max()))
    assert gaps[2] < 1e-3
    assert gaps[2] < gaps[0]


def test_what_was_not_observed_changes_nothing_even_as_nan() -> None:
    observed = torch.tensor([True, False, True, False])
    operator, x = mask(observed, (4,)), normal(3, 4)
    y = normal(3, 4)
    hidden = y.masked_fill(~observed, math.nan)
    clean, dirty = DataFidelity(operator, y, 0.3), DataFidelity(operator, hidden, 0.3)
    for ours, theirs in zip(
        dirty.energy_and_gradient(x), clean.energy_and_gradient(x), strict=True
    ):
        assert torch.equal(ours, theirs)
    assert torch.equal(dirty.back_projection(), clean.back_projection())
    likelihood = LinearOperatorNormal(operator, 0.3, learned=True)
    x.requires_grad_()
    (-likelihood(x).log_prob(hidden).sum()).backward()
    assert x.grad is not None
    assert likelihood.log_scale.grad is not None
    torch.testing.assert_close(x.grad, clean.gradient(x).detach(), rtol=1e-6, atol=0)
    assert torch.isfinite(likelihood.log_scale.grad)


def test_an_example_of_which_nothing_was_observed_has_energy_zero() -> None:
    observed = torch.tensor([[True, True], [False, False]])
    fidelity = DataFidelity(mask(observed, (2,)), normal(2, 2), 0.3)
    assert fidelity(normal(2, 2)).ne(0).tolist() == [True, False]


def test_a_measurement_has_the_moments_that_it_says() -> None:
    for dtype in (torch.float64, torch.complex128):
        loc = normal(3, dtype=dtype)
        observed = torch.tensor([True, True, False])
        distribution = MeasurementNormal(loc, torch.tensor(0.5).double(), 1, observed)
        draws = distribution.rsample((40_000,))
        assert (draws[:, 2] == 0).all()
        torch.testing.assert_close(draws.mean(0)[:2], loc[:2], rtol=0, atol=0.02)
        spread = (draws - loc).abs().square().mean(0)[:2]
        torch.testing.assert_close(spread, distribution.variance[:2], rtol=0.03, atol=0)
        parts = torch.view_as_real(draws - loc) if loc.is_complex() else draws - loc
        assert float(parts[:, 0].std()) == pytest.approx(0.5, rel=0.02)


def test_a_learned_noise_finds_the_spread_of_the_measurement() -> None:
    x = normal(400, 3)
    operator = matrix(normal(5, 3))
    y = operator(x) + 0.2 * normal(400, 5)
    likelihood = LinearOperatorNormal(operator, 1.0, learned=True).double()
    optimizer = torch.optim.Adam(likelihood.parameters(), lr=0.1)
    for _ in range(150):
        optimizer.zero_grad()
        (-likelihood(x).log_prob(y).mean()).backward()
        optimizer.step()
    assert float(likelihood.log_scale.detach().exp()) == pytest.approx(0.2, rel=0.05)


def test_a_linear_operator_normal_takes_the_operator_of_the_call() -> None:
    likelihood, x = LinearOperatorNormal(None, 0.3).double(), normal(2, 3)
    operator = matrix(normal(5, 3))
    torch.testing.assert_close(likelihood(x, operator).loc, operator(x))
    with pytest.raises(ValueError, match="no operator"):
        likelihood(x)
    assert not stop_gradient(likelihood(x.requires_grad_(), operator)).loc.requires_grad  # type: ignore[attr-defined]


@pytest.mark.parametrize("scale", [0.0, -1.0, math.nan, math.inf])
def test_noise_without_a_scale_is_refused(scale: float) -> None:
    with pytest.raises(ValueError, match="not positive"):
        DataFidelity(matrix(normal(2, 2)), normal(2), scale)
    with pytest.raises(ValueError, match="not positive"):
        LinearOperatorNormal(None, scale)


def test_a_measurement_of_the_wrong_shape_is_refused() -> None:
    with pytest.raises(ValueError, match="does not end in the operator's range"):
        DataFidelity(matrix(normal(5, 3)), normal(4), 1.0)


@pytest.mark.filterwarnings("ignore:ComplexHalf")
def test_single_precision_agrees_with_double_and_half_becomes_single() -> None:
    entries, x, y = normal(6, 4), normal(5, 4), normal(5, 6)
    double = DataFidelity(matrix(entries), y, 0.3)(x)
    single = DataFidelity(matrix(entries.float()), y.float(), 0.3)(x.float())
    torch.testing.assert_close(single.double(), double, rtol=1e-5, atol=0)
    half = DataFidelity(matrix(entries.float()), y.bfloat16(), 0.3)(x.bfloat16())
    assert half.dtype == torch.float32
    operator = fourier((4,), (-1,))
    image = x.to(torch.complex64)
    assert DataFidelity(operator, image.to(torch.complex32), 0.3)(image).dtype == torch.float32


def test_the_least_map_energy_is_the_mean_of_a_gaussian_posterior() -> None:
    operator, covariance = matrix(normal(3, 4)), torch.eye(4).double() * 0.5
    prior, y = MultivariateNormal(torch.zeros(4).double(), covariance), normal(2, 3)
    fidelity = DataFidelity(operator, y, 0.3)
    x = fidelity.proximal(torch.zeros(2, 4).double(), 2.0, 100, 1e-12).x.requires_grad_()
    (slope,) = torch.autograd.grad(map_energy(fidelity, prior.log_prob, x).sum(), x)
    assert float(slope.abs().max()) < 1e-8


# unrolled solver


class Zero(nn.Module):
    def forward(self, x: Tensor, state: int | None) -> tuple[Tensor, int]:
        return torch.zeros_like(x), (state or 0) + 1


class Shrink(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rate = nn.Parameter(torch.tensor(0.1))

    def forward(self, x: Tensor, state: None) -> tuple[Tensor, None]:
        return -self.rate * x, state


@pytest.mark.parametrize("regularisers", [[], [Zero()], [Zero() for _ in range(5)]])
def test_without_a_regulariser_the_unrolled_solver_is_gradient_descent(
    regularisers: list[nn.Module],
) -> None:
    operator = OPERATORS["sampled fourier"]()
    fidelity = DataFidelity(operator, measurements(operator, 2), 0.5)
    trace = UnrolledSolver(5, 0.1, regularisers).double()(fidelity)
    x = operator.adjoint(fidelity.measurement)
    length = float(torch.tensor(0.1))
    for step in range(5):
        torch.testing.assert_close(trace.iterates[step], x, rtol=0, atol=0)
        torch.testing.assert_close(trace.energies[step], fidelity(x))
        x = x - length * fidelity.gradient(x)
    assert torch.equal(trace.x, x)
    torch.testing.assert_close(trace.energies[5], fidelity(x))
    assert trace.state == (5 if regularisers else None)


@pytest.mark.parametrize("name", OPERATORS)
@settings(max_examples=10, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    fraction=st.floats(0.01, 0.99),
    scale=st.floats(0.1, 10.0),
)
def test_a_step_below_the_limit_lowers_the_data_term(
    name: str, seed: int, fraction: float, scale: float
) -> None:
    torch.manual_seed(seed)
    operator = OPERATORS[name]()
    norm = float(torch.linalg.matrix_norm(dense(operator), 2))
    fidelity = DataFidelity(operator, measurements(operator, 3), scale)
    start = images(operator, 3)
    limit = 2 * scale**2 / max(norm, 1e-3) ** 2
    trace = UnrolledSolver(1, fraction * limit).double()(fidelity, start)
    moves = fidelity.gradient(start).abs().flatten(1).amax(1) > 1e-6
    before, after = trace.energies[0][moves], trace.energies[1][moves]
    assert (after < before).all()


def test_a_step_beyond_the_limit_raises_the_data_term_along_the_steepest_direction() -> None:
    operator = matrix(torch.diag(torch.tensor([2.0, 1.0])).double())
    fidelity = DataFidelity(operator, torch.zeros(1, 2).double(), 1.0)
    start = torch.tensor([[1.0, 0.0]]).double()
    energies = UnrolledSolver(1, 1.05 * 2 / 4).double()(fidelity, start).energies
    assert float(energies[1]) > float(energies[0])


def test_the_gradient_of_an_unrolled_solver_reaches_step_sizes_and_regularisers() -> None:
    operator = matrix(normal(3, 4))
    truth = normal(6, 4)
    solver = UnrolledSolver(4, 0.01, [Shrink()]).double()
    solver(DataFidelity(operator, operator(truth), 1.0)).x.sub(truth).square().sum().backward()
    for parameter in solver.parameters():
        assert parameter.grad is not None
        assert (parameter.grad != 0).all()


def test_an_unrolled_solver_counts_its_regularisers() -> None:
    with pytest.raises(ValueError, match="4 steps, 3 regularisers"):
        UnrolledSolver(4, 0.1, [Zero() for _ in range(3)])
    with pytest.raises(ValueError, match="at least one step"):
        UnrolledSolver(0, 0.1)


# total variation


def test_the_differences_have_their_adjoint() -> None:
    x, slopes = normal(3, 4, 5), normal(2, 3, 4, 5)
    torch.testing.assert_close(
        (gradient(x, 2) * slopes).sum(), (x * gradient_adjoint(slopes, 2)).sum()
    )


def test_total_variation_without_weight_solves_the_data_term() -> None:
    operator = OPERATORS["convolution in 1-D"]()
    y = operator(images(operator, 2))
    fidelity = DataFidelity(operator, y, 0.5)
    x = total_variation(fidelity, 0.0, 5000)
    assert float(fidelity.gradient(x).abs().max()) < 1e-3


def test_total_variation_of_two_pixels_is_the_known_shrinkage() -> None:
    """With A = I the difference of two pixels shrinks by 2 λ σ², and their mean stays."""
    y = torch.tensor([[0.0, 1.0], [0.0, 0.1]], dtype=torch.float64)
    everything = mask(torch.ones(2, dtype=torch.bool), (2,))
    x = total_variation(DataFidelity(everything, y, 0.5), weight=0.6, iterations=2000)
    shrunk = 0.6 * 0.5**2
    expected = torch.tensor([[shrunk, 1 - shrunk], [0.05, 0.05]], dtype=torch.float64)
    torch.testing.assert_close(x, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ["mask", "sampled fourier"])
def test_nothing_near_the_total_variation_minimum_is_lower(name: str) -> None:
    operator = OPERATORS[name]()
    y, weight = operator(images(operator, 2)), 0.4
    fidelity = DataFidelity(operator, y, 0.5)

    def energy(x: Tensor) -> Tensor:
        steepness = gradient(x, 2).abs().square().sum(0).sqrt()
        return fidelity(x) + weight * steepness.flatten(1).sum(1)

    x = total_variation(fidelity, weight, 4000)
    least = energy(x)
    for _ in range(20):
        assert (energy(x + 0.01 * images(operator, 2)) > least - 1e-6).all()


def test_a_decoder_may_end_in_a_measurement() -> None:
    decoder = nn.Sequential(nn.Linear(2, 4), nn.Unflatten(-1, (2, 2)))
    observed = torch.tensor([[True, False], [False, True]])
    likelihood = LinearOperatorNormal(mask(observed, (2, 2)), 0.3)
    z, y = torch.randn(5, 3, 2), torch.randn(3, 2, 2)
    found = likelihood(decoder(z)).log_prob(y)
    kept = decoder(z)[..., observed]
    expected = DiagonalNormal(kept, torch.tensor(0.3)).log_prob(y[:, observed])
    torch.testing.assert_close(found, expected)
