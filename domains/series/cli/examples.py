"""What a finished run shows of itself, in files."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import torch

from core.runtime.errors import UserError
from core.runtime.folder import write_json
from domains.series import data
from domains.series.cli import forecasts, modes
from domains.series.cli.draws import central, quantiles
from domains.series.cli.generated import free_name, generate
from domains.series.cli.opened import Trained
from domains.series.cli.tables import beside, rounded
from domains.series.config import Config
from domains.series.data import Panel, Series, Windows
from domains.series.model import SeriesModel
from domains.series.plots.drawing import spread

GENERATED, IMPUTED = 100, 20  # windows shown
SAMPLES, INTERVAL = 100, 0.9
COLUMNS = ("", "lower", "upper", "truth")


def examples(config: Config, folder: Path, model: SeriesModel, out: Path) -> None:
    """Write generated windows, imputed ones of the test split, forecasts and the spectrum.

    ``generated.csv``: new windows. ``imputed.csv``: test windows; what the task hides is filled,
    beside it lower, upper and the truth. ``forecasts.csv``: the rows after the end of each series.
    ``spectrum.json``: the modes. What a model or a task has not is left out.
    """
    opened = Trained(config, folder, data.load(folder), model)
    out.mkdir(parents=True, exist_ok=True)
    with suppress(UserError):  # a model that cannot generate
        data.write_panel(out / "generated.csv", generate(opened, GENERATED))
    filled = None if config.task.kind == "forecast" else imputed(opened)
    if filled is not None:
        data.write_panel(out / "imputed.csv", filled)
    horizon = config.task.horizon if config.task.kind == "forecast" else opened.dataset.window // 2
    shown = replace(opened.panel, series=opened.panel.series[:GENERATED])
    future = forecasts.forecast(opened, shown, horizon, SAMPLES, INTERVAL)
    data.write_panel(out / "forecasts.csv", future)
    train = data.batches(config, folder, "train")
    found = model.spectrum(train.batch(0, index).to(opened.device) for index in range(len(train)))
    if found is not None:
        write_json(out / "spectrum.json", modes.described(found, opened.steps))


def imputed(opened: Trained) -> Panel | None:
    """Test windows with what is hidden in them found again; None where nothing is hidden.

    Each channel holds the given values and the medians of the others; beside it their lower,
    upper and, where it is known, the truth.
    """
    every = data.every_window(opened.dataset, "test", opened.config)
    batch = _some(every, spread(len(every), IMPUTED))
    seen, known = batch.seen.numpy(), batch.known.numpy()
    if not (known & ~seen).any():
        return None
    panel, window = opened.dataset.panel, opened.dataset.window
    drawn = opened.predict(batch, SAMPLES)
    median, low, high = rounded(
        opened.dataset.scaler.invert(quantiles(drawn, central(INTERVAL))), panel.dtypes
    )
    series, columns = [], []
    for place, origin in enumerate(batch.origin):
        one = _window(panel, place, origin, window)
        unseen, hidden = (each[place, : len(one.times)] for each in (~seen, known & ~seen))
        parts = (each[place, : len(one.times)] for each in (median, low, high))
        middle, *ends = (np.where(unseen, each, np.nan) for each in parts)
        truth = np.where(hidden, one.values, np.nan)
        columns.append(np.stack([np.where(unseen, middle, one.values), *ends, truth]))
        series.append(one)
    identifier = panel.identifier or free_name("series", (*panel.channels, panel.clock.column))
    windows = replace(panel, series=(*series,), identifier=identifier, notes=(), label="")
    return beside(windows, columns, COLUMNS)


def _some(every: Windows, places: np.ndarray) -> Windows:
    chosen = torch.from_numpy(places)
    return Windows(*(getattr(every, each.name)[chosen] for each in fields(every)))


def _window(panel: Panel, place: int, origin: torch.Tensor, rows: int) -> Series:
    """The rows of a window, under a name that says where they are from."""
    number, first = (int(each) for each in origin)
    one = panel.series[number]
    chosen = slice(first, first + rows)
    name = f"{one.name} row {first}".strip()
    return Series(f"{place:02d} {name}", one.times[chosen], one.values[chosen])
