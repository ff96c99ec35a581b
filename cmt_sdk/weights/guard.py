"""A program: run another one within bounds, and end with the process that started it.

    python -P guard.py PARENT BYTES SECONDS FILE.py ARGUMENTS...
    python -P guard.py PARENT BYTES SECONDS -m MODULE ARGUMENTS...

The bounds are memory and processor time. Standard input is a pipe that the parent holds open: when
it ends, so does this process, also on systems that do not signal a parent's death. It runs as a
file, so that it needs nothing of this package.
"""

from __future__ import annotations

import os
import runpy
import signal
import sys
import threading
from contextlib import suppress

PR_SET_PDEATHSIG = 1  # linux/prctl.h


def bound(most_bytes: int, most_seconds: int) -> None:
    """Limit this process's own memory and processor time, where the system can."""
    try:
        import resource
    except ImportError:  # Windows: the parent's clock alone bounds it
        return
    for which, most in (
        (resource.RLIMIT_DATA, most_bytes),
        (resource.RLIMIT_CPU, most_seconds),
        (resource.RLIMIT_CORE, 0),
    ):
        hard = resource.getrlimit(which)[1]
        least = most if hard == resource.RLIM_INFINITY else min(most, hard)
        with suppress(ValueError, OSError):
            resource.setrlimit(which, (least, hard))


def end_with(parent: int) -> None:
    """End this process at once when the parent ends, in whatever way."""
    if sys.platform.startswith("linux"):
        import ctypes

        with suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if hasattr(os, "getppid") and os.name != "nt" and os.getppid() != parent:
        os._exit(1)  # it ended before this
    threading.Thread(target=_wait_for_end, daemon=True).start()


def _wait_for_end() -> None:
    with suppress(OSError):
        while os.read(0, 1):
            pass
    os._exit(1)


if __name__ == "__main__":
    bound(int(sys.argv[2]), int(sys.argv[3]))
    end_with(int(sys.argv[1]))
    if sys.argv[4] == "-m":
        sys.argv[:5] = []
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
    else:
        sys.argv[:4] = []
        runpy.run_path(sys.argv[0], run_name="__main__")
