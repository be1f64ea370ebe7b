"""Which figures a report holds: those of its task, of what the model can do and the data have."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from core.contract import Plot
from core.runtime.figures import style
from domains.series.config import Config
from domains.series.data import load
from domains.series.model.base import SeriesModel
from domains.series.plots.anomaly import draw_anomaly
from domains.series.plots.dependence import draw_autocorrelation, draw_cross_correlation
from domains.series.plots.likeness import (
    draw_marginals,
    draw_neighbours,
    draw_pca,
    draw_tsne,
    draw_windows,
)
from domains.series.plots.looked import Looked
from domains.series.plots.prediction import draw_coverage, draw_errors, draw_fans, draw_pit
from domains.series.plots.spectrum import draw_spectrum


def plots(config: Config, folder: Path, model: SeriesModel) -> Mapping[str, Plot]:
    """The domain's figures by file name."""
    looked = Looked(config, load(folder), model)
    with style():
        drawn = dict(_task(looked))
    return {name: plot for name, plot in drawn.items() if plot is not None}


def _task(looked: Looked) -> Iterator[tuple[str, Plot | None]]:
    if looked.config.task.kind == "generate":
        yield from _generation(looked)
    else:
        yield from _prediction(looked)
    yield "anomaly", draw_anomaly(looked)
    if looked.spectrum is not None:
        yield "spectrum", draw_spectrum(looked.spectrum, looked.steps)


def _generation(looked: Looked) -> Iterator[tuple[str, Plot | None]]:
    likeness = looked.likeness
    if likeness is None:
        return
    yield "windows", draw_windows(likeness)
    yield "pca", draw_pca(likeness)
    yield "tsne", draw_tsne(likeness, looked.config.seed)
    yield "marginals", draw_marginals(likeness)
    yield "autocorrelation", draw_autocorrelation(likeness)
    yield "cross-correlation", draw_cross_correlation(likeness)
    yield "nearest-neighbours", draw_neighbours(likeness)


def _prediction(looked: Looked) -> Iterator[tuple[str, Plot | None]]:
    predicted = looked.predicted
    if predicted is None:
        return
    ahead = looked.config.task.kind == "forecast"
    yield "fans", draw_fans(looked)
    yield "error-by-lead-time" if ahead else "error-by-gap", draw_errors(looked, predicted)
    yield "coverage", draw_coverage(predicted)
    yield "pit", draw_pit(predicted)
