"""What holds for the whole process, and that the bits of a result depend on."""

from __future__ import annotations

import os

import torch

from core.runtime.config import Settings


def settle(settings: Settings) -> None:
    """Set threads and determinism for this process: the bits of a result depend on them."""
    compute = settings.compute
    if compute.threads is not None:
        torch.set_num_threads(compute.threads)
    if compute.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(compute.deterministic)
