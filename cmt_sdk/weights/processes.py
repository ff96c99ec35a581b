"""Run a program in a process of its own and watch it by the size of what it writes. Knows nothing of models.

Whatever interrupts the caller also ends the program.
"""

from __future__ import annotations

import errno
import os
import re
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TypeAlias

from cmt_sdk.errors import ModelDownload, StorageFull

OnProgress: TypeAlias = Callable[[str, int, int], None]

_POLL_SECONDS = 0.2
_ERROR_LINE = re.compile(r"ERROR: |[\w.]*(Error|Exception)\b")


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A command that writes into `folder`, about `total` bytes (0: not known).

    `task` and `remedy` make the message when it fails: "TASK failed: its own last error. REMEDY".
    """

    command: Sequence[str]
    folder: Path
    stage: str
    total: int = 0
    task: str
    remedy: str
    environment: Mapping[str, str] = field(default_factory=dict)

    def run(self, report: OnProgress) -> str:
        """What the program printed. Raises ModelDownload when it fails, StorageFull when the disk is full."""
        with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
            code = self._watch(report, output, errors)
            if code == 0:
                return _text(output)
            raise self._failure(code, _text(errors))

    def _watch(self, report: OnProgress, output: IO[str], errors: IO[str]) -> int:
        environment = os.environ | self.environment
        with subprocess.Popen(  # noqa: S603 - the commands are our own, their arguments checked names and paths
            self.command, stdin=subprocess.DEVNULL, stdout=output, stderr=errors, env=environment
        ) as program:
            try:
                while True:
                    size = size_of(self.folder)
                    report(self.stage, min(size, self.total) if self.total else size, self.total)
                    try:
                        return program.wait(_POLL_SECONDS)
                    except subprocess.TimeoutExpired:
                        continue
            finally:
                if program.poll() is None:
                    program.kill()

    def _failure(self, code: int, errors: str) -> ModelDownload | StorageFull:
        if os.strerror(errno.ENOSPC) in errors:
            return StorageFull(f"{self.task} failed: no space left for {self.folder}. Free some, then try again")
        lines = [line.strip() for line in errors.splitlines() if line.strip()]
        named = [line for line in lines if _ERROR_LINE.match(line)]
        reason = (named or lines or [f"it ended with exit code {code}"])[-1]
        return ModelDownload(f"{self.task} failed: {reason.rstrip('.')}. {self.remedy}")


def _text(file: IO[str]) -> str:
    file.seek(0)
    return file.read()


def size_of(folder: Path) -> int:
    """Bytes of all files beneath a folder, while others write there."""
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_size if path.is_file() else 0
        except FileNotFoundError:  # a temporary file of the program, gone since it was listed
            continue
    return total
