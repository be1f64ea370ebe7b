"""Runs side by side: only what differs, and no claim that the intervals do not carry."""

from __future__ import annotations

import re
from pathlib import Path

import finished_run
import pytest
from finished_run import MISCHIEF, Page, metric

from core.runtime.compare import agreement, agreement_table, compare, text_table
from core.runtime.errors import UserError


@pytest.fixture
def runs(tmp_path: Path) -> list[Path]:
    better = finished_run.results()
    better["metrics"]["auc"] = metric(0.981, (0.975, 0.987), primary=True)
    better["metrics"]["brier"] = metric(0.075, (0.065, 0.085), direction="lower")
    del better["metrics"]["rate"]
    first = finished_run.write(tmp_path / "one")
    return [first, finished_run.write(tmp_path / "two", better, seed=7)]


def test_only_settings_that_differ_are_listed(runs: list[Path]) -> None:
    text, _ = compare(runs)
    assert re.search(r"setting +A +B\n-+ +- +-\nseed +0 +7\n", text)
    assert "optimizer" not in text


def test_equal_settings_are_said_to_be_equal(runs: list[Path]) -> None:
    text, html = compare([runs[0], runs[0]])
    assert "All settings are equal." in text
    assert "All settings are equal." in html


def test_better_is_said_only_where_the_intervals_part(runs: list[Path]) -> None:
    text, _ = compare(runs)
    assert re.search(r"auc ↑ .*0\.9570 \[.*\] +0\.9810 \[.*\] better", text)
    assert re.search(r"brier ↓ .* cannot tell", text)
    assert re.search(r"rate +nats +12\.5$", text, re.MULTILINE)
    back, _ = compare(runs[::-1])
    assert re.search(r"auc ↑ .* worse", back)


def test_other_data_are_warned_of(runs: list[Path]) -> None:
    card = runs[1] / "data-card.json"
    card.write_text(card.read_text().replace("f" * 64, "e" * 64))
    text, html = compare(runs)
    assert "note: The data differ" in text
    assert "The data differ" in html


def test_the_page_is_whole_private_and_the_same_twice(runs: list[Path]) -> None:
    _, html = compare(runs)
    page = Page(html)
    assert "script" not in page.tags
    assert MISCHIEF in page.text
    assert str(runs[0].parent) not in html
    assert "/home" not in html
    assert compare(runs)[1] == html
    ids = [value for name, value in page.attributes if name == "id"]
    assert len(ids) == len(set(ids))


def test_curves_of_both_runs_are_in_one_drawing(runs: list[Path]) -> None:
    _, html = compare(runs)
    assert "auc on valid: A, B" in html


def test_an_unfinished_run_or_a_single_one_cannot_be_compared(runs: list[Path]) -> None:
    with pytest.raises(UserError, match="expected 2 to 7 runs, got 1"):
        compare(runs[:1])
    (runs[1] / "metrics.json").unlink()
    with pytest.raises(UserError, match=r"metrics.json: no such file"):
        compare(runs)


def test_agreement_is_to_the_bit_or_says_to_what() -> None:
    a = {"metrics": {"auc": metric(0.957), "ap": metric(0.5), "loss": metric(0.0)}}
    b = {"metrics": {"auc": metric(0.957), "ap": metric(0.500001), "mrr": metric(0.4)}}
    rows = {row.metric: row for row in agreement(a, b)}
    assert rows["auc"].difference == 0
    assert rows["auc"].words == "equal to the bit"
    assert rows["ap"].difference == pytest.approx(2e-6, rel=1e-3)
    assert rows["loss"].words == rows["mrr"].words == "only in one run"
    assert [name for name, row in rows.items() if row.agrees] == ["auc"]
    assert "differs by 2.0e-06" in agreement_table(list(rows.values()))


def test_a_tolerance_is_relative() -> None:
    a, b = {"metrics": {"loss": metric(2000.0)}}, {"metrics": {"loss": metric(2001.0)}}
    (row,) = agreement(a, b, tolerance=1e-3)
    assert row.agrees
    assert row.words == "within 5.0e-04"
    assert not agreement(a, b, tolerance=1e-4)[0].agrees


def test_a_text_table_has_aligned_columns() -> None:
    assert text_table(["a", "long"], [["word", "1"]]) == "a     long\n----  ----\nword  1"
