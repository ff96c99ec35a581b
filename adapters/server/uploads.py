"""Convert uploaded files to documents in a separate, limited process.

An untrusted file must not delay questions or exhaust the machine. The process runs at a lower
priority, with limits of CPU time and memory. It ends with the request, and on Linux also with the
server.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import json
import os
import re
import signal
import sys
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory

import cmt_sdk
from cmt_sdk.errors import CMTError

SUFFIX = re.compile(r"\.\w{1,16}")
MAX_CPU_SECONDS = 60  # for all files of a request together
MAX_ADDRESS_SPACE = 4 * 2**30  # bytes; libraries reserve much more than they use
PR_SET_PDEATHSIG = 1
OVER_LIMIT = (
    f"it takes more than {MAX_CPU_SECONDS} seconds or {MAX_ADDRESS_SPACE // 2**30} GiB of memory to"
    " read, or ends the program that reads it: split it, or add its text"
)


async def read_files(files: Sequence[tuple[str, bytes]]) -> list[cmt_sdk.Document | str]:
    """Convert files to documents. Cancelling the call ends the process.

    Args:
        files: Names and contents.

    Returns:
        For each file its document, with the name as source, or a message with the error.
    """
    with TemporaryDirectory(prefix="cmt-") as folder:
        paths = [Path(folder) / f"{n}{_suffix(name)}" for n, (name, _) in enumerate(files)]
        for path, (_, data) in zip(paths, files, strict=True):
            path.write_bytes(data)
        remaining = paths
        while remaining:
            await _convert(remaining)
            last = next((path for path in remaining if not _result(path).exists()), remaining[-1])
            if not _result(last).exists():
                _result(last).write_text(json.dumps({"error": OVER_LIMIT}))
            remaining = remaining[remaining.index(last) + 1 :]
        return [_read(path, name) for path, (name, _) in zip(paths, files, strict=True)]


async def _convert(paths: Sequence[Path]) -> None:
    """Convert files one after another in a child process, which may end before the last file."""
    command = [sys.executable, "-P", "-m", __name__, *map(str, paths)]
    quiet = asyncio.subprocess.DEVNULL
    child = await asyncio.create_subprocess_exec(*command, stdin=quiet, stdout=quiet, stderr=quiet)
    try:
        await child.wait()
    finally:
        with contextlib.suppress(ProcessLookupError):
            child.kill()


def _read(path: Path, name: str) -> cmt_sdk.Document | str:
    """Return the result of one file; an error message names the file as it was uploaded."""
    found = json.loads(_result(path).read_text())
    if "error" not in found:
        return cmt_sdk.Document(found["text"], source=name, metadata=found["metadata"])
    message: str = found["error"].replace(str(path), name)
    return message if name in message else f"{name}: {message}"


def _result(path: Path) -> Path:
    return path.with_name(path.name + ".result")


def _suffix(name: str) -> str:
    suffix = PurePosixPath(name).suffix
    return suffix if SUFFIX.fullmatch(suffix) else ""


def _limit_child() -> None:
    """Limit the resources of this process, which reads untrusted files."""
    if os.name != "posix":
        return
    import resource

    os.nice(10)
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # only Linux has it
    for limit, most in (
        (resource.RLIMIT_CPU, MAX_CPU_SECONDS),
        (resource.RLIMIT_AS, MAX_ADDRESS_SPACE),
    ):
        with contextlib.suppress(ValueError, OSError):  # a lower limit is set already
            resource.setrlimit(limit, (most, most))


def main(paths: Sequence[str]) -> None:
    """Convert each file, and write the result next to it."""
    _limit_child()
    for path in map(Path, paths):
        try:
            document = cmt_sdk.read_document(path)
            found = {"text": document.text, "metadata": dict(document.metadata)}
        except CMTError as error:
            found = {"error": str(error)}
        except MemoryError:
            found = {"error": OVER_LIMIT}
        partial = path.with_name(path.name + ".partial")
        partial.write_text(json.dumps(found))
        partial.rename(_result(path))


if __name__ == "__main__":
    main(sys.argv[1:])
