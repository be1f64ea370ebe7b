"""The metrics of a run: each with its interval, protocol, floors and number of examples."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from core.contract import Metric
from domains.series.config import Config
from domains.series.data import load
from domains.series.metrics.detection import detection_metrics
from domains.series.metrics.generation import generation_metrics, valid_correlation
from domains.series.metrics.prediction import prediction_metrics, quick_errors
from domains.series.model import SeriesModel


def validate(config: Config, folder: Path, model: SeriesModel) -> Mapping[str, float]:
    """Cheap scores on the validation windows; all are better when lower.

    ``mae``, ``rmse`` and ``crps`` of predicted targets from few draws; for task ``generate``
    ``correlation``, the correlational score of 1,000 generated windows.
    """
    dataset = load(folder)
    if config.task.kind == "generate":
        return {"correlation": valid_correlation(config, dataset, model)}
    return quick_errors(config, dataset, model)


def metrics(config: Config, folder: Path, model: SeriesModel) -> Mapping[str, Metric]:
    """Everything that is reported of the test windows."""
    dataset = load(folder)
    found: dict[str, Metric] = {}
    if config.task.kind == "generate":
        found |= generation_metrics(config, dataset, model)
        if config.data.hide.kind != "none":
            found |= prediction_metrics(config, dataset, model, "imputation_")
    else:
        found |= prediction_metrics(config, dataset, model)
    return found | detection_metrics(config, dataset, model)
