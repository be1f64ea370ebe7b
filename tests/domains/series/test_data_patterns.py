"""What training hides where a user says in which pattern values will be missing."""

from __future__ import annotations

import numpy as np
import pytest

from domains.series.config import Config
from domains.series.data.masks import PATTERNS, hide_anew

ALL = np.ones((200, 24, 5), dtype=bool)


def hidden(pattern: str) -> np.ndarray:
    return hide_anew(np.random.default_rng(0), ALL, share=0.3, length=4, pattern=pattern)


def test_single_values_are_hidden_each_by_itself() -> None:
    found = hidden("points")
    share = found.mean()
    neighbours = (found[:, 1:] & found[:, :-1]).mean()
    across = (found[:, :, 1:] & found[:, :, :-1]).mean()
    expected = (found.mean((1, 2)) ** 2).mean()  # windows differ in their share
    assert share == pytest.approx(0.3, abs=0.02)
    assert neighbours == pytest.approx(expected, abs=0.01)
    assert across == pytest.approx(expected, abs=0.01)


@pytest.mark.parametrize("pattern", ["rows", "stretches of rows"])
def test_rows_are_hidden_whole_in_every_window(pattern: str) -> None:
    found = hidden(pattern)
    assert (found.all(2) == found.any(2)).all()
    assert found.any((1, 2)).all()


def test_stretches_of_single_channels_are_longer_than_chance_and_not_of_all_channels() -> None:
    found = hidden("stretches")
    together = (found[:, 1:] & found[:, :-1]).mean()
    assert together > 1.5 * (found.mean((1, 2)) ** 2).mean()
    assert not (found.all(2) == found.any(2)).all()


def test_mixed_is_a_quarter_of_each() -> None:
    found = hidden("mixed")
    whole = (found.all(2) == found.any(2)).all(1)
    assert whole.mean() == pytest.approx(0.5, abs=0.1)


def test_every_pattern_of_the_settings_can_be_drawn() -> None:
    for pattern in (*PATTERNS, "mixed"):
        task = {"kind": "impute", "pattern": pattern}
        settings = Config.model_validate({"name": "x", "task": task})
        assert hidden(settings.task.pattern).any()  # pyright: ignore[reportAttributeAccessIssue]
