from __future__ import annotations

import math
from typing import Literal

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal

from core.variational.diagnostics import (
    Estimate,
    GradientNoise,
    Unavailable,
    gradient_noise,
    quadratic_gradient_variance,
)
from core.variational.distributions import DiagonalNormal
from core.variational.evidence import Evidence, Latent
from core.variational.objectives import InfoVAE

Structure = Literal["diagonal", "triangular", "full"]
STRUCTURES: list[Structure] = ["diagonal", "triangular", "full"]


class Quadratic(nn.Module):
    """A Gaussian target and a location-scale posterior whose parameters are its own."""

    def __init__(self, precision: Tensor, offset: Tensor, scale: Tensor, diagonal: bool) -> None:
        super().__init__()
        self.precision, self.diagonal = precision, diagonal
        self.loc = nn.Parameter(offset)
        self.scale = nn.Parameter(scale.diagonal().clone() if diagonal else scale)

    def evidence(self, batch: Tensor, samples: int = 1) -> Evidence:
        noise = torch.randn(samples, len(batch), len(self.loc), dtype=torch.float64)
        moved = noise * self.scale if self.diagonal else noise @ self.scale.T
        z = self.loc + moved
        target = -0.5 * ((z @ self.precision) * z).sum(-1)
        wide: Distribution = Independent(Normal(torch.zeros_like(z[0]), 1.0), 1)
        return Evidence({"x": target}, [Latent("z", z, wide, wide)])


def energy(evidence: Evidence) -> Tensor:
    return -evidence.log_likelihood["x"].mean()


def target(latent: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    root, scale = torch.randn(2, latent, latent, generator=generator, dtype=torch.float64)
    precision = root @ root.T / latent + torch.eye(latent, dtype=torch.float64)
    return precision, torch.randn(latent, generator=generator, dtype=torch.float64), scale


def structured(scale: Tensor, structure: Structure) -> Tensor:
    if structure == "diagonal":
        return scale.diagonal().diag()
    return scale.tril() if structure == "triangular" else scale


def sampled_variance(
    precision: Tensor, offset: Tensor, scale: Tensor, structure: Structure, draws: int
) -> tuple[float, float]:
    """The total variance over many draws, and its standard error, by the gradients themselves."""
    noise = torch.randn(draws, len(offset), dtype=torch.float64)
    pull = -(offset + noise @ scale.T) @ precision
    matrix = pull[:, :, None] * noise[:, None, :]
    mask = {"diagonal": torch.eye(len(offset)), "triangular": torch.ones_like(scale).tril()}
    kept = matrix * mask.get(structure, torch.ones(())).double()
    flat = torch.cat([pull, kept.flatten(1)], 1)
    squares = (flat - flat.mean(0)).square().sum(1)
    return float(squares.mean()), float(squares.std() / math.sqrt(draws))


@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize("latent", [1, 2, 5])
def test_s092_the_variance_of_the_gradient_is_that_of_the_formula(
    structure: Structure, latent: int
) -> None:
    precision, offset, scale = target(latent)
    scale = structured(scale, structure)
    measured, error = sampled_variance(precision, offset, scale, structure, 40_000)
    expected = quadratic_gradient_variance(precision, offset, scale, structure)
    assert abs(measured - expected) < 3 * error


@pytest.mark.parametrize("diagonal", [True, False])
def test_s092_the_diagnostic_measures_the_variance_of_the_formula(diagonal: bool) -> None:
    precision, offset, scale = target(4, seed=2)
    structure: Structure = "diagonal" if diagonal else "full"
    scale = structured(scale, structure)
    model = Quadratic(precision, offset, scale, diagonal)
    found = gradient_noise(model, torch.zeros(1, 1), energy, draws=2000)
    assert not isinstance(found, Unavailable)
    noise = found["all"]
    assert isinstance(noise.variance, Estimate)
    assert isinstance(noise.signal, Estimate)
    assert noise.variance.interval is not None
    assert noise.signal.interval is not None
    expected = quadratic_gradient_variance(precision, offset, scale, structure)
    error = (noise.variance.interval[1] - noise.variance.value) / 1.96
    assert abs(noise.variance.value - expected) < 3 * error
    pull, matrix = precision @ offset, precision @ scale
    if diagonal:
        matrix = matrix.diagonal()
    signal = float(pull.square().sum() + matrix.square().sum())
    error = (noise.signal.interval[1] - noise.signal.value) / 1.96
    assert abs(noise.signal.value - signal) < 3 * error


@pytest.mark.parametrize(
    ("structure", "predicted"), [("diagonal", 1.0), ("triangular", 2.0), ("full", 2.0)]
)
def test_s092_the_variance_grows_with_the_dimension_as_predicted(
    structure: Structure, predicted: float
) -> None:
    # An isotropic target, each coordinate alike: d(2 s^2 + ...) against (d + 2) d s^2 + d |a|^2.
    sizes = torch.tensor([32, 64, 128])
    measured = []
    for size in sizes.tolist():
        eye = torch.eye(size, dtype=torch.float64)
        value, _ = sampled_variance(eye, torch.ones(size).double(), eye, structure, 300)
        measured.append(value)
    logs = torch.tensor(measured, dtype=torch.float64).log()
    x = sizes.double().log()
    slope = ((x - x.mean()) * (logs - logs.mean())).sum() / (x - x.mean()).square().sum()
    assert float(slope) == pytest.approx(predicted, abs=0.15)


@pytest.mark.parametrize("latent", [2, 7])
def test_s092_the_second_moment_is_domkes_bound(latent: int) -> None:
    # For A = I the bound (d + 1)|m - z*|^2 + (d + 3)|C|^2 holds with equality.
    _, offset, scale = target(latent)
    variance = quadratic_gradient_variance(torch.eye(latent).double(), offset, scale)
    mean = offset.square().sum() + scale.square().sum()
    bound = (latent + 1) * offset.square().sum() + (latent + 3) * scale.square().sum()
    assert variance + float(mean) == pytest.approx(float(bound))


def test_the_mean_of_many_draws_has_that_part_of_the_variance() -> None:
    precision, offset, scale = target(3)
    model = Quadratic(precision, offset, scale, diagonal=False)
    found = gradient_noise(model, torch.zeros(1, 1), energy, samples=16, draws=500)
    assert not isinstance(found, Unavailable)
    assert isinstance(found["all"].variance, Estimate)
    expected = quadratic_gradient_variance(precision, offset, scale) / 16
    assert found["all"].variance.value == pytest.approx(expected, rel=0.15)


def test_the_ratio_is_that_of_its_parts_and_the_groups_add_up() -> None:
    model = Quadratic(*target(3), diagonal=True)
    found = gradient_noise(model, torch.zeros(1, 1), energy, draws=50)
    assert not isinstance(found, Unavailable)
    assert set(found) == {"loc", "scale", "all"}
    assert found["all"].parameters == 6

    def values(noise: GradientNoise) -> tuple[float, float, float]:
        parts = (noise.signal, noise.variance, noise.signal_to_noise)
        assert all(isinstance(part, Estimate) for part in parts)
        return tuple(part.value for part in parts if isinstance(part, Estimate))  # pyright: ignore[reportReturnType]

    loc, scale, whole = (values(found[name]) for name in ("loc", "scale", "all"))
    assert whole[0] == pytest.approx(loc[0] + scale[0])
    assert whole[1] == pytest.approx(loc[1] + scale[1])
    assert whole[2] == pytest.approx(math.sqrt(max(whole[0], 0) / whole[1]))


def test_a_signal_that_is_not_there_is_unbiased_around_zero() -> None:
    # At the optimum of the energy without spread the mean gradient of the location is 0.
    eye = torch.eye(3, dtype=torch.float64)
    model = Quadratic(eye, torch.zeros(3).double(), eye, diagonal=True)
    values = []
    for seed in range(60):
        found = gradient_noise(model, torch.zeros(1, 1), energy, draws=5, seed=seed)
        assert not isinstance(found, Unavailable)
        assert isinstance(found["loc"].signal, Estimate)
        values.append(found["loc"].signal.value)
    signals = torch.tensor(values)
    assert abs(float(signals.mean())) < 3.5 * float(signals.std()) / math.sqrt(60)


def test_it_leaves_gradients_modes_and_the_random_stream_alone() -> None:
    model = Quadratic(*target(3), diagonal=True)
    torch.manual_seed(5)
    expected = torch.randn(4)
    torch.manual_seed(5)
    gradient_noise(model, torch.zeros(1, 1), energy, draws=3)
    assert torch.equal(torch.randn(4), expected)
    assert all(each.grad is None for each in model.parameters())
    assert model.training


def test_a_gradient_without_noise_says_so() -> None:
    model = Quadratic(*target(3), diagonal=True)
    found = gradient_noise(model, torch.zeros(1, 1), lambda evidence: model.loc.square().sum())
    assert not isinstance(found, Unavailable)
    assert found["loc"].signal_to_noise == Unavailable("the gradient has no noise")
    assert isinstance(found["loc"].variance, Estimate)
    assert found["loc"].variance.value == pytest.approx(0.0, abs=1e-9)


def test_two_draws_are_refused() -> None:
    with pytest.raises(ValueError, match="draws=2; at least 3"):
        gradient_noise(Quadratic(*target(3), diagonal=True), torch.zeros(1, 1), energy, draws=2)


def test_a_loss_that_needs_more_of_a_batch_gives_its_reason() -> None:
    class One(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = nn.Linear(2, 2)

        def evidence(self, batch: Tensor, samples: int = 1) -> Evidence:
            loc = self.encoder(batch)
            q, p = DiagonalNormal(loc, torch.ones(())), DiagonalNormal(0 * loc, torch.ones(()))
            z = Latent.draw("z", q, p, samples)
            return Evidence({"x": -z.value.square().sum(-1)}, [z])

    loss = InfoVAE(0.0, 10.0)
    found = gradient_noise(One(), torch.ones(1, 2), lambda e: loss(e).loss, 1, 5, seed=0)
    assert isinstance(found, Unavailable)
    assert "1" in found.reason
