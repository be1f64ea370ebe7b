"""New series from a model, with the names, units and time stamps of the data."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from core.runtime.errors import UserError
from core.runtime.progress import Progress
from domains.series.cli.covering import chunks
from domains.series.cli.opened import Trained
from domains.series.cli.stamps import new_times
from domains.series.cli.tables import rounded
from domains.series.data import Panel, Series

STEPWISE = ("koopman-vae-paper", "process-vae")


def generate(
    opened: Trained, count: int, start: str | None = None, length: int | None = None
) -> Panel:
    """Draw new windows as series of a panel.

    Args:
        opened: The run.
        count: How many.
        start: Time of their first row; None for the day after the data's end.
        length: Rows of each; None for those of the run's windows.

    Raises:
        UserError: If the model cannot generate, or not at that length.
    """
    panel, clock = opened.dataset.panel, opened.dataset.panel.clock
    rows = opened.dataset.window if length is None else length
    _refuse_other_length(opened, rows)
    values = rounded(opened.dataset.scaler.invert(_drawn(opened, count, rows)), panel.dtypes)
    latest = max(panel.series, key=lambda one: one.times[-1])
    times = new_times(clock, start, latest.times, rows)
    digits = len(str(count - 1))
    series = tuple(Series(f"{k:0{digits}d}", times, values[k]) for k in range(count))
    identifier = panel.identifier or free_name("series", (*panel.channels, clock.column))
    columns = {} if identifier != panel.identifier else panel.columns
    return replace(
        panel, series=series, columns=columns, identifier=identifier, notes=(), label=""
    )


def free_name(wanted: str, taken: tuple[str, ...]) -> str:
    """A name that is not taken.

    Example:
        >>> free_name("series", ("price", "series"))
        'series_'
    """
    while wanted in taken:
        wanted += "_"
    return wanted


def _refuse_other_length(opened: Trained, rows: int) -> None:
    """Only a model that goes step by step, or whose prior is a process, knows other lengths."""
    config, window = opened.config, opened.dataset.window
    if rows == window or config.model.kind in STEPWISE or config.prior.kind == "linear-dynamics":
        return
    raise UserError(
        f"--length: got {rows}; model.kind {config.model.kind!r} generates windows of {window} "
        f"rows, as it was trained on; leave it out, or train with data.window={rows}"
    )


def _drawn(opened: Trained, count: int, rows: int) -> np.ndarray:
    """Draw scaled windows, a part of them at a time."""
    model, channels = opened.model, len(opened.dataset.channels)
    parts = []
    with Progress("generating", count) as progress:
        for part in chunks(np.arange(count), rows * channels * 16):
            times = torch.arange(rows, dtype=torch.float32).expand(len(part), rows)
            try:
                parts.append(model.draw_windows(times.to(opened.device)).cpu().double().numpy())
            except NotImplementedError as error:
                kind = opened.config.model.kind
                raise UserError(f"generate: model.kind {kind!r}: {error}") from error
            progress.show(int(part[-1]) + 1, {})
    return np.concatenate(parts)
