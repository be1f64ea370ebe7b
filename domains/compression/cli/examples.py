"""What a finished run shows of itself, in files."""

from __future__ import annotations

import re
from pathlib import Path

from core.runtime.folder import write_atomic
from domains.compression import data
from domains.compression.cli.opened import OWN_MODEL
from domains.compression.cli.provenance import frozen_of
from domains.compression.config import Config
from domains.compression.model import ImageModel, codec, store

SHOWN = 3  # pictures


def examples(config: Config, folder: Path, model: ImageModel, out: Path) -> None:
    """Write test pictures, their files and what these decode to; and the model that wrote them.

    ``<picture>.png``, ``<picture>.lwc`` at quality 32, ``<picture>-decoded.png``, and
    ``model.safetensors``, which ``--model`` takes.
    """
    out.mkdir(parents=True, exist_ok=True)
    frozen = frozen_of(config, folder, model)
    store.save(frozen, out / OWN_MODEL, force=True)
    for place, (name, picture) in enumerate(data.test_pictures(config, folder)[:SHOWN]):
        stem = out / f"{place}-{plain(name)}"
        encoded = codec.encode(frozen, picture)
        data.write_picture(stem.with_suffix(".png"), picture, force=True)
        write_atomic(stem.with_suffix(".lwc"), encoded.data)
        decoded = codec.decode(frozen, encoded.data)
        data.write_picture(out / f"{stem.name}-decoded.png", decoded, force=True)


def plain(name: str) -> str:
    """A picture's name as that of a file, without folders and ending.

    Example:
        >>> plain("holiday/Zoë & me.jpg")
        'Zo-me'
    """
    return re.sub(r"[^A-Za-z0-9_]+", "-", Path(name).stem).strip("-")
