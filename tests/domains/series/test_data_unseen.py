"""Windows of another panel, and where their results belong."""

from __future__ import annotations

from dataclasses import replace

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings

from core.runtime.errors import UserError
from domains.series.config import Data
from domains.series.data import Clock, Dataset, Panel, Series, panel_windows
from domains.series.data.build import build
from domains.series.data.unseen import covering, most_central

HOURS = Clock(kind="datetime", column="t", zone="", form="iso", interval=3600.0)


def a_panel(lengths: list[int], step: float = 3600.0, channels: str = "ab") -> Panel:
    rng = np.random.default_rng(len(lengths))
    series = []
    for index, length in enumerate(lengths):
        values = rng.normal(50, 9, size=(length, len(channels)))
        values[rng.random(values.shape) < 0.1] = np.nan
        series.append(Series(str(index), 1e9 + step * np.arange(length), values))
    clock = replace(HOURS, interval=step)
    return Panel(tuple(series), tuple(channels), ("float64",) * len(channels), clock)


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return build(a_panel([200]), Data(source="sines", window=10), seed=0, place="")[0]


@given(
    lengths=st.lists(st.integers(1, 60), min_size=1, max_size=5),
    window=st.integers(2, 20),
    share=st.floats(0.01, 1),
)
@settings(max_examples=80, deadline=None)
def test_windows_cover_every_row_and_results_go_back_to_theirs(
    lengths: list[int], window: int, share: float
) -> None:
    starts = covering(lengths, window, max(1, round(share * window)))
    assert ((starts[:, 1] + window <= np.array(lengths)[starts[:, 0]]) | (starts[:, 1] == 0)).all()
    row = starts[:, 1:] + np.arange(window)  # what a model would say of each place: its row
    for series, found in enumerate(most_central(starts, lengths, window)):
        assert (starts[found[:, 0], 0] == series).all()
        assert np.array_equal(row[found[:, 0], found[:, 1]], np.arange(lengths[series]))


def test_the_window_that_is_taken_has_most_rows_around() -> None:
    starts, window = covering([40], 12, 4), 12
    (found,) = most_central(starts, [40], window)
    for row in range(40):
        margins = [min(row - first, first + window - 1 - row) for _, first in starts.tolist()]
        assert margins[found[row, 0]] == max(margins)


def test_channels_are_matched_by_name_in_any_order_among_others(dataset: Dataset) -> None:
    panel = a_panel([35, 10])
    mixed = replace(
        panel,
        channels=("b", "other", "a"),
        dtypes=("float64",) * 3,
        series=tuple(replace(one, values=one.values[:, [1, 0, 0]]) for one in panel.series),
    )
    one, other = panel_windows(dataset, panel), panel_windows(dataset, mixed)
    assert torch.equal(one.values, other.values)
    assert torch.equal(one.known, other.known)
    scaled = dataset.scaler.apply(panel.series[0].values[5:15])
    index = one.origin.tolist().index([0, 5])
    np.testing.assert_allclose(one.values[index], np.nan_to_num(scaled), rtol=1e-5, atol=1e-6)


def test_missing_channels_are_named(dataset: Dataset) -> None:
    with pytest.raises(UserError, match=r"new\.csv: no channel 'b'; the run was trained on a, b"):
        panel_windows(dataset, a_panel([30], channels="ac"), place="new.csv")


def test_times_are_in_steps_of_the_run_whatever_the_interval_of_the_file(dataset: Dataset) -> None:
    windows = panel_windows(dataset, a_panel([30], step=1800.0))
    assert torch.equal(windows.times[0], 0.5 * torch.arange(10.0))


def test_rows_are_steps_where_a_side_has_no_times(dataset: Dataset) -> None:
    index = Clock(kind="index", column="", zone="", form="", interval=1.0)
    bare = replace(a_panel([30], step=7.0), clock=index)
    assert torch.equal(panel_windows(dataset, bare).times[0], torch.arange(10.0))
    counted = replace(dataset, spacing="rows")
    assert torch.equal(panel_windows(counted, a_panel([30], 7.0)).times[0], torch.arange(10.0))


def test_times_of_another_kind_are_refused(dataset: Dataset) -> None:
    numbers = replace(a_panel([30]), clock=replace(HOURS, kind="number"))
    with pytest.raises(UserError, match="has numbers as times, the run was trained on dates"):
        panel_windows(dataset, numbers)


def test_what_is_not_to_be_seen_is_a_target(dataset: Dataset) -> None:
    panel = a_panel([30, 25])
    rng = np.random.default_rng(0)
    shown = [rng.random(one.values.shape) < 0.5 for one in panel.series]
    windows = panel_windows(dataset, panel, seen=shown, starts=np.array([[1, 3], [0, 20]]))
    cell = np.stack([shown[1][3:13], shown[0][20:30]])
    assert np.array_equal(windows.seen.numpy(), cell & windows.known.numpy())
    assert torch.equal(windows.targets, windows.known & ~windows.seen)
    assert windows.origin.tolist() == [[1, 3], [0, 20]]


def test_short_series_are_padded_and_windows_may_be_longer_than_the_runs(dataset: Dataset) -> None:
    windows = panel_windows(dataset, a_panel([30, 6]), window=16)
    assert windows.values.shape == (4, 16, 2)
    assert windows.present.sum(dim=1).tolist() == [16, 16, 16, 6]
    assert windows.origin.tolist() == [[0, 0], [0, 8], [0, 14], [1, 0]]
