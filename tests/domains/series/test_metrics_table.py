"""The tables of metrics, of models that are no models: what they should say is known."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.distributions import Distribution, Normal

from core.contract import Metric
from core.variational.evidence import Evidence
from domains.series import data
from domains.series.config import Config
from domains.series.data import Windows
from domains.series.metrics import correlational_score, generation, metrics, validate
from domains.series.metrics.baselines import last_value, linear_interpolation
from domains.series.model import SeriesModel


class Fake(SeriesModel):
    """It predicts as a baseline does, and replays windows with some noise."""

    def __init__(
        self,
        baseline: Callable[[Windows], Tensor] = linear_interpolation,
        replayed: Tensor | None = None,
        noise: float = 0.05,
    ) -> None:
        super().__init__()
        self.baseline, self.replayed, self.noise = baseline, replayed, noise
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def evidence(self, batch: Windows, samples: int = 1) -> Evidence:
        raise NotImplementedError

    def predictive(self, batch: Windows, samples: int) -> Distribution:
        line = self.baseline(batch)
        return Normal(line.expand(samples, *line.shape), torch.tensor(self.noise))

    def generative(self, times: Tensor) -> Distribution:
        assert self.replayed is not None
        chosen = torch.randint(len(self.replayed), (len(times),))
        return Normal(self.replayed[chosen], torch.tensor(self.noise))


def prepared(folder: Path, **settings: Any) -> tuple[Config, data.Dataset]:
    settings.setdefault(
        "data", {"source": "sines", "windows": 150, "window": 8, "split": "series"}
    )
    settings["task"] = {"kind": "generate", **settings["task"]}
    config = Config.model_validate({"name": "fake", "evaluation": {"bootstrap": 100}, **settings})
    data.prepare(config, folder)
    return config, data.load(folder)


def replaying(config: Config, dataset: data.Dataset, noise: float = 0.05) -> Fake:
    return Fake(replayed=data.every_window(dataset, "train", config).values, noise=noise)


def primary(found: dict[str, Metric]) -> list[str]:
    return [name for name, metric in found.items() if metric.primary]


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("discriminate", "predict"):
        fast = functools.partial(getattr(generation, name), steps=40)
        monkeypatch.setattr(generation, name, fast)


def test_without_judges_the_correlations_decide_and_all_stands_beside_normals(
    tmp_path: Path,
) -> None:
    config, dataset = prepared(tmp_path, task={"kind": "generate", "judges": 0})
    model = replaying(config, dataset)
    found = dict(metrics(config, tmp_path, model))
    assert primary(found) == ["correlational_score"]
    assert not [name for name in found if "judg" in found[name].group.lower()]
    real = data.every_window(dataset, "test", config)
    assert found["correlational_score"].n == len(real)
    fake = generation.generated_like(config, model, real)
    again = correlational_score(real.values.double().numpy(), fake)
    assert found["correlational_score"].value == pytest.approx(again, abs=1e-6)
    assert set(found["marginal_distance"].floors) == {"channel normals"}
    assert found["nearest_neighbour_ratio"].value < 0.7, "it replays training windows"


@pytest.mark.usefixtures("quick")
def test_judges_have_their_copy_as_ceiling_and_an_interval_over_seeds(tmp_path: Path) -> None:
    config, dataset = prepared(tmp_path, task={"judges": 2, "protocol": "timegan"})
    found = dict(metrics(config, tmp_path, replaying(config, dataset)))
    assert primary(found) == ["discriminative_score"]
    score = found["discriminative_score"]
    assert score.interval is not None
    assert score.interval[0] <= score.value <= score.interval[1]
    assert score.ceiling is not None
    assert score.n == len(dataset.windows["test"])
    assert "windows of the train part" in score.method
    assert "predictive_score" in found
    assert "strict_auc" not in found


@pytest.mark.usefixtures("quick")
def test_with_one_channel_there_is_no_predictive_score_and_the_table_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("domains.series.metrics.strict.STEPS", 20)
    rows = "\n".join(f"{np.sin(row) + row % 7}" for row in range(700))
    (tmp_path / "one.csv").write_text(f"x\n{rows}\n")
    source = {"source": "file", "path": str(tmp_path / "one.csv"), "window": 6}
    config, dataset = prepared(tmp_path / "run", data=source, task={"judges": 1})
    found = dict(metrics(config, tmp_path / "run", replaying(config, dataset)))
    assert "predictive_score" not in found
    assert "no predictive score of 1 channel" in found["discriminative_score"].method
    assert found["discriminative_score"].interval is None
    assert found["strict_auc"].ceiling == 0.5


def test_the_tables_are_the_same_twice_and_leave_the_random_numbers_alone(tmp_path: Path) -> None:
    config, dataset = prepared(tmp_path, task={"judges": 0})
    model = replaying(config, dataset)
    before = torch.get_rng_state()
    assert metrics(config, tmp_path, model) == metrics(config, tmp_path, model)
    assert torch.equal(before, torch.get_rng_state())


def test_a_model_that_interpolates_has_the_error_of_interpolation(tmp_path: Path) -> None:
    config, dataset = prepared(tmp_path, task={"kind": "impute", "hide": 0.3})
    found = dict(metrics(config, tmp_path, Fake(linear_interpolation)))
    assert primary(found) == ["mae"]
    mae = found["mae"]
    assert mae.value == pytest.approx(mae.floors["linear interpolation"])
    assert mae.value < mae.floors["channel mean"]
    assert mae.interval is not None
    assert mae.interval[0] < mae.value < mae.interval[1]
    windows = data.every_window(dataset, "test", config)
    error = (linear_interpolation(windows) - windows.values)[windows.targets].double()
    assert mae.value == pytest.approx(float(error.abs().mean()))
    assert found["rmse"].value == pytest.approx(float(error.square().mean().sqrt()))
    for place, name in enumerate(dataset.channels):
        own = (linear_interpolation(windows) - windows.values)[..., place]
        expected = own[windows.targets[..., place]].abs().mean() * dataset.scaler.scale[place]
        assert found[f"mae/{name}"].value == pytest.approx(float(expected), rel=1e-5)


def test_a_model_that_carries_the_last_value_has_its_error_and_a_linear_one_is_ahead(
    tmp_path: Path,
) -> None:
    source = {"source": "sines", "windows": 200, "window": 12, "split": "series"}
    config, _ = prepared(tmp_path, data=source, task={"kind": "forecast", "horizon": 3})
    found = dict(metrics(config, tmp_path, Fake(last_value)))
    mae = found["mae"]
    assert mae.value == pytest.approx(mae.floors["last value"])
    assert mae.floors["linear model"] < 0.7 * mae.value
    assert found["crps"].floors["last value"] == pytest.approx(mae.value)


def test_coverage_is_that_of_a_noise_that_is_known(tmp_path: Path) -> None:
    """A prediction that is off by noise of its own deviation is calibrated."""

    def off(batch: Windows) -> Tensor:
        seed = int(batch.origin.sum())
        noise = torch.randn(batch.values.shape, generator=torch.Generator().manual_seed(seed))
        return batch.values + 0.3 * noise

    source = {"source": "sines", "windows": 400, "window": 8, "split": "series"}
    config, _ = prepared(tmp_path, data=source, task={"kind": "impute", "samples": 40})
    right = metrics(config, tmp_path, Fake(off, noise=0.3))
    sure = metrics(config, tmp_path, Fake(off, noise=0.1))
    assert right["coverage_90"].value == pytest.approx(0.9, abs=0.03)
    assert right["coverage_50"].value == pytest.approx(0.5, abs=0.04)
    assert right["coverage_error"].value < 0.03
    assert sure["coverage_90"].value < 0.6
    assert right["crps"].value < sure["crps"].value
    assert right["interval_score_90"].value < sure["interval_score_90"].value
    expected = 0.3 / np.sqrt(np.pi)
    assert right["crps"].value == pytest.approx(expected, rel=0.06)


def test_hidden_values_of_a_generator_are_measured_too(tmp_path: Path) -> None:
    source = {
        "source": "sines",
        "windows": 150,
        "window": 8,
        "split": "series",
        "hide": {"kind": "mcar", "fraction": 0.3},
    }
    config, dataset = prepared(tmp_path, data=source, task={"judges": 0})
    found = dict(metrics(config, tmp_path, replaying(config, dataset)))
    mae = found["imputation_mae"]
    assert mae.value == pytest.approx(mae.floors["linear interpolation"])
    assert primary(found) == ["correlational_score"]


def test_gaps_are_cut_into_generated_windows_too(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=(900, 2)).cumsum(0)
    values[rng.random(values.shape) < 0.2] = np.nan
    rows = "\n".join(",".join("" if np.isnan(x) else f"{x}" for x in row) for row in values)
    (tmp_path / "gaps.csv").write_text(f"a,b\n{rows}\n")
    source = {"source": "file", "path": str(tmp_path / "gaps.csv"), "window": 10}
    config, dataset = prepared(tmp_path / "run", data=source, task={"judges": 0})
    test = data.every_window(dataset, "test", config)

    class Exact(Fake):
        def draw_windows(self, times: Tensor) -> Tensor:
            exact = torch.where(test.known, test.values, torch.full_like(test.values, 1e6))
            return exact[: len(times)]

    found = dict(metrics(config, tmp_path / "run", Exact()))
    assert found["correlational_score"].value == pytest.approx(0, abs=1e-6)
    assert found["marginal_distance"].value == 0
    assert "gaps are cut" in found["correlational_score"].method


def test_surprise_finds_labelled_rows_and_a_model_that_knows_better_beats_normals(
    tmp_path: Path,
) -> None:
    rng = np.random.default_rng(0)
    level = 5 * np.sin(np.arange(1600) / 30)
    values, label = level + 0.1 * rng.normal(size=1600), np.zeros(1600, dtype=int)
    label[[1400, 1500]] = 1
    values[[1400, 1500]] += 2  # unlikely given the neighbours, not by itself
    lines = "\n".join(f"{x},{y}" for x, y in zip(values, label, strict=True))
    (tmp_path / "odd.csv").write_text(f"x,odd\n{lines}\n")
    source = {
        "source": "file",
        "path": str(tmp_path / "odd.csv"),
        "label": "odd",
        "window": 16,
        "test_fraction": 0.25,
    }
    config, _ = prepared(tmp_path / "run", data=source, task={"kind": "impute"})

    def smooth(batch: Windows) -> Tensor:
        start = batch.origin[:, 1:].float()
        rows = start + batch.times
        return (5 * torch.sin(rows / 30)[..., None] - SHIFT) / SCALE

    dataset = data.load(tmp_path / "run")
    SHIFT, SCALE = float(dataset.scaler.shift[0]), float(dataset.scaler.scale[0])
    found = metrics(config, tmp_path / "run", Fake(smooth, noise=0.05))
    assert found["auc_pr"].value == pytest.approx(1.0)
    assert found["auc_pr"].floors["channel normals"] < 0.5
    assert found["hit"].value == 1


def test_validation_is_of_predictions_or_of_correlations(tmp_path: Path) -> None:
    config, dataset = prepared(tmp_path / "a", task={"judges": 0})
    assert list(validate(config, tmp_path / "a", replaying(config, dataset))) == ["correlation"]
    config, dataset = prepared(tmp_path / "b", task={"kind": "impute"})
    scores = validate(config, tmp_path / "b", Fake())
    windows = data.every_window(dataset, "valid", config)
    error = (linear_interpolation(windows) - windows.values)[windows.targets].double().abs()
    assert scores["mae"] == pytest.approx(float(error.mean()))
