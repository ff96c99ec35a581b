"""Files of the Hugging Face hub: the model folder of a repository, or one .gguf file of it.

Interrupted downloads stay in `Pull.kept` and resume. Knows no torch.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from cmt_sdk.errors import ModelNotFound, ModelUnsupported
from cmt_sdk.weights import hub
from cmt_sdk.weights.attempt import Pull, check_hash, reserve, time_for
from cmt_sdk.weights.processes import Job, size_of

PLAN_SECONDS = 90  # to list a repository's files
_FILES = (
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


@dataclass(frozen=True, slots=True)
class HubFile:
    """A file of a repository; `sha256` is None for a small one."""

    name: str
    bytes: int
    sha256: str | None


@dataclass(frozen=True, slots=True)
class Repository:
    """One commit of a model's repository on the hub."""

    name: str
    commit: str
    licence: str
    files: list[HubFile]

    @property
    def source(self) -> str:
        """Where a file came from, for the facts of a model."""
        return f"hub {self.name} at {self.commit}"


def look_up(pull: Pull, name: str) -> Repository:
    """The newest commit of a repository.

    Raises:
        ModelNotFound: The hub has no such repository.
        ModelDownload: It does not show it, or does not answer.
    """
    plan = json.loads(_job(name, pull.work, "plan", name).run(_silent))
    files = [HubFile(f["name"], f["bytes"], f["sha256"]) for f in plan["files"]]
    return Repository(name, plan["commit"], plan["licence"] or "unknown", files)


def fetch_folder(pull: Pull, repository: Repository) -> Path:
    """Fetch the safetensors, configuration and tokenizer of a repository into a folder.

    Raises:
        ModelUnsupported: It has none.
        ModelDownload: The download failed.
        StorageFull: The disk has too little room.
    """
    return _fetch(pull, repository, _wanted(repository), extra=0)


def fetch_gguf(pull: Pull, repository: Repository, name: str, extra: int) -> Path:
    """Fetch one .gguf file of a repository.

    Args:
        pull: The attempt.
        repository: What `look_up` returns.
        name: The file's name in it.
        extra: Bytes that the disk must have in addition.

    Raises:
        ModelNotFound: The repository has no such file.
        ModelDownload: The download failed.
        StorageFull: The disk has too little room.
    """
    found = [file for file in repository.files if file.name == name]
    if not found:
        there = [f.name for f in repository.files if f.name.lower().endswith(".gguf")]
        raise ModelNotFound(
            f"{repository.name} on the hub has no file {name}; its .gguf files are"
            f" {', '.join(there[:12]) or 'none'}"
        )
    return _fetch(pull, repository, found, extra) / name


def _fetch(pull: Pull, repository: Repository, files: list[HubFile], extra: int) -> Path:
    folder = pull.kept / repository.commit
    folder.mkdir(exist_ok=True)
    total = sum(file.bytes for file in files)
    reserve(pull, total - size_of(folder) + extra)
    names = [file.name for file in files]
    fetching = ("fetch", repository.name, repository.commit, str(folder), *names)
    _job(repository.name, folder, *fetching, total=total).run(pull.report)
    for file in files:
        if file.sha256:
            check_hash(folder / file.name, file.sha256)
    shutil.rmtree(folder / ".cache", ignore_errors=True)  # the client's own notes
    return folder


def _job(name: str, folder: Path, *arguments: str, total: int = 0) -> Job:
    return Job(
        command=[hub.__file__, *arguments],
        seconds=time_for(total) if total else PLAN_SECONDS,
        folder=folder,
        stage="download",
        total=total,
        task=f"fetching {name} from the hub",
        remedy=(
            "Check the name and the network; a gated or private model needs its terms accepted on"
            " the hub and `hf auth login`; where the hub cannot be reached, copy the model's folder"
            " here and give its path instead"
        ),
        environment={"HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HUB_DISABLE_TELEMETRY": "1"},
    )


def _wanted(repository: Repository) -> list[HubFile]:
    wanted = [
        file
        for file in repository.files
        if any(fnmatch(file.name, pattern) for pattern in _FILES)
        and "/" not in file.name
        # a second copy of the weights, in the maker's own layout
        and not file.name.startswith("consolidated")
    ]
    names = {file.name for file in wanted}
    if "config.json" not in names or not any(name.endswith(".safetensors") for name in names):
        ggufs = [f.name for f in repository.files if f.name.lower().endswith(".gguf")]
        instead = (
            f"give one of its .gguf files, such as {repository.name}:{ggufs[0]}"
            if ggufs
            else "choose a repository with safetensors"
        )
        raise ModelUnsupported(
            f"{repository.name} on the hub has no config.json with *.safetensors weights: pickled"
            f" weights can run code and are never loaded; {instead}"
        )
    return wanted


def _silent(stage: str, done: int, total: int) -> None:
    """The callback without effect."""
