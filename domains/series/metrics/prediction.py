"""What is reported of predicted values: those imputed or forecast on the test windows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from core.contract import Metric
from core.runtime.order import derive
from core.runtime.statistics import bootstrap_interval
from core.variational.diagnostics import central_coverage, looking_at
from domains.series.config import Config
from domains.series.data import Dataset, Windows
from domains.series.metrics.baselines import (
    Gaussian,
    gaussian,
    last_value,
    linear_interpolation,
    linear_model,
    seasonal_naive,
)
from domains.series.metrics.forecasts import INTERVAL, LEVELS, Errors, forecast_errors, joined
from domains.series.metrics.windows import some_windows, taken
from domains.series.model import SeriesModel

Array = NDArray[np.float64]

DRAWN_AT_A_TIME = 2**22
MOST_TEST_WINDOWS, MOST_TRAIN_WINDOWS, MOST_VALID_WINDOWS = 5000, 20000, 512
SAMPLES = 32  # where the task names none
QUICK_SAMPLES = 8  # for validation
PREDICTED = "Predicted values"
CALIBRATED = "Whether predictive distributions mean what they say"
CHANNELS = "Predicted values of each channel, in its own unit"
NORMAL = "channel normals"


def predicted_errors(model: SeriesModel, windows: Windows, samples: int, seed: int) -> Errors:
    """Predict the targets of windows from what is seen of them.

    The point that is predicted is the median, for the squared error the mean, over draws of the
    latents of what the likelihood expects: without its noise few draws are enough.

    Args:
        model: A trained model.
        windows: To predict in.
        samples: Draws behind a predictive distribution, noise included.
        seed: Of the draws.
    """
    device = next(model.parameters()).device
    size = max(1, DRAWN_AT_A_TIME // (samples * windows.values[0].numel()))
    parts, first = [], 0
    with looking_at(model, seed):
        for places in torch.arange(len(windows)).split(size):
            batch = taken(windows, places).to(device)
            parts.append(_predicted(model, batch, samples, first))
            first += len(places)
    return joined(parts)


def _predicted(model: SeriesModel, batch: Windows, samples: int, first: int) -> Errors:
    distribution = model.predictive(batch, samples)
    draws = distribution.sample()
    expected = distribution.mean
    centre = torch.where(torch.isfinite(expected), expected, draws)
    return forecast_errors(
        draws, centre.median(0).values, centre.mean(0), batch.values, batch.targets, first
    )


def quick_errors(config: Config, dataset: Dataset, model: SeriesModel) -> dict[str, float]:
    """Errors on the validation windows from few draws, for choosing a model."""
    windows = some_windows(config, dataset, "valid", MOST_VALID_WINDOWS)
    if not bool(windows.targets.any()):
        return {}
    seed = derive(config.seed, "metrics", "validate")
    found = predicted_errors(model, windows, min(QUICK_SAMPLES, samples_of(config)), seed)
    return {"mae": found.mae, "rmse": found.rmse, "crps": float(found.crps.mean())}


def samples_of(config: Config) -> int:
    """Draws behind a predictive distribution; two at least, for a score of them."""
    task: Any = config.task
    return SAMPLES if task.kind == "generate" else max(2, task.samples)


@dataclass(frozen=True, eq=False)
class Floors:
    """Trivial predictions of the same values.

    Args:
        points: Absolute error of each value by baseline.
        normal: The Normal of each channel.
        normal_crps: Its score of each value.
    """

    points: Mapping[str, Array]
    normal: Gaussian
    normal_crps: Array


def floors_of(config: Config, dataset: Dataset, windows: Windows) -> Floors:
    """Predict the targets of windows by all baselines that fit the task."""
    task: Any = config.task
    train = some_windows(config, dataset, "train", MOST_TRAIN_WINDOWS)
    normal = gaussian([train])
    named: dict[str, Callable[[Windows], torch.Tensor]] = {"last value": last_value}
    if task.kind == "forecast":
        valid = some_windows(config, dataset, "valid", MOST_TRAIN_WINDOWS)
        if bool(train.known[:, -task.horizon :].all(1).any()):
            named["linear model"] = linear_model(train, valid, task.horizon)
    else:
        named["linear interpolation"] = linear_interpolation
    if 0 < dataset.season < dataset.window:
        named[f"seasonal naive ({dataset.season} rows)"] = lambda batch: seasonal_naive(
            batch, dataset.season
        )
    named["channel mean"] = normal
    targets, truth = windows.targets, windows.values.double()
    points = {
        name: (baseline(windows).double() - truth)[targets].abs().numpy()
        for name, baseline in named.items()
    }
    return Floors(points, normal, normal.crps(truth)[targets].numpy())


def prediction_metrics(
    config: Config, dataset: Dataset, model: SeriesModel, prefix: str = ""
) -> dict[str, Metric]:
    """Errors, scores and calibration of predicted values on the test windows.

    Args:
        config: The settings.
        dataset: The prepared series.
        model: A trained model.
        prefix: Of the metrics' names; with one, none is primary and hidden values are predicted.
    """
    windows = some_windows(config, dataset, "test", MOST_TEST_WINDOWS)
    if prefix:
        windows = replace(windows, targets=windows.known & ~windows.seen)
    if not bool(windows.targets.any()):
        return {}
    samples = samples_of(config)
    errors = predicted_errors(model, windows, samples, derive(config.seed, "metrics", "predict"))
    floors = floors_of(config, dataset, windows)
    return Prediction(config, dataset, windows, errors, floors, samples, prefix).all()


@dataclass(frozen=True, eq=False)
class Prediction:
    """All that is reported of predicted values.

    Args:
        config: The settings.
        dataset: The prepared series.
        windows: That were predicted in.
        errors: Of the model.
        floors: Of trivial predictions.
        samples: Draws behind a predictive distribution.
        prefix: Of the names.
    """

    config: Config
    dataset: Dataset
    windows: Windows
    errors: Errors
    floors: Floors
    samples: int
    prefix: str

    def all(self) -> dict[str, Metric]:
        """Every metric, the primary one first."""
        found = self._scores() | self._calibration() | self._channels()
        return {f"{self.prefix}{name}": metric for name, metric in found.items()}

    def _scores(self) -> dict[str, Metric]:
        errors, points = self.errors, self.floors.points
        mae = {name: float(each.mean()) for name, each in points.items()}
        rmse = {name: float(np.sqrt((each**2).mean())) for name, each in points.items()}
        crps = mae | {NORMAL: float(self.floors.normal_crps.mean())}
        del crps["channel mean"]
        samples = f"from {self.samples} draws"
        return {
            "mae": self._metric(
                errors.absolute, "median of what is expected", mae, primary=not self.prefix
            ),
            "rmse": self._metric(errors.squared, "mean of what is expected", rmse, root=True),
            "crps": self._metric(
                errors.crps, f"fair, {samples}; that of a point is its absolute error", crps
            ),
            f"interval_score_{INTERVAL:.0%}".rstrip("%"): self._metric(
                errors.interval, f"width and fines of the {INTERVAL:.0%} interval, {samples}", {}
            ),
        }

    def _metric(
        self,
        values: Array,
        method: str,
        floors: Mapping[str, float],
        root: bool = False,
        primary: bool = False,
    ) -> Metric:
        value, interval = self._mean(values, root)
        return Metric(
            value=value,
            unit="",
            direction="lower",
            n=len(self.windows),
            interval=interval,
            method=f"{method}, scaled, {self._counted()}",
            floors=floors,
            ceiling=0.0,
            primary=primary,
            group=PREDICTED,
        )

    def _counted(self) -> str:
        resamples = self.config.evaluation.bootstrap
        return (
            f"{len(self.errors):,} values in windows, bootstrap {resamples:,} over stretches of "
            f"{self.dataset.window} rows"
        )

    def _mean(self, values: Array, root: bool = False) -> tuple[float, tuple[float, float] | None]:
        """The mean, or its root, and a bootstrap interval over stretches of rows.

        Windows overlap, so that neither they nor their values are independent; stretches as long
        as a window nearly are.
        """
        stretch = self._stretches[self.errors.window]
        kept, stretch = np.unique(stretch, return_inverse=True)
        totals: Array = np.zeros(len(kept))
        np.add.at(totals, stretch, values)
        counts: Array = np.bincount(stretch).astype(np.float64)

        def mean(total: Array, count: Array, axis: int = -1) -> Any:
            found = total.sum(axis=axis) / count.sum(axis=axis)
            return np.sqrt(found) if root else found

        value = float(mean(totals, counts))
        if len(totals) < 2:
            return value, None
        resamples, seed = self.config.evaluation.bootstrap, self.config.seed
        return value, bootstrap_interval(mean, totals, counts, resamples=resamples, seed=seed)

    @property
    def _stretches(self) -> NDArray[np.int64]:
        """The stretch of rows that each window begins in."""
        series, row = self.windows.origin.numpy().T
        pairs = np.stack([series, row // self.dataset.window], axis=1)
        return np.unique(pairs, axis=0, return_inverse=True)[1].ravel()

    def _calibration(self) -> dict[str, Metric]:
        found = {}
        for level in LEVELS:
            value, interval = self._mean(self.errors.covered(level))
            found[f"coverage_{level:.0%}".rstrip("%")] = Metric(
                value=value,
                unit="",
                direction="none",
                n=len(self.windows),
                interval=interval,
                method=f"share inside central intervals, {level} is right, {self._counted()}",
                group=CALIBRATED,
            )
        ranks = torch.from_numpy(self.errors.rank)
        found["coverage_error"] = Metric(
            value=central_coverage(ranks).error,
            unit="",
            direction="lower",
            n=len(self.windows),
            method="mean difference of nominal and observed coverage over ten levels",
            ceiling=0.0,
            group=CALIBRATED,
        )
        return found

    def _channels(self) -> dict[str, Metric]:
        found = {}
        for place, name in enumerate(self.dataset.channels):
            own = self.errors.channel == place
            if not own.any():
                continue
            scale, logs = float(self.dataset.scaler.scale[place]), self.dataset.scaler.logs
            of_what = "values" if logs is None or not logs[place] else "logarithms"
            points = self.floors.points.items()
            found[f"mae/{name}"] = Metric(
                value=float(self.errors.absolute[own].mean()) * scale,
                unit="",
                direction="lower",
                n=len(np.unique(self.errors.window[own])),
                method=f"{int(own.sum()):,} {of_what}; coverage of the 90 % interval "
                f"{self.errors.covered(0.9)[own].mean():.3f}",
                floors={key: float(each[own].mean()) * scale for key, each in points},
                ceiling=0.0,
                group=CHANNELS,
            )
        return found
