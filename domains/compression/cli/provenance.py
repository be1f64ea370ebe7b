"""A trained model made fast and exact, with where it is from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from core.runtime import folder as runs
from core.runtime.config import dump_settings
from core.runtime.order import derive
from core.variational.diagnostics import looking_at
from domains.compression import data
from domains.compression.config import Config
from domains.compression.metrics.evaluation import CALIBRATION
from domains.compression.model import ImageModel
from domains.compression.model.frozen import Frozen, Provenance

DESCRIBED = ("source", "licence", "fingerprint", "facts", "notes")


def frozen_of(config: Config, folder: Path, model: ImageModel) -> Frozen:
    """Return what a trained model writes files with, its provenance inside.

    Args:
        config: The settings.
        folder: Of prepared data.
        model: With the chosen weights.
    """
    dataset = data.load(folder)
    with looking_at(model, derive(config.seed, "freeze")):
        frozen = model.freeze(data.examples(dataset, CALIBRATION))
    frozen.provenance = provenance(config, folder, data.photographs(dataset))
    return frozen


def provenance(config: Config, folder: Path, photographs: list[dict[str, str]]) -> Provenance:
    """Return where a model is from: nothing in it names a folder or a host.

    Args:
        config: The settings.
        folder: Of prepared data; the run's folder is above it.
        photographs: A line for each.
    """
    lineage = _read(folder.parent / "lineage.json")
    card = _read(folder.parent / "data-card.json")
    code = lineage.get("code", {})
    return Provenance(
        code=code.get("commit") or code.get("sources") or runs.code_version("compression"),
        seed=config.seed,
        settings=dump_settings(_without_paths(config)),
        data={key: card[key] for key in DESCRIBED if key in card},
        photographs=[line for line in photographs if line.get("split") != "test"],
        training=_training(config, folder.parent, lineage),
    )


def _read(path: Path) -> dict[str, Any]:
    return runs.read_json(path) if path.is_file() else {}


def _without_paths(config: Config) -> Config:
    """The settings with the names of folders in place of where they lie."""
    named = {
        key: None if path is None else Path(path).name
        for key, path in (("path", config.data.path), ("test", config.data.test))
    }
    return config.model_copy(update={"data": config.data.model_copy(update=named)})


def _training(config: Config, run: Path, lineage: Mapping[str, Any]) -> dict[str, Any]:
    history = run / "history.jsonl"
    rows = history.read_text().splitlines() if history.is_file() else []
    return {
        "epochs": config.training.epochs,
        **({"steps": json.loads(rows[-1])["step"]} if rows else {}),
        **{key: lineage[key] for key in ("python", "packages", "hardware") if key in lineage},
    }
