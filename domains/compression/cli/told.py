"""What a compressed file holds, and where a frozen model is from, in words and as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from core.runtime.errors import UserError
from core.runtime.wording import number
from domains.compression.cli.files import named, read_file
from domains.compression.cli.opened import open_model
from domains.compression.model import codec, store
from domains.compression.model.frozen import Frozen

MOST_LINES = 12  # of tiles and photographs in words; JSON has all


def info(file: Path, model: str | None, runs: Path) -> dict[str, Any]:
    """Return what a file holds, or where a model is from.

    Args:
        file: A compressed file, or a frozen model.
        model: What ``--model`` names.
        runs: Folder of all runs.

    Raises:
        UserError: If it is neither, or damaged.
    """
    if file.suffix == ".safetensors":
        return {"kind": "model", "file": str(file), **model_facts(store.load(file), file)}
    content = read_file(file)
    with named(file):
        found = codec.info(content)
    levels = _levels(found["model"], model, runs)
    return {"kind": "file", "file": str(file), **found, **levels}


def _levels(identity: str, model: str | None, runs: Path) -> dict[str, Any]:
    """The levels of the model that wrote a file, where it is at hand."""
    try:
        frozen = open_model(model, runs)
    except UserError:
        if model is not None:
            raise
        return {}
    return {"levels": list(frozen.levels)} if frozen.identity.hex() == identity else {}


def model_facts(frozen: Frozen, file: Path) -> dict[str, Any]:
    """Return where a model is from, as JSON."""
    origin = frozen.provenance
    return {
        "bytes": file.stat().st_size,
        "model": frozen.identity.hex(),
        "model_kind": frozen.kind,
        "levels": list(frozen.levels),
        "stride": frozen.stride,
        "prices": [frozen.rates.lowest, frozen.rates.highest],
        "code": origin.code,
        "seed": origin.seed,
        "settings": origin.settings,
        "data": dict(origin.data),
        "photographs": [dict(line) for line in origin.photographs],
        "training": dict(origin.training),
    }


def text(found: Mapping[str, Any]) -> str:
    """The same in words."""
    lines = _file_lines(found) if found["kind"] == "file" else _model_lines(found)
    return "\n".join(f"{head + ':' if head else '':<13}{value}" for head, value in lines)


def _file_lines(found: Mapping[str, Any]) -> list[tuple[str, str]]:
    rows, columns = found["tiles"]
    sections = found["sections"]
    tiles = {name: size for name, size in sections.items() if name.startswith("tile")}
    lines = [
        ("picture", f"{found['width']} x {found['height']}" + ", grey" * found["grey"]),
        ("file", f"{number(found['bytes'])} bytes, {found['bpp']:.4f} bits per pixel"),
        ("quality", f"{found['quality']:g} (rate index {found['rate_index']})"),
        ("model", found["model"]),
    ]
    if "levels" in found:
        lines.append(("levels", ", ".join(found["levels"])))
    if found["tile_side"]:
        lines.append(("tiles", f"{rows} x {columns} of {found['tile_side']} pixels"))
    shown = list(tiles.items())[:MOST_LINES]
    lines += [(name, f"{number(size)} bytes") for name, size in shown]
    if len(tiles) > len(shown):
        rest = sum(tiles.values()) - sum(size for _, size in shown)
        lines.append((f"{len(tiles) - len(shown)} more", f"{number(rest)} bytes"))
    lines += [(name, f"{number(sections[name])} bytes") for name in sections if name not in tiles]
    lines.append(("container", f"{found['container_bytes']} bytes"))
    return lines


def _model_lines(found: Mapping[str, Any]) -> list[tuple[str, str]]:
    data, photographs = found["data"], found["photographs"]
    lines = [
        ("model", f"{found['model']}, {found['model_kind']}, {number(found['bytes'])} bytes"),
        ("levels", ", ".join(found["levels"])),
        ("code", found["code"] or "not recorded"),
        ("seed", str(found["seed"])),
    ]
    lines += [(key, str(data[key])) for key in ("source", "licence", "fingerprint") if key in data]
    lines += [(key, str(value)) for key, value in found["training"].items()
              if isinstance(value, (int, float, str))]  # fmt: skip
    lines.append(("photographs", number(len(photographs)) if photographs else "not recorded"))
    lines += [("", f"{line.get('name', '')}  {line.get('licence', '')}")
              for line in photographs[:MOST_LINES]]  # fmt: skip
    if len(photographs) > MOST_LINES:
        lines.append(("", f"… {len(photographs) - MOST_LINES} more; all with --json"))
    lines += [("settings" * (not place), line)
              for place, line in enumerate(found["settings"].splitlines())]  # fmt: skip
    return lines
