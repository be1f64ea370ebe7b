"""The command ``latentworks``; Prefect is imported only when a flow runs."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import domains
from core.runtime import cli

if TYPE_CHECKING:
    from core.runtime.doctor import Finding


def main() -> int:
    """Run what was typed and return the exit status."""
    from core.runtime.doctor import make_doctor

    return cli.main(domains, orchestrate=_orchestrate, doctor=make_doctor(_prefect_checks))


def _orchestrate(domain: str, run: Path) -> None:
    from pipelines.run import run_experiment

    run_experiment(domain, run)


def _prefect_checks(thorough: bool) -> Iterable[Finding]:
    from pipelines.doctor import prefect_checks

    return prefect_checks(thorough)
