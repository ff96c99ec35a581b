"""Hashes of files, and waiting until files are on the disk. Imports nothing of this package."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path


def sha256_of(file: Path) -> str:
    """Return the SHA-256 of a file's bytes, 64 hexadecimal digits. Raises OSError."""
    with file.open("rb") as data:
        return hashlib.file_digest(data, "sha256").hexdigest()


def flush_file(file: Path) -> None:
    """Wait until a file's bytes are on the disk: fsync(2)."""
    _flush(file, os.O_RDONLY if os.name == "posix" else os.O_RDWR)


def flush_folder(folder: Path) -> None:
    """Wait until the names in a folder are on the disk. Windows has no handle for this."""
    if os.name == "posix":
        _flush(folder, os.O_RDONLY)


def _flush(path: Path, flags: int) -> None:
    handle = os.open(path, flags)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def flush(file: Path) -> None:
    """Wait until a file and its name are on the disk."""
    flush_file(file)
    flush_folder(file.parent)
