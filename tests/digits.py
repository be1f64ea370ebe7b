"""Scikit-learn's digits as binary images, and a small VAE of them, for tests of trained models."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor, nn

from core.variational.evidence import Evidence, Latent
from core.variational.likelihoods import BernoulliLikelihood
from core.variational.objectives import Objective
from core.variational.posteriors import DiagonalNormalPosterior
from core.variational.priors import StandardNormal


@functools.cache
def digits() -> tuple[Tensor, Tensor]:
    """1,797 images of 64 zeros and ones, and what they show."""
    from sklearn.datasets import load_digits

    data: Any = load_digits()
    images = torch.from_numpy(data.data / 16.0).float()
    draw = torch.Generator().manual_seed(0)
    return torch.bernoulli(images, generator=draw), torch.from_numpy(data.target).long()


class DigitsVAE(nn.Module):
    """One hidden layer on each side."""

    def __init__(self, latent: int = 8, hidden: int = 128) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(64, hidden), nn.Tanh())
        self.posterior = DiagonalNormalPosterior(hidden, latent)
        self.prior = StandardNormal()
        self.decoder = nn.Sequential(nn.Linear(latent, hidden), nn.Tanh())
        self.likelihood = BernoulliLikelihood(hidden, 64)

    def evidence(self, batch: Tensor, samples: int = 1) -> Evidence:
        z = Latent.draw("z", self.posterior(self.encoder(batch)), self.prior, samples)
        likelihood = self.likelihood(self.decoder(z.value))
        return Evidence({"x": likelihood.log_prob(batch)}, [z])


def fit(
    model: Any,
    objective: Objective,
    data: Tensor,
    steps: int,
    batch: int = 128,
    learning_rate: float = 3e-3,
) -> Any:
    """Train on random batches with Adam and a cosine decay."""
    optimizer = torch.optim.Adam(model.parameters(), lr=learning_rate, fused=True)
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for step in range(steps):
        rows = torch.randint(len(data), (batch,))
        loss = objective(model.evidence(data[rows], objective.samples), step / steps).loss
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        decay.step()
    return model
