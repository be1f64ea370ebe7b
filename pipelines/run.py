"""Run the flow: against the server that ``PREFECT_API_URL`` names, else an embedded one."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator
from pathlib import Path

from core.runtime.errors import RunFailed, UserError
from pipelines.signals import interruptible

ENVIRONMENT = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_DATABASE_TIMEOUT": "60",  # two embedded servers share one database
    "PREFECT_CLI_PROMPT": "false",
}


def run_experiment(domain: str, run: Path) -> None:
    """Run the stages of a run as a Prefect flow.

    Raises:
        UserError: If Prefect is not installed, its server does not answer, or a stage says so.
        RunFailed: If a stage or Prefect failed.
        Interrupted: If a signal stopped the run.
    """
    with interruptible(run):
        prepare()
        with connected(run):
            _run_flow(domain, run)


def _run_flow(domain: str, run: Path) -> None:
    import httpx
    from prefect.exceptions import PrefectException

    from core.runtime import folder, stages
    from pipelines.experiment import experiment

    try:
        experiment(domain, str(run))
    except (httpx.HTTPError, PrefectException) as error:
        fault = f"Prefect: {type(error).__name__}: {_first_line(error)}"
        if stages.missing(run):
            raise RunFailed(f"{fault}; go on without it: {without_prefect(run)}") from error
        folder.say(f"{fault}; the run is done, but Prefect does not know")


def prepare() -> None:
    """Settle what Prefect reads when it is imported: no telemetry, no chatter.

    Raises:
        UserError: If Prefect is not installed, or its settings are wrong.
    """
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    try:
        import prefect.context  # reads the settings
        import prefect.main  # noqa: F401  (sets up the logging)
    except ModuleNotFoundError as error:
        raise UserError(
            "'prefect' is not installed; install it: pip install 'latentworks[flows]', or run "
            "with --no-prefect"
        ) from error
    except ValueError as error:
        raise UserError(f"Prefect's settings: {' '.join(str(error).split())}") from error
    if "PREFECT_LOGGING_LEVEL" not in os.environ:
        for name in ("", "prefect._internal"):
            for handler in logging.getLogger(name).handlers:
                handler.addFilter(_is_not_chatter)


def _is_not_chatter(record: logging.LogRecord) -> bool:
    """Our own messages and errors say on the terminal what Prefect would say again at length."""
    return not record.name.startswith("prefect")


@contextlib.contextmanager
def connected(run: Path) -> Iterator[None]:
    """Have a Prefect server: the one of the user's settings, else an embedded one.

    Raises:
        UserError: If the one of the user's settings does not answer.
        RunFailed: If the embedded one does not start.
    """
    from prefect.settings import (
        PREFECT_API_URL,
        PREFECT_FLOWS_HEARTBEAT_FREQUENCY,
        temporary_settings,
    )

    from pipelines import embedded

    url = PREFECT_API_URL.value()
    if url:
        fault = unreachable()
        if fault:
            raise UserError(
                f"PREFECT_API_URL: no Prefect server answers at {url} ({fault}); start it, "
                f"unset the variable for an embedded one, or go on without: {without_prefect(run)}"
            )
        yield
        return
    try:
        url = embedded.start()
    except RuntimeError as error:
        raise RunFailed(
            f"Prefect: the embedded server did not start: {_first_line(error)}; see: latentworks "
            f"doctor; or go on without it: {without_prefect(run)}"
        ) from error
    # A heartbeat is for someone who watches; here it would round the flow up to a second.
    with temporary_settings({PREFECT_API_URL: url, PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}):
        yield


def unreachable() -> str:
    """Why the server of the settings does not answer, or nothing if it does."""
    import httpx
    from prefect.settings import PREFECT_API_URL

    try:
        answer = httpx.get(f"{PREFECT_API_URL.value()}/health", timeout=5)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        return _first_line(error)
    return "" if answer.is_success else f"status {answer.status_code}"


def without_prefect(run: Path) -> str:
    """The command that goes on without Prefect."""
    return f"latentworks resume {run} --no-prefect"


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
