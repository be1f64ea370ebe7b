"""What holds for every test: one thread, no network, nothing of the developer's own Prefect."""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest

# A busy machine makes no test wrong.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")

# Set before torch or Prefect is imported, here and in the processes that tests start.
for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[name] = "1"
os.environ["MPLBACKEND"] = "agg"
os.environ["DO_NOT_TRACK"] = "1"
os.environ["PREFECT_SERVER_ANALYTICS_ENABLED"] = "false"
for name in ("PREFECT_API_URL", "PREFECT_PROFILE", "PREFECT_LOGGING_LEVEL"):
    os.environ.pop(name, None)

LOOPBACK = ("127.", "::1", "localhost", "0.0.0.0")


@pytest.fixture(scope="session", autouse=True)
def _own_prefect_home() -> Iterator[Path]:
    """A Prefect home of this session's own: no test sees or leaves anything in the user's."""
    with tempfile.TemporaryDirectory(
        prefix="latentworks-prefect-", ignore_cleanup_errors=True
    ) as home:
        os.environ["PREFECT_HOME"] = home
        yield Path(home)


@pytest.fixture(scope="session", autouse=True)
def _no_network() -> Iterator[None]:
    """Refuse every connection that leaves this machine."""
    connect, connect_ex = socket.socket.connect, socket.socket.connect_ex

    def refuse_outside(address: Any) -> None:
        if isinstance(address, tuple) and not str(address[0]).startswith(LOOPBACK):
            raise ConnectionRefusedError(f"tests have no network: {address[0]}")

    def guarded(self: socket.socket, address: Any) -> None:
        refuse_outside(address)
        connect(self, address)

    def guarded_ex(self: socket.socket, address: Any) -> int:
        refuse_outside(address)
        return connect_ex(self, address)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", guarded)
        patch.setattr(socket.socket, "connect_ex", guarded_ex)
        yield


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    """Results depend on the number of threads; a test that needs another sets it."""
    import torch

    torch.set_num_threads(1)
