from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from domains.series.config import Data
from domains.series.data import Clock, Panel, Series, describe, describe_text, read_unchecked
from domains.series.data.checks import frequency_change, irregularity, suspected_codes
from domains.series.data.inspection import CRITICAL, trend_share, unit_root

HOURLY = Clock(kind="datetime", column="time", zone="UTC", form="iso", interval=3600.0)


def panel_of(values: np.ndarray, times: np.ndarray | None = None) -> Panel:
    """One hourly series."""
    times = 3600.0 * np.arange(len(values)) if times is None else times
    return Panel(
        series=(Series("", times, values),),
        channels=tuple(f"x{place}" for place in range(values.shape[1])),
        dtypes=("float64",) * values.shape[1],
        clock=HOURLY,
    )


def described(panel: Panel) -> dict[str, Any]:
    found = describe(panel)
    json.dumps(found, allow_nan=False)
    assert describe_text(found)
    return found


def test_channels_are_described_as_numpy_does() -> None:
    values = np.random.default_rng(0).normal(3, 2, size=(200, 2))
    values[:50, 1] = np.nan
    first, second = described(panel_of(values))["channels"]
    known = values[50:, 1]
    assert first["missing"] == 0
    assert second["missing"] == 0.25
    assert second["min"] == known.min()
    assert second["mean"] == pytest.approx(known.mean(), rel=1e-12)
    assert second["std"] == pytest.approx(known.std(), rel=1e-12)
    assert not second["constant"]


def test_gaps_are_counted_and_the_longest_named() -> None:
    rows = np.array([0, 1, 2, 5, 6, 7, 20, 21, 22, 23])
    (one,) = described(panel_of(np.arange(10.0)[:, None], 3600.0 * rows))["series"]
    assert one["gaps"] == {
        "count": 2,
        "longest": 13 * 3600.0,
        "after": "1970-01-01 07:00:00+00:00",
    }
    assert one["interval"] == 3600
    assert one["regular"]
    assert (one["start"], one["end"]) == ("1970-01-01 00:00:00+00:00", "1970-01-01 23:00:00+00:00")


def test_irregular_times_are_called_so() -> None:
    times = np.random.default_rng(0).exponential(size=300).cumsum()
    (one,) = described(panel_of(np.arange(300.0)[:, None], times))["series"]
    assert not one["regular"]
    assert one["spread"] == pytest.approx(np.diff(times).std() / np.diff(times).mean())


def test_a_file_that_training_refuses_can_be_looked_at(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("time,a,b,c\n0,5,,inf\n1,5,,2\n1,5,,3\n3,5,,4\n2,5,,5\n")
    found = describe(read_unchecked(path, Data(source="file", path=str(path))), path)
    json.dumps(found, allow_nan=False)
    (one,) = found["series"]
    assert (one["duplicates"], one["backward"]) == (1, 1)
    assert [channel["constant"] for channel in found["channels"]] == [True, True, False]
    assert found["channels"][2]["infinite"] == 1
    assert [problem.removeprefix(str(path)) for problem in found["problems"]] == [
        ":4, column 'time': time '1' twice; expected one row a time; set data.merge (--merge) to "
        "mean, first or last, or name the column of several series: data.identifier",
        ":2, column 'c': inf is not finite; expected a number, or nothing where it is missing; "
        "correct the cell",
        ", column 'a': 5 throughout; expected values that vary; leave it out: name the others in "
        "data.values",
        ", column 'b': missing throughout; expected values that vary; leave it out: name the "
        "others in data.values",
    ]
    text = describe_text(found)
    assert "problems:\n" in text
    assert all(problem in text for problem in found["problems"])


def test_a_season_is_suggested_in_rows_and_written_with_its_duration() -> None:
    rng = np.random.default_rng(0)
    rows = np.arange(600)
    wave = np.sin(2 * np.pi * rows / 24) + 0.3 * rng.normal(size=600)
    found = described(panel_of(np.stack([wave, rng.normal(size=600)], 1)))
    assert [channel["season"] for channel in found["channels"]] == [24, None]
    assert "24 rows (1 d)" in describe_text(found)


def test_of_many_series_the_text_shows_some_and_counts_the_rest() -> None:
    panel = panel_of(np.arange(30.0)[:, None])
    (one,) = panel.series
    many = Panel(
        series=tuple(Series(f"s{n}", one.times, one.values) for n in range(30)),
        channels=panel.channels,
        dtypes=panel.dtypes,
        clock=panel.clock,
        identifier="id",
    )
    text = describe_text(described(many))
    assert "30 series named by 'id'" in text
    assert "… and 18 more" in text


# Statistics


def test_a_trend_is_the_share_of_variance_of_a_straight_line() -> None:
    rng = np.random.default_rng(0)
    rows = np.linspace(-1, 1, 500)
    values = 2 * rows + rng.normal(size=500)
    line = np.polyval(np.polyfit(rows, values, 1), rows)
    assert trend_share(values) == pytest.approx(line.var() / values.var(), rel=1e-9)


def test_the_unit_root_test_is_the_t_value_of_a_regression() -> None:
    """Against least squares of the definition, lag by lag."""
    values = np.random.default_rng(1).normal(size=300).cumsum()
    found = unit_root(values)
    lags, changes = found["lags"], np.diff(values)
    assert lags == int(299 ** (1 / 3))
    rows = [
        [1.0, values[t], *(changes[t - lag] for lag in range(1, lags + 1))]
        for t in range(lags, len(changes))
    ]
    design, target = np.array(rows), changes[lags:]
    weights, (left,), *_ = np.linalg.lstsq(design, target, rcond=None)
    variance = left / (len(target) - lags - 2) * np.linalg.inv(design.T @ design)[1, 1]
    assert found["statistic"] == pytest.approx(weights[1] / np.sqrt(variance), rel=1e-6)


def test_walks_wander_and_returning_series_return() -> None:
    """One walk in twenty is called returning; series that do return are found."""
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(200, 400))
    walks = [unit_root(row.cumsum())["returns"] for row in noise]
    assert 0.01 <= np.mean(walks) <= 0.11
    returning = np.zeros_like(noise)
    for step in range(1, 400):
        returning[:, step] = 0.8 * returning[:, step - 1] + noise[:, step]
    assert np.mean([unit_root(row)["returns"] for row in returning]) > 0.95
    assert CRITICAL == -2.86


@pytest.mark.parametrize("values", [np.arange(60.0), np.arange(60.0) % 2, np.eye(1, 60)[0]])
def test_degenerate_series_give_an_answer(values: np.ndarray) -> None:
    found = unit_root(values)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert isinstance(found["returns"], bool)


def test_codes_are_usual_numbers_far_from_the_rest_that_come_more_than_once() -> None:
    values = np.random.default_rng(0).uniform(0, 12, size=500)
    values[::50] = -200
    values[1::100] = 9999
    values[3] = np.nan
    assert suspected_codes(values) == [(-200.0, 10), (9999.0, 5)]
    values[values == 9999] = 9998
    assert suspected_codes(values) == [(-200.0, 10)]
    assert suspected_codes(np.arange(-200.0, 100)) == []
    assert suspected_codes(np.array([99.0, 99, 98, 97, 60, 10])) == []


@settings(max_examples=50, deadline=None)
@given(
    before=st.integers(30, 200),
    after=st.integers(30, 200),
    ratio=st.sampled_from([0.1, 0.5, 2.0, 7.0]),
    seed=st.integers(0, 1000),
)
def test_a_change_of_frequency_is_found_at_its_row(
    before: int, after: int, ratio: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    steps = np.concatenate([np.full(before, 1.0), np.full(after, ratio)])
    steps *= rng.uniform(0.98, 1.02, size=len(steps))
    change = frequency_change(np.concatenate([[0.0], steps.cumsum()]))
    assert change is not None
    assert change.row == before + 1
    assert change.before == pytest.approx(1, rel=0.02)
    assert change.after == pytest.approx(ratio, rel=0.02)


@settings(max_examples=50, deadline=None)
@given(rows=st.integers(2, 300), gaps=st.floats(0, 0.15), seed=st.integers(0, 1000))
def test_rows_left_out_at_random_are_no_change_and_no_irregularity(
    rows: int, gaps: float, seed: int
) -> None:
    kept = np.random.default_rng(seed).random(rows) >= gaps
    kept[:2] = True
    times = np.flatnonzero(kept).astype(np.float64)
    assert frequency_change(times) is None
    assert irregularity(np.diff(times)) == 0
