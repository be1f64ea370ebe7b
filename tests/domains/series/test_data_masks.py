"""Hiding values: how many, which, and with what chances."""

from __future__ import annotations

from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings
from scipy import stats

from core.runtime.errors import UserError
from domains.series.data.masks import STEEPNESS, hide, hide_anew

KINDS: list[Any] = ["none", "mcar", "mnar", "block", "rows", "mar"]


def some_values(rng: np.random.Generator, rows: int, channels: int, missing: float) -> np.ndarray:
    values = rng.normal(size=(rows, channels))
    values[rng.random(values.shape) < missing] = np.nan
    return values


@pytest.mark.parametrize("kind", KINDS)
@given(
    seed=st.integers(0, 1000),
    rows=st.integers(1, 30),
    channels=st.integers(2, 5),
    missing=st.sampled_from([0.0, 0.2, 0.9, 1.0]),
    fraction=st.floats(0, 0.45),
    length=st.integers(1, 40),
)
@settings(max_examples=50, deadline=None)
def test_the_share_is_exact_and_nothing_unknown_is_hidden(
    kind: Any, seed: int, rows: int, channels: int, missing: float, fraction: float, length: int
) -> None:
    rng = np.random.default_rng(seed)
    values = some_values(rng, rows, channels, missing)
    known = np.isfinite(values)
    try:
        hidden = hide(rng, values, kind, fraction, length)
    except UserError:
        assert kind == "mar"
        assert round(fraction * known.sum()) > known.sum() - known.sum(axis=0).max()
        return
    assert not (hidden & ~known).any()
    if kind == "rows":
        assert hidden.any(axis=1).sum() == round(fraction * known.any(axis=1).sum())
        assert np.array_equal(hidden, known & hidden.any(axis=1, keepdims=True))
    else:
        assert hidden.sum() == (0 if kind == "none" else round(fraction * known.sum()))
    again = hide(np.random.default_rng(7), values, kind, fraction, length)
    assert np.array_equal(again, hide(np.random.default_rng(7), values, kind, fraction, length))


def test_every_value_is_as_likely_to_be_hidden_completely_at_random() -> None:
    rng = np.random.default_rng(0)
    values = np.zeros((6, 4))
    counts = sum(hide(rng, values, "mcar", 0.25).astype(int) for _ in range(4000))
    assert stats.chisquare(np.ravel(counts)).pvalue > 1e-3


def test_the_odds_of_a_larger_value_are_those_promised() -> None:
    rng = np.random.default_rng(1)
    values = np.array([[-1.0], [1.0]])  # standardised: one standard deviation about the mean
    larger = sum(hide(rng, values, "mnar", 0.5)[1, 0] for _ in range(20_000))
    expected = 1 / (1 + np.exp(-2 * STEEPNESS))
    assert stats.binomtest(int(larger), 20_000, expected).pvalue > 1e-3


def test_missing_at_random_depends_on_a_channel_that_stays_and_on_nothing_else() -> None:
    rng = np.random.default_rng(2)
    values = some_values(rng, 5000, 3, 0.0)
    values[::7, 1] = np.nan
    values[::9, 2] = np.nan
    hidden = hide(rng, values, "mar", 0.3)
    assert not hidden[:, 0].any()
    for channel in (1, 2):
        known = np.isfinite(values[:, channel])
        gone, left = hidden[known, channel], values[known]
        assert left[gone, 0].mean() > left[~gone, 0].mean() + 0.5
        assert stats.ttest_ind(left[gone, channel], left[~gone, channel]).pvalue > 1e-3


def test_missing_not_at_random_hides_large_values_of_every_channel() -> None:
    rng = np.random.default_rng(3)
    values = some_values(rng, 2000, 2, 0.1) * [1, 1000] + [0, 5000]
    hidden = hide(rng, values, "mnar", 0.3)
    for channel in range(2):
        column, gone = values[:, channel], hidden[:, channel]
        assert column[gone].mean() > np.nanmean(column) + 0.5 * np.nanstd(column)
        assert 0.25 < gone.sum() / np.isfinite(column).sum() < 0.35


def test_more_than_the_other_channels_hold_cannot_be_missing_at_random() -> None:
    with pytest.raises(UserError, match=r"share 0.6 .* at most 0.5 is possible"):
        hide(np.random.default_rng(0), np.zeros((10, 2)), "mar", 0.6)


@given(seed=st.integers(0, 200), length=st.integers(2, 9))
@settings(max_examples=40, deadline=None)
def test_blocks_are_stretches_of_their_length_but_for_the_last(seed: int, length: int) -> None:
    hidden = hide(np.random.default_rng(seed), np.zeros((200, 4)), "block", 0.2, length)
    padded = np.pad(hidden, ((1, 1), (0, 0))).astype(int)
    runs = []
    for column in padded.T:
        edges = np.flatnonzero(np.diff(column))
        runs += list(edges[1::2] - edges[::2])
    assert sum(run < length for run in runs) <= 1
    assert sum(runs) == 160


@given(
    seed=st.integers(0, 1000),
    rows=st.integers(2, 30),
    share=st.floats(0.01, 0.95),
    length=st.integers(1, 40),
)
@settings(max_examples=60, deadline=None)
def test_hiding_anew_keeps_to_what_is_allowed_and_to_the_range_of_shares(
    seed: int, rows: int, share: float, length: int
) -> None:
    rng = np.random.default_rng(seed)
    allowed = rng.random((16, rows, 3)) < 0.7
    hidden = hide_anew(rng, allowed, share, length)
    assert not (hidden & ~allowed).any()
    largest = (share + 0.8 * min(share, 1 - share)) * allowed.sum(axis=(1, 2))
    block = 3 * max(min(2 * length, rows // 2), 2)  # the last row or stretch is not cut
    assert (hidden.sum(axis=(1, 2)) <= largest + 1 + block).all()


@pytest.mark.parametrize("share", [0.15, 0.25, 0.5, 0.8])
def test_the_mean_share_hidden_anew_is_near_the_one_asked_for(share: float) -> None:
    allowed = np.ones((4000, 24, 6), dtype=bool)
    hidden = hide_anew(np.random.default_rng(0), allowed, share, 4)
    assert share < hidden.mean() < share + 0.06


def test_windows_are_hidden_anew_in_four_ways() -> None:
    allowed = np.ones((3000, 24, 6), dtype=bool)
    hidden = hide_anew(np.random.default_rng(1), allowed, 0.25, 4)
    whole_rows = (hidden.all(axis=2) | ~hidden.any(axis=2)).all(axis=1)
    stays = (hidden[:, 1:] == hidden[:, :-1]).mean(axis=(1, 2))
    shares = hidden.mean(axis=(1, 2))
    by_chance = 1 - 2 * shares * (1 - shares)
    stretched = stays > by_chance + 0.12
    together = whole_rows[shares > 0].mean()
    assert 0.44 < together < 0.56
    assert 0.3 < (stretched & whole_rows).mean() / together < 0.6
    assert 0.3 < (stretched & ~whole_rows).mean() / (1 - together) < 0.6


def test_rows_at_both_ends_are_hidden_anew_about_as_often_as_others() -> None:
    allowed = np.ones((8000, 24, 2), dtype=bool)
    rate = hide_anew(np.random.default_rng(2), allowed, 0.3, 5).mean(axis=(0, 2))
    assert rate.max() - rate.min() < 0.03
