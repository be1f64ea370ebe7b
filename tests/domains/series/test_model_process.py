from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from core.runtime import methods
from core.variational.diagnostics import latent_use, looking_at
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
from domains.series.data.simulated import fractional_brownian, ornstein_uhlenbeck
from domains.series.model.latents import draws_of_prior
from domains.series.model.process import ProcessVAE, build, last_known, usual_step


def settings(**changes: Any) -> Config:
    data = {"source": "ou", "windows": 80, "window": 15, "split": "series"}
    return Config.model_validate(
        {
            "name": "process",
            "data": data | changes.pop("data", {}),
            "model": {"kind": "process-vae", "latent": 3, "hidden": 12, "memory": 4}
            | changes.pop("model", {}),
            "likelihood": {"kind": "normal", "learned": "predicted", "floor": 1e-4},
            "training": {"batch": 8} | changes.pop("training", {}),
            **changes,
        }
    )


def prepared(config: Config, folder: Path) -> tuple[ProcessVAE, WindowBatches]:
    prepare(config, folder)
    dataset = load(folder)
    torch.manual_seed(0)
    return build(config, dataset), WindowBatches(dataset, "train", config)


def with_gaps(batch: Windows) -> Windows:
    seen = batch.seen & (torch.rand(batch.seen.shape) < 0.7)
    return replace(batch, seen=seen, targets=seen)


def two_channels(batch: Windows) -> Windows:
    wide = {
        name: torch.cat([getattr(batch, name), getattr(batch, name).flip(0)], -1)
        for name in ("values", "known", "seen", "targets")
    }
    return replace(batch, **wide)


def test_the_last_known_value_is_found_by_looking_back() -> None:
    torch.manual_seed(1)
    values, known, times = torch.randn(4, 9, 2), torch.rand(4, 9, 2) < 0.5, torch.rand(4, 9)
    times = times.cumsum(1)
    value, since, there = last_known(values, known, times)
    for b, t, c in np.ndindex(4, 9, 2):
        before = [s for s in range(t) if known[b, s, c]]
        assert bool(there[b, t, c]) == bool(before)
        if before:
            assert value[b, t, c] == values[b, before[-1], c]
            assert since[b, t, c] == times[b, t] - times[b, before[-1]]
        else:
            assert value[b, t, c] == since[b, t, c] == 0


def test_a_usual_step_is_the_root_mean_square_of_what_a_model_may_learn_from() -> None:
    made = ornstein_uhlenbeck(6, 40, seed=0)
    config = settings(data={"windows": 6, "window": 40})
    hidden = tuple(np.random.default_rng(k).random((40, 1)) < 0.2 for k in range(6))
    rows = tuple(np.full(40, k < 4) for k in range(6))
    dataset = Dataset(
        panel=made.panel,
        hidden=hidden,
        scaler=_unit(1),
        window=config.data.window,
        windows={},
        train_rows=rows,
        season=0,
    )
    steps = []
    for one, gaps in list(zip(made.panel.series, hidden, strict=True))[:4]:
        for t in range(39):
            if not gaps[t] and not gaps[t + 1]:
                steps.append(float(one.values[t + 1, 0] - one.values[t, 0]))
    assert float(usual_step(dataset)) == pytest.approx(np.sqrt(np.mean(np.square(steps))))


def _unit(channels: int) -> Scaler:
    return Scaler(shift=np.zeros(channels), scale=np.ones(channels))


def test_no_value_is_told_of_itself_or_of_later_ones(tmp_path: Path) -> None:
    model, batches = prepared(settings(), tmp_path)
    batch = batches.batch(0, 0)
    z, changed = torch.randn(8, 3), batch.values.clone()
    changed[:, 9] += 5.0
    one, other = (
        model.decode(z, values, batch.known, batch.times).mean
        for values in (batch.values, changed)
    )
    torch.testing.assert_close(one[:, :10], other[:, :10], rtol=0, atol=0)
    assert (one[:, 10] != other[:, 10]).all()


def test_the_likelihood_is_the_product_of_each_value_given_those_before(tmp_path: Path) -> None:
    model, batches = prepared(settings(), tmp_path)
    batch = with_gaps(batches.batch(0, 0))
    with looking_at(model, 0):
        whole = model.evidence(batch).log_likelihood["values"][0]
        torch.manual_seed(0)
        z = model.encode(batch).rsample(torch.Size((1,)))[0]
        total = torch.zeros(8)
        for step in range(15):
            until = slice(0, step + 1)
            here: Any = model.decode(
                z, batch.values[:, until], batch.seen[:, until], batch.times[:, until]
            )
            last = torch.distributions.Normal(here.loc[:, -1, 0], here.scale[:, -1, 0])
            log_prob = last.log_prob(batch.values[:, step, 0])
            total += torch.where(batch.seen[:, step, 0], log_prob, 0)
    torch.testing.assert_close(whole, total, rtol=1e-4, atol=1e-4)


def test_hidden_values_change_nothing(tmp_path: Path) -> None:
    model, batches = prepared(settings(), tmp_path)
    batch = with_gaps(batches.batch(0, 0))
    other = replace(batch, values=torch.where(batch.seen, batch.values, 7.0))
    values = []
    for each in (batch, other):
        with looking_at(model, 0):
            values.append((elbo_of(model.evidence(each)).value, model.predict(each, 2)))
    torch.testing.assert_close(values[0], values[1], rtol=0, atol=0)


def test_padding_changes_nothing(tmp_path: Path) -> None:
    model, batches = prepared(settings(), tmp_path)
    batch = batches.batch(0, 0)
    more = torch.zeros(8, 3, 1)
    longer = Windows(
        values=torch.cat([batch.values, more + 5], 1),
        known=torch.cat([batch.known, more.bool()], 1),
        seen=torch.cat([batch.seen, more.bool()], 1),
        targets=torch.cat([batch.targets, more.bool()], 1),
        times=torch.cat([batch.times, 15 + torch.arange(3.0).expand(8, -1)], 1),
        present=torch.cat([batch.present, more[..., 0].bool()], 1),
        origin=batch.origin,
    )
    values = []
    for each in (batch, longer):
        with looking_at(model, 0):
            values.append(elbo_of(model.evidence(each)).value)
    torch.testing.assert_close(values[0], values[1])


@pytest.mark.parametrize("increments", [True, False])
def test_only_where_increments_count_does_the_level_of_a_path_not_matter(
    tmp_path: Path, increments: bool
) -> None:
    model, batches = prepared(settings(model={"increments": increments}), tmp_path)
    batch = batches.batch(0, 0)
    moved = replace(batch, values=batch.values + 3.0)
    z = torch.randn(8, 3)
    one, other = (
        model.decode(z, each.values, each.known, each.times).mean[:, 1:] for each in (batch, moved)
    )
    same = torch.allclose(one + 3.0, other, atol=1e-4)
    assert same == increments


def test_its_gradient_reaches_every_parameter(tmp_path: Path) -> None:
    model, batches = prepared(settings(), tmp_path)
    ELBO()(model.evidence(with_gaps(batches.batch(0, 0)))).loss.backward()
    idle = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert idle == []


def test_drawn_paths_keep_what_is_seen_and_are_drawn_from_what_is_said(tmp_path: Path) -> None:
    model, batches = prepared(settings(), tmp_path)
    batch = with_gaps(batches.batch(0, 0))
    with looking_at(model, 0):
        paths = model.predict(batch, 300)
        torch.manual_seed(0)
        said: Any = model.predictive(batch, 300)
    assert paths.shape == (300, 8, 15, 1)
    seen = batch.seen.expand(paths.shape)
    assert torch.equal(paths[seen], batch.values.expand(paths.shape)[seen])
    errors = ((paths - said.loc) / said.scale)[~seen]
    assert errors.mean() == pytest.approx(0, abs=0.05)
    assert errors.std() == pytest.approx(1, abs=0.05)


def test_windows_are_drawn_value_by_value(tmp_path: Path) -> None:
    model, batches = prepared(settings(), tmp_path)
    times = batches.batch(0, 0).times
    with looking_at(model, 4):
        drawn = model.draw_windows(times)
        torch.manual_seed(4)
        said: Any = model.generative(times)
    assert drawn.shape == said.loc.shape == (8, 15, 1)
    again = model.decode(
        _z_of(model, times), drawn, torch.ones_like(drawn, dtype=torch.bool), times
    )
    torch.testing.assert_close(again.mean, said.mean)


def _z_of(model: ProcessVAE, times: torch.Tensor) -> torch.Tensor:
    with looking_at(model, 4):
        return draws_of_prior(model.prior, len(times), model.latent, times)


def test_several_channels_have_units_and_pasts_of_their_own(tmp_path: Path) -> None:
    config = settings()
    prepare(config, tmp_path)
    batch = two_channels(WindowBatches(load(tmp_path), "train", config).batch(0, 0))
    torch.manual_seed(0)
    model = ProcessVAE(
        unit=torch.tensor([0.5, 2.0]),
        latent=3,
        hidden=12,
        memory=4,
        increments=True,
        posterior=methods.build_posterior(config.posterior, 12, 3),
        prior=methods.build_prior(config.prior, 3),
        likelihood=methods.build_likelihood(config.likelihood, 12, 2, event_dims=0),
    )
    said: Any = model.decode(torch.zeros(8, 3), batch.values, batch.known, batch.times)
    # The settings say that a predicted scale starts at 1, here a usual step, and give a floor.
    units = torch.tensor([0.5, 2.0]).expand(8, 15, 2)
    torch.testing.assert_close(said.scale, units + 1e-4)


def trained(what: str, rows: int, epochs: int, folder: Path) -> tuple[ProcessVAE, Windows, Any]:
    config = settings(
        data={"source": what, "windows": 2000, "window": rows, "test_fraction": 0.24},
        model={"latent": 6, "hidden": 64, "memory": 8, "increments": what == "fbm"},
        training={"batch": 64},
    )
    model, batches = prepared(config, folder)
    steps = epochs * len(batches)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, steps, pct_start=0.1)
    for step in range(steps):
        optimizer.zero_grad()
        batch = batches.batch(*divmod(step, len(batches)))
        ELBO(beta=4.0)(model.evidence(batch)).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 10.0)
        optimizer.step()
        rate.step()
    simulate = {"fbm": fractional_brownian, "ou": ornstein_uhlenbeck}[what]
    (truth,) = simulate(2000, rows, config.seed).parameters.values()
    test = every_window(batches.dataset, "test", config)
    return model, test, truth[test.origin[:, 0].numpy()]


@pytest.mark.slow
@pytest.mark.parametrize(("what", "rows", "epochs"), [("fbm", 320, 28), ("ou", 256, 20)])
def test_s078_the_one_parameter_of_a_process_is_the_one_active_unit(
    tmp_path: Path, what: str, rows: int, epochs: int
) -> None:
    model, test, parameter = trained(what, rows, epochs, tmp_path)
    use = latent_use(model, [test])["z"]
    assert use.active_units == 1
    with looking_at(model, 0):
        found = model.encode(test).mean[:, int(use.active.nonzero())]
    rank_correlation: Any = spearmanr(found, parameter)
    assert abs(rank_correlation.statistic) >= 0.95
