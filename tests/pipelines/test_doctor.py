"""What the doctor finds out about Prefect."""

from __future__ import annotations

import pytest

pytest.importorskip("prefect")
from prefect.settings import PREFECT_API_URL, temporary_settings

from core.runtime.errors import UserError
from pipelines import doctor


def test_no_server_is_no_fault() -> None:
    version, server = doctor.prefect_checks()
    assert version.ok
    assert server.ok
    assert "embedded" in server.found


def test_a_server_that_does_not_answer_is_a_fault() -> None:
    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}):
        assert [finding.ok for finding in doctor.prefect_checks()] == [True, False]


def test_a_missing_prefect_is_not_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> None:
        raise UserError("not installed")

    monkeypatch.setattr(doctor, "prepare", missing)
    (finding,) = doctor.prefect_checks()
    assert finding.ok is None


@pytest.mark.slow
def test_the_scheduler_plans_a_run() -> None:
    finding = doctor.prefect_checks(thorough=True)[-1]
    assert finding.ok
    assert "planned a run" in finding.found
