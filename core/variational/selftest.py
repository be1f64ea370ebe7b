"""The self-test of the variational core: every claim held against a known value, in a minute."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.distributions import Independent, Normal, kl_divergence

from core.variational.diagnostics import own_random_stream
from core.variational.distributions import DiagonalNormal
from core.variational.exact import (
    Exact,
    LinearGaussian,
    cubature_noise,
    small_linear_gaussian,
    small_two_level,
)
from core.variational.objectives import ELBO, IWAE


@dataclass(frozen=True)
class Check:
    """A number of the self-test, which must not exceed its limit.

    Args:
        name: What was measured, with its unit.
        value: The number.
        limit: The largest allowed.
        passed: Whether it was kept.
    """

    name: str
    value: float
    limit: float
    passed: bool


def self_test(seed: int = 0) -> list[Check]:
    """Hold the objectives and the KL against known values, in a few seconds.

    Args:
        seed: Seed of its own random numbers; the global stream stays where it is.
    """
    with torch.no_grad(), own_random_stream(seed):
        return [
            *_exact_posterior("flat", small_linear_gaussian()),
            *_exact_posterior("two-level", small_two_level()),
            _gap_is_the_divergence(small_linear_gaussian(stretch=1.4, shift=0.5)),
            *_importance_weighted("flat", small_linear_gaussian(stretch=1.4, shift=0.5)),
            *_importance_weighted("two-level", small_two_level(stretch=1.3, shift=0.2)),
            *_closed_forms(),
        ]


def _check(name: str, value: Tensor, limit: float) -> Check:
    number = float(value)
    return Check(name, number, limit, number <= limit)


def _exact_posterior(name: str, model: Exact) -> list[Check]:
    x = model.sample(32)
    exact = model.log_evidence(x)
    elbo = ELBO()(model.evidence_at(x, cubature_noise(model, x))).value
    ratios = model.evidence(x, 8).log_joint_ratio()
    return [
        _check(f"{name}: |ELBO - log p|, nats", (elbo - exact.mean()).abs(), 1e-6),
        _check(f"{name}: |log weight - log p|, nats", (ratios - exact).abs().max(), 1e-6),
    ]


def _gap_is_the_divergence(model: LinearGaussian) -> Check:
    x = model.sample(32)
    evidence = model.evidence_at(x, cubature_noise(model, x))
    gap = model.log_evidence(x).mean() - ELBO()(evidence).value
    expected = kl_divergence(evidence.latents[0].posterior, model.exact_posterior(x)).mean()
    return _check("flat, wrong posterior: |gap - KL|, nats", (gap - expected).abs(), 1e-6)


def _importance_weighted(name: str, model: Exact, repeats: int = 32) -> list[Check]:
    x = model.sample(16)
    objective = IWAE(samples=1000)
    values = torch.stack([objective(model.evidence(x, 1000)).value for _ in range(repeats)])
    excess = values.mean() - model.log_evidence(x).mean()
    error = values.std() / math.sqrt(repeats)
    return [
        _check(f"{name}, wrong posterior: |IWAE-1000 - log p|, nats", excess.abs(), 0.01),
        _check(f"{name}, wrong posterior: IWAE-1000 above log p, SE", excess / error, 3.0),
    ]


def _closed_forms(draws: int = 20_000) -> list[Check]:
    loc, scale = torch.randn(2, 8, 4, dtype=torch.float64)
    scale = scale.exp()
    posterior, prior = DiagonalNormal(loc, scale), DiagonalNormal(loc.flip(0), scale.flip(1))
    pairs = {
        "DiagonalNormal, DiagonalNormal": (posterior, prior),
        "DiagonalNormal, Independent(Normal)": (posterior, _independent(prior)),
        "Independent(Normal), DiagonalNormal": (_independent(posterior), prior),
    }
    checks = []
    for name, (q, p) in pairs.items():
        z = q.rsample((draws,))
        ratios = q.log_prob(z) - p.log_prob(z)
        errors = (kl_divergence(q, p) - ratios.mean(0)) / (ratios.std(0) / math.sqrt(draws))
        checks.append(
            _check(f"KL({name}): closed form - Monte Carlo, SE", errors.abs().max(), 4.0)
        )
    return checks


def _independent(normal: DiagonalNormal) -> Independent:
    return Independent(Normal(normal.loc, normal.scale), normal.event_dims)
