"""Every KL in closed form that core registers, held against samples."""

from __future__ import annotations

import importlib
import pkgutil

import torch
from torch import Generator, Tensor
from torch.distributions import Distribution

import core.variational
from core.variational.distributions.registry_examples import Pair, examples, registered_pairs
from core.variational.divergences import kl
from core.variational.selftest.check import (
    Check,
    deviation,
    largest,
    none_missing,
    worst_of,
    z_limit,
)

DRAWS, SEEDS = 60_000, 2  # of each pair, for each of its examples
WRONG_BY = 0.25  # nats that a closed form is off by in the control


@torch.no_grad()
def check_kl_registry() -> list[Check]:
    """Hold each registered closed form against Monte Carlo over random parameters."""
    for module in pkgutil.walk_packages(core.variational.__path__, "core.variational."):
        importlib.import_module(module.name)  # registers its pairs
    makers, pairs = examples(), registered_pairs()
    missing = [pair for pair in pairs if pair not in makers]
    known = [pair for pair in pairs if pair in makers]
    right, control = {}, {}
    for pair in known:
        right[_name(pair)], control[_name(pair)] = _deviations(pair)
    comparisons = sum(_parameters(pair) for pair in known)
    limit = z_limit(max(1, comparisons), most=4.0)
    same = {_name(pair): _of_itself(pair) for pair in known if pair[0] is pair[1]}
    return [
        worst_of("closed form − Monte Carlo", right, limit, "SE"),
        worst_of(f"control: off by {WRONG_BY} nats, caught", control, limit, "SE", at_least=True),
        worst_of("KL of a distribution with itself", same, 1e-6, "nats"),
        none_missing("pairs without an example", len(pairs), map(_name, missing)),
    ]


def _deviations(pair: Pair) -> tuple[float, float]:
    """Return how far the closed form is from samples, and how far one that is wrong would be."""
    found, wrong = [], []
    for seed in range(SEEDS):
        posterior, prior = examples()[pair](Generator().manual_seed(seed), 1.0, 1.3)
        value = posterior.sample(torch.Size((DRAWS,)))
        ratios = posterior.log_prob(value) - prior.log_prob(value)
        closed = _closed_form(pair, posterior, prior)
        found.append(deviation(ratios, closed))
        wrong.append(deviation(ratios, closed + WRONG_BY))
    return largest(torch.cat(found)), largest(torch.cat(wrong))


def _closed_form(pair: Pair, posterior: Distribution, prior: Distribution) -> Tensor:
    divergence, closed = kl(posterior, prior)
    if not closed:
        raise ValueError(f"no closed form for {_name(pair)}, which is registered")
    return divergence


def _of_itself(pair: Pair) -> float:
    posterior, _ = examples()[pair](Generator().manual_seed(0), 1.0, 1.0)
    return largest(kl(posterior, posterior)[0])


def _parameters(pair: Pair) -> int:
    posterior, _ = examples()[pair](Generator().manual_seed(0), 1.0, 1.0)
    return SEEDS * posterior.batch_shape.numel()


def _name(pair: Pair) -> str:
    return f"{pair[0].__name__}, {pair[1].__name__}"
