from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from domains.series.config import Data
from domains.series.data.simulated import (
    SIMULATED,
    acceleration,
    fractional_brownian,
    fractional_covariance,
    fractional_noise,
    laser_ageing,
    ornstein_uhlenbeck,
    random_sines,
)


@pytest.mark.parametrize("hurst", [0.2, 0.5, 0.85])
def test_fractional_noise_has_the_covariance_of_theory(hurst: float) -> None:
    count, steps = 40_000, 12
    drawn = fractional_noise(np.random.default_rng(1), np.full(count, hurst), steps)
    lags = np.abs(np.subtract.outer(np.arange(steps), np.arange(steps)))
    theory = fractional_covariance(np.array([hurst]), lags.ravel())[0].reshape(steps, steps)
    # The standard error of an entry is at most sqrt(2 / count) = 0.007.
    np.testing.assert_allclose(drawn.T @ drawn / count, theory, atol=0.03)


@settings(max_examples=30, deadline=None)
@given(hurst=st.floats(0.01, 0.99), steps=st.integers(2, 200))
def test_the_circulant_that_embeds_fractional_noise_is_no_less_than_zero(
    hurst: float, steps: int
) -> None:
    row = np.concatenate([np.arange(steps + 1), np.arange(steps - 1, 0, -1)])
    spectrum = np.fft.fft(fractional_covariance(np.array([hurst]), row)[0])
    assert spectrum.real.min() > -1e-9
    np.testing.assert_allclose(spectrum.imag, 0, atol=1e-9)


def test_the_variance_of_fractional_brownian_motion_grows_with_twice_the_hurst_exponent() -> None:
    made = fractional_brownian(20_000, 33, seed=0, hurst=(0.3, 0.3))
    values = np.stack([one.values[:, 0] for one in made.panel.series])
    assert (values[:, 0] == 0).all()
    time = np.array([1, 4, 16, 32])
    np.testing.assert_allclose(values[:, time].var(0), time**0.6, rtol=0.05)


def test_an_ornstein_uhlenbeck_process_is_stationary_and_forgets_in_its_own_time() -> None:
    made = ornstein_uhlenbeck(30_000, 20, seed=0, memory=(5.0, 5.0000001))
    values = np.stack([one.values[:, 0] for one in made.panel.series])
    np.testing.assert_allclose(values.var(0), 1, atol=0.04)
    lags = np.array([1, 5, 10])
    found = [(values[:, 2] * values[:, 2 + lag]).mean() for lag in lags]
    np.testing.assert_allclose(found, np.exp(-lags / 5), atol=0.03)


def test_random_sines_turn_as_often_as_they_say() -> None:
    made = random_sines(5, 200, seed=3, turns=(2.0, 9.0))
    time = np.arange(200) / 200
    for k, one in enumerate(made.panel.series):
        angle = 2 * np.pi * made.parameters["turns"][k] * time + made.parameters["phase"][k]
        np.testing.assert_allclose(one.values[:, 0], np.sin(angle), atol=1e-12)


def test_a_laser_ages_twice_as_fast_where_arrhenius_says_so() -> None:
    # At 0.5 eV around 45 °C the rate doubles in about 12.5 K; the current counts squared.
    assert acceleration(np.array([100.0]), np.array([57.5])) == pytest.approx(2.0, rel=0.02)
    assert acceleration(np.array([200.0]), np.array([45.0])) == pytest.approx(4.0)


def test_a_healthy_laser_loses_power_exponentially_and_a_failing_one_half_of_it_at_once() -> None:
    made = laser_ageing(40, 200, seed=0, failing=0.5, noise=0.0)
    tau, fails = made.parameters["tau"], made.parameters["failing"]
    assert fails.sum() == 20
    for k, one in enumerate(made.panel.series):
        power, time = one.values[:, 0], np.arange(len(one.times))
        gradual = power[0] * np.exp(-time / tau[k])
        onset, label = int(made.parameters["onset"][k]), one.label
        assert label is not None
        np.testing.assert_allclose(power[: onset + 1], gradual[: onset + 1])
        assert (label == (time >= onset) * fails[k]).all()
        if fails[k]:
            assert len(time) < 200
            assert power[-1] / gradual[-1] == pytest.approx(0.5)


@pytest.mark.parametrize("source", SIMULATED)
def test_a_simulation_is_a_function_of_its_seed(source: str) -> None:
    data = Data.model_validate({"source": source, "windows": 7, "window": 16})
    one, same, other = (SIMULATED[source](data, seed) for seed in (0, 0, 1))
    first = [panel.series[3].values for panel in (one, same, other)]
    assert first[0].tobytes() == first[1].tobytes()
    assert not np.array_equal(first[0], first[2])
    if source != "laser-ageing":
        assert len(one.series) == 7
        assert len(one.series[0].times) == 16
