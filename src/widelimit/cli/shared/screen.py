"""Progress on stderr, results on stdout."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    ProgressColumn,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as Bars

T = TypeVar("T")


class Progress(Protocol):
    """Where computations report to."""

    def stage(self, title: str, work: Callable[[], T]) -> T:
        """Run ``work`` and show that it is running."""
        ...

    def steps(self, title: str, total: int, work: Callable[[Callable[[int], None]], T]) -> T:
        """Run ``work`` with a function that takes the number of steps done."""
        ...


class Screen:
    """Progress bars and a console for results; ``quiet_output`` silences the console."""

    def __init__(self, *, quiet_output: bool) -> None:
        self.out = Console(quiet=quiet_output, highlight=False)
        columns: list[ProgressColumn] = [
            SpinnerColumn(finished_text="✓"),
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        ]
        self._bars = Bars(*columns, console=Console(stderr=True))

    def __enter__(self) -> Screen:
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def stage(self, title: str, work: Callable[[], T]) -> T:
        """Run ``work`` under a bar without an end in sight."""
        task = self._bars.add_task(title, total=None)
        result = work()
        self._bars.update(task, total=1, completed=1)
        return result

    def steps(self, title: str, total: int, work: Callable[[Callable[[int], None]], T]) -> T:
        """Run ``work`` under a bar with an estimate of the time left."""
        task = self._bars.add_task(title, total=total)
        return work(lambda count: self._bars.advance(task, count))
