"""What the doctor says of Prefect: its version, its server, whether its scheduler schedules."""

from __future__ import annotations

import datetime
import tempfile
import time
from importlib import metadata

from core.runtime.doctor import Finding
from core.runtime.errors import UserError
from pipelines.run import prepare, unreachable

SCHEDULER_LIMIT_S = 90
NAME = "latentworks-doctor"


def prefect_checks(thorough: bool = False) -> list[Finding]:
    """Look at Prefect.

    Args:
        thorough: Also have a schedule carried out; starts a server of its own if there is none.
    """
    try:
        prepare()
    except UserError:
        return [Finding("Prefect", "not installed; runs need --no-prefect", None)]
    from prefect.settings import PREFECT_API_URL

    version = Finding("Prefect", metadata.version("prefect"))
    url = PREFECT_API_URL.value()
    if not url:
        server = Finding("Prefect server", "none named by PREFECT_API_URL; embedded for each run")
        return [version, server, *([_embedded_scheduler()] if thorough else [])]
    fault = unreachable()
    if fault:
        return [version, Finding("Prefect server", f"{url} does not answer: {fault}", False)]
    return [version, Finding("Prefect server", url), *([_scheduler()] if thorough else [])]


def _embedded_scheduler() -> Finding:
    from prefect.settings import PREFECT_API_URL, temporary_settings

    from pipelines import embedded

    home = tempfile.mkdtemp(prefix="latentworks-doctor-")
    try:
        url = embedded.start(services=True, home=home)
    except RuntimeError as error:
        return Finding("Prefect scheduler", f"no server: {error}", False)
    with temporary_settings({PREFECT_API_URL: url}):
        return _scheduler()


def _scheduler() -> Finding:
    """Deploy with a schedule and see it planned: with a wrong SQLAlchemy it silently never is."""
    from prefect import get_client
    from prefect.client.schemas.actions import DeploymentScheduleCreate
    from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterId
    from prefect.client.schemas.schedules import IntervalSchedule

    daily = DeploymentScheduleCreate(
        schedule=IntervalSchedule(interval=datetime.timedelta(days=1)), active=True
    )
    with get_client(sync_client=True) as client:
        flow = client.create_flow_from_name(NAME)
        deployment = client.create_deployment(flow_id=flow, name=NAME, schedules=[daily])
        wanted = DeploymentFilter(id=DeploymentFilterId(any_=[deployment]))
        begun = time.monotonic()
        try:
            while time.monotonic() - begun < SCHEDULER_LIMIT_S:
                if client.read_flow_runs(deployment_filter=wanted, limit=1):
                    seconds = time.monotonic() - begun
                    return Finding("Prefect scheduler", f"planned a run after {seconds:.0f} s")
                time.sleep(1)
        finally:
            client.delete_deployment(deployment)
            client.delete_flow(flow)
    fault = f"planned nothing in {SCHEDULER_LIMIT_S} s; is sqlalchemy older than 2.1?"
    return Finding("Prefect scheduler", fault, False)
