"""RAM: how much of it programs can still take, and sizes in words."""

from __future__ import annotations

import sys
from pathlib import Path


def free_memory() -> int:
    """Bytes that programs can still take; sys.maxsize where the system does not say."""
    try:
        words = Path("/proc/meminfo").read_text(encoding="ascii").split()
        return 1024 * int(words[words.index("MemAvailable:") + 1])
    except (OSError, ValueError):
        return sys.maxsize


def size_text(count: int) -> str:
    """Bytes in GiB or MiB."""
    return f"{count / 2**30:,.1f} GiB" if count >= 2**30 else f"{count / 2**20:,.1f} MiB"
