"""The self-test of the variational core: every claim held against something known, in a minute.

Closed forms are held against samples, bounds and posteriors against models whose log-likelihood
is known, gradients against exact ones, flows against automatic differentiation and quadrature,
rates against the bits of a coder. What is measured by samples has fixed seeds and limits in
standard errors; beside it stands a control that something wrong is found.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

from core.variational.diagnostics import own_random_stream, seed_for
from core.variational.selftest.check import Check
from core.variational.selftest.divergences import check_kl_registry
from core.variational.selftest.estimators import check_estimators
from core.variational.selftest.exact import check_bounds, check_exact
from core.variational.selftest.flows import check_flows
from core.variational.selftest.linear import check_operators
from core.variational.selftest.rates import check_rates
from core.variational.selftest.schedules import check_schedules
from core.variational.threads import one_thread

__all__ = ["PARTS", "QUICK", "Check", "run_part", "self_test"]

PARTS: dict[str, Callable[[], list[Check]]] = {
    "exact likelihoods": check_exact,
    "bounds": check_bounds,
    "KL registry": check_kl_registry,
    "gradient estimators": check_estimators,
    "flows": check_flows,
    "quantised latents": check_rates,
    "linear operators": check_operators,
    "schedules": check_schedules,
}
QUICK = ("exact likelihoods",)


def self_test(
    parts: Sequence[str] | None = None, seed: int = 0
) -> Iterator[tuple[str, list[Check]]]:
    """Run parts of the self-test, one after the other.

    Args:
        parts: Keys of `PARTS`; all of them if not given.
        seed: Seed of its own random numbers; the global stream stays where it is.

    Returns:
        The name of each part with its checks, as soon as it is done.

    Example:
        >>> for part, checks in self_test(QUICK):
        ...     print(part, all(check.passed for check in checks))
        exact likelihoods True
    """
    for part in PARTS if parts is None else parts:
        yield part, run_part(part, seed)


def run_part(part: str, seed: int = 0) -> list[Check]:
    """Run one part on one thread; if it breaks off, that is its only check, and failed."""
    with own_random_stream(seed_for(seed, part)), one_thread():
        try:
            return PARTS[part]()
        except (ValueError, RuntimeError, ArithmeticError) as error:
            reason = str(error).partition("\n")[0]
            return [Check("runs to its end", 1, math.nan, 0, "errors", reason)]
