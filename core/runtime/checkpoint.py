"""Checkpoints: safetensors weights, training state beside them, whole or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from core.runtime.config import Settings, differing_keys
from core.runtime.errors import RunFailed, UserError

Kind = Literal["last", "best"]
WEIGHTS, STATE, RECORD = "model.safetensors", "training.pt", "checkpoint.json"
KEPT = 2
PICKLE_STARTS = (b"\x80", b"PK\x03\x04", b"(dp", b"c__", b"\x1f\x8b")


@dataclass(frozen=True)
class Checkpoint:
    """A verified checkpoint.

    Args:
        folder: Where it lies.
        step: Optimiser steps done.
        record: What stands beside it: epoch, scores, settings.
    """

    folder: Path
    step: int
    record: Mapping[str, Any]

    def weights(self) -> dict[str, Tensor]:
        """The model's weights by name."""
        return load((self.folder / WEIGHTS).read_bytes())

    def training_state(self) -> dict[str, Any]:
        """Optimiser, average and counters; loaded without running any code from the file.

        Raises:
            UserError: If the file holds anything but tensors and plain values.
        """
        path = self.folder / STATE
        try:
            return torch.load(path, weights_only=True, map_location="cpu")
        except pickle.UnpicklingError as error:
            raise UserError(
                f"{path}: refused: it holds more than tensors and plain values"
            ) from error


def write(
    folder: Path,
    kind: Kind,
    step: int,
    weights: Mapping[str, Tensor],
    settings: Settings,
    record: Mapping[str, Any],
    training_state: Mapping[str, Any] | None = None,
    finished: bool = False,
) -> Path:
    """Write a checkpoint and remove all but the newest two of its kind.

    The files are written into a temporary folder, fsynced and renamed, so that a kill or a full
    disk at any moment leaves the earlier checkpoints as they were. A finished one (`Domain.finish`
    was called on it) stands beside the one it was made of, and counts as newer.

    Raises:
        RunFailed: If it cannot be written; names the last intact checkpoint.
    """
    folder.mkdir(parents=True, exist_ok=True)
    final = folder / f"{kind}-{step:09d}{'-finished' if finished else ''}"
    temporary = folder / f".{final.name}"
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir()
        files = {WEIGHTS: _bytes_writer(save({k: v.contiguous() for k, v in weights.items()}))}
        if training_state is not None:
            files[STATE] = lambda path: torch.save(dict(training_state), path)
        sums = {name: _write_synced(temporary / name, fill) for name, fill in files.items()}
        content = {
            **record,
            "step": step,
            "sha256": sums,
            "settings": settings.model_dump(mode="json"),
        }
        text = json.dumps(content, indent=2, sort_keys=True).encode()
        _write_synced(temporary / RECORD, _bytes_writer(text))
        _sync(temporary)
        shutil.rmtree(final, ignore_errors=True)
        os.replace(temporary, final)
        _sync(folder)
    except (OSError, RuntimeError) as error:
        shutil.rmtree(temporary, ignore_errors=True)
        intact = [path.name for path in _candidates(folder, kind)]
        kept = (
            f"the last intact one is {folder / intact[0]}" if intact else "there is none before it"
        )
        raise RunFailed(f"{final}: cannot write the checkpoint: {error}; {kept}") from error
    for old in _candidates(folder, kind)[KEPT:]:
        shutil.rmtree(old)
    return final


def _bytes_writer(data: bytes) -> Callable[[Path], Any]:
    return lambda path: path.write_bytes(data)


def _write_synced(path: Path, fill: Callable[[Path], Any]) -> str:
    fill(path)
    _sync(path)
    return _sha256(path)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _candidates(folder: Path, kind: Kind) -> list[Path]:
    return sorted(folder.glob(f"{kind}-*"), reverse=True)


def read_newest(
    folder: Path, kind: Kind, settings: Settings, tell: Callable[[str], None]
) -> Checkpoint | None:
    """Return the newest intact checkpoint of a kind, or None if there is none.

    Args:
        folder: The run's ``checkpoints``.
        kind: ``last`` to go on training, ``best`` to use the model.
        settings: The settings of the run, which must be those of the checkpoint.
        tell: Called with a sentence for each damaged checkpoint that is passed over.

    Raises:
        UserError: If the weights are a pickle, or the checkpoint belongs to other settings.
    """
    damaged = ""
    for path in _candidates(folder, kind):
        fault = _fault(path)
        if not fault:
            checkpoint = _checked(path, settings)
            if damaged:
                tell(f"{damaged}; going on from {path.name}")
            return checkpoint
        damaged = f"{path}: {fault}"
    if damaged:
        raise UserError(f"{damaged}; there is no intact one before it")
    return None


def _fault(path: Path) -> str:
    """What is wrong with a checkpoint's files, or nothing."""
    if (path / WEIGHTS).exists():
        _refuse_pickled_weights(path / WEIGHTS)
    try:
        sums = json.loads((path / RECORD).read_text())["sha256"]
    except (OSError, ValueError, KeyError):
        return f"{RECORD} is missing or damaged"
    for name, expected in sums.items():
        if not (path / name).is_file():
            return f"{name} is missing"
        if _sha256(path / name) != expected:
            return f"{name} is truncated or damaged"
    return ""


def _refuse_pickled_weights(path: Path) -> None:
    with path.open("rb") as file:
        start = file.read(9)
    if start[8:] != b"{" and start.startswith(
        PICKLE_STARTS
    ):  # safetensors: 8 bytes of length, then JSON
        raise UserError(
            f"{path}: refused: this is a pickle or an archive; weights are safetensors"
        )


def _checked(path: Path, settings: Settings) -> Checkpoint:
    record = json.loads((path / RECORD).read_text())
    checkpoint = Checkpoint(path, record["step"], record)
    differing = differing_keys(record["settings"], settings.model_dump(mode="json"))
    if differing:
        rows = ", ".join(f"{key} {old!r} → {new!r}" for key, (old, new) in differing.items())
        raise UserError(f"{path}: belongs to other settings: {rows}; start a new run for these")
    try:
        checkpoint.weights()
    except SafetensorError as error:
        raise UserError(f"{path / WEIGHTS}: refused: no safetensors file: {error}") from error
    return checkpoint
