"""The verb freeze: the model of a run made fast and exact, proved, and written; in words."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from core.runtime.errors import RunFailed
from core.runtime.folder import say
from core.runtime.wording import number
from domains.compression import data
from domains.compression.cli.opened import open_run
from domains.compression.cli.provenance import frozen_of
from domains.compression.model import store
from domains.compression.model.proof import prove

PROVED = 8  # pictures that the proof encodes
