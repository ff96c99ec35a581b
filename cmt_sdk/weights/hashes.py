"""SHA-256 of files, cached while a file's size and modification time stay the same.

Hashing gigabytes at every start would cost seconds, so digests are kept in `hashes.json` next to
the pulled models. A lost or damaged cache is made again. Knows no model.
"""

from __future__ import annotations

import hashlib
import json
import logging
import mmap
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from cmt_sdk.config.settings import models_dir
from cmt_sdk.errors import ModelUnsupported, StorageDenied
from cmt_sdk.system import disk

_log = logging.getLogger(__name__)


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal, read from the disk at every call.

    Raises:
        StorageDenied: The file cannot be read.
    """
    try:
        return disk.sha256_of(path)
    except PermissionError as error:
        raise StorageDenied(f"{path} cannot be read: {error.strerror}") from error


def known_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, from the cache where size and modification time match."""
    return _known(str(path.resolve()), [path], lambda: sha256_of(path))


def known_sha256_of_tensors(files: Sequence[Path]) -> str:
    """One digest for the tensors of safetensors files: their names, types, shapes and bytes.

    The order and the number of the files do not count, so that weights saved by another release
    have the same digest.

    Raises:
        ModelUnsupported: A file is damaged.
    """
    return _known(
        "tensors:" + "|".join(str(f.resolve()) for f in files),
        files,
        lambda: _sha256_of_tensors(files),
    )


def _sha256_of_tensors(files: Iterable[Path]) -> str:
    """As `known_sha256_of_tensors`, without the cache.

    A safetensors file is: the header's length in 8 bytes, little-endian; the header as JSON, with
    each tensor's first byte and the one after its last; the bytes.
    """
    found: dict[str, str] = {}  # by tensor, a line with its digest
    for path in files:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            start = 8 + int.from_bytes(data[:8], "little")
            try:
                header = json.loads(data[8:start])
            except ValueError as error:
                raise ModelUnsupported(
                    f"{path} is not a safetensors file: fetch or save the model again"
                ) from error
            for name, about in header.items():
                if name != "__metadata__":
                    first, last = about["data_offsets"]
                    digest = hashlib.sha256(
                        memoryview(data)[start + first : start + last]
                    ).hexdigest()
                    found[name] = f"{name} {about['dtype']} {about['shape']} {digest}"
    return hashlib.sha256("\n".join(found[name] for name in sorted(found)).encode()).hexdigest()


def _known(key: str, files: Sequence[Path], compute: Callable[[], str]) -> str:
    """A digest from the cache where sizes and modification times match, else a new one."""
    stats = [file.stat() for file in files]
    stamp = [sum(s.st_size for s in stats), max(s.st_mtime_ns for s in stats)]
    cache = _read_cache()
    if key in cache and cache[key][:2] == stamp:
        return str(cache[key][2])
    digest = compute()
    _write_cache(cache | {key: [*stamp, digest]})
    return digest


def known_sha256_of_all(paths: Iterable[Path]) -> str:
    """One digest for several files: that of the lines "digest name".

    A single file has its own.
    """
    ordered = sorted(paths)
    if len(ordered) == 1:
        return known_sha256(ordered[0])
    lines = "".join(f"{known_sha256(path)}  {path.name}\n" for path in ordered)
    return hashlib.sha256(lines.encode()).hexdigest()


def _cache_file() -> Path:
    return models_dir() / "hashes.json"


def _read_cache() -> dict[str, list[int | str]]:
    try:
        cache = json.loads(_cache_file().read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return (
        {k: v for k, v in cache.items() if isinstance(v, list) and len(v) == 3}
        if isinstance(cache, dict)
        else {}
    )


def _write_cache(cache: dict[str, list[int | str]]) -> None:
    """Write the cache by a rename, without files that are gone; where it fails, nothing is lost."""
    file = _cache_file()
    draft = file.with_name(f"{file.name}.{os.getpid()}")  # two processes may write at once
    alive = {
        key: value
        for key, value in cache.items()
        if Path(key.removeprefix("tensors:").split("|")[0]).exists()
    }
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        draft.write_text(json.dumps(alive, indent=1), encoding="utf-8")
        draft.replace(file)
    except OSError as error:
        _log.debug("digests are not cached: %s", error)
