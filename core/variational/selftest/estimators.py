"""Gradient estimators: unbiased where they say so, caught where they are not, and their order."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor
from torch.distributions import OneHotCategorical

from core.variational.estimators import (
    ESTIMATORS,
    VIMCO,
    DoublyReparameterised,
    Enumeration,
    Estimator,
    MeasureValued,
    Path,
    Rejection,
    Reparameterised,
    ScoreFunction,
    SigmaPoints,
)
from core.variational.objectives import ELBO, IWAE
from core.variational.selftest.check import Check, largest, none_missing, worst_of, z_limit
from core.variational.selftest.gradients import (
    GradientSample,
    PathEverywhere,
    expectation_gradients,
    fitted,
    gamma,
    misfit,
)

SAMPLES = 50
DRAWS, DRAWS_OF_ONE = 20_000, 100_000  # gradients of a bound of many samples, and of one
MOST = 3.5  # standard errors

LOGITS = torch.tensor([0.3, -1.0, 0.8], dtype=torch.float64)
GAIN = torch.tensor([-1.0, 0.5, -2.0], dtype=torch.float64)
CONCENTRATION = torch.tensor([0.8, 2.0], dtype=torch.float64)

ON_NORMALS: dict[str, tuple[Estimator, int]] = {
    "reparameterised": (Reparameterised(), 1),
    "path": (Path(), 1),
    "path, 3 samples": (Path(), 3),
    "dreg, 2 samples": (DoublyReparameterised(), 2),
    "score": (ScoreFunction(), 1),
    "score, batch baseline": (ScoreFunction("batch"), 1),
    "score, leave-one-out": (ScoreFunction("leave-one-out"), 4),
    "vimco, 4 samples": (VIMCO(), 4),
    "measure-valued": (MeasureValued(), 1),
}
ON_CATEGORIES: dict[str, tuple[Estimator, int]] = {
    "score": (ScoreFunction(), 1),
    "score, batch baseline": (ScoreFunction("batch"), 1),
    "vimco, 3 samples": (VIMCO(), 3),
}
ON_GAMMAS: dict[str, tuple[Estimator, int]] = {
    "rejection": (Rejection(), 1),
    "reparameterised": (Reparameterised(), 1),
    "score": (ScoreFunction(), 1),
}
# Exact and without noise where they apply.
WITHOUT_NOISE: dict[str, tuple[Estimator, int]] = {
    "sigma-points": (SigmaPoints(), 1),
    "enumeration": (Enumeration(), 1),
    "enumeration, 3 samples": (Enumeration(), 3),
}


def check_estimators() -> list[Check]:
    """Hold the mean and the variance of every estimator to what it declares."""
    return [*single_sample(), *multi_sample(), _untested()]


def single_sample() -> list[Check]:
    """Compare gradients of an ELBO, and of other expectations, with the exact ones."""
    problem = misfit()
    exact = problem.exact_gradient()
    normals = {
        name: problem.gradients(ELBO(samples), estimator, DRAWS_OF_ONE).distance(exact)
        for name, (estimator, samples) in ON_NORMALS.items()
    }
    categories = {name: _on_categories(*given) for name, given in ON_CATEGORIES.items()}
    gammas = {name: _on_gammas(*given) for name, given in ON_GAMMAS.items()}
    size = len(exact.mean)
    fit = fitted()
    return [
        worst_of(
            "ELBO of a Normal, mean − exact", normals, z_limit(size * len(normals), MOST), "SE"
        ),
        worst_of(
            "categorical, mean − exact", categories, z_limit(3 * len(categories), MOST), "SE"
        ),
        worst_of("Gamma, mean − exact", gammas, z_limit(2 * len(gammas), MOST), "SE"),
        worst_of("without noise, error of the gradient", _without_noise(exact), 1e-10, "absolute"),
        worst_of(
            "path at the exact posterior, variance",
            {"path": fit.gradients(ELBO(), Path(), 100).total_variance},
            1e-20,
            "absolute",
        ),
    ]


def multi_sample() -> list[Check]:
    """Compare gradients of an importance-weighted bound of 50 samples with each other."""
    problem, objective = misfit(), IWAE(SAMPLES)
    kinds: dict[str, Estimator] = {
        "dreg": DoublyReparameterised(),
        "vimco": VIMCO(),
        "reparameterised": Reparameterised(),
        "score": ScoreFunction(),
        "path": PathEverywhere(),
    }
    found = {name: problem.gradients(objective, each, DRAWS) for name, each in kinds.items()}
    sticking = found.pop("path")
    unbiased = {
        f"{one} − {other}": found[one].distance(found[other])
        for one, other in itertools.combinations(found, 2)
    }
    size = problem.loc.numel() + problem.log_scale.numel()
    limit = z_limit(size * len(unbiased), MOST)
    variance = {name: each.total_variance for name, each in found.items()}
    ratios = {
        f"{one} / {other}": variance[one] / variance[other]
        for one, other in itertools.pairwise(variance)
    }
    gain = {"dreg / reparameterised": variance["dreg"] / variance["reparameterised"]}
    caught = {"path − dreg": sticking.distance(found["dreg"])}
    return [
        worst_of(f"IWAE_{SAMPLES}, difference of means", unbiased, limit, "SE"),
        worst_of(f"control: path at IWAE_{SAMPLES}, caught", caught, limit, "SE", at_least=True),
        worst_of(f"IWAE_{SAMPLES}, variance dreg / reparam.", gain, 0.01, "ratio"),
        worst_of(f"IWAE_{SAMPLES}, variance of neighbours", ratios, 1.0, "ratio"),
    ]


def _untested() -> Check:
    tables = (ON_NORMALS, ON_CATEGORIES, ON_GAMMAS, WITHOUT_NOISE)
    tested = {estimator.kind for table in tables for estimator, _ in table.values()}
    missing = [kind for kind in ESTIMATORS if kind not in tested]
    return none_missing("estimators that nothing tests", len(ESTIMATORS), missing)


def _exact_on_categories() -> GradientSample:
    leaf = LOGITS.clone().requires_grad_()
    return GradientSample(torch.autograd.grad(leaf.softmax(-1) @ GAIN, leaf)[0][None])


def _gradients_on_categories(estimator: Estimator, samples: int, draws: int) -> GradientSample:
    return expectation_gradients(
        lambda logits: OneHotCategorical(logits=logits),
        LOGITS,
        lambda z: z @ GAIN,
        estimator,
        samples,
        draws,
    )


def _on_categories(estimator: Estimator, samples: int) -> float:
    found = _gradients_on_categories(estimator, samples, DRAWS_OF_ONE)
    return found.distance(_exact_on_categories())


def _on_gammas(estimator: Estimator, samples: int) -> float:
    """Of the mean of a square, which is a (a + 1) for a Gamma of shape a and rate 1."""
    found = expectation_gradients(gamma, CONCENTRATION, _square, estimator, samples, DRAWS_OF_ONE)
    return found.distance(GradientSample((2 * CONCENTRATION + 1)[None]))


def _square(z: Tensor) -> Tensor:
    return z.square().sum(-1)


def _without_noise(exact: GradientSample) -> dict[str, float]:
    errors = {}
    for name, (estimator, samples) in WITHOUT_NOISE.items():
        if estimator.kind == SigmaPoints.kind:
            found, wanted = misfit().gradients(ELBO(samples), estimator, 2), exact
        else:
            found = _gradients_on_categories(estimator, samples, 2)
            wanted = _exact_on_categories()
        errors[name] = largest(found.values - wanted.values)
    return errors
