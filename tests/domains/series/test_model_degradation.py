from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from core.runtime.errors import UserError
from core.variational.diagnostics import looking_at
from core.variational.objectives import ELBO, elbo_of
from domains.series.config import Config
from domains.series.data import (
    Dataset,
    Scaler,
    WindowBatches,
    Windows,
    every_window,
    load,
    prepare,
)
from domains.series.data.simulated import Simulated, laser_ageing
from domains.series.model.degradation import DegradationCVAE, build, conditions

GIVEN = ("current_ma", "temperature_c")
LIFE, WINDOW = 240, 24


def settings(**changes: Any) -> Config:
    data = {"source": "laser-ageing", "window": 8, "stride": 30, "split": "series"}
    return Config.model_validate(
        {
            "name": "degradation",
            "data": data | changes.pop("data", {}),
            "model": {
                "kind": "degradation-cvae",
                "latent": 3,
                "hidden": 12,
                "features": 5,
                "conditions": GIVEN,
            }
            | changes.pop("model", {}),
            "likelihood": {"kind": "sigma-vae", "shared": False},
            "training": {"batch": 16} | changes.pop("training", {}),
            **changes,
        }
    )


def prepared(config: Config, folder: Path) -> tuple[DegradationCVAE, Windows]:
    prepare(config, folder)
    dataset = load(folder)
    torch.manual_seed(0)
    return build(config, dataset), WindowBatches(dataset, "train", config).batch(0, 0)


def changed(batch: Windows, channel: int, by: float) -> Windows:
    values = batch.values.clone()
    values[..., channel] += by
    return replace(batch, values=values)


def test_conditions_are_given_and_not_explained(tmp_path: Path) -> None:
    model, batch = prepared(settings(), tmp_path)
    with looking_at(model, 0):
        term = model.evidence(batch).log_likelihood["values"]
        torch.manual_seed(0)
        condition = model.condition(batch)
        z = model.encode(batch, condition).rsample(torch.Size((1,)))
        said = model.decode(z, condition)
    power = said.log_prob(batch.values)[..., 0].sum(-1)
    torch.testing.assert_close(term, power)


@pytest.mark.parametrize("channel", [1, 2])
def test_what_it_expects_of_a_device_depends_on_how_that_is_run(
    tmp_path: Path, channel: int
) -> None:
    model, batch = prepared(settings(), tmp_path)
    z = torch.zeros(16, 3)
    one, other = (
        model.decode(z, model.condition(each)).mean[..., 0]
        for each in (batch, changed(batch, channel, 1.0))
    )
    assert (one != other).any(1).all()


def test_it_is_told_the_age_only_where_it_shall(tmp_path: Path) -> None:
    for age in (True, False):
        model, batch = prepared(settings(model={"age": age}), tmp_path / str(age))
        older = replace(batch, origin=batch.origin + torch.tensor([0, 100]))
        same = torch.equal(model.condition(batch), model.condition(older))
        assert same != age


def test_hidden_values_change_nothing(tmp_path: Path) -> None:
    model, batch = prepared(settings(), tmp_path)
    seen = batch.seen & (torch.rand(batch.seen.shape) < 0.7)
    one = replace(batch, seen=seen, targets=seen)
    other = replace(one, values=torch.where(seen, one.values, 7.0))
    values = []
    for each in (one, other):
        with looking_at(model, 3):
            surprise = model.surprise(each, 2)[seen]
            values.append((elbo_of(model.evidence(each)).value, surprise))
    torch.testing.assert_close(values[0], values[1], rtol=0, atol=0)


def test_surprise_adds_up_to_the_negative_bound_of_a_window(tmp_path: Path) -> None:
    model, batch = prepared(settings(), tmp_path)
    with looking_at(model, 5):
        surprise = model.surprise(batch, 4)
    with looking_at(model, 5):
        evidence = model.evidence(batch, 4)
    bound = evidence.log_likelihood["values"] - evidence.latents[0].kl()
    torch.testing.assert_close(surprise.sum((1, 2)), -bound.mean(0))
    assert (surprise[..., 1:] == 0).all()


def test_a_value_that_is_not_seen_is_judged_by_those_that_are(tmp_path: Path) -> None:
    model, batch = prepared(settings(), tmp_path)
    late = torch.arange(8)[None, :, None] >= 5
    rest = batch.seeing(batch.known & ~late)
    with looking_at(model, 5):
        surprise = model.surprise(rest, 4)
        torch.manual_seed(5)
        log_prob = model.predictive(rest, 4).log_prob(batch.values)
    expected = -(log_prob.exp().mean(0).log())
    torch.testing.assert_close(surprise[:, 5:, 0], expected[:, 5:, 0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("prior", ["standard-normal", "conditional-normal"])
def test_its_gradient_reaches_every_parameter(tmp_path: Path, prior: str) -> None:
    model, batch = prepared(settings(prior={"kind": prior}), tmp_path)
    ELBO()(model.evidence(batch)).loss.backward()
    idle = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert idle == []


def test_a_conditional_prior_knows_the_condition(tmp_path: Path) -> None:
    model, batch = prepared(settings(prior={"kind": "conditional-normal"}), tmp_path)
    one, other = (
        model.evidence(each).latents[0].prior.mean for each in (batch, changed(batch, 1, 1.0))
    )
    assert (one != other).any(1).all()


def test_a_device_is_generated_under_a_condition_that_one_had(tmp_path: Path) -> None:
    model, batch = prepared(settings(), tmp_path)
    with looking_at(model, 0):
        drawn = model.draw_windows(batch.times)
    assert drawn.shape == batch.values.shape
    known = model.operating[:, : 2 * 8].unflatten(1, (8, 2))
    apart = (drawn[:, None, :, 1:] - known[None]).abs().amax((2, 3)).amin(1)
    assert (apart == 0).all()
    with pytest.raises(ValueError, match="windows of 5 rows; it sees 8"):
        model.draw_windows(batch.times[:, :5])


def test_conditions_are_channels_and_leave_one_to_explain() -> None:
    assert conditions(("b",), ("a", "b")).tolist() == [False, True]
    with pytest.raises(UserError, match="no channel 'curent'; there are power, current; did you"):
        conditions(("curent",), ("power", "current"))
    with pytest.raises(UserError, match="every channel is one"):
        conditions(("a", "b"), ("a", "b"))


def fleet(train: int, valid: int, test: int, seed: int) -> tuple[Dataset, Simulated]:
    """Healthy devices to train on and to choose a threshold, and others of which half fail."""
    healthy = laser_ageing(train + valid, LIFE, seed, failing=0.0)
    mixed = laser_ageing(test, LIFE, seed + 1, failing=0.5)
    series = healthy.panel.series + mixed.panel.series
    learned = np.concatenate([one.values for one in series[:train]])
    parts = {"train": (0, train, 4), "valid": (train, train + valid, 1)}
    parts["test"] = (train + valid, len(series), 1)
    windows = {
        name: np.array(
            [
                (k, row)
                for k in range(first, end)
                for row in range(0, len(series[k].times) - WINDOW + 1, stride)
            ]
        )
        for name, (first, end, stride) in parts.items()
    }
    dataset = Dataset(
        panel=replace(mixed.panel, series=series),
        hidden=tuple(np.zeros(one.values.shape, dtype=bool) for one in series),
        scaler=Scaler(learned.mean(0), learned.std(0)),
        window=WINDOW,
        windows=windows,
        train_rows=tuple(np.full(len(one.times), k < train) for k, one in enumerate(series)),
        season=0,
    )
    return dataset, mixed


@pytest.mark.slow
def test_s011_early_failure_is_found_long_before_the_end() -> None:
    config = settings(
        data={"window": WINDOW},
        model={"latent": 8, "hidden": 64, "features": 16},
        training={"batch": 256},
    )
    dataset, devices = fleet(train=250, valid=50, test=200, seed=0)
    torch.manual_seed(0)
    model, batches = build(config, dataset), WindowBatches(dataset, "train", config)
    steps = 40 * len(batches)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, steps, pct_start=0.1)
    for step in range(steps):
        optimizer.zero_grad()
        batch = batches.batch(*divmod(step, len(batches)))
        ELBO()(model.evidence(batch)).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 10.0)
        optimizer.step()
        rate.step()

    def scores(split: Any) -> np.ndarray:
        with looking_at(model, 0):
            return model.surprise(every_window(dataset, split, config), 8).sum((1, 2)).numpy()

    # Three standard deviations above what the largest surprise of a healthy device's life is.
    healthy, owner = scores("valid"), dataset.windows["valid"][:, 0]
    largest = np.array([healthy[owner == device].max() for device in np.unique(owner)])
    threshold = largest.mean() + 3 * largest.std()

    alarmed, windows = scores("test") > threshold, dataset.windows["test"]
    truth = devices.parameters
    found, wrong, left = 0, 0, []
    for place, device in enumerate(np.unique(windows[:, 0])):
        alarms = windows[(windows[:, 0] == device) & alarmed, 1] + WINDOW - 1
        if len(alarms) and truth["failing"][place] and alarms[0] >= truth["onset"][place]:
            found += 1
            left.append(1 - alarms[0] / truth["life"][place])
        elif len(alarms):  # a device that lasts, or long before anything happens to it
            wrong += 1
    missed = truth["failing"].sum() - found
    assert 2 * found / (2 * found + wrong + missed) >= 0.95
    assert np.mean(left) >= 0.2
