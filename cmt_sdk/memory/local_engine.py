"""LocalEngine: the language model of this machine, in the roles of ports.Engine. What is heavy is
imported when it is first needed.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

from cmt_sdk.config.methods import kv_fingerprint
from cmt_sdk.config.settings import Settings
from cmt_sdk.errors import ModelError
from cmt_sdk.ports import Compressor, Reader, StateReader
from cmt_sdk.retrieval.embedding import Embedder, ExternalEmbedder
from cmt_sdk.types import CompressedPassage, Fingerprint, Vector

if TYPE_CHECKING:
    from torch import Tensor

    from cmt_sdk.cpu.engine import CPUModel
    from cmt_sdk.neural.embedding import Matcher
    from cmt_sdk.neural.frozen import FrozenModel
    from cmt_sdk.neural.methods.base import CompressionMethod
    from cmt_sdk.neural.reader import TorchReader
    from cmt_sdk.weights.bundle import Bundle
    from cmt_sdk.weights.loading import LoadedModel

T = TypeVar("T")

FORMAT = 1  # of the arrays inside a memory; docs/format.md


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
