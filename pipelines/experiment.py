"""The one flow, for every domain: the stages as tasks, with a policy put on from outside.

A stage is run again when its sources, its settings or what it reads have changed, or when what it
made is gone. Nothing but the domain's name and the run's folder passes through Prefect.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefect import Task, flow, task
from prefect.artifacts import create_link_artifact, create_table_artifact
from prefect.cache_policies import CachePolicy
from prefect.client.schemas.objects import State, TaskRun
from prefect.context import TaskRunContext
from prefect.runtime import flow_run

from core.runtime import folder, stages
from core.runtime.config import Settings, load_settings
from domains import load_config, load_domain
from pipelines.signals import interruptible

WEIGHTS = "checkpoints/best-*/model.safetensors"
READS = {
    "ingest": [],
    "train": [stages.CARD],
    "evaluate": [stages.CARD, WEIGHTS],
    "report": [stages.CARD, WEIGHTS, "history.jsonl", stages.METRICS],
}


def stage_key(stage: str, domain: str, run: Path) -> str:
    """Hash of all that a stage's outputs depend on: sources, settings, folder, what it reads."""
    digest = hashlib.sha256(f"{stage}\n{run.resolve()}\n{folder.code_version(domain)}\n".encode())
    for pattern in ["settings.yaml", *READS[stage]]:
        for path in sorted(run.glob(pattern)):
            digest.update(
                path.relative_to(run).as_posix().encode() + b"\0" + path.read_bytes() + b"\0"
            )
    return digest.hexdigest()


@dataclass
class StageCache(CachePolicy):
    """Prefect's own policies hash the task's body only, and never hit on tensors."""

    def compute_key(
        self,
        task_ctx: TaskRunContext,
        inputs: dict[str, Any],
        flow_parameters: dict[str, Any],
        **kwargs: Any,
    ) -> str:
        """The key of the stage that the task wraps."""
        return stage_key(task_ctx.task.name, inputs["domain"], Path(inputs["run"]))


def worth_retrying(_task: Task[..., Any], _run: TaskRun, state: State[Any]) -> bool:
    """Whether another try may help: a network or disk fault, never a mistake or a signal."""
    error = state.data
    if isinstance(error, OSError):
        folder.say(f"ingest: {type(error).__name__}: {error}; trying again if tries are left")
    return isinstance(error, OSError)


def _settings(domain: str, run: str) -> Settings:
    return load_settings(load_config(domain), Path(run) / "settings.yaml")


def _stage(name: str, **policy: Any) -> Task[[str, str], dict[str, Any]]:
    def work(domain: str, run: str) -> dict[str, Any]:
        with interruptible(Path(run)):
            return stages.STAGES[name](load_domain(domain), _settings(domain, run), Path(run))

    return task(
        name=name,
        cache_policy=StageCache(),
        persist_result=True,
        result_serializer="json",
        **policy,
    )(work)


ingest = _stage(
    "ingest", retries=3, retry_delay_seconds=[10, 60, 300], retry_condition_fn=worth_retrying
)
train = _stage("train")
evaluate = _stage("evaluate")
report = _stage("report")


def run_name() -> str:
    """The name of a flow run: ``<domain>/<name>/<time>-<identity>``."""
    return "/".join(Path(flow_run.parameters["run"]).parts[-3:])


@flow(name="experiment", flow_run_name=run_name, result_serializer="json")
def experiment(domain: str, run: str) -> dict[str, Any]:
    """From raw data to a report: ingest, train, evaluate, report.

    Args:
        domain: The domain's name.
        run: The run's folder; it holds the settings already.

    Returns:
        The metrics by name.
    """
    folder.record_lineage(Path(run), flow_run=str(flow_run.id))
    settings = _settings(domain, run)
    gone = stages.missing(Path(run))
    results = {
        stage.name: stage.with_options(refresh_cache=stage.name in gone)(domain, run)
        for stage in (ingest, train, evaluate, report)
    }
    publish(settings, Path(run))
    return results["evaluate"]


def publish(settings: Settings, run: Path) -> None:
    """Show the metrics and the way to the report as artifacts of the flow run."""
    name = re.sub(r"[^a-z0-9]+", "-", f"{settings.domain}-{settings.name}").strip("-")
    metrics = folder.read_json(run / stages.METRICS)["metrics"]
    columns = ("value", "unit", "interval", "n", "direction", "method")
    create_table_artifact(
        key=f"{name}-metrics",
        table=[
            {"metric": key, **{c: metric[c] for c in columns}} for key, metric in metrics.items()
        ],
        description=f"Metrics of {run.name} on the test split.",
    )
    create_link_artifact(
        key=f"{name}-report",
        link=(run / stages.REPORT).resolve().as_uri(),
        link_text=f"Report of {run.name}",
        description="On the machine that ran it.",
    )
