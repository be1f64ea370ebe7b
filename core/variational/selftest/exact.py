"""Likelihoods and bounds, held against models whose log-likelihood is known."""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor
from torch.distributions import kl_divergence

from core.variational.dynamics import (
    dense,
    kalman_filter,
    sequential_kalman_filter,
    sequential_rts_smoother,
)
from core.variational.exact import (
    Exact,
    LinearDynamicalSystem,
    LinearGaussian,
    cubature_noise,
    small_dynamics,
    small_linear_gaussian,
    small_two_level,
)
from core.variational.objectives import CUBO, ELBO, IWAE, Renyi
from core.variational.selftest.check import Check, largest, worst_of, z_limit

MODELS = {
    "flat": small_linear_gaussian,
    "hierarchy": small_two_level,
    "dynamics": small_dynamics,
}
# Wider than the exact posterior, so that the importance weights are bounded.
BENT = {
    "flat": small_linear_gaussian(stretch=1.4, shift=0.5),
    "hierarchy": small_two_level(stretch=1.3, shift=0.2),
    "dynamics": small_dynamics(stretch=1.2, shift=0.15),
}
SAMPLES = (1, 2, 3, 4, 8, 9)


@torch.no_grad()
def check_exact() -> list[Check]:
    """Hold ELBO, weights, gap and filter against log-likelihoods that are known exactly."""
    models = {name: build() for name, build in MODELS.items()}
    elbo = {name: _elbo_error(model) for name, model in models.items()}
    weights = {name: _weight_error(model) for name, model in models.items()}
    gaps = {name: _gap_error(BENT[name]) for name in ("flat", "dynamics")}
    return [
        worst_of("|ELBO − log p|, exact posterior", elbo, 1e-6, "nats"),
        worst_of("|log weight − log p|, exact posterior", weights, 1e-6, "nats"),
        worst_of("|log p − ELBO − KL|, wrong posterior", gaps, 1e-6, "nats"),
        worst_of("Kalman filter and smoother", _kalman_errors(small_dynamics()), 1e-8, "absolute"),
    ]


@torch.no_grad()
def check_bounds() -> list[Check]:
    """Hold ELBO ≤ IWAE_K ≤ IWAE_{K+1} ≤ log p ≤ CUBO, and Rényi's bound falling in its order."""
    above = {
        f"{name}: {pair}": z
        for name, model in BENT.items()
        for pair, z in _sandwich(model).items()
    }
    far = {name: _distance_of_iwae(model) for name, model in BENT.items()}
    rising = {name: _rise_of_renyi(model) for name, model in BENT.items()}
    wrong = {name: _excess_of_weighted_logs(model) for name, model in BENT.items()}
    limit = z_limit(len(above), most=3.5)
    return [
        worst_of("ELBO ≤ IWAE_K ≤ IWAE_K+1 ≤ log p ≤ CUBO, excess", above, limit, "SE"),
        worst_of("control: weighted mean of log w, caught", wrong, limit, "SE", at_least=True),
        worst_of("|IWAE_1000 − log p|", far, 0.01, "nats"),
        worst_of("Rényi's bound rises with its order", rising, 1e-12, "nats"),
    ]


def _elbo_error(model: Exact) -> float:
    x = model.sample(32)
    elbo = ELBO()(model.evidence_at(x, cubature_noise(model, x))).value
    return largest(elbo - model.log_evidence(x).mean())


def _weight_error(model: Exact) -> float:
    x = model.sample(32)
    return largest(model.evidence(x, 8).log_joint_ratio() - model.log_evidence(x))


def _gap_error(model: LinearGaussian | LinearDynamicalSystem) -> float:
    x = model.sample(32)
    evidence = model.evidence_at(x, cubature_noise(model, x))
    gap = model.log_evidence(x).mean() - ELBO()(evidence).value
    expected = kl_divergence(evidence.latents[0].posterior, model.exact_posterior(x)).mean()
    return largest(gap - expected)


def _kalman_errors(model: LinearDynamicalSystem) -> dict[str, float]:
    """Compare the scan with the loop over time and with one joint Normal, gaps in the data."""
    x = model.sample(8)
    x[0, 1, 2] = x[1, 2:4] = x[2, 4:] = math.nan
    space, seen = model.state_space, ~x.isnan()
    stepped = sequential_kalman_filter(space, x, seen)
    smoothed = sequential_rts_smoother(space, stepped)
    by_scan, joint = kalman_filter(space, x, seen), model.exact_posterior(x)
    log_p = model.dense_log_evidence(x)
    return {
        "log p by scan, joint Normal": largest(by_scan.log_likelihood - log_p),
        "log p by loop, joint Normal": largest(stepped.log_likelihood - log_p),
        "filtered means": largest(by_scan.loc - stepped.loc),
        "smoothed means": largest(joint.mean - smoothed.loc),
        "smoothed covariances": largest(joint.covariance_matrix - smoothed.covariance),
        "smoothed means, dense": largest(dense(joint).mean.view_as(joint.mean) - joint.mean),
    }


def _sandwich(model: Exact, repeats: int = 25, examples: int = 32) -> dict[str, float]:
    """Return by how many standard errors each bound exceeds the next one, below 0 for none."""
    x = model.sample(examples)
    exact = model.log_evidence(x).mean().expand(repeats)
    iwae = {
        f"IWAE_{k}": [IWAE(k)(model.evidence(x, k)).value for _ in range(repeats)] for k in SAMPLES
    }
    elbo = [ELBO(4)(model.evidence(x, 4)).value for _ in range(repeats)]
    cubo = [CUBO(2000)(model.evidence(x, 2000)).value for _ in range(repeats)]
    bounds = {"ELBO": elbo, **iwae, "log p": list(exact), "CUBO": cubo}
    ladder = {name: torch.stack(values) for name, values in bounds.items()}
    # One sample is the ELBO again: equal in expectation, so that neither has to be below.
    return {
        f"{lower} ≤ {upper}": _excess(ladder[lower], ladder[upper])
        for lower, upper in itertools.pairwise(ladder)
    }


def _excess(lower: Tensor, upper: Tensor) -> float:
    error = ((lower.var() + upper.var()) / len(lower)).sqrt()
    return float((lower.mean() - upper.mean()) / error)


def _excess_of_weighted_logs(model: Exact, repeats: int = 25) -> float:
    """Return how far above log p a mean of log weights by normalised weights is.

    It has IWAE's gradient and is no bound, so that it must not be reported as one.
    """
    x = model.sample(32)
    values = []
    for _ in range(repeats):
        log_weights = model.evidence(x, 50).log_joint_ratio()
        values.append((log_weights.softmax(0) * log_weights).sum(0).mean())
    exact = model.log_evidence(x).mean()
    return _excess(torch.stack(values), exact.expand(repeats))


def _distance_of_iwae(model: Exact, repeats: int = 32) -> float:
    x = model.sample(16)
    values = [IWAE(1000)(model.evidence(x, 1000)).value for _ in range(repeats)]
    return largest(torch.stack(values).mean() - model.log_evidence(x).mean())


def _rise_of_renyi(model: Exact) -> float:
    """Return how much the bound of the same draws rises with its order, which it never does."""
    evidence = model.evidence(model.sample(16), 20)
    orders = (-1.0, 0.0, 0.3, 0.9, 0.999, 1.0, 1.001, 2.0, 5.0)
    values = [Renyi(order, 20)(evidence).value for order in orders]
    rises = [float(after - before) for before, after in itertools.pairwise(values)]
    return max(*rises, largest(values[1] - IWAE(20)(evidence).value))
