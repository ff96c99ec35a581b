"""Uploaded files to documents, in a process of their own: a file of a stranger holds up no
question, and has bounds.

What converts runs at a lower priority, has limits of computing time and of memory, and ends with
the request, and on Linux with the server. Knows the front door's `read_document`, no route and no
memory.
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
MAX_CPU_SECONDS = 60  # of computing, for the files of a request together
MAX_ADDRESS_SPACE = 4 * 2**30  # bytes of address space: libraries reserve much more than they fill
PR_SET_PDEATHSIG = 1
OVER_LIMIT = (
    f"it takes more than {MAX_CPU_SECONDS} seconds or {MAX_ADDRESS_SPACE // 2**30} GiB of memory to read, or ends the"
    " program that reads it: split it, or add its text"
)


async def read_files(files: Sequence[tuple[str, bytes]]) -> list[cmt_sdk.Document | str]:
    """Each file's document, with its name as source, or what is wrong with it in words; files are
    names and contents.

    Cancelling it ends the process.
    """
    with TemporaryDirectory(prefix="cmt-") as folder:
        paths = [Path(folder) / f"{n}{_suffix(name)}" for n, (name, _) in enumerate(files)]
        for path, (_, data) in zip(paths, files, strict=True):
            path.write_bytes(data)
        left = paths
        while left:
            await _converted(left)
            failed = next((path for path in left if not _result(path).exists()), left[-1])
            if not _result(failed).exists():
                _result(failed).write_text(json.dumps({"error": OVER_LIMIT}))
            left = left[left.index(failed) + 1 :]
        return [_read(path, name) for path, (name, _) in zip(paths, files, strict=True)]


async def _converted(paths: Sequence[Path]) -> None:
    """Convert files one after another in a child, as far as it comes."""
    words = [sys.executable, "-P", "-m", __name__, *map(str, paths)]
    quiet = asyncio.subprocess.DEVNULL
    child = await asyncio.create_subprocess_exec(*words, stdin=quiet, stdout=quiet, stderr=quiet)
    try:
        await child.wait()
    finally:
        with contextlib.suppress(ProcessLookupError):
            child.kill()


def _read(path: Path, name: str) -> cmt_sdk.Document | str:
    """The result of one file; what is wrong with it calls it by its name."""
    found = json.loads(_result(path).read_text())
    if "error" not in found:
        return cmt_sdk.Document(found["text"], source=name, metadata=found["metadata"])
    words: str = found["error"].replace(str(path), name)
    return words if name in words else f"{name}: {words}"


def _result(path: Path) -> Path:
    return path.with_name(path.name + ".result")


def _suffix(name: str) -> str:
    suffix = PurePosixPath(name).suffix
    return suffix if SUFFIX.fullmatch(suffix) else ""


def _limit_child() -> None:
    """Bound this process, which reads what a stranger has made."""
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
        with contextlib.suppress(ValueError, OSError):  # a lower one is set already
            resource.setrlimit(limit, (most, most))


def main(paths: Sequence[str]) -> None:
    """Convert each file, and write what came of it beside it."""
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
