"""Prefect's server as a child of this process that never outlives it.

Prefect's own embedded mode starts such a child too, but in our process group, so that Ctrl-C stops
it before the end of a run could be reported, and leaves it behind when the parent is killed. This
one leaves as soon as the pipe to its parent closes, however the parent ends.
"""

from __future__ import annotations

import atexit
import functools
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

START_LIMIT_S = 180
STOP_LIMIT_S = 10


@functools.cache
def start(services: bool = False, home: str | None = None) -> str:
    """Start the server, once in a process, and return the URL of its API.

    Args:
        services: Also run what only a server that stays needs, such as the scheduler.
        home: Folder of its database, instead of the user's Prefect home.

    Raises:
        RuntimeError: If it does not answer; holds the last thing that it said.
    """
    import httpx

    listening = socket.create_server(("127.0.0.1", 0), backlog=64)
    said = tempfile.TemporaryFile()
    server = subprocess.Popen(
        # -P: the folder of this file is no place to import from
        [sys.executable, "-P", __file__, str(listening.fileno()), "services" if services else ""],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=said,
        pass_fds=[listening.fileno()],
        start_new_session=True,
        env={**os.environ, "PREFECT_HOME": home} if home else None,
    )
    atexit.register(_stop, server)
    url = f"http://127.0.0.1:{listening.getsockname()[1]}/api"
    listening.close()  # were it held here as well, nobody would notice a dead child
    try:
        httpx.get(f"{url}/health", timeout=START_LIMIT_S, trust_env=False).raise_for_status()
    except httpx.HTTPError as error:
        _stop(server)
        said.seek(0)
        lines = said.read().decode(errors="replace").strip().splitlines()
        raise RuntimeError(lines[-1] if lines else str(error)) from error
    return url


def _stop(server: subprocess.Popen[bytes]) -> None:
    if server.stdin:
        server.stdin.close()
    try:
        server.wait(timeout=STOP_LIMIT_S)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()


def _serve(listening: int, services: bool) -> None:
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    import uvicorn
    from prefect.server.api.server import create_app

    config = uvicorn.Config(
        create_app(ephemeral=not services, final=True),
        log_level="error",
        timeout_graceful_shutdown=2,
    )
    uvicorn.Server(config).run(sockets=[socket.socket(fileno=listening)])


def _leave_with_parent() -> None:
    sys.stdin.buffer.read()
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(STOP_LIMIT_S / 2)
    os._exit(1)


if __name__ == "__main__":
    _serve(int(sys.argv[1]), services=sys.argv[2] == "services")
