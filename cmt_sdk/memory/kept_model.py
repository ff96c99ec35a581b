"""The model of the last memory that was opened, kept loaded for the next one. No torch, no SQL.

A program that opens one memory after another, such as the daemon of `cmt`, loads a model once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from cmt_sdk.config.settings import Settings
from cmt_sdk.errors import ModelError, ModelNotFound
from cmt_sdk.ports import Engine

if TYPE_CHECKING:
    from cmt_sdk.weights.bundle import Bundle

# Settings that say nothing about the model: two memories that differ in these share one.
NOT_OF_THE_MODEL = (
    "rerank",
    "passage_tokens",
    "memory_budget",
    "exact_limit",
    "max_document_bytes",
    "generator",
    "generator_model",
    "generator_timeout",
    "objects",
    "object_cache",
)
Stamp: TypeAlias = tuple[str, int, int, int]
Sources: TypeAlias = "tuple[Bundle, frozenset[Stamp]]"


class KeptModel:
    """Holds one model: another one, or one whose files have changed, takes its place.

    The memories that are opened with it are used one after another, not at the same time.

    Attributes:
        changes: How often another model took the place.
    """

    def __init__(self) -> None:
        self.changes = 0
        self._key: tuple[Settings, Sources] | None = None  # the settings, and what files they name
        self._engine: Engine | None = None

    @property
    def loaded(self) -> str | None:
        """The name of the model that is loaded; None where there is none."""
        is_loaded = self._key is not None and self._engine is not None and self._engine.loaded
        return self._key[0].model if is_loaded and self._key else None

    def engine(self, settings: Settings, make: Callable[[Settings], Engine]) -> Engine:
        """The engine for a memory with these settings.

        Args:
            settings: Those of the memory.
            make: Makes another engine.
        """
        defaults: dict[str, Any] = {
            f.name: f.default for f in fields(Settings) if f.name in NOT_OF_THE_MODEL
        }
        of_the_model = replace(settings, **defaults)  # the engine cannot depend on the others
        try:
            key = (of_the_model, _sources(of_the_model))
        except (ModelError, ModelNotFound, OSError):  # loading the model reports it
            return make(settings)
        if key != self._key or self._engine is None:
            self._engine = None  # first: there may be no room for two
            self.changes += 1
            self._key, self._engine = key, make(of_the_model)
        return self._engine


def _sources(settings: Settings) -> Sources:
    """The adapters, and path, number, size and time of each file that the model is loaded from."""
    from cmt_sdk.weights.bundle import find_bundle
    from cmt_sdk.weights.registry import model_info

    info = model_info(settings.model)
    bundle = find_bundle(settings.adapter, info.sha256, settings.compressor)
    parts = (info.path, *bundle.adapters.values(), bundle.match, bundle.aggregate)
    return bundle, frozenset(_stamps(part for part in parts if part is not None))


def _stamps(parts: Iterable[Path]) -> Iterator[Stamp]:
    for part in parts:
        for file in part.iterdir() if part.is_dir() else (part,):
            found = file.stat()
            yield str(file), found.st_ino, found.st_size, found.st_mtime_ns
