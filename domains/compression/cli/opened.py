"""The frozen model that a verb works with: the shipped one, one of a file, or that of a run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from core.runtime import folder, stages
from core.runtime.config import load_settings, read_domain
from core.runtime.errors import UserError
from domains.compression.cli.provenance import frozen_of
from domains.compression.config import CONFIG, Config
from domains.compression.model import ImageModel, build, store
from domains.compression.model.frozen import Frozen

OWN_MODEL = "model.safetensors"  # in a run's examples


@dataclass(frozen=True, eq=False)
class Trained:
    """A run that has been trained to its end.

    Args:
        run: Its folder.
        config: Its settings.
        model: With the chosen weights.
    """

    run: Path
    config: Config
    model: ImageModel

    @property
    def data(self) -> Path:
        """Folder of its prepared data."""
        return self.run / "data"


def open_model(given: str | None, runs: Path) -> Frozen:
    """Return the model that ``--model`` names, or the one that comes with latentworks.

    Raises:
        UserError: If there is none there.
    """
    if given is None:
        return _shipped()
    path = Path(given)
    if path.is_file() or path.suffix == ".safetensors":
        return store.load(path)
    kept = folder.locate(given, runs) / "examples" / OWN_MODEL
    if kept.is_file():
        return store.load(kept)
    trained = open_run(given, runs)
    return frozen_of(trained.config, trained.data, trained.model)


def _shipped() -> Frozen:
    path = store.shipped()
    if not path.is_file():
        raise UserError(
            f"--model: no model was given, and this installation has none ({path.name} is "
            "missing); install latentworks again, or give a .safetensors file or a run"
        )
    return store.load(path)


def open_run(reference: str, runs: Path) -> Trained:
    """Open a run that has been trained to its end.

    Raises:
        UserError: If there is none, it is of another domain, or its training has not ended.
    """
    run = folder.locate(reference, runs)
    named = read_domain(run / "settings.yaml")
    if named != "compression":
        raise UserError(f"{run}: is a run of domain {named!r}; expected one of 'compression'")
    config = load_settings(CONFIG, run / "settings.yaml")
    folder.require(run, stages.CARD, "compression ingest")
    stages.best_checkpoint(config, run)
    if not stages.trained(run):
        raise UserError(f"{run}: training is not at its end; first run: latentworks resume {run}")
    return Trained(run, config, stages.with_best_weights(build, config, run))
