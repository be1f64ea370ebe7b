"""The record that the rest of the system knows this domain by."""

from __future__ import annotations

from pathlib import Path

from core.contract import Domain
from domains.series import cli, data, metrics, model, plots
from domains.series.cli.examples import examples
from domains.series.config import CONFIG, Config
from domains.series.model import SeriesModel


def finish(config: Config, folder: Path, chosen: SeriesModel) -> None:
    """Fit what is fitted once training has ended, on every train window."""
    train = data.batches(config, folder, "train")
    chosen.finish(train.batch(0, index) for index in range(len(train)))


DOMAIN: Domain[Config, data.Windows, SeriesModel] = Domain(
    name="series",
    config=CONFIG,
    prepare=data.prepare,
    batches=data.batches,
    model=model.build,
    validate=metrics.validate,
    metrics=metrics.metrics,
    plots=plots.plots,
    examples=examples,
    verbs=cli.VERBS,
    finish=finish,
)
