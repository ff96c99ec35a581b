"""The one place that picks concrete classes. What is heavy is imported when it is first needed."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cmt_sdk.config import recorded as recording
from cmt_sdk.config.address import DatabaseAddress
from cmt_sdk.config.settings import Settings
from cmt_sdk.encoding import PassageEncoder
from cmt_sdk.errors import ModelError, ModelNotFound
from cmt_sdk.memory import stores
from cmt_sdk.memory.local_engine import LocalEngine
from cmt_sdk.ports import ChatGenerator, Engine, Store, VectorIndex
from cmt_sdk.retrieval.embedding import Embedder
from cmt_sdk.system.background import Worker

if TYPE_CHECKING:
    from cmt_sdk.memory.kept_model import KeptModel
    from cmt_sdk.storage.postgres.store import PostgresStore
    from cmt_sdk.storage.store import SQLiteStore

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Parts:
    """What a Memory is made of."""

    path: Path | DatabaseAddress
    settings: Settings
    store: Store
    index: VectorIndex
    engine: Engine
    passage_encoder: PassageEncoder
    worker: Worker
    encrypted: bool = False
    generator: ChatGenerator | None = None


def assemble(
    path: Path | DatabaseAddress,
    overrides: Mapping[str, Any],
    *,
    scope: str = "",
    create: bool = True,
    encrypted: bool = False,
    engine: Engine | None = None,
    embedder: Embedder | None = None,
    generator_key: str | None = None,
    kept_model: KeptModel | None = None,
) -> Parts:
    """Open or make the memory in a folder or a database, with the settings that it was made with,
    changed by `overrides`. With `scope`, the part of a database in and below it.

    With `encrypted` a new memory is, and one that is not is refused. `engine` replaces the language
    model (tests bring a small one), `embedder` the matching head that makes embeddings;
    `generator_key` is the API key of the generator; `kept_model` keeps the language model for later
    openings. Raises MemoryNotFound when there is no memory and `create` is False, ModelNotFound for
    a new memory of a model that is not here, InvalidSetting, StorageError, MissingExtra.
    """
    given = Settings.checked(overrides)
    store: SQLiteStore | PostgresStore
    # before there is anything on the disk
    need_model = partial(_require_model, given.model) if engine is None else _need_nothing
    if isinstance(path, DatabaseAddress):
        store = stores.in_database(path, scope, need_model, create=create, encrypted=encrypted)
    else:
        store = stores.in_folder(path, scope, need_model, create=create, encrypted=encrypted)
    if given.objects is not None:  # refused before it is recorded
        store.keep_objects(given.objects, given.object_cache)
    settings = _settings(
        store, overrides, _default_compression if engine is None else _own_compression
    )
    store.keep_objects(settings.objects, settings.object_cache)
    if engine is None:
        _warn_of_untrained(settings)
        if embedder is None and kept_model is not None:
            engine = kept_model.engine(settings, LocalEngine)
    engine = engine or LocalEngine(settings, embedder)
    index = stores.index_of(store, path, settings.exact_limit)
    passage_encoder = PassageEncoder(store, index, engine, settings.memory_budget)
    worker = Worker(
        lambda stopping: passage_encoder.compress_backlog(stop=stopping), "cmt-compress"
    )
    generator = _generator(settings, generator_key, named="generator" in overrides)
    return Parts(
        path,
        settings,
        store,
        index,
        engine,
        passage_encoder,
        worker,
        store.encrypted,
        generator,
    )


def _need_nothing() -> None:
    """Do nothing: an engine that is given brings its model."""


def _generator(settings: Settings, key: str | None, *, named: bool) -> ChatGenerator | None:
    """The generator of the settings; `named`: whether the caller gave its address."""
    if settings.generator is None or settings.generator_model is None:
        return None
    from cmt_sdk.endpoint import Endpoint

    return Endpoint.of(
        settings.generator,
        settings.generator_model,
        settings.generator_timeout,
        key,
        named=named,
    )


def _settings(
    store: Store, overrides: Mapping[str, Any], default: Callable[[Settings], float | None]
) -> Settings:
    """The settings that a memory was made with, changed by `overrides`, with a compression that
    fits the model. A new memory, or one that changed its model, records them.

    Args:
        store: The store of the memory.
        overrides: The settings of this opening.
        default: The compression that fits the model, None where the model is not on this machine.
    """
    recorded = store.settings()
    asked = recording.asked(recorded, overrides)
    settings = recording.recalled(asked, recorded)
    if settings.compression is None:
        settings = replace(settings, compression=default(settings))
    lasting = recording.asked(recorded, {}) if recorded else asked
    new = recording.record(lasting, settings)
    is_news = recording.FITTED in new and new[recording.FITTED] != recorded.get(recording.FITTED)
    if (is_news or not recorded) and not store.read_only:
        store.set_settings(new)
    return settings


def _default_compression(settings: Settings) -> float | None:
    """The compression that fits the model with its adapters; None where it is not here."""
    from cmt_sdk.weights.bundle import find_bundle
    from cmt_sdk.weights.registry import model_info

    try:
        bundle = find_bundle(
            settings.adapter, model_info(settings.model).sha256, settings.compressor
        )
    except (ModelError, ModelNotFound):  # loading the model reports it
        return None
    return bundle.default_compression(settings.method)


def _own_compression(settings: Settings) -> float:
    """The compression of an engine that brings a model of its own."""
    return settings.tokens_per_entry


def _require_model(model: str) -> None:
    """Raise ModelNotFound, with the remedy, for a model that is not on this machine; a .gguf file
    is converted.
    """
    from cmt_sdk.weights.download import pull_model
    from cmt_sdk.weights.registry import is_gguf, model_info

    if is_gguf(model):
        pull_model(model)
    else:
        model_info(model)


def _warn_of_untrained(settings: Settings) -> None:
    """Warn of a method that needs adapters trained for it and has none: its answers are wrong."""
    if not settings.method.needs_training:
        return
    from cmt_sdk.weights.bundle import find_bundle
    from cmt_sdk.weights.registry import model_info

    name = settings.compressor
    try:
        bundle = find_bundle(settings.adapter, model_info(settings.model).sha256, name)
    except (ModelError, ModelNotFound):  # loading the model reports it
        return
    if bundle.compressor != name:
        log.warning(
            "compressor=%r: nothing was trained for it with model %r and adapter %r, so its"
            " answers are not to be relied on; "
            "`cmt train --part %s` trains an adapter, compressor='kv' needs none",
            name,
            settings.model,
            settings.adapter,
            name,
        )
