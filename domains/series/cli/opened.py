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
from core.runtime.errors import UserError
from core.runtime.order import derive
from core.variational.diagnostics import looking_at
from domains.series.cli.tables import with_values
from domains.series.config import CONFIG, Config
from domains.series.data import Clock, Dataset, Panel, Windows, load, read_input
from domains.series.data.unseen import of_channels
from domains.series.model import SeriesModel, build


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
        by_row = self.dataset.spacing == "rows"
        return replace(clock, kind="index", interval=1.0) if by_row else clock

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return next((each.device for each in self.model.parameters()), torch.device("cpu"))

    def predict(self, batch: Windows, samples: int) -> NDArray[np.float32]:
        """Draw every value given those seen, scaled: ``(sample, window, time, channel)``."""
        drawn = self.model.predict(batch.to(self.device), samples)
        return drawn.cpu().numpy()

    def read(self, path: Path, label: str | None = None) -> Panel:
        """Read another file; its channels are the run's and maybe others.

        Raises:
            UserError: If it cannot be read or is not of the run's kind.
        """
        options = {"source": "file", "path": str(path), "values": None, "label": label}
        panel = read_input(path, self.config.data.model_copy(update=options))
        self.own_channels(panel, path)
        return panel

    def own(self, path: Path | None, label: str | None = None) -> Panel:
        """Its own series, or the run's channels of another file."""
        if path is None:
            return self.panel
        return self.own_channels(self.read(path, label), path)

    def own_channels(self, panel: Panel, path: Path) -> Panel:
        """The run's channels of a panel, in its order.

        Raises:
            UserError: If one is missing, or the times are of another kind.
        """
        timed = self.dataset.spacing == "clock" and self.dataset.panel.clock.kind != "index"
        if timed and panel.clock.kind == "index":
            raise UserError(
                f"{path}: has no times; the run was trained on series with times, without which "
                "it cannot tell how far apart two rows are; add the column"
            )
        return of_channels(panel, self.dataset, str(path))


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
