"""Frozen models as files: one safetensors file each, with all else as JSON in its header.

A file says what it is, and the SHA-256 of all that is in it, so that no damage goes unnoticed.
Nothing that is read is ever run: no pickle, no code.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from core.runtime.errors import UserError, did_you_mean
from core.runtime.files import json_bytes, read_bytes
from core.runtime.folder import refuse_existing, write_atomic
from domains.compression.model.freezing import FrozenTransform
from domains.compression.model.frozen import Frozen, Provenance
from domains.compression.model.mcq import FrozenMcQuic

KEY = "latentworks"  # of all metadata: one key, whose order no writer can change
FORMAT, VERSION = "frozen image compression", 1
KINDS = {
    "dct": FrozenTransform,
    "hyperprior": FrozenTransform,
    "qres": FrozenTransform,
    "mcq": FrozenMcQuic,
}
FIELDS = {"format": str, "version": int, "model": dict, "identity": str, "sha256": str,
          "provenance": dict}  # fmt: skip
ORIGINS = {"code": str, "seed": int, "settings": str, "data": dict, "photographs": list,
           "training": dict}  # fmt: skip
MOST_BYTES = 1 << 30
AGAIN = "copy it or freeze it again"


def shipped() -> Path:
    """Return the file of the model that comes with latentworks."""
    return Path(__file__).with_name("dct.safetensors")


def save(frozen: Frozen, path: Path, force: bool = False) -> None:
    """Write a frozen model.

    Args:
        frozen: The model.
        path: The file.
        force: Whether to replace one that exists.

    Raises:
        UserError: If it exists and ``force`` is false.
        ValueError: If no settings make the model, so that nothing could read it again.
    """
    refuse_existing(path, force)
    tensors, header = frozen.state()
    if frozen.kind not in KINDS:
        raise ValueError(f"store: a model of kind {frozen.kind!r}; known are {', '.join(KINDS)}")
    content = {
        "format": FORMAT,
        "version": VERSION,
        "model": header,
        "identity": frozen.identity.hex(),
        "provenance": asdict(frozen.provenance),
    }
    content["sha256"] = _digest(tensors, content)
    write_atomic(path, save_tensors(tensors, {KEY: json_bytes(content).decode()}))


def load(path: Path) -> Frozen:
    """Read a frozen model.

    Raises:
        UserError: If the file is missing, damaged, no frozen model or of another release; it
            names the file and what is wrong in it.
    """
    tensors, content = _read(path)
    _require(path, "", content, FIELDS)
    if content["format"] != FORMAT or content["version"] != VERSION:
        raise UserError(
            f"{path}: {content['format']!r} of version {content['version']}; expected {FORMAT!r} "
            f"of version {VERSION}; update latentworks or freeze the model again"
        )
    _require(path, "provenance.", content["provenance"], ORIGINS)
    wanted = content.pop("sha256")
    if _digest(tensors, content) != wanted:
        raise UserError(f"{path}: sha256: its content is not what was written; {AGAIN}")
    frozen = _restored(path, tensors, content["model"])
    if frozen.identity.hex() != content["identity"]:
        raise UserError(
            f"{path}: identity: {content['identity']} was written, here it is "
            f"{frozen.identity.hex()}; written by another release, freeze the model again"
        )
    frozen.provenance = Provenance(**content["provenance"])
    return frozen


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    if path.is_file() and path.stat().st_size > MOST_BYTES:
        raise UserError(
            f"{path}: {path.stat().st_size:,} bytes; a model has {MOST_BYTES:,} at most"
        )
    data = read_bytes(path, "a frozen model")
    try:
        tensors = load_tensors(data)
        length = int.from_bytes(data[:8], "little")
        text = (json.loads(data[8 : 8 + length]).get("__metadata__") or {}).get(KEY)
    except (SafetensorError, ValueError) as error:
        told = str(error).splitlines()[0]
        raise UserError(f"{path}: no safetensors file, or damaged ({told}); {AGAIN}") from error
    if text is None:
        raise UserError(f"{path}: {KEY}: missing; these are weights, but of no frozen model")
    return tensors, _parsed(path, text)


def _parsed(path: Path, text: str) -> dict[str, Any]:
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: {KEY}: no JSON ({error}); {AGAIN}") from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: {KEY}: {type(content).__name__}; expected an object; {AGAIN}")
    return content


def _require(
    path: Path, below: str, content: Mapping[str, Any], expected: Mapping[str, type]
) -> None:
    """Refuse an object that has not exactly these fields, each of its type."""
    for name, kind in expected.items():
        if name not in content:
            raise UserError(f"{path}: {below}{name}: missing; {AGAIN}")
        value = content[name]
        if not isinstance(value, kind) or isinstance(value, bool):
            raise UserError(
                f"{path}: {below}{name}: {type(value).__name__}; expected {kind.__name__}; {AGAIN}"
            )
    if unknown := sorted(content.keys() - expected.keys()):
        raise UserError(f"{path}: {below}{unknown[0]}: unknown; update latentworks")


def _restored(path: Path, tensors: dict[str, Tensor], header: Mapping[str, Any]) -> Frozen:
    kind = header.get("kind")
    if not isinstance(kind, str) or kind not in KINDS:
        hint = did_you_mean(str(kind), KINDS)
        raise UserError(f"{path}: model.kind: got {kind!r}; allowed are {', '.join(KINDS)}{hint}")
    try:
        frozen = KINDS[kind].restore(tensors, header)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    _require_same(path, tensors, frozen.state()[0])
    return frozen


def _require_same(
    path: Path, tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor]
) -> None:
    """Refuse tensors that the model has no use for, of another type, or that are not finite."""
    for name, tensor in sorted(tensors.items()):
        if name not in expected:
            raise UserError(f"{path}: {name}: unknown; {AGAIN}")
        if tensor.dtype != expected[name].dtype:
            raise UserError(
                f"{path}: {name}: {tensor.dtype}; expected {expected[name].dtype}; {AGAIN}"
            )
        if not tensor.isfinite().all():
            raise UserError(f"{path}: {name}: a value that is not finite; {AGAIN}")


def _digest(tensors: Mapping[str, Tensor], content: Mapping[str, Any]) -> str:
    digest = hashlib.sha256(json_bytes(content))
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        # As bytes: numpy has not all types that a file may hold.
        digest.update(tensor.contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
