from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from core.variational.diagnostics import looking_at
from core.variational.objectives import ELBO, elbo_of
from domains.series.config import Config
from domains.series.data import WindowBatches, Windows, every_window, load, prepare
from domains.series.model.inr import TVINR, Waves, build, moments


def settings(**changes: Any) -> Config:
    data = {"source": "random-sines", "windows": 80, "window": 20, "split": "series"}
    return Config.model_validate(
        {
            "name": "inr",
            "data": data | changes.pop("data", {}),
            "task": {"kind": "impute"},
            "model": {"kind": "tv-inr", "latent": 4, "hidden": 12, "frequencies": 5, "width": 6}
            | changes.pop("model", {}),
            "training": {"batch": 8} | changes.pop("training", {}),
            "likelihood": {"kind": "sigma-vae"},
            **changes,
        }
    )


def prepared(config: Config, folder: Path) -> tuple[TVINR, WindowBatches]:
    prepare(config, folder)
    dataset = load(folder)
    torch.manual_seed(0)
    return build(config, dataset), WindowBatches(dataset, "train", config)


def test_the_moments_are_sums_over_what_is_seen() -> None:
    torch.manual_seed(1)
    values, seen = torch.randn(3, 9, 2), torch.rand(3, 9, 2) < 0.6
    times, present = torch.rand(3, 9).cumsum(1), torch.ones(3, 9, dtype=torch.bool)
    waves = Waves(9, 4)
    found = moments(waves(times), values, seen, present).unflatten(1, (-1, 2))
    for window in range(3):
        for channel in range(2):
            where = seen[window, :, channel]
            x, t = values[window, where, channel], times[window, where]
            rates = np.pi / 9 * np.arange(1, 5)
            turned = (x * torch.exp(1j * torch.outer(torch.tensor(rates), t))).mean(1)
            places = torch.exp(1j * torch.outer(torch.tensor(rates), t)).mean(1)
            expected = torch.cat(
                [
                    x.mean()[None],
                    turned.real,
                    turned.imag,
                    torch.ones(1),
                    places.real,
                    places.imag,
                    4 * turned.abs().square() / x.square().mean(),
                    torch.tensor([where.sum() / 9]),
                ]
            )
            torch.testing.assert_close(found[window, :, channel], expected.float())


def test_neither_the_order_of_rows_nor_padding_nor_hidden_values_change_it(tmp_path: Path) -> None:
    model, batches = prepared(settings(), tmp_path)
    batch = batches.batch(0, 0)
    order = torch.randperm(20)
    shuffled = Windows(
        **{
            name: getattr(batch, name)[:, order]
            for name in ("values", "known", "seen", "targets", "times", "present")
        },
        origin=batch.origin,
    )
    hidden = replace(batch, values=torch.where(batch.seen, batch.values, 9.0))
    more = torch.zeros(8, 5, 1)
    longer = Windows(
        values=torch.cat([batch.values, more + 3], 1),
        known=torch.cat([batch.known, more.bool()], 1),
        seen=torch.cat([batch.seen, more.bool()], 1),
        targets=torch.cat([batch.targets, more.bool()], 1),
        times=torch.cat([batch.times, 20 + torch.arange(5.0).expand(8, -1)], 1),
        present=torch.cat([batch.present, more[..., 0].bool()], 1),
        origin=batch.origin,
    )
    with looking_at(model, 0):
        expected = model.encode(batch).mean
        for other in (shuffled, hidden, longer):
            torch.testing.assert_close(model.encode(other).mean, expected, rtol=1e-5, atol=1e-6)
    values = []
    for each in (batch, longer):
        with looking_at(model, 0):
            values.append(elbo_of(model.evidence(each)).value)
    torch.testing.assert_close(values[0], values[1])


def test_its_value_is_a_bound_of_what_is_seen_and_what_is_hidden(tmp_path: Path) -> None:
    model, batches = prepared(settings(likelihood={"kind": "normal", "scale": 0.5}), tmp_path)
    batch = batches.batch(0, 0)
    with looking_at(model, 0):
        evidence = model.evidence(batch)
        loss = elbo_of(evidence)
        torch.manual_seed(0)
        z = model.encode(batch).rsample(torch.Size((1,)))
        mean = model.decode(z, batch.times).mean[0]
    log_prob = torch.distributions.Normal(mean, 0.5).log_prob(batch.values)
    expected = torch.where(batch.seen | batch.targets, log_prob, 0).sum((1, 2))
    torch.testing.assert_close(evidence.log_likelihood["values"][0], expected)
    assert loss.bound == "lower"


def test_its_gradient_reaches_every_parameter(tmp_path: Path) -> None:
    model, batches = prepared(settings(), tmp_path)
    ELBO()(model.evidence(batches.batch(0, 0))).loss.backward()
    idle = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert idle == []


def test_it_may_be_asked_at_any_time(tmp_path: Path) -> None:
    model, batches = prepared(settings(), tmp_path)
    batch = batches.batch(0, 0)
    between = batch.times[:, :7] + 0.37
    with looking_at(model, 0):
        alone = model.at(batch, between, 3).mean
        torch.manual_seed(0)
        both = model.at(batch, torch.cat([batch.times, between], 1), 3).mean
    assert alone.shape == (3, 8, 7, 1)
    torch.testing.assert_close(both[:, :, 20:], alone)


def test_it_generates_windows_at_the_times_asked_for(tmp_path: Path) -> None:
    model, _ = prepared(settings(prior={"kind": "mixture", "components": 3}), tmp_path)
    times = torch.rand(5, 11).cumsum(1)
    with looking_at(model, 0):
        assert model.generative(times).batch_shape == (5, 11, 1)
        assert model.draw_windows(times).shape == (5, 11, 1)


@pytest.mark.slow
def test_s009_random_sines_are_imputed_with_a_tenth_of_the_error_of_their_mean(
    tmp_path: Path,
) -> None:
    config = settings(
        data={
            "windows": 4000,
            "window": 100,
            "hide": {"kind": "mcar", "fraction": 0.7},
            "test_fraction": 0.1,
            "valid_fraction": 0.01,
        },
        model={"latent": 32, "hidden": 128, "frequencies": 24, "width": 32},
        training={"batch": 64},
    )
    model, batches = prepared(config, tmp_path)
    steps = 35 * len(batches)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, steps, pct_start=0.1)
    for step in range(steps):
        optimizer.zero_grad()
        batch = batches.batch(*divmod(step, len(batches)))
        ELBO()(model.evidence(batch)).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 10.0)
        optimizer.step()
        rate.step()
    test = every_window(batches.dataset, "test", config)
    with looking_at(model, 0):
        found = model.predictive(test, 16).mean.mean(0)
    seen = torch.where(test.seen, test.values, 0).sum(1) / test.seen.sum(1)
    error, error_of_mean = (
        (guess - test.values)[test.targets].square().mean() for guess in (found, seen[:, None])
    )
    assert test.seen.float().mean() == pytest.approx(0.3, abs=0.01)
    assert error <= 0.1 * error_of_mean

    # Between rows, where nothing was ever trained on, the sine is known.
    scaler, truth = batches.dataset.scaler, batches.dataset.panel.series
    between = test.times[:, :-1] + 0.5
    with looking_at(model, 0):
        drawn = model.at(test, between, 16).mean.mean(0)[..., 0].numpy()
    asked = scaler.invert(drawn[..., None])[..., 0]
    rows = np.stack([truth[int(k)].values[:, 0] for k in test.origin[:, 0]])
    # A sine's half-way value is the mean of its neighbours over the cosine of half a step.
    step = np.array([_angle(values) for values in rows])
    expected = (rows[:, 1:] + rows[:, :-1]) / 2 / np.cos(step / 2)[:, None]
    assert ((asked - expected) ** 2).mean() <= 0.1 * expected.var()


def _angle(sine: np.ndarray) -> float:
    """Radians of a step of a sine: its second difference says so exactly."""
    inner = sine[1:-1]
    ratio = ((sine[2:] + sine[:-2]) * inner).sum() / (2 * (inner**2).sum())
    return float(np.arccos(ratio))
