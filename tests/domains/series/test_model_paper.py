from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from core.variational.diagnostics import looking_at
from core.variational.objectives import ELBO, IWAE, elbo_of
from domains.series.config import Config
from domains.series.data import Dataset, WindowBatches, Windows, load, prepare
from domains.series.model.paper import (
    PaperKoopmanVAE,
    build,
    least_squares,
    modes,
    prediction_error,
)


def settings(**changes: Any) -> Config:
    data = {"source": "sines", "windows": 60, "window": 10, "split": "windows"}
    return Config.model_validate(
        {
            "name": "paper",
            "data": data | changes.pop("data", {}),
            "model": {"kind": "koopman-vae-paper", "latent": 4, "hidden": 6, "layers": 2}
            | changes.pop("model", {}),
            "likelihood": {"kind": "sigma-vae", "shared": False},
            "training": {"batch": 8},
            **changes,
        }
    )


def prepared(config: Config, folder: Path) -> tuple[PaperKoopmanVAE, Dataset, Windows]:
    prepare(config, folder)
    dataset = load(folder)
    torch.manual_seed(0)
    return build(config, dataset), dataset, WindowBatches(dataset, "train", config).batch(0, 0)


def padded(batch: Windows, rows: int) -> Windows:
    """The same windows with rows of padding whose values are rubbish."""

    def longer(tensor: torch.Tensor, filler: float) -> torch.Tensor:
        more = torch.full((len(tensor), rows, *tensor.shape[2:]), filler).to(tensor)
        return torch.cat([tensor, more], 1)

    return Windows(
        values=longer(batch.values, 99.0),
        known=longer(batch.known, 0),
        seen=longer(batch.seen, 0),
        targets=longer(batch.targets, 0),
        times=torch.cat([batch.times, batch.times[:, -1:] + torch.arange(1, rows + 1)], 1),
        present=longer(batch.present, 0),
        origin=batch.origin,
    )


def kl_of_steps(posterior: Any, prior: Any) -> torch.Tensor:
    """torch's KL of each step in double precision, ``(samples, batch, time)``."""
    q, p = (
        torch.distributions.Normal(each.loc.double(), each.scale.double())
        for each in (posterior, prior)
    )
    return torch.distributions.kl_divergence(q, p).sum(-1)


def test_it_has_the_parameters_of_the_published_one_and_weights_of_the_masks(
    tmp_path: Path,
) -> None:
    model = {"latent": 16, "hidden": 20, "layers": 3}
    config = settings(data={"source": "google-stock", "windows": 60}, model=model)
    network, dataset, _ = prepared(config, tmp_path)
    masks = 2 * 3 * 20 * len(dataset.channels)  # both directions, three gates
    counted = [p for name, p in network.named_parameters() if not name.endswith("log_scale")]
    assert sum(p.numel() for p in counted) == 42_270 + masks


def test_its_loss_is_the_published_one_over_the_weight_of_the_kl(tmp_path: Path) -> None:
    w_rec, w_kl, w_pred = 1.0, 0.009, 0.03
    scale = (w_kl / 2 / w_rec) ** 0.5
    config = settings(
        likelihood={"kind": "normal", "scale": scale}, model={"prediction_weight": w_pred / w_kl}
    )
    model, _, batch = prepared(config, tmp_path)
    with looking_at(model, 0):
        evidence = model.evidence(batch)
        loss = ELBO()(evidence).loss
        torch.manual_seed(0)
        _, paths = model.prior(len(batch), 10, like=batch.values)
        z = model.posterior(batch).rsample(torch.Size((1,)))
        squares = (model.decode(z, batch.present).mean - batch.values).square().sum() / len(batch)
    kl = evidence.latents[0].kl().mean()
    operator = np.linalg.lstsq(
        paths[:, :-1].reshape(-1, 4).numpy(), paths[:, 1:].reshape(-1, 4).numpy()
    )[0]
    predicted = paths[:, :-1].numpy() @ operator
    penalty = ((predicted - paths[:, 1:].numpy()) ** 2).mean() / np.linalg.norm(predicted)
    constant = 10 * 5 * (np.log(scale) + 0.5 * np.log(2 * np.pi))
    published = w_rec * squares + w_kl * kl + w_pred * penalty
    torch.testing.assert_close(loss, (published / w_kl + constant).float(), rtol=1e-4, atol=1e-3)


def test_its_kl_is_that_of_each_step_from_the_priors_own_path(tmp_path: Path) -> None:
    model, _, batch = prepared(settings(), tmp_path)
    latent = model.evidence(batch, samples=3).latents[0]
    expected = kl_of_steps(latent.posterior, latent.prior).sum(-1)
    torch.testing.assert_close(latent.kl().double(), expected, rtol=1e-5, atol=1e-4)
    assert latent.prior.batch_shape == (3, 8)


def test_no_objective_calls_its_value_a_bound(tmp_path: Path) -> None:
    model, _, batch = prepared(settings(), tmp_path)
    evidence = model.evidence(batch, samples=2)
    assert {elbo_of(evidence).bound, ELBO(2)(evidence).bound, IWAE(2)(evidence).bound} == {"none"}


def test_the_operator_is_numpys_least_squares() -> None:
    rng = np.random.default_rng(0)
    past, future = rng.normal(size=(2, 200, 6))
    found = least_squares(torch.from_numpy(past), torch.from_numpy(future))
    np.testing.assert_allclose(found, np.linalg.lstsq(past, future)[0], atol=1e-8)


def test_a_latent_that_is_always_zero_leaves_the_operator_finite() -> None:
    past = torch.randn(50, 3)
    past[:, 1] = 0
    assert least_squares(past, past.roll(1, 0)).isfinite().all()


def test_linear_dynamics_are_predicted_without_error_and_their_modes_found() -> None:
    turn = np.array([[np.cos(0.7), np.sin(0.7)], [-np.sin(0.7), np.cos(0.7)]])
    operator = np.zeros((3, 3))
    operator[:2, :2], operator[2, 2] = 0.9 * turn, 0.5
    change = np.random.default_rng(1).normal(size=(3, 3))
    operator = torch.from_numpy(np.linalg.inv(change) @ operator @ change)
    path = [torch.randn(30, 3, dtype=torch.float64)]
    for _ in range(7):
        path.append(path[-1] @ operator)
    paths = torch.stack(path, 1)
    assert prediction_error(paths, 4).max() < 1e-12
    found = modes(paths)
    assert len(found.eigenvalues) == 2
    order = found.eigenvalues.abs().argsort(descending=True)
    torch.testing.assert_close(found.eigenvalues.abs()[order], torch.tensor([0.9, 0.5]))
    torch.testing.assert_close(found.periods[order], torch.tensor([2 * np.pi / 0.7, np.inf]))
    half_lives = np.log(2) / -np.log([0.9, 0.5])
    torch.testing.assert_close(found.half_lives[order], torch.tensor(half_lives).float())
    torch.testing.assert_close(found.energy.sum(), torch.tensor(1.0))


def test_paths_too_short_to_predict_are_refused() -> None:
    with pytest.raises(ValueError, match="3 steps ahead in paths of 3 rows"):
        prediction_error(torch.randn(4, 3, 2), 3)


def test_its_gradient_reaches_every_parameter(tmp_path: Path) -> None:
    model, _, batch = prepared(settings(), tmp_path)
    ELBO()(model.evidence(batch)).loss.backward()
    idle = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert idle == []


def test_a_hidden_value_changes_nothing(tmp_path: Path) -> None:
    model, _, batch = prepared(settings(), tmp_path)
    seen = batch.seen & (torch.rand(batch.seen.shape) < 0.7)
    one = replace(batch, seen=seen, targets=seen)
    other = replace(one, values=torch.where(seen, one.values, 7.0))
    values = []
    for each in (one, other):
        with looking_at(model, 3):
            values.append((elbo_of(model.evidence(each)).value, model.predictive(each, 2).mean))
    torch.testing.assert_close(values[0], values[1], rtol=0, atol=0)


def test_padding_changes_neither_posterior_nor_decoder_nor_kl(tmp_path: Path) -> None:
    model, _, batch = prepared(settings(), tmp_path)
    longer = padded(batch, 4)
    for training in (True, False):
        model.train(training)
        posterior, same = model.posterior(batch), model.posterior(longer)
        torch.testing.assert_close(same.loc[:, :10], posterior.loc)
        torch.testing.assert_close(same.scale[:, :10], posterior.scale)
    z = torch.randn(2, 8, 14, 4)
    torch.testing.assert_close(
        model.decode(z, longer.present).mean[:, :, :10],
        model.decode(z[:, :, :10], batch.present).mean,
    )
    latent = model.evidence(longer).latents[0]
    kl = kl_of_steps(latent.posterior, latent.prior)
    assert (kl[:, :, 10:] == 0).all()
    assert (kl[:, :, :10] > 0).all()


def test_only_min_max_data_are_squashed(tmp_path: Path) -> None:
    for scaling in ("min-max", "standard"):
        config = settings(data={"scaling": scaling})
        model, _, batch = prepared(config, tmp_path / scaling)
        with torch.no_grad():
            head = model.likelihood.head
            bias = head.head.bias if scaling == "min-max" else head.bias
            bias.fill_(5.0)
        mean = model.eval().generative(batch.times).mean
        assert (mean.max() <= 1) == (scaling == "min-max")


def test_generated_windows_are_means_unless_noise_is_asked_for(tmp_path: Path) -> None:
    drawn = {}
    for noise in (False, True):
        config = settings(model={"noise": noise}, likelihood={"kind": "normal", "scale": 3.0})
        model, _, batch = prepared(config, tmp_path / str(noise))
        with looking_at(model, 0):
            drawn[noise] = model.draw_windows(batch.times)
    assert drawn[True].shape == drawn[False].shape == (8, 10, 5)
    assert (drawn[True] - drawn[False]).std() == pytest.approx(3.0, rel=0.15)


def test_its_spectrum_has_all_of_the_energy(tmp_path: Path) -> None:
    model, _, batch = prepared(settings(), tmp_path)
    with looking_at(model, 0):
        found = model.spectrum([batch])
    assert found.energy.sum() == pytest.approx(1.0, abs=1e-5)
    assert (found.energy[:-1] >= found.energy[1:]).all()
    assert (found.eigenvalues.imag >= 0).all()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"posterior": {"kind": "flow"}}, "its posterior is 'diagonal-normal'"),
        ({"prior": {"kind": "mixture"}}, "its prior is a recurrent network of its own"),
    ],
)
def test_it_refuses_other_latents(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        settings(**changes)


@pytest.mark.slow
def test_training_makes_its_windows_as_smooth_as_the_sines_are(tmp_path: Path) -> None:
    config = settings(
        data={"windows": 1000, "window": 24, "scaling": "min-max"},
        model={"latent": 8, "hidden": 16, "layers": 1},
        likelihood={"kind": "normal", "scale": 0.06},
        training={"batch": 64},
    )
    model, dataset, batch = prepared(config, tmp_path)
    batches = WindowBatches(dataset, "train", config)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    with looking_at(model, 0):
        before = elbo_of(model.evidence(batch)).value
    for epoch in range(40):
        for index in range(len(batches)):
            optimizer.zero_grad()
            ELBO()(model.evidence(batches.batch(epoch, index))).loss.backward()
            optimizer.step()
    with looking_at(model, 0):
        after = elbo_of(model.evidence(batch)).value
        times = batch.times[:1].expand(500, -1)
        generated = model.draw_windows(times)
    real = batch.values
    assert after > before + 100
    # Steps of the sines are 0.08 of their spread; those of unrelated values 1.4 times it.
    step = [each.diff(dim=1).std() / each.std() for each in (generated, real)]
    assert step[0] < 3 * step[1]
    assert (generated.mean((0, 1)) - real.mean((0, 1))).abs().max() < 0.15
