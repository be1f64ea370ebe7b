"""The verb freeze: the model of a run made fast and exact, proved, and written; in words."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from core.runtime.errors import RunFailed
from core.runtime.folder import refuse_existing, say
from core.runtime.wording import number
from domains.compression import data
from domains.compression.cli.opened import open_run
from domains.compression.cli.provenance import frozen_of
from domains.compression.model import store
from domains.compression.model.frozen import Frozen
from domains.compression.model.proof import FLOATS, INTEGERS, PROVED, Proof, middle, prove


def freeze(run: str, runs: Path, out: Path, force: bool) -> dict[str, Any]:
    """Freeze the model of a run, prove that it is exact, and write it.

    Args:
        run: The run.
        runs: Folder of all runs.
        out: The file to write.
        force: Whether a file that is there may be replaced.

    Returns:
        What it is and what was proved, as JSON.

    Raises:
        RunFailed: If a setting reads other latents than another wrote.
    """
    refuse_existing(out, force)
    trained = open_run(run, runs)
    frozen = frozen_of(trained.config, trained.data, trained.model)
    pictures = data.test_pictures(trained.config, trained.data)[:PROVED]
    say(f"freeze: proving it on {len(pictures)} test picture{'s' * (len(pictures) != 1)}")
    proof = prove(frozen, [middle(picture) for _, picture in pictures])
    if not proof.exact:
        raise RunFailed(f"{trained.run}: not exact, nothing was written; {_failed(proof)}")
    store.save(frozen, out, force)
    say(f"wrote {out}")
    return described(frozen, proof) | {"out": str(out), "bytes": out.stat().st_size}


def _failed(proof: Proof) -> str:
    pairs = [p for p in proof.pairs if p.path == INTEGERS and p.identical < p.streams]
    first = pairs[0]
    return (
        f"of {first.streams} streams written under {first.written!r} {first.identical} were read "
        f"under {first.read!r} as they were written"
    )


def described(frozen: Frozen, proof: Proof) -> dict[str, Any]:
    """What a model is and what was proved of it, as JSON."""
    return {
        "model": frozen.identity.hex(),
        "kind": frozen.kind,
        "levels": list(frozen.levels),
        "exact": proof.exact,
        "settings": list(proof.settings),
        "integers_identical": proof.identical_share(INTEGERS),
        "floats_identical": proof.identical_share(FLOATS),
        "largest_pixel_difference": proof.largest_difference,
    }


def text(found: Mapping[str, Any]) -> str:
    """The same in words."""
    lines = [
        f"model:    {found['model']} ({found['kind']}, {number(found['bytes'])} bytes)",
        f"levels:   {', '.join(found['levels'])}",
        f"proved:   {_share(found['integers_identical'])} of the streams read alike under "
        f"{', '.join(found['settings'])}",
    ]
    if found["floats_identical"] is not None:
        lines.append(f"floats:   {_share(found['floats_identical'])}, if they took their place")
    levels = found["largest_pixel_difference"]
    lines.append(f"pixels:   within {levels} grey level{'s' * (levels != 1)}")
    return "\n".join(lines)


def _share(share: float | None) -> str:
    return "none" if share is None else f"{100 * share:.4g} %"
