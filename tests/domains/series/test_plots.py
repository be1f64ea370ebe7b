"""The figures of a report on series, drawn for models whose answers are known."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.patches import Rectangle
from torch.distributions import Distribution, Normal

from core.runtime import figures
from domains.series.config import Config
from domains.series.data import Clock, Dataset, Panel, Series, Windows, every_window, prepare
from domains.series.data.build import build
from domains.series.model.base import SeriesModel, Spectrum
from domains.series.model.interpolation import interpolate
from domains.series.plots import plots
from domains.series.plots.anomaly import draw_anomaly
from domains.series.plots.likeness import draw_neighbours, draw_windows
from domains.series.plots.looked import Looked
from domains.series.plots.prediction import (
    covered,
    draw_coverage,
    draw_errors,
    draw_fans,
    draw_pit,
)

HOURLY = Clock(kind="datetime", column="time", zone="", form="iso", interval=3600.0)
GENERATION = {
    "windows",
    "pca",
    "tsne",
    "marginals",
    "autocorrelation",
    "cross-correlation",
    "nearest-neighbours",
}
PREDICTION = {"fans", "coverage", "pit"}


class Line(SeriesModel):
    """Interpolates with Normal noise of one deviation; generates noise; has two modes."""

    def __init__(self, deviation: float = 0.3, generates: bool = True, turns: bool = True) -> None:
        super().__init__()
        self.deviation = torch.nn.Parameter(torch.tensor(deviation))
        self.generates, self.turns = generates, turns

    def evidence(self, batch: Windows, samples: int = 1) -> Any:
        raise AssertionError("a figure asks for predictions, not for evidence")

    def mean(self, batch: Windows) -> torch.Tensor:
        return interpolate(batch.values, batch.seen, batch.times)[0]

    def predictive(self, batch: Windows, samples: int) -> Distribution:
        mean = self.mean(batch).expand(samples, *batch.values.shape)
        return Normal(mean, self.deviation.detach().expand(mean.shape))

    def generative(self, times: torch.Tensor) -> Distribution:
        if not self.generates:
            return super().generative(times)
        return Normal(torch.zeros(*times.shape, self.channels), 1.0)

    channels = 5

    def spectrum(self, batches: Iterable[Windows]) -> Spectrum | None:
        if not self.turns:
            return None
        assert sum(len(batch) for batch in batches) > 0
        half_lives, periods = torch.tensor([2.0, 48.0]), torch.tensor([24.0, torch.inf])
        values = torch.polar(0.5 ** (1 / half_lives), 2 * math.pi / periods)
        return Spectrum(values, half_lives, periods, torch.tensor([0.25, 0.75]))


class White(Line):
    """Knows that all values are independent standard Normals."""

    def mean(self, batch: Windows) -> torch.Tensor:
        return torch.zeros_like(batch.values)


class Copier(Line):
    """Generates windows that it was trained on."""

    def __init__(self, train: Windows) -> None:
        super().__init__()
        self.train_windows = train

    def generative(self, times: torch.Tensor) -> Distribution:
        chosen = torch.randint(len(self.train_windows), (len(times),))
        return Normal(self.train_windows.values[chosen], 1e-6)


def config(task: dict[str, Any], **data: Any) -> Config:
    settings = {"window": 16, "spacing": "clock", **data}
    return Config.model_validate({"name": "x", "task": task, "data": settings})


def dataset_of(
    values: np.ndarray, settings: Config, label: np.ndarray | None = None, clock: Clock = HOURLY
) -> Dataset:
    names = tuple(f"c{place}" for place in range(values.shape[1]))
    series = Series("", 1.7e9 + 3600.0 * np.arange(len(values), dtype=np.float64), values, label)
    panel = Panel((series,), names, ("float64",) * len(names), clock)
    return build(panel, settings.data, 0, "a test")[0]


def row_of(day: float) -> int:
    """The row of the series that was measured at a place of a time axis."""
    return round((day * 86400 - 1.7e9) / 3600)


def noise(rows: int = 1500, channels: int = 2) -> np.ndarray:
    return np.random.default_rng(1).normal(size=(rows, channels)) * 3 + 10


@pytest.fixture(scope="module")
def sines(tmp_path_factory: pytest.TempPathFactory) -> tuple[Config, Path]:
    folder = tmp_path_factory.mktemp("sines")
    settings = config({"kind": "generate"}, source="sines", windows=400, split="series")
    prepare(settings, folder)
    return settings, folder


@pytest.fixture(scope="module")
def drawn(sines: tuple[Config, Path]) -> dict[str, str]:
    return {name: figures.svg(plot.figure) for name, plot in plots(*sines, Line()).items()}


def test_a_model_that_generates_is_shown_beside_the_data(drawn: dict[str, str]) -> None:
    assert set(drawn) == GENERATION | {"spectrum"}


def test_a_model_that_only_predicts_has_no_figures_of_generation(
    sines: tuple[Config, Path],
) -> None:
    assert set(plots(*sines, Line(generates=False))) == {"spectrum"}
    assert not plots(*sines, Line(generates=False, turns=False))


@pytest.mark.parametrize(
    ("task", "errors"),
    [
        ({"kind": "impute", "hide": 0.4}, "error-by-gap"),
        ({"kind": "forecast", "horizon": 6}, "error-by-lead-time"),
    ],
)
def test_a_model_that_predicts_is_shown_beside_the_truth(
    tmp_path: Path, task: dict[str, Any], errors: str
) -> None:
    settings = config(task, source="google-stock")
    prepare(settings, tmp_path)
    assert set(plots(settings, tmp_path, Line())) == PREDICTION | {errors, "spectrum"}


def test_the_same_run_gives_the_same_bytes_whatever_was_drawn_before(
    sines: tuple[Config, Path], drawn: dict[str, str]
) -> None:
    torch.manual_seed(12345)
    np.random.seed(54321)
    before = torch.get_rng_state()
    again = {name: figures.svg(plot.figure) for name, plot in plots(*sines, Line()).items()}
    assert again == drawn
    assert torch.equal(torch.get_rng_state(), before)


PRINT_DIGESTS = """
import hashlib, sys
import torch
torch.set_num_threads(1)
sys.path[:0] = sys.argv[2:]
from test_plots import Line, config, figures, plots
from pathlib import Path
settings = config({"kind": "generate"}, source="sines", windows=400, split="series")
for name, plot in plots(settings, Path(sys.argv[1]), Line()).items():
    print(name, hashlib.sha256(figures.svg(plot.figure).encode()).hexdigest())
"""


@pytest.mark.slow
def test_another_process_draws_the_same_bytes(sines: tuple[Config, Path]) -> None:
    here = Path(__file__).parent
    command = [sys.executable, "-c", PRINT_DIGESTS, str(sines[1]), str(here), str(here.parents[2])]
    first, second = (
        subprocess.run(command, capture_output=True, check=True, text=True).stdout
        for _ in range(2)
    )
    assert first == second
    assert len(first.splitlines()) == len(GENERATION) + 1


def test_no_figure_is_heavy(drawn: dict[str, str]) -> None:
    assert max(len(drawing) for drawing in drawn.values()) < 250_000
    assert drawn["pca"].count("<use") < 2000


def test_generated_windows_have_the_gaps_of_real_ones() -> None:
    settings = config({"kind": "generate"})
    values = noise()
    values[np.random.default_rng(0).random(values.shape) < 0.2] = np.nan
    model = Line()
    model.channels = 2
    found = Looked(settings, dataset_of(values, settings), model).likeness
    assert found is not None
    assert np.isnan(found.real).mean() == pytest.approx(0.2, abs=0.02)
    assert np.array_equal(np.isnan(found.real), np.isnan(found.generated))
    assert not np.isnan(found.vectors(found.real)).any()


def test_generated_windows_are_drawn_in_original_units() -> None:
    settings = config({"kind": "generate"})
    model = Line()
    model.channels = 2
    found = Looked(settings, dataset_of(noise(), settings), model).likeness
    assert found is not None
    panels = draw_windows(found).figure.axes
    shown = np.concatenate([np.asarray(line.get_ydata()) for line in panels[1].lines])
    assert shown.mean() == pytest.approx(10, abs=1.5)  # of Normals of deviation 3
    assert shown.std() == pytest.approx(3, abs=0.8)


def test_windows_of_a_series_that_has_moved_on_are_shown_apart() -> None:
    values = np.concatenate([noise(1200), noise(500) + 40])  # the last 340 rows are the test
    settings = config({"kind": "generate"})
    model = Line()
    model.channels = 2
    found = Looked(settings, dataset_of(values, settings), model).likeness
    assert found is not None
    assert found.test is not None
    assert found.test.mean() == pytest.approx(50, abs=1)
    lines = draw_neighbours(found).figure.axes[0].lines
    train, generated, test = (float(np.asarray(line.get_xdata())[0]) for line in lines)
    assert max(train, generated) < test
    protocol = config({"kind": "generate"}, split="windows")
    same = Looked(protocol, dataset_of(values, protocol), model).likeness
    assert same is not None
    assert same.test is None


def test_copied_windows_have_no_distance() -> None:
    settings = config({"kind": "generate"})
    dataset = dataset_of(noise(), settings)
    model = Copier(every_window(dataset, "train", settings))
    found = Looked(settings, dataset, model).likeness
    assert found is not None
    medians = [
        np.asarray(line.get_xdata())[0] for line in draw_neighbours(found).figure.axes[0].lines
    ]
    assert 0 <= medians[1] < 1e-3 * medians[0]


def test_calibrated_predictions_are_shown_as_calibrated() -> None:
    settings = config({"kind": "impute", "hide": 0.4}, stride=16)
    looked = Looked(settings, dataset_of(noise(12000), settings), White(deviation=1.0))
    predicted = looked.predicted
    assert predicted is not None
    ranks = predicted.rank[predicted.targets]
    assert len(ranks) > 1500
    at = covered(ranks, np.array([0.5, 0.9]))
    assert at == pytest.approx([0.5, 0.9], abs=4 * math.sqrt(0.25 / len(ranks)))
    line = draw_coverage(predicted).figure.axes[0].lines[1]
    assert np.abs(np.asarray(line.get_ydata()) - np.asarray(line.get_xdata())).max() < 0.05
    bars = [patch.get_height() for patch in draw_pit(predicted).figure.axes[0].patches]  # type: ignore[attr-defined]
    assert np.mean(bars) == pytest.approx(1)
    assert np.std(bars) < 4 * math.sqrt(20 / len(ranks))


@pytest.mark.parametrize(("deviation", "at_90"), [(0.25, 0.319), (4.0, 1.0)])
def test_wrong_widths_are_shown_as_wrong(deviation: float, at_90: float) -> None:
    settings = config({"kind": "impute", "hide": 0.4}, stride=16)
    looked = Looked(settings, dataset_of(noise(12000), settings), White(deviation=deviation))
    predicted = looked.predicted
    assert predicted is not None
    # P(|x| < 1.645 / 4) = .319 for a standard Normal, P(|x| < 6.6) = 1.
    ranks = predicted.rank[predicted.targets]
    assert covered(ranks, np.array([0.9]))[0] == pytest.approx(at_90, abs=0.04)


def test_the_error_of_interpolation_lies_on_that_of_interpolation() -> None:
    settings = config({"kind": "impute", "hide": 0.5})
    walk = np.cumsum(noise(2000) - 10, axis=0)
    looked = Looked(settings, dataset_of(walk, settings), Line(deviation=1e-6))
    predicted = looked.predicted
    assert predicted is not None
    plot = draw_errors(looked, predicted)
    assert plot is not None
    lines = {line.get_label(): line for line in plot.figure.axes[0].lines}
    assert set(lines) == {"model", "last value", "linear interpolation"}
    x, y = (np.asarray(each) for each in lines["model"].get_data())
    assert y == pytest.approx(np.asarray(lines["linear interpolation"].get_ydata()), abs=1e-4)
    assert (np.diff(x) > 0).all()
    # The error of the last value of a random walk grows as the root of the time.
    last = np.asarray(lines["last value"].get_ydata())
    assert last[3] / last[0] == pytest.approx(2, rel=0.25)


def test_errors_of_a_forecast_are_by_lead_time() -> None:
    settings = config({"kind": "forecast", "horizon": 4})
    looked = Looked(settings, dataset_of(noise(2000), settings), White(deviation=1.0))
    predicted = looked.predicted
    assert predicted is not None
    plot = draw_errors(looked, predicted)
    assert plot is not None
    lines = {line.get_label(): np.asarray(line.get_data()) for line in plot.figure.axes[0].lines}
    assert set(lines) == {"model", "last value", "linear model"}
    assert lines["model"][0] == pytest.approx([1, 2, 3, 4])
    # Of independent Normals: E|x| = 0.80, E|x - x'| = 1.13.
    assert lines["model"][1] == pytest.approx(0.80, abs=0.12)
    assert lines["last value"][1] == pytest.approx(1.13, abs=0.15)


def test_logarithms_and_gaps_leave_figures_in_original_units() -> None:
    settings = config({"kind": "impute", "hide": 0.4}, logarithms=["c1"])
    values = noise(2000)
    values[:, 1] = np.exp(values[:, 1] / 3)
    values[np.random.default_rng(0).random(values.shape) < 0.1] = np.nan
    looked = Looked(settings, dataset_of(values, settings), Line())
    predicted, fans = looked.predicted, draw_fans(looked)
    assert predicted is not None
    assert fans is not None
    errors = draw_errors(looked, predicted)
    assert errors is not None
    assert "The error of c1 is that of logarithms." in errors.caption
    for panel in fans.figure.axes:
        hidden = next(line for line in panel.lines if line.get_label() == "hidden")
        channel = ["c0", "c1"].index(panel.get_title())
        shown = np.asarray(hidden.get_ydata(), dtype=float)
        assert np.abs(shown[:, None] - values[None, :, channel]).min(
            axis=1, where=~np.isnan(values[None, :, channel]), initial=np.inf
        ) == pytest.approx(0, abs=0.01)


def test_fans_show_the_hidden_truth_at_its_time_and_in_its_unit() -> None:
    settings = config({"kind": "impute", "hide": 0.4})
    dataset = dataset_of(noise(), settings)
    plot = draw_fans(Looked(settings, dataset, Line()))
    assert plot is not None
    truth = {
        (round(time / 86400, 6), round(float(value), 3))
        for row, time in zip(
            dataset.panel.series[0].values, dataset.panel.series[0].times, strict=True
        )
        for value in row
    }
    for panel in plot.figure.axes:
        dots = {line.get_label(): line for line in panel.lines}
        x, y = (np.asarray(each, dtype=float) for each in dots["hidden"].get_data())
        assert len(x) > 0
        for day, value in zip(x, y, strict=True):
            assert (round(float(day), 6), round(float(value), 3)) in truth


def test_an_anomaly_is_shaded_where_it_is_labelled_and_its_score_stands_out() -> None:
    settings = config({"kind": "impute"})
    values = np.sin(np.arange(2000) / 9)[:, None] * 2 + 5
    label = np.zeros(2000, dtype=np.int64)
    label[1803:1806], values[1803:1806] = 1, 9.0
    dataset = dataset_of(values, settings, label)
    plot = draw_anomaly(Looked(settings, dataset, Line(deviation=0.2)))
    assert plot is not None
    assert "lies within" in plot.caption
    assert "3 of 400 labelled" in plot.caption
    for panel in plot.figure.axes:
        (shade,) = panel.patches
        assert isinstance(shade, Rectangle)
        ends = shade.get_x(), shade.get_x() + shade.get_width()
        assert [row_of(day) for day in ends] == [1803, 1806]
    curve = plot.figure.axes[-1].lines[0]
    days, score = (np.asarray(each, dtype=float) for each in curve.get_data())
    assert 1799 <= row_of(days[score.argmax()]) <= 1810


def test_without_labels_nothing_is_said_of_anomalies() -> None:
    settings = config({"kind": "impute"})
    assert draw_anomaly(Looked(settings, dataset_of(noise(), settings), Line())) is None


def test_a_step_is_a_row_where_the_settings_say_so(sines: tuple[Config, Path]) -> None:
    settings = config({"kind": "generate"}, spacing="rows")
    looked = Looked(settings, dataset_of(noise(), settings), Line())
    assert (looked.steps.kind, looked.dataset.panel.clock.kind) == ("index", "datetime")
