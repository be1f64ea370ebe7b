"""Signals to a run become `Interrupted`, wherever it is."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

from core.runtime.errors import Interrupted


@contextlib.contextmanager
def interruptible(run: Path) -> Iterator[None]:
    """Raise `Interrupted` on SIGTERM and SIGINT; the training loop finishes its step first.

    Prefect puts a handler of its own around a flow, which would end the process without a word.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(_number: int, _frame: object) -> None:
        raise Interrupted(run)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    except KeyboardInterrupt as error:
        raise Interrupted(run) from error
    finally:
        signal.signal(signal.SIGTERM, before)
