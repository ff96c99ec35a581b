"""Progress on stderr, where somebody looks at it; silence where not."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from cmt_cli.output import console, on_terminal

Update = Callable[[str, int, int], None]  # stage, done, total; total 0 where it is not known


@contextmanager
def bars(*, of_bytes: bool = False) -> Iterator[Update]:
    """Within the block, a bar for each stage that is told of."""
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
        """How many are done, and of how many where that is known."""

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
def waiting(what: str) -> Iterator[None]:
    """Within the block, a sign that something goes on: loading the model takes seconds."""
    if not on_terminal(sys.stderr):
        yield
        return
    shown = console(stderr=True)
    with shown.status(what, spinner="line" if shown.options.ascii_only else "dots"):
        yield
