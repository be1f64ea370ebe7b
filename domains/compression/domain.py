"""The record that the rest of the system knows this domain by."""

from __future__ import annotations

from core.contract import Domain
from domains.compression import cli, data, metrics, model, plots
from domains.compression.cli.examples import examples
from domains.compression.config import CONFIG, Config
from domains.compression.data import Images
from domains.compression.model import ImageModel

DOMAIN: Domain[Config, Images, ImageModel] = Domain(
    name="compression",
    config=CONFIG,
    prepare=data.prepare,
    batches=data.batches,
    model=model.build,
    validate=metrics.validate,
    metrics=metrics.metrics,
    plots=plots.plots,
    examples=examples,
    verbs=cli.VERBS,
)
