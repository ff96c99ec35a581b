"""A progress line on stderr, where stderr is a terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from cmt_sdk import Progress


@contextmanager
def shown(verb: str) -> Iterator[Callable[[Progress], None]]:
    """Within the block, a callback that keeps one line up to date."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    from cmt_cli.common import console

    with console(stderr=True).status(f"{verb} …") as status:

        def update(p: Progress) -> None:
            documents = p.added + p.updated + p.unchanged
            status.update(f"{verb}: {documents} documents, {p.compressed} of {p.passages or '?'} passages compressed")

        yield update
