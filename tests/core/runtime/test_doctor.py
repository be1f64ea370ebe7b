import json
from pathlib import Path

import pytest
from torch.distributions import Distribution, kl

import domains
from core.runtime import cli, doctor
from core.runtime.doctor import Finding, make_doctor
from core.variational import selftest
from core.variational.distributions import DiagonalNormal
from core.variational.selftest import Check, divergences

FAST = ("linear operators", "schedules")


def run(*words: str, more: list[Finding] | None = None) -> int:
    arguments = ["doctor", *words]
    verb = make_doctor(lambda thorough: more or [])
    return cli.run_app(cli.build_app(domains, arguments, doctor=verb), arguments)


def keep(monkeypatch: pytest.MonkeyPatch, *parts: str) -> None:
    """Leave only these parts of the self-test."""
    monkeypatch.setattr(selftest, "PARTS", {part: selftest.PARTS[part] for part in parts})


def test_a_sound_installation_passes_with_the_exact_likelihoods(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run("--json") == 0
    result = json.loads(capsys.readouterr().out)
    found = {f["name"]: f for f in result["findings"]}
    assert found["package core is ours"]["found"] == "yes"
    assert found["extra graph"]["ok"]
    assert found["|ELBO − log p|, exact posterior, nats"]["ok"]
    assert all(finding["ok"] is not False for finding in found.values())
    assert "self_test" not in result


def test_the_self_test_is_a_table_by_part_with_cases_limits_and_time(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    keep(monkeypatch, *FAST)
    assert run("--self-test") == 0
    table = capsys.readouterr().out.split("\n\n")[1].strip().split("\n")
    assert [line for line in table if line in FAST] == list(FAST)
    adjoint = next(line for line in table if "⟨Ax, y⟩" in line)
    assert adjoint.startswith("ok ")
    assert "≤ 1e-12 relative" in adjoint
    assert table[-1].startswith("8 checks of ")
    assert "all ok" in table[-1]


def test_the_self_test_as_json_is_alone_on_stdout(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    keep(monkeypatch, *FAST)
    assert run("--self-test", "--json") == 0
    tested = json.loads(capsys.readouterr().out)["self_test"]
    assert tested["ok"]
    assert tested["cpu_s"] > 0
    first = tested["checks"][0]
    assert first["part"] == "linear operators"
    assert first["cases"] >= 10
    assert first["worst"] <= first["limit"]


def test_a_wrong_kl_is_status_1_and_the_last_line_names_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pair = (DiagonalNormal, DiagonalNormal)
    right = kl._KL_REGISTRY[pair]

    def wrong(posterior: Distribution, prior: Distribution) -> object:
        return right(posterior, prior) + 0.1

    keep(monkeypatch, "KL registry", "schedules")
    monkeypatch.setattr(divergences, "registered_pairs", lambda: [pair])
    monkeypatch.setitem(kl._KL_REGISTRY, pair, wrong)
    kl._KL_MEMOIZE.clear()
    try:
        assert run("--self-test") == 1
    finally:
        kl._KL_MEMOIZE.clear()
    said = capsys.readouterr()
    assert "WRONG  closed form − Monte Carlo" in said.out
    last = said.err.strip().split("\n")[-1]
    assert "KL registry: closed form − Monte Carlo (DiagonalNormal, DiagonalNormal)" in last
    assert "schedules" not in last


def test_a_part_that_breaks_off_is_wrong_and_null_in_json(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaks() -> list[Check]:
        raise RuntimeError("out of order")

    keep(monkeypatch, *FAST)
    monkeypatch.setitem(selftest.PARTS, "schedules", breaks)
    assert run("--self-test", "--json") == 1
    said = capsys.readouterr()
    assert json.loads(said.out)["self_test"]["checks"][-1]["worst"] is None
    assert "schedules: runs to its end (out of order)" in said.err


def test_anything_wrong_is_named_and_is_status_1(capsys: pytest.CaptureFixture[str]) -> None:
    wrong = [Finding("the scheduler", "plans nothing", False)]
    assert run(more=wrong) == 1
    said = capsys.readouterr()
    assert "WRONG  the scheduler" in said.out
    assert "not as it should be: the scheduler" in said.err


def test_a_foreign_package_of_our_name_is_noticed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(doctor.folder, "SOURCES", tmp_path)
    finding = next(f for f in doctor.installation() if f.name == "package core is ours")
    assert finding.ok is False
    assert str(tmp_path) in finding.found
