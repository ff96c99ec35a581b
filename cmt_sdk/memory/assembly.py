"""The one place that picks concrete classes. What is heavy is imported when it is first needed."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from cmt_sdk.config import recorded as recording
from cmt_sdk.config.address import DatabaseAddress
from cmt_sdk.config.methods import kv_fingerprint
from cmt_sdk.config.settings import Settings
from cmt_sdk.encoding import PassageEncoder
from cmt_sdk.errors import ModelError, ModelNotFound
from cmt_sdk.memory import stores
from cmt_sdk.ports import ChatGenerator, Compressor, Engine, Reader, StateReader, Store, VectorIndex
from cmt_sdk.retrieval.embedding import Embedder, ExternalEmbedder
from cmt_sdk.system.background import Worker
from cmt_sdk.types import CompressedPassage, Fingerprint, Vector

if TYPE_CHECKING:
    from torch import Tensor

    from cmt_sdk.cpu.engine import CPUModel
    from cmt_sdk.memory.kept_model import KeptModel
    from cmt_sdk.neural.embedding import Matcher
    from cmt_sdk.neural.frozen import FrozenModel
    from cmt_sdk.neural.methods.base import CompressionMethod
    from cmt_sdk.neural.reader import TorchReader
    from cmt_sdk.storage.postgres.store import PostgresStore
    from cmt_sdk.storage.store import SQLiteStore
    from cmt_sdk.weights.bundle import Bundle
    from cmt_sdk.weights.loading import LoadedModel

T = TypeVar("T")

log = logging.getLogger(__name__)

FORMAT = 1  # of the arrays inside a memory; docs/format.md


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
    settings = _settings(
        store, overrides, _default_compression if engine is None else _own_compression
    )
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


def _may_have_gpu() -> bool:
    """Whether torch may find a GPU here; torch itself is slow to ask."""
    return os.path.exists("/dev/nvidiactl") or shutil.which("nvidia-smi") is not None  # noqa: PTH110


class LocalEngine:
    """The language model of this machine, loaded in parts: the tokenizer to count, the rest to
    compress and read.
    """

    def __init__(self, settings: Settings, embedder: Embedder | None = None) -> None:
        self._settings = settings
        self._embedded = ExternalEmbedder(embedder) if embedder is not None else None

    @cached_property
    def _tokenizer(self) -> Any:
        from tokenizers import Tokenizer

        from cmt_sdk.weights.registry import model_info

        tokenizer = Tokenizer.from_file(
            str(model_info(self._settings.model).path / "tokenizer.json")
        )
        tokenizer.encode_special_tokens = True  # as letters, as FrozenModel.passage_ids reads them
        return tokenizer

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text; needs the model's folder, not its weights."""
        return [
            len(e.ids) for e in self._tokenizer.encode_batch(list(texts), add_special_tokens=False)
        ]

    @property
    def loaded(self) -> bool:
        """True once the weights are in memory."""
        return "_loaded" in self.__dict__ or self.__dict__.get("_cpu") is not None

    @property
    def has_graph(self) -> bool:
        """Whether onnxruntime reads with this model."""
        return self._cpu is not None

    @property
    def fork_safe(self) -> bool:
        """Not once the weights are in memory: the threads that compute are not there after a
        fork.
        """
        return not self.loaded

    @cached_property
    def _cpu(self) -> CPUModel | None:
        """The model over its graph for onnxruntime; None where torch reads."""
        s = self._settings
        is_asked = s.runtime == "onnx"
        precisions = ("auto", "bf16", "fp16", "fp32") if is_asked else ("auto",)
        is_plain = s.method.has_graph and s.device in ("auto", "cpu") and s.precision in precisions
        if s.runtime == "torch" or not is_plain or (s.device == "auto" and _may_have_gpu()):
            return None
        from cmt_sdk.weights.registry import model_info

        try:
            from cmt_sdk.cpu.engine import open_graph
        except ImportError as error:
            if is_asked:
                raise ModelError(f"no onnxruntime: {error}; open with runtime='torch'") from error
            return None
        return open_graph(
            model_info(s.model),
            self._bundle,
            lambda: (self._frozen, self._loaded.quantization),
            is_asked=is_asked,
        )

    @cached_property
    def _loaded(self) -> LoadedModel:
        from cmt_sdk.weights.adapters import attach_adapters
        from cmt_sdk.weights.loading import load_base

        s = self._settings
        loaded = load_base(s.model, precision=s.precision, device=s.device)
        attach_adapters(loaded, self._bundle.adapters)
        return loaded

    @cached_property
    def _bundle(self) -> Bundle:
        from cmt_sdk.weights.bundle import find_bundle
        from cmt_sdk.weights.registry import model_info

        return find_bundle(
            self._settings.adapter,
            model_info(self._settings.model).sha256,
            self._settings.compressor,
        )

    @cached_property
    def _frozen(self) -> FrozenModel:
        from cmt_sdk.neural.frozen import FrozenModel
        from cmt_sdk.weights.adapters import active

        loaded = self._loaded
        return FrozenModel(loaded.model, loaded.tokenizer, lambda name: active(loaded, name))

    @cached_property
    def _method(self) -> CompressionMethod:
        default = self._bundle.default_compression(self._settings.method)
        # None: the model came here after the memory was opened
        settings = replace(self._settings, compression=self._settings.compression or default)
        method: CompressionMethod = settings.method.load().create(
            self._frozen, settings, self._trained
        )
        return method

    def _trained(self, name: str, build: Callable[[Mapping[str, Tensor]], T], /) -> T | None:
        """What `build` makes of the tensors of the bundle's part; None where the bundle has no such
        part.
        """
        from cmt_sdk.weights.loading import load_part

        file = getattr(self._bundle, name)
        return load_part(file, build) if file is not None else None

    @property
    def vector_weight(self) -> float:
        """From the bundle: a trained matching head counts more than plain states. An embedder
        counts as much as words do.
        """
        return 1.0 if self._embedded else self._bundle.vector_weight

    @cached_property
    def compressor(self) -> Compressor:
        """The compressor that the settings name."""
        if self._cpu is None or self._embedded is not None:
            return self._passage_compressor
        from cmt_sdk.memory.question_compressor import QuestionCompressor

        s = self._settings
        precision = self._cpu.files.quantization if s.precision == "auto" else s.precision
        made = self._fingerprint(precision, kv_fingerprint(s.keep, s.keep_at_least))
        return QuestionCompressor(made, self._cpu.embed, lambda: self._passage_compressor)

    @cached_property
    def _passage_compressor(self) -> Compressor:
        """The compressor over the frozen model."""
        from cmt_sdk.neural.compressor import PassageCompressor
        from cmt_sdk.neural.scoring import FidelityMeter

        return PassageCompressor(
            self._method,
            self._embedded or self._matcher,
            self._fingerprint(self._loaded.quantization, self._method.fingerprint()),
            FidelityMeter(self._method) if self._settings.fidelity else None,
        )

    def _fingerprint(self, quantization: str, of_method: Mapping[str, Any]) -> Fingerprint:
        from cmt_sdk.weights.registry import model_info, tokenizer_hash

        info = model_info(self._settings.model)
        return Fingerprint(
            model=info.name,
            base=info.sha256[:16],
            quantization=quantization,
            tokenizer=tokenizer_hash(info.path)[:16],
            encoder=self._bundle.encoder_hash,
            matcher=self._embedded.digest if self._embedded else self._bundle.matcher_hash,
            format=FORMAT,
            gates=self._bundle.gates_hash if self._is_auto("scores") else "",
            codec=self._bundle.codec_hash if self._is_auto("codec") else "",
            **of_method,
        )

    def _is_auto(self, setting: str) -> bool:
        """Whether the method uses a setting, at "auto": by the part that the bundle has."""
        s = self._settings
        return setting in s.method.uses and getattr(s, setting) == "auto"

    @property
    def _matcher(self) -> Matcher:
        from cmt_sdk.neural.embedding import Matcher, MatchHead

        lm = self._frozen
        head = self._trained("match", MatchHead.of) or MatchHead.plain(lm)
        return Matcher(lm, head.to(lm.device))

    @cached_property
    def state_reader(self) -> StateReader:
        """Reads states of the same frozen model."""
        if self._cpu is not None:
            return self._cpu.state_reader
        from cmt_sdk.neural.state_reader import FrozenStateReader

        return FrozenStateReader(self._frozen, self._loaded.base_hash[:16])

    def intent_scores(self, texts: Sequence[str]) -> Vector:
        """What texts want, as scores [n, labels]; a model's first call may fit its probe, in
        seconds.
        """
        from cmt_sdk.understanding.fitted import intent_probe

        return intent_probe(self.state_reader).scores(texts, self.state_reader.states(texts))

    def small_talk(self, text: str) -> list[tuple[float, str, str]]:
        """Exchanges of small talk, each after its nearness to a text, at most 1; nearest first."""
        from cmt_sdk.understanding.fitted import intent_probe
        from cmt_sdk.understanding.small_talk import nearest

        return nearest(text, self.state_reader, intent_probe(self.state_reader))

    @cached_property
    def reader(self) -> Reader:
        """The reader over the same frozen model."""
        return self._torch_reader if self._cpu is None else self._cpu.reader

    @cached_property
    def _torch_reader(self) -> TorchReader:
        from cmt_sdk.neural.reader import TorchReader

        return TorchReader(self._frozen, self._method)

    def uncompressed(self, texts: Sequence[str]) -> list[CompressedPassage]:
        """Passages for the reader, from their texts.

        Where torch was loaded to compress, and the CPU has units for bf16, it takes a third of the
        graph's time; loading it for this would take several times as long as the graph does.
        """
        has_fast_torch = "_loaded" in self.__dict__ and self._loaded.quantization == "bf16"
        if self._cpu is None or has_fast_torch:
            return self._torch_reader.uncompressed(texts)
        return self._cpu.reader.uncompressed(texts)
