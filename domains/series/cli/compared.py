"""Score generated series in a file against real ones in another."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.runtime.errors import UserError, did_you_mean
from core.runtime.folder import say
from core.runtime.order import derive, generator
from core.runtime.statistics import t_interval
from domains.series.cli.tables import with_values
from domains.series.config import Data
from domains.series.data import Panel, read_panel
from domains.series.metrics.judges import discriminate, predict
from domains.series.metrics.similarity import (
    autocorrelation_distance,
    correlational_score,
    marginal_distance,
    memorisation,
)
from domains.series.metrics.strict import strict_discriminative

Array = NDArray[np.float64]
FEWEST = 50
MOST = 10_000
Scores = Iterator[tuple[str, dict[str, Any]]]


@dataclass(frozen=True, eq=False)
class Both:
    """Windows to compare, ``(window, time, channel)``, in the range of the real ones: 0 to 1.

    Args:
        real: Of one file.
        generated: Of the other, as many.
        channels: Their names.
    """

    real: Array
    generated: Array
    channels: tuple[str, ...]


def read_both(real: Path, generated: Path, window: int | None) -> Both:
    """Read two files of the same channels as windows of the same length.

    Args:
        real: Series, or windows as series of one length.
        generated: Likewise.
        window: Rows of a window; None for those of the shortest generated series.

    Raises:
        UserError: If channels differ, values are missing, or there are too few windows.
    """
    true, made = (
        read_panel(path, Data(source="file", path=str(path))) for path in (real, generated)
    )
    _same_channels(true, made, generated)
    rows = window or min(len(one.times) for one in made.series)
    windows = windows_of(true, rows, real), windows_of(_ordered(made, true), rows, generated)
    low, high = (
        bound(windows[0].reshape(-1, windows[0].shape[2]), 0) for bound in (np.min, np.max)
    )
    span = np.where(high > low, high - low, 1)
    count = min(len(windows[0]), len(windows[1]), MOST)
    first, second = (_thinned((each - low) / span, count) for each in windows)
    return Both(first, second, true.channels)


def windows_of(panel: Panel, rows: int, path: Path) -> Array:
    """Every window of consecutive rows of every series.

    Raises:
        UserError: If a value is missing, or there are fewer than 50 windows.
    """
    found = []
    for one in panel.series:
        if np.isnan(one.values).any():
            row, channel = np.argwhere(np.isnan(one.values))[0]
            raise UserError(
                f"{path}: {panel.channels[channel]!r} is missing in row {row} of "
                f"{'series ' + repr(one.name) if one.name else 'the series'}; judges need whole "
                "windows: impute them first"
            )
        if len(one.values) >= rows:
            cut = np.lib.stride_tricks.sliding_window_view(one.values, rows, axis=0)
            found.append(cut.transpose(0, 2, 1))
    count = sum(map(len, found))
    if count < FEWEST:
        raise UserError(f"{path}: {count} windows of {rows} rows; scores need {FEWEST} or more")
    return np.concatenate(found)


def _same_channels(true: Panel, made: Panel, path: Path) -> None:
    missing = [name for name in true.channels if name not in made.channels]
    extra = [name for name in made.channels if name not in true.channels]
    if missing or extra:
        name = (missing or extra)[0]
        hint = did_you_mean(name, made.channels if missing else true.channels)
        raise UserError(
            f"{path}: {'no channel' if missing else 'a channel of its own,'} {name!r}{hint}; both "
            "files must have the same channels"
        )


def _ordered(made: Panel, true: Panel) -> Panel:
    places = [made.channels.index(name) for name in true.channels]
    values = [one.values[:, places] for one in made.series]
    return with_values(made, values, channels=true.channels)


def _thinned(windows: Array, count: int) -> Array:
    return windows[np.linspace(0, len(windows) - 1, count).round().astype(int)]


def compare(both: Both, protocol: str, judges: int, seed: int) -> dict[str, Any]:
    """The scores of a protocol with their floors, as JSON."""
    seeds = [derive(seed, "judge", number) for number in range(judges)]
    parts = dict(_timegan(both, seeds, seed))
    if protocol == "strict":
        parts |= dict(_strict(both, seeds, seed))
    return {
        "protocol": protocol,
        "judges": judges,
        "windows": len(both.real),
        "rows": both.real.shape[1],
        "channels": list(both.channels),
        "scores": parts,
    }


def text(found: Mapping[str, Any]) -> str:
    """The same for a person."""
    head = f"{found['windows']} windows of {found['rows']} rows, {found['judges']} judges"
    lines = [f"{head} ({found['protocol']})", f"{'':<28}{'score':>8}  {'± sd':>8}  floor"]
    for name, score in found["scores"].items():
        if score["value"] is None:
            lines.append(f"{name.replace('_', ' '):<28}{'–':>8}  {score['reason']}")
            continue
        spread = f"± {score['sd']:.4f}" if score["sd"] is not None else ""
        floor = "" if score["floor"] is None else f"{score['floor']:.4f}"
        between = (
            ""
            if score["interval"] is None
            else "  95 %: {:.4f} to {:.4f}".format(*score["interval"])
        )
        lines.append(
            f"{name.replace('_', ' '):<28}{score['value']:>8.4f}  {spread:>8}  {floor}{between}"
        )
    return "\n".join(lines)


def _judged(by_rival: Array) -> dict[str, Any]:
    """Scores of judges, and what a copy of the real windows gets from the same ones."""
    own, floor = by_rival
    return {
        "value": float(own.mean()),
        "sd": float(own.std(ddof=1)),
        "interval": list(t_interval(own)),
        "floor": float(floor.mean()),
        "floor_sd": float(floor.std(ddof=1)),
    }


def _measured(distance: Callable[[Array, Array], float], both: Both, seed: int) -> dict[str, Any]:
    """A distance, and that of as many real windows drawn anew from the real ones."""
    again = generator(seed, "resampled").integers(len(both.real), size=len(both.real))
    return {
        "value": float(distance(both.real, both.generated)),
        "sd": None,
        "interval": None,
        "floor": float(distance(both.real, both.real[again])),
    }


def _timegan(both: Both, seeds: list[int], seed: int) -> Scores:
    real, rivals = both.real.clip(0, 1), [each.clip(0, 1) for each in (both.generated, both.real)]
    say(f"discriminative score: {len(seeds)} judges, and as many for its floor")
    yield "discriminative_score", _judged(discriminate(real, rivals, seeds))
    if len(both.channels) < 2:
        reason = "1 channel: it predicts the last channel from the others"
        yield "predictive_score", {"value": None, "reason": reason}
    else:
        say(f"predictive score: {len(seeds)} predictors, and as many for its floor")
        yield "predictive_score", _judged(predict(real, rivals, seeds))
    yield "correlational_score", _measured(correlational_score, both, seed)


def _strict(both: Both, seeds: list[int], seed: int) -> Scores:
    say(f"strict judges: {len(seeds)}, and as many for their floor")
    areas = [
        [strict_discriminative(both.real, rival, each).auc for each in seeds]
        for rival in (both.generated, both.real)
    ]
    yield "strict_auc", _judged(np.array(areas))
    yield "marginal_distance", _measured(marginal_distance, both, seed)
    yield "autocorrelation_distance", _measured(autocorrelation_distance, both, seed)
    ratio = memorisation(both.real, both.generated)  # of distances: 1 is real to real
    yield "nearest_neighbour_ratio", {"value": ratio, "sd": None, "interval": None, "floor": None}
