from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.distributions import Distribution

from core.variational.distributions import DiagonalNormal
from core.variational.divergences import kl
from core.variational.exact import LinearGaussian, small_linear_gaussian, small_two_level
from core.variational.inverse import (
    DataFidelity,
    LinearOperator,
    convolution,
    mask,
    matrix,
    plug_and_play,
    tempered_mode,
    total_variation,
)
from core.variational.inverse.plug_and_play import Level
from core.variational.likelihoods import NormalLikelihood
from core.variational.posteriors import DiagonalNormalPosterior

NOISE = 0.3


def standard(like: Tensor) -> DiagonalNormal:
    return DiagonalNormal(torch.zeros_like(like), torch.ones_like(like))


def flat(distribution: Distribution) -> DiagonalNormal:
    """Return a distribution of one sample of a batch without its dimension of samples."""
    assert isinstance(distribution, DiagonalNormal)
    loc = distribution.loc.flatten(0, -2)
    return DiagonalNormal(loc, distribution.scale.flatten(0, -2))


def level_of(model: LinearGaussian) -> Level:
    def level(x: Tensor, parents: Sequence[Tensor]) -> tuple[DiagonalNormal, DiagonalNormal]:
        posterior = model.exact_posterior(x)
        return posterior, standard(posterior.loc)

    return level


def exact_map(operator: LinearOperator, y: Tensor, mean: Tensor, covariance: Tensor) -> Tensor:
    """Return the mode of p(x | y) under a Gaussian prior of the image, by a dense solve."""
    entries = operator(torch.eye(len(mean), dtype=mean.dtype)).T
    precision = torch.linalg.inv(covariance)
    system = entries.T @ entries / NOISE**2 + precision
    right = y @ entries / NOISE**2 + precision @ mean
    return torch.linalg.solve(system, right.T).T


def operators() -> dict[str, LinearOperator]:
    return {
        "matrix": matrix(torch.randn(4, 6, dtype=torch.float64)),
        "inpainting": mask(torch.tensor([True, False, True, True, False, True]), (6,)),
        "blur": convolution(torch.tensor([0.2, 0.6, 0.2], dtype=torch.float64), (6,)),
    }


@pytest.mark.parametrize("temperature", [1.0, 0.7, 0.3])
@pytest.mark.parametrize("name", ["matrix", "inpainting", "blur"])
def test_s018_with_a_linear_gaussian_vae_the_fixed_point_is_the_exact_map(
    name: str, temperature: float
) -> None:
    """A temperature τ makes the prior N(0, τ² I), and so the image's covariance τ² W Wᵀ + s² I."""
    model, operator = small_linear_gaussian(), operators()[name]
    y = operator(model.sample(5)) + NOISE * torch.randn(5, *operator.range, dtype=torch.float64)
    found = plug_and_play(
        DataFidelity(operator, y, NOISE),
        [level_of(model)],
        lambda latents: DiagonalNormal(
            latents[0] @ model.weight.T + model.bias, torch.tensor(model.scale).double()
        ),
        start=torch.zeros(5, 6, dtype=torch.float64),
        temperatures=[temperature],
        iterations=2000,
        tolerance=1e-10,
        solver_tolerance=1e-12,
    )
    spread = temperature**2 * model.weight @ model.weight.T + model.scale**2 * torch.eye(6)
    expected = exact_map(operator, y, model.bias, spread)
    assert found.converged.all()
    assert float((found.x - expected).abs().max()) <= 1e-6  # the claim is 1e-4


def test_s018_with_two_levels_the_fixed_point_is_the_exact_map() -> None:
    model, operator = small_two_level(), operators()["inpainting"]
    y = operator(model.sample(5)) + NOISE * torch.randn(5, 6, dtype=torch.float64)

    def level(index: int) -> Level:
        def of(x: Tensor, parents: Sequence[Tensor]) -> tuple[DiagonalNormal, DiagonalNormal]:
            # Without noise the upper latent stands at its mean, where plug-and-play puts it.
            still = torch.zeros(1, len(x), model.latent, dtype=torch.float64)
            latent = model.evidence_at(x, still).latents[index]
            return flat(latent.posterior), flat(latent.prior)

        return of

    found = plug_and_play(
        DataFidelity(operator, y, NOISE),
        [level(0), level(1)],
        lambda latents: DiagonalNormal(
            latents[1] @ model.weight.T + model.bias, torch.tensor(model.scale).double()
        ),
        start=torch.zeros(5, 6, dtype=torch.float64),
        temperatures=[1.0, 1.0],
        iterations=2000,
        tolerance=1e-10,
        solver_tolerance=1e-12,
    )
    middle = model.slope.square() + model.middle_scale**2
    spread = (model.weight * middle) @ model.weight.T + model.scale**2 * torch.eye(6)
    assert len(found.latents) == 2
    assert float((found.x - exact_map(operator, y, model.bias, spread)).abs().max()) <= 1e-6


def test_with_an_exact_encoder_every_iteration_lowers_the_joint_energy() -> None:
    model, operator = small_linear_gaussian(), operators()["inpainting"]
    found = plug_and_play(
        DataFidelity(operator, operator(model.sample(5)), NOISE),
        [level_of(model)],
        lambda latents: DiagonalNormal(
            latents[0] @ model.weight.T + model.bias, torch.tensor(model.scale).double()
        ),
        start=3 * torch.randn(5, 6, dtype=torch.float64),
        temperatures=[0.8],
        iterations=50,
        tolerance=0.0,
        solver_tolerance=1e-12,
    )
    assert found.energies.shape == (50, 5)
    assert (found.energies.diff(dim=0) <= 1e-9).all()
    assert not found.converged.any()


def test_a_temperature_moves_the_latent_from_the_posterior_to_the_prior() -> None:
    posterior = DiagonalNormal(torch.tensor([2.0]).double(), torch.tensor(0.5))
    prior = DiagonalNormal(torch.tensor([-1.0]).double(), torch.tensor(1.0))
    assert float(tempered_mode(posterior, prior, 1.0)) == 2.0
    assert float(tempered_mode(posterior, prior, 0.0)) == -1.0
    z = torch.linspace(-3, 3, 60_001, dtype=torch.float64)[:, None]
    tempered = posterior.log_prob(z) + (0.6**-2 - 1) * prior.log_prob(z)
    mode = tempered_mode(posterior, prior, 0.6)
    assert float(mode) == pytest.approx(float(z[tempered.argmax()]), abs=2e-4)


@pytest.mark.parametrize("temperatures", [[], [1.0, 1.0], [1.5], [-0.1], [math.nan]])
def test_a_temperature_that_is_missing_or_out_of_range_is_refused(
    temperatures: list[float],
) -> None:
    model, operator = small_linear_gaussian(), operators()["inpainting"]
    with pytest.raises(ValueError, match="temperatures"):
        plug_and_play(
            DataFidelity(operator, torch.zeros(1, 6).double(), NOISE),
            [level_of(model)],
            lambda latents: standard(latents[0]),
            torch.zeros(1, 6),
            temperatures,
            10,
            1e-3,
        )


class Autoencoder(nn.Module):
    """64-128-128-16 and back, with one learned scale of the pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(64, 128), nn.ELU(), nn.Linear(128, 128), nn.ELU())
        self.posterior = DiagonalNormalPosterior(128, 16)
        self.decoder = nn.Sequential(nn.Linear(16, 128), nn.ELU(), nn.Linear(128, 128), nn.ELU())
        self.likelihood = NormalLikelihood(128, 64, scale=0.2, learned="shared")

    def level(self, x: Tensor, parents: Sequence[Tensor]) -> tuple[DiagonalNormal, DiagonalNormal]:
        posterior = self.posterior(self.encoder(x.flatten(-2)))
        return posterior, standard(posterior.loc)

    def decode(self, latents: Sequence[Tensor]) -> DiagonalNormal:
        pixels = self.likelihood(self.decoder(latents[0]))
        shape = (*pixels.batch_shape, 8, 8)
        return DiagonalNormal(pixels.loc.view(shape), pixels.scale.view(shape), event_dims=2)


def trained(images: Tensor, steps: int) -> Autoencoder:
    model = Autoencoder()
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3, fused=True)
    for _ in range(steps):
        x = images[torch.randint(len(images), (128,))]
        posterior, prior = model.level(x, ())
        likelihood = model.decode([posterior.rsample()])
        loss = (kl(posterior, prior)[0] - likelihood.log_prob(x)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval()


def psnr_db(x: Tensor, truth: Tensor) -> float:
    errors = (x.clamp(0, 1) - truth).square().flatten(1).mean(1)
    return float(-10 * torch.log10(errors).mean())


def test_s018_digits_with_half_their_pixels_come_back_better_than_by_total_variation() -> None:
    """Total variation is given the weight that is best on these very digits."""
    digits = torch.from_numpy(load_digits(return_X_y=True)[0]).float().view(-1, 8, 8) / 16
    digits = digits[torch.randperm(len(digits))]
    model, truth = trained(digits[:1600], steps=1000), digits[1600:]
    operator = mask(torch.rand(truth.shape) < 0.5, (8, 8))
    fidelity = DataFidelity(operator, operator(truth) + 0.05 * torch.randn(truth.shape), 0.05)
    baselines = [
        total_variation(fidelity, weight, 500, norm=1.0) for weight in (0.1, 0.3, 1.0, 3.0)
    ]
    best = max(baselines, key=lambda x: psnr_db(x, truth))
    found = plug_and_play(
        fidelity, [model.level], model.decode, best, [0.9], iterations=300, tolerance=1e-3
    )
    assert psnr_db(found.x, truth) > psnr_db(best, truth) + 1
    assert float(found.converged.float().mean()) > 0.95
