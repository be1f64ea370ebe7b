"""The Koopman VAE in closed form, what is fitted after its training, and its noise."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.distributions import MultivariateNormal

from core.variational.objectives import elbo_value
from domains.series.config import Config, MixtureDensity
from domains.series.data import Clock, Dataset, Panel, Scaler, Series, Windows
from domains.series.model import koopman
from domains.series.model.density import AggregateDensity, ResidualCopula

TIME, CHANNELS, LATENT = 8, 3, 4
SMALL = {"kind": "koopman-vae", "latent": LATENT, "hidden": 16, "layers": 1, "features": 4}


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def dataset(time: int = TIME, channels: int = CHANNELS) -> Dataset:
    names = tuple(f"x{place}" for place in range(channels))
    values = np.zeros((time, channels))
    panel = Panel(
        series=(Series("", np.arange(time, dtype=float), values),),
        channels=names,
        dtypes=("float64",) * channels,
        clock=Clock(kind="index", column="", zone="", form="", interval=1.0),
    )
    mask = np.zeros((time, channels), dtype=bool)
    scaler = Scaler(np.zeros(channels), np.ones(channels))
    rows = np.ones(time, dtype=bool)
    return Dataset(panel, (mask,), scaler, time, {}, (rows,), 0)


def build(**changes: Any) -> koopman.KoopmanVAE:
    model = {**SMALL, **changes.pop("model", {})}
    return koopman.build(
        Config.model_validate({"name": "x", "model": model, **changes}), dataset()
    )


def windows(values: Tensor, seen: Tensor | None = None, times: Tensor | None = None) -> Windows:
    count, time, _ = values.shape
    known = torch.ones_like(values, dtype=torch.bool)
    seen = known if seen is None else seen
    times = torch.arange(time).float().expand(count, -1) if times is None else times
    origin = torch.stack([torch.zeros(count), torch.arange(count)], 1).long()
    return Windows(values, known, seen, seen, times, torch.ones(count, time).bool(), origin)


@pytest.mark.parametrize("spectrum", ["stable", "real", "circle"])
@pytest.mark.parametrize("regular", [True, False])
def test_states_are_the_recurrence_of_the_dynamics(spectrum: str, regular: bool) -> None:
    model = build(model={"dynamics": {"spectrum": spectrum}}).double()
    innovations = torch.randn(2, 5, TIME, LATENT, dtype=torch.float64)
    gaps = torch.ones(5, TIME).double() if regular else 0.2 + 2 * torch.rand(5, TIME).double()
    times = gaps.cumsum(1) - gaps[:, :1]
    states = model.states(innovations, times)
    path = model.dynamics.path(TIME, koopman.Steps(times=times))
    width = 1 if spectrum == "real" else 2
    state = path.scale[:, 0].repeat_interleave(width, -1) * innovations[:, :, 0]
    for step in range(1, TIME):
        turned = state if width == 1 else torch.view_as_complex(state.unflatten(-1, (-1, 2)))
        turned = path.transition[:, step - 1] * turned
        moved = turned if width == 1 else torch.view_as_real(turned).flatten(-2)
        state = moved + path.scale[:, step].repeat_interleave(width, -1) * innovations[:, :, step]
        torch.testing.assert_close(states[:, :, step], state)


def test_the_value_bounds_the_exact_likelihood_of_a_linear_model() -> None:
    class Row(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = torch.nn.Linear(LATENT, 4)

        def forward(self, states: Tensor) -> Tensor:
            return self.linear(states)

    likelihood = {"kind": "normal", "scale": 0.5}
    model = build(likelihood=likelihood).double()
    model.decoder = Row().double()
    values = torch.randn(6, TIME, CHANNELS, dtype=torch.float64)
    times = torch.arange(TIME).double().expand(6, -1)
    basis = torch.eye(TIME * LATENT, dtype=torch.float64).view(-1, TIME, LATENT)
    zero = torch.zeros(1, 1, TIME, LATENT, dtype=torch.float64)
    loc = model.decode(zero, times[:1]).mean.flatten()
    columns = model.decode(basis[None], times[:1].expand(len(basis), -1)).mean[0].flatten(1) - loc
    noise = 0.25 * torch.eye(TIME * CHANNELS, dtype=torch.float64)
    exact = MultivariateNormal(loc, columns.T @ columns + noise).log_prob(values.flatten(1))
    with torch.no_grad():
        evidence = model.evidence(windows(values, times=times), samples=400)
    per_window = evidence.log_joint_ratio().mean(0)
    assert bool((per_window < exact).all())
    assert float(elbo_value(evidence)) < float(exact.mean().detach())


def test_values_that_are_not_seen_change_nothing() -> None:
    model = build()
    values, seen = torch.randn(4, TIME, CHANNELS), torch.rand(4, TIME, CHANNELS) < 0.6
    other = torch.where(seen, values, 1e6)

    def value(given: Tensor) -> float:
        torch.manual_seed(1)
        return float(elbo_value(model.evidence(windows(given, seen), samples=3)))

    assert value(values) == value(other)


def test_the_spectrum_is_within_the_unit_circle_and_its_energy_sums_to_one() -> None:
    model = build().eval()
    spectrum = model.spectrum([windows(torch.randn(9, TIME, CHANNELS))])
    assert spectrum is not None
    assert float(spectrum.eigenvalues.detach().abs().max()) < 1
    assert float(spectrum.energy.detach().sum()) == pytest.approx(1, abs=1e-5)
    expected = np.log(2) / -np.log(spectrum.eigenvalues.abs().detach().numpy())
    np.testing.assert_allclose(spectrum.half_lives.detach().numpy(), expected, rtol=1e-3)


def finished(values: Tensor) -> koopman.KoopmanVAE:
    model = build(density={"kind": "mixture", "components": [1, 2], "active": 1e-9}).eval()
    with torch.no_grad():
        torch.manual_seed(3)
        model.finish(windows(part) for part in values.split(100))
    return model


def test_what_is_fitted_after_training_is_saved_with_the_weights_and_repeatable() -> None:
    values = torch.randn(400, TIME, CHANNELS)
    torch.manual_seed(0)
    model = finished(values)
    torch.manual_seed(0)
    again = finished(values)
    fresh = build(density={"kind": "mixture", "components": [1, 2], "active": 1e-9}).eval()
    fresh.load_state_dict(model.state_dict())
    assert model.density is not None
    assert model.density.is_fitted
    times = torch.arange(TIME).float().expand(7, -1)
    drawn = []
    for each in (model, again, fresh):
        torch.manual_seed(5)
        with torch.no_grad():
            drawn.append(each.draw_windows(times))
    for other in drawn[1:]:
        torch.testing.assert_close(drawn[0], other, rtol=0, atol=0)


def test_generated_values_hang_together_as_residuals_do() -> None:
    shared = torch.randn(3000, TIME, 1)
    values = torch.cat([shared, shared, torch.randn(3000, TIME, 1)], -1)
    model = finished(values)
    with torch.no_grad():
        drawn = model.draw_windows(torch.arange(TIME).float().expand(3000, -1))
    correlation = np.corrcoef(drawn.flatten(0, 1).T.numpy())
    assert correlation[0, 1] > 0.95
    assert abs(correlation[0, 2]) < 0.05


def test_a_value_seen_tells_of_its_copy_that_is_not() -> None:
    shared = torch.randn(3000, TIME, 1)
    values = torch.cat([shared, shared, torch.randn(3000, TIME, 1)], -1)
    model = finished(values)
    seen = torch.ones(50, TIME, CHANNELS, dtype=torch.bool)
    seen[:, 3, 1] = False
    with torch.no_grad():
        given = model.predictive(windows(values[:50], seen), samples=4)
    torch.testing.assert_close(given.mean.mean(0)[:, 3, 1], values[:50, 3, 0], atol=0.15, rtol=0)


def test_the_density_finds_a_mixture_and_leaves_unused_latents_alone() -> None:
    density = AggregateDensity(10, MixtureDensity(dimensions=3, components=(1, 2, 4)))
    centres = torch.tensor([[-2.0, 1.0], [2.0, 0.0]])
    means, draws = 0.01 * torch.randn(4000, 10), torch.randn(4000, 10)
    means[:, [7, 2]] = centres[torch.randint(2, (4000,))] + 0.3 * torch.randn(4000, 2)
    draws[:, [7, 2]] = means[:, [7, 2]]
    density.fit(draws, means, seed=0)
    assert int((density.weights > 0).sum()) == 2
    drawn = density.sample(20000)
    torch.testing.assert_close(
        drawn[:, [7, 2]].mean(0), means[:, [7, 2]].mean(0), atol=0.05, rtol=0
    )
    torch.testing.assert_close(
        torch.cov(drawn[:, [7, 2]].T), torch.cov(means[:, [7, 2]].T), atol=0.1, rtol=0
    )
    rest = drawn[:, [0, 1, 3, 4, 5, 6, 8, 9]]
    torch.testing.assert_close(rest.std(0), torch.ones(8), atol=0.03, rtol=0)


def test_before_it_is_fitted_the_density_is_standard_normal() -> None:
    drawn = AggregateDensity(6, MixtureDensity()).sample(20000)
    torch.testing.assert_close(torch.cov(drawn.T), torch.eye(6), atol=0.05, rtol=0)


def skewed(count: int) -> Tensor:
    common = torch.randn(count, TIME, 1)
    first = (0.9 * common + 0.4359 * torch.randn(count, TIME, 1)).exp()
    return torch.cat([first, common], -1)


def test_the_copula_keeps_margins_and_rank_correlation() -> None:
    copula, values = ResidualCopula(TIME, 2), skewed(4000)
    copula.fit(values, torch.ones_like(values, dtype=torch.bool))
    drawn = copula.sample(4000)
    for channel in range(2):
        quantiles = torch.tensor([0.01, 0.1, 0.5, 0.9, 0.99])
        there, here = (x[..., channel].flatten().quantile(quantiles) for x in (values, drawn))
        torch.testing.assert_close(here, there, rtol=0.1, atol=0.05)
    from scipy.stats import spearmanr

    ranks = [spearmanr(x[:, 2, 0], x[:, 2, 1]).statistic for x in (values, drawn)]
    assert ranks[0] == pytest.approx(ranks[1], abs=0.03)


def test_a_pair_that_is_never_known_together_is_taken_for_independent() -> None:
    values, known = skewed(2000), torch.ones(2000, TIME, 2, dtype=torch.bool)
    known[:1000, 0, 0] = False
    known[1000:, 0, 1] = False
    copula = ResidualCopula(TIME, 2)
    copula.fit(values, known)
    correlation = copula.time_tril @ copula.time_tril.T
    assert abs(float(correlation[0, 1])) < 0.01
    assert float(correlation[2, 3]) > 0.85


def test_what_is_given_conditions_a_normal_exactly() -> None:
    copula = ResidualCopula(3, 2).double()
    factor = torch.randn(6, 6, dtype=torch.float64).tril() + 2 * torch.eye(6)
    scale = (factor @ factor.T).diagonal().sqrt()
    tril = factor / scale[:, None]
    copula.time_tril.copy_(tril)
    correlation = tril @ tril.T
    seen = torch.tensor([[[True, False], [True, True], [False, False]]])
    errors = torch.randn(1, 1, 3, 2, dtype=torch.float64)
    loc, spread = copula.given(errors, seen)
    s, h = seen.flatten().nonzero()[:, 0], (~seen.flatten()).nonzero()[:, 0]
    among = correlation[s][:, s] + 1e-3 * torch.eye(len(s))
    gain = torch.linalg.solve(among, correlation[s][:, h]).T
    torch.testing.assert_close(loc.flatten()[h], gain @ errors.flatten()[s])
    left = correlation[h][:, h] - gain @ correlation[s][:, h]
    torch.testing.assert_close(spread.flatten()[h].square(), left.diagonal())


def test_a_long_window_has_a_separable_correlation() -> None:
    time, channels = 600, 2
    kernel = 0.9 ** (torch.arange(time)[:, None] - torch.arange(time)).abs().float()
    mixing = torch.tensor([[1.0, 0.0], [0.8, 0.6]])
    values = torch.linalg.cholesky(kernel) @ torch.randn(1500, time, channels) @ mixing.T
    copula = ResidualCopula(time, channels)
    copula.fit(values, torch.ones_like(values, dtype=torch.bool))
    drawn = copula.sample(1500)
    lags = [float((drawn[:, 100] * drawn[:, 100 + lag]).mean()) for lag in (1, 5)]
    assert lags == pytest.approx([0.9, 0.9**5], abs=0.07)
    assert float(torch.corrcoef(drawn[:, 300].T)[0, 1]) == pytest.approx(0.8, abs=0.05)


REFUSED = [
    ({"model": {**SMALL, "latent": 5}}, "pairs"),
]


@pytest.mark.parametrize(("changes", "word"), REFUSED)
def test_what_cannot_be_had_is_said_in_one_line(changes: dict[str, Any], word: str) -> None:
    with pytest.raises(Exception, match=word) as caught:
        build(**changes)
    assert "\n" not in str(caught.value)


LIKELIHOODS: list[dict[str, Any]] = [
    {"kind": "sigma-vae", "shared": False},
    {"kind": "laplace", "learned": "predicted"},
    {"kind": "student-t"},
]


@pytest.mark.parametrize("likelihood", LIKELIHOODS, ids=lambda each: each["kind"])
@pytest.mark.parametrize("network", ["mlp", "convolution"])
def test_every_likelihood_trains_and_generates(likelihood: dict[str, Any], network: str) -> None:
    model = build(likelihood=likelihood, model={"network": network})
    batch = windows(torch.randn(64, TIME, CHANNELS))
    evidence = model.evidence(batch)
    (evidence.latents[0].kl() - evidence.log_likelihood["values"]).mean().backward()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, name
    model.eval()
    with torch.no_grad():
        model.finish([batch])
        drawn = model.draw_windows(batch.times)
    assert drawn.shape == batch.values.shape
    assert bool(torch.isfinite(drawn).all())


@pytest.mark.parametrize(("time", "network"), [(400, "mlp"), (TIME, "convolution")])
def test_windows_whose_residuals_cannot_be_asked_are_predicted_by_the_latents(
    time: int, network: str
) -> None:
    changes = {"model": {**SMALL, "network": network}, "density": {"kind": "none"}}
    model = koopman.build(Config.model_validate({"name": "x", **changes}), dataset(time)).eval()
    longer = windows(torch.randn(3, time + (network == "convolution"), CHANNELS))
    with torch.no_grad():
        model.finish([windows(torch.randn(20, time, CHANNELS))])
        torch.manual_seed(2)
        found = model.predictive(longer, samples=2)
        torch.manual_seed(2)
        innovations = model.encode(longer).sample(torch.Size((2,)))
        expected = model.decode(innovations, longer.times)
    torch.testing.assert_close(found.mean, expected.mean)
