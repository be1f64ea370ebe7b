from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.distributions import Cauchy, Normal

from core.variational.diagnostics import fit_generalised_pareto, log_importance_weights, pareto_k
from core.variational.exact import small_linear_gaussian


def generalised_pareto(
    shape: float, scale: float, size: int, generator: torch.Generator
) -> Tensor:
    """Quantiles of uniform draws, in order."""
    uniform = torch.rand(size, generator=generator, dtype=torch.float64)
    draws = scale * -torch.log1p(-uniform) if shape == 0 else None
    if draws is None:
        draws = scale * ((1 - uniform) ** -shape - 1) / shape
    return draws.sort().values


@pytest.mark.parametrize("shape", [-0.4, 0.0, 0.3, 0.7, 1.2])
def test_the_fit_finds_shape_and_scale_of_generalised_pareto_draws(shape: float) -> None:
    generator = torch.Generator().manual_seed(1)
    fits = [
        fit_generalised_pareto(generalised_pareto(shape, 2.0, 2000, generator)) for _ in range(40)
    ]
    shapes, scales = torch.tensor(fits, dtype=torch.float64).T
    # The standard error of an efficient estimate is (1 + k) / sqrt(n) for k > -1/2.
    error = (1 + shape) / math.sqrt(2000)
    assert float(shapes.mean()) == pytest.approx(shape, abs=4 * error / math.sqrt(40) + 0.005)
    assert float(shapes.std()) < 1.4 * error
    assert float(scales.mean()) == pytest.approx(2.0, rel=0.02)


def test_the_fit_agrees_with_maximum_likelihood() -> None:
    stats = pytest.importorskip("scipy.stats")
    draws = generalised_pareto(0.5, 1.0, 1000, torch.Generator().manual_seed(3))
    shape, scale = fit_generalised_pareto(draws)
    expected, _, expected_scale = stats.genpareto.fit(draws.numpy(), floc=0)
    assert shape == pytest.approx(expected, abs=0.02)
    assert scale == pytest.approx(expected_scale, abs=0.02)


def test_a_slightly_wider_normal_has_a_light_tail() -> None:
    proposal, target = Normal(0.0, 1.2), Normal(0.0, 1.0)
    z = proposal.sample(torch.Size([4000, 20]))
    k = pareto_k(target.log_prob(z) - proposal.log_prob(z))
    assert float(k.max()) < 0.5


def test_a_narrow_normal_against_a_cauchy_has_a_heavy_tail() -> None:
    # The tail is 1, reached from below as slowly as a logarithm: at 4,000 samples single estimates
    # (standard error 0.13) fall to 0.5, at 50,000 (0.07) none is below 0.7.
    proposal = Normal(torch.tensor(0.0, dtype=torch.float64), 0.1)
    target = Cauchy(0.0, 1.0)
    z = proposal.sample(torch.Size([50_000, 20]))
    k = pareto_k(target.log_prob(z) - proposal.log_prob(z))
    assert float(k.min()) > 0.7


@pytest.mark.parametrize(("scale", "expected"), [(0.9, 1 - 0.9**2), (0.7, 1 - 0.7**2)])
def test_a_narrower_normal_has_the_tail_of_theory(scale: float, expected: float) -> None:
    # w(z) = exp((1/s^2 - 1) z^2 / 2): P(w > t) falls as t^(-1/k) with k = 1 - s^2, slowly.
    proposal, target = Normal(0.0, scale), Normal(0.0, 1.0)
    proposal = Normal(torch.tensor(0.0, dtype=torch.float64), scale)
    z = proposal.sample(torch.Size([100_000, 20]))
    k = pareto_k(target.log_prob(z) - proposal.log_prob(z))
    assert float(k.mean()) == pytest.approx(expected, abs=0.12)


def test_weights_of_an_exact_posterior_have_no_tail() -> None:
    model = small_linear_gaussian()
    weights = log_importance_weights(model, model.sample(8), samples=200)
    assert weights.std(0).max() < 1e-10
    assert torch.equal(pareto_k(weights), torch.full((8,), -math.inf, dtype=torch.float64))
    assert (pareto_k(weights.float()) == -math.inf).all()


def test_a_normal_posterior_that_is_a_little_wide_can_be_trusted_and_a_narrow_one_cannot() -> None:
    wide, narrow = small_linear_gaussian(stretch=1.2), small_linear_gaussian(stretch=0.4)
    x = wide.sample(16)
    assert float(pareto_k(log_importance_weights(wide, x, samples=2000)).max()) < 0.5
    assert float(pareto_k(log_importance_weights(narrow, x, samples=2000)).mean()) > 0.7


def test_what_cannot_be_fitted_is_undefined() -> None:
    broken = torch.zeros(100, 4)
    broken[0, 0] = math.nan
    broken[:, 1] = -math.inf
    broken[:3, 2] = 1.0  # three weights above a plain of equal ones
    broken[0, 3] = math.inf
    k = pareto_k(broken)
    assert k.isnan().tolist() == [True, True, True, False]
    assert float(k[3]) == math.inf


def test_weights_that_vanish_beside_the_largest_have_the_heaviest_tail() -> None:
    log_weights = -1000.0 * torch.arange(100.0)[:, None]
    assert pareto_k(log_weights).tolist() == [math.inf]


def test_a_discrete_latent_does_not_crash_it() -> None:
    values = torch.tensor([0.1, 0.5, 2.0]).log()
    k = pareto_k(values[torch.randint(3, (1000, 5))])
    assert (k.isnan() | (k < 0.5)).all()


def test_too_few_samples_are_refused() -> None:
    with pytest.raises(ValueError, match="24 samples leave 4 in the tail; at least 25"):
        pareto_k(torch.zeros(24, 2))


@settings(max_examples=10, deadline=None)
@given(shift=st.floats(-300, 300), seed=st.integers(0, 1000))
def test_a_constant_factor_on_the_weights_changes_nothing(shift: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    weights = torch.randn(200, 3, generator=generator, dtype=torch.float64) * 2
    torch.testing.assert_close(pareto_k(weights + shift), pareto_k(weights), atol=1e-6, rtol=0)


def test_weights_hundreds_of_nats_apart_without_ties_have_the_heaviest_tail() -> None:
    largest = torch.tensor([-214970.0, -214928.0, -214745.0, -214540.0, -214244.0])
    rest = torch.linspace(-300_000.0, -220_000.0, 27)
    assert pareto_k(torch.cat([rest, largest]).double()[:, None]).tolist() == [math.inf]
