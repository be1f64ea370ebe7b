from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_digits
from torch import Tensor, nn

from core.variational.distributions import CentredNormal, DiagonalNormal
from core.variational.evidence import Evidence, Latent
from core.variational.lipschitz import BrenierMap, InverseLipschitzDecoder, smallest_stretch
from core.variational.objectives import ELBO

SEEDS = st.integers(0, 2**31 - 1)


def shaken(module: nn.Module, size: float) -> nn.Module:
    """Put a network somewhere else than where it starts."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(size * torch.randn_like(parameter))
    return module.double()


def potential(brenier: BrenierMap, z: Tensor) -> Tensor:
    """Return the convex potential, written forward only: a second implementation."""
    softplus = nn.functional.softplus
    hidden = softplus(brenier.inputs[0](z))
    for weight, layer in zip(brenier.hidden, list(brenier.inputs)[1:], strict=True):
        hidden = softplus(hidden @ softplus(weight).T + layer(z))
    quadratic = 0.5 * brenier.constant * z.square().sum(-1)
    return hidden @ softplus(brenier.last) + quadratic + z @ brenier.bias


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_a_brenier_map_is_the_gradient_of_its_potential(layers: int) -> None:
    brenier = shaken(BrenierMap(3, 7, layers, 0.8), 0.5)
    assert isinstance(brenier, BrenierMap)
    z = torch.randn(6, 3, dtype=torch.float64, requires_grad=True)
    (expected,) = torch.autograd.grad(potential(brenier, z).sum(), z)
    torch.testing.assert_close(brenier(z).detach(), expected)


@settings(max_examples=20, deadline=None)
@given(seed=SEEDS, constant=st.floats(0.0, 20.0), size=st.floats(0.1, 3.0))
def test_the_jacobian_is_symmetric_with_eigenvalues_above_the_constant(
    seed: int, constant: float, size: float
) -> None:
    torch.manual_seed(seed)
    brenier = shaken(BrenierMap(3, 6, 2, constant), size)
    jacobian = torch.autograd.functional.jacobian(brenier, torch.randn(3).double())
    assert isinstance(jacobian, Tensor)
    torch.testing.assert_close(jacobian, jacobian.T)
    assert torch.linalg.eigvalsh(jacobian).min() >= constant - 1e-9 * (1 + constant)


@pytest.mark.parametrize("constant", [0.1, 1.0, 7.0])
@pytest.mark.parametrize("size", [0.0, 1.0, 5.0])
def test_s073_ten_thousand_pairs_stay_apart(constant: float, size: float) -> None:
    decoder = shaken(InverseLipschitzDecoder(3, 12, 16, 2, constant), size)
    z, other = 3 * torch.randn(2, 10_000, 3, dtype=torch.float64)
    other[5000:] = z[5000:] + 1e-3 * other[5000:]  # half of the pairs are close ones
    with torch.no_grad():
        stretch = smallest_stretch(z, decoder(z), other, decoder(other))
    assert stretch >= constant * (1 - 1e-9)


def test_s073_an_ordinary_decoder_does_bring_points_closer() -> None:
    decoder = nn.Sequential(nn.Linear(3, 16), nn.Tanh(), nn.Linear(16, 12)).double()
    z, other = 3 * torch.randn(2, 10_000, 3, dtype=torch.float64)
    assert smallest_stretch(z, decoder(z), other, decoder(other)) < 0.1


def test_s073_the_guarantee_survives_training() -> None:
    decoder = InverseLipschitzDecoder(2, 5, 8, 2, 2.0)
    optimizer = torch.optim.Adam(decoder.parameters(), lr=0.05)
    for _ in range(100):  # towards a decoder that ignores its latents
        optimizer.zero_grad()
        decoder(torch.randn(64, 2)).square().sum().backward()
        optimizer.step()
    z, other = torch.randn(2, 10_000, 2)
    with torch.no_grad():
        stretch = smallest_stretch(z, decoder(z), other, decoder(other))
    assert 2.0 * (1 - 1e-4) <= stretch < 2.5


def test_the_lift_is_semi_orthogonal() -> None:
    decoder = shaken(InverseLipschitzDecoder(3, 12, 4, 1, 1.0), 2.0)
    weight = decoder.lift()
    torch.testing.assert_close(weight.T @ weight, torch.eye(3).double(), atol=1e-9, rtol=0)


def test_gradients_reach_every_parameter() -> None:
    decoder = InverseLipschitzDecoder(2, 5, 8, 3, 0.5)
    (decoder(torch.randn(16, 2)) - torch.randn(16, 5)).square().sum().backward()
    for name, parameter in decoder.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_equal_points_are_no_pair() -> None:
    z = torch.tensor([[0.0, 0.0], [1.0, 0.0]])
    other = torch.tensor([[0.0, 0.0], [3.0, 0.0]])
    assert float(smallest_stretch(z, 2 * z, other, 2 * other)) == 2


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: BrenierMap(2, 0, 1, 1.0), r"hidden=0"),
        (lambda: BrenierMap(2, 4, 1, -1.0), r"constant=-1.0"),
        (lambda: BrenierMap(2, 4, 1, math.inf), r"constant=inf"),
        (lambda: InverseLipschitzDecoder(5, 3, 4, 1, 1.0), r"3 outputs of 5 latents"),
    ],
)
def test_mistakes_are_named(build: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()


class DigitsVAE(nn.Module):
    """Digits with a Normal likelihood so wide that an ordinary decoder collapses."""

    def __init__(self, constant: float, scale: float = 3.0) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(64, 32), nn.Tanh(), nn.Linear(32, 8))
        self.decoder = InverseLipschitzDecoder(4, 64, 16, 2, constant)
        self.scale = scale

    def evidence(self, x: Tensor) -> Evidence:
        loc, log_scale = self.encoder(x).chunk(2, -1)
        posterior = DiagonalNormal(loc, log_scale.exp())
        z = posterior.rsample((1,))
        likelihood = DiagonalNormal(self.decoder(z), torch.tensor(self.scale))
        latent = Latent("z", z, posterior, CentredNormal(loc))
        return Evidence({"x": likelihood.log_prob(x)}, [latent])


def trained_kl(constant: float) -> float:
    torch.manual_seed(0)
    x = torch.tensor(load_digits().data, dtype=torch.float32)
    x = (x - x.mean(0)) / x.std()
    model = DigitsVAE(constant)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    for _ in range(200):
        optimizer.zero_grad()
        loss = ELBO()(model.evidence(x[torch.randint(len(x), (64,))]))
        loss.loss.backward()
        optimizer.step()
    with torch.no_grad():
        return float(model.evidence(x).latents[0].kl().mean())


def test_s073_the_kl_rises_with_the_constant_on_digits() -> None:
    divergences = [trained_kl(constant) for constant in (0.0, 2.0, 5.0, 12.0)]
    assert all(low < high for low, high in itertools.pairwise(divergences))
