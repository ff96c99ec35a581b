"""One attempt to pull a model, and what every source of files does: reserve room, check hashes.

Knows no source and no torch.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from cmt_sdk.config.settings import models_dir
from cmt_sdk.errors import ModelDownload, StorageFull
from cmt_sdk.weights.hashes import sha256_of
from cmt_sdk.weights.processes import OnProgress

LEAST_SECONDS = 600
# bytes: a slower download is ended, and resumes at the next pull
_DOWNLOADED_PER_SECOND = 50_000


@dataclass(frozen=True, slots=True)
class Pull:
    """One attempt: `kept` survives it, `work` does not."""

    name: str
    kept: Path
    work: Path
    report: OnProgress


def time_for(total: int) -> int:
    """The seconds that a download may take."""
    return LEAST_SECONDS + total // _DOWNLOADED_PER_SECOND


def check_hash(file: Path, expected: str) -> None:
    """Check a file's SHA-256, and delete a file that has another.

    Raises:
        ModelDownload: It has another.
    """
    found = sha256_of(file)
    if found != expected:
        file.unlink()
        raise ModelDownload(
            f"{file.name} has SHA-256 {found}, expected {expected}: it is deleted, pull it again"
        )


def reserve(pull: Pull, needed: int) -> None:
    """Check that the models' folder has room for so many bytes more.

    Raises:
        StorageFull: It has not.
    """
    free = shutil.disk_usage(pull.kept).free
    if free < needed:
        raise StorageFull(
            f"{pull.name} needs {needed / 1e6:,.0f} MB in {models_dir()}, {free / 1e6:,.0f} MB are"
            " free: make room, or set CMT_MODELS to a folder on another disk"
        )
