"""Runs a Python program in a process of its own, and watches it by the size of its output.

The program has bounds of time and memory (`guard`), and ends when the caller ends, even by a kill.
Knows nothing of models.
"""

from __future__ import annotations

import errno
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TypeAlias

from cmt_sdk.errors import (
    CMTError,
    ModelDownload,
    ModelNotFound,
    ModelUnsupported,
    StorageFull,
)
from cmt_sdk.weights import guard

OnProgress: TypeAlias = Callable[[str, int, int], None]

LEAST_MEMORY = 8_000_000_000  # bytes: torch and transformers alone take one or two of these
OUT_OF_TIME = (-24, 152)  # SIGXCPU, as a process and as a shell report it
_POLL_SECONDS = 0.2
# How our own programs name what happened, and the error that it is.
_NAMED: Mapping[str, type[CMTError]] = {
    "NOT FOUND: ": ModelNotFound,
    "UNSUPPORTED: ": ModelUnsupported,
}
_ERROR_LINE = re.compile(r"ERROR: |[\w.]*(Error|Exception)\b")


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A program that writes into `folder`.

    Args:
        command: The arguments of `python -P`: a file, or "-m" and a module, and arguments.
        folder: The folder that the program fills.
        stage: The stage to report.
        total: The bytes to expect; 0 where unknown.
        seconds: The program is ended after this time.
        memory: The most bytes of its own.
        task: Begins the message of a failure: "TASK failed: its own last error. REMEDY".
        remedy: Ends that message.
        environment: Variables to set.
    """

    command: Sequence[str]
    folder: Path
    stage: str
    total: int = 0
    seconds: int = 600
    memory: int = LEAST_MEMORY
    task: str
    remedy: str
    environment: Mapping[str, str] = field(default_factory=dict)

    def run(self, report: OnProgress) -> str:
        """Run the program; return its standard output.

        Raises:
            ModelDownload: The program fails or takes too long.
            ModelNotFound, ModelUnsupported: The program ends with "NOT FOUND: " or "UNSUPPORTED: "
                and the reason.
            StorageFull: The disk is full.
        """
        with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
            code = self._watch(report, output, errors)
            if code == 0:
                return _text(output)
            raise self._failure(code, _text(errors))

    def _watch(self, report: OnProgress, output: IO[str], errors: IO[str]) -> int:
        environment = os.environ | self.environment
        until = time.monotonic() + self.seconds
        bounds = (str(os.getpid()), str(self.memory), str(self.seconds * (os.cpu_count() or 1)))
        with subprocess.Popen(  # noqa: S603 - the commands are our own, their arguments checked names and paths
            [sys.executable, "-P", guard.__file__, *bounds, *self.command],
            # open as long as this process lives: the guard waits for its end
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=errors,
            env=environment,
        ) as program:
            try:
                while True:
                    size = size_of(self.folder)
                    report(self.stage, min(size, self.total) if self.total else size, self.total)
                    if time.monotonic() > until:
                        raise ModelDownload(
                            f"{self.task} took longer than {self.seconds:,} s and was ended."
                            f" {self.remedy}"
                        )
                    try:
                        return program.wait(_POLL_SECONDS)
                    except subprocess.TimeoutExpired:
                        continue
            finally:
                if program.poll() is None:
                    program.kill()

    def _failure(self, code: int, errors: str) -> CMTError:
        if os.strerror(errno.ENOSPC) in errors:
            return StorageFull(
                f"{self.task} failed: no space left for {self.folder}. Free some, then try again"
            )
        lines = [line.strip() for line in errors.splitlines() if line.strip()]
        named = [line for line in lines if _ERROR_LINE.match(line)]
        if code in OUT_OF_TIME or any(
            "MemoryError" in line or "not enough memory" in line for line in lines[-20:]
        ):
            bounds = (
                f"{self.seconds:,} s of processor time and {self.memory / 1e9:,.0f} GB of memory"
            )
            return ModelDownload(f"{self.task} needs more than {bounds}. {self.remedy}")
        last = lines[-1] if lines else ""
        for mark, kind in _NAMED.items():
            if last.startswith(mark):
                return kind(f"{self.task} failed: {last.removeprefix(mark)}. {self.remedy}")
        reason = (named or lines or [f"it ended with exit code {code}"])[-1]
        return ModelDownload(f"{self.task} failed: {reason.rstrip('.')}. {self.remedy}")


def _text(file: IO[str]) -> str:
    file.seek(0)
    return file.read()


def size_of(folder: Path) -> int:
    """Bytes of all files beneath a folder, also while other processes write there."""
    total = 0
    for place, _, names in os.walk(folder):  # passes over a folder that is gone meanwhile
        for name in names:
            # a temporary file of the program may be gone since it was listed
            with suppress(FileNotFoundError):
                total += Path(place, name).stat().st_size
    return total
