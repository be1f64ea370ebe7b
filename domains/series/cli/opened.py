"""A trained run as the verbs need it, and files that are read to go with it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from core.runtime import folder, stages
from core.runtime.config import load_settings, read_domain
from core.runtime.errors import UserError, did_you_mean
from core.runtime.order import derive
from core.variational.diagnostics import looking_at
from domains.series.cli.tables import with_values
from domains.series.config import CONFIG, Config
from domains.series.data import Clock, Dataset, Panel, Windows, load, read_panel
from domains.series.model import SeriesModel, build

Array = NDArray[np.float64]
KINDS = {"datetime": "has dates", "number": "has numbers as times", "index": "has no times"}


@dataclass(frozen=True, eq=False)
class Trained:
    """A trained model with its data.

    Args:
        config: The settings.
        data: Folder of the prepared data.
        dataset: What that holds.
        model: With the chosen weights.
    """

    config: Config
    data: Path
    dataset: Dataset
    model: SeriesModel

    @contextmanager
    def looking(self, seed: int | None, purpose: str) -> Iterator[None]:
        """Look at the model on a random stream that the seed (or the run's) and purpose name."""
        chosen = self.config.seed if seed is None else seed
        with looking_at(self.model, derive(chosen, purpose)):
            yield

    @property
    def panel(self) -> Panel:
        """Its own series, without the values that are hidden from every model."""
        panel = self.dataset.panel
        masks = zip(panel.series, self.dataset.hidden, strict=True)
        return with_values(panel, [np.where(mask, np.nan, one.values) for one, mask in masks])

    @property
    def steps(self) -> Clock:
        """The clock of times that are counted in steps."""
        clock = self.dataset.panel.clock
        return replace(clock, kind="index") if self.dataset.spacing == "rows" else clock

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return next((each.device for each in self.model.parameters()), torch.device("cpu"))

    def predict(self, batch: Windows, samples: int) -> Array:
        """Draw every value given those seen, scaled: ``(sample, window, time, channel)``."""
        drawn = self.model.predict(batch.to(self.device), samples)
        return drawn.cpu().double().numpy()

    def read(self, path: Path, label: str | None = None) -> Panel:
        """Read another file of the same channels, in the run's order."""
        known = self.dataset.panel
        own = self.config.data
        options = own.model_copy(
            update={"source": "file", "path": str(path), "values": None, "label": label}
        )
        return matching(read_panel(path, options), known, path)


def open_run(reference: str, runs: Path) -> Trained:
    """Open a run that has been trained to its end.

    Raises:
        UserError: If there is none, it is of another domain, or its training has not ended.
    """
    run = folder.locate(reference, runs)
    named = read_domain(run / "settings.yaml")
    if named != "series":
        raise UserError(f"{run}: is a run of domain {named!r}; expected one of 'series'")
    config = load_settings(CONFIG, run / "settings.yaml")
    folder.require(run, stages.CARD, "series ingest")
    stages.best_checkpoint(config, run)
    if not stages.trained(run):
        raise UserError(f"{run}: training is not at its end; first run: latentworks resume {run}")
    model = stages.with_best_weights(build, config, run)
    return Trained(config, run / "data", load(run / "data"), model)


def matching(panel: Panel, known: Panel, path: Path) -> Panel:
    """The channels that a run knows, in its order.

    Raises:
        UserError: If one is missing, or the times are of another kind.
    """
    missing = [name for name in known.channels if name not in panel.channels]
    if missing:
        hint = did_you_mean(missing[0], panel.channels) if len(missing) == 1 else ""
        raise UserError(
            f"{path}: no channel {', '.join(map(repr, missing[:5]))}{hint}; the run was trained "
            f"on {', '.join(known.channels)}"
        )
    if panel.clock.kind != known.clock.kind:
        raise UserError(
            f"{path}: {KINDS[panel.clock.kind]}; the run was trained on a file with "
            f"{KINDS[known.clock.kind].removeprefix('has ')}, without which it cannot tell how "
            "far apart two rows are"
        )
    places = [panel.channels.index(name) for name in known.channels]
    return replace(
        panel,
        series=tuple(replace(one, values=one.values[:, places]) for one in panel.series),
        channels=known.channels,
        dtypes=tuple(panel.dtypes[place] for place in places),
    )


KINDS = {"datetime": "has dates", "number": "has numbers as times", "index": "has no times"}
