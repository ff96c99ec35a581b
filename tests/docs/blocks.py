"""Fenced blocks of the pages: find them, run them, compare what they print.

A page may hold `python` blocks and `console` blocks. They run in the order of the page, in one
folder, with one Python namespace. A `text` block right after a `python` block holds its output. In
a `console` block each line after "$ " is a command, and the lines up to the next one are its
output. "..." in an output stands for anything, and a score such as 0.92 for any score, because
these differ between machines. A comment `<!-- not run: REASON -->` before a block
leaves it out. `python tests/docs/blocks.py PAGE` prints what a page's blocks print.
"""

from __future__ import annotations

import contextlib
import functools
import io
import os
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
FENCE = re.compile(
    r"^(?:<!-- not run: (?P<why>.+?) -->\n)?```(?P<kind>\w*)[^\n]*\n(?P<body>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
SHELL = re.compile(r"[|<>;&*$]")  # what a shell reads, and no argument of ours holds
SCORE = re.compile(r"\b0\.\d\d\b")


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its text, its first line in the page, and why it does not
    run.
    """

    page: Path
    kind: str
    body: str
    line: int
    not_run: str = ""

    def __str__(self) -> str:
        return f"{self.page.name}:{self.line}"


@dataclass(frozen=True)
class Step:
    """One thing to run, and the output that the page shows; None where it shows none."""

    block: Block
    code: str
    shown: str | None


def pages() -> list[Path]:
    """README and the manual."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def blocks(page: Path) -> list[Block]:
    """All fenced blocks of a page, in order."""
    text = page.read_text(encoding="utf-8")
    return [
        Block(page, m["kind"], m["body"], text.count("\n", 0, m.start()) + 1, m["why"] or "")
        for m in FENCE.finditer(text)
    ]


def steps(page: Path) -> Iterator[Step]:
    """What of a page runs, in order."""
    found = blocks(page)
    for number, block in enumerate(found):
        following = found[number + 1] if number + 1 < len(found) else None
        if block.not_run:
            continue
        if block.kind == "python":
            is_output = following is not None and following.kind == "text"
            yield Step(block, block.body, following.body if is_output else None)
        elif block.kind == "console":
            for part in re.split(r"^\$ ", block.body, flags=re.MULTILINE)[1:]:
                command, _, shown = part.partition("\n")
                yield Step(block, command, shown)


def fits(shown: str, printed: str) -> bool:
    """Whether an output is the one shown: "..." stands for anything, a score for any score."""
    pattern = ".*".join(map(re.escape, _lines(shown).split("...")))
    return re.fullmatch(pattern, _lines(printed), re.DOTALL) is not None


def _lines(text: str) -> str:
    """With all scores alike, and without the spaces at the ends of lines and of the text."""
    return SCORE.sub("0.00", "\n".join(line.rstrip() for line in text.strip().splitlines()))


class Session:
    """Runs steps in this process, so that the model is loaded once."""

    def __init__(self) -> None:
        self.names: dict[str, Any] = {"__name__": "__main__"}

    def run(self, step: Step) -> str:
        """What a step prints."""
        if step.block.kind == "python":
            return self._python(step)
        if step.code.startswith("cmt ") and not SHELL.search(step.code):
            return self._cmt(shlex.split(step.code)[1:])
        done = subprocess.run(
            ["bash", "-c", step.code], capture_output=True, text=True, check=False
        )
        return done.stdout + done.stderr

    def _python(self, step: Step) -> str:
        printed = io.StringIO()
        code = compile(step.code, str(step.block), "exec")
        with contextlib.redirect_stdout(printed):
            exec(code, self.names)  # noqa: S102 - our own pages
        return printed.getvalue()

    def _cmt(self, arguments: list[str]) -> str:
        from click.testing import CliRunner

        from cmt_cli.main import main

        return CliRunner().invoke(main, arguments, catch_exceptions=False).output


@contextlib.contextmanager
def one_model() -> Iterator[None]:
    """Within the block, memories of one setting share one engine, whose model is loaded once."""
    from cmt_sdk.memory import assembly

    made = assembly.LocalEngine
    assembly.LocalEngine = functools.cache(made)  # type: ignore[misc, assignment]
    try:
        yield
    finally:
        assembly.LocalEngine = made  # type: ignore[misc]


def show(page: Path) -> None:
    """Print each step of a page with what it prints, in a new folder and home."""
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder), one_model():
        os.environ["CMT_HOME"] = str(Path(folder) / "home")
        session = Session()
        for step in steps(page):
            printed = session.run(step)
            same = step.shown is None or fits(step.shown, printed)
            print(f"--- {step.block} {'same' if same else 'OTHER'}\n{step.code.strip()}")
            print(f">>>\n{printed.rstrip()}", flush=True)


if __name__ == "__main__":
    show(Path(sys.argv[1]).resolve())
