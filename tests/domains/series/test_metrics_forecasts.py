from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score
from torch.distributions import Normal

from core.variational.diagnostics import own_random_stream
from domains.series.data import Windows
from domains.series.metrics.anomalies import (
    average_precision,
    hit,
    judged_by_the_rest,
    row_scores,
)
from domains.series.metrics.forecasts import (
    coverage,
    crps,
    forecast_errors,
    interval_score,
    joined,
)


def windows(count: int, length: int, channels: int) -> Windows:
    values = torch.arange(count * length * channels, dtype=torch.float32)
    values = values.view(count, length, channels)
    known = torch.ones_like(values, dtype=torch.bool)
    times = torch.arange(length, dtype=torch.float32).expand(count, -1)
    rows = torch.stack([torch.zeros(count), torch.arange(count)], 1).long()
    return Windows(values, known, known, known, times, known[:, :, 0], rows)


@given(st.integers(2, 12), st.integers(0, 1000))
@settings(max_examples=30, deadline=None)
def test_the_score_by_sorting_is_that_of_all_pairs(samples: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    draws, y = torch.from_numpy(rng.normal(size=(samples, 5)).round(1)), torch.zeros(5).double()
    pairs = (draws[:, None] - draws[None]).abs().sum((0, 1))
    first = (draws - y).abs().mean(0)
    assert torch.allclose(crps(draws, y, fair=False), first - pairs / (2 * samples**2))
    assert torch.allclose(crps(draws, y), first - pairs / (2 * samples * (samples - 1)))


def test_the_score_of_the_draws_alone_is_the_integral_over_their_distribution_function() -> None:
    draws, y = torch.tensor([0.2, 1.0, -0.7, 2.0]).double(), 0.4
    x = torch.linspace(-4, 4, 80_001).double()
    steps = (draws[:, None] <= x).double().mean(0) - (x >= y).double()
    integral = torch.trapezoid(steps**2, x)
    found = crps(draws, torch.tensor(y).double(), fair=False)
    assert float(found) == pytest.approx(float(integral), abs=2e-4)


@pytest.mark.parametrize("samples", [2, 5, 40])
def test_the_fair_score_of_few_draws_is_that_of_the_normal_on_average(samples: int) -> None:
    """Gneiting et al. (2005), eq. 5, at z = 0.8."""
    z, standard = torch.tensor(0.8), Normal(0.0, 1.0)
    exact = z * (2 * standard.cdf(z) - 1) + 2 * standard.log_prob(z).exp() - np.pi**-0.5
    with own_random_stream(0):
        draws = torch.randn(samples, 200_000)
    assert float(crps(draws, torch.full((200_000,), 0.8)).mean()) == pytest.approx(
        float(exact), abs=0.01
    )


def test_a_single_draw_has_no_fair_score() -> None:
    with pytest.raises(ValueError, match="two draws"):
        crps(torch.zeros(1, 3), torch.zeros(3))
    assert crps(torch.zeros(1, 3), torch.ones(3), fair=False).tolist() == [1, 1, 1]


def test_the_interval_score_is_its_width_and_the_fine() -> None:
    draws = torch.arange(1.0, 20.0)[:, None].expand(-1, 3)  # the 90 % interval is 1 to 19
    observed = torch.tensor([5.0, 0.5, 21.0])
    found = interval_score(draws, observed, 0.9)
    assert found.tolist() == pytest.approx([18, 18 + 0.5 * 20, 18 + 2 * 20], abs=1e-3)


def test_the_ends_of_an_interval_hold_a_further_draw_as_often_as_they_say() -> None:
    with own_random_stream(1):
        draws, new = torch.rand(39, 50_000), torch.rand(50_000)
    width = interval_score(draws, draws.mean(0), 0.9)  # the mean is inside: no fine
    assert float(width.mean()) == pytest.approx(0.9, abs=0.005)
    assert coverage(draws, new) == pytest.approx([0.5, 0.9], abs=0.01)


def test_coverage_tells_too_narrow_from_too_wide() -> None:
    with own_random_stream(2):
        draws, y = torch.randn(99, 20_000), torch.randn(20_000)
        narrow, wide = coverage(0.5 * draws, y), coverage(2 * draws, y)
    standard = Normal(0.0, 1.0)
    for scale, found in ((0.5, narrow), (2.0, wide)):
        ends = scale * standard.icdf(torch.tensor([0.75, 0.95]))
        assert found == pytest.approx((2 * standard.cdf(ends) - 1).tolist(), abs=0.015)


def test_errors_are_counted_at_the_targets_only_with_their_channel_and_window() -> None:
    truth = torch.zeros(3, 4, 2)
    targets = torch.zeros(3, 4, 2, dtype=torch.bool)
    targets[0, 1, 0] = targets[2, 3, 1] = targets[2, 0, 1] = True
    median, mean = torch.full_like(truth, 2.0), torch.full_like(truth, -3.0)
    median[1], mean[1] = 99, 99
    draws = torch.zeros(5, 3, 4, 2)
    found = forecast_errors(draws, median, mean, truth, targets, first=10)
    assert found.mae == 2
    assert found.rmse == 3
    assert found.channel.tolist() == [0, 1, 1]
    assert found.window.tolist() == [10, 12, 12]
    assert found.crps.tolist() == [0, 0, 0]
    assert len(found.of_channel(1)) == 2
    assert len(joined([found, found])) == 6


def test_ranks_of_calibrated_draws_cover_what_they_say() -> None:
    with own_random_stream(3):
        draws, truth = torch.randn(20, 50, 6, 4), torch.randn(50, 6, 4)
        found = forecast_errors(draws, truth, truth, truth, torch.ones(50, 6, 4, dtype=torch.bool))
    assert found.covered(0.5).mean() == pytest.approx(0.5, abs=0.05)
    assert found.covered(0.9).mean() == pytest.approx(0.9, abs=0.03)
    assert found.rank.mean() == pytest.approx(0.5, abs=0.03)


scored_labels = st.lists(
    st.tuples(st.booleans(), st.integers(-5, 5)), min_size=1, max_size=40
).filter(lambda found: any(label for label, _ in found))


@given(scored_labels)
@settings(max_examples=60, deadline=None)
def test_average_precision_is_that_of_scikit_learn_with_ties_too(
    found: list[tuple[bool, int]],
) -> None:
    labels, scores = (np.array(column, dtype=np.float64) for column in zip(*found, strict=True))
    expected = average_precision_score(labels, scores)
    assert average_precision(labels, scores) == pytest.approx(expected)


def test_labels_come_first_and_one_is_1() -> None:
    with pytest.raises(ValueError, match="come first"):
        average_precision(np.array([0.2, 0.3]), np.array([0.0, 1.0]))
    with pytest.raises(ValueError, match="one at least"):
        average_precision(np.zeros(3), np.ones(3))


def test_a_hit_is_a_hundred_rows_off_at_most() -> None:
    labels, scores = np.zeros(1000), np.zeros(1000)
    labels[400:410] = 1
    scores[0] = np.nan
    for row, found in ((405, True), (300, True), (299, False), (509, True), (510, False)):
        at = scores.copy()
        at[row] = 1
        assert hit(labels, at) is found
    with pytest.raises(ValueError, match="labelled"):
        hit(np.zeros(3), np.zeros(3))


def test_the_surprise_of_a_row_is_the_mean_over_its_values_of_the_mean_over_windows() -> None:
    surprise = np.array([[[1.0, 10], [2, 20]], [[4, 40], [6, 60]]])
    judged = np.ones((2, 2, 2), dtype=bool)
    judged[1, 0, 1] = False
    found = row_scores(surprise, judged, np.array([0, 1]), 4)
    assert found[:3] == pytest.approx([5.5, ((2 + 4) / 2 + 20) / 2, 33])
    assert np.isnan(found[3])


@pytest.mark.parametrize(("task", "times"), [("generate", 1), ("impute", 1), ("forecast", 1)])
def test_every_value_is_judged_by_what_the_task_sees(task: str, times: int) -> None:
    batch = windows(2, 9, 2)
    parts = list(judged_by_the_rest(batch, task, horizon=3))
    wanted = torch.stack([hidden for _, hidden in parts]).sum(0)
    if task == "forecast":
        assert wanted[:, :6].eq(0).all()
        wanted = wanted[:, 6:]
    assert wanted.eq(times).all()
    for seen, hidden in parts:
        overlap = (seen.seen & hidden).any()
        assert bool(overlap) == (task == "generate")
        if task == "forecast":
            assert seen.seen[:, :6].all()
        if task == "impute":
            assert seen.seen.sum() + hidden.sum() == batch.known.sum()
