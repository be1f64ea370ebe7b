"""What the figures of series compute, against other implementations and known answers."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.spatial.distance import cdist
from sklearn.decomposition import PCA

from domains.series.data import Clock
from domains.series.metrics.similarity import autocorrelations
from domains.series.model.base import Spectrum
from domains.series.plots.anomaly import extremes, stretches
from domains.series.plots.dependence import autocorrelation
from domains.series.plots.drawing import (
    MOST_POINTS,
    duration,
    left_out,
    short,
    spread,
    time_axis,
    time_unit,
)
from domains.series.plots.likeness import arranged, distances, nearest, principal_plane
from domains.series.plots.looked import closed, correlation, varied
from domains.series.plots.prediction import FEWEST, MOST_GROUPS, gaps
from domains.series.plots.spectrum import draw_spectrum, modes

DAILY = Clock(kind="datetime", column="day", zone="", form="%Y-%m-%d", interval=86400.0)


def spectrum_of(half_lives: list[float], periods: list[float], energy: list[float]) -> Spectrum:
    lives, turns = torch.tensor(half_lives), torch.tensor(periods)
    values = torch.polar(0.5 ** (1 / lives), 2 * math.pi / turns)
    return Spectrum(values, lives, turns, torch.tensor(energy))


def clock(kind: str, interval: float) -> Clock:
    return Clock(kind=kind, column="t", zone="", form="iso", interval=interval)  # type: ignore[arg-type]


def test_a_mode_and_its_conjugate_are_one() -> None:
    found = modes(spectrum_of([5.0, 5.0, 9.0], [12.0, -12.0, 7.0], [0.2, 0.3, 0.5]))
    assert found.energy == pytest.approx([0.5, 0.5])
    assert sorted(found.periods) == pytest.approx([7, 12])
    assert (found.eigenvalues.imag >= 0).all()


def test_equal_modes_that_are_no_conjugates_stay_apart() -> None:
    assert len(modes(spectrum_of([5.0, 5.0], [12.0, 12.0], [0.5, 0.5]))) == 2
    assert len(modes(spectrum_of([5.0, 5.0], [math.inf, math.inf], [0.5, 0.5]))) == 2


def test_the_caption_of_a_spectrum_names_slowest_mode_and_periods_that_hold_energy() -> None:
    # The mode of period 400 has next to no energy, so nothing is said of it.
    spectrum = spectrum_of([30.0, 2.0, 300.0], [7.0, 30.0, 400.0], [0.6, 0.395, 0.005])
    words = draw_spectrum(spectrum, DAILY).caption
    assert "Modes that hold 1 % or more each: 2 of 3." in words
    assert "halves in 30 days and holds 60 %" in words
    assert "from 7 days (60 %) to 30 days (40 %)" in words


def test_a_spectrum_lists_modes_that_neither_turn_nor_fade() -> None:
    still = Spectrum(
        torch.ones(1, dtype=torch.complex64),
        torch.full((1,), math.inf),
        torch.full((1,), math.inf),
        torch.ones(1),
    )
    plot = draw_spectrum(still, clock("number", 0.5))
    words = [text.get_text() for axes in plot.figure.axes for text in axes.texts]
    assert {"does not turn", "does not fade", "100 %"} <= set(words)
    assert "Times are in the unit of t." in plot.caption


def test_dots_of_a_spectrum_lie_at_the_eigenvalues() -> None:
    plot = draw_spectrum(spectrum_of([1.0, 10.0], [4.0, 12.0], [0.8, 0.2]), DAILY)
    dots = plot.figure.axes[0].collections[0]
    places = np.asarray(dots.get_offsets())
    expected = [0.5 * np.exp(2j * np.pi / 4), 0.5**0.1 * np.exp(2j * np.pi / 12)]
    assert places[:, 0] + 1j * places[:, 1] == pytest.approx(np.array(expected), abs=1e-6)
    areas = np.asarray(dots.get_sizes())  # type: ignore[attr-defined]
    assert areas[0] / areas[1] == pytest.approx(4)


@pytest.mark.parametrize(
    ("steps", "interval", "words"),
    [
        (1, 86400, "1 day"),
        (14, 86400, "14 days"),
        (1, 3600, "1 h"),
        (24, 3600, "1 day"),
        (90, 60, "1.5 h"),
        (0.5, 1, "500 ms"),
        (731, 86400, "2 years"),
        (400, 86400, "400 days"),
        (12.3456, 3600, "12.3 h"),
    ],
)
def test_durations_are_in_units_that_one_would_say(
    steps: float, interval: float, words: str
) -> None:
    assert duration(steps, clock("datetime", interval)) == words


@pytest.mark.parametrize(
    ("longest", "interval", "expected"),
    [
        (4, 3600, (1, "h")),
        (26, 7 * 86400, (7, "days")),
        (10, 86400 * 365.25, (1, "years")),
        (3, 0.0004, (0.4, "ms")),
    ],
)
def test_the_unit_of_an_axis_fits_its_length(
    longest: float, interval: float, expected: tuple[float, str]
) -> None:
    size, name = time_unit(longest, clock("datetime", interval))
    assert (size, name) == (pytest.approx(expected[0]), expected[1])


def test_durations_without_a_unit_stay_numbers() -> None:
    assert duration(4, clock("number", 0.25)) == "1"
    assert duration(4, clock("index", 1)) == "4 rows"


@pytest.mark.parametrize(
    ("value", "words"),
    [(0, "0"), (0.1 + 0.2, "0.3"), (1234.0, "1,234"), (12345.0, "12.35k"), (-2.5e9, "−2.5G")],
)
def test_numbers_of_an_axis_are_short(value: float, words: str) -> None:
    assert short(value) == words


def test_dates_stand_at_their_days() -> None:
    from matplotlib.figure import Figure

    axes = Figure().add_subplot()
    zoned = Clock(kind="datetime", column="t", zone="Europe/Berlin", form="iso", interval=3600.0)
    places = time_axis(axes, np.array([0.0, 86400.0, 129600.0]), zoned)
    assert np.diff(places) == pytest.approx([1, 0.5])
    assert axes.xaxis.get_major_formatter().format_ticks([20000 - 3 / 24])[0] == "23:00"


@given(st.integers(1, 3000), st.integers(2, 500))
def test_a_spread_keeps_both_ends_and_no_more_than_asked(count: int, most: int) -> None:
    kept = spread(count, most)
    assert len(kept) == min(count, most)
    assert (kept[0], kept[-1]) == (0, count - 1)
    assert (np.diff(kept) > 0).all()


def test_left_out_channels_are_counted() -> None:
    assert [left_out(count) for count in (0, 1, 5)] == [
        "",
        " 1 more channel is not shown.",
        " 5 more channels are not shown.",
    ]


def test_the_principal_plane_is_that_of_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    real = rng.normal(size=(80, 12)) * np.linspace(1, 4, 12) + 3
    other = rng.normal(size=(30, 12))
    flat, share = principal_plane(real, other)
    reference = PCA(2, svd_solver="full").fit(real)
    expected = reference.transform(np.concatenate([real, other]))
    signs = np.sign((flat * expected).sum(axis=0))
    assert flat == pytest.approx(expected * signs)
    assert share == pytest.approx(reference.explained_variance_ratio_.sum())
    assert (flat[np.abs(flat[:80]).argmax(axis=0), [0, 1]] > 0).all()


def test_one_dimension_has_a_plane_too() -> None:
    flat, share = principal_plane(np.array([[1.0], [2.0], [4.0]]), np.array([[3.0]]))
    assert share == pytest.approx(1)
    assert np.abs(np.diff(flat[:3, 0])) == pytest.approx([1, 2])
    assert not flat[:, 1].any()


def test_autocorrelation_is_that_of_the_metric_where_nothing_is_missing() -> None:
    windows = np.random.default_rng(0).normal(size=(50, 20, 2)).cumsum(axis=1)
    expected = autocorrelations(windows)
    for channel in range(2):
        found = autocorrelation(windows[..., channel], 15)
        assert found == pytest.approx(expected[:16, channel])


def test_autocorrelation_with_gaps_is_that_of_the_process() -> None:
    rng = np.random.default_rng(0)
    values = np.zeros((400, 40))
    for row in range(1, 40):
        values[:, row] = 0.8 * values[:, row - 1] + rng.normal(size=400)
    values = values[:, 15:]
    values[rng.random(values.shape) < 0.3] = np.nan
    assert autocorrelation(values, 4) == pytest.approx(0.8 ** np.arange(5), abs=0.04)


def test_correlation_with_gaps_is_that_of_pandas() -> None:
    rng = np.random.default_rng(0)
    windows = rng.normal(size=(30, 8, 4)) @ rng.normal(size=(4, 4)) + 100
    windows[rng.random(windows.shape) < 0.25] = np.nan
    expected = pd.DataFrame(windows.reshape(-1, 4)).corr().to_numpy()
    assert correlation(windows) == pytest.approx(expected, abs=1e-9)


def test_a_constant_channel_is_correlated_with_none() -> None:
    windows = np.random.default_rng(0).normal(size=(10, 5, 2))
    windows[..., 1] = 7.0
    assert correlation(windows)[0, 1] == 0


def test_varied_channels_leave_copies_for_last() -> None:
    rng = np.random.default_rng(0)
    one, two = rng.normal(size=(2, 50, 6))
    windows = np.stack([one, one + 0.01 * two, -one, two], axis=-1)
    assert varied(correlation(windows), 2).tolist() == [0, 3]
    assert sorted(varied(correlation(windows), 9)) == [0, 1, 2, 3]


def test_distances_are_those_of_scipy() -> None:
    rng = np.random.default_rng(0)
    points, others = rng.normal(size=(20, 7)), rng.normal(size=(15, 7))
    expected = cdist(points, others) / math.sqrt(7)
    assert distances(points, others) == pytest.approx(expected)
    assert nearest(points, others) == pytest.approx(expected.min(axis=1))
    both = cdist(points, points) / math.sqrt(7)
    np.fill_diagonal(both, np.inf)
    assert nearest(points, points, leave=np.arange(20)) == pytest.approx(both.min(axis=1))


def test_tsne_keeps_two_far_groups_apart_and_repeats_itself() -> None:
    rng = np.random.default_rng(0)
    points = np.concatenate([rng.normal(size=(100, 5)), rng.normal(size=(100, 5)) + 50])
    first, second = arranged(points, 0), arranged(points, 0)
    assert first.tobytes() == second.tobytes()
    within = cdist(first[:100], first[:100]) + np.diag(np.full(100, np.inf))
    assert (within.min(axis=1) < cdist(first[:100], first[100:]).min(axis=1)).all()


def test_gaps_are_closed_by_lines() -> None:
    windows = np.array([[[np.nan, 1.0], [2.0, np.nan], [np.nan, np.nan], [8.0, np.nan]]])
    assert closed(windows)[0].T.tolist() == [[2, 2, 5, 8], [1, 1, 1, 1]]
    assert closed(np.full((1, 3, 1), np.nan)).ravel().tolist() == [0, 0, 0]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(0.01, 1e4), min_size=FEWEST, max_size=300))
def test_no_value_is_in_two_groups_of_gaps(times: list[float]) -> None:
    groups = gaps(np.array(times))
    counts = sum((group.astype(int) for group in groups), np.zeros(len(times), dtype=int))
    assert counts.max() <= 1
    assert all(group.sum() >= FEWEST for group in groups)
    middles = [np.array(times)[group].mean() for group in groups]
    assert middles == sorted(middles)


def test_every_common_gap_has_a_group_if_there_are_few() -> None:
    since = np.repeat(np.arange(1.0, MOST_GROUPS + 1), FEWEST)
    assert [since[group].mean() for group in gaps(since)] == list(range(1, MOST_GROUPS + 1))
    many = np.repeat(np.arange(1.0, 500), FEWEST)
    groups = gaps(many)
    assert 5 < len(groups) < 30
    assert sum(group.sum() for group in groups) == len(many)


@settings(max_examples=30, deadline=None)
@given(arrays(np.float64, st.integers(1, 3000), elements=st.floats(-5, 5)))
def test_thinning_a_curve_loses_no_peak(curve: np.ndarray) -> None:
    kept = extremes(curve)
    assert len(kept) <= MOST_POINTS
    assert curve[kept].max() == curve.max()
    assert curve[kept].min() == curve.min()
    assert (np.diff(kept) > 0).all()


@given(arrays(np.bool_, st.integers(0, 60)))
def test_stretches_are_the_labelled_rows(label: np.ndarray) -> None:
    again = np.zeros_like(label)
    for start, end in stretches(label):
        assert end > start
        again[start:end] = True
    assert (again == label).all()
