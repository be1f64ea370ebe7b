"""The four stages of a run as plain functions of (domain, settings, run folder).

They hand over through the folder and never through return values, so that any of them can be run
again alone. What they return is small JSON for whoever orchestrates them.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from core.contract import Domain, ModelT
from core.runtime import checkpoint, folder
from core.runtime.config import Settings
from core.runtime.errors import UserError
from core.runtime.folder import say
from core.runtime.order import derive
from core.variational.diagnostics import looking_at

AnyDomain = Domain[Any, Any, Any]
CARD, METRICS, REPORT = "data-card.json", "metrics.json", "report.html"


def ingest(domain: AnyDomain, config: Settings, run: Path) -> dict[str, Any]:
    """Raw files → validated, fingerprinted examples and splits in ``data/``."""
    with folder.working(run, "ingesting", then="ingested"):
        say(f"ingest: {domain.name}")
        card = domain.prepare(config, run / "data")
        folder.write_json(run / CARD, dataclasses.asdict(card))
        folder.record_lineage(
            run,
            identity=folder.identity(config, card.fingerprint),
            data={"fingerprint": card.fingerprint, "licence": card.licence, "source": card.source},
        )
    return {"fingerprint": card.fingerprint}


def train(domain: AnyDomain, config: Settings, run: Path) -> dict[str, Any]:
    """Train to the end, from the newest checkpoint if there is one.

    Of several processes under torchrun, only the first holds the run and writes to it.
    """
    from core.runtime import engine

    folder.require(run, CARD, f"{domain.name} ingest")
    first = os.environ.get("RANK", "0") == "0"
    with folder.working(run, "training", "trained") if first else contextlib.nullcontext():
        engine.train(domain, config, run)
    best = best_checkpoint(config, run)
    return {"step": best.step, "weights": best.record["sha256"][checkpoint.WEIGHTS]}


def evaluate(domain: AnyDomain, config: Settings, run: Path) -> dict[str, Any]:
    """Measure the chosen checkpoint on the test split, once, and write the domain's examples."""
    from core.runtime import evaluation

    best = best_checkpoint(config, run)
    if not trained(run):
        raise UserError(f"{run}: training is not at its end; first run: latentworks resume {run}")
    with folder.working(run, "evaluating", then="evaluated"):
        say("evaluate: test split")
        model = load_model(domain, config, run)
        results = evaluation.evaluate(domain, config, run / "data", model)
        results["checkpoint"] = {
            k: best.record[k] for k in ("step", "epoch", "chosen_by", "score")
        }
        with looking_at(model, derive(config.seed, "examples")):
            domain.examples(config, run / "data", model, run / "examples")
        folder.write_json(run / METRICS, results)
    return {name: metric["value"] for name, metric in results["metrics"].items()}


def report(domain: AnyDomain, config: Settings, run: Path) -> dict[str, Any]:
    """Draw the figures and write ``report.html`` and ``report.md``."""
    from core.runtime import report as document

    folder.require(run, METRICS, f"{domain.name} evaluate")
    with folder.working(run, "reporting", then="done"):
        model = load_model(domain, config, run)
        with looking_at(model, derive(config.seed, "plots")):
            plots = domain.plots(config, run / "data", model)
        document.render(run, plots, type(config))
        say(f"report: {run / REPORT}")
    return {"report": str(run / REPORT)}


STAGES = {"ingest": ingest, "train": train, "evaluate": evaluate, "report": report}
MADE = {"ingest": CARD, "evaluate": METRICS, "report": REPORT}


def missing(run: Path) -> list[str]:
    """The stages that still have to run: the first whose result is not there, and the rest."""
    for index, stage in enumerate(STAGES):
        if not (trained(run) if stage == "train" else (run / MADE[stage]).exists()):
            return list(STAGES)[index:]
    return []


def trained(run: Path) -> bool:
    """Whether the training came to its end and its model is there."""
    status, models = run / "status.json", (run / "checkpoints").glob("best-*")
    return status.exists() and "trained" in folder.read_json(status)["times"] and any(models)


def run_missing(domain: AnyDomain, config: Settings, run: Path) -> None:
    """Run every stage that is still missing, without an orchestrator."""
    for stage in missing(run):
        STAGES[stage](domain, config, run)


def best_checkpoint(config: Settings, run: Path) -> checkpoint.Checkpoint:
    """The checkpoint that validation chose.

    Raises:
        UserError: If the run has not been trained.
    """
    found = checkpoint.read_newest(run / "checkpoints", "best", config, say)
    if found is None:
        raise UserError(f"{run}: no model yet; first run: latentworks {config.domain} train {run}")
    return found


def load_model(domain: AnyDomain, config: Settings, run: Path) -> Any:
    """The trained model of a run, in evaluation mode, with the chosen weights."""
    return with_best_weights(domain.model, config, run)


def with_best_weights(build: Callable[[Any, Path], ModelT], config: Settings, run: Path) -> ModelT:
    """A model as ``build`` makes it, in evaluation mode, with the chosen weights of the run."""
    from core.runtime.process import settle

    settle(config)
    best = best_checkpoint(config, run)
    model: Any = build(config, run / "data")
    try:
        model.load_state_dict(best.weights())
    except RuntimeError as error:  # torch's message lists every name on a line of its own
        first = " ".join(str(error).split())[:200]
        raise UserError(
            f"{best.folder}: its weights do not fit the model of this version of the code "
            f"({first}); train a new run, or use the version in lineage.json"
        ) from error
    return model.eval()
