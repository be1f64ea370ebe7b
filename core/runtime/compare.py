"""Runs side by side: the settings that differ, metrics with intervals, curves over each other."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import ascii_uppercase
from typing import Any

from markupsafe import Markup

from core.contract import Plot
from core.runtime import figures
from core.runtime.config import flat_settings
from core.runtime.errors import UserError
from core.runtime.report import (
    MOST_CURVES,
    TEMPLATES,
    Drawing,
    Record,
    curve_order,
    page,
    public,
    read_record,
    score_curves,
    slug,
    unit_of,
    x_axis,
)
from core.runtime.wording import ARROWS, between, decimals_for, number

MOST_RUNS = len(figures.COLOURS)


@dataclass(frozen=True)
class Agreement:
    """How far a metric of two runs is the same.

    Args:
        metric: Its name.
        a: Its value in the first run, None if it has none there.
        b: Its value in the second run.
        difference: Relative to the larger of the two; 0 means equal bits, None a missing value.
        agrees: Whether the difference is within the tolerance.
    """

    metric: str
    a: float | None
    b: float | None
    difference: float | None
    agrees: bool

    @property
    def words(self) -> str:
        """The same for reading."""
        if self.difference is None:
            return "only in one run"
        equal = "equal to the bit" if self.difference == 0 else f"within {self.difference:.1e}"
        return equal if self.agrees else f"differs by {self.difference:.1e}"


def agreement(
    a: Mapping[str, Any], b: Mapping[str, Any], tolerance: float = 0.0
) -> list[Agreement]:
    """Return for each metric of either run how far they agree.

    Args:
        a: What the ``metrics.json`` of the one run holds.
        b: What that of the other holds.
        tolerance: Largest relative difference that counts as agreement.
    """
    rows = []
    for name in sorted({*a["metrics"], *b["metrics"]}):
        left, right = (of["metrics"].get(name, {}).get("value") for of in (a, b))
        difference = _difference(left, right)
        agrees = difference is not None and difference <= tolerance
        rows.append(Agreement(name, left, right, difference, agrees))
    return rows


def agreement_table(rows: Sequence[Agreement]) -> str:
    """Return the table that ``reproduce`` prints."""
    cells = [[row.metric, _exact(row.a), _exact(row.b), row.words] for row in rows]
    return text_table(["metric", "before", "now", "relative difference"], cells)


def compare(runs: Sequence[Path]) -> tuple[str, str]:
    """Return the comparison of runs as text for a terminal and as a self-contained HTML page.

    Raises:
        UserError: If there are too few or too many runs, or one is unfinished.
    """
    if not 2 <= len(runs) <= MOST_RUNS:
        raise UserError(f"compare: expected 2 to {MOST_RUNS} runs, got {len(runs)}")
    records = [read_record(run) for run in runs]
    labels = _labels(records)
    content = {
        "labels": labels,
        "summaries": [_summary(record) for record in records],
        "warnings": _warnings(records),
        "settings": _differing(records),
        "metrics": _metric_rows(records),
        "drawings": _curves(labels, records),
        "css": Markup((TEMPLATES / "style.css").read_text(encoding="utf-8")),
    }
    return _text(content), page("compare.html", content)


def text_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return rows in aligned columns."""
    widths = [max(len(row[index]) for row in [head, *rows]) for index in range(len(head))]
    lines = [head, ["-" * width for width in widths], *rows]
    cells = ([cell.ljust(width) for cell, width in zip(row, widths, strict=True)] for row in lines)
    return "\n".join("  ".join(row).rstrip() for row in cells)


def _difference(a: float | None, b: float | None) -> float | None:
    if a is None or b is None:
        return None
    return 0.0 if a == b else abs(a - b) / max(abs(a), abs(b))


def _exact(value: float | None) -> str:
    return "" if value is None else repr(value)


def _labels(records: Sequence[Record]) -> list[str]:
    """A letter and the name, which is unique without a path or a time."""
    names = [f"{record.settings['domain']}/{record.settings['name']}" for record in records]
    return [f"{letter} {name}" for letter, name in zip(ascii_uppercase, names, strict=False)]


def _summary(record: Record) -> dict[str, str]:
    return {
        "identity": str(record.lineage.get("identity", "")),
        "data": f"{public(record.card['source'])} ({record.card['fingerprint'][:12]})",
        "code": str((record.lineage.get("code") or {}).get("sources", ""))[:12],
    }


def _warnings(records: Sequence[Record]) -> list[str]:
    """What stands against reading the metrics side by side."""
    different: dict[str, Callable[[Record], Any]] = {
        "These runs are of different domains; their metrics do not compare.": (
            lambda record: record.settings["domain"]
        ),
        "The data differ (other fingerprints); metrics were not measured on the same examples.": (
            lambda record: record.card["fingerprint"]
        ),
        "The code differs (other sources); a difference may be due to it.": (
            lambda record: (record.lineage.get("code") or {}).get("sources")
        ),
        "The numbers of threads differ; equal settings need not give equal bits.": (
            lambda record: record.lineage.get("threads")
        ),
    }
    return [text for text, of in different.items() if len({repr(of(run)) for run in records}) > 1]


def _differing(records: Sequence[Record]) -> dict[str, list[str]]:
    """Only the settings that are not the same in all runs; empty where a run lacks the key."""
    flat = [flat_settings(record.settings) for record in records]
    keys = dict.fromkeys(key for values in flat for key in values)
    return {
        key: [public(values[key]) if key in values else "" for values in flat]
        for key in keys
        if len({repr(values.get(key, ...)) for values in flat}) > 1
    }


def _metric_rows(records: Sequence[Record]) -> list[dict[str, Any]]:
    tables = [record.results.get("metrics") or {} for record in records]
    names = {name for table in tables for name in table}
    primary = {name for table in tables for name in table if table[name].get("primary")}
    rows = []
    for name in sorted(names, key=lambda name: (name not in primary, name)):
        found = [table.get(name) for table in tables]
        first = next(metric for metric in found if metric is not None)
        decimals = max(
            filter(None, (decimals_for(m.get("interval")) for m in found if m)), default=None
        )
        rows.append(
            {
                "name": name,
                "arrow": ARROWS[first["direction"]],
                "unit": first["unit"],
                "primary": name in primary,
                "cells": [_cell(metric, decimals) for metric in found],
                "standing": [_standing(found[0], metric) for metric in found],
            }
        )
    return rows


def _cell(metric: Mapping[str, Any] | None, decimals: int | None) -> dict[str, str] | None:
    if metric is None:
        return None
    return {
        "value": number(float(metric["value"]), decimals),
        "exact": repr(float(metric["value"])),
        "interval": between(metric.get("interval")),
        "n": number(metric["n"]),
    }


def _standing(first: Mapping[str, Any] | None, metric: Mapping[str, Any] | None) -> str:
    """Whether a metric is better or worse than the first run's beyond both intervals."""
    if first is None or metric is None or first is metric or first["direction"] == "none":
        return ""
    a, b = first.get("interval"), metric.get("interval")
    if a is None or b is None:
        return "same" if first["value"] == metric["value"] else "cannot tell"
    if a[0] <= b[1] and b[0] <= a[1]:
        return "same" if first["value"] == metric["value"] else "cannot tell"
    return "better" if (b[0] > a[1]) == (first["direction"] == "higher") else "worse"


def _curves(labels: Sequence[str], records: Sequence[Record]) -> list[Drawing]:
    """One drawing per score and split, the runs over each other in their colours."""
    axes = {x_axis(record.history) for record in records}
    axis = axes.pop() if len(axes) == 1 else "step"
    curves = [score_curves(record.history, axis) for record in records]
    order: dict[str, None] = {}
    for record, of_run in zip(records, curves, strict=True):
        order |= dict.fromkeys(curve_order(of_run, record.settings))
    drawings = []
    for score in list(order)[:MOST_CURVES]:
        split = "valid" if any("valid" in of_run.get(score, {}) for of_run in curves) else "train"
        series = {
            label.split(" ")[0]: of_run[score][split]
            for label, of_run in zip(labels, curves, strict=True)
            if split in of_run.get(score, {})
        }
        unit = unit_of(score, records[0].results.get("metrics") or {})
        label = score.replace("_", " ") + (f", {unit}" if unit else "")
        colours = {letter: figures.COLOURS[ascii_uppercase.index(letter)] for letter in series}
        figure = figures.curve(series, axis, label, colours=colours)
        plot = Plot(figure=figure, caption=f"{score} on {split}: {', '.join(series)}")
        drawings.append(Drawing(f"compare-{slug(score)}", figures.svg(plot.figure), plot.caption))
    return drawings


def _text(content: Mapping[str, Any]) -> str:
    labels, blocks = content["labels"], []
    summary = [
        [label, each["identity"], each["data"]]
        for label, each in zip(labels, content["summaries"], strict=True)
    ]
    blocks.append(text_table(["run", "identity", "data"], summary))
    blocks += [f"note: {warning}" for warning in content["warnings"]]
    letters = [label.split(" ")[0] for label in labels]
    if content["settings"]:
        rows = [[key, *values] for key, values in content["settings"].items()]
        blocks.append(text_table(["setting", *letters], rows))
    else:
        blocks.append("All settings are equal.")
    rows = [
        [
            f"{row['name']} {row['arrow']}".strip(),
            row["unit"],
            *map(_words, row["cells"], row["standing"]),
        ]
        for row in content["metrics"]
    ]
    blocks.append(text_table(["metric", "unit", *letters], rows))
    return "\n\n".join(blocks) + "\n"


def _words(cell: Mapping[str, str] | None, standing: str) -> str:
    if cell is None:
        return ""
    interval = f" [{cell['interval']}]" if cell["interval"] else ""
    return f"{cell['value']}{interval}" + (f" {standing}" if standing else "")
