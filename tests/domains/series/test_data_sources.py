"""Where series come from: what they hold, and what is said when they are not there."""

from __future__ import annotations

import gzip
import importlib.util
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from core.runtime.errors import UserError
from domains.series.config import Data
from domains.series.data import sources


def frequencies_and_phases(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Solve y[t-1] + y[t+1] = 2 cos(f) y[t] in the least-squares sense, and y[0] = sin(phase)."""
    y = 2 * values - 1
    sums, middle = y[:, :-2] + y[:, 2:], y[:, 1:-1]
    cosine = (sums * middle).sum(1) / (2 * middle**2).sum(1)
    return np.arccos(np.clip(cosine, -1, 1)), np.arcsin(y[:, 0])


def test_sines_have_uniform_frequencies_and_phases_below_a_tenth() -> None:
    panel = sources.sines(2000, 24, seed=3)
    values = np.stack([one.values for one in panel.series])
    frequency, phase = frequencies_and_phases(values)
    assert values.shape == (2000, 24, 5)
    for drawn in (frequency, phase):
        assert stats.kstest(drawn.ravel(), stats.uniform(0, 0.1).cdf).pvalue > 1e-3
    time = np.arange(24)[:, None]
    expected = (np.sin(frequency[:, None] * time + phase[:, None]) + 1) / 2
    np.testing.assert_allclose(values, expected, atol=1e-6)


def test_sines_of_different_channels_are_independent() -> None:
    values = np.stack([one.values for one in sources.sines(4000, 8).series])
    frequency, phase = frequencies_and_phases(values)
    drawn = np.concatenate([frequency, phase], axis=1)
    correlation = np.corrcoef(drawn.T) - np.eye(10)
    assert np.abs(correlation).max() < 4.5 / np.sqrt(4000)


def test_sines_are_a_function_of_their_seed() -> None:
    first, again, other = (sources.sines(3, 5, 2, seed) for seed in (1, 1, 2))
    values = [np.stack([one.values for one in panel.series]) for panel in (first, again, other)]
    assert np.array_equal(values[0], values[1])
    assert not np.array_equal(values[0], values[2])
    assert [one.name for one in sources.sines(11, 4).series][:2] == ["00", "01"]


def test_google_stock_is_what_pandas_reads_from_the_installed_package() -> None:
    spec = importlib.util.find_spec("bokeh_sampledata")
    assert spec is not None
    assert spec.submodule_search_locations
    path = Path(spec.submodule_search_locations[0]) / "_data" / "stocks.csv.gz"
    frame = pd.read_csv(path, parse_dates=["Date"]).query("Ticker == 'GOOG'")
    panel = sources.google_stock()
    (series,) = panel.series
    assert panel.channels == ("Open", "High", "Low", "Close", "Volume", "Adj Close")
    np.testing.assert_array_equal(series.values, frame[list(panel.channels)].to_numpy(float))
    stamps = pd.to_datetime(series.times, unit="s")
    assert (stamps == frame["Date"].to_numpy()).all()
    assert str(stamps[0].date()) == "2004-08-19"


def test_google_stock_quotes_are_possible() -> None:
    panel = sources.google_stock()
    values = dict(zip(panel.channels, panel.series[0].values.T, strict=True))
    assert (values["High"] >= np.maximum(values["Open"], values["Close"])).all()
    assert (values["Low"] <= np.minimum(values["Open"], values["Close"])).all()
    assert (np.diff(panel.series[0].times) > 0).all()
    assert np.median(np.diff(panel.series[0].times)) == panel.clock.interval


def test_a_missing_package_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"bokeh-sampledata.*latentworks\[series\]"):
        sources.find(Data(source="google-stock"), seed=0)


@pytest.mark.parametrize("text", ["Ticker,Day\nGOOG,1\n", "Ticker,Date,Open\nGOOG,now,1\n"])
def test_quotes_of_another_form_are_refused(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "stocks.csv.gz"
    path.write_bytes(gzip.compress(text.encode()))
    monkeypatch.setattr(sources, "_quotes_file", lambda: path)
    with pytest.raises(UserError, match="unexpected content"):
        sources.google_stock()


def test_a_missing_file_is_the_users_mistake(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.csv: no such file"):
        sources.find(Data(source="file", path=str(tmp_path / "none.csv")), seed=0)


@pytest.mark.parametrize("source", sorted(sources.GENERATED))
def test_every_generated_source_is_a_function_of_its_seed(source: str) -> None:
    data = Data(source=source, windows=4, window=30)  # type: ignore[arg-type]
    first, again, other = (sources.find(data, seed).read() for seed in (0, 0, 1))
    values = [np.concatenate([one.values for one in panel.series]) for panel in (first, again)]
    assert np.array_equal(*values)
    assert not np.array_equal(values[0], np.concatenate([one.values for one in other.series]))
    assert values[0].shape[1] == len(first.channels)
