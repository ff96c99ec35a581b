"""cmt-sdk: agent memory with local-first storage. A frozen LLM compresses documents and answers
from the memories.

    memory = cmt_sdk.open("notes")
    memory.add("The museum moved to Lisbon in 2019.", source="trip.md")
    print(memory.model.ask("Where is the museum now?").text)

Importing this package loads neither torch nor the database.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cmt_sdk import errors
from cmt_sdk.config import Settings, archive_key, data_dir, memory_path, models_dir
from cmt_sdk.errors import (
    AlreadyExists,
    CMTError,
    DocumentNotFound,
    EmptyDocument,
    InvalidDocument,
    InvalidFilter,
    InvalidInput,
    InvalidSetting,
    MemoryNotFound,
    MissingExtra,
    ModelDownload,
    ModelError,
    ModelMismatch,
    ModelNotFound,
    ModelUnsupported,
    NotFound,
    StorageDamaged,
    StorageDenied,
    StorageEncrypted,
    StorageError,
    StorageFull,
    StorageLocked,
    StorageNewer,
)
from cmt_sdk.types import (
    Answer,
    CheckResult,
    Document,
    Filter,
    Intent,
    Match,
    Page,
    Passage,
    Progress,
    Receipt,
    Source,
    Stats,
    Turn,
)
from cmt_sdk.vectors import Embeddings
from cmt_sdk.version import __version__

if TYPE_CHECKING:
    from cmt_sdk.chat import Chat, Heard
    from cmt_sdk.conversations import read_conversations
    from cmt_sdk.converting import (
        FILE_SUFFIXES,
        is_placeholder,
        list_files,
        read_document,
        read_documents,
    )
    from cmt_sdk.embedding import Embedder
    from cmt_sdk.memory import Memory
    from cmt_sdk.model import MemoryModel, Stream
    from cmt_sdk.provenance import place_of
    from cmt_sdk.storage.repair import repair
    from cmt_sdk.weights.bundle import has_shipped_adapter
    from cmt_sdk.weights.download import pull_model
    from cmt_sdk.weights.registry import ModelInfo, list_models, model_info, remove_model

_DEFERRED: Mapping[str, str] = {
    "Chat": "cmt_sdk.chat",
    "Heard": "cmt_sdk.chat",
    "Memory": "cmt_sdk.memory",
    "Embedder": "cmt_sdk.embedding",
    "MemoryModel": "cmt_sdk.model",
    "Stream": "cmt_sdk.model",
    "ModelInfo": "cmt_sdk.weights.registry",
    "FILE_SUFFIXES": "cmt_sdk.converting",
    "is_placeholder": "cmt_sdk.converting",
    "list_files": "cmt_sdk.converting",
    "read_conversations": "cmt_sdk.conversations",
    "read_document": "cmt_sdk.converting",
    "read_documents": "cmt_sdk.converting",
    "has_shipped_adapter": "cmt_sdk.weights.bundle",
    "list_models": "cmt_sdk.weights.registry",
    "place_of": "cmt_sdk.provenance",
    "pull_model": "cmt_sdk.weights.download",
    "remove_model": "cmt_sdk.weights.registry",
    "repair": "cmt_sdk.storage.repair",
    "model_info": "cmt_sdk.weights.registry",
}

__all__ = [
    "FILE_SUFFIXES",
    "AlreadyExists",
    "Answer",
    "CMTError",
    "Chat",
    "CheckResult",
    "Document",
    "DocumentNotFound",
    "Embedder",
    "Embeddings",
    "EmptyDocument",
    "Filter",
    "Heard",
    "Intent",
    "InvalidDocument",
    "InvalidFilter",
    "InvalidInput",
    "InvalidSetting",
    "Match",
    "Memory",
    "MemoryModel",
    "MemoryNotFound",
    "MissingExtra",
    "ModelDownload",
    "ModelError",
    "ModelInfo",
    "ModelMismatch",
    "ModelNotFound",
    "ModelUnsupported",
    "NotFound",
    "Page",
    "Passage",
    "Progress",
    "Receipt",
    "Settings",
    "Source",
    "Stats",
    "StorageDamaged",
    "StorageDenied",
    "StorageEncrypted",
    "StorageError",
    "StorageFull",
    "StorageLocked",
    "StorageNewer",
    "Stream",
    "Turn",
    "__version__",
    "archive_key",
    "data_dir",
    "errors",
    "has_shipped_adapter",
    "is_placeholder",
    "list_files",
    "list_models",
    "memory_path",
    "model_info",
    "models_dir",
    "open",
    "place_of",
    "pull_model",
    "read_conversations",
    "read_document",
    "read_documents",
    "remove_model",
    "repair",
]


def open(  # noqa: A001 - the word users know
    path: str | os.PathLike[str] | None = None,
    *,
    create: bool = True,
    encrypted: bool = False,
    embedder: Embedder | None = None,
    **settings: Any,
) -> Memory:
    """Open the memory in a folder, or make one; without a path, the default memory of this user.
    `memory_path(name)` is the folder of another one of theirs.

    `settings` are fields of `Settings`; those that are not given are the ones the memory was made
    with. Nothing heavy is loaded before it is needed. `embedder` makes the embeddings that passages
    are found by, in place of the model itself: give the same one every time. With `encrypted=True`
    a new memory is encrypted, and one that is not is refused; the key is that in the environment
    variable CMT_KEY, else a new one in the system keyring, and is needed at every opening
    (docs/security.md). Raises MemoryNotFound (with `create=False`), InvalidSetting, StorageError,
    MissingExtra (the extra `encryption`).
    """
    from cmt_sdk.assembly import assemble
    from cmt_sdk.memory import Memory

    if path is not None and not os.fspath(path).strip():
        raise errors.InvalidSetting(
            f"path={path!r}: give the path of a folder, or none for the default memory"
        )
    folder = memory_path(None) if path is None else Path(path).expanduser()
    return Memory(assemble(folder, settings, create=create, encrypted=encrypted, embedder=embedder))


def __getattr__(name: str) -> Any:
    if name in _DEFERRED:
        from importlib import import_module

        return getattr(import_module(_DEFERRED[name]), name)
    raise AttributeError(
        f"module 'cmt_sdk' has no attribute {name!r}", name=name, obj=sys.modules[__name__]
    )


def __dir__() -> list[str]:
    return sorted(__all__)
