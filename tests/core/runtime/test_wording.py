"""Numbers carry the digits that their interval supports, verdicts no more than it allows."""

from __future__ import annotations

from typing import Any

import pytest

from core.runtime.wording import Verdict, between, decimals_for, number, verdict


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (2708, "2,708"),
        (0.0, "0"),
        (0.95712, "0.9571"),
        (0.5, "0.5"),
        (-1234.5, "\N{MINUS SIGN}1,234"),
        (-0.00001, "\N{MINUS SIGN}1 \N{MULTIPLICATION SIGN} 10⁻⁵"),
        (6.02e23, "6.02 \N{MULTIPLICATION SIGN} 10²³"),
        (float("nan"), "nan"),
    ],
)
def test_a_number_has_four_digits_that_matter(value: float, text: str) -> None:
    assert number(value) == text


def test_a_number_that_rounds_to_zero_has_no_sign() -> None:
    assert number(-0.0001, decimals=2) == "0.00"


def test_decimals_follow_the_width_of_the_interval() -> None:
    assert decimals_for((0.9496, 0.964)) == 4
    assert decimals_for((79.6, 82.7)) == 1
    assert decimals_for((100.0, 900.0)) == 0
    assert decimals_for((1.0, 1.0)) is None
    assert between((79.61, 82.74)) == "79.6 to 82.7"


def _verdict(**changes: Any) -> Verdict:
    plain = {
        "value": 0.95,
        "interval": (0.94, 0.96),
        "direction": "higher",
        "unit": "",
        "n": 100,
        "floors": {"trivial": 0.9, "harder": 0.93},
        "primary": True,
    }
    return verdict({"auc": plain | changes})


def test_a_metric_beats_its_floor_only_with_its_whole_interval() -> None:
    assert _verdict().kind == "beats"
    assert "against 0.930 of harder" in _verdict().detail
    assert _verdict(floors={"trivial": 0.945}).kind == "cannot tell"
    assert _verdict(floors={"trivial": 0.97}).kind == "does not beat"


def test_lower_is_better_turns_the_comparison_round() -> None:
    changes = {"direction": "lower", "floors": {"trivial": 0.97, "harder": 0.961}}
    assert _verdict(**changes).kind == "beats"
    assert "of harder" in _verdict(**changes).detail
    assert _verdict(direction="lower", floors={"trivial": 0.9}).kind == "does not beat"


def test_nothing_is_claimed_without_interval_floor_or_primary_metric() -> None:
    assert _verdict(interval=None).kind == "cannot tell"
    assert _verdict(floors={}).kind == "none"
    assert _verdict(primary=False).kind == "none"
