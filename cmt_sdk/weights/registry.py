"""The models on this machine, with their place and their facts. Knows no torch and no network.

A pulled model is a folder `models_dir()/NAME` with its facts in `cmt-model.json`. It appears there
in one rename, so a folder is a complete model or absent. A local folder is a model too, and stays
in its place.
"""

from __future__ import annotations

import json
import logging
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from cmt_sdk.config.settings import models_dir
from cmt_sdk.errors import InvalidSetting, ModelNotFound, ModelUnsupported, StorageDenied
from cmt_sdk.system.disk import flush_file
from cmt_sdk.weights.hashes import (
    known_sha256,
    known_sha256_of_all,
    known_sha256_of_tensors,
    sha256_of,
)

MARKER = "cmt-model.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
_PART = r"[A-Za-z0-9][\w.-]*"
_NAME = re.compile(rf"{_PART}(/{_PART})?", re.ASCII)
_HUB_GGUF = re.compile(rf"({_PART}/{_PART}):({_PART}(?:/{_PART})*\.gguf)", re.ASCII | re.IGNORECASE)
_SLOW_TOKENIZERS = ("tokenizer.model", "spiece.model", "vocab.json", "merges.txt", "vocab.txt")
# the index of the weights of a very large model has some three million
MAX_JSON_BYTES = 64_000_000
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """A model on this machine.

    Attributes:
        name: What `load_base` takes.
        path: The folder.
        source: Where it is from, in words.
        bytes: Of its weights.
        sha256: Of its weights: names, types, shapes and bytes of the tensors.
        licence: As its maker names it, or "unknown".
        architecture: The class in its configuration.
        pulled_at: When; None for a local folder.
    """

    name: str
    path: Path
    source: str
    bytes: int
    sha256: str
    licence: str
    architecture: str
    pulled_at: datetime | None = None


def list_models() -> list[ModelInfo]:
    """The pulled models, by name.

    An incomplete folder is skipped with a warning.
    """
    found = []
    for marker in sorted([*models_dir().glob(f"*/{MARKER}"), *models_dir().glob(f"*/*/{MARKER}")]):
        if marker.relative_to(models_dir()).parts[0].startswith("."):
            continue
        try:
            found.append(_describe(marker.parent, _own_name(marker.parent)))
        except (ModelNotFound, ModelUnsupported) as error:
            _log.warning("%s", error)
    return found


def _own_name(folder: Path) -> str:
    """The name of a pulled model: that of its folder, where its facts have no other."""
    recorded = read_json(folder / MARKER).get("name")
    return str(recorded or folder.relative_to(models_dir()).as_posix())


def model_info(name: str) -> ModelInfo:
    """The model of this name, local folder or .gguf file (which must have been converted).

    A path takes precedence over a pulled model of the same name.

    Args:
        name: The name or the path.

    Raises:
        ModelNotFound: The model is not on this machine, or its weights have changed since the pull.
        ModelUnsupported: The folder holds no safetensors.
    """
    if is_local_folder(name):
        return _describe(Path(name).expanduser(), name)
    folder = pulled_folder(gguf_name(Path(name).expanduser()) if is_gguf(name) else name)
    if not (folder / MARKER).is_file():
        raise ModelNotFound(f"model {name!r} is not on this machine: run `cmt model pull {name}`")
    return _describe(folder, _own_name(folder))


def graphs_dir() -> Path:
    """The folder with the graphs that were built of models, each named by the model's hash."""
    return models_dir() / ".graphs"


def remove_model(name: str) -> ModelInfo:
    """Delete a pulled model, with what was built of it.

    Args:
        name: Its name.

    Returns:
        The facts of the deleted model.

    Raises:
        InvalidSetting: The name is that of a local folder, which is never deleted.
        ModelNotFound: The model is not on this machine.
        StorageDenied: The folder cannot be removed.
    """
    if is_local_folder(name):
        raise InvalidSetting(
            f"model {name!r} is a folder of your own, not a pulled model: delete it yourself"
        )
    info = model_info(name)
    try:
        _discard(info.path)
        for graph in graphs_dir().glob(f"{info.sha256[:16]}-*"):
            shutil.rmtree(graph)
    except OSError as error:
        raise StorageDenied(
            f"model {name!r} in {info.path} cannot be removed: {error.strerror}"
        ) from error
    return info


def is_gguf(name: str) -> bool:
    """True for the path of a .gguf file on this machine."""
    return name.lower().endswith(".gguf") and hub_gguf(name) is None


def hub_gguf(name: str) -> tuple[str, str] | None:
    """The repository and the file of a name "organisation/name:file.gguf"; None for others."""
    found = _HUB_GGUF.fullmatch(name)
    return (found[1], found[2]) if found else None


def is_local_folder(name: str) -> bool:
    """True for the path of a folder with a model's configuration."""
    return bool(name.strip()) and (Path(name).expanduser() / "config.json").is_file()


def gguf_name(path: Path) -> str:
    """The name under which a .gguf file's conversion is kept.

    It is made of the content, so that a moved file is found again.

    Raises:
        ModelNotFound: There is no such file.
    """
    if not path.is_file():
        raise ModelNotFound(f"there is no file {path}: give the path of a .gguf file")
    return f"gguf/{known_sha256(path)[:16]}"


def pulled_folder(name: str) -> Path:
    """The folder that holds, or would hold, the pulled model of this name."""
    if found := hub_gguf(name):
        repository, file = found
        return models_dir() / f"{repository}--{file.replace('/', '--')}"
    if not _NAME.fullmatch(name):
        if Path(name).expanduser().is_dir() and name.strip():
            raise ModelUnsupported(
                f"folder {name} has no config.json: give the folder of a Hugging Face model"
            )
        raise ModelNotFound(
            f"model {name!r}: there is no such folder, and a name looks like"
            f" {'organisation/name'!r}"
        )
    return models_dir() / name


def install(folder: Path, name: str, facts: Mapping[str, object]) -> ModelInfo:
    """Make a complete folder the pulled model `name`, in one rename, and replace an older one."""
    digest = known_sha256_of_tensors(weight_files(folder))
    record = {"name": name, **facts, "sha256": digest}
    (folder / MARKER).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    for file in folder.iterdir():
        _flush(file)
    home = pulled_folder(name)
    home.parent.mkdir(parents=True, exist_ok=True)
    _discard(home)
    folder.replace(home)
    return _describe(home, name)


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a model folder.

    Raises:
        ModelUnsupported: There are none; pickles are never read.
    """
    files = sorted(folder.glob("*.safetensors"))
    if files:
        return files
    pickled = sorted(
        path.name for pattern in ("*.bin", "*.pt", "*.pth") for path in folder.glob(pattern)
    )
    found = f"only {', '.join(pickled)}, and pickled weights can run code" if pickled else "none"
    raise ModelUnsupported(
        f"weights must be safetensors; {folder} holds {found}: "
        "save the model again with save_pretrained(..., safe_serialization=True)"
    )


def tokenizer_hash(folder: Path) -> str:
    """SHA-256 prefix, 16 hexadecimal digits, of the files that split text into tokens."""
    fast = folder / "tokenizer.json"
    files = (
        [fast]
        if fast.is_file()
        else [folder / name for name in _SLOW_TOKENIZERS if (folder / name).is_file()]
    )
    if not files:
        raise ModelUnsupported(
            f"{folder} has no tokenizer.json: save the tokenizer next to the model"
        )
    return known_sha256_of_all(files)[:16]


def adapter_hash(folder: Path) -> str:
    """SHA-256 prefix, 16 hexadecimal digits, of an adapter's weights.

    Raises:
        ModelNotFound: There are none.
    """
    file = folder / ADAPTER_WEIGHTS
    if not file.is_file():
        raise ModelNotFound(
            f"adapter folder {folder} has no {ADAPTER_WEIGHTS}: save it with peft's save_pretrained"
        )
    return sha256_of(file)[:16]


def _describe(folder: Path, name: str) -> ModelInfo:
    files = weight_files(folder)
    facts = read_json(folder / MARKER)
    digest = known_sha256_of_tensors(files)
    if digest != facts.get("sha256", digest):
        raise ModelNotFound(
            f"the weights of {name!r} have changed since they were pulled: run `cmt model pull"
            f" {name}`"
        )
    architecture = _architecture(folder / "config.json")
    pulled_at = facts.get("pulled_at")
    try:
        pulled = datetime.fromisoformat(pulled_at) if pulled_at else None
    except (TypeError, ValueError) as error:
        raise ModelUnsupported(
            f"{folder / MARKER} is damaged ({error}): run `cmt model pull {name}`"
        ) from error
    return ModelInfo(
        name=name,
        path=folder,
        source=str(facts.get("source", "local folder")),
        bytes=sum(file.stat().st_size for file in files),
        sha256=digest,
        licence=str(facts.get("licence", "unknown")),
        architecture=architecture,
        pulled_at=pulled,
    )


def _architecture(file: Path) -> str:
    """The architecture in a model's configuration."""
    config = read_json(file)
    named = config.get("architectures") or [config.get("model_type", "unknown")]
    if not isinstance(named, list) or not isinstance(named[0], str):
        raise ModelUnsupported(
            f"{file}: 'architectures' is {named!r:.60}, not a list of names: get the model again"
        )
    return named[0]


def read_json(file: Path) -> dict[str, Any]:
    """The JSON object in a file of a model; empty where there is no file.

    Raises:
        ModelUnsupported: The file is too large, unreadable, or no JSON object.
    """
    if not file.is_file():
        return {}
    try:
        if (size := file.stat().st_size) > MAX_JSON_BYTES:
            raise ModelUnsupported(
                f"{file} has {size:,} bytes, the limit is {MAX_JSON_BYTES:,}: it is not a"
                " settings file"
            )
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelUnsupported(f"{file} cannot be read: {error}") from error
    if not isinstance(content, dict):
        raise ModelUnsupported(f"{file} is not a JSON object")
    return content


def _discard(folder: Path) -> None:
    # the marker first: the rest of an interrupted deletion is then no model
    (folder / MARKER).unlink(missing_ok=True)
    if folder.exists():
        shutil.rmtree(folder)


def _flush(file: Path) -> None:
    # a rename can reach the disk before the bytes do: without this a power cut could leave a model
    # of zeros
    if file.is_file():
        flush_file(file)
