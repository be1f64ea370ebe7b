from __future__ import annotations

import itertools
from dataclasses import dataclass

import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from core.variational.diagnostics import importance_weighted_log_likelihood, own_random_stream
from core.variational.evidence import Evidence, Latent
from core.variational.likelihoods import AutoregressiveLikelihood
from core.variational.objectives import ELBO
from core.variational.posteriors import DiagonalNormalPosterior
from core.variational.priors import StandardNormal

FIELDS = (0, 1, 3)


class Lossy(nn.Module):
    """64-128-8 and back to a decoder of limited receptive field."""

    def __init__(self, receptive_field: int) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Flatten(), nn.Linear(64, 128), nn.ELU())
        self.posterior, self.prior = DiagonalNormalPosterior(128, 8), StandardNormal()
        self.decoder = nn.Sequential(nn.Linear(8, 128), nn.ELU())
        self.likelihood = AutoregressiveLikelihood(128, (8, 8), receptive_field, channels=16)

    def evidence(self, batch: Tensor, samples: int = 1) -> Evidence:
        posterior = self.posterior(self.encoder(batch))
        z = posterior.rsample((samples,))
        log_prob = self.likelihood(self.decoder(z)).log_prob(batch)
        return Evidence({"x": log_prob}, [Latent("z", z, posterior, self.prior(posterior))])


@dataclass(frozen=True)
class Figures:
    kl: float
    nll: float


def figures(receptive_field: int) -> Figures:
    """Train on binarised digits, and return KL and importance-weighted NLL of unseen ones."""
    digits = torch.from_numpy(load_digits(return_X_y=True)[0]).float().view(-1, 8, 8)
    digits = (digits >= 8).float()[torch.randperm(len(digits))]
    train, test = digits[:1500], digits[1500:]
    model, objective = Lossy(receptive_field), ELBO()
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3, fused=True)
    for _ in range(450):
        batch = train[torch.randint(len(train), (128,))]
        optimizer.zero_grad()
        objective(model.evidence(batch)).loss.backward()
        optimizer.step()
    with torch.no_grad():
        kl = objective(model.evidence(test, samples=20)).terms["kl/z"]
    found = importance_weighted_log_likelihood(model, test, samples=100, chunk=50)
    return Figures(float(kl), -float(found.log_likelihood.mean()))


@pytest.fixture(scope="module")
def by_field() -> dict[int, Figures]:
    found = {}
    for field in FIELDS:
        with own_random_stream(seed=1):
            found[field] = figures(field)
    return found


def test_s119_the_kl_falls_as_the_receptive_field_grows(by_field: dict[int, Figures]) -> None:
    rates = [by_field[field].kl for field in FIELDS]
    assert all(wider < narrower - 0.2 for narrower, wider in itertools.pairwise(rates))


def test_s119_the_latent_is_used_while_the_field_is_smaller_than_the_image(
    by_field: dict[int, Figures],
) -> None:
    assert all(by_field[field].kl > 1 for field in FIELDS)


def test_s119_a_field_lowers_the_negative_log_likelihood(by_field: dict[int, Figures]) -> None:
    """By 3 nats only on images of 28×28: benchmarks/lossy.py."""
    assert all(by_field[field].nll < by_field[0].nll - 0.3 for field in FIELDS[1:])
