"""What a person sees while work goes on: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from collections.abc import Mapping
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress

from core.runtime.folder import say

SECONDS_BETWEEN_LINES = 10.0
SHOWN = ("train/loss", "valid/")


class Progress:
    """Progress of ``total`` steps, with the newest numbers beside it."""

    def __init__(self, title: str, total: int, done: int = 0) -> None:
        self.title, self.total, self.done = title, total, done
        console = Console(stderr=True)
        self.bar = (
            RichProgress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.fields[numbers]}"),
                console=console,
                refresh_per_second=4,
            )
            if console.is_terminal
            else None
        )
        self.numbers: dict[str, float] = {}
        self.said = time.monotonic()

    def __enter__(self) -> Progress:
        if self.bar is not None:
            self.bar.start()
            self.task = self.bar.add_task(
                self.title, total=self.total, completed=self.done, numbers=""
            )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.bar is not None:
            self.bar.stop()

    def show(self, done: int, numbers: Mapping[str, float]) -> None:
        """Move to ``done`` steps with new numbers, if any."""
        self.numbers |= {k: v for k, v in numbers.items() if k.startswith(SHOWN)}
        text = "  ".join(
            f"{name.split('/')[-1]} {value:.5g}" for name, value in self.numbers.items()
        )
        if self.bar is not None:
            self.bar.update(self.task, completed=done, numbers=text)
        elif time.monotonic() - self.said > SECONDS_BETWEEN_LINES:
            self.said = time.monotonic()
            say(f"{self.title}: step {done} of {self.total}  {text}")
