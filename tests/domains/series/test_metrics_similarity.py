from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist
from scipy.stats import wasserstein_distance
from sklearn.metrics import roc_auc_score

from domains.series.metrics import similarity, strict
from domains.series.metrics.similarity import (
    autocorrelation_distance,
    autocorrelations,
    correlational_score,
    marginal_distance,
    memorisation,
    neighbours,
    wasserstein_distances,
)
from domains.series.metrics.strict import (
    Whitened,
    _stretches,
    area_with_interval,
    strict_discriminative,
)


def windows(seed: int, count: int = 40, length: int = 9, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, length, channels)).cumsum(1)


def autoregressive(seed: int, rows: int, phi: float = 0.9) -> np.ndarray:
    rng, x = np.random.default_rng(seed), np.zeros((rows, 2))
    noise = rng.normal(size=(rows, 2)) * np.sqrt(1 - phi**2)
    x[0] = rng.normal(size=2)
    for row in range(1, rows):
        x[row] = phi * x[row - 1] + noise[row]
    return x


def overlapping(x: np.ndarray, length: int) -> np.ndarray:
    return np.lib.stride_tricks.sliding_window_view(x, length, axis=0).transpose(0, 2, 1).copy()


def test_the_correlational_score_is_a_tenth_of_the_differences_that_numpy_finds() -> None:
    real, fake = windows(0), windows(1) + windows(0)[..., ::-1]
    expected = [np.corrcoef(each.reshape(-1, 3).T) for each in (real, fake)]
    difference = np.abs(expected[0] - expected[1])
    assert correlational_score(real, fake) == pytest.approx(np.tril(difference).sum() / 10)


def test_a_constant_channel_correlates_with_none() -> None:
    real = windows(0)
    real[..., 2] = 7.3
    fake = real.copy()
    fake[..., 0] *= -1
    rho = np.corrcoef(real[..., :2].reshape(-1, 2).T)[0, 1]
    assert correlational_score(real, fake) == pytest.approx(2 * abs(rho) / 10)


def test_histograms_are_those_of_numpy() -> None:
    real, fake = windows(0), 1.3 * windows(1)
    total = 0.0
    for time in range(real.shape[1]):
        for channel in range(real.shape[2]):
            one, other = real[:, time, channel], fake[:, time, channel]
            edges = np.linspace(one.min(), one.max(), 11)
            first = np.histogram(one, edges)[0] / len(one)
            second = np.histogram(other.clip(one.min(), one.max()), edges)[0] / len(other)
            total += np.abs(first - second).sum() / 2
    expected = total / (real.shape[1] * real.shape[2])
    assert marginal_distance(real, fake, bins=10) == pytest.approx(expected)


def test_marginals_far_apart_have_distance_one_half_of_what_is_moved() -> None:
    real = np.tile(np.linspace(0, 1, 51)[:50, None, None], (1, 4, 2))
    moved = real.copy()
    moved[:25] = 0.99
    assert marginal_distance(real, real) == 0
    assert marginal_distance(real, moved) == pytest.approx(0.5, abs=0.03)


@given(st.integers(1, 30), st.integers(1, 30), st.integers(0, 100))
@settings(max_examples=30, deadline=None)
def test_wasserstein_distances_are_those_of_scipy(first: int, second: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=(first, 2, 2)), rng.integers(0, 3, (second, 2, 2)).astype(float)
    expected = [wasserstein_distance(a[..., k].ravel(), b[..., k].ravel()) for k in range(2)]
    assert wasserstein_distances(a, b) == pytest.approx(expected)


def test_autocorrelations_are_sums_of_products(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(similarity, "DISTANCES_AT_A_TIME", 100)  # several pieces
    x = windows(3, length=7)
    z = (x - x.mean((0, 1))) / x.std((0, 1))
    expected = [(z[:, : 7 - lag] * z[:, lag:]).mean((0, 1)) for lag in range(7)]
    assert autocorrelations(x) == pytest.approx(np.array(expected))
    assert autocorrelation_distance(x, x) == 0


def test_the_autocorrelation_of_an_autoregressive_process_is_a_geometric_series() -> None:
    x = overlapping(autoregressive(0, 40_000, 0.8), 6)[::6]
    found = autocorrelations(x)
    assert found == pytest.approx(np.tile(0.8 ** np.arange(6)[:, None], 2), abs=0.03)


@pytest.mark.parametrize("room", [2**24, 97])
def test_nearest_neighbours_are_those_of_scipy(monkeypatch: pytest.MonkeyPatch, room: int) -> None:
    monkeypatch.setattr(similarity, "DISTANCES_AT_A_TIME", room)
    real, fake = windows(0, 31), windows(1, 24)
    flat, other = real.reshape(31, -1), fake.reshape(24, -1)
    between, own = cdist(other, flat), cdist(flat, flat)
    np.fill_diagonal(own, np.inf)
    closer = between.min(1) < own.min(1)[between.argmin(1)]
    found = neighbours(real, fake)
    assert found.real == pytest.approx(np.sort(own.min(1))[15])
    assert found.generated == pytest.approx(np.sort(between.min(1))[11])
    assert found.closer == closer.mean()
    assert memorisation(real, fake) == pytest.approx(found.generated / found.real)


def test_copies_are_found_exactly_though_far_from_zero() -> None:
    real = 1e3 + 1e-3 * windows(0, 200)
    found = neighbours(real, real[::3])
    assert found.generated == 0
    assert found.closer == 1


def test_draws_of_the_same_law_are_neither_nearer_nor_farther_than_the_data() -> None:
    rng = np.random.default_rng(0)
    real, fake = rng.normal(size=(2, 1500, 4, 2))
    assert memorisation(real, fake) == pytest.approx(1, abs=0.05)
    share = neighbours(real, fake).closer  # below one half: the nearest real ones lie densely
    assert 0.3 < share < 0.5
    again = neighbours(real, rng.normal(size=(1500, 4, 2))).closer
    assert share == pytest.approx(again, abs=0.06)


def test_many_windows_are_looked_at_in_part(monkeypatch: pytest.MonkeyPatch) -> None:
    real, fake = windows(0, 60), windows(1, 50)
    monkeypatch.setattr(similarity, "QUERIES", 10)
    assert neighbours(real, fake).n == 10
    assert neighbours(real, np.concatenate([fake[:9], real[-1:]])).n == 10


def test_the_area_and_its_interval_are_those_of_independent_scores() -> None:
    rng = np.random.default_rng(0)
    real, fake = rng.normal(0.7, 1, 150), rng.normal(size=120).round(1)
    real = real.round(1)
    area, (low, high) = area_with_interval(real, fake)
    labels, scores = np.repeat([1, 0], [150, 120]), np.concatenate([real, fake])
    assert area == pytest.approx(roc_auc_score(labels, scores))
    drawn = [
        area_with_interval(rng.normal(0.7, 1, 150), rng.normal(size=120))[0] for _ in range(400)
    ]
    assert (high - low) / (2 * 1.96) == pytest.approx(np.std(drawn), rel=0.15)


def test_repeated_scores_widen_the_interval_where_they_are_known_to_depend() -> None:
    rng = np.random.default_rng(1)
    real, fake = rng.normal(size=80), rng.normal(size=5000)
    once = area_with_interval(real, fake)[1]
    naive = area_with_interval(np.repeat(real, 10), fake)[1]
    honest = area_with_interval(np.repeat(real, 10), fake, stretch=10)[1]
    assert np.subtract(*honest) == pytest.approx(np.subtract(*once), rel=0.02)
    assert np.subtract(*naive) > 0.5 * np.subtract(*once)


def test_what_a_strict_judge_sees_is_white_and_shows_small_directions() -> None:
    x = windows(0, 200)
    x[..., 2] = x[..., 0] + 1e-3 * np.random.default_rng(1).normal(size=x.shape[:2])
    seen = Whitened(x)(x).double().numpy().reshape(-1, 6)
    assert np.cov(seen.T) == pytest.approx(np.eye(6), abs=0.05)
    moved = x.copy()
    moved[..., 2] += 5e-3
    assert np.abs(Whitened(x)(moved).numpy() - Whitened(x)(x).numpy()).max() > 2


def test_no_row_is_both_in_stretches_trained_on_and_tested_on() -> None:
    length = 12
    train, valid, test = _stretches(np.random.default_rng(0), 3000, length)
    rows = [{w + k for w in part.tolist() for k in range(length)} for part in (train, valid, test)]
    assert not rows[0] & rows[1]
    assert not rows[0] & rows[2]
    assert len(train) > 2.5 * len(test) > 1000


def test_a_strict_judge_tells_nothing_of_a_shuffled_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strict, "STEPS", 60)
    real = overlapping(autoregressive(0, 800), 8)
    found = strict_discriminative(real, np.random.default_rng(1).permutation(real), 0)
    assert found.auc == pytest.approx(0.5, abs=1e-3)
    assert found.interval[0] < 0.5 < found.interval[1]
    assert found.score == pytest.approx(0, abs=0.01)


def test_a_strict_judge_tells_little_of_other_draws_and_much_of_noise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(strict, "STEPS", 100)
    real = overlapping(autoregressive(0, 1000, 0.7), 6)
    other = overlapping(autoregressive(1, 1000, 0.7), 6)
    found = strict_discriminative(real, other, 0)
    assert found.interval[0] < 0.6
    noisy = strict_discriminative(real, other + 0.5 * windows(2, len(other), 6, 2) ** 2, 0)
    assert noisy.auc > 0.8
    assert noisy.score > 0.2


@pytest.mark.slow
def test_other_draws_of_a_process_are_not_told_from_overlapping_windows_of_it() -> None:
    """A judge that is tested between the windows it was trained on gets 0.93 here."""
    areas = []
    for seed in range(2):
        real = overlapping(autoregressive(seed, 2000), 24)
        parts = [autoregressive(100 + seed + 7 * k, 24) for k in range(len(real))]
        areas.append(strict_discriminative(real, np.stack(parts), seed).auc)
    assert np.mean(areas) == pytest.approx(0.5, abs=0.12)


def test_windows_that_are_all_alike_are_judged_too() -> None:
    real = overlapping(autoregressive(0, 300), 6)
    found = strict_discriminative(real, np.zeros_like(real), 0)
    assert found.auc > 0.95


def test_a_strict_judge_says_the_same_twice_and_needs_some_windows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(strict, "STEPS", 40)
    real, fake = windows(0, 60), windows(1, 60)
    assert strict_discriminative(real, fake, 3) == strict_discriminative(real, fake, 3)
    with pytest.raises(ValueError, match="20 of both"):
        strict_discriminative(real[:19], fake, 0)
    with pytest.raises(ValueError, match="2 and 1"):
        neighbours(real[:1], fake)
