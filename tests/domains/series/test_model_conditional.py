"""The conditional Koopman VAE: what it may see, what its value bounds, in what units it works."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from domains.series.config import Config
from domains.series.data import Clock, Dataset, Panel, Scaler, Series, Windows
from domains.series.model import conditional
from domains.series.model.interpolation import interpolate

TIME, CHANNELS, LATENT = 10, 3, 4
SMALL = {
    "kind": "koopman-vae",
    "latent": LATENT,
    "hidden": 16,
    "layers": 2,
    "features": 6,
    "network": "convolution",
}
LAPLACE = {"kind": "laplace", "learned": "predicted", "scale": 0.3, "floor": 0.01}
NORMAL = {"kind": "normal", "learned": "predicted", "scale": 0.3, "floor": 0.01}
WIDE = {"kind": "normal", "scale": 1.0}
LIKELIHOODS = [
    LAPLACE,
    NORMAL,
    {"kind": "student-t", "learned": "predicted"},
    {"kind": "sigma-vae"},
]


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def dataset(time: int = TIME, channels: int = CHANNELS, season: int = 0) -> Dataset:
    panel = Panel(
        series=(Series("", np.arange(time, dtype=float), np.zeros((time, channels))),),
        channels=tuple(f"x{place}" for place in range(channels)),
        dtypes=("float64",) * channels,
        clock=Clock(kind="index", column="", zone="", form="", interval=1.0),
    )
    mask, scaler = np.zeros((time, channels), dtype=bool), Scaler(np.zeros(3), np.ones(3))
    return Dataset(panel, (mask,), scaler, time, {}, (np.ones(time, dtype=bool),), season)


def build(
    season: int = 0, likelihood: Any = LAPLACE, task: str = "impute", **model: Any
) -> conditional.ConditionalKoopmanVAE:
    settings = {"name": "x", "task": {"kind": task}, "model": SMALL | model}
    if task == "forecast":
        settings["task"]["horizon"] = 4
    config = Config.model_validate(settings | {"likelihood": likelihood})
    return conditional.build(config, dataset(season=season))


def trained(**settings: Any) -> conditional.ConditionalKoopmanVAE:
    """A model whose parameters are as if it had been trained: none is 0."""
    model = build(**settings).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.15 * torch.randn_like(parameter))
    return model


def windows(count: int = 5, time: int = TIME, regular: bool = True) -> Windows:
    values = torch.randn(count, time, CHANNELS).cumsum(1) / 2
    share = torch.rand(count, time, CHANNELS)
    gaps = torch.ones(count, time) if regular else 0.2 + 2 * torch.rand(count, time)
    return Windows(
        values=values,
        known=torch.ones_like(values, dtype=torch.bool),
        seen=share < 0.5,
        targets=share > 0.75,
        times=gaps.cumsum(1) - gaps[:, :1],
        present=torch.ones(count, time, dtype=torch.bool),
        origin=torch.stack([torch.zeros(count), torch.arange(count)], 1).long(),
    )


def value(model: conditional.ConditionalKoopmanVAE, batch: Windows, seed: int = 0) -> Tensor:
    torch.manual_seed(seed)
    evidence = model.evidence(batch, 2)
    return evidence.log_likelihood["values"] - evidence.latents[0].kl()


@pytest.mark.parametrize("relative", ["network", "level", "scale"])
@pytest.mark.parametrize("network", ["mlp", "convolution"])
def test_before_training_it_predicts_the_interpolant(relative: str, network: str) -> None:
    model, batch = build(relative=relative, network=network, season=3), windows(regular=False)
    line, _, _ = interpolate(batch.values, batch.seen, batch.times)
    expected = line.expand(2, *line.shape)
    found = model.predictive(batch, 2).mean
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert not model.evidence(batch).latents[0].kl().any()


@pytest.mark.parametrize("regular", [True, False])
def test_its_value_bounds_the_likelihood_under_the_prior_that_it_predicts_with(
    regular: bool,
) -> None:
    model, batch = trained(relative="level", likelihood=WIDE), windows(count=3, regular=regular)
    with torch.no_grad():
        for parameter in model.recognition.last.parameters():  # pyright: ignore
            parameter.mul_(0.2)  # or weights of draws from it would vary too much
        evidence = model.evidence(batch, 5000)
        assert float(evidence.latents[0].kl().min()) > 0.1
        bound = (evidence.log_likelihood["values"] - evidence.latents[0].kl()).mean(0)
        weighted = evidence.log_joint_ratio().logsumexp(0) - math.log(5000)
        likelihood = model.predictive(batch, 5000).log_prob(batch.values)
        terms = torch.where(batch.targets, likelihood, 0).sum((-2, -1))
        exact = terms.logsumexp(0) - math.log(5000)
    torch.testing.assert_close(weighted, exact, rtol=0, atol=0.15)
    assert ((exact - bound) > 0.01).all()


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_what_is_hidden_and_no_target_changes_nothing(likelihood: dict[str, Any]) -> None:
    model, batch = trained(likelihood=likelihood), windows()
    other = replace(
        batch, values=torch.where(batch.seen | batch.targets, batch.values, 1e6 * torch.ones(()))
    )
    torch.testing.assert_close(value(model, other), value(model, batch), rtol=0, atol=0)


def test_predictions_do_not_know_the_targets_and_the_posterior_does() -> None:
    model, batch = trained(), windows()
    other = replace(batch, values=torch.where(batch.seen, batch.values, batch.values + 1))
    torch.manual_seed(1)
    before = model.predictive(batch, 4).sample()
    torch.manual_seed(1)
    assert torch.equal(model.predictive(other, 4).sample(), before)
    moved = model.evidence(other).latents[0].posterior.mean
    assert not torch.allclose(moved, model.evidence(batch).latents[0].posterior.mean)


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_what_is_seen_shifted_is_predicted_shifted(likelihood: dict[str, Any]) -> None:
    model, batch = trained(relative="level", likelihood=likelihood), windows()
    by = torch.tensor([3.0, -2.0, 10.0])
    shifted = replace(batch, values=batch.values + by)
    torch.manual_seed(1)
    before = model.predictive(batch, 4)
    torch.manual_seed(1)
    after = model.predictive(shifted, 4)
    torch.testing.assert_close(after.mean, before.mean + by, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(value(model, shifted), value(model, batch), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("likelihood", LIKELIHOODS[:3])
def test_units_of_a_window_change_its_density_by_the_jacobian(likelihood: dict[str, Any]) -> None:
    model, batch = trained(relative="scale", likelihood=likelihood), windows()
    twice = torch.arange(TIME)[None, :, None] < 5  # a scale needs some values
    batch = replace(batch, seen=batch.seen | twice, targets=batch.targets & ~twice)
    model, batch = model.double(), replace(batch, values=batch.values.double())
    factor = torch.tensor([4.0, 0.5, 3.0]).double()
    scaled = replace(batch, values=batch.values * factor - 7)
    expected = value(model, batch) - (batch.targets * factor.log()).sum((1, 2))
    torch.testing.assert_close(value(model, scaled), expected)


def test_levels_count_where_they_are_to() -> None:
    model, batch = trained(relative="network"), windows()
    torch.manual_seed(1)
    before = model.predictive(batch, 1).mean
    torch.manual_seed(1)
    after = model.predictive(replace(batch, values=batch.values + 3), 1).mean
    assert not torch.allclose(after, before + 3, atol=0.1)


def test_networks_are_told_no_levels() -> None:
    model, batch = trained(relative="network"), windows()
    before = model.read(batch)
    after = model.read(replace(batch, values=batch.values + torch.tensor([50.0, -9.0, 2.0])))
    torch.testing.assert_close(after.context, before.context, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(after.given, before.given, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("regular", [True, False])
def test_padding_is_as_if_the_window_ended(regular: bool) -> None:
    model, batch = trained(), windows(regular=regular)
    short = 7
    ended = Windows(
        values=batch.values[:, :short],
        known=batch.known[:, :short],
        seen=batch.seen[:, :short],
        targets=batch.targets[:, :short],
        times=batch.times[:, :short],
        present=batch.present[:, :short],
        origin=batch.origin,
    )
    there = torch.arange(TIME) < short
    mask = there[None, :, None]
    padded = replace(
        batch,
        values=batch.values * mask,
        known=batch.known & mask,
        seen=batch.seen & mask,
        targets=batch.targets & mask,
        present=there.expand(len(batch), -1),
        times=torch.where(there, batch.times, batch.times[:, 6:7] + torch.arange(TIME) - 6),
    )
    ours, theirs = model.evidence(padded).latents[0], model.evidence(ended).latents[0]
    torch.testing.assert_close(ours.kl(), theirs.kl())
    torch.testing.assert_close(ours.posterior.mean[:, :short], theirs.posterior.mean)
    noise = torch.randn(2, len(batch), TIME, LATENT)
    states = model.states(noise, padded)[:, :, :short]
    torch.testing.assert_close(states, model.states(noise[:, :, :short], ended))


def test_it_takes_windows_of_any_length() -> None:
    model = trained()
    assert model.predictive(windows(time=33), 2).batch_shape == (2, 5, 33, CHANNELS)


def test_an_alternative_is_the_line_one_season_ago() -> None:
    batch = windows()
    cues = conditional.Cues(4)(batch)
    line, ago = cues[:, :, 0], cues[:, :, 3]
    torch.testing.assert_close(line[:, 4:] + ago[:, 4:], line[:, :-4])
    assert not ago[:, :4].any()


def test_gradients_reach_every_parameter() -> None:
    model, batch = trained(season=3).train(), windows()
    (-value(model, batch).mean()).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_windows_without_targets_are_skipped() -> None:
    model, batch = trained(), windows()
    targets = batch.targets.clone()
    targets[1] = False
    observed = model.evidence(replace(batch, targets=targets)).observed
    assert observed is not None
    assert observed.tolist() == [True, False, True, True, True]


def test_the_spectrum_is_that_of_the_dynamics() -> None:
    model = trained()
    spectrum = model.spectrum([windows(), windows()])
    assert spectrum is not None
    torch.testing.assert_close(
        spectrum.eigenvalues, model.dynamics.eigenvalues.to(torch.complex64).detach()
    )
    assert spectrum.energy.sum().item() == pytest.approx(1)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"prior": {"kind": "flow"}}, "made from what is seen"),
        ({"posterior": {"kind": "full-normal"}}, "relative to the prior"),
        (
            {
                "likelihood": {"kind": "sigma-vae"},
                "model": {"kind": "koopman-vae", "relative": "scale"},
            },
            "one for all",
        ),
        ({"likelihood": {"kind": "bernoulli"}}, "real numbers"),
    ],
)
def test_what_it_cannot_have_is_refused_with_a_reason(
    settings: dict[str, Any], reason: str
) -> None:
    with pytest.raises(ValidationError, match=reason):
        Config.model_validate({"name": "x", "task": {"kind": "impute"}, **settings})


def twins(count: int, time: int = 12) -> Windows:
    """Windows of a random walk and of white noise that two channels have alike."""
    walk, noise = torch.randn(count, time).cumsum(1) / 2, torch.randn(count, time)
    batch = replace(windows(count, time), values=torch.stack([walk, noise, noise], -1))
    share = torch.rand(count, time, CHANNELS)
    return replace(batch, seen=share < 0.6, targets=share >= 0.6)


@pytest.mark.slow
def test_it_learns_from_other_channels_and_its_intervals_cover() -> None:
    """White noise is hidden in both twins with probability .4: else it can be copied."""
    model = build(relative="network", likelihood=NORMAL).train()
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for step in range(400):
        optimizer.param_groups[0]["lr"] = 1e-2 * (1 - step / 400)
        loss = -value(model, twins(128), step).mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
    batch = twins(500)
    with torch.no_grad():
        predicted = model.eval().predictive(batch, 64)
        mean, draws = predicted.mean.mean(0), predicted.sample()
    error = torch.where(batch.targets, (mean - batch.values).abs(), 0)[..., 1:]
    found = float(error.sum() / batch.targets[..., 1:].sum())
    best = 0.4 * math.sqrt(2 / math.pi)  # E|x| of a standard Normal, where both are hidden
    assert best * 0.9 < found < best * 1.25
    low, high = torch.quantile(draws, torch.tensor([0.05, 0.95]), dim=0)
    inside = (batch.values >= low) & (batch.values <= high)
    both = batch.targets[..., 1:].all(-1)
    assert 0.84 < float(inside[..., 1][both].float().mean()) < 0.96
    assert 0.84 < float(inside[..., 0][batch.targets[..., 0]].float().mean()) < 0.96
