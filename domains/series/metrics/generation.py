"""What is reported of generated windows, beside real ones of the test split."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from core.contract import Metric
from core.runtime.order import derive, generator
from core.runtime.statistics import t_interval
from core.variational.diagnostics import looking_at
from domains.series.config import Config
from domains.series.data import Dataset, Windows
from domains.series.metrics.judges import discriminate, predict
from domains.series.metrics.similarity import (
    autocorrelation_distance,
    correlational_score,
    marginal_distance,
    neighbours,
    wasserstein_distances,
)
from domains.series.metrics.strict import FEWEST, strict_discriminative
from domains.series.metrics.windows import some_windows, spread
from domains.series.model import SeriesModel
from domains.series.model.interpolation import interpolate

Array = NDArray[np.float64]

VALUES_AT_A_TIME = 2**21
VALID_WINDOWS = 1000
JUDGED = "Judges of generated windows"
ALIKE = "Likeness of generated windows"
CHANNELS = "Likeness of each channel, in its own unit"
COPIED = "Whether training windows are copied"
NORMAL = "channel normals"


def generated_like(config: Config, model: SeriesModel, windows: Windows) -> Array:
    """Generate a window for each of some, at its times; scaled."""
    device = next(model.parameters()).device
    size = max(1, VALUES_AT_A_TIME // windows.values[0].numel())
    with looking_at(model, derive(config.seed, "metrics", "generate")):
        parts = [model.draw_windows(times.to(device)).cpu() for times in windows.times.split(size)]
    return torch.cat(parts).double().numpy()


@dataclass(frozen=True, eq=False)
class Compared:
    """Windows of one shape; the unit of each channel is its range over the train rows.

    Args:
        real: Of the test split.
        generated: As many, at the same times.
        normal: As many with each channel independently Normal, as the trivial generator.
        train: Of the train split; the same as ``real`` where the split is ``windows``.
        span: That range, in original units.
        notes: What was done to them.
    """

    real: Array
    generated: Array
    normal: Array
    train: Array
    span: Array
    notes: tuple[str, ...]


def compared(config: Config, dataset: Dataset, model: SeriesModel, most: int) -> Compared:
    """Generate windows and bring all to one unit.

    Where a real window has gaps, so has the generated one beside it, and both are interpolated.

    Args:
        config: The settings.
        dataset: The prepared series.
        model: A trained model that generates.
        most: How many windows.
    """
    test = some_windows(config, dataset, "test", most)
    train = some_windows(config, dataset, "train")
    values = _train_values(dataset)
    low, high = _range(dataset.scaler.invert(values))
    span = np.where(high > low, high - low, 1.0)
    drawn = (
        test.values.double(),
        torch.from_numpy(generated_like(config, model, test)),
        torch.from_numpy(_normal_windows(config.seed, values, tuple(test.values.shape))),
    )
    filled = [*(_filled(each, test) for each in drawn), _filled(train.values.double(), train)]
    whole = (dataset.scaler.invert(each) for each in filled)
    real, generated, normal, trained = ((each - low) / span for each in whole)
    notes = ["real windows are those trained on"] if config.data.split == "windows" else []
    if not bool(test.known.all()):
        notes.append("gaps are cut into generated windows too and interpolated in both")
    return Compared(real, generated, normal, trained, span, tuple(notes))


def _train_values(dataset: Dataset) -> Array:
    """Scaled values of the train rows, NaN where not known."""
    rows = zip(dataset.panel.series, dataset.train_rows, strict=True)
    return dataset.scaler.apply(np.concatenate([one.values[kept] for one, kept in rows]))


def _range(values: Array) -> tuple[Array, Array]:
    """Lowest and highest value of each channel, 0 where none is known."""
    known = np.isfinite(values)
    some = known.any(0)
    low = np.where(known, values, np.inf).min(0, initial=np.inf)
    high = np.where(known, values, -np.inf).max(0, initial=-np.inf)
    return np.where(some, low, 0.0), np.where(some, high, 0.0)


def _normal_windows(seed: int, values: Array, shape: tuple[int, ...]) -> Array:
    """Draw every value on its own from the Normal of its channel."""
    known = np.isfinite(values)
    count = np.maximum(known.sum(0), 1)
    loc = np.where(known, values, 0).sum(0) / count
    scale = np.sqrt(np.where(known, (values - loc) ** 2, 0).sum(0) / count)
    return loc + scale * generator(seed, "metrics", "normal").standard_normal(shape)


def _filled(values: torch.Tensor, like: Windows) -> Array:
    if bool(like.known.all()):
        return values.numpy()
    return interpolate(values, like.known, like.times)[0].numpy()


def valid_correlation(config: Config, dataset: Dataset, model: SeriesModel) -> float:
    """Return the correlational score of a few generated windows and the validation windows."""
    real = some_windows(config, dataset, "valid", VALID_WINDOWS)
    generated = torch.from_numpy(generated_like(config, model, real))
    return correlational_score(_filled(real.values.double(), real), _filled(generated, real))


def generation_metrics(config: Config, dataset: Dataset, model: SeriesModel) -> dict[str, Metric]:
    """Scores of judges, distances, and whether training windows were copied."""
    task: Any = config.task
    most = min(task.windows, len(dataset.windows["test"]))
    return Generation(config, dataset, compared(config, dataset, model, most)).all()


@dataclass(frozen=True, eq=False)
class Generation:
    """All that is reported of generated windows.

    Args:
        config: The settings.
        dataset: The prepared series.
        windows: Real and generated ones.
    """

    config: Config
    dataset: Dataset
    windows: Compared

    @property
    def held_out(self) -> bool:
        """Whether the real windows were not trained on."""
        return self.config.data.split != "windows"

    @property
    def judged(self) -> bool:
        """Whether judges are asked for, and have enough to learn from."""
        task: Any = self.config.task
        return task.judges > 0 and len(self.windows.real) >= FEWEST

    def all(self) -> dict[str, Metric]:
        """Every metric, the primary one first."""
        found: dict[str, Metric] = {}
        if self.judged:
            found |= self._timegan()
            found |= self._strict() if self._task.protocol == "strict" else {}
        return found | self._distances() | self._channels() | self._copies()

    @property
    def _task(self) -> Any:
        return self.config.task

    @property
    def _seeds(self) -> list[int]:
        return [derive(self.config.seed, "judge", place) for place in range(self._task.judges)]

    def _rivals(self) -> dict[str, Array]:
        """What a judge sees beside the real windows: 0 to 1, equally many of each."""
        windows = self.windows
        named = {"generated": windows.generated, "copy": windows.real, NORMAL: windows.normal}
        if self.held_out and len(windows.train) >= len(windows.real):
            named["train"] = windows.train[spread(len(windows.train), len(windows.real))]
        return {name: values.clip(0, 1) for name, values in named.items()}

    def _timegan(self) -> dict[str, Metric]:
        rivals, real = self._rivals(), self.windows.real.clip(0, 1)
        told = dict(zip(rivals, discriminate(real, [*rivals.values()], self._seeds), strict=True))
        found = {"discriminative_score": self._score("tells real from generated", told, True)}
        if real.shape[2] < 2:
            return found
        errors = dict(zip(rivals, predict(real, [*rivals.values()], self._seeds), strict=True))
        said = "predicts the last channel of real windows, trained on generated ones; error in 0–1"
        return found | {"predictive_score": self._score(said, errors, False)}

    def _score(self, what: str, by_rival: Mapping[str, Array], primary: bool) -> Metric:
        own, judges = by_rival["generated"], self._task.judges
        method = f"TimeGAN's protocol: a judge {what}; {self._of_judges(judges)}"
        if primary and self.windows.real.shape[2] < 2:
            method += "; no predictive score of 1 channel; 16 units where TimeGAN has none"
        if "train" in by_rival:
            method += f"; windows of the train part get {by_rival['train'].mean():.4f}"
        return Metric(
            value=float(own.mean()),
            unit="",
            direction="lower",
            n=len(self.windows.real),
            interval=t_interval(own) if judges > 1 else None,
            method=self._noted(f"{method}; ceiling: what the real windows themselves get"),
            floors={NORMAL: float(by_rival[NORMAL].mean())},
            ceiling=float(by_rival["copy"].mean()),
            primary=primary,
            group=JUDGED,
        )

    def _of_judges(self, judges: int) -> str:
        if judges == 1:
            return "1 judge, so no interval"
        return f"mean of {judges} judges, t interval over their seeds"

    def _strict(self) -> dict[str, Metric]:
        rivals, seed = self._rivals(), derive(self.config.seed, "strict judge")
        real = self.windows.real.clip(0, 1)
        own = strict_discriminative(real, rivals["generated"], seed)
        normal = strict_discriminative(real, rivals[NORMAL], seed)
        method = (
            "GRU of 2 layers with 64 units on whitened values and differences, stopped early, "
            "tested on stretches held out from it; 0.5 is indistinguishable"
        )
        if "train" in rivals:
            train = strict_discriminative(real, rivals["train"], seed)
            method += f"; windows of the train part get {train.auc:.3f} and {train.accuracy:.3f}"
        method = self._noted(method)
        return {
            "strict_auc": Metric(
                value=own.auc,
                unit="",
                direction="lower",
                n=own.n,
                interval=own.interval,
                method=f"{method}; interval over windows (DeLong, stretches of real ones)",
                floors={NORMAL: normal.auc},
                ceiling=0.5,
                group=JUDGED,
            ),
            "strict_discriminative_score": Metric(
                value=own.score,
                unit="",
                direction="lower",
                n=own.n,
                method=f"{method}; distance of the accuracy {own.accuracy:.3f} from one half",
                floors={NORMAL: normal.score},
                ceiling=0.0,
                group=JUDGED,
            ),
        }

    def _distances(self) -> dict[str, Metric]:
        def of_steps(real: Array, other: Array) -> float:
            return autocorrelation_distance(np.diff(real, axis=1), np.diff(other, axis=1))

        return {
            "correlational_score": self._distance(
                correlational_score, "correlations of channels, summed differences / 10", True
            ),
            "marginal_distance": self._distance(
                marginal_distance, "total variation of histograms of each row and channel"
            ),
            "autocorrelation_distance": self._distance(
                autocorrelation_distance, "mean difference over channels and lags"
            ),
            "autocorrelation_distance_of_steps": self._distance(
                of_steps, "the same of the differences between rows"
            ),
        }

    def _distance(
        self, distance: Callable[[Array, Array], float], method: str, first: bool = False
    ) -> Metric:
        windows = self.windows
        if self.held_out:
            method += f"; windows of the train part {distance(windows.real, windows.train):.4g}"
        return Metric(
            value=distance(windows.real, windows.generated),
            unit="",
            direction="lower",
            n=len(windows.real),
            method=self._noted(method),
            floors={NORMAL: distance(windows.real, windows.normal)},
            ceiling=0.0,
            primary=first and not self.judged,
            group=ALIKE,
        )

    def _channels(self) -> dict[str, Metric]:
        windows = self.windows
        own = wasserstein_distances(windows.real, windows.generated) * windows.span
        normal = wasserstein_distances(windows.real, windows.normal) * windows.span
        return {
            f"wasserstein/{name}": Metric(
                value=float(own[place]),
                unit="",
                direction="lower",
                n=len(windows.real),
                method="Wasserstein-1 of the values of all rows",
                floors={NORMAL: float(normal[place])},
                ceiling=0.0,
                group=CHANNELS,
            )
            for place, name in enumerate(self.dataset.channels)
        }

    def _copies(self) -> dict[str, Metric]:
        windows = self.windows
        found = neighbours(windows.train, windows.generated)
        method = (
            "Euclidean distance of whole windows, channels in units of their range; "
            f"{found.n} generated ones"
        )
        shares = "closer to a train window than any other train window is"
        real = neighbours(windows.train, windows.real) if self.held_out else None
        said = ("", "") if real is None else (f"{real.ratio:.3f}", f"{real.closer:.3f}")
        after = [f"; windows of the test part: {each}" if each else "" for each in said]
        return {
            "nearest_neighbour_ratio": Metric(
                value=found.ratio,
                unit="",
                direction="none",
                n=found.n,
                method="median distance generated–train over train–train, well below 1 is copying"
                f"; {method}{after[0]}",
                group=COPIED,
            ),
            "copied_share": Metric(
                value=found.closer,
                unit="",
                direction="none",
                n=found.n,
                method=f"{shares}; {method}{after[1]}",
                group=COPIED,
            ),
        }

    def _noted(self, method: str) -> str:
        return "; ".join([method, *self.windows.notes])
