"""What the verbs do with windows, on models of which the answer is known."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.distributions import Distribution, Normal

from core.runtime.errors import UserError
from core.variational.evidence import Evidence
from domains.series.cli import anomalies, forecasts, modes, stamps
from domains.series.cli.draws import quantiles
from domains.series.cli.generated import generate
from domains.series.cli.hidden import hide_values
from domains.series.cli.imputed import fill
from domains.series.cli.opened import Trained
from domains.series.cli.tables import rounded
from domains.series.config import CONFIG
from domains.series.data import Clock, Dataset, Panel, Scaler, Series, Windows
from domains.series.model.base import SeriesModel, Spectrum

DAILY = Clock(kind="datetime", column="date", zone="", form="iso", interval=86400.0)
TINY = 1e-6


class Line(SeriesModel):
    """Holds that the values of a window lie on a straight line through those seen."""

    def evidence(self, batch: Windows, samples: int = 1) -> Evidence:
        """Nothing is trained."""
        raise NotImplementedError

    def predictive(self, batch: Windows, samples: int) -> Distribution:
        """Least squares on what is seen, exactly."""
        seen = batch.seen.double()
        time = batch.times.double().unsqueeze(-1).expand_as(seen)
        count = seen.sum(1)
        mean_time, mean = ((seen * each).sum(1) / count for each in (time, batch.values.double()))
        apart = (time - mean_time[:, None]) * seen
        slope = (apart * batch.values.double()).sum(1) / (apart * apart).sum(1).clamp(min=1e-12)
        line = mean[:, None] + slope[:, None] * (time - mean_time[:, None])
        return Normal(line.float().expand(samples, *line.shape), TINY)

    def generative(self, times: torch.Tensor) -> Distribution:
        """The time itself in every channel."""
        return Normal(times[:, :, None].expand(*times.shape, 2), TINY)


class Nothing(Line):
    """Holds that every value is standard normal, and cannot generate."""

    def predictive(self, batch: Windows, samples: int) -> Distribution:
        """Whatever is seen."""
        return Normal(torch.zeros(samples, *batch.values.shape), 1.0)

    def generative(self, times: torch.Tensor) -> Distribution:
        """Not at all."""
        raise NotImplementedError("Nothing predicts only; it cannot generate")


def panel_of(*values: np.ndarray, times: np.ndarray | None = None, **changes: Any) -> Panel:
    series = tuple(
        Series(f"s{place}" if len(values) > 1 else "", times_of(each, times), each)
        for place, each in enumerate(values)
    )
    channels = min(each.shape[1] for each in values)
    settled = {
        "channels": ("price", "volume")[:channels],
        "dtypes": ("float64", "int64")[:channels],
        "clock": DAILY,
        "identifier": "name" if len(values) > 1 else "",
    }
    return Panel(series=series, **(settled | changes))


def times_of(values: np.ndarray, times: np.ndarray | None) -> np.ndarray:
    return DAILY.interval * np.arange(1000, 1000 + len(values)) if times is None else times


def opened_with(
    model: SeriesModel, panel: Panel, window: int = 8, task: str = "impute", horizon: int = 3
) -> Trained:
    """A run as the verbs see it, whatever it was trained on."""
    channels = len(panel.channels)
    chosen: dict[str, Any] = {"kind": task}
    if task == "forecast":
        chosen["horizon"] = horizon
    config = CONFIG.model_validate({"name": "t", "data": {"window": window}, "task": chosen})
    dataset = Dataset(
        panel=panel,
        hidden=tuple(np.zeros(one.values.shape, dtype=bool) for one in panel.series),
        scaler=Scaler(np.full(channels, 5.0), np.full(channels, 2.0)),
        window=window,
        windows={},
        train_rows=tuple(np.ones(len(one.times), dtype=bool) for one in panel.series),
        season=0,
    )
    return Trained(config, Path("nowhere"), dataset, model)


def ramp(rows: int, slopes: tuple[float, ...] = (0.5, 3.0)) -> np.ndarray:
    return 100 + np.arange(rows)[:, None] * np.array(slopes)


@given(count=st.integers(2, 40), seed=st.integers(0, 99))
@settings(max_examples=25, deadline=None)
def test_quantiles_are_those_of_numpy(count: int, seed: int) -> None:
    draws = np.random.default_rng(seed).normal(size=(count, 3, 2))
    levels = (0.5, 0.05, 0.95, 0.0, 1.0)
    assert quantiles(draws, levels) == pytest.approx(np.quantile(draws, levels, axis=0))


@given(seed=st.integers(0, 99), rows=st.integers(3, 40))
@settings(max_examples=25, deadline=None)
def test_values_missing_from_a_line_are_found_again_wherever_windows_meet(
    seed: int, rows: int
) -> None:
    rng = np.random.default_rng(seed)
    times = np.cumsum(rng.integers(1, 5, rows)) * DAILY.interval
    truth = times[:, None] / DAILY.interval * np.array([0.5, 3.0])
    gaps = rng.random(truth.shape) < 0.4
    for start in range(0, rows, 2):  # two known values of each channel in every window
        gaps[start] = False
    gaps[-1] = False
    panel = panel_of(np.where(gaps, np.nan, truth), times=times)
    filled = fill(opened_with(Line(), panel), panel, samples=3, interval=0.9, draws=2)
    values = filled.panel.series[0].values
    assert filled.count == gaps.sum()
    assert np.array_equal(values[~gaps], truth[~gaps])
    assert values[:, 0] == pytest.approx(truth[:, 0], rel=1e-4)
    assert np.array_equal(values[:, 1][gaps[:, 1]] % 1, np.zeros(gaps[:, 1].sum()))
    assert values[:, 1] == pytest.approx(truth[:, 1], abs=1)


def test_the_numbers_behind_filled_values_stand_beside_them_and_nowhere_else() -> None:
    truth = ramp(20)
    holes = truth.copy()
    holes[4, 0] = holes[11, :] = np.nan
    panel = panel_of(holes, ramp(9))
    cells = fill(opened_with(Line(), panel), panel, samples=5, interval=0.5, draws=1).cells
    assert cells.channels == (
        "price_lower", "price_upper", "price_draw1", "volume_lower", "volume_upper",
        "volume_draw1",
    )  # fmt: skip
    (one,) = cells.series
    assert one.name == "s0"
    assert np.array_equal(one.times, panel.series[0].times[[4, 11]])
    assert one.values[0, :3] == pytest.approx([truth[4, 0]] * 3, rel=1e-4)
    assert np.isnan(one.values[0, 3:]).all()
    assert one.values[1] == pytest.approx(np.repeat(truth[11], 3), rel=1e-2)


@pytest.mark.parametrize(
    ("task", "horizon", "rolls"),
    [("forecast", 3, 1), ("forecast", 2, 1), ("forecast", 10, 4), ("generate", 4, 1),
     ("impute", 5, 2), ("generate", 30, 8)],
)  # fmt: skip
def test_a_line_goes_on_as_a_line_however_often_the_forecast_rolls(
    task: str, horizon: int, rolls: int
) -> None:
    panel = panel_of(ramp(40), ramp(6) * 2, dtypes=("float64", "float64"))
    opened = opened_with(Line(), panel, task=task)
    assert forecasts.plan(opened, horizon).rolls == rolls
    future = forecasts.forecast(opened, panel, horizon, samples=4, interval=0.8)
    assert future.channels[:4] == ("price", "price_mean", "price_lower", "price_upper")
    for one, rows, scale in zip(future.series, (40, 6), (1, 2), strict=True):
        expected = scale * ramp(rows + horizon)[rows:]
        assert one.values[:, ::4] == pytest.approx(expected, rel=1e-3)
        assert one.values[:, 1::4] == pytest.approx(expected, rel=1e-3)
        end = panel.series[0].times[0] + (rows - 1) * DAILY.interval
        assert np.array_equal(one.times, end + DAILY.interval * np.arange(1, horizon + 1))


def test_paths_of_a_rolling_forecast_spread_like_the_random_walk_that_they_are() -> None:
    """A model that adds a step of deviation 1 to the last value has variance h after h rows."""

    class Walk(Line):
        def predictive(self, batch: Windows, samples: int) -> Distribution:
            last = batch.values[:, -2:-1].expand_as(batch.values)
            return Normal(last.expand(samples, *last.shape), 1.0)

    panel = panel_of(ramp(12), dtypes=("float64", "float64"))
    opened = opened_with(Walk(), panel, window=4, task="forecast", horizon=1)
    torch.manual_seed(0)
    plan = forecasts.plan(opened, 9)
    paths = forecasts.draw(opened, panel, np.array([0]), plan, samples=20000)
    assert paths.shape == (20000, 1, 9, 2)
    assert paths.var(0)[0] == pytest.approx(np.arange(1, 10)[:, None] * np.ones(2), rel=0.05)


def test_a_rolling_forecast_says_which_rows_of_the_series_it_is_at() -> None:
    """A model that knows the age of what it predicts gives it back."""

    class Age(Line):
        def predictive(self, batch: Windows, samples: int) -> Distribution:
            age = batch.origin[:, 1:] + torch.arange(batch.values.shape[1])
            return Normal(age[:, :, None].float().expand(samples, *batch.values.shape), TINY)

    panel = panel_of(ramp(12), ramp(2), dtypes=("float64", "float64"))
    opened = opened_with(Age(), panel, window=6, task="forecast", horizon=2)
    paths = forecasts.draw(opened, panel, np.array([0, 1]), forecasts.plan(opened, 5), samples=3)
    for place, rows in enumerate((12, 2)):
        ages = np.arange(rows, rows + 6)[:, None] * np.ones(2)
        assert paths[:, place] == pytest.approx(np.stack([ages] * 3), abs=1e-4)


def test_a_horizon_beyond_all_that_was_seen_is_refused() -> None:
    opened = opened_with(Line(), panel_of(ramp(40)))
    with pytest.raises(UserError, match="got 41, expected 1 to 40"):
        forecasts.plan(opened, 41)


@pytest.mark.parametrize("task", ["generate", "impute", "forecast"])
def test_scores_are_the_surprise_of_each_value_whatever_the_windows(task: str) -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(5, 2, (30, 2))
    values[3, 0] = np.nan
    values[7] = np.nan
    panel = panel_of(values, rng.normal(5, 2, (6, 2)))
    scored = anomalies.score(opened_with(Nothing(), panel, task=task), panel, samples=2)
    for one, surprise, score in zip(panel.series, scored.surprise, scored.score, strict=True):
        scaled = (one.values - 5) / 2
        expected = scaled**2 / 2 + 0.5 * math.log(2 * math.pi)
        judged = np.arange(len(scaled)) >= (5 if task == "forecast" else 0)
        expected[~judged] = np.nan
        assert surprise == pytest.approx(expected, rel=1e-5, nan_ok=True)
        counts = np.isfinite(expected).sum(1)
        means = np.nansum(expected, 1) / np.where(counts, counts, np.nan)
        assert score == pytest.approx(means, rel=1e-5, nan_ok=True)


def test_a_value_off_the_line_is_the_most_surprising_and_labels_are_found() -> None:
    values = ramp(40)
    values[22, 1] += 30
    label = (np.arange(40) == 22).astype(np.int64)
    panel = panel_of(values)
    panel = replace(panel, series=(Series("", panel.series[0].times, values, label),))
    scored = anomalies.score(opened_with(Line(), panel), panel, samples=2)
    table = anomalies.scores_table(panel, scored).series[0].values
    assert table[22, 1] == 1
    assert sorted(table[:, 1]) == list(range(1, 41))
    assert table[np.argsort(table[:, 1]), 0] == pytest.approx(sorted(table[:, 0], reverse=True))
    found = anomalies.summary(panel, scored, 3)
    assert found["top"][0] | {"score": 0} == {
        "series": "", "row": 22, "time": "1972-10-19", "score": 0, "channel": "volume",
    }  # fmt: skip
    assert found["auc_pr"] == 1
    assert found["auc_pr_floor"] == 1 / 40


def test_generated_series_start_the_day_after_the_data_in_its_units_and_dtypes() -> None:
    panel = panel_of(ramp(10))
    made = generate(opened_with(Line(), panel, window=5), 12)
    assert [one.name for one in made.series[:2]] == ["00", "01"]
    assert made.identifier == "series"
    for one in made.series:
        assert one.times[0] == panel.series[0].times[-1] + 86400
        assert one.values[:, 0] == pytest.approx(5 + 2 * np.arange(5), abs=1e-4)
        assert np.array_equal(one.values[:, 1], 5 + 2 * np.arange(5))


def test_a_model_without_dynamics_has_no_spectrum() -> None:
    class NoBatches:
        def __len__(self) -> int:
            return 0

    with pytest.raises(UserError, match="has no linear dynamics"):
        modes.spectrum_of(opened_with(Line(), panel_of(ramp(10))), NoBatches())


@pytest.mark.parametrize(
    ("clock", "unit", "half_life", "period"),
    [
        (replace(DAILY, interval=3600.0), "s", 3600.0 * 3, 3600.0 * 12),
        (Clock(kind="number", column="t", zone="", form="", interval=0.5),
         "unit of the times", 1.5, 6.0),
        (Clock(kind="index", column="", zone="", form="", interval=1.0), "rows", 3.0, 12.0),
    ],
)  # fmt: skip
def test_modes_are_told_in_the_units_of_the_times(
    clock: Clock, unit: str, half_life: float, period: float
) -> None:
    turning = 0.5 ** (1 / 3) * np.exp(2j * np.pi / 12)
    found = Spectrum(
        torch.tensor([turning, turning.conjugate(), 1.0]),
        torch.tensor([3.0, 3.0, math.inf]),
        torch.tensor([12.0, 12.0, math.inf]),
        torch.tensor([0.3, 0.3, 0.4]),
    )
    described = modes.described(found, clock)
    first, second = described["modes"]
    assert described["unit"] == unit
    assert first["half_life"] == pytest.approx(half_life)
    assert first["period"] == pytest.approx(period)
    assert first["energy"] == pytest.approx(0.6)
    assert second["half_life"] is second["period"] is None
    assert modes.text(found, clock).count("∞") == 2


def test_a_window_of_another_length_is_refused() -> None:
    with pytest.raises(UserError, match=r"--length: got 9; model\.kind 'koopman-vae' generates"):
        generate(opened_with(Line(), panel_of(ramp(10))), 2, length=9)


def test_a_model_that_cannot_generate_says_so_in_one_line() -> None:
    with pytest.raises(UserError, match="it cannot generate") as caught:
        generate(opened_with(Nothing(), panel_of(ramp(10))), 2)
    assert "\n" not in str(caught.value)


@given(seed=st.integers(0, 50))
@settings(max_examples=10, deadline=None)
def test_hidden_values_and_what_is_left_make_the_file_again(seed: int) -> None:
    rng = np.random.default_rng(seed)
    values = [np.where(rng.random((30, 2)) < 0.2, np.nan, rng.normal(size=(30, 2))) for _ in "ab"]
    panel = panel_of(*values)
    hidden = hide_values(panel, "mcar", 0.3, 5, seed)
    again = hide_values(panel, "mcar", 0.3, 5, seed)
    assert hidden.count == pytest.approx(0.3 * hidden.known, abs=2)
    for one, left, same, truth in zip(
        panel.series, hidden.panel.series, again.panel.series, hidden.truth.series, strict=True
    ):
        assert np.array_equal(left.values, same.values, equal_nan=True)
        put_back = left.values.copy()
        rows = np.searchsorted(one.times, truth.times)
        put_back[rows] = np.where(np.isnan(truth.values), put_back[rows], truth.values)
        assert np.array_equal(put_back, one.values, equal_nan=True)


@pytest.mark.parametrize(
    ("zone", "start", "expected"),
    [
        ("", "2026-01-01", "2026-01-01T00:00:00+00:00"),
        ("", "2026-01-01 06:30", "2026-01-01T06:30:00+00:00"),
        ("Europe/Berlin", "2026-07-01", "2026-06-30T22:00:00+00:00"),
        ("Europe/Berlin", "2026-07-01T00:00:00+00:00", "2026-07-01T00:00:00+00:00"),
        ("", None, "2020-02-29T00:00:00+00:00"),
        ("America/New_York", None, "2020-02-29T05:00:00+00:00"),
    ],
)
def test_a_start_is_a_local_date_and_by_default_the_midnight_after_the_data(
    zone: str, start: str | None, expected: str
) -> None:
    from datetime import datetime

    clock = Clock(kind="datetime", column="t", zone=zone, form="iso", interval=3600.0)
    end = datetime.fromisoformat("2020-02-28T12:00:00+00:00").timestamp()
    found = stamps.new_times(clock, start, end - 3600 * np.arange(48.0)[::-1], 3)
    first = datetime.fromisoformat(expected).timestamp()
    assert found.tolist() == [first, first + 3600, first + 7200]


def test_new_series_keep_to_the_calendar_of_the_data() -> None:
    """The first of each month, and days without weekends, whatever the days between them."""
    for known, start, expected in (
        (["2024-01-01", "2024-02-01", "2024-03-01", "2024-04-01"], None,
         ["2024-05-01", "2024-06-01", "2024-07-01"]),
        (["2024-05-01", "2024-05-02", "2024-05-03", "2024-05-06", "2024-05-07"], "2026-01-01",
         ["2026-01-01", "2026-01-02", "2026-01-05"]),
    ):  # fmt: skip
        times = np.array(known, dtype="datetime64[s]").astype(np.float64)
        clock = replace(DAILY, interval=float(np.median(np.diff(times))))
        found = stamps.new_times(clock, start, times, 3)
        assert (
            found.astype("datetime64[s]").astype("datetime64[D]").astype(str).tolist() == expected
        )


def test_a_start_that_is_no_date_is_refused() -> None:
    with pytest.raises(UserError, match="--start: got 'soon', expected a date such as 2026-01-01"):
        stamps.new_times(DAILY, "soon", np.zeros(1), 2)


def test_whole_numbers_stay_within_their_dtype() -> None:
    values = np.array([[1.5, -7.2, 300.0, np.nan]])
    found = rounded(values, ["float32", "UInt8", "uint8", "Int64"])
    assert found.tolist()[0][:3] == [1.5, 0.0, 255.0]
    assert np.isnan(found[0, 3])
