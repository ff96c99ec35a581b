"""cmt-sdk: agent memory with local-first storage. A frozen LLM compresses documents and answers
from the compressed passages.

    memory = cmt_sdk.open("notes")
    memory.add("The museum moved to Lisbon in 2019.", source="trip.md")
    print(memory.ask("Where is the museum now?").text)

Importing this package loads neither torch nor the database.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any, Unpack

if TYPE_CHECKING:
    from cmt_sdk import errors
    from cmt_sdk.answering.asking import Stream
    from cmt_sdk.answering.model import MemoryModel
    from cmt_sdk.chat import TURNS_KEPT, Chat, Heard
    from cmt_sdk.config.address import DatabaseAddress
    from cmt_sdk.config.settings import (
        MEMORY_FILES,
        Settings,
        SettingsFields,
        archive_key,
        data_dir,
        memory_path,
        models_dir,
    )
    from cmt_sdk.converting import (
        FILE_SUFFIXES,
        is_placeholder,
        list_files,
        read_document,
        read_documents,
    )
    from cmt_sdk.converting.conversations import read_conversations
    from cmt_sdk.errors import (
        AlreadyExists,
        CMTError,
        DocumentNotFound,
        EmptyDocument,
        GeneratorError,
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
    from cmt_sdk.memory import Memory
    from cmt_sdk.memory.copying import copy_memory
    from cmt_sdk.memory.kept_model import KeptModel
    from cmt_sdk.memory.preparing import check_model, prepare_model
    from cmt_sdk.retrieval.embedding import Embedder
    from cmt_sdk.storage.encryption import is_encrypted
    from cmt_sdk.storage.repair import repair
    from cmt_sdk.text.characters import clean_text
    from cmt_sdk.text.provenance import place_of
    from cmt_sdk.types import (
        READERS,
        SEARCH_MODES,
        Answer,
        CheckResult,
        Citation,
        Copied,
        DeletedObjects,
        Document,
        Filter,
        Intent,
        Match,
        Page,
        Passage,
        Progress,
        ReaderKind,
        Receipt,
        SearchMode,
        Source,
        Stats,
        Turn,
        Where,
    )
    from cmt_sdk.types.scopes import check_scope, is_scope
    from cmt_sdk.types.vectors import Embeddings
    from cmt_sdk.version import __version__
    from cmt_sdk.weights.bundle import has_shipped_adapter, is_adapter
    from cmt_sdk.weights.catalogue import CatalogueEntry, catalogue
    from cmt_sdk.weights.download import pull_model
    from cmt_sdk.weights.named import Measured
    from cmt_sdk.weights.registry import ModelInfo, list_models, model_info, remove_model

# What is imported when it is first asked for: the names of each module.
_DEFERRED: Mapping[str, str] = {
    "cmt_sdk.answering.asking": "Stream",
    "cmt_sdk.answering.model": "MemoryModel",
    "cmt_sdk.chat": "Chat Heard TURNS_KEPT",
    "cmt_sdk.config.address": "DatabaseAddress",
    "cmt_sdk.config.settings": (
        "MEMORY_FILES Settings SettingsFields archive_key data_dir memory_path models_dir"
    ),
    "cmt_sdk.converting": "FILE_SUFFIXES is_placeholder list_files read_document read_documents",
    "cmt_sdk.converting.conversations": "read_conversations",
    "cmt_sdk.errors": (
        "AlreadyExists CMTError DocumentNotFound EmptyDocument GeneratorError "
        "InvalidDocument InvalidFilter InvalidInput InvalidSetting MemoryNotFound "
        "MissingExtra ModelDownload ModelError ModelMismatch ModelNotFound "
        "ModelUnsupported NotFound StorageDamaged StorageDenied StorageEncrypted "
        "StorageError StorageFull StorageLocked StorageNewer"
    ),
    "cmt_sdk.memory": "Memory",
    "cmt_sdk.memory.copying": "copy_memory",
    "cmt_sdk.memory.kept_model": "KeptModel",
    "cmt_sdk.memory.preparing": "check_model prepare_model",
    "cmt_sdk.retrieval.embedding": "Embedder",
    "cmt_sdk.storage.encryption": "is_encrypted",
    "cmt_sdk.storage.repair": "repair",
    "cmt_sdk.text.characters": "clean_text",
    "cmt_sdk.text.provenance": "place_of",
    "cmt_sdk.types": (
        "Answer CheckResult Citation Copied DeletedObjects Document Filter Intent Match Page "
        "Passage Progress READERS ReaderKind Receipt SEARCH_MODES SearchMode Source Stats Turn "
        "Where"
    ),
    "cmt_sdk.types.scopes": "check_scope is_scope",
    "cmt_sdk.types.vectors": "Embeddings",
    "cmt_sdk.version": "__version__",
    "cmt_sdk.weights.bundle": "has_shipped_adapter is_adapter",
    "cmt_sdk.weights.catalogue": "CatalogueEntry catalogue",
    "cmt_sdk.weights.download": "pull_model",
    "cmt_sdk.weights.named": "Measured",
    "cmt_sdk.weights.registry": "ModelInfo list_models model_info remove_model",
}
_MODULE_OF = {name: module for module, names in _DEFERRED.items() for name in names.split()}

__all__ = [
    "FILE_SUFFIXES",
    "MEMORY_FILES",
    "READERS",
    "SEARCH_MODES",
    "TURNS_KEPT",
    "AlreadyExists",
    "Answer",
    "CMTError",
    "CatalogueEntry",
    "Chat",
    "CheckResult",
    "Citation",
    "Copied",
    "DatabaseAddress",
    "DeletedObjects",
    "Document",
    "DocumentNotFound",
    "Embedder",
    "Embeddings",
    "EmptyDocument",
    "Filter",
    "GeneratorError",
    "Heard",
    "Intent",
    "InvalidDocument",
    "InvalidFilter",
    "InvalidInput",
    "InvalidSetting",
    "KeptModel",
    "Match",
    "Measured",
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
    "ReaderKind",
    "Receipt",
    "SearchMode",
    "Settings",
    "SettingsFields",
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
    "Where",
    "__version__",
    "archive_key",
    "catalogue",
    "check_model",
    "check_scope",
    "clean_text",
    "copy_memory",
    "data_dir",
    "errors",
    "has_shipped_adapter",
    "is_adapter",
    "is_encrypted",
    "is_placeholder",
    "is_scope",
    "list_files",
    "list_models",
    "memory_path",
    "model_info",
    "models_dir",
    "open",
    "place_of",
    "prepare_model",
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
    scope: str = "",
    create: bool = True,
    encrypted: bool = False,
    embedder: Embedder | None = None,
    generator_key: str | None = None,
    kept_model: KeptModel | None = None,
    **settings: Unpack[SettingsFields],
) -> Memory:
    """Open the memory in a folder or a database, or make one. Nothing heavy is loaded before it is
    needed.

    Args:
        path: The folder; None for the default memory of this user. `memory_path(name)` is the
            folder of a memory by its name. Or the address of a Postgres database,
            "postgresql+psycopg://user:password@host/database" (docs/postgres.md).
        scope: Of a database, only the documents in this scope and below it; the scopes of this
            memory are named without it. "" opens all.
        create: False raises MemoryNotFound if there is no memory.
        encrypted: True encrypts a new memory, and refuses one that is not encrypted. The key is
            that in the environment variable CMT_KEY, else a new one in the system keyring, and is
            needed at every opening (docs/security.md).
        embedder: Makes the embeddings that passages are found by, in place of the model: give the
            same one at every opening.
        generator_key: The API key of the setting `generator`, which is not stored; None for that in
            the environment variable CMT_GENERATOR_KEY, if there is one.
        kept_model: Keeps the loaded model for the next opening with the same `kept_model`.
        **settings: Fields of `Settings`; the others are those that the memory was made with.

    Returns:
        The Memory; close it, or use it in a `with` block.

    Raises:
        MemoryNotFound: No memory is there, with `create=False`.
        ModelNotFound: The model of a new memory is not on this machine.
        InvalidSetting: An unknown setting, a value outside its range, or a setting that the
            compressor does not use.
        StorageError: The disk or the database refused.
        MissingExtra: `encrypted=True` without the extra `encryption`, the address of a database
            without the extra `postgres`, or `objects=` without the extra `objects`.

    Example:
        >>> with cmt_sdk.open("notes") as memory:
        ...     memory.add("The museum moved to Lisbon in 2019.")
        ...     memory.ask("Where is the museum now?").text
        'Lisbon'
    """
    from pathlib import Path

    from cmt_sdk.config.address import DatabaseAddress
    from cmt_sdk.config.settings import memory_path
    from cmt_sdk.errors import InvalidSetting
    from cmt_sdk.memory import Memory
    from cmt_sdk.memory.assembly import assemble

    if path is not None and not os.fspath(path).strip():
        raise InvalidSetting(
            f"path={path!r}: give the path of a folder, or none for the default memory"
        )
    folder = memory_path(None) if path is None else Path(path).expanduser()
    parts = assemble(
        DatabaseAddress.of(path) or folder,
        settings,
        scope=scope,
        create=create,
        encrypted=encrypted,
        embedder=embedder,
        generator_key=generator_key,
        kept_model=kept_model,
    )
    return Memory(parts)


def __getattr__(name: str) -> Any:
    if name == "errors":
        return import_module("cmt_sdk.errors")
    if name in _MODULE_OF:
        return getattr(import_module(_MODULE_OF[name]), name)
    raise AttributeError(
        f"module 'cmt_sdk' has no attribute {name!r}", name=name, obj=sys.modules[__name__]
    )


def __dir__() -> list[str]:
    return sorted(__all__)
