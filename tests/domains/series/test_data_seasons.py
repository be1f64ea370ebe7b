"""Seasons that are there are found, and those that are not are not."""

from __future__ import annotations

import numpy as np
import pytest

from domains.series.data.seasons import autocorrelation, season
from domains.series.data.sources import google_stock


def test_the_autocorrelation_is_the_sum_of_products_over_pairs_that_are_known() -> None:
    rng = np.random.default_rng(0)
    column = rng.normal(size=60) + np.linspace(0, 9, 60)
    column[rng.random(60) < 0.2] = np.nan
    known, time = np.isfinite(column), np.arange(60)
    left = column - np.polyval(np.polyfit(time[known], column[known], 1), time)
    expected = [
        np.nanmean(left[: 60 - lag] * left[lag:]) / np.nanmean(left**2) for lag in range(16)
    ]
    found = autocorrelation(column, 15)
    assert found is not None
    np.testing.assert_allclose(found, expected, rtol=1e-9)


@pytest.mark.parametrize("period", [4, 7, 24, 52, 144])
@pytest.mark.parametrize("noise", [0.0, 0.7])
def test_the_period_of_a_wave_is_found_also_over_gaps_and_a_trend(
    period: int, noise: float
) -> None:
    rng = np.random.default_rng(period)
    time = np.arange(12 * period + 300)
    values = np.sin(2 * np.pi * time / period + 1) + noise * rng.normal(size=len(time))
    values += 0.01 * time
    values[rng.random(len(time)) < 0.2] = np.nan
    assert season(values[:, None]) == period


def test_a_short_pulse_repeated_is_a_season() -> None:
    values = np.zeros(700)
    values[::35] = 1.0
    values[1::35] = 0.5
    assert season(values[:, None]) == 35


def test_of_a_day_in_a_week_the_stronger_is_the_season() -> None:
    time = np.arange(168 * 12)
    day, week = np.sin(2 * np.pi * time / 24), np.sin(2 * np.pi * time / 168)
    assert season((day + 0.2 * week)[:, None]) == 24
    assert season((0.3 * day + week)[:, None]) == 168


def test_an_overtone_is_not_taken_for_its_fundamental() -> None:
    time = np.arange(600)
    wave = np.sin(2 * np.pi * time / 30) + 1.3 * np.sin(2 * np.pi * time / 15)
    assert season(wave[:, None]) == 30


def test_a_quarter_of_the_channels_must_agree() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=(600, 9))
    values[:, 0] += 3 * np.sin(2 * np.pi * np.arange(600) / 12)
    assert season(values) == 0
    assert season(values[:, :4]) == 12


@pytest.mark.parametrize("memory", [0.0, 0.9, 0.99, 1.0])
def test_noise_of_any_memory_has_hardly_ever_a_season(memory: float) -> None:
    rng = np.random.default_rng(0)
    found = 0
    for _ in range(60):
        noise, values = rng.normal(size=800), np.zeros(800)
        for time in range(1, 800):
            values[time] = memory * values[time - 1] + noise[time]
        found += season(values[:, None]) > 0
    assert found <= 2


def test_quotes_have_no_season() -> None:
    assert season(google_stock().series[0].values) == 0


@pytest.mark.parametrize(
    "values",
    [np.zeros((0, 2)), np.ones((500, 1)), np.arange(500.0)[:, None], np.full((99, 1), np.nan)],
)
def test_nothing_that_varies_has_no_season(values: np.ndarray) -> None:
    assert season(values) == 0


def test_wild_values_are_no_obstacle() -> None:
    wave = 1e300 * np.sin(2 * np.pi * np.arange(200) / 10)
    assert season(wave[:, None]) == 10
