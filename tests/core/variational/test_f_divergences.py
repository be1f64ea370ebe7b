from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from core.variational.distributions import DiagonalNormal, stop_gradient
from core.variational.f_divergences import (
    F_DIVERGENCES,
    FDivergence,
    alpha_divergence,
    estimate,
    f_divergence,
    path_loss,
)

ORDERS = (-1.0, -0.3, 0.0, 0.5, 1.0, 1.7, 2.0)
RECORDS = [*F_DIVERGENCES.values(), *(alpha_divergence(order) for order in ORDERS)]
EVERY = pytest.mark.parametrize("record", RECORDS, ids=lambda record: record.name)
SMOOTH = [record for record in RECORDS if record.log_weight is not None]
GRID = torch.linspace(-40, 40, 160_001, dtype=torch.float64)
LOG_RATIOS = torch.linspace(-4, 4, 401, dtype=torch.float64)


def quadrature(record: FDivergence, p: Normal, q: Normal) -> Tensor:
    log_q = q.log_prob(GRID)
    # Where q underflows, so does every integrand of these pairs.
    terms = log_q.exp() * record.generator(p.log_prob(GRID) - log_q)
    return torch.trapezoid(torch.where(log_q > -300, terms, 0), GRID)


def normal(loc: float, scale: float) -> Normal:
    numbers = torch.tensor([loc, scale], dtype=torch.float64)
    return Normal(numbers[0], numbers[1])


P, Q = normal(0.0, 1.0), normal(0.4, 1.2)

CLOSED_FORMS = {
    "reverse-kl": lambda p, q: kl_divergence(q, p),
    "forward-kl": lambda p, q: kl_divergence(p, q),
    "jeffreys": lambda p, q: kl_divergence(p, q) + kl_divergence(q, p),
    "squared-hellinger": lambda p, q: 1 - bhattacharyya(p, q),
    "pearson-chi2": lambda p, q: chi_square(p, q),
    "neyman-chi2": lambda p, q: chi_square(q, p),
}


def bhattacharyya(p: Normal, q: Normal) -> Tensor:
    variance = p.scale**2 + q.scale**2
    ratio = (2 * p.scale * q.scale / variance).sqrt()
    return ratio * torch.exp(-((p.loc - q.loc) ** 2) / (4 * variance))


def chi_square(p: Normal, q: Normal) -> Tensor:
    """The integral of p² / q, less 1."""
    variance = 2 * q.scale**2 - p.scale**2
    power = q.scale**2 / (p.scale * variance.sqrt())
    return power * torch.exp((p.loc - q.loc) ** 2 / variance) - 1


@pytest.mark.parametrize("kind", CLOSED_FORMS)
def test_s032_the_quadrature_of_a_generator_is_the_closed_form(kind: str) -> None:
    torch.testing.assert_close(
        quadrature(F_DIVERGENCES[kind], P, Q), CLOSED_FORMS[kind](P, Q), rtol=1e-8, atol=1e-10
    )


def test_total_variation_of_shifted_normals_is_the_error_function() -> None:
    shifted = normal(0.8, 1.0)
    expected = math.erf(0.8 / (2 * math.sqrt(2)))
    value = float(quadrature(F_DIVERGENCES["total-variation"], P, shifted))
    assert value == pytest.approx(expected, abs=1e-6)


def test_jensen_shannon_is_the_mean_kl_from_the_mixture() -> None:
    mixture = torch.logaddexp(P.log_prob(GRID), Q.log_prob(GRID)) - math.log(2)
    logs = torch.stack([P.log_prob(GRID), Q.log_prob(GRID)])
    terms = 0.5 * (logs.exp() * (logs - mixture)).sum(0)
    torch.testing.assert_close(
        quadrature(F_DIVERGENCES["jensen-shannon"], P, Q), torch.trapezoid(terms, GRID)
    )


def test_softened_reverse_kl_is_twice_the_kl_from_the_mixture_to_the_target() -> None:
    """With the mixture m of p and q: the integral of (p + q) log((p + q) / (2 p))."""
    mixture = torch.logaddexp(P.log_prob(GRID), Q.log_prob(GRID)) - math.log(2)
    terms = 2 * mixture.exp() * (mixture - P.log_prob(GRID))
    torch.testing.assert_close(
        quadrature(F_DIVERGENCES["softened-reverse-kl"], P, Q), torch.trapezoid(terms, GRID)
    )


@pytest.mark.parametrize("record", SMOOTH, ids=lambda record: record.name)
def test_s032_the_weighted_score_difference_is_the_gradient_of_the_divergence(
    record: FDivergence,
) -> None:
    parameters = torch.tensor([0.4, 1.2], dtype=torch.float64, requires_grad=True)
    q = Normal(parameters[0], parameters[1])
    expected = torch.autograd.grad(quadrature(record, P, q), parameters)[0]

    held = normal(0.4, 1.2)
    noise = normal(0.0, 1.0)
    points = GRID[GRID.abs() <= 16]  # z = loc + scale · noise, integrated over the noise
    z = (parameters[0] + parameters[1] * points).detach()
    log_ratio = P.log_prob(z) - held.log_prob(z)
    scores = -(z - P.loc) / P.scale**2 + (z - held.loc) / held.scale**2
    path = -record.weight(log_ratio) * scores
    density = noise.log_prob(points).exp()
    weighted = [torch.trapezoid(density * path * slope, points) for slope in (1, points)]
    error = (torch.stack(weighted) - expected).abs().max()
    assert float(error) <= 1e-3 * float(expected.abs().max())
    assert float(error) <= 1e-3


@pytest.mark.parametrize("record", SMOOTH, ids=lambda record: record.name)
def test_s032_the_path_loss_has_this_gradient_at_samples(record: FDivergence) -> None:
    parameters = torch.tensor([0.2, 1.1], dtype=torch.float64, requires_grad=True)
    expected = torch.autograd.grad(
        quadrature(record, P, Normal(parameters[0], parameters[1])), parameters
    )[0]
    q = DiagonalNormal(parameters[:1], parameters[1:])
    z = q.rsample((200_000,))
    log_ratio = P.log_prob(z).sum(-1) - stop_gradient(q).log_prob(z)
    gradient = torch.autograd.grad(path_loss(record, log_ratio), parameters)[0]
    noise = ((z - q.loc) / q.scale).detach()[:, 0]
    weight = record.weight(log_ratio.detach())
    scores = weight * (z[:, 0] - (z[:, 0] - q.loc) / q.scale**2).detach()
    errors = torch.stack([(scores * slope).std() for slope in (torch.ones(()), noise)])
    assert bool(((gradient - expected).abs() <= 4 * errors / math.sqrt(len(z))).all())


def test_equal_laws_have_no_gradient_at_all() -> None:
    for record in SMOOTH:
        loc = torch.zeros(1, dtype=torch.float64, requires_grad=True)
        q = DiagonalNormal(loc, torch.ones_like(loc))
        z = q.rsample((8,))
        loss = path_loss(record, stop_gradient(q).log_prob(z) - stop_gradient(q).log_prob(z))
        assert float(torch.autograd.grad(loss, loc)[0]) == 0.0


@EVERY
def test_a_generator_is_0_and_flat_where_the_laws_agree_and_convex(record: FDivergence) -> None:
    zero = torch.zeros(1, dtype=torch.float64)
    assert float(record.generator(zero)) == pytest.approx(0, abs=1e-15)
    assert float(record.slope(zero)) == pytest.approx(0, abs=1e-15)
    assert bool((record.generator(LOG_RATIOS) >= -1e-12).all())
    assert bool((record.slope(LOG_RATIOS).diff() >= -1e-12).all())


@EVERY
def test_the_slope_is_the_derivative_and_the_weight_the_second(record: FDivergence) -> None:
    ratios = LOG_RATIOS[LOG_RATIOS != 0].exp().requires_grad_()
    slope = torch.autograd.grad(record.generator(ratios.log()).sum(), ratios, create_graph=True)[0]
    torch.testing.assert_close(record.slope(ratios.log()), slope, rtol=1e-7, atol=1e-10)
    if record.log_weight is None:
        return
    curvature = torch.autograd.grad(record.slope(ratios.log()).sum(), ratios)[0]
    torch.testing.assert_close(record.curvature(ratios.log()), curvature, rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(
        record.weight(ratios.log()), curvature * ratios.square(), rtol=1e-6, atol=1e-9
    )


@EVERY
def test_the_conjugate_is_the_supremum(record: FDivergence) -> None:
    if record.conjugate is None:
        pytest.skip("no closed form")
    # Fenchel's equality where the supremum is reached, his inequality everywhere else.
    slopes, ratios = record.slope(LOG_RATIOS), LOG_RATIOS.exp()
    reached = record.conjugate(slopes)
    torch.testing.assert_close(
        reached, ratios * slopes - record.generator(LOG_RATIOS), rtol=1e-6, atol=1e-8
    )
    others = ratios[:, None] * slopes - record.generator(LOG_RATIOS)[:, None]
    assert bool((others <= reached + 1e-8).all())


@pytest.mark.parametrize(
    ("kind", "limit", "floor"),
    [
        ("reverse-kl", 1.0, -math.inf),
        ("forward-kl", math.inf, -1.0),
        ("jensen-shannon", math.log(2) / 2, -math.log(2) / 2),
        ("pearson-chi2", math.inf, -1.0),
        ("neyman-chi2", 1.0, -math.inf),
        ("squared-hellinger", 0.5, -0.5),
        ("total-variation", 0.5, -0.5),
    ],
)
def test_a_conjugate_is_infinite_beyond_its_domain_and_falls_to_minus_f_of_0(
    kind: str, limit: float, floor: float
) -> None:
    conjugate = F_DIVERGENCES[kind].conjugate
    assert conjugate is not None
    lowest = float(conjugate(torch.tensor(-1e12, dtype=torch.float64)))
    assert lowest == pytest.approx(floor, abs=1e-6) or (floor == -math.inf and lowest < -20)
    if math.isfinite(limit):
        t = torch.tensor([limit - 1e-3, limit + 1e-3], dtype=torch.float64, requires_grad=True)
        values = conjugate(t)
        assert values.isinf().tolist() == [False, True]
        assert bool(torch.autograd.grad(values[0], t)[0].isfinite().all())


@EVERY
def test_the_dual_exchanges_the_two_laws(record: FDivergence) -> None:
    if record.dual is None:
        pytest.skip("not in the table")
    order = record.dual.removeprefix("alpha(").removesuffix(")")
    dual = F_DIVERGENCES.get(record.dual) or alpha_divergence(float(order))
    torch.testing.assert_close(
        dual.generator(LOG_RATIOS), LOG_RATIOS.exp() * record.generator(-LOG_RATIOS)
    )


@pytest.mark.parametrize(
    ("order", "kind", "factor"),
    [
        (0.0, "reverse-kl", 1.0),
        (1.0, "forward-kl", 1.0),
        (0.5, "squared-hellinger", 4.0),
        (2.0, "pearson-chi2", 0.5),
        (-1.0, "neyman-chi2", 0.5),
    ],
)
def test_the_alpha_family_passes_through_the_others(
    order: float, kind: str, factor: float
) -> None:
    record, other = alpha_divergence(order), F_DIVERGENCES[kind]
    for near in (record, alpha_divergence(order + 1e-7)):
        torch.testing.assert_close(
            near.generator(LOG_RATIOS),
            factor * other.generator(LOG_RATIOS),
            rtol=1e-5,
            atol=1e-8,
        )
    torch.testing.assert_close(record.weight(LOG_RATIOS), factor * other.weight(LOG_RATIOS))


@settings(max_examples=25, deadline=None)
@given(
    loc=st.floats(-2, 2),
    scale=st.floats(0.75, 1.35),
    record=st.sampled_from(RECORDS),
)
def test_a_divergence_lies_between_0_and_its_maximum(
    loc: float, scale: float, record: FDivergence
) -> None:
    value = float(quadrature(record, P, normal(loc, scale)))
    assert -1e-9 <= value <= record.maximum + 1e-9


@EVERY
def test_the_maximum_is_that_of_laws_that_share_nothing(record: FDivergence) -> None:
    """At r = 0 wherever q is, and r = ∞ wherever p is: f(0) and the limit of f(r) / r."""
    far = torch.tensor(60.0, dtype=torch.float64)
    value = float(record.generator(-far) + record.generator(far) / far.exp())
    assert value == pytest.approx(record.maximum, abs=1e-6) or (
        record.maximum == math.inf and value > 20
    )


@EVERY
def test_the_estimate_is_the_divergence_on_average(record: FDivergence) -> None:
    q = normal(0.2, 1.1)
    z = q.sample((100_000,))
    log_ratio = P.log_prob(z) - q.log_prob(z)
    error = float(record.generator(log_ratio).std()) / math.sqrt(len(z))
    value = float(estimate(record, log_ratio))
    assert abs(value - float(quadrature(record, P, q))) <= 4 * error


@EVERY
def test_single_precision_is_enough_near_and_far(record: FDivergence) -> None:
    exact = torch.tensor([-30.0, -1.0, -1e-4, 0.0, 1e-4, 1.0, 30.0], dtype=torch.float64)
    log_ratio = exact.float().requires_grad_()
    values = record.generator(log_ratio)
    torch.testing.assert_close(
        values.double(), record.generator(log_ratio.double()), rtol=1e-4, atol=1e-7
    )
    assert bool(torch.autograd.grad(values.sum(), log_ratio)[0].isfinite().all())


def test_a_kink_has_no_weight() -> None:
    with pytest.raises(ValueError, match=r"total-variation: .* no second derivative"):
        F_DIVERGENCES["total-variation"].weight(torch.zeros(2))


def test_an_unknown_kind_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match="no kind 'kl'; there is reverse-kl, forward-kl"):
        f_divergence("kl")
    with pytest.raises(ValueError, match="needs an order"):
        f_divergence("alpha")
    with pytest.raises(ValueError, match="others have none"):
        f_divergence("reverse-kl", 0.5)
    with pytest.raises(ValueError, match="must be finite"):
        alpha_divergence(math.nan)
    assert f_divergence("jensen-shannon") is F_DIVERGENCES["jensen-shannon"]
