"""What a model sees at each step, by task and split."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import numpy as np
import pytest
import torch

from domains.series.config import Config
from domains.series.data import (
    Clock,
    Dataset,
    Panel,
    Series,
    WindowBatches,
    Windows,
    batches,
    every_window,
    prepare,
    window_values,
)
from domains.series.data.build import build
from domains.series.data.splits import SPLITS

HIDE = {"kind": "mcar", "fraction": 0.3}


def settings_of(task: str, hide: dict[str, Any] | None = None, **more: Any) -> Config:
    details = {"horizon": 5} if task == "forecast" else {}
    return Config(
        name="x",
        data={"source": "sines", "window": 12, "hide": hide or {}, **more},  # type: ignore[arg-type]
        task={"kind": task, **details},  # type: ignore[arg-type]
        training={"batch": 32},  # type: ignore[arg-type]
    )


def a_dataset(config: Config, lengths: tuple[int, ...] = (400, 300)) -> Dataset:
    rng = np.random.default_rng(0)
    series = []
    for index, length in enumerate(lengths):
        values = rng.normal(5, 2, size=(length, 3))
        values[rng.random(values.shape) < 0.1] = np.nan
        series.append(Series(str(index), np.cumsum(rng.uniform(1, 2, size=length)), values))
    clock = Clock(kind="number", column="t", zone="", form="", interval=1.5)
    panel = Panel(tuple(series), ("a", "b", "c"), ("float64",) * 3, clock)
    return build(panel, config.data, config.seed, "here")[0]


def of_split(config: Config, split: Any, dataset: Dataset | None = None) -> WindowBatches:
    return WindowBatches(dataset or a_dataset(config), split, config)


def bytes_of(windows: Windows) -> bytes:
    return b"".join(getattr(windows, field.name).numpy().tobytes() for field in fields(windows))


def hidden_in(dataset: Dataset, windows: Windows) -> torch.Tensor:
    """What is hidden from every model, looked up one row at a time."""
    rows = [
        np.stack([dataset.hidden[s][first + k] for k in range(dataset.window)])
        for s, first in windows.origin.tolist()
    ]
    return torch.from_numpy(np.stack(rows))


@pytest.mark.parametrize("task", ["generate", "impute", "forecast"])
@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("hide", [None, HIDE])
def test_seen_and_targets_are_known_and_values_are_zero_elsewhere(
    task: str, split: Any, hide: dict[str, Any] | None
) -> None:
    config = settings_of(task, hide)
    found = of_split(config, split)
    for index in range(len(found)):
        windows = found.batch(1, index)
        assert not (windows.seen & ~windows.known).any()
        assert not (windows.targets & ~windows.known).any()
        assert not windows.values[~windows.known].any()
        hidden = hidden_in(found.dataset, windows)
        assert not (windows.seen & hidden).any()
        if split == "train":
            assert not (windows.targets & hidden).any()
        if task != "generate":
            assert not (windows.seen & windows.targets).any()


@pytest.mark.parametrize("task", ["generate", "impute", "forecast"])
def test_a_batch_is_a_function_of_seed_epoch_and_index_alone(task: str) -> None:
    config = settings_of(task, HIDE)
    dataset = a_dataset(config)
    forward, backward = (of_split(config, "train", dataset) for _ in range(2))
    places = [(epoch, index) for epoch in range(3) for index in range(len(forward))]
    first = {place: bytes_of(forward.batch(*place)) for place in places}
    second = {place: bytes_of(backward.batch(*place)) for place in reversed(places)}
    assert first == second
    assert len(set(first.values())) == len(places)
    other = config.model_copy(update={"seed": 1})
    assert bytes_of(of_split(other, "train", dataset).batch(0, 0)) != first[0, 0]


def test_an_epoch_holds_every_train_window_once_in_another_order_each_time() -> None:
    config = settings_of("generate")
    found = of_split(config, "train")
    orders = []
    for epoch in range(2):
        origins = [found.batch(epoch, index).origin for index in range(len(found))]
        assert [len(each) for each in origins[:-1]] == [32] * (len(found) - 1)
        orders.append(torch.cat(origins).tolist())
        assert sorted(orders[-1]) == sorted(found.dataset.windows["train"].tolist())
    assert orders[0] != orders[1]
    assert orders[0] != sorted(orders[0])


@pytest.mark.parametrize("task", ["generate", "impute", "forecast"])
@pytest.mark.parametrize("split", ["valid", "test"])
def test_validation_and_test_are_all_windows_in_order_and_stay_the_same(
    task: str, split: Any
) -> None:
    config = settings_of(task)
    found = of_split(config, split)
    whole = every_window(found.dataset, split, config)
    assert whole.origin.tolist() == found.dataset.windows[split].tolist()
    for epoch in (0, 5):
        parts = [found.batch(epoch, index) for index in range(len(found))]
        joined = [torch.cat([getattr(p, f.name) for p in parts]) for f in fields(Windows)]
        assert bytes_of(Windows(*joined)) == bytes_of(whole)


def test_generating_explains_what_is_not_hidden() -> None:
    config = settings_of("generate", HIDE)
    found = of_split(config, "train")
    for split in SPLITS:
        windows = every_window(found.dataset, split, config)
        assert torch.equal(windows.seen, windows.known & ~hidden_in(found.dataset, windows))
        assert torch.equal(windows.targets, windows.seen)
    windows = found.batch(0, 0)
    assert torch.equal(windows.seen, windows.known & ~hidden_in(found.dataset, windows))


def test_imputation_trains_on_a_share_more_that_is_hidden_each_time_anew() -> None:
    config = settings_of("impute", HIDE)
    found = of_split(config, "train")
    shares = []
    for epoch in range(12):
        windows = found.batch(epoch, 0)
        free = windows.known & ~hidden_in(found.dataset, windows)
        assert torch.equal(windows.seen | windows.targets, free)
        shares.append(float(windows.targets.sum() / free.sum()))
    assert np.mean(shares) == pytest.approx(0.25, abs=0.06)


def test_imputation_is_tested_on_what_is_hidden_from_every_model() -> None:
    config = settings_of("impute", HIDE)
    dataset = a_dataset(config)
    windows = every_window(dataset, "test", config)
    assert torch.equal(windows.targets, windows.known & hidden_in(dataset, windows))
    assert torch.equal(windows.seen, windows.known & ~windows.targets)


def test_where_nothing_is_hidden_imputation_is_tested_on_a_fixed_share_of_values() -> None:
    config = settings_of("impute")
    dataset = a_dataset(config)
    windows = every_window(dataset, "test", config)
    share = float(windows.targets.sum() / windows.known.sum())
    assert share == pytest.approx(0.25, abs=0.03)
    same: dict[tuple[int, int, int], bool] = {}
    for index, (s, first) in enumerate(windows.origin.tolist()):
        for row in range(12):
            for channel in range(3):
                hidden = bool(windows.targets[index, row, channel])
                assert same.setdefault((s, first + row, channel), hidden) == hidden


def test_a_forecast_explains_the_last_rows_given_those_before() -> None:
    config = settings_of("forecast", HIDE)
    found = of_split(config, "train")
    for windows, all_known in (
        (found.batch(0, 0), False),
        (every_window(found.dataset, "test", config), True),
    ):
        hidden = hidden_in(found.dataset, windows)
        free = windows.known & ~hidden
        assert torch.equal(windows.seen[:, :-5], free[:, :-5])
        assert not windows.seen[:, -5:].any()
        assert not windows.targets[:, :-5].any()
        later = windows.known if all_known else free
        assert torch.equal(windows.targets[:, -5:], later[:, -5:])


def test_a_forecast_of_a_padded_window_explains_its_last_rows_that_are_there() -> None:
    config = settings_of("forecast", pad=True, split="series")
    dataset = a_dataset(config, lengths=(8,) * 100)
    windows = every_window(dataset, "test", config)
    assert windows.present[:, :8].all()
    assert not windows.present[:, 8:].any()
    assert torch.equal(windows.seen[:, :3], windows.known[:, :3])
    assert not windows.seen[:, 3:].any()
    assert torch.equal(windows.targets[:, 3:8], windows.known[:, 3:8])
    assert not windows.targets[:, 8:].any()


@pytest.mark.parametrize("split", SPLITS)
def test_the_values_of_windows_are_the_panels_own_also_where_hidden(split: Any) -> None:
    config = settings_of("generate", HIDE)
    dataset = a_dataset(config)
    values, known = window_values(dataset, split)
    assert values.dtype == np.float64
    for index, (s, first) in enumerate(dataset.windows[split].tolist()):
        own = dataset.panel.series[s].values[first : first + 12]
        np.testing.assert_allclose(dataset.scaler.invert(values[index]), own, rtol=1e-12)
        np.testing.assert_array_equal(known[index], np.isfinite(own))
    windows = every_window(dataset, split, config)
    assert np.array_equal(windows.known.numpy(), known)
    np.testing.assert_allclose(windows.values.numpy(), np.nan_to_num(values), rtol=1e-6, atol=1e-6)


def test_padding_has_no_values() -> None:
    config = settings_of("generate", pad=True, split="series")
    values, known = window_values(a_dataset(config, lengths=(8,) * 100), "test")
    assert np.isnan(values[:, 8:]).all()
    assert not known[:, 8:].any()


def test_batches_of_a_prepared_folder_are_those_of_its_series(tmp_path: Any) -> None:
    config = Config(name="x", training={"batch": 100})  # type: ignore[arg-type]
    prepare(config, tmp_path)
    found = batches(config, tmp_path, "train")
    assert len(found) == 15
    windows = found.batch(0, 0)
    assert windows.values.shape == (100, 24, 6)
    assert windows.values.dtype == windows.times.dtype == torch.float32
    assert torch.equal(windows.times, torch.arange(24.0).expand(100, 24))  # trading days are steps
