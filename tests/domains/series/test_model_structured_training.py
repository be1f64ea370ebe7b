"""The structured Koopman VAE from settings: what is built, its start, its training, its scores."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from core.runtime import methods
from domains.series.config import Config
from domains.series.data import Dataset, Panel, WindowBatches, Windows, every_window
from domains.series.data.build import build as build_dataset
from domains.series.data.oscillator import OSCILLATOR, Modes, oscillator
from domains.series.model.base import SeriesModel
from domains.series.model.identification import identify
from domains.series.model.scores import filtered_scores, stretch_scores, typical
from domains.series.model.structured import StructuredKoopmanVAE, build

EXACT = {
    "model": {"network": "linear", "latent": 6},
    "posterior": {"kind": "gauss-markov"},
    "likelihood": {"kind": "normal", "learned": "per_variable"},
    "objective": {"kind": "iwae", "samples": 2},
}


def settings(**sections: Any) -> Config:
    given = {
        "data": {"source": "oscillator", "window": 60, "split": "series"},
        "model": {"hidden": 16, "layers": 1, "latent": 6},
        "prior": {"kind": "linear-dynamics"},
    }
    for name, section in sections.items():
        given[name] = given.get(name, {}) | section
    given["model"] = {"kind": "koopman-vae"} | given["model"]
    return Config.model_validate({"domain": "series", "name": "test", **given})


def dataset_of(config: Config, panel: Panel) -> Dataset:
    return build_dataset(panel, config.data, config.seed, "the simulation")[0]


def trained(config: Config, dataset: Dataset, epochs: int, rate: float, watch: Any = None) -> Any:
    """Train without the engine: Adam, and a learning rate that falls to 0."""
    torch.manual_seed(config.seed)
    model, batches = build(config, dataset), WindowBatches(dataset, "train", config)
    objective = methods.build_objective(config.objective, config.schedule)
    optimizer = torch.optim.Adam(model.parameters(), rate)
    steps = list(itertools.product(range(epochs), range(len(batches))))
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, len(steps))
    for epoch, index in steps:
        loss = objective(model.evidence(batches.batch(epoch, index), objective.samples), 1.0)
        optimizer.zero_grad()
        loss.loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 10.0)
        optimizer.step()
        schedule.step()
        if watch is not None:
            watch(model)
    return model.eval()


def errors(model: StructuredKoopmanVAE, modes: Modes) -> tuple[np.ndarray, np.ndarray]:
    """Relative errors of frequencies and of rates of damping."""
    order = np.argsort(model.prior.periods.detach().numpy())
    frequency = np.array(modes.periods) / model.prior.periods.detach().numpy()[order] - 1
    damping = np.array(modes.half_lives) / model.prior.half_lives.detach().numpy()[order] - 1
    return frequency, damping


@pytest.mark.parametrize("missing", [0.0, 0.3])
def test_lagged_moments_identify_three_ring_downs(missing: float) -> None:
    panel = oscillator(300, 100, seed=1)
    values = np.stack([one.values for one in panel.series])
    known = np.random.default_rng(0).random(values.shape) >= missing
    found = identify(np.where(known, values, np.nan), known, 3)
    assert found is not None
    eigenvalues = found.eigenvalues[np.argsort(-np.angle(found.eigenvalues))]
    assert np.abs(eigenvalues - OSCILLATOR.eigenvalues).max() < 1e-3
    assert np.abs(found.noise - 0.1).max() < 0.01
    assert (found.drive < 0.02).all()


def test_lagged_moments_identify_a_driven_process() -> None:
    rng = np.random.default_rng(0)
    turn = 0.95 * np.exp(2j * np.pi / 9)
    noise = rng.standard_normal((400, 80, 2)) @ [1, 1j] * np.sqrt(1 - 0.95**2)
    states = [(rng.standard_normal((400, 2)) @ [1, 1j])]
    for step in range(1, 80):
        states.append(turn * states[-1] + noise[:, step])
    values = (np.stack(states, 1)[..., None] * [1.0, 0.5j, 1 - 1j]).real
    values = values + 0.1 * rng.standard_normal(values.shape)
    found = identify(values, np.ones(values.shape, bool), 1)
    assert found is not None
    assert abs(found.eigenvalues[0] - turn) < 0.01
    stationary = np.sqrt(-2 * np.log(0.95))  # unit variance, in continuous time
    assert abs(found.drive[0] / stationary - 1) < 0.15


def test_training_keeps_frequency_and_damping_within_two_percent() -> None:
    config = settings(**EXACT, training={"batch": 32})
    dataset = dataset_of(config, oscillator(130, 60, channels=4, seed=2))
    model = trained(config, dataset, epochs=2, rate=5e-3)
    frequency, damping = errors(model, OSCILLATOR)
    assert np.abs(frequency).max() < 0.02
    assert np.abs(damping).max() < 0.02
    eigenvalues = model.prior.eigenvalues.detach().numpy()
    order = np.argsort(-np.angle(eigenvalues))
    distance = np.abs(eigenvalues[order] - OSCILLATOR.eigenvalues).max()
    assert distance < 1e-2  # the spectral norm of the difference of the real operators


@pytest.mark.slow
def test_maximum_likelihood_finds_the_modes_from_a_wrong_start() -> None:
    config = settings(**EXACT, training={"batch": 32})
    dataset = dataset_of(config, oscillator(130, 60, seed=2))
    torch.manual_seed(0)
    model = build(config, dataset)
    with torch.no_grad():
        model.prior.frequency.mul_(1.04)
        model.prior.log_rate.add_(0.3)
    before = np.abs(np.concatenate(errors(model, OSCILLATOR))).min()
    batches = WindowBatches(dataset, "train", config)
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, 120)
    for step in range(120):
        batch = batches.batch(step // len(batches), step % len(batches))
        loss = -model.log_evidence(batch).mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 10.0)
        optimizer.step()
        schedule.step()
    assert before > 0.03
    assert np.abs(np.concatenate(errors(model, OSCILLATOR))).max() < 0.02


@pytest.mark.parametrize("spectrum", ["stable", "circle", "real"])
def test_eigenvalues_stay_where_the_settings_allow_them(spectrum: str) -> None:
    config = settings(
        **EXACT, data={"window": 40}, prior={"spectrum": spectrum}, training={"batch": 16}
    )
    dataset = dataset_of(config, oscillator(80, 40, channels=2, seed=3))
    seen = []
    trained(config, dataset, 3, 0.3, lambda model: seen.append(model.prior.eigenvalues.detach()))
    eigenvalues = torch.stack(seen)
    assert torch.isfinite(eigenvalues.abs()).all()
    if spectrum == "stable":
        assert (eigenvalues.abs() <= 1).all()
    elif spectrum == "circle":
        assert (eigenvalues.abs() - 1).abs().max() < 1e-6
    else:
        assert not eigenvalues.is_complex()
        assert ((eigenvalues > 0) & (eigenvalues <= 1)).all()


def test_the_spectrum_shares_energy_as_the_modes_share_the_values() -> None:
    config = settings(**EXACT, data={"scaling": "standard"})
    panel = oscillator(200, 60, seed=4, noise=0.01)
    dataset = dataset_of(config, panel)
    model = build(config, dataset).eval()
    spectrum = model.spectrum([every_window(dataset, "train", config)])
    assert spectrum is not None
    parts = mode_variances(200, 60, 6, 4)[0] / dataset.scaler.scale**2
    share = parts.sum(1) / parts.sum()
    order = np.argsort(spectrum.periods.detach().numpy())
    assert abs(float(spectrum.energy.detach().sum()) - 1) < 1e-9
    assert np.abs(spectrum.energy.detach().numpy()[order] - share).max() < 0.06


def mode_variances(count: int, window: int, channels: int, seed: int) -> np.ndarray:
    """What each mode alone adds to the variance of each channel, simulated without noise."""
    alone = []
    for mode in range(3):
        quiet = Quiet(mode)
        panel = oscillator(count, window, channels, seed, noise=0.0, modes=quiet)
        values = np.concatenate([one.values for one in panel.series])
        alone.append(values.var(0))
    return np.stack(alone)[None]


class Quiet(Modes):
    """The oscillator with all modes but one gone at once."""

    def __init__(self, mode: int) -> None:
        lives = [1e-3] * 3
        lives[mode] = OSCILLATOR.half_lives[mode]
        super().__init__(periods=OSCILLATOR.periods, half_lives=tuple(lives))


FAMILIES = list(
    itertools.product(
        ["diagonal-normal", "markov", "gauss-markov"],
        ["mlp", "convolution", "linear"],
        ["normal", "sigma-vae", "student-t"],
        ["generate", "impute", "forecast"],
    )
)


@pytest.mark.parametrize(("posterior", "network", "likelihood", "task"), FAMILIES[::5])
def test_every_family_trains_predicts_and_generates(
    posterior: str, network: str, likelihood: str, task: str
) -> None:
    config = settings(
        data={"window": 20},
        model={"network": network, "latent": 4},
        posterior={"kind": posterior},
        likelihood={"kind": likelihood},
        task={"kind": task} | ({"horizon": 5} if task == "forecast" else {}),
        training={"batch": 8},
    )
    dataset = dataset_of(config, oscillator(80, 20, channels=3))
    torch.manual_seed(0)
    model = build(config, dataset).train()
    batch = WindowBatches(dataset, "train", config).batch(0, 0)
    evidence = model.evidence(batch, 2)
    ratio = evidence.log_joint_ratio()
    assert ratio.shape == (2, 8)
    assert torch.isfinite(ratio).all()
    methods.build_objective(config.objective, config.schedule)(evidence, 1.0).loss.backward()
    without = [
        name for name, each in model.named_parameters() if each.requires_grad and each.grad is None
    ]
    assert without == []
    check_distributions(model.eval(), batch)


@torch.no_grad()
def check_distributions(model: SeriesModel, batch: Windows) -> None:
    predicted = model.predict(batch, 3)
    assert predicted.shape == (3, *batch.values.shape)
    assert torch.isfinite(predicted).all()
    assert torch.isfinite(model.surprise(batch, 3)).all()
    assert model.draw_windows(batch.times).shape == batch.values.shape


@pytest.mark.parametrize(("network", "task"), [("linear", "impute"), ("mlp", "generate")])
def test_a_blow_is_the_most_surprising_row(network: str, task: str) -> None:
    sections = EXACT if network == "linear" else {"posterior": {"kind": "gauss-markov"}}
    config = settings(**(sections | {"task": {"kind": task}, "training": {"batch": 16}}))
    dataset = dataset_of(config, oscillator(80, 60, channels=3, seed=5))
    model = trained(config, dataset, 2, 1e-2)
    calm, blown = oscillator(1, 60, 3, seed=5), oscillator(1, 60, 3, seed=5)
    blown.series[0].values[37] += 3.0
    blown.series[0].values[5] = np.nan
    found = filtered_scores(model, dataset, blown)[0]
    assert np.isnan(found[5])
    assert np.isfinite(np.delete(found, 5)).all()
    assert np.nanargmax(found) == 37
    assert found[37] > filtered_scores(model, dataset, calm)[0].max()


@pytest.mark.parametrize("fault", ["noisy", "stuck"])
def test_a_stretch_is_untypical_where_a_sensor_fails(fault: str) -> None:
    config = settings(**EXACT, data={"window": 60})
    dataset = dataset_of(config, oscillator(100, 60, channels=3, seed=5))
    model = build(config, dataset).eval()
    panel = oscillator(1, 60, 3, seed=5, noise=0.1)
    values = panel.series[0].values
    if fault == "noisy":
        values[25:41, 1] += 0.25 * np.random.default_rng(0).standard_normal(16)
    else:  # what was expected, and no noise of the sensor
        values[25:41, 1] = oscillator(1, 60, 3, seed=5, noise=0.0).series[0].values[25:41, 1]
    usual = typical(model, dataset, length=16)
    found = stretch_scores(model, dataset, panel, usual)[0]
    calm = stretch_scores(model, dataset, oscillator(1, 60, 3, seed=5), usual)[0]
    assert 28 <= np.argmax(found) <= 38
    assert found.max() > calm[20:46].max()


@torch.no_grad()
def test_surprise_of_a_seen_value_is_that_given_the_rows_before() -> None:
    config = settings(**EXACT)
    dataset = dataset_of(config, oscillator(80, 60, channels=1, seed=5))
    model = build(config, dataset).double().eval()
    batch = every_window(dataset, "test", config)
    batch = dataclasses.replace(batch, values=batch.values.double(), times=batch.times.double())
    alone = model.surprise(batch, 2)[..., 0]  # of one channel the joint density is the marginal
    assert (alone - model.surprise_ahead(batch)).abs().max() < 1e-8
    rows = (torch.arange(60) != 20)[:, None].expand(batch.values.shape)
    hidden = batch.seeing(rows)
    difference = model.log_evidence(hidden) - model.log_evidence(batch)
    assert (model.surprise(hidden, 2)[:, 20, 0] - difference).abs().max() < 1e-8


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        (
            {"posterior": {"kind": "low-rank-normal"}},
            "posterior.kind 'low-rank-normal' with prior",
        ),
        ({"model": {"kind": "tv-inr"}, "posterior": {}}, "model.kind 'tv-inr'"),
        (
            {"model": {"network": "linear"}, "prior": {"kind": "standard-normal"}},
            "model.network 'linear' and prior.kind 'standard-normal'",
        ),
    ],
)
def test_settings_that_do_not_go_together_are_refused(sections: dict, message: str) -> None:
    if "tv-inr" in str(sections):
        given = {
            "domain": "series",
            "name": "x",
            "prior": {"kind": "linear-dynamics"},
            "model": {"kind": "tv-inr"},
        }
        with pytest.raises(ValidationError, match=message):
            Config.model_validate(given)
        return
    with pytest.raises(ValidationError, match=message):
        settings(**sections)
