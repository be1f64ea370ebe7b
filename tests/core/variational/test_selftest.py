from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributions import Distribution, kl

from core.variational.distributions import DiagonalNormal
from core.variational.estimators import DoublyReparameterised, Path
from core.variational.exact import LinearGaussian
from core.variational.flows.table import FLOWS, FlowKind
from core.variational.inverse import LinearOperator, matrix
from core.variational.objectives import ELBO, IWAE
from core.variational.schedules import Linear
from core.variational.selftest import (
    PARTS,
    QUICK,
    Check,
    divergences,
    estimators,
    exact,
    flows,
    linear,
    run_part,
    schedules,
    self_test,
)
from core.variational.selftest.check import deviation, none_missing, worst_of, z_limit
from core.variational.selftest.gradients import PathEverywhere, misfit

PAIR = (DiagonalNormal, DiagonalNormal)


@pytest.fixture(scope="module")
def whole() -> dict[str, dict[str, Check]]:
    found = dict(self_test())
    named = {part: {each.name: each for each in checks} for part, checks in found.items()}
    assert all(len(named[part]) == len(checks) for part, checks in found.items())
    return named


@pytest.fixture(autouse=True)
def no_other_kl_remembered() -> Iterator[None]:
    kl._KL_MEMOIZE.clear()
    yield
    kl._KL_MEMOIZE.clear()


def failed(part: str) -> list[str]:
    return [each.name for each in run_part(part) if not each.passed]


def test_every_part_passes_and_names_each_of_its_numbers(
    whole: dict[str, dict[str, Check]],
) -> None:
    assert list(whole) == list(PARTS)
    for part, checks in whole.items():
        assert all(each.passed for each in checks.values()), (part, checks)
        assert len(checks) >= 3


def test_the_limits_are_no_looser_than_the_figures_to_reach(
    whole: dict[str, dict[str, Check]],
) -> None:
    elbo = whole["exact likelihoods"]["|ELBO − log p|, exact posterior"]
    assert elbo.cases == 3
    assert elbo.limit <= 1e-6
    registry = whole["KL registry"]["closed form − Monte Carlo"]
    assert registry.cases >= 36
    assert registry.limit <= 4
    gradients = whole["gradient estimators"]
    assert gradients["IWAE_50, difference of means"].limit <= 3.5
    assert gradients["ELBO of a Normal, mean − exact"].limit <= 3.5
    assert gradients["IWAE_50, variance dreg / reparam."].limit <= 1 / 100
    assert gradients["IWAE_50, variance of neighbours"].limit <= 1
    assert whole["flows"]["inverse, float64"].limit <= 1e-8
    assert whole["flows"]["log-determinant − autograd's, float32"].limit <= 1e-4
    for part in ("bounds", "KL registry", "gradient estimators"):
        controls = [each for name, each in whole[part].items() if name.startswith("control")]
        assert controls
        assert all(each.at_least for each in controls)


def test_the_self_test_says_the_same_again_and_leaves_the_global_random_stream_alone() -> None:
    torch.manual_seed(3)
    expected = torch.randn(4)
    torch.manual_seed(3)
    first = [run_part(part) for part in ("quantised latents", "linear operators")]
    again = [run_part(part) for part in ("quantised latents", "linear operators")]
    for _ in self_test(QUICK):
        pass
    assert first == again
    assert torch.equal(torch.randn(4), expected)


def test_a_part_runs_on_one_thread_and_gives_the_others_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen = []
    monkeypatch.setitem(PARTS, "flows", lambda: seen.append(torch.get_num_threads()) or [])
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        run_part("flows")
        assert (seen, torch.get_num_threads()) == ([1], 2)
    finally:
        torch.set_num_threads(before)


def test_every_flow_is_tested(whole: dict[str, dict[str, Check]]) -> None:
    assert whole["flows"]["inverse, float64"].cases == len(FLOWS)


# What is broken on purpose has to be found


@pytest.fixture
def one_pair(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(divergences, "registered_pairs", lambda: [PAIR])


@pytest.mark.usefixtures("one_pair")
def test_a_registered_kl_that_is_off_by_a_constant_is_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    right = kl._KL_REGISTRY[PAIR]
    assert failed("KL registry") == []

    def wrong(posterior: Distribution, prior: Distribution) -> Tensor:
        return right(posterior, prior) + 0.1

    monkeypatch.setitem(kl._KL_REGISTRY, PAIR, wrong)
    kl._KL_MEMOIZE.clear()
    assert failed("KL registry") == [
        "closed form − Monte Carlo",
        "KL of a distribution with itself",
    ]


@pytest.mark.usefixtures("one_pair")
def test_a_registered_kl_without_an_example_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    more = [PAIR, (Distribution, DiagonalNormal)]
    monkeypatch.setattr(divergences, "registered_pairs", lambda: more)
    (missing,) = [each for each in run_part("KL registry") if not each.passed]
    assert missing.at == "Distribution, DiagonalNormal"


@pytest.mark.usefixtures("one_pair")
def test_a_control_that_finds_nothing_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(divergences, "WRONG_BY", 0.0)
    assert failed("KL registry") == ["control: off by 0.0 nats, caught"]


@pytest.mark.parametrize("kind", ["planar", "realnvp", "maf"])
def test_a_wrong_log_determinant_is_found(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flows, "FLOWS", {kind: FLOWS[kind]})
    assert failed("flows") == []
    monkeypatch.setitem(FLOWS, kind, dataclasses.replace(FLOWS[kind], layer=_off(FLOWS[kind])))
    assert failed("flows")[:2] == [
        "log-determinant − autograd's, float64",
        "log-determinant − autograd's, float32",
    ]


class _OffByALittle:
    def __init__(self, right: Any) -> None:
        self.right = right

    def forward(self, x: Tensor) -> Any:
        step = self.right.forward(x)
        return step._replace(log_det=step.log_det + 1e-3)

    def inverse(self, y: Tensor) -> tuple[Tensor, Tensor]:
        value, log_det = self.right.inverse(y)
        return value, log_det + 1e-3


def _off(row: FlowKind) -> Callable[..., torch.nn.Module]:
    class Off(torch.nn.Module):
        def __init__(self, *given: Any) -> None:
            super().__init__()
            self.layer = row.layer(*given)

        def forward(self, context: Tensor | None) -> _OffByALittle:
            return _OffByALittle(self.layer(context))

    return Off


def test_an_inverse_that_does_not_invert_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flows, "FLOWS", {"radial": FLOWS["radial"]})
    right = flows._inverse
    monkeypatch.setattr(flows, "_inverse", lambda q, y: (right(q, y)[0] + 1e-3, right(q, y)[1]))
    assert failed("flows") == ["inverse, float64", "inverse, float32"]


@pytest.fixture
def fewer_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DRAWS", "DRAWS_OF_ONE"):
        monkeypatch.setattr(estimators, name, 4000)


@pytest.mark.usefixtures("fewer_draws")
def test_a_biased_estimator_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(DoublyReparameterised, "doubly", False)  # what is left is `Path`
    wrong = failed("gradient estimators")
    assert "IWAE_50, difference of means" in wrong
    assert "IWAE_50, variance dreg / reparam." in wrong


@pytest.mark.usefixtures("fewer_draws")
def test_an_estimator_that_keeps_the_score_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "holds_density", False)
    assert "path at the exact posterior, variance" in failed("gradient estimators")


def test_an_estimator_that_nothing_tests_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(estimators.ESTIMATORS, "new", Path)
    check = estimators._untested()
    assert not check.passed
    assert check.at == "new"


def test_a_wrong_log_likelihood_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    right = LinearGaussian.log_evidence
    monkeypatch.setattr(LinearGaussian, "log_evidence", lambda self, x: right(self, x) - 1e-3)
    assert "|ELBO − log p|, exact posterior" in failed("exact likelihoods")


def test_a_bound_that_exceeds_log_p_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    right = IWAE.__call__
    monkeypatch.setattr(exact, "BENT", {"flat": exact.BENT["flat"]})

    def optimistic(self: IWAE, evidence: Any) -> Any:
        loss = right(self, evidence)
        return dataclasses.replace(loss, value=loss.value + 0.3)

    monkeypatch.setattr(IWAE, "__call__", optimistic)
    wrong = failed("bounds")
    assert "ELBO ≤ IWAE_K ≤ IWAE_K+1 ≤ log p ≤ CUBO, excess" in wrong


def test_a_false_adjoint_and_a_schedule_without_end_are_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def transposed_wrongly() -> LinearOperator:
        right = matrix(torch.randn(3, 3, dtype=torch.float64))
        return dataclasses.replace(right, adjoint=right.forward)

    monkeypatch.setattr(linear, "OPERATORS", {"square": transposed_wrongly})
    assert failed("linear operators") == ["⟨Ax, y⟩ − ⟨x, A*y⟩"]
    monkeypatch.setattr(schedules, "CYCLICAL", {"cyclical, 1": (Linear(0.5, 1.0, 0.9), 1.0)})
    assert failed("schedules") == [
        "distance from the target at the end",
        "schedules that nothing tests",
    ]


def test_a_part_that_breaks_off_is_a_failed_check_with_the_reason(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def breaks() -> list[Check]:
        raise ValueError("no such thing\nand more")

    monkeypatch.setitem(PARTS, "flows", breaks)
    (check,) = run_part("flows")
    assert not check.passed
    assert check.at == "no such thing"


# The measurement itself


def test_the_worst_is_the_largest_or_for_a_control_the_least_and_nan_before_all() -> None:
    values = {"a": 1.0, "b": 3.0, "c": 2.0}
    assert worst_of("x", values, 2.5, "nats").at == "b"
    assert not worst_of("x", values, 2.5, "nats").passed
    least = worst_of("x", values, 0.5, "SE", at_least=True)
    assert (least.at, least.passed) == ("a", True)
    for at_least in (False, True):
        broken = worst_of("x", {**values, "d": math.nan}, 1.0, "nats", at_least)
        assert (broken.at, broken.passed) == ("d", False)
        assert not worst_of("x", {}, 1.0, "nats", at_least).passed
    assert none_missing("x", 3, []).passed
    assert none_missing("x", 3, ["a", "b"]).worst == 2


def test_the_limit_keeps_the_chance_of_a_false_alarm_below_one_in_a_hundred() -> None:
    comparisons, runs = 20, 4000
    noise = torch.randn(runs, comparisons).abs().amax(1)
    share = float((noise > z_limit(comparisons, most=9.0)).float().mean())
    assert 0.005 < share < 0.015
    assert z_limit(10**9, most=4.0) == 4.0


def test_deviation_is_in_standard_errors() -> None:
    samples = torch.randn(4000, 500, dtype=torch.float64)
    away = deviation(samples + 0.1, torch.zeros(500, dtype=torch.float64))
    assert float(away.mean()) == pytest.approx(0.1 * math.sqrt(4000), rel=0.05)
    constant = torch.full((10, 2), 3.0, dtype=torch.float64)
    assert float(deviation(constant, constant[0]).max()) == 0


def test_the_gradient_that_is_called_exact_is_that_of_many_samples() -> None:
    problem = misfit()
    known = problem.exact_gradient()
    assert known.values.shape == (1, 6)
    sample = problem.gradients(ELBO(), Path(), 200_000)
    assert sample.distance(known) < 4
    assert float((sample.mean - known.mean).abs().max()) < 0.02
    assert sample.signal_to_noise == pytest.approx(
        float(sample.mean.norm()) / math.sqrt(sample.total_variance)
    )


def test_sticking_the_landing_is_biased_with_several_samples_only() -> None:
    problem = misfit()
    for samples, biased in ((1, False), (5, True)):
        reference = problem.gradients(IWAE(samples), DoublyReparameterised(), 20_000)
        sticking = problem.gradients(IWAE(samples), PathEverywhere(), 20_000)
        assert (sticking.distance(reference) > 20) == biased
