"""What a file of series holds, in numbers and for people."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from domains.series.data.checks import (
    STEADY,
    irregularity,
    pooled,
    problems,
    remarks,
    suspected_codes,
)
from domains.series.data.records import Array, Clock, Panel, Series
from domains.series.data.seasons import season
from domains.series.data.times import format_times, span

CRITICAL = -2.86  # Dickey-Fuller with a constant, 5 %, long series (MacKinnon, 2010)
GAP = 1.5  # times the usual interval is a gap
ROWS = 20_000  # of a series that the test looks at, at most
SHOWN = 12  # series that the text shows
ENOUGH = 50  # rows for the test to say anything
KINDS = ("times", "numbers", "channels", "frequency")


def describe(panel: Panel, path: Path | None = None) -> dict[str, Any]:
    """Describe a panel in plain numbers, words and None, as JSON has them.

    Args:
        panel: As read, even with what a model could not learn from (`read_unchecked`).
        path: The file, for the places in ``problems``.

    Returns:
        ``clock``, ``series`` (rows, start, end, interval, gaps …), ``channels`` (missing share,
        range, codes, stationarity, season …), ``notes``, and ``problems`` that training would
        refuse.
    """
    return {
        "clock": {
            "kind": panel.clock.kind,
            "column": panel.clock.column,
            "zone": panel.clock.zone,
            "form": panel.clock.form,
            "interval": panel.clock.interval,
        },
        "identifier": panel.identifier,
        "label": panel.label,
        "rows": sum(len(one.times) for one in panel.series),
        "series": [_series(one, panel.clock) for one in panel.series],
        "channels": _channels(panel),
        "notes": list(dict.fromkeys([*panel.notes, *remarks(panel)])),
        "problems": list(problems(panel, path or Path("data"), KINDS)),
    }


# Series


def _series(series: Series, clock: Clock) -> dict[str, Any]:
    steps = np.diff(series.times)
    forward = steps[steps > 0]
    usual = float(np.median(forward)) if len(forward) else None
    first, last = format_times(clock, series.times[[0, -1]])
    known = None if series.label is None else int(series.label.sum())
    return {
        "name": series.name,
        "rows": len(series.times),
        "start": first,
        "end": last,
        "interval": usual,
        "regular": None if usual is None else irregularity(forward) <= 1 - STEADY,
        "shortest": float(forward.min()) if len(forward) else None,
        "longest": float(forward.max()) if len(forward) else None,
        "spread": float(np.std(forward) / forward.mean()) if len(forward) else None,
        "gaps": _gaps(series.times, usual, clock),
        "duplicates": int((steps == 0).sum()),
        "backward": int((steps < 0).sum()),
        "missing": float(np.isnan(series.values).mean()),
        "anomalous_rows": known,
    }


def _gaps(times: Array, usual: float | None, clock: Clock) -> dict[str, Any]:
    """Stretches without a row that are longer than the usual interval."""
    steps = np.diff(times)
    wide = np.flatnonzero(steps > GAP * usual) if usual else np.zeros(0, dtype=int)
    if not len(wide):
        return {"count": 0, "longest": None, "after": None}
    longest = int(wide[steps[wide].argmax()])
    return {
        "count": len(wide),
        "longest": float(steps[longest]),
        "after": format_times(clock, times[[longest]])[0],
    }


# Channels


def _channels(panel: Panel) -> list[dict[str, Any]]:
    values = pooled(panel)
    longest = max(panel.series, key=lambda one: len(one.times))
    names = zip(panel.channels, panel.dtypes, strict=True)
    return [
        {"name": name, "dtype": dtype}
        | _distribution(values[:, place])
        | {"codes": [_code(*found) for found in suspected_codes(values[:, place])]}
        | _dynamics(longest.values[:, place])
        for place, (name, dtype) in enumerate(names)
    ]


def _code(value: float, count: int) -> dict[str, Any]:
    return {"value": value, "count": count}


def _distribution(values: Array) -> dict[str, Any]:
    known = values[np.isfinite(values)]
    few = {"missing": float(np.isnan(values).mean()), "infinite": int(np.isinf(values).sum())}
    if not len(known):
        return few | dict.fromkeys(("min", "mean", "max", "std")) | {"constant": True}
    return few | {
        "min": float(known.min()),
        "mean": float(known.mean()),
        "max": float(known.max()),
        "std": float(known.std()),
        "constant": bool(known.min() == known.max()),
    }


def _dynamics(values: Array) -> dict[str, Any]:
    """How the longest series moves: its trend, whether it wanders, its season."""
    filled = _interpolated(values[-ROWS:])
    if filled is None:
        return {"trend": None, "unit_root": None, "season": None}
    return {
        "trend": trend_share(filled),
        "unit_root": unit_root(filled) if len(filled) >= ENOUGH else None,
        "season": season(np.where(np.isfinite(values), values, np.nan)[-ROWS:, None]) or None,
    }


def _interpolated(values: Array) -> Array | None:
    """Without gaps, if there is enough to look at."""
    known = np.flatnonzero(np.isfinite(values))
    if len(known) < 20 or np.ptp(values[known]) == 0:
        return None
    return np.interp(np.arange(known[0], known[-1] + 1), known, values[known])


def trend_share(values: Array) -> float:
    """Return the share of the variance that a straight line over the rows explains.

    Example:
        >>> round(trend_share(np.arange(50.0)), 6)
        1.0
    """
    time = np.linspace(-1, 1, len(values))
    return float(np.corrcoef(time, values)[0, 1] ** 2)


def unit_root(values: Array) -> dict[str, Any]:
    r"""Test whether a series wanders without a level that it comes back to.

    The augmented Dickey-Fuller test: the *t* value of :math:`\gamma` in

    .. math:: \Delta x_t = \alpha + \gamma x_{t-1} + \sum_{i=1}^{p} \delta_i \Delta x_{t-i} + e_t

    with :math:`p = \lfloor (n - 1)^{1/3} \rfloor`. Below the critical value the series comes back.
    A trend or a change of level looks like wandering to it.

    References:
        Said and Dickey, "Testing for unit roots in autoregressive-moving average models of unknown
        order", Biometrika 71, 1984.

    Returns:
        ``statistic``, the ``critical`` value at 5 %, how many ``lags``, and ``returns``: whether
        it comes back.
    """
    scaled = (values - values.mean()) / values.std()
    changes = np.diff(scaled)
    lags = min(int((len(values) - 1) ** (1 / 3)), (len(changes) - 3) // 3)
    target = changes[lags:]
    columns = [np.ones(len(target)), scaled[lags:-1]]
    columns += [changes[lags - lag : len(changes) - lag] for lag in range(1, lags + 1)]
    design = np.stack(columns, axis=1)
    # the pseudo-inverse, as changes of a straight line are all alike
    inverse = np.linalg.pinv(design.T @ design, hermitian=True)
    weights = inverse @ design.T @ target
    left = target - design @ weights
    error = math.sqrt(max(left @ left / max(len(target) - len(weights), 1) * inverse[1, 1], 0))
    statistic = (
        float(weights[1] / error) if error > 1e-12 else -math.inf if weights[1] < 0 else 0.0
    )
    return {
        "statistic": statistic if math.isfinite(statistic) else None,
        "critical": CRITICAL,
        "lags": lags,
        "returns": statistic < CRITICAL,
    }


# For people


def describe_text(description: Mapping[str, Any]) -> str:
    """Write a description as a compact table."""
    clock, series = description["clock"], description["series"]
    parts = [_head(description), "", *_series_table(series, clock), ""]
    parts += _channel_table(description["channels"], clock)
    for name in ("problems", "notes"):
        if description[name]:
            parts += ["", f"{name}:", *(f"  {line}" for line in description[name])]
    return "\n".join(parts)


def _head(description: Mapping[str, Any]) -> str:
    clock, count = description["clock"], len(description["series"])
    named = f" named by {description['identifier']!r}" if description["identifier"] else ""
    channels = len(description["channels"])
    words = [
        f"{count} series{named}",
        f"{channels} channel{'s' if channels != 1 else ''}",
        f"{description['rows']:,} rows",
    ]
    zone = f", zone {clock['zone']}" if clock["zone"] else ""
    kinds = {"datetime": f"times in {clock['column']!r}{zone}", "index": "no times"}
    words.append(kinds.get(clock["kind"], f"times in {clock['column']!r} (numbers)"))
    if clock["kind"] != "index":
        words.append(f"usually {span(clock['interval'], clock['kind'])} apart")
    if description["label"]:
        words.append(f"labels in {description['label']!r}")
    return ", ".join(words)


def _series_table(series: Sequence[Mapping[str, Any]], clock: Mapping[str, Any]) -> list[str]:
    kind = clock["kind"]
    if kind == "index":
        plain = [
            [one["name"] or "–", f"{one['rows']:,}", _percent(one["missing"])] for one in series
        ]
        return _cut([["series", "rows", "missing"], *plain])
    head = [
        "series",
        "rows",
        "start",
        "end",
        "interval",
        "regular",
        "gaps",
        "longest gap",
        "missing",
    ]
    rows = [
        [
            one["name"] or "–",
            f"{one['rows']:,}",
            str(one["start"]),
            str(one["end"]),
            span(one["interval"], kind),
            {True: "yes", False: "no", None: ""}[one["regular"]],
            f"{one['gaps']['count']:,}",
            _longest(one["gaps"], kind),
            _percent(one["missing"]),
        ]
        for one in series
    ]
    return _cut([head, *rows])


def _cut(rows: Sequence[Sequence[str]]) -> list[str]:
    """The first rows of a table of series, and how many more there are."""
    left = len(rows) - 1 - SHOWN
    return [*_aligned(rows[: SHOWN + 1], 1), *([f"… and {left:,} more"] if left > 0 else [])]


def _longest(gaps: Mapping[str, Any], kind: str) -> str:
    return f"{span(gaps['longest'], kind)} after {gaps['after']}" if gaps["count"] else ""


def _channel_table(channels: Sequence[Mapping[str, Any]], clock: Mapping[str, Any]) -> list[str]:
    head = ["channel", "dtype", "missing", "min", "mean", "max", "std", "trend", "level", "season"]
    rows = [
        [
            one["name"],
            one["dtype"],
            _percent(one["missing"]),
            *(_number(one[key]) for key in ("min", "mean", "max", "std")),
            "" if one["trend"] is None else f"{one['trend']:.0%}",
            _level(one["unit_root"]),
            _season(one["season"], clock),
        ]
        for one in channels
    ]
    return _aligned([head, *rows], 2)


def _level(test: Mapping[str, Any] | None) -> str:
    return "" if test is None else "returns" if test["returns"] else "wanders"


def _season(rows: int | None, clock: Mapping[str, Any]) -> str:
    if rows is None:
        return ""
    if clock["kind"] != "datetime":
        return f"{rows} rows"
    return f"{rows} rows ({span(rows * clock['interval'], 'datetime')})"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _percent(share: float) -> str:
    return "0 %" if share == 0 else f"{100 * share:.2g} %"


def _aligned(rows: Sequence[Sequence[str]], words: int) -> list[str]:
    """Columns of equal width; the first ones, words, to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if place < words else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
