"""Networks for series: windows → posterior of latents → dynamics → distribution of values."""

from __future__ import annotations

import importlib
from pathlib import Path

from domains.series.config import Config
from domains.series.data import load
from domains.series.model.base import SeriesModel, Spectrum

MODULES = {
    "koopman-vae-paper": "paper",
    "tv-inr": "inr",
    "process-vae": "process",
    "degradation-cvae": "degradation",
}


def build(config: Config, folder: Path) -> SeriesModel:
    """A new, initialised model for the prepared series.

    Raises:
        UserError: If the model cannot have the posterior, prior or likelihood.
    """
    module = importlib.import_module(f"{__name__}.{_module(config)}")
    return module.build(config, load(folder))


def _module(config: Config) -> str:
    if config.model.kind != "koopman-vae":
        return MODULES[config.model.kind]
    if config.prior.kind == "linear-dynamics":
        return "structured"
    return "koopman" if config.task.kind == "generate" else "conditional"


__all__ = ["SeriesModel", "Spectrum", "build"]
