"""The structured Koopman VAE against exact likelihoods and smoothers of linear systems."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.distributions import MultivariateNormal

from core.variational.distributions import DiagonalNormal
from core.variational.dynamics import (
    GaussMarkov,
    GaussMarkovPosterior,
    LinearDynamics,
    Steps,
    as_gauss_markov,
    sequential_kalman_filter,
    sequential_rts_smoother,
)
from core.variational.likelihoods import NormalLikelihood
from domains.series.data import Windows
from domains.series.model.rows import RowEncoder, RowNetwork
from domains.series.model.structured import StructuredKoopmanVAE

TIME, CHANNELS, LATENT, BATCH = 9, 3, 4, 5


def windows(
    values: torch.Tensor,
    seen: torch.Tensor | None = None,
    times: torch.Tensor | None = None,
    present: torch.Tensor | None = None,
) -> Windows:
    """Windows of values that are explained where they are seen."""
    shape = values.shape
    known = (
        torch.ones(shape, dtype=torch.bool)
        if present is None
        else present[..., None].expand(shape)
    )
    seen = known if seen is None else seen & known
    return Windows(
        values=torch.where(known, values, 0.0),
        known=known,
        seen=seen,
        targets=seen,
        times=torch.arange(shape[1]).to(values).expand(shape[:2]) if times is None else times,
        present=torch.ones(shape[:2], dtype=torch.bool) if present is None else present,
        origin=torch.zeros(shape[0], 2, dtype=torch.long),
    )


def linear_system(seed: int = 0, stationary: bool = False) -> StructuredKoopmanVAE:
    """A linear dynamical system of two damped modes in double precision."""
    torch.manual_seed(seed)
    prior = LinearDynamics(
        LATENT, "stable", stationary=stationary, half_lives=(3.0, 9.0), periods=(5.0, 11.0)
    )
    likelihood = NormalLikelihood(LATENT, CHANNELS, 0.4, "per_variable", event_dims=2)
    model = StructuredKoopmanVAE(prior, None, None, RowNetwork(LATENT, 1, 0), likelihood).double()
    with torch.no_grad():
        model.likelihood.head.weight.normal_()
        model.likelihood.log_scale.normal_().mul_(0.3).sub_(0.5)
        if not stationary:
            prior.loc.normal_()
    return model


def data(
    seed: int = 1, irregular: bool = False, missing: float = 0.0, padded: bool = False
) -> Windows:
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(BATCH, TIME, CHANNELS, generator=generator, dtype=torch.float64)
    times = None
    if irregular:
        steps = 0.2 + 2 * torch.rand(BATCH, TIME, generator=generator, dtype=torch.float64)
        times = steps.cumsum(1) - steps[:, :1]
    seen = torch.rand(values.shape, generator=generator) >= missing
    present = None
    if padded:
        lengths = torch.tensor([TIME, 4, 7, TIME, 5])
        present = torch.arange(TIME) < lengths[:, None]
    return windows(values, seen, times=times, present=present)


def dense_system(
    model: StructuredKoopmanVAE, times: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Mean and covariance of the states and the measurement matrix of one window, all rows."""
    time = len(times)
    path = as_gauss_markov(model.prior.path(time, Steps(times=times)))
    means, covariance = [path.offset[..., 0, :].reshape(-1, LATENT)[0]], {}
    transition = path.transition.reshape(-1, time - 1, LATENT, LATENT)[0]
    noise = (path.scale_tril @ path.scale_tril.mT).reshape(-1, time, LATENT, LATENT)[0]
    covariance[0, 0] = noise[0]
    for t in range(1, time):
        means.append(transition[t - 1] @ means[-1])
        for s in range(t):
            covariance[t, s] = transition[t - 1] @ covariance[t - 1, s]
            covariance[s, t] = covariance[t, s].T
        covariance[t, t] = (
            transition[t - 1] @ covariance[t - 1, t - 1] @ transition[t - 1].T + noise[t]
        )
    rows = [torch.cat([covariance[t, s] for s in range(time)], 1) for t in range(time)]
    emission = torch.block_diag(*[model.likelihood.head.weight] * time)
    return torch.cat(means), torch.cat(rows), emission


def dense_marginal(model: StructuredKoopmanVAE, batch: Windows, index: int) -> MultivariateNormal:
    """The Normal of all values of a window, written out."""
    mean, covariance, emission = dense_system(model, batch.times[index])
    noise = model.noise.square().repeat(batch.values.shape[1]).diag()
    offset = model.likelihood.head.bias.repeat(batch.values.shape[1])
    return MultivariateNormal(emission @ mean + offset, emission @ covariance @ emission.T + noise)


def dense_log_prob(
    model: StructuredKoopmanVAE, batch: Windows, mask: torch.Tensor
) -> torch.Tensor:
    """The log-density of the masked values of each window, from the dense Normal."""
    found = []
    for index in range(len(batch)):
        there = mask[index].flatten()
        whole = dense_marginal(model, batch, index)
        part = MultivariateNormal(whole.mean[there], whole.covariance_matrix[there][:, there])
        found.append(part.log_prob(batch.values[index].flatten()[there]))
    return torch.stack(found)


def recognised(scale: float) -> tuple[StructuredKoopmanVAE, Windows]:
    """A model whose potentials a head gives, set to those of its own orthogonal emissions."""
    torch.manual_seed(3)
    channels = 6
    prior = LinearDynamics(
        LATENT, "stable", stationary=False, half_lives=(3.0, 9.0), periods=(5.0, 11.0)
    )
    likelihood = NormalLikelihood(LATENT, channels, scale, "shared", event_dims=2)
    posterior = GaussMarkovPosterior(2 * channels, prior)
    encoder = RowEncoder(channels, 1, 0)
    decoder = RowNetwork(LATENT, 1, 0)
    model = StructuredKoopmanVAE(prior, encoder, posterior, decoder, likelihood).double()
    lengths = torch.tensor([2.0, 0.7, 1.0, 1.5]).double()
    with torch.no_grad():
        emission = torch.linalg.qr(torch.randn(channels, LATENT).double())[0] * lengths
        likelihood.head.weight.copy_(emission)
        inverse = (emission / lengths.square()).T
        posterior.head.weight.zero_()
        posterior.head.weight[:LATENT, :channels] = inverse
        posterior.head.bias[:LATENT] = -inverse @ likelihood.head.bias
        posterior.head.bias[LATENT:] = model.noise[0].log() - lengths.log()
    values = torch.randn(BATCH, TIME, channels).double()
    rows = (torch.rand(BATCH, TIME, 1) < 0.7).expand(values.shape)
    steps = 0.2 + 2 * torch.rand(BATCH, TIME).double()
    return model, windows(values, rows, times=steps.cumsum(1) - steps[:, :1])


CASES = [
    pytest.param({}, id="regular"),
    pytest.param({"irregular": True}, id="irregular"),
    pytest.param({"missing": 0.4}, id="missing"),
    pytest.param({"irregular": True, "missing": 0.4}, id="irregular-and-missing"),
]


@torch.no_grad()
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("stationary", [False, True])
def test_every_draw_of_an_exact_posterior_gives_the_log_likelihood(
    case: dict, stationary: bool
) -> None:
    model, batch = linear_system(stationary=stationary), data(**case)
    truth = dense_log_prob(model, batch, batch.seen)
    ratios = model.evidence(batch, 3).log_joint_ratio()
    assert (ratios - truth).abs().max() < 1e-8
    assert (model.log_evidence(batch) - truth).abs().max() < 1e-8


@torch.no_grad()
@pytest.mark.parametrize("case", CASES)
def test_the_elbo_of_an_exact_posterior_is_the_log_likelihood(case: dict) -> None:
    model, batch = linear_system(), data(**case)
    expected, scale = model.interpolated(batch)
    squares = (batch.values - expected).square() + scale.square() - model.noise.square()
    normal = DiagonalNormal(torch.zeros(CHANNELS).double(), model.noise, event_dims=0)
    terms = normal.log_prob(squares.sqrt())  # the expectation over the posterior, in closed form
    kl = model.evidence(batch).latents[0].kl()[0]
    elbo = torch.where(batch.seen, terms, 0.0).sum((1, 2)) - kl
    assert (elbo - dense_log_prob(model, batch, batch.seen)).abs().max() < 1e-8


@torch.no_grad()
@pytest.mark.parametrize("case", CASES)
def test_hidden_values_are_imputed_as_the_dense_normal_conditions(case: dict) -> None:
    model, batch = linear_system(), data(**case)
    batch = batch.seeing(torch.rand(batch.values.shape) < 0.6)
    mean, scale = model.interpolated(batch)
    for index in range(len(batch)):
        whole, seen = dense_marginal(model, batch, index), batch.seen[index].flatten()
        between = whole.covariance_matrix[~seen][:, seen]
        gain = between @ torch.linalg.inv(whole.covariance_matrix[seen][:, seen])
        expected = whole.mean[~seen] + gain @ (
            batch.values[index].flatten()[seen] - whole.mean[seen]
        )
        variance = (whole.covariance_matrix[~seen][:, ~seen] - gain @ between.T).diagonal()
        hidden = ~batch.seen[index]
        assert (mean[index][hidden] - expected).abs().max() < 1e-8
        assert (scale[index][hidden] - variance.sqrt()).abs().max() < 1e-8


@torch.no_grad()
@pytest.mark.parametrize("case", CASES)
def test_states_are_those_of_a_sequential_smoother(case: dict) -> None:
    model, batch = linear_system(), data(**case)
    space = model.state_space(batch)
    filtered = sequential_kalman_filter(space, batch.values, batch.seen)
    smoothed = sequential_rts_smoother(space, filtered)
    path = model.encode(batch)
    assert isinstance(path, GaussMarkov)
    assert (path.mean - smoothed.loc).abs().max() < 1e-8
    assert (path.covariance_matrix - smoothed.covariance).abs().max() < 1e-8
    assert (model.surprise_ahead(batch) + filtered.step_log_likelihood).abs().max() < 1e-8


@torch.no_grad()
@pytest.mark.parametrize("case", CASES)
def test_hidden_targets_are_explained_given_what_is_seen(case: dict) -> None:
    model, batch = linear_system(), data(**case)
    hidden = batch.known & (torch.rand(batch.values.shape) < 0.3)
    task = replace(batch, seen=batch.seen & ~hidden, targets=hidden)
    everything = dense_log_prob(model, batch, task.seen | task.targets)
    conditional = everything - dense_log_prob(model, batch, task.seen)
    assert (model.evidence(task, 2).log_joint_ratio() - conditional).abs().max() < 1e-8


@torch.no_grad()
def test_a_recognition_head_can_be_set_to_the_exact_potentials() -> None:
    model, batch = recognised(scale=0.6)
    truth = dense_log_prob(model, batch, batch.seen)
    assert (model.evidence(batch, 3).log_joint_ratio() - truth).abs().max() < 1e-8


@torch.no_grad()
def test_padding_changes_nothing() -> None:
    model, batch = linear_system(), data(padded=True, missing=0.2)
    torch.manual_seed(0)
    whole = model.evidence(batch).log_joint_ratio()[0]
    for index, length in enumerate(batch.present.sum(1).tolist()):
        cut = windows(
            batch.values[index : index + 1, :length], batch.seen[index : index + 1, :length]
        )
        assert (model.log_evidence(cut) - whole[index]).abs() < 1e-8


@torch.no_grad()
@pytest.mark.parametrize("irregular", [False, True])
def test_generated_windows_have_the_moments_of_the_dense_normal(irregular: bool) -> None:
    model = linear_system(stationary=True)
    times = data(irregular=irregular).times[:1]
    torch.manual_seed(0)
    drawn = model.draw_windows(times.expand(40_000, -1)).flatten(1)
    truth = dense_marginal(model, windows(torch.zeros(1, TIME, CHANNELS).double(), times=times), 0)
    spread = truth.stddev
    assert ((drawn.mean(0) - truth.mean) / spread).abs().max() < 0.03
    error = (torch.cov(drawn.T) - truth.covariance_matrix) / spread / spread[:, None]
    assert error.abs().max() < 0.04


@torch.no_grad()
def test_predictions_average_to_the_exact_interpolation() -> None:
    model, batch = linear_system(), data(missing=0.5, irregular=True)
    torch.manual_seed(0)
    mean, scale = model.interpolated(batch)
    parts = model.predictive(batch, 20_000)
    assert parts.batch_shape == (20_000, *batch.values.shape)
    assert ((parts.mean.mean(0) - mean) / scale).abs().max() < 0.04
    drawn = model.predict(batch, 20_000)
    assert (drawn[:, batch.seen] == batch.values[batch.seen]).all()
    ratio = drawn.std(0)[~batch.seen] / scale[~batch.seen]
    assert (ratio - 1).abs().max() < 0.04
