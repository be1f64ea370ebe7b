from __future__ import annotations

import copy
import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, MultivariateNormal, kl_divergence

from core.variational.distributions import DiagonalNormal, stop_gradient
from core.variational.divergences import kl
from core.variational.dynamics import (
    ConditionalNormals,
    GaussMarkov,
    GaussMarkovPosterior,
    LinearDynamics,
    LinearDynamicsPath,
    MarkovPosterior,
    StateSpace,
    Steps,
    as_gauss_markov,
    associative_scan,
    conditional_kl,
    cut_padding,
    dense,
    kalman_filter,
    kl_examples,
    rollout_latent,
    rts_smoother,
    sequence_evidence,
    sequence_latent,
    sequential_kalman_filter,
    sequential_rts_smoother,
    smoothing_distribution,
)
from core.variational.dynamics.linear_dynamics import SPECTRA
from core.variational.evidence import Latent
from core.variational.objectives import ELBO

seeds = st.integers(0, 10_000)


def normal(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def tril(*shape: int, seed: int = 0) -> Tensor:
    raw = 0.5 * normal(*shape, seed=seed)
    return raw.tril(-1) + torch.diag_embed(raw.diagonal(dim1=-2, dim2=-1).exp())


def chain(
    time: int = 5, latent: int = 2, batch: tuple[int, ...] = (3,), seed: int = 0
) -> GaussMarkov:
    return GaussMarkov(
        0.6 * normal(*batch, time - 1, latent, latent, seed=seed),
        normal(*batch, time, latent, seed=seed + 1),
        tril(*batch, time, latent, latent, seed=seed + 2),
    )


def state_space(time: int = 5, latent: int = 2, feature: int = 3, seed: int = 0) -> StateSpace:
    """Everything full, varying with time and example."""
    return StateSpace(
        chain(time, latent, seed=seed),
        normal(3, time, feature, latent, seed=seed + 3),
        normal(3, time, feature, seed=seed + 4),
        tril(3, time, feature, feature, seed=seed + 5),
    )


def explicit_joint(path: GaussMarkov) -> MultivariateNormal:
    """The joint distribution by the definition: one step after another, written as a matrix."""
    path = path.expand(path.batch_shape)
    time, latent = path.event_shape
    locs, rows = [], []
    for t in range(time):
        own = path.offset.new_zeros(*path.batch_shape, latent, time * latent)
        own[..., t * latent : (t + 1) * latent] = path.scale_tril[..., t, :, :]
        loc = path.offset[..., t, :]
        if t:
            step = path.transition[..., t - 1, :, :]
            own = own + step @ rows[-1]
            loc = loc + (step @ locs[-1].unsqueeze(-1)).squeeze(-1)
        locs.append(loc)
        rows.append(own)
    root = torch.cat(rows, -2)
    return MultivariateNormal(torch.cat(locs, -1), root @ root.mT)


def explicit_posterior(
    model: StateSpace, y: Tensor, seen: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Log-likelihood, mean and covariance of all states of the first example, densely."""
    path = explicit_joint(model.dynamics)
    time = y.shape[1]
    there = seen[0].flatten()
    emission = torch.block_diag(*model.emission[0])[there]
    noise = torch.block_diag(*(model.noise_tril[0] @ model.noise_tril[0].mT))[there][:, there]
    prior, loc = path.covariance_matrix[0], path.mean[0]
    spread = emission @ prior @ emission.T + noise
    expected = emission @ loc + model.offset[0].flatten()[there]
    surprise = y[0].flatten()[there] - expected
    gain = torch.linalg.solve(spread, emission @ prior).T
    log_likelihood = MultivariateNormal(expected, spread).log_prob(y[0].flatten()[there])
    assert len(loc) == time * model.dynamics.event_shape[1]
    return log_likelihood, loc + gain @ surprise, prior - gain @ spread @ gain.T


def close(ours: Tensor, theirs: Tensor, atol: float = 1e-9) -> None:
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=atol)


# The scan


@given(length=st.integers(1, 20), reverse=st.booleans(), seed=seeds)
@settings(max_examples=30, deadline=None)
def test_scan_of_matrix_products_is_the_loop(length: int, reverse: bool, seed: int) -> None:
    matrices = normal(length, 2, 2, seed=seed)

    def multiply(first: tuple[Tensor, ...], second: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (first[0] @ second[0],)

    (scanned,) = associative_scan(multiply, (matrices,), dim=-3, reverse=reverse)
    for t in range(length):
        factors = matrices[t:] if reverse else matrices[: t + 1]
        product = torch.linalg.multi_dot([torch.eye(2).double(), *factors])
        close(scanned[t], product)


# Kalman filter and smoother


@given(time=st.integers(1, 9), seed=seeds)
@settings(max_examples=20, deadline=None)
def test_filter_and_smoother_by_scan_are_the_sequential_ones(time: int, seed: int) -> None:
    model, y = state_space(time, seed=seed), normal(3, time, 3, seed=seed + 6)
    seen = normal(3, time, 3, seed=seed + 7) > 0
    scanned, stepped = kalman_filter(model, y, seen), sequential_kalman_filter(model, y, seen)
    close(scanned.loc, stepped.loc)
    close(scanned.covariance, stepped.covariance)
    close(scanned.step_log_likelihood, stepped.step_log_likelihood)
    smooth, reference = rts_smoother(model, scanned), sequential_rts_smoother(model, stepped)
    close(smooth.loc, reference.loc)
    close(smooth.covariance, reference.covariance)
    close(smooth.lag_covariance, reference.lag_covariance)


@given(seed=seeds)
@settings(max_examples=15, deadline=None)
def test_filter_smoother_and_joint_are_the_dense_conditional_distribution(seed: int) -> None:
    model, y = state_space(seed=seed), normal(3, 5, 3, seed=seed + 6)
    seen = normal(3, 5, 3, seed=seed + 7) > 0
    log_likelihood, loc, covariance = explicit_posterior(model, y, seen)
    filtered = kalman_filter(model, y, seen)
    close(filtered.log_likelihood[0], log_likelihood)
    smoothed = rts_smoother(model, filtered)
    blocks = covariance.unflatten(0, (5, 2)).unflatten(2, (5, 2))
    close(smoothed.loc[0].flatten(), loc)
    for t in range(5):
        close(smoothed.covariance[0, t], blocks[t, :, t])
    for t in range(4):
        close(smoothed.lag_covariance[0, t], blocks[t + 1, :, t])
    joint = explicit_joint(smoothing_distribution(model, y, seen))
    close(joint.mean[0], loc)
    close(joint.covariance_matrix[0], covariance)


def test_one_mask_a_step_is_the_mask_of_all_its_features() -> None:
    model, y = state_space(), normal(3, 5, 3)
    seen = normal(3, 5, seed=9) > 0
    whole = kalman_filter(model, y, seen)
    each = kalman_filter(model, y, seen[..., None].expand(3, 5, 3))
    close(whole.log_likelihood, each.log_likelihood)


def test_parameters_without_time_and_batch_are_broadcast() -> None:
    model, y = state_space(), normal(3, 5, 3)
    lean = StateSpace(
        GaussMarkov(
            model.dynamics.transition[0], model.dynamics.offset[0], model.dynamics.scale_tril[0]
        ),
        model.emission[0, 0],
        model.offset[0, 0],
        model.noise_tril[0, 0],
    )
    full = StateSpace(
        lean.dynamics.expand((3,)),
        lean.emission.expand(3, 5, 3, 2),
        lean.offset.expand(3, 5, 3),
        lean.noise_tril.expand(3, 5, 3, 3),
    )
    ours, theirs = smoothing_distribution(lean, y), smoothing_distribution(full, y)
    assert ours.batch_shape == (3,)
    close(ours.mean, theirs.mean)
    close(kalman_filter(lean, y).loc, sequential_kalman_filter(full, y).loc)


def test_gradients_through_the_scan_are_those_through_the_loop() -> None:
    y = normal(3, 7, 3, seed=6)
    seen = normal(3, 7, seed=7) > -0.5
    gradients = []
    for filtering in (kalman_filter, sequential_kalman_filter):
        model = state_space(7)
        leaves = [model.emission, model.noise_tril, model.dynamics.transition]
        leaves += [model.dynamics.offset, model.dynamics.scale_tril]
        for leaf in leaves:
            leaf.requires_grad_()
        total = filtering(model, y, seen).log_likelihood.sum()
        gradients.append(torch.autograd.grad(total, leaves))
    for ours, theirs in zip(*gradients, strict=True):
        close(ours, theirs, atol=1e-8)


def test_samples_of_the_smoothing_distribution_have_its_moments() -> None:
    model, y = state_space(), normal(3, 5, 3)
    joint = smoothing_distribution(model, y)
    z = joint.rsample((40_000,))[:, 0].flatten(1)
    _, loc, covariance = explicit_posterior(model, y, torch.ones(3, 5, 3, dtype=torch.bool))
    error = (covariance.diagonal() / len(z)).sqrt()
    assert ((z.mean(0) - loc).abs() < 4 * error).all()
    scale = covariance.diagonal().sqrt()
    # The standard error of a correlation is at most 1 / sqrt(n), of a relative variance sqrt(2/n).
    worst = ((torch.cov(z.T) - covariance) / scale / scale[:, None]).abs().max()
    assert worst < 4 * math.sqrt(2 / len(z))


def test_float32_stays_positive_and_close_over_a_thousand_measurements() -> None:
    time = 1000
    turn = torch.tensor([[0.999, -0.02], [0.02, 0.999]]).double()
    path = GaussMarkov(
        turn.expand(time - 1, 2, 2),
        torch.zeros(time, 2).double(),
        torch.eye(2).double().expand(time, 2, 2),
    )
    emission, offset = torch.tensor([[1.0, 0.5]]).double(), torch.zeros(1).double()
    exact = StateSpace(path, emission, offset, torch.tensor([[1e-2]]).double())
    y = exact.observe(path.rsample((2,)))
    single = StateSpace(
        GaussMarkov(path.transition.float(), path.offset.float(), path.scale_tril.float()),
        emission.float(),
        offset.float(),
        exact.noise_tril.float(),
    )
    ours, truth = kalman_filter(single, y.float()), sequential_kalman_filter(exact, y)
    eigenvalues = torch.linalg.eigvalsh(ours.covariance.double())
    assert (eigenvalues > 0).all()
    torch.testing.assert_close(ours.loc.double(), truth.loc, rtol=1e-3, atol=1e-2)
    relative = ours.log_likelihood.double() / truth.log_likelihood - 1
    assert relative.abs().max() < 1e-5
    joint = smoothing_distribution(single, y.float())
    assert joint.rsample().isfinite().all()


def test_what_was_not_observed_reaches_neither_value_nor_gradient() -> None:
    y = normal(3, 5, 3)
    seen = normal(3, 5, 3, seed=7) > 0
    results = []
    for filler in (0.0, math.nan):
        model = state_space()
        model.emission.requires_grad_()
        data = torch.where(seen, y, filler).requires_grad_()
        loss = kalman_filter(model, data, seen).log_likelihood.sum()
        loss = loss + smoothing_distribution(model, data, seen).entropy().sum()
        results.append((loss, *torch.autograd.grad(loss, [model.emission, data])))
    for zero, nan in zip(*results, strict=True):
        assert torch.equal(zero, nan)
    assert (results[1][2][~seen] == 0).all()


def test_padded_steps_leave_the_others_where_they_are() -> None:
    model, y = state_space(6), normal(3, 6, 3)
    dynamics = model.dynamics
    short = StateSpace(
        GaussMarkov(
            dynamics.transition[:, :3], dynamics.offset[:, :4], dynamics.scale_tril[:, :4]
        ),
        model.emission[:, :4],
        model.offset[:, :4],
        model.noise_tril[:, :4],
    )
    present = torch.arange(6).expand(3, 6) < 4
    padded, whole = kalman_filter(model, y, present), kalman_filter(short, y[:, :4])
    close(padded.log_likelihood, whole.log_likelihood)
    close(padded.loc[:, :4], whole.loc)
    ours = smoothing_distribution(model, y, present)
    close(ours.mean[:, :4], smoothing_distribution(short, y[:, :4]).mean)


def test_half_precision_around_the_filter_changes_nothing() -> None:
    model = state_space()
    single = StateSpace(
        GaussMarkov(
            *(
                getattr(model.dynamics, name).float()
                for name in ("transition", "offset", "scale_tril")
            )
        ),
        model.emission.float(),
        model.offset.float(),
        model.noise_tril.float(),
    )
    y = normal(3, 5, 3).float()
    plain = smoothing_distribution(single, y)
    divergence = kl_divergence(plain, single.dynamics)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        under = smoothing_distribution(single, y)
        assert torch.equal(under.scale_tril, plain.scale_tril)
        assert torch.equal(under.log_prob(under.mean), plain.log_prob(plain.mean))
        assert torch.equal(kl_divergence(under, single.dynamics), divergence)


def test_measurements_of_another_shape_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(3, 4, 3\).*\(5, 2\)"):
        kalman_filter(state_space(), normal(3, 4, 3))
    with pytest.raises(ValueError, match="observed"):
        kalman_filter(state_space(), normal(3, 5, 3), torch.ones(3, 4, dtype=torch.bool))


# Gauss-Markov distributions


@given(time=st.integers(1, 7), latent=st.integers(1, 3), seed=seeds)
@settings(max_examples=20, deadline=None)
def test_chain_is_the_dense_normal_of_its_definition(time: int, latent: int, seed: int) -> None:
    path = chain(time, latent, seed=seed)
    joint = explicit_joint(path)
    value = normal(4, 3, time, latent, seed=seed + 8)
    close(path.log_prob(value), joint.log_prob(value.flatten(-2)), atol=1e-7)
    close(path.entropy(), joint.entropy(), atol=1e-8)
    close(path.mean, joint.mean.unflatten(-1, (time, latent)))
    blocks = joint.covariance_matrix.unflatten(1, (time, latent)).unflatten(3, (time, latent))
    for t in range(time):
        close(path.covariance_matrix[:, t], blocks[:, t, :, t])
        if t:
            close(path.lag_covariance[:, t - 1], blocks[:, t, :, t - 1])
    close(dense(path).covariance_matrix, joint.covariance_matrix)


@given(time=st.integers(1, 6), seed=seeds)
@settings(max_examples=20, deadline=None)
def test_sum_of_conditional_kls_is_the_joint_kl(time: int, seed: int) -> None:
    q, p = chain(time, seed=seed), chain(time, seed=seed + 50)
    terms = conditional_kl(q, p)
    assert terms.shape == (3, time)
    assert (terms > -1e-9).all()
    joint = kl_divergence(explicit_joint(q), explicit_joint(p))
    close(terms.sum(-1), joint, atol=1e-6 * float(joint.max()))
    close(kl(q, p)[0], terms.sum(-1))


def test_a_conditional_kl_is_the_expected_kl_of_that_step() -> None:
    q, p = chain(), chain(seed=50)
    before = q.rsample((40_000,))[:, :, 2]  # z_3, from q on both sides

    def step(path: GaussMarkov) -> MultivariateNormal:
        moved = (path.transition[:, 2] @ before.unsqueeze(-1)).squeeze(-1)
        return MultivariateNormal(moved + path.offset[:, 3], scale_tril=path.scale_tril[:, 3])

    draws = kl_divergence(step(q), step(p))
    error = draws.std(0) / math.sqrt(len(draws))
    assert ((draws.mean(0) - conditional_kl(q, p)[:, 3]).abs() < 4 * error).all()


@pytest.mark.parametrize(
    "pair", kl_examples(), ids=lambda pair: f"{pair[0].__name__}-{pair[1].__name__}"
)
def test_closed_form_is_monte_carlo(pair: tuple[type[Distribution], type[Distribution]]) -> None:
    for seed in range(3):
        q, p = kl_examples()[pair](seed)
        assert (type(q), type(p)) == pair
        z = q.rsample((20_000,))
        ratios = q.log_prob(z) - p.log_prob(z)
        errors = (kl_divergence(q, p) - ratios.mean(0)) / (ratios.std(0) / math.sqrt(len(z)))
        assert errors.abs().max() < 4


@pytest.mark.parametrize(
    "pair", kl_examples(), ids=lambda pair: f"{pair[0].__name__}-{pair[1].__name__}"
)
def test_closed_form_is_the_dense_kl(pair: tuple[type[Distribution], type[Distribution]]) -> None:
    q, p = kl_examples()[pair](7)
    joint = kl_divergence(explicit_joint(as_gauss_markov(q)), explicit_joint(as_gauss_markov(p)))
    close(kl_divergence(q, p), joint, atol=1e-8)


@given(seed=seeds, log_scale=st.floats(-3, 3))
@settings(max_examples=20, deadline=None)
def test_kl_is_nothing_for_equals_and_the_same_after_an_affine_map(
    seed: int, log_scale: float
) -> None:
    q, p = chain(seed=seed), chain(seed=seed + 50)
    assert kl_divergence(q, q).abs().max() < 1e-9
    single = GaussMarkov(
        q.transition.float(), q.offset.float(), 10**log_scale * q.scale_tril.float()
    )
    assert kl_divergence(single, single).abs().max() < 1e-4

    def moved(path: GaussMarkov) -> GaussMarkov:
        # z -> s z + c: A stays, and b becomes s b + c - A c.
        scale, shift = 10**log_scale, 3.0
        carried = (path.transition @ torch.full((2, 1), shift).double()).squeeze(-1)
        carried = nn.functional.pad(carried, (0, 0, 1, 0))
        offset = scale * path.offset + shift - carried
        return GaussMarkov(path.transition, offset, scale * path.scale_tril)

    torch.testing.assert_close(
        kl_divergence(moved(q), moved(p)), kl_divergence(q, p), rtol=1e-6, atol=1e-6
    )


def test_paths_differentiate_with_respect_to_every_parameter() -> None:
    noise = normal(2, 3, 4, 2, seed=3)
    start = chain(4)

    def draw(transition: Tensor, offset: Tensor, scale_tril: Tensor) -> Tensor:
        return GaussMarkov(transition, offset, scale_tril).from_noise(noise)

    def moments(transition: Tensor, offset: Tensor, scale_tril: Tensor) -> tuple[Tensor, Tensor]:
        path = GaussMarkov(transition, offset, scale_tril)
        return path.mean, path.covariance_matrix

    leaves = [start.transition, start.offset, start.scale_tril]
    leaves = [leaf.clone().requires_grad_() for leaf in leaves]
    assert torch.autograd.gradcheck(draw, leaves)
    assert torch.autograd.gradcheck(moments, leaves)


def test_samples_are_drawn_with_the_shapes_asked_for() -> None:
    path = chain()
    assert path.rsample().shape == (3, 5, 2)
    assert path.rsample((4, 6)).shape == (4, 6, 3, 5, 2)
    assert path.expand((7, 3)).rsample((4,)).shape == (4, 7, 3, 5, 2)
    assert path.expand((7, 3)).log_prob(path.rsample()).shape == (7, 3)
    assert path.log_prob(path.rsample((4, 6))).shape == (4, 6, 3)


def test_noise_makes_the_same_path_for_one_sample_as_for_many() -> None:
    path, noise = chain(), normal(4, 3, 5, 2)
    close(path.from_noise(noise)[1], path.from_noise(noise[1]))


@given(time=st.integers(1, 9), seed=seeds)
@settings(max_examples=20, deadline=None)
def test_information_form_is_the_inverse_covariance_and_comes_back(time: int, seed: int) -> None:
    path = chain(time, seed=seed)
    diagonal, lower, linear = path.information()
    joint = explicit_joint(path)
    precision = torch.zeros(3, time, 2, time, 2).double()
    for t in range(time):
        precision[:, t, :, t] = diagonal[:, t]
        if t:
            precision[:, t, :, t - 1] = lower[:, t - 1]
            precision[:, t - 1, :, t] = lower[:, t - 1].mT
    precision = precision.flatten(1, 2).flatten(2)
    close(
        precision @ joint.covariance_matrix,
        torch.eye(2 * time).double().expand_as(precision),
        1e-6,
    )
    close((precision @ joint.mean.unsqueeze(-1)).flatten(1), linear.flatten(1), 1e-6)
    again = GaussMarkov.from_information(diagonal, lower, linear)
    close(again.transition, path.transition, 1e-7)
    close(again.offset, path.offset, 1e-7)
    close(again.scale_tril, path.scale_tril, 1e-7)


def test_smoothing_is_adding_the_information_of_the_measurements() -> None:
    model, y = state_space(), normal(3, 5, 3)
    diagonal, lower, linear = model.dynamics.information()
    precision = torch.cholesky_inverse(model.noise_tril)
    seen = model.emission.mT @ precision
    linear = linear + (seen @ (y - model.offset).unsqueeze(-1)).squeeze(-1)
    added = GaussMarkov.from_information(diagonal + seen @ model.emission, lower, linear)
    smooth = smoothing_distribution(model, y)
    close(smooth.mean, added.mean)
    close(smooth.scale_tril, added.scale_tril)
    close(smooth.transition, added.transition)


def test_moments_first_seen_without_gradients_have_them_later() -> None:
    gradients = []
    for look_first in (False, True):
        leaf = normal(4, 2, 2).requires_grad_()
        path = GaussMarkov(leaf, normal(5, 2), tril(5, 2, 2))
        if look_first:
            with torch.no_grad():
                assert path.log_prob(path.mean).isfinite()
        divergence = kl_divergence(path, chain(batch=()))
        gradients.append(torch.autograd.grad(divergence, leaf)[0])
    assert torch.equal(*gradients)


def test_a_chain_of_half_precision_is_single() -> None:
    path = GaussMarkov(
        torch.zeros(4, 2, 2).half(), torch.zeros(5, 2).half(), torch.eye(2).half().expand(5, 2, 2)
    )
    assert path.entropy().dtype == path.rsample().dtype == torch.float32


@pytest.mark.parametrize(
    "make", [chain, lambda: kl_examples()[LinearDynamicsPath, GaussMarkov](0)[0]]
)
def test_parameters_are_held_fixed_and_the_value_is_not(make: Callable[[], Distribution]) -> None:
    path = make()
    names = [
        name
        for name in ("transition", "offset", "scale_tril", "scale", "loc")
        if hasattr(path, name)
    ]
    for name in names:
        getattr(path, name).requires_grad_()
    value = path.rsample().detach().requires_grad_()
    fixed = stop_gradient(path)
    total = fixed.log_prob(value).sum()
    close(total, path.log_prob(value).sum())
    total.backward()
    assert value.grad is not None
    assert all(getattr(path, name).grad is None for name in names)


def test_parts_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(4, 2, 2\)"):
        GaussMarkov(torch.zeros(5, 2, 2), torch.zeros(5, 2), torch.zeros(5, 2, 2))
    with pytest.raises(ValueError, match="event"):
        chain().log_prob(torch.zeros(3, 4, 2))
    with pytest.raises(ValueError, match="event shapes"):
        kl_divergence(chain(5), chain(4))


def test_a_distribution_that_is_no_chain_has_no_closed_form() -> None:
    laplace = Independent(torch.distributions.Laplace(torch.zeros(3, 5, 2), 1.0), 2)
    value = normal(1, 3, 5, 2)
    assert kl(chain(), laplace, value)[1] is False


# Linear dynamics


def dynamics(
    spectrum: str = "stable", stationary: bool | None = None, seed: int = 0
) -> LinearDynamics:
    if stationary is None:
        stationary = spectrum != "circle"
    prior = LinearDynamics(4, spectrum, stationary, (1.0, 30.0), (4.0, 50.0), 1.3).double()
    with torch.no_grad():
        for i, parameter in enumerate(prior.parameters()):
            parameter.add_(0.3 * normal(*parameter.shape, seed=seed + i))
    return prior


def factorised(batch: int = 3, time: int = 6, latent: int = 4, seed: int = 0) -> DiagonalNormal:
    loc = normal(batch, time, latent, seed=seed)
    return DiagonalNormal(loc, (0.5 * normal(batch, time, latent, seed=seed + 1)).exp(), 2)


KINDS = [("stable", True), ("stable", False), ("circle", False), ("real", True), ("real", False)]


@given(log_rate=st.floats(-15, 3), frequency=st.floats(-10, 10))
@settings(max_examples=50, deadline=None)
def test_eigenvalues_are_inside_the_circle_whatever_the_parameters(
    log_rate: float, frequency: float
) -> None:
    prior = LinearDynamics(2, "stable", True, (1.0, 1.0), (1.0, 1.0)).double()
    nn.init.constant_(prior.log_rate, log_rate)
    nn.init.constant_(prior.frequency, frequency)
    assert prior.eigenvalues.abs() < 1
    posterior = DiagonalNormal(torch.zeros(1, 4, 2), torch.ones(()), 2)
    divergence = kl_divergence(posterior, prior.float()(posterior))
    gradients = torch.autograd.grad(divergence, list(prior.parameters()))
    assert all(gradient.isfinite().all() for gradient in (divergence, *gradients))


def test_spectra_are_what_they_are_called() -> None:
    assert (dynamics("circle").eigenvalues.abs() - 1).abs().max() < 1e-12
    assert not dynamics("real").eigenvalues.is_complex()
    assert (dynamics("circle").half_lives == math.inf).all()
    prior = LinearDynamics(4, "stable", True, (2.0, 20.0), (5.0, 50.0))
    torch.testing.assert_close(prior.half_lives, torch.tensor([2.0, 20.0]))
    torch.testing.assert_close(prior.periods, torch.tensor([5.0, 50.0]))
    torch.testing.assert_close(prior.eigenvalues.abs() ** prior.half_lives, torch.full((2,), 0.5))
    turns = prior.eigenvalues.angle() * prior.periods
    torch.testing.assert_close(turns, torch.full((2,), 2 * math.pi))


@pytest.mark.parametrize(("spectrum", "stationary"), KINDS)
def test_a_step_of_two_is_two_steps_of_one(spectrum: str, stationary: bool) -> None:
    prior = dynamics(spectrum, stationary)
    fine = torch.tensor([[0.0, 1.0, 2.0, 2.7, 3.2]]).double()
    kept = torch.tensor([0, 2, 4])
    whole = explicit_joint(as_gauss_markov(prior(factorised(1, 5), fine)))
    coarse = explicit_joint(as_gauss_markov(prior(factorised(1, 3), fine[:, kept])))
    places = (4 * kept[:, None] + torch.arange(4)).flatten()
    close(coarse.mean, whole.mean[:, places])
    close(coarse.covariance_matrix, whole.covariance_matrix[:, places][:, :, places])


def test_stationary_covariance_is_the_damped_cosine() -> None:
    prior = dynamics("stable")
    times = torch.tensor([[0.0, 0.4, 1.7, 5.0]]).double()
    covariance = explicit_joint(as_gauss_markov(prior(factorised(1, 4), times))).covariance_matrix
    lag = (times[0, :, None] - times[0]).abs()
    for mode in range(2):
        real = covariance[0, 2 * mode :: 4, 2 * mode :: 4]
        rate, frequency = prior.log_rate[mode].exp(), prior.frequency[mode]
        close(real, 1.3**2 * (-rate * lag).exp() * (frequency * lag).cos())


def test_noise_off_the_circle_is_the_integral_over_the_interval() -> None:
    prior = dynamics("stable", stationary=False)
    path = prior(factorised(1, 2), torch.tensor([[0.0, 2.5]]).double())
    grid = (torch.arange(200_000).double() + 0.5) / 200_000 * 2.5
    damped = (-2 * prior.log_rate.exp() * grid[:, None]).exp().mean(0) * 2.5
    expected = prior.log_noise_scale.exp() * damped.sqrt()
    torch.testing.assert_close(path.scale[0, 1], expected, rtol=1e-8, atol=0)


@pytest.mark.parametrize(("spectrum", "stationary"), KINDS)
def test_path_is_its_real_block_form(spectrum: str, stationary: bool) -> None:
    prior = dynamics(spectrum, stationary)
    times = normal(3, 6).exp().cumsum(-1)
    path = prior(factorised(), times)
    blocks = as_gauss_markov(path)
    noise = normal(2, 3, 6, 4)
    close(path.mean, blocks.mean)
    close(path.variance, blocks.variance)
    close(path.entropy(), blocks.entropy())
    close(path.from_noise(noise), blocks.from_noise(noise))
    close(path.log_prob(noise), blocks.log_prob(noise))
    assert path.rsample((2,)).shape == (2, 3, 6, 4)
    assert path.expand((5, 3)).variance.shape == (5, 3, 6, 4)


@pytest.mark.parametrize(("spectrum", "stationary"), KINDS)
def test_prior_takes_any_posterior_over_paths_and_every_parameter_learns(
    spectrum: str, stationary: bool
) -> None:
    prior = dynamics(spectrum, stationary)
    for posterior in (factorised(), chain(6, 4), factorised().expand((2, 3))):
        held = prior(posterior, normal(3, 6).exp().cumsum(-1))
        assert held.batch_shape == posterior.batch_shape
        assert held.event_shape == posterior.event_shape
        divergence, exact = kl(posterior, held)
        assert exact
        assert divergence.shape == posterior.batch_shape
        gradients = torch.autograd.grad(divergence.sum(), list(prior.parameters()))
        assert all(gradient.abs().min() > 0 for gradient in gradients)


def test_kl_of_a_factorised_posterior_takes_no_loop_over_time() -> None:
    counts = []
    for time in (10, 1000):
        posterior, prior = factorised(1, time), dynamics()
        with torch.profiler.profile() as profile:
            kl_divergence(posterior, prior(posterior))
        counts.append(sum(event.count for event in profile.key_averages()))
    assert counts[0] == counts[1]


def test_settings_that_make_no_process_are_refused() -> None:
    ranges = (1.0, 10.0), (4.0, 10.0)
    with pytest.raises(ValueError, match="3 latents"):
        LinearDynamics(3, "stable", True, *ranges)
    with pytest.raises(ValueError, match="stationary"):
        LinearDynamics(4, "circle", True, *ranges)
    with pytest.raises(ValueError, match="positive"):
        LinearDynamics(4, "stable", True, (0.0, 1.0), (1.0, 2.0))
    with pytest.raises(ValueError, match="'spiral'"):
        LinearDynamics(4, "spiral", True, *ranges)
    with pytest.raises(ValueError, match="event_dims"):
        dynamics()(DiagonalNormal(torch.zeros(3, 4), torch.ones(())))
    with pytest.raises(ValueError, match="increase"):
        Steps(times=torch.tensor([[0.0, 1.0, 1.0]]))
    with pytest.raises(ValueError, match="at the end"):
        Steps(present=torch.tensor([[True, False, True]]))
    with pytest.raises(ValueError, match=r"\(4, 2\)"):
        LinearDynamicsPath(torch.zeros(3, 2), torch.ones(5, 2), torch.zeros(2))


# Posteriors over sequences


class LinearModel(nn.Module):
    """A linear-Gaussian sequence model whose emission has orthogonal columns."""

    def __init__(self, spectrum: str = "stable") -> None:
        super().__init__()
        self.prior = dynamics(spectrum)
        self.posterior = GaussMarkovPosterior(6, self.prior).double()
        columns = (
            torch.linalg.qr(normal(6, 4, seed=5)).Q * torch.tensor([2.0, 1.0, 0.5, 1.5]).double()
        )
        self.emission, self.offset = columns, normal(6, seed=6)
        self.scale = 0.7

    def solve(self) -> None:
        """Set the recognition to the likelihood of each latent given its frame."""
        precision = self.emission.square().sum(0) / self.scale**2
        weight = self.emission.T / self.scale**2 / precision[:, None]
        with torch.no_grad():
            self.posterior.head.weight.zero_()[:4] = weight
            self.posterior.head.bias[:4] = -weight @ self.offset
            self.posterior.head.bias[4:] = -0.5 * precision.log()

    def space(self, steps: Steps, time: int) -> StateSpace:
        path = as_gauss_markov(self.prior.path(time, steps))
        return StateSpace(path, self.emission, self.offset, self.scale * torch.eye(6).double())

    def elbo(self, x: Tensor, steps: Steps) -> Tensor:
        """The ELBO without noise: cubature integrates the quadratic likelihood exactly."""
        q = self.posterior(x, steps)
        size = q.event_shape.numel()
        points = math.sqrt(size) * torch.eye(size).double()
        noise = torch.cat([points, -points]).unflatten(-1, q.event_shape).unsqueeze(1)
        z = q.from_noise(noise.expand(-1, len(x), -1, -1))
        likelihood = DiagonalNormal(
            z @ self.emission.T + self.offset, torch.tensor(self.scale, dtype=torch.float64), 0
        )
        latent = Latent("z", z, q, self.prior(q, steps))
        return ELBO()(sequence_evidence(x, [latent], likelihood, steps.informative())).loss


def irregular(seed: int = 0) -> Steps:
    seen = torch.ones(3, 6, dtype=torch.bool)
    seen[0, 2:4] = seen[1, 5] = seen[2, 0] = False
    return Steps(times=normal(3, 6, seed=seed).exp().cumsum(-1), observed=seen)


@pytest.mark.parametrize("spectrum", SPECTRA)
def test_s024_with_linear_emissions_the_elbo_is_log_p(spectrum: str) -> None:
    model, steps = LinearModel(spectrum), irregular()
    model.solve()
    space = model.space(steps, 6)
    x = space.observe(space.dynamics.rsample())
    exact = kalman_filter(space, x, steps.observed).log_likelihood
    assert (-model.elbo(x, steps) - exact.mean()).abs() < 1e-10  # the row asks for 1e-4
    q = model.posterior(x, steps)
    latent = sequence_latent("z", q, model.prior, 4, steps)
    likelihood = DiagonalNormal(
        latent.value @ model.emission.T + model.offset, torch.tensor(0.7, dtype=torch.float64), 0
    )
    evidence = sequence_evidence(x, [latent], likelihood, steps.observed)
    close(evidence.log_joint_ratio(), exact.expand(4, 3))


@pytest.mark.parametrize("spectrum", SPECTRA)
def test_s024_masked_points_are_imputed_as_by_the_rts_smoother(spectrum: str) -> None:
    model, steps = LinearModel(spectrum), irregular()
    model.solve()
    space = model.space(steps, 6)
    x = space.observe(space.dynamics.rsample())
    filtered = sequential_kalman_filter(space, x, steps.observed)
    smoothed = sequential_rts_smoother(space, filtered)
    hidden = torch.where(steps.observed[..., None], x, math.nan)  # type: ignore[index]
    q = model.posterior(hidden, steps)
    close(q.mean, smoothed.loc)  # the row asks for 1e-4
    close(q.covariance_matrix, smoothed.covariance)


def test_s024_gradient_of_the_exact_elbo_is_that_of_log_p() -> None:
    """The posterior shares the prior's parameters, and at the optimum that costs nothing."""
    model, steps = LinearModel(), irregular()
    model.solve()
    space = model.space(steps, 6)
    x = space.observe(space.dynamics.rsample()).detach() + 0.3  # away from the model's own data
    parameters = list(model.prior.parameters())
    ours = torch.autograd.grad(-model.elbo(x, steps), parameters)
    exact = kalman_filter(model.space(steps, 6), x, steps.observed).log_likelihood.mean()
    for gradient, expected in zip(ours, torch.autograd.grad(exact, parameters), strict=True):
        close(gradient, expected, atol=1e-8)


@pytest.mark.slow
def test_s024_training_the_recognition_reaches_log_p() -> None:
    model, steps = LinearModel(), irregular()
    space = model.space(steps, 6)
    x = space.observe(space.dynamics.rsample()).detach()
    exact = kalman_filter(space, x, steps.observed).log_likelihood.mean().detach()
    parameters = list(model.posterior.parameters())
    optimiser = torch.optim.LBFGS(
        parameters, max_iter=400, line_search_fn="strong_wolfe", tolerance_change=1e-12
    )

    def closure() -> Tensor:
        optimiser.zero_grad()
        loss = model.elbo(x, steps)
        loss.backward()
        return loss

    before = float((exact + model.elbo(x, steps)).detach())
    optimiser.step(closure)
    gap = float((exact + model.elbo(x, steps)).detach())
    assert before > 1
    assert -1e-9 < gap < 1e-4


def test_structured_posterior_shares_the_prior_and_does_not_own_it() -> None:
    model = LinearModel()
    assert set(model.posterior.state_dict()) == {"head.weight", "head.bias"}
    twin = copy.deepcopy(model)
    assert twin.posterior.dynamics is twin.prior
    assert twin.prior is not model.prior


@pytest.mark.parametrize("kind", ["structured", "free"])
def test_posterior_of_half_precision_features_has_a_single_precision_kl(kind: str) -> None:
    prior = dynamics().float()
    posterior = GaussMarkovPosterior(6, prior) if kind == "structured" else MarkovPosterior(6, 4)
    x = normal(3, 6, 6).float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        q = posterior(x)
        divergence = kl_divergence(q, prior(q))
    expected = kl_divergence(posterior(x), prior(q))
    assert divergence.dtype == q.rsample().dtype == torch.float32
    # Only the head ran in bfloat16, whose numbers have three digits.
    torch.testing.assert_close(divergence, expected, rtol=0.03, atol=0.03)


def test_free_chain_starts_factorised_and_reaches_an_exact_posterior() -> None:
    prior = dynamics("real")
    path = as_gauss_markov(prior.path(4, Steps()))
    space = StateSpace(
        path, torch.eye(4).double(), torch.zeros(4).double(), 0.8 * torch.eye(4).double()
    )
    y = space.observe(path.rsample((1,))).detach()
    exact = stop_gradient(smoothing_distribution(space, y))
    posterior = MarkovPosterior(4, 4).double()
    which_step = torch.eye(4).double().unsqueeze(0)  # free numbers for each step
    assert (posterior(which_step).transition == 0).all()
    optimiser = torch.optim.LBFGS(
        posterior.parameters(), max_iter=200, line_search_fn="strong_wolfe", tolerance_change=1e-14
    )

    def closure() -> Tensor:
        optimiser.zero_grad()
        loss = kl_divergence(posterior(which_step), exact).sum()
        loss.backward()
        return loss

    optimiser.step(closure)
    assert float(closure().detach()) < 1e-6


# Evidence of sequences


def padded() -> Steps:
    return Steps(present=torch.tensor([6, 4, 1])[:, None] > torch.arange(6))


class Features(nn.Module):
    """A factorised posterior over paths, as the plain head gives it."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(6, 8)

    def forward(self, features: Tensor, context: Steps) -> DiagonalNormal:
        if context.present is not None:
            features = torch.where(context.present[..., None], features, 0.0)
        loc, log_scale = self.head(features).chunk(2, -1)
        return DiagonalNormal(loc, log_scale.exp(), event_dims=2)


def paths_and_rollout(kind: str) -> tuple[nn.Module, Callable[[Tensor, Steps, int], Latent]]:
    torch.manual_seed(3)
    prior = dynamics("stable", stationary=False)
    if kind == "rollout":
        posterior, after = nn.Linear(10, 8).double(), nn.Linear(4, 8).double()

        def step(before: Tensor, feature: Tensor) -> DiagonalNormal:
            joined = torch.cat([before, feature.expand(*before.shape[:-1], -1)], -1)
            loc, log_scale = posterior(joined).tanh().chunk(2, -1)
            return DiagonalNormal(loc, log_scale.exp())

        def prior_step(before: Tensor) -> DiagonalNormal:
            loc, log_scale = after(before).tanh().chunk(2, -1)
            return DiagonalNormal(loc, log_scale.exp(), 1)

        start = torch.zeros(4).double()
        return nn.ModuleList([posterior, after]), lambda x, steps, samples: rollout_latent(
            "z", x, step, prior_step, samples, start, steps.present
        )
    heads = {
        "factorised": Features(),
        "structured": GaussMarkovPosterior(6, prior),
        "free": MarkovPosterior(6, 4),
    }
    head = heads[kind].double()
    return nn.ModuleList([head, prior]), lambda x, steps, samples: sequence_latent(
        "z", head(x, steps), prior, samples, steps
    )


@pytest.mark.parametrize("kind", ["factorised", "structured", "free", "rollout"])
def test_padding_changes_neither_value_nor_gradient(kind: str) -> None:
    modules, latent_of = paths_and_rollout(kind)
    steps, x = padded(), normal(3, 6, 6)
    assert steps.present is not None
    emission = nn.Linear(4, 6).double()
    results = []
    for filler in (0.0, 1e6, math.nan):
        torch.manual_seed(0)
        data = torch.where(steps.present[..., None], x, filler)
        latent = latent_of(data, steps, 2)
        assert (latent.value[:, ~steps.present] == 0).all()  # a decoder over time sees no noise
        likelihood = DiagonalNormal(emission(latent.value), torch.ones(()), 0)
        evidence = sequence_evidence(data, [latent], likelihood, steps.present)
        both = ELBO(samples=2)(evidence).loss + evidence.log_joint_ratio().sum()
        leaves = [*modules.parameters(), *emission.parameters()]
        results.append([both, *torch.autograd.grad(both, leaves)])
    for first, second, third in zip(*results, strict=True):
        assert torch.equal(first, second)
        assert torch.equal(first, third)
        assert first.isfinite().all()


@pytest.mark.parametrize("kind", ["factorised", "structured", "free"])
def test_padded_sequences_have_the_kl_of_the_sequences_alone(kind: str) -> None:
    _, latent_of = paths_and_rollout(kind)
    steps, x = padded(), normal(3, 6, 6)
    together = latent_of(x, steps, 1).kl()[0]
    for example, length in enumerate((6, 4, 1)):
        whole = Steps(present=torch.ones(1, length, dtype=torch.bool))
        alone = latent_of(x[example, None, :length], whole, 1).kl()[0, 0]
        close(together[example], alone)


@pytest.mark.parametrize("kind", ["factorised", "structured", "free", "rollout"])
def test_an_example_of_padding_alone_costs_nothing(kind: str) -> None:
    modules, latent_of = paths_and_rollout(kind)
    nothing = Steps(present=torch.zeros(3, 6, dtype=torch.bool))
    latent = latent_of(normal(3, 6, 6), nothing, 2)
    assert (latent.kl() == 0).all()
    assert (latent.log_ratio() == 0).all()
    total = (latent.kl() + latent.log_ratio()).sum()
    gradients = torch.autograd.grad(total, list(modules.parameters()), allow_unused=True)
    assert all(gradient is None or (gradient == 0).all() for gradient in gradients)


@pytest.mark.parametrize("kind", ["factorised", "structured", "free"])
def test_times_of_padding_may_be_anything(kind: str) -> None:
    modules, latent_of = paths_and_rollout(kind)
    present, x = padded().present, normal(3, 6, 6)
    assert present is not None
    times = normal(3, 6, seed=1).exp().cumsum(-1)
    results = []
    for filler in (0.0, math.nan):
        steps = Steps(times=torch.where(present, times, filler), present=present)
        divergence = latent_of(x, steps, 1).kl().sum()
        results.append([divergence, *torch.autograd.grad(divergence, list(modules.parameters()))])
    alone = [
        latent_of(x[at, None, :length], Steps(times=times[at, None, :length]), 1).kl().sum()
        for at, length in enumerate((6, 4, 1))
    ]
    close(results[0][0], torch.stack(alone).sum())
    for first, second in zip(*results, strict=True):
        assert torch.equal(first, second)


@pytest.mark.parametrize("kind", ["factorised", "structured", "free"])
def test_examples_keep_their_terms_in_another_order_and_in_parts(kind: str) -> None:
    _, latent_of = paths_and_rollout(kind)
    steps, x = padded(), normal(3, 6, 6)
    assert steps.present is not None
    order = torch.tensor([2, 0, 1])
    whole = latent_of(x, steps, 1).kl()
    close(latent_of(x[order], Steps(present=steps.present[order]), 1).kl(), whole[:, order])
    first = latent_of(x[:2], Steps(present=steps.present[:2]), 1).kl()
    rest = latent_of(x[2:], Steps(present=steps.present[2:]), 1).kl()
    close(torch.cat([first, rest], 1), whole)


def test_rollout_of_linear_steps_is_the_chain() -> None:
    q, p = chain(batch=()), chain(batch=(), seed=50)

    def step_of(path: GaussMarkov, t: Tensor, before: Tensor) -> DiagonalNormal:
        transition = torch.cat([torch.zeros(1, 2, 2).double(), path.transition])[t]
        loc = (transition @ before.unsqueeze(-1)).squeeze(-1) + path.offset[t]
        return DiagonalNormal(loc, path.scale_tril[t].diagonal(dim1=-2, dim2=-1))

    q, p = (
        GaussMarkov(
            path.transition,
            path.offset,
            torch.diag_embed(path.scale_tril.diagonal(dim1=-2, dim2=-1)),
        )
        for path in (q, p)
    )
    clock = torch.arange(5).double().reshape(1, 5, 1)
    latent = rollout_latent(
        "z",
        clock,
        lambda before, feature: step_of(q, feature[0, 0].long(), before),
        lambda before: step_of(p, torch.arange(5), before),
        4000,
        torch.zeros(2).double(),
    )
    assert latent.closed_form
    close(latent.log_ratio()[:, 0], (q.log_prob(latent.value) - p.log_prob(latent.value))[:, 0])
    draws = latent.kl()[:, 0]
    joint = kl_divergence(q, p)
    assert (draws.mean() - joint).abs() < 4 * draws.std() / math.sqrt(len(draws))
    # Closed form given the past is less noisy than the log-ratio (Rao-Blackwell).
    assert draws.var() < latent.log_ratio().var()


def test_steps_whose_means_are_of_the_value_are_not_held_fixed_silently() -> None:
    normals = ConditionalNormals(torch.zeros(2, 3, 5, 2), torch.ones(()), 2)
    with pytest.raises(NotImplementedError, match="drawn before"):
        stop_gradient(normals)
    assert isinstance(normals.expand((4, 2, 3)), ConditionalNormals)


def test_reversing_the_time_of_an_exchangeable_model_leaves_the_elbo() -> None:
    x = normal(3, 6, 6)
    emission = nn.Linear(4, 6).double()
    head = Features().double()
    independent = GaussMarkov(
        torch.zeros(5, 4, 4).double(),
        torch.zeros(6, 4).double(),
        torch.eye(4).double().expand(6, 4, 4),
    )
    reversible = dynamics("real").path(6, Steps())
    noise = normal(8, 3, 6, 4)
    present = Steps(present=torch.ones(3, 6, dtype=torch.bool))

    def elbo(x: Tensor, noise: Tensor, prior: Distribution) -> Tensor:
        q = head(x, present)
        z = q.loc + q.scale * noise
        likelihood = DiagonalNormal(emission(z), torch.ones(()), 0)
        latent = Latent("z", z, q, prior.expand(q.batch_shape))
        return ELBO(samples=8)(sequence_evidence(x, [latent], likelihood)).value

    # Independent steps are exchangeable; the stationary real process is at least reversible.
    for prior in (independent, reversible):
        close(elbo(x, noise, prior), elbo(x.flip(1), noise.flip(2), prior))
    turning = dynamics("stable").path(6, Steps())
    assert not torch.isclose(elbo(x, noise, turning), elbo(x.flip(1), noise.flip(2), turning))


def test_evidence_is_the_same_for_a_likelihood_of_elements_and_of_events() -> None:
    x, loc = normal(3, 6, 2), normal(4, 3, 6, 2, seed=1)
    seen = normal(3, 6, 2, seed=2) > 0
    by_element = sequence_evidence(x, [], DiagonalNormal(loc, torch.ones(()), 0), seen)
    by_event = sequence_evidence(x, [], DiagonalNormal(loc, torch.ones(()), 2), seen)
    close(by_element.log_likelihood["x"], by_event.log_likelihood["x"])
    assert by_event.log_likelihood["x"].shape == (4, 3)


def test_a_likelihood_that_cannot_be_masked_is_refused() -> None:
    with pytest.raises(ValueError, match="does not factorise"):
        sequence_evidence(normal(3, 5, 2), [], chain())


def test_what_has_no_padding_is_what_it_was() -> None:
    for distribution in (chain(), factorised(), dynamics().path(6, Steps())):
        assert cut_padding(distribution, None) is distribution
    with pytest.raises(NotImplementedError, match="register"):
        cut_padding(torch.distributions.Normal(0.0, 1.0), torch.ones(1, 1, dtype=torch.bool))
