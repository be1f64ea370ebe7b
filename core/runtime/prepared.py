"""The card of prepared data: written last, so that where it is, all is."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from core.contract import DataCard
from core.runtime.errors import UserError
from core.runtime.files import json_bytes
from core.runtime.folder import write_atomic

CARD = "card.json"


def write_card(folder: Path, card: DataCard, key: str) -> None:
    """Write the card of a folder that holds everything else already.

    Args:
        folder: Of the prepared data.
        card: What ingest found and made.
        key: What the data are a function of, see `core.runtime.files.key_of`.
    """
    write_atomic(folder / CARD, json_bytes({"key": key, "card": asdict(card)}))


def finished(folder: Path, key: str, load: Callable[[Path], object]) -> DataCard | None:
    """Return the card of what is in the folder, if that is complete and was made from the same.

    Args:
        folder: Of the prepared data.
        key: Of what would be prepared now.
        load: Opens the prepared data, or raises `UserError` if they are damaged.
    """
    try:
        found = json.loads((folder / CARD).read_bytes())
        if found["key"] != key:
            return None
        load(folder)
        return DataCard(**{**found["card"], "notes": tuple(found["card"]["notes"])})
    except (OSError, ValueError, KeyError, TypeError, UserError):
        return None
