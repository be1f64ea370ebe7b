"""Core as a library: train any model with an ``evidence`` method by the engine of the runs.

The same loop, checkpoints, signals and exact resume as a run of a domain, without one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
from pydantic import PositiveInt, ValidationError
from torch import Tensor, nn

from core.contract import DataCard, Domain
from core.runtime import checkpoint, engine, mistakes
from core.runtime.config import Settings, dump_settings
from core.runtime.errors import Interrupted
from core.runtime.folder import say, write_atomic
from core.runtime.order import Shuffled
from core.runtime.strict_yaml import parse_yaml

ModelT = TypeVar("ModelT", bound=nn.Module)


class FitSettings(Settings):
    """The settings of a training without a domain.

    Args:
        batch_size: Examples in a batch.
    """

    domain: Literal["library"] = "library"
    name: str = "fit"
    batch_size: PositiveInt = 100


@dataclass(frozen=True, eq=False)
class Rows:
    """The rows of a tensor in batches, in an order that (seed, epoch) alone decides.

    Args:
        data: One example a row.
        batch_size: Examples in a batch.
        seed: The training's seed.
        shuffle: Off for validation.
    """

    data: Tensor
    batch_size: int
    seed: int
    shuffle: bool

    def _indices(self) -> Shuffled[int, list[int]]:
        return Shuffled(range(len(self.data)), self.batch_size, list, self.seed, self.shuffle)

    def __len__(self) -> int:
        return len(self._indices())

    def batch(self, epoch: int, index: int) -> Tensor:
        """Batch ``index`` of ``epoch``."""
        return self.data[np.asarray(self._indices().batch(epoch, index))]


def fit(
    model: ModelT,
    train: Tensor,
    valid: Tensor,
    out: str | Path,
    settings: Mapping[str, Any] | None = None,
) -> ModelT:
    """Train a model on the rows of a tensor, and return it with its best weights.

    A folder in which a training with the same settings was stopped goes on where it stopped. The
    settings are those of a run by dotted key; see ``latentworks config explain``. The best
    weights are those with the best ``training.monitor`` on the validation rows.

    Args:
        model: With ``evidence(batch, samples)``; its weights change.
        train: One example a row.
        valid: Likewise, to choose the weights with.
        out: Folder for settings, history and checkpoints.
        settings: E.g. ``{"training.epochs": 20, "objective.kind": "iwae"}``.

    Raises:
        UserError: If a setting is wrong, the folder belongs to other settings, or the model cannot
            have what they ask for; a sentence for each.
        RunFailed: If a term goes non-finite.
        Interrupted: If SIGINT or SIGTERM came, after a checkpoint.
    """
    out, chosen = Path(out), _settings(settings or {})
    splits = {"train": train, "valid": valid, "test": valid}
    domain: Domain[Any, Any, Any] = Domain(
        name="library",
        config=FitSettings,
        prepare=lambda config, folder: DataCard(source="given", licence="", fingerprint=""),
        batches=lambda config, folder, split: Rows(
            splits[split], config.batch_size, config.seed, split == "train"
        ),
        model=lambda config, folder: model,
        validate=lambda config, folder, trained: {},
        metrics=lambda config, folder, trained: {},
        plots=lambda config, folder, trained: {},
        examples=lambda config, folder, trained, place: None,
    )
    out.mkdir(parents=True, exist_ok=True)
    write_atomic(out / "settings.yaml", dump_settings(chosen))
    try:
        engine.train(domain, chosen, out)
    except Interrupted as stopped:
        again = f"call fit with out={str(out)!r} and the same settings again to go on"
        raise Interrupted(out, again) from stopped
    best = checkpoint.read_newest(out / "checkpoints", "best", chosen, say)
    assert best is not None  # the engine looked at least once
    model.load_state_dict(best.weights())
    model.eval()
    return model


def _settings(given: Mapping[str, Any]) -> FitSettings:
    tree: dict[str, Any] = {}
    for key, value in given.items():
        *sections, name = key.split(".")
        inner = tree
        for section in sections:
            inner = inner.setdefault(section, {})
        inner[name] = parse_yaml(value, key).value if isinstance(value, str) else value
    for section in ("objective", "schedule", "estimator"):
        if section in tree:
            tree[section].setdefault("kind", getattr(FitSettings(), section).kind)
    try:
        return FitSettings.model_validate(tree)
    except ValidationError as error:
        found = mistakes.translate(FitSettings, tree, {}, "settings", error)
        raise mistakes.report("settings", found) from error
