"""Models of pictures, their exact-integer form, and the files that they write."""

from __future__ import annotations

import importlib
from pathlib import Path

from domains.compression.config import Config, Rates
from domains.compression.config import Model as Options
from domains.compression.model.base import ImageModel

CLASSES = {
    "dct": ("dct", "DCTCodec"),
    "hyperprior": ("hyperprior", "HyperpriorCodec"),
    "qres": ("qres", "QResVAE"),
    "mcq": ("mcq", "McQuic"),
}
STARTED_FROM = 64


def build(config: Config, folder: Path) -> ImageModel:
    """A new model, started from the prepared train crops."""
    from domains.compression.data import examples, load

    model = construct(config.model, config.rates)
    model.start(examples(load(folder), STARTED_FROM))
    return model


def construct(options: Options, rates: Rates) -> ImageModel:
    """A new model without data, to load weights into."""
    module, name = CLASSES[options.kind]
    return getattr(importlib.import_module(f"{__name__}.{module}"), name)(options, rates)


__all__ = ["ImageModel", "build", "construct"]
