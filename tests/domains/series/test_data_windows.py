"""Cutting and gathering windows, against loops that do the same one by one."""

from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
import torch
from hypothesis import given, settings

from domains.series.data import Clock, Panel, Scaler, Series
from domains.series.data.splits import Stretches
from domains.series.data.windows import cut, gather, rows, steps_of, thin

STRETCHES = st.lists(
    st.tuples(st.integers(0, 4), st.integers(0, 30), st.integers(1, 40)), min_size=1, max_size=6
)


def a_panel(lengths: list[int], channels: int = 3, seed: int = 0, missing: float = 0.3) -> Panel:
    rng = np.random.default_rng(seed)
    series = []
    for index, length in enumerate(lengths):
        values = rng.normal(5, 2, size=(length, channels))
        values[rng.random(values.shape) < missing] = np.nan
        times = 1e9 + np.cumsum(rng.uniform(0.5, 3, size=length))
        series.append(Series(str(index), times, values))
    return Panel(
        series=tuple(series),
        channels=tuple(f"c{j}" for j in range(channels)),
        dtypes=("float64",) * channels,
        clock=Clock(kind="number", column="t", zone="", form="", interval=1.5),
    )


def identity(channels: int) -> Scaler:
    return Scaler(np.zeros(channels), np.ones(channels))


@given(
    parts=STRETCHES,
    window=st.integers(2, 12),
    stride=st.integers(1, 7),
    pad=st.booleans(),
)
@settings(max_examples=100, deadline=None)
def test_windows_are_those_a_loop_finds_and_none_leaves_its_stretch(
    parts: list[tuple[int, int, int]], window: int, stride: int, pad: bool
) -> None:
    stretches: Stretches = np.array([[s, first, first + size] for s, first, size in parts])
    expected = []
    for series, first, end in stretches.tolist():
        starts = list(range(first, end - window + 1, stride))
        expected += [[series, row] for row in starts or ([first] if pad else [])]
    assert cut(stretches, window, stride, pad).tolist() == expected


@given(count=st.integers(0, 50), most=st.integers(1, 60))
def test_thinned_windows_are_spread_from_the_first_to_the_last(count: int, most: int) -> None:
    starts = np.stack([np.zeros(count, dtype=np.int64), np.arange(count)], axis=1)
    kept = thin(starts, most)[:, 1]
    assert len(kept) == min(count, most)
    if most > 1 and count:
        assert (kept[0], kept[-1]) == (0, count - 1)
        gaps = np.diff(kept)
        assert not len(gaps) or gaps.max() - gaps.min() <= 1


@given(
    lengths=st.lists(st.integers(1, 15), min_size=1, max_size=4),
    window=st.integers(2, 9),
    seed=st.integers(0, 9),
)
@settings(max_examples=60, deadline=None)
def test_gathered_windows_are_those_of_a_loop_over_cells(
    lengths: list[int], window: int, seed: int
) -> None:
    panel = a_panel(lengths, seed=seed)
    rng = np.random.default_rng(seed)
    starts = np.array(
        [(s, rng.integers(0, lengths[s])) for s in rng.integers(len(lengths), size=5)]
    )
    scaler = Scaler(np.array([1.0, 2.0, 3.0]), np.array([2.0, 0.5, 1.0]))
    laid = rows(panel, None, scaler, interval=1.5)
    shown = rng.random(laid.known.shape) < 0.5
    found = gather(laid, starts, window, laid.known & shown, laid.known & ~shown)
    flat = np.concatenate([[0], np.cumsum(lengths)])
    for index, (s, first) in enumerate(starts.tolist()):
        one = panel.series[s]
        for place in range(window):
            row = first + place
            inside = row < lengths[s]
            assert bool(found.present[index, place]) == inside
            if not inside:
                assert not found.known[index, place].any()
                assert not (found.seen | found.targets)[index, place].any()
                assert not found.values[index, place].any()
                assert float(found.times[index, place] - found.times[index, place - 1]) > 0
                continue
            known = np.isfinite(one.values[row])
            scaled = np.where(known, (one.values[row] - scaler.shift) / scaler.scale, 0)
            assert found.known[index, place].tolist() == known.tolist()
            assert found.seen[index, place].tolist() == (known & shown[flat[s] + row]).tolist()
            assert found.targets[index, place].tolist() == (known & ~shown[flat[s] + row]).tolist()
            np.testing.assert_allclose(found.values[index, place].numpy(), scaled, rtol=1e-6)
            steps = (one.times[row] - one.times[first]) / 1.5
            assert abs(float(found.times[index, place]) - steps) < 2e-6 * max(steps, 1)
    assert found.origin.tolist() == starts.tolist()
    assert found.values.dtype == torch.float32


@given(begin=st.floats(-1e9, 2e9), interval=st.sampled_from([1e-3, 1 / 3, 0.1, 300.0, 86400.0]))
@settings(max_examples=60, deadline=None)
def test_a_regular_series_has_whole_steps_wherever_its_clock_begins(
    begin: float, interval: float
) -> None:
    times = begin + interval * np.arange(60)
    if np.spacing(abs(begin) + 60 * interval) > 1e-7 * interval:
        return  # the clock itself cannot tell steps that well
    panel = a_panel([60])
    one = Series("", times, panel.series[0].values)
    laid = rows(
        Panel((one,), panel.channels, panel.dtypes, panel.clock), None, identity(3), interval
    )
    starts = np.array([[0, 0], [0, 17], [0, 36]])
    found = gather(laid, starts, 24, laid.known, laid.known)
    assert torch.equal(found.times, torch.arange(24.0).expand(3, 24))


def test_times_near_an_even_grid_are_even_and_others_are_kept() -> None:
    rng = np.random.default_rng(0)
    count = np.arange(300)
    milliseconds = np.floor(count * 1000 / 64) / 1000  # of 64 Hz: 15 or 16 of them
    assert np.array_equal(steps_of(milliseconds, 0.016), count)
    np.testing.assert_allclose(steps_of(milliseconds, 0.032), count * (1000 / 64) / 32, rtol=1e-3)
    gaps = np.delete(count, [50, 51, 200]).astype(float)
    assert np.array_equal(steps_of(7 * gaps + 3, 7.0), gaps - gaps[0])
    irregular = np.cumsum(rng.uniform(0.5, 1.5, size=300))
    assert np.array_equal(steps_of(irregular, 2.0), (irregular - irregular[0]) / 2)


def test_rows_can_count_as_steps_and_padding_goes_on_counting() -> None:
    laid = rows(a_panel([5, 4]), None, identity(3), interval=None)
    found = gather(laid, np.array([[0, 0], [1, 2]]), 5, laid.known, laid.known)
    assert found.times.tolist() == [[0, 1, 2, 3, 4], [0, 1, 2, 3, 4]]
    assert found.present.tolist() == [[True] * 5, [True, True, False, False, False]]
