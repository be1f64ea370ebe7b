"""Who gets which rows."""

from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from core.runtime.errors import UserError
from domains.series.config import Data
from domains.series.data.splits import SPLITS, rows_of, split

LENGTHS = st.lists(st.integers(1, 200), min_size=1, max_size=30)
FRACTIONS = st.sampled_from([(0.1, 0.2), (0.01, 0.9), (0.45, 0.45), (0.3, 0.05)])


def settings_of(kind: str, fractions: tuple[float, float] = (0.1, 0.2)) -> Data:
    return Data(
        source="sines",
        split=kind,  # type: ignore[arg-type]
        valid_fraction=fractions[0],
        test_fraction=fractions[1],
    )


@given(lengths=LENGTHS, fractions=FRACTIONS)
@settings(max_examples=60, deadline=None)
def test_by_time_every_row_is_in_one_split_and_the_test_comes_last(
    lengths: list[int], fractions: tuple[float, float]
) -> None:
    found = split(lengths, settings_of("chronological", fractions), seed=0)
    masks = {name: rows_of(found[name], lengths) for name in SPLITS}
    for series, length in enumerate(lengths):
        train, valid, test = (masks[name][series] for name in SPLITS)
        assert np.array_equal(train.astype(int) + valid + test, np.ones(length))
        order = np.argmax(np.stack([train, valid, test]), axis=0)
        assert (np.diff(order) >= 0).all()
        assert abs(valid.sum() - fractions[0] * length) <= 0.5
        assert abs(test.sum() - fractions[1] * length) <= 0.5


@given(lengths=LENGTHS.filter(lambda some: len(some) >= 3), fractions=FRACTIONS)
@settings(max_examples=60, deadline=None)
def test_by_series_each_is_whole_in_one_split_and_none_is_empty(
    lengths: list[int], fractions: tuple[float, float]
) -> None:
    found = split(lengths, settings_of("series", fractions), seed=4)
    owners = np.concatenate([found[name][:, 0] for name in SPLITS])
    assert sorted(owners) == list(range(len(lengths)))
    for name in SPLITS:
        assert len(found[name])
        assert (found[name][:, 1] == 0).all()
        assert (found[name][:, 2] == np.array(lengths)[found[name][:, 0]]).all()


def test_by_series_shares_are_those_asked_for_and_the_seed_decides_who() -> None:
    lengths = [10] * 100
    first, again, other = (split(lengths, settings_of("series"), seed) for seed in (0, 0, 1))
    assert [len(first[name]) for name in SPLITS] == [70, 10, 20]
    assert all(np.array_equal(first[name], again[name]) for name in SPLITS)
    assert not np.array_equal(first["test"], other["test"])


def test_timegans_protocol_gives_every_split_all_rows() -> None:
    found = split([5, 7], settings_of("windows"), seed=0)
    assert all(found[name].tolist() == [[0, 0, 5], [1, 0, 7]] for name in SPLITS)


@pytest.mark.parametrize("count", [1, 2])
def test_two_series_cannot_be_split_in_three(count: int) -> None:
    with pytest.raises(UserError, match=f"{count} series; at least 3 are needed"):
        split([10] * count, settings_of("series"), seed=0)
