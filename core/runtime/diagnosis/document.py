"""A diagnosis alone: words for a terminal, or a file of HTML, Markdown or JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from core.runtime.compare import text_table
from core.runtime.diagnosis.claims import claims
from core.runtime.diagnosis.tables import Row, notes, tables
from core.runtime.errors import UserError
from core.runtime.report import TEMPLATES, diagnosis_drawings, page

NO_LATENTS = "There is no latent variable, so there is no KL and no bound."
FORMATS = (".html", ".md", ".json")


@dataclass(frozen=True)
class Looked:
    """What was looked at, and what was found.

    Args:
        domain: The domain's name.
        name: The run's name.
        identity: The run's identity.
        split: Which split.
        checkpoint: Step, epoch and score of the weights.
        diagnosis: As `Diagnosis.to_dict` gives it.
    """

    domain: str
    name: str
    identity: str
    split: str
    checkpoint: Mapping[str, Any]
    diagnosis: Mapping[str, Any]


def check_format(out: Path) -> None:
    """Say so if no document goes into a file of this name.

    Raises:
        UserError: If it does not.
    """
    if out.suffix not in FORMATS:
        raise UserError(f"{out}: the name of --out must end in one of: {', '.join(FORMATS)}")


def document(looked: Looked, suffix: str) -> str:
    """Return the document whose file has this suffix; Markdown has no figures."""
    if suffix == ".json":
        return json.dumps(as_json(looked), indent=2, sort_keys=True) + "\n"
    content = {
        "looked": looked,
        "lead": "" if looked.diagnosis["latents"] else NO_LATENTS,
        "diagnosis": {
            "claims": claims(looked.diagnosis),
            "tables": tables(looked.diagnosis),
            "notes": notes(looked.diagnosis),
        },
        "drawings": diagnosis_drawings(looked.diagnosis) if suffix == ".html" else [],
        "css": Markup((TEMPLATES / "style.css").read_text(encoding="utf-8")),
    }
    return page(f"diagnose{suffix}", content)


def as_json(looked: Looked) -> dict[str, Any]:
    """The same for a program."""
    return {
        "domain": looked.domain,
        "name": looked.name,
        "identity": looked.identity,
        "split": looked.split,
        "checkpoint": dict(looked.checkpoint),
        "diagnosis": dict(looked.diagnosis),
    }


def text(looked: Looked) -> str:
    """Return claims and tables for a terminal."""
    record = looked.diagnosis
    blocks = [f"{each.claim}: {each.detail}" for each in claims(record)]
    if not record["latents"]:
        blocks.append(NO_LATENTS)
    blocks += [_block(heading, rows) for heading, rows in tables(record).items()]
    return "\n\n".join([*blocks, *notes(record)])


def _block(heading: str, rows: Sequence[Row]) -> str:
    """A table under its heading; what is not available comes below it."""
    known = [row for row in rows if not row.missing]
    cells = [[row.name, row.value, row.unit, row.interval, row.n, row.good] for row in known]
    head = ["quantity", "value", "unit", "95 % interval", "n", "good"]
    lines = [heading, "", *([text_table(head, cells)] if cells else [])]
    lines += [f"{row.name}: not available: {row.missing}" for row in rows if row.missing]
    return "\n".join(lines)
