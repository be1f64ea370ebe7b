from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm
from sklearn.linear_model import Ridge

from domains.series.data import Windows
from domains.series.metrics.baselines import (
    RIDGES,
    Linear,
    _ridges,
    gaussian,
    last_value,
    linear_interpolation,
    linear_model,
    seasonal_naive,
)


def batch_of(
    values: np.ndarray, seen: np.ndarray | None = None, times: np.ndarray | None = None
) -> Windows:
    known = torch.from_numpy(np.isfinite(values))
    clean = torch.from_numpy(np.nan_to_num(values)).float()
    visible = known if seen is None else known & torch.from_numpy(seen)
    count, length, _ = values.shape
    clock = np.tile(np.arange(length, dtype=np.float32), (count, 1)) if times is None else times
    rows = torch.stack([torch.zeros(count), torch.arange(count)], 1).long()
    present = torch.ones(count, length, dtype=torch.bool)
    return Windows(
        clean, known, visible, known & ~visible, torch.from_numpy(clock).float(), present, rows
    )


def random_batch(seed: int, share: float = 0.5) -> Windows:
    rng = np.random.default_rng(seed)
    times = np.cumsum(rng.uniform(0.1, 3, (4, 11)), axis=1).astype(np.float32)
    return batch_of(rng.normal(size=(4, 11, 3)), rng.random((4, 11, 3)) < share, times)


def columns(batch: Windows) -> list[tuple[int, int]]:
    return [(row, channel) for row in range(4) for channel in range(3)]


@given(st.integers(0, 1000), st.sampled_from([0.1, 0.5, 0.9]))
@settings(max_examples=20, deadline=None)
def test_interpolation_is_that_of_numpy_at_irregular_times(seed: int, share: float) -> None:
    batch = random_batch(seed, share)
    found = linear_interpolation(batch)
    for row, channel in columns(batch):
        seen = batch.seen[row, :, channel].numpy()
        if not seen.any():
            assert found[row, :, channel].eq(0).all()
            continue
        time, values = batch.times[row].numpy(), batch.values[row, :, channel].numpy()
        expected = np.interp(time, time[seen], values[seen])
        assert found[row, :, channel].numpy() == pytest.approx(expected, abs=1e-4)


@given(st.integers(0, 1000), st.sampled_from([0.1, 0.5, 0.9]))
@settings(max_examples=20, deadline=None)
def test_the_last_value_is_that_of_pandas(seed: int, share: float) -> None:
    import pandas as pd

    batch = random_batch(seed, share)
    found = last_value(batch)
    for row, channel in columns(batch):
        seen = batch.seen[row, :, channel].numpy()
        values = np.where(seen, batch.values[row, :, channel].numpy(), np.nan)
        expected = pd.Series(values).ffill().bfill().fillna(0).to_numpy()
        assert found[row, :, channel].numpy() == pytest.approx(expected)


@given(st.integers(0, 1000), st.integers(1, 13))
@settings(max_examples=30, deadline=None)
def test_the_seasonal_naive_takes_the_nearest_season_that_is_seen(seed: int, season: int) -> None:
    batch = random_batch(seed, 0.3)
    found, carried = seasonal_naive(batch, season), last_value(batch)
    for row, channel in columns(batch):
        seen, values = batch.seen[row, :, channel], batch.values[row, :, channel]
        for time in range(11):
            order = [time, *range(time - season, -1, -season), *range(time + season, 11, season)]
            source = [place for place in order if seen[place]]
            expected = values[source[0]] if source else carried[row, time, channel]
            assert found[row, time, channel] == expected


def test_a_season_repeats_exactly() -> None:
    values = np.tile(np.sin(np.arange(6) * 1.7), 4)[None, :, None]
    seen = np.ones_like(values, dtype=bool)
    seen[:, 18:] = False
    found = seasonal_naive(batch_of(values, seen), 6)
    assert found.numpy() == pytest.approx(values, abs=1e-6)
    with pytest.raises(ValueError, match="one row"):
        seasonal_naive(batch_of(values, seen), 0)


def test_the_normal_of_a_channel_is_that_of_what_is_seen_in_all_batches() -> None:
    first, second = random_batch(0), random_batch(1)
    found = gaussian([first, second])
    for channel in range(3):
        values = torch.cat(
            [each.values[..., channel][each.seen[..., channel]] for each in (first, second)]
        ).double()
        assert float(found.loc[channel]) == pytest.approx(float(values.mean()))
        assert float(found.scale[channel]) == pytest.approx(float(values.std(correction=0)))
    predicted = found(first)
    assert torch.equal(predicted[first.seen], first.values[first.seen])
    hidden = ~first.seen[..., 1]
    assert predicted[..., 1][hidden].numpy() == pytest.approx(float(found.loc[1]))


def test_the_score_of_a_normal_is_its_integral_and_its_surprise_that_of_scipy() -> None:
    found = replace(
        gaussian([random_batch(0)]),
        loc=torch.tensor([0.3]).double(),
        scale=torch.tensor([1.7]).double(),
    )
    y, x = 2.1, np.linspace(-20, 20, 400_001)
    integral = np.trapezoid((norm.cdf(x, 0.3, 1.7) - (x >= y)) ** 2, x)
    observed = torch.tensor([y]).double()
    assert float(found.crps(observed)) == pytest.approx(integral, abs=1e-4)
    assert float(found.surprise(observed)) == pytest.approx(-norm.logpdf(y, 0.3, 1.7))


def test_a_channel_that_never_varies_has_deviation_one() -> None:
    found = gaussian([batch_of(np.full((2, 3, 1), 4.0))])
    assert (float(found.loc), float(found.scale)) == (4.0, 1.0)


def autoregressive(seed: int, count: int, length: int = 16) -> np.ndarray:
    rng, x = np.random.default_rng(seed), np.zeros((count, length, 2))
    x[:, :2] = rng.normal(size=(count, 2, 2))
    for time in range(2, length):
        x[:, time] = (
            1.6 * x[:, time - 1] - 0.8 * x[:, time - 2] + 0.1 * rng.normal(size=(count, 2))
        )
    return x


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("place", range(len(RIDGES)))
def test_the_linear_model_is_the_ridge_of_scikit_learn(shared: bool, place: int) -> None:
    train, horizon = autoregressive(0, 60), 4
    found = _ridges(batch_of(train), horizon, shared)[place]
    last = train[:, 11, None]
    x, y = np.concatenate([train[:, :11] - last, last], axis=1), train[:, 12:] - last
    for channel in range(2):
        inputs, outputs = (
            (each.transpose(0, 2, 1).reshape(120, -1) if shared else each[..., channel])
            for each in (x, y)
        )
        centred = inputs - inputs.mean(0)
        penalty = RIDGES[place] * (centred**2).sum(0).mean()
        ridge = Ridge(alpha=penalty).fit(inputs, outputs)
        index = 0 if shared else channel
        assert found.weight[index].T.numpy() == pytest.approx(ridge.coef_, abs=1e-4)
        assert found.bias[index].numpy() == pytest.approx(ridge.intercept_, abs=1e-5)


def test_the_linear_model_forecasts_what_is_linear_as_well_as_can_be() -> None:
    train, valid, test = (batch_of(autoregressive(seed, 400)) for seed in (0, 1, 2))
    model = linear_model(train, valid, 4)
    seen = torch.ones_like(test.seen)
    seen[:, -4:] = False
    found = model(test.seeing(seen))
    error = (found - test.values)[:, -4:].double().square().mean(0).sqrt()
    impulse = [1.0, 1.6]
    for _ in range(2):
        impulse.append(1.6 * impulse[-1] - 0.8 * impulse[-2])
    best = 0.1 * np.sqrt(np.cumsum(np.square(impulse)))
    assert error.numpy() == pytest.approx(np.tile(best[:, None], 2), rel=0.12)
    assert torch.equal(found[:, :-4], test.values[:, :-4])
    assert model.weight.shape[0] == 1, "both channels follow one law: sharing is better"


def test_channels_with_laws_of_their_own_get_maps_of_their_own() -> None:
    def two_laws(seed: int) -> Windows:
        x = autoregressive(seed, 300)
        x[:, :, 1] = np.random.default_rng(seed + 9).normal(size=x.shape[:2])
        return batch_of(x)

    assert linear_model(two_laws(0), two_laws(1), 4).weight.shape[0] == 2


def test_windows_with_a_future_that_is_not_known_are_not_learned_from() -> None:
    whole = autoregressive(0, 80)
    broken = np.concatenate([whole, autoregressive(5, 20) * 50])
    broken[80:, -1] = np.nan
    first, second = (_ridges(batch_of(each), 4, True)[1] for each in (whole, broken))
    assert torch.allclose(first.weight, second.weight)
    assert torch.allclose(first.bias, second.bias)
    with pytest.raises(ValueError, match="known future"):
        linear_model(batch_of(broken[80:]), batch_of(whole), 4)


def test_a_forecast_does_not_look_at_the_future() -> None:
    model = Linear(torch.randn(1, 12, 4), torch.zeros(1, 4), 0.0)
    values = autoregressive(0, 5)
    seen = np.ones_like(values, dtype=bool)
    seen[:, -4:] = False
    other = values.copy()
    other[:, -4:] = 77
    assert torch.equal(model(batch_of(values, seen))[:, -4:], model(batch_of(other, seen))[:, -4:])


def test_one_step_ahead_it_finds_the_coefficients_of_the_law() -> None:
    """x' = 1.6 x - 0.8 y, with y before x, is x - 0.8 (y - x) - 0.2 x."""
    found = _ridges(batch_of(autoregressive(0, 20_000)[:, -3:]), 1, True)[0]
    assert found.weight[0, :, 0].numpy() == pytest.approx([-0.8, -0.2], abs=0.01)
