"""Progress bars and spinners on stderr; nothing if stderr is not a terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from cmt_cli.output import console, on_terminal

Update = Callable[[str, int, int], None]  # stage, done, total; total is 0 if unknown


@contextmanager
def progress_bars(*, of_bytes: bool = False) -> Iterator[Update]:
    """Show one bar per stage while the block runs; the yielded function updates it.

    Args:
        of_bytes: The numbers are bytes of a download.
    """
    if not on_terminal(sys.stderr):
        yield lambda _stage, _done, _total: None
        return
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        MofNCompleteColumn,
        Progress,
        Task,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.text import Text

    class Count(MofNCompleteColumn):
        """Shows how many are done, and the total if it is known."""

        def render(self, task: Task) -> Text:
            return (
                super().render(task) if task.total is not None else Text(f"{task.completed:,.0f}")
            )

    count = DownloadColumn() if of_bytes else Count()
    columns = (TextColumn("{task.description}"), BarColumn(), count, TimeRemainingColumn())
    with Progress(*columns, console=console(stderr=True), transient=True) as shown:
        tasks: dict[str, Any] = {}

        def update(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = shown.add_task(stage, total=total or None)
            shown.update(tasks[stage], completed=done, total=total or None)

        yield update


@contextmanager
def spinner(message: str) -> Iterator[None]:
    """Show a spinner with a message while the block runs: loading the model takes seconds."""
    if not on_terminal(sys.stderr):
        yield
        return
    shown = console(stderr=True)
    with shown.status(message, spinner="line" if shown.options.ascii_only else "dots"):
        yield
