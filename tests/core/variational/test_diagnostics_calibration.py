from __future__ import annotations

import math

import pytest
import torch
from torch.distributions import Bernoulli, Normal

from core.variational.diagnostics import (
    Estimate,
    calibration_error,
    central_coverage,
    likelihood_coverage,
    probability_integral,
)
from core.variational.distributions import DiagonalNormal


def test_a_true_predictive_distribution_covers_what_it_says() -> None:
    truth = Normal(torch.randn(2000), torch.rand(2000) + 0.5)
    found = central_coverage(truth.cdf(truth.sample()))
    for level, share in zip(found.levels, found.observed, strict=True):
        assert isinstance(share, Estimate)
        assert share.value == pytest.approx(level, abs=4 * math.sqrt(0.25 / 2000))
    assert found.n == 2000
    assert found.error < 0.03


@pytest.mark.parametrize(("factor", "covered"), [(0.5, 0.673), (2.0, 0.9999)])
def test_a_scale_that_is_wrong_covers_what_the_normal_says(factor: float, covered: float) -> None:
    # Central 95 % of N(0, f^2) is +-1.96 f, which N(0, 1) hits with this probability.
    ranks = Normal(0.0, factor).cdf(torch.randn(20_000))
    share = central_coverage(ranks, [0.95]).observed[0]
    assert isinstance(share, Estimate)
    assert share.value == pytest.approx(covered, abs=0.015)


def test_ranks_among_draws_of_the_truth_are_uniform_also_for_counts() -> None:
    draws, value = (
        torch.poisson(torch.full((50, 4000), 1.5)),
        torch.poisson(torch.full((4000,), 1.5)),
    )
    ranks = probability_integral(draws, value)
    assert float(ranks.mean()) == pytest.approx(0.5, abs=4 * math.sqrt(1 / 12 / 4000))
    assert float(ranks.var()) == pytest.approx(1 / 12, abs=0.005)
    assert central_coverage(ranks).error < 0.03


def test_a_likelihood_with_posterior_draws_in_front_is_a_mixture() -> None:
    # z ~ N(0, 1), x | z ~ N(z, 1): the predictive is N(0, 2).
    z = torch.randn(100, 500, 2)
    x = torch.randn(500, 2) * math.sqrt(2)
    found = likelihood_coverage(DiagonalNormal(z, torch.ones(())), x)
    assert found.error < 0.03
    assert found.n == 1000


def test_ranks_outside_0_to_1_are_refused() -> None:
    with pytest.raises(ValueError, match="2 ranks, not all of them in 0 to 1"):
        central_coverage(torch.tensor([0.5, 1.5]))


def test_calibrated_probabilities_lie_at_the_floor() -> None:
    p = torch.rand(3000)
    found = calibration_error(p, Bernoulli(p).sample())
    assert found.value < 1.3 * found.floor_95
    assert found.floor > 0.005  # the estimate is never 0


def test_overconfident_probabilities_lie_far_above_it() -> None:
    logits = torch.randn(3000)
    found = calibration_error(torch.sigmoid(3 * logits), Bernoulli(logits=logits).sample())
    assert found.value > 4 * found.floor_95


def test_the_calibration_error_of_a_constant_is_the_gap() -> None:
    outcomes = torch.tensor([1.0] * 30 + [0.0] * 70)
    found = calibration_error(torch.full((100,), 0.5), outcomes, bins=1)
    assert found.value == pytest.approx(0.2)
    assert (found.predicted, found.observed, found.counts) == (
        pytest.approx([0.5]),
        pytest.approx([0.3]),
        [100],
    )


def test_fewer_data_than_bins_leave_bins_out() -> None:
    found = calibration_error(torch.tensor([0.2, 0.9]), torch.tensor([0, 1]))
    assert found.counts == [1, 1]
    assert found.value == pytest.approx(0.15)


def test_probabilities_and_outcomes_must_be_as_many() -> None:
    with pytest.raises(ValueError, match="3 probabilities and 2 outcomes"):
        calibration_error(torch.rand(3), torch.zeros(2))
