"""The mean-scale hyperprior: its normalisation, its rate in nats and what it learns."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm
from torch import Tensor

from core.variational.objectives import ELBO
from domains.compression.config import Hyperprior, Rates
from domains.compression.data.records import LAST_RATE, Images
from domains.compression.model import construct
from domains.compression.model.hyperprior import GDN, HyperpriorCodec
from domains.compression.model.program import LARGEST, SMALLEST, Network, Step

SMALL = Hyperprior(channels=8, latent=12)


def images(count: int = 3, height: int = 64, width: int = 128) -> Images:
    pixels = torch.randint(
        0, 256, (count, 3, height, width), generator=torch.Generator().manual_seed(0)
    )
    rate = torch.linspace(0, LAST_RATE, count).long()
    return Images(pixels.to(torch.uint8), rate)


def model(gain: float = 1.0) -> HyperpriorCodec:
    """A small model, always the same; gains of more make its latents more than zeros."""
    torch.manual_seed(0)
    made = construct(SMALL, Rates())
    assert isinstance(made, HyperpriorCodec)
    with torch.no_grad():
        for name, parameter in made.gains.named_parameters():
            if name.endswith("logarithm"):
                parameter += math.log(gain)
    return made


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 4), st.booleans(), st.integers(0, 1000))
def test_normalisation_divides_by_the_root_of_a_weighted_sum_of_squares(
    channels: int, inverse: bool, seed: int
) -> None:
    draw = torch.Generator().manual_seed(seed)
    layer = GDN(channels, inverse)
    with torch.no_grad():
        layer.beta_root.copy_(torch.rand(channels, generator=draw) + 0.2)
        layer.gamma_root.copy_(torch.rand(channels, channels, generator=draw))
    x = torch.randn(2, channels, 3, 4, generator=draw)
    beta = layer.beta_root.detach().double().numpy() ** 2
    gamma = layer.gamma_root.detach().double().numpy() ** 2
    values = x.double().numpy()
    squares = np.einsum("ij,bjhw->bihw", gamma, values**2) + beta[:, None, None]
    expected = values * np.sqrt(squares) if inverse else values / np.sqrt(squares)
    np.testing.assert_allclose(layer(x).detach().numpy(), expected, rtol=1e-4, atol=1e-5)


def test_the_inverse_undoes_a_normalisation_of_small_features_nearly() -> None:
    x = 0.05 * torch.randn(1, 6, 5, 5, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(GDN(6, inverse=True)(GDN(6)(x)), x, rtol=0.01, atol=1e-4)


def test_latents_are_at_a_sixteenth_and_a_64th_and_a_picture_comes_back() -> None:
    made, batch = model(), images()
    features = made.analyse(batch.pixels.float() / 255, batch.rate)
    assert features["y"].shape == (3, 12, 4, 8)
    assert features["z"].shape == (3, 8, 1, 2)
    assert made.stride == 64
    assert made.synthesise(features, batch.rate).shape == batch.pixels.shape


def test_in_evaluation_the_kl_is_the_code_length_of_the_rounded_symbols() -> None:
    made, batch = model(gain=30.0).eval(), images()
    features = made.analyse(batch.pixels.float() / 255, batch.rate)
    nats: dict[str, np.ndarray] = {}
    symbols: dict[str, np.ndarray] = {}

    def code(step: Step, mean: Tensor, index: Tensor) -> Tensor:
        log_gain = made.log_gain(step.name, batch.rate)
        gain = log_gain.exp()
        symbol = (features[step.name] * gain - mean * gain).round()
        steps = 63 / math.log(LARGEST / SMALLEST)
        place = (index.double() + log_gain.double() * steps).clamp(0, 63).numpy()
        scale, far = SMALLEST * (LARGEST / SMALLEST) ** (place / 63), symbol.abs().double().numpy()
        mass = norm.sf((far - 0.5) / scale) - norm.sf((far + 0.5) / scale)
        nats[step.name] = -np.log2(mass).sum((1, 2, 3)) * math.log(2)
        symbols[step.name] = symbol.numpy()
        return symbol / gain + mean

    with torch.no_grad():
        made.program(64, 128, batch.rate, code)
        evidence = made.evidence(batch)
    assert all(each.any() for each in symbols.values())
    for latent in evidence.latents:
        assert latent.name is not None
        found = latent.kl()[0].double().numpy()
        np.testing.assert_allclose(found, nats[latent.name], rtol=2e-5)


def test_evidence_is_finite_and_every_parameter_learns() -> None:
    made = model(gain=3.0).train()
    evidence = made.evidence(images(), samples=2)
    assert evidence.log_likelihood["pixels"].shape == (2, 3)
    assert [latent.name for latent in evidence.latents] == ["z", "y"]
    ELBO()(evidence, 1.0).loss.backward()
    for name, parameter in made.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name


def test_a_higher_rate_index_costs_more_before_any_training() -> None:
    made, indices = model(gain=30.0).eval(), list(range(0, LAST_RATE + 1, 42))
    pixels = images(1).pixels.expand(len(indices), -1, -1, -1)
    with torch.no_grad():
        evidence = made.evidence(Images(pixels, torch.tensor(indices)))
    nats = sum(latent.kl()[0] for latent in evidence.latents)
    assert isinstance(nats, Tensor)
    assert nats.diff().gt(0).all()


def read_by_the_prior(gain: float) -> dict[str, Tensor]:
    made, seen = model(gain), dict[str, Tensor]()
    for name, network in made.program.networks.items():
        assert isinstance(network, Network)
        network.register_forward_pre_hook(
            lambda _, given, which=name: seen.update({which: given[0]})
        )
    with torch.no_grad():
        made.eval().evidence(images())
    return seen


@pytest.mark.parametrize("network", ["h", "y"])
def test_the_networks_read_coefficients_whatever_the_gain(network: str) -> None:
    fine, finer = read_by_the_prior(2e3)[network], read_by_the_prior(3.2e4)[network]
    torch.testing.assert_close(fine, finer, atol=2e-3, rtol=0)
