import json
from pathlib import Path

import pytest

import domains
from core.runtime import cli, doctor
from core.runtime.doctor import Finding, make_doctor


def run(*words: str, more: list[Finding] | None = None) -> int:
    arguments = ["doctor", *words]
    verb = make_doctor(lambda thorough: more or [])
    return cli.run_app(cli.build_app(domains, arguments, doctor=verb), arguments)


def test_a_sound_installation_passes_with_the_exact_self_test(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run("--json") == 0
    found = {f["name"]: f for f in json.loads(capsys.readouterr().out)["findings"]}
    assert found["package core is ours"]["found"] == "yes"
    assert found["extra graph"]["ok"]
    assert found["flat: |ELBO - log p|, nats"]["ok"]
    assert all(finding["ok"] is not False for finding in found.values())


def test_anything_wrong_is_named_and_is_status_1(capsys: pytest.CaptureFixture[str]) -> None:
    wrong = [Finding("the scheduler", "plans nothing", False)]
    assert run("--no-self-test", more=wrong) == 1
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
