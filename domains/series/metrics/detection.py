"""What is reported of labelled anomalies: whether the model's surprise finds them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from core.contract import Metric
from core.runtime.order import derive
from core.variational.diagnostics import looking_at
from domains.series.config import Config
from domains.series.data import Dataset, WindowBatches, Windows
from domains.series.metrics.anomalies import (
    SLACK,
    average_precision,
    hit,
    judged_by_the_rest,
    row_scores,
)
from domains.series.metrics.baselines import gaussian
from domains.series.metrics.prediction import DRAWN_AT_A_TIME, NORMAL, samples_of
from domains.series.metrics.windows import some_windows, taken
from domains.series.model import SeriesModel

Array = NDArray[np.float64]
Labels = NDArray[Any]
Scores = tuple[Array, Array]

OVERLAP = 4  # windows that most rows are scored in
DETECTED = "Labelled anomalies"


def detection_metrics(config: Config, dataset: Dataset, model: SeriesModel) -> dict[str, Metric]:
    """AUC-PR and hits of the surprise of the test rows, where there are labels; else nothing."""
    labels = [one.label for one in dataset.panel.series]
    if any(label is None for label in labels):
        return {}
    scored = [scored_rows(config, dataset, model, place) for place in range(len(labels))]
    truth = [np.asarray(label) for label in labels]
    return _precision(truth, scored) | _hits(truth, scored)


def _precision(truth: list[Labels], scored: list[Scores]) -> dict[str, Metric]:
    """AUC-PR over the scored rows of all series."""
    own, normal = (np.concatenate([each[part] for each in scored]) for part in (0, 1))
    known = np.isfinite(own)
    labels = np.concatenate(truth)[known]
    if not 0 < labels.sum() < len(labels):
        return {}
    metric = Metric(
        value=average_precision(labels, own[known]),
        unit="",
        direction="higher",
        n=len(labels),
        method=f"{labels.sum()} of {len(labels):,} test rows are labelled; score: surprise in "
        "nats of scaled values, mean over a row; not point-adjusted",
        floors={
            "random": float(labels.mean()),
            NORMAL: average_precision(labels, normal[known]),
        },
        ceiling=1.0,
        group=DETECTED,
    )
    return {"auc_pr": metric}


def _hits(truth: list[Labels], scored: list[Scores]) -> dict[str, Metric]:
    """The share of series whose highest score is in or near a labelled stretch."""
    found = []
    for labels, (own, normal) in zip(truth, scored, strict=True):
        known = np.isfinite(own)
        labels = np.where(known, labels, 0)
        if labels.any():
            found.append((hit(labels, own), hit(labels, normal), _near(labels)[known].mean()))
    if not found:
        return {}
    own, normal, random = np.mean(found, axis=0)
    metric = Metric(
        value=float(own),
        unit="",
        direction="higher",
        n=len(found),
        method=f"share of series whose most surprising row is within {SLACK} rows of an anomaly",
        floors={"random": float(random), NORMAL: float(normal)},
        ceiling=1.0,
        group=DETECTED,
    )
    return {"hit": metric}


def _near(labels: Labels) -> NDArray[np.bool_]:
    """Which rows would be a hit."""
    kernel = np.ones(2 * SLACK + 1)
    full = np.convolve(labels.astype(np.float64), kernel)
    return full[SLACK : SLACK + len(labels)] > 0.5


def scored_rows(config: Config, dataset: Dataset, model: SeriesModel, place: int) -> Scores:
    """Score the test rows of a series: by the model, and by each channel's Normal.

    Args:
        config: The settings.
        dataset: The prepared series.
        model: A trained model.
        place: Which series.

    Returns:
        Nats per value of each row, NaN for one that is not judged.
    """
    count, starts = len(dataset.panel.series[place].times), _thinned(config, dataset)
    chosen = starts[starts[:, 0] == place]
    if not len(chosen):
        return np.full(count, np.nan), np.full(count, np.nan)
    windows = WindowBatches(dataset, "test", config).evaluated(chosen)
    surprise, judged = _surprise(config, model, windows)
    normal = gaussian([some_windows(config, dataset, "train")])
    trivial = normal.surprise(windows.values.double()).numpy()
    own, other = (row_scores(each, judged, chosen[:, 1], count) for each in (surprise, trivial))
    return own, other


def _thinned(config: Config, dataset: Dataset) -> NDArray[np.int64]:
    """Test windows, so many that each row is in a few."""
    task: Any = config.task
    span = task.horizon if task.kind == "forecast" else dataset.window
    starts = dataset.windows["test"]
    last = np.append(starts[1:, 0] != starts[:-1, 0], True)
    return starts[(starts[:, 1] % max(1, span // OVERLAP) == 0) | last]


def _surprise(
    config: Config, model: SeriesModel, windows: Windows
) -> tuple[Array, NDArray[np.bool_]]:
    task: Any = config.task
    samples, horizon = samples_of(config), getattr(task, "horizon", 0)
    device = next(model.parameters()).device
    total, judged = torch.zeros(windows.values.shape), torch.zeros_like(windows.known)
    size = max(1, DRAWN_AT_A_TIME // (samples * windows.values[0].numel()))
    with looking_at(model, derive(config.seed, "metrics", "surprise")):
        for batch, wanted in judged_by_the_rest(windows, task.kind, horizon):
            for places in torch.arange(len(windows)).split(size):
                part = taken(batch, places).to(device)
                found = model.surprise(part, samples).cpu()
                total[places] = torch.where(wanted[places], found, total[places])
            judged |= wanted
    return total.double().numpy(), judged.numpy()
