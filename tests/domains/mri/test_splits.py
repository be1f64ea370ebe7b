from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.runtime.errors import UserError
from domains.mri.config import Data
from domains.mri.data.splits import parted, plan, spread_out

NAMES = st.lists(st.text("abcdefgh", min_size=1, max_size=4), min_size=1, max_size=9, unique=True)


@settings(max_examples=60, deadline=None)
@given(names=NAMES, seed=st.integers(0, 1000))
def test_every_head_is_in_one_split_and_every_split_has_one(names: list[str], seed: int) -> None:
    found = plan(names, Data(seed=seed), "somewhere")
    assert set(found.splits) == set(names)
    there = {*found.splits.values(), *(found.parts if found.shared else ())}
    assert there == {"train", "valid", "test"}
    if found.shared:
        assert found.splits[found.shared] == "train"
        assert found.notes


@given(names=NAMES, seed=st.integers(0, 1000))
def test_splits_do_not_depend_on_the_order_of_names(names: list[str], seed: int) -> None:
    assert plan(names, Data(seed=seed), "") == plan(names[::-1], Data(seed=seed), "")


def test_named_subjects_are_where_they_are_named() -> None:
    data = Data(valid_subjects=("a",), test_subjects=("b", "c"))
    found = plan(["a", "b", "c", "d"], data, "")
    assert found.splits == {"a": "valid", "b": "test", "c": "test", "d": "train"}
    assert found.shared is None


def test_three_train_heads_lend_slices_to_validation_and_one_more_is_one() -> None:
    few = plan(["a", "b", "c", "t"], Data(test_subjects=("t",)), "")
    assert (few.shared, few.parts) == ("c", ("train", "valid"))
    more = plan(["a", "b", "c", "d", "t"], Data(test_subjects=("t",)), "")
    assert more.shared is None


def test_one_head_is_said_to_tell_nothing_about_others() -> None:
    found = plan(["a"], Data(), "")
    assert "nothing about other heads" in found.notes[0]


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (Data(test_subjects=("crhis",)), "did you mean 'chris'"),
        (
            Data(test_subjects=("chris",), valid_subjects=("ch2",)),
            "expected one at least to train",
        ),
    ],
)
def test_subjects_that_cannot_be_are_errors(data: Data, says: str) -> None:
    with pytest.raises(UserError, match=says):
        plan(["ch2", "chris"], data, "heads")


@settings(max_examples=60, deadline=None)
@given(
    count=st.integers(40, 120),
    step=st.integers(1, 3),
    spacing=st.floats(0.5, 3),
    gap=st.floats(0, 15),
)
def test_parts_of_one_head_are_disjoint_and_the_gap_apart(
    count: int, step: int, spacing: float, gap: float
) -> None:
    data = Data(gap_mm=gap)
    where = 7 + step * np.arange(count)
    try:
        found = parted(where, spacing, plan(["a"], data, ""), data, "a")
    except UserError:
        assert 2 * gap > 0.4 * count * step * spacing  # there is room otherwise
        return
    assert list(found) == ["test", "train", "valid"]
    for first, second in zip(found.values(), list(found.values())[1:], strict=False):
        assert (second[0] - first[-1]) * spacing >= gap
        assert second[0] > first[-1]


def test_a_head_too_small_to_be_parted_is_an_error_that_says_what_to_do() -> None:
    with pytest.raises(UserError, match="gap_mm"):
        parted(np.arange(6), 1.0, plan(["a"], Data(), ""), Data(), "a")


def test_spread_out_slices_are_different_and_within() -> None:
    for count in range(1, 12):
        for most in (None, *range(1, 14)):
            found = spread_out(count, most)
            assert len(set(found.tolist())) == len(found) == min(most or count, count)
            assert found.min() >= 0
            assert found.max() < count
