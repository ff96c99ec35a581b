"""The reader, the embedder of questions and the reader of states of one model, over its graph.

`open_graph` decides whether a model is read this way; `fits` says whether it and its adapters can
be; `build` makes the graph from the frozen model, once, and checks it against that.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cmt_sdk.cpu.checkpoint import Checkpoint, mapped, read_tensors
from cmt_sdk.cpu.entries import Layout, Prefix
from cmt_sdk.cpu.files import BITS, GraphFiles, build_graph, find_graph, is_refused, refuse
from cmt_sdk.cpu.network import Adapter, Network, adapter_of
from cmt_sdk.cpu.reader import CPUReader
from cmt_sdk.cpu.shape import PARTS, Shape
from cmt_sdk.cpu.states import CPUStateReader, FirstHalf, QuestionEmbedder
from cmt_sdk.cpu.tokens import FilePrompts, read_json
from cmt_sdk.errors import ModelError, ModelUnsupported
from cmt_sdk.reading.codec import Codec
from cmt_sdk.reading.limits import heard_layers
from cmt_sdk.system.ram import free_memory
from cmt_sdk.types import Vector
from cmt_sdk.weights.bundle import Bundle
from cmt_sdk.weights.registry import ADAPTER_WEIGHTS, ModelInfo

if TYPE_CHECKING:
    from cmt_sdk.neural.frozen import FrozenModel

MODULES = frozenset(m.rpartition(".")[2] for modules in PARTS.values() for m in modules)
PROBE = "The museum moved from Porto to Lisbon in 2019; the old building was too small."
# Nats of divergence between the probabilities of the graph and of the model, per token of the
# probe. With 8 bits the default model has 0.006.
MOST_DIVERGENCE = 0.05
MOST_THREADS = 4
log = logging.getLogger(__name__)


def fits(info: ModelInfo, bundle: Bundle) -> Shape | None:
    """The sizes of a model that can be read this way, with the adapters of the bundle; None for
    another one.
    """
    config = read_json(info.path / "config.json")
    shape = Shape.of(config)
    tokenizer = read_json(info.path / "tokenizer_config.json")
    is_plain = (info.path / "tokenizer.json").exists() and not tokenizer.get(
        "clean_up_tokenization_spaces", False
    )
    if shape is None or not is_plain or "quantization_config" in config:
        return None
    return shape if all(_is_plain_lora(folder) for folder in bundle.adapters.values()) else None


def _is_plain_lora(folder: Path) -> bool:
    settings = read_json(folder / "adapter_config.json")
    others = ("use_dora", "use_rslora", "alpha_pattern", "rank_pattern", "modules_to_save")
    return (
        settings.get("peft_type") == "LORA"
        and settings.get("bias", "none") == "none"
        and not any(settings.get(name) for name in others)
        and set(settings.get("target_modules", ())) <= MODULES
    )


@dataclass(frozen=True)
class CPUModel:
    """A model's graph with its adapters, ready to read.

    Attributes:
        info: The model.
        shape: Its sizes.
        files: Its graph.
        bundle: Its adapters.
        threads: Threads that compute.
    """

    info: ModelInfo
    shape: Shape
    files: GraphFiles
    bundle: Bundle
    threads: int = 1

    @cached_property
    def prompts(self) -> FilePrompts:
        """The model's prompts."""
        return FilePrompts(self.info.path)

    @cached_property
    def _network(self) -> Network:
        embeddings = Checkpoint(self.info.path)["model.embed_tokens.weight"]
        return Network(self.files.folder, self.shape, self.files.split, embeddings, self.threads)

    @cached_property
    def _layout(self) -> Layout:
        prefix = self.files.prefix(self.prompts.prefix_ids)
        if prefix is None:
            raise ModelUnsupported(
                f"the graph in {self.files.folder} is of another prompt; remove that folder"
            )
        return Layout(self.shape, prefix, self._codec)

    @cached_property
    def _codec(self) -> Codec | None:
        """What decodes memories; None where none was fitted for the model."""
        file = self.bundle.codec
        if file is None:
            return None
        try:
            heads = self.shape.layers * self.shape.kv_heads
            return Codec.of(read_tensors(file), heads, self.shape.head)
        except (KeyError, TypeError) as error:
            raise ModelError(
                f"{file} holds other tensors than it should ({error!r:.100}): `cmt train` writes it"
            ) from error

    @cached_property
    def _bare(self) -> Adapter:
        return adapter_of(self.shape, {}, 1.0)

    @lru_cache(maxsize=4)  # noqa: B019 - a model is opened once, and its adapters stay with it
    def _adapter(self, name: str) -> Adapter:
        """The adapter of this name, loaded when it is first needed; the bare one for others."""
        folder = self.bundle.adapters.get(name)
        if folder is None:
            return self._bare
        settings = read_json(folder / "adapter_config.json")
        found = {
            name.partition(".layers.")[2].removesuffix(".weight"): tensor.astype(
                np.float32, copy=False
            )
            for name, tensor in mapped(folder / ADAPTER_WEIGHTS).items()
        }
        tensors = {f"layers.{name}": tensor for name, tensor in found.items()}
        return adapter_of(self.shape, tensors, settings["lora_alpha"] / settings["r"])

    @cached_property
    def reader(self) -> CPUReader:
        """See ports.Reader."""
        return CPUReader(self.prompts, self._network, self._layout, self._adapter)

    @cached_property
    def _first(self) -> FirstHalf:
        return FirstHalf(self._network, self._layout)

    @cached_property
    def questions(self) -> QuestionEmbedder:
        """Embeds questions."""
        head = read_tensors(self.bundle.match) if self.bundle.match else {}
        return QuestionEmbedder(self.prompts, self._first, self._adapter("matcher"), head)

    def embed(self, question: str) -> Vector:
        """A question's embedding [dimension], of length 1."""
        return self.questions.query(question)

    @cached_property
    def state_reader(self) -> CPUStateReader:
        """See ports.StateReader."""
        return CPUStateReader(self.prompts, self._first, self._bare, self.info.sha256[:16])


def open_graph(
    info: ModelInfo,
    bundle: Bundle,
    load: Callable[[], tuple[FrozenModel, str]],
    *,
    is_asked: bool,
) -> CPUModel | None:
    """A model over its graph, which is built where there is none; None where torch reads.

    Args:
        info: The model.
        bundle: Its adapters.
        load: Gives the model itself, and how it computes here.
        is_asked: The caller wants the graph. Otherwise torch reads where it cannot be built, and it
            is built for pulled models alone: a local folder changes.

    Raises:
        ModelError: The graph is asked for, and reads otherwise than the model or cannot be written.
    """
    shape = fits(info, bundle)
    if shape is None:
        return None
    files = find_graph(info)
    if files is None:
        is_possible = info.pulled_at and not is_refused(info) and info.bytes < free_memory()
        if not (is_asked or is_possible):
            return None
        level = logging.INFO if is_asked else logging.WARNING
        log.log(level, "preparing %s for this machine's CPU, once: this takes seconds", info.name)
        try:
            files = build(info, shape, *load())
        except ModelError as error:
            if is_asked:
                raise
            log.warning("torch reads with %s, which is slower: %s", info.name, error)
            return None
    return CPUModel(info, shape, files, bundle, threads())


def build(
    info: ModelInfo, shape: Shape, lm: FrozenModel, quantization: str, bits: int = BITS
) -> GraphFiles:
    """Build the graph of a model and check it.

    Args:
        info: The model.
        shape: Its sizes.
        lm: The model itself, which gives the prefix's entries.
        quantization: How it computes on this machine.
        bits: Of a weight of the graph.

    Raises:
        ModelUnsupported: The graph reads otherwise than the model.
        ModelError: The files cannot be written.
    """
    states = range(1, max(heard_layers(shape.layers)) + 1)
    layers = lm.prefix_cache(1).layers
    prefix = Prefix(
        np.stack([layer.keys[0].float().cpu().numpy() for layer in layers]),
        np.stack([layer.values[0].float().cpu().numpy() for layer in layers]),
    )
    checkpoint = Checkpoint(info.path)
    ids = lm.prefix_ids
    files = build_graph(info, shape, checkpoint, (ids, prefix), states, quantization, bits)
    model = CPUModel(info, shape, files, Bundle())
    divergence = _divergence(lm, model, lm.ids(PROBE))
    same_ids = model.prompts.prefix_ids == ids and all(
        model.prompts.question_ids(text) == lm.question_ids(text)
        and model.prompts.passage_ids(text) == lm.passage_ids(text)
        for text in (PROBE, f"Wie heißt's? 日本 {lm.tokenizer.eos_token}  \n x")
    )
    if not same_ids or not divergence < MOST_DIVERGENCE:
        refuse(info, bits)
        raise ModelUnsupported(
            f"the graph of {info.name} reads otherwise than the model does (divergence"
            f" {divergence:.3f} nats, at most {MOST_DIVERGENCE}); open with runtime='torch'"
        )
    return files


def _divergence(lm: FrozenModel, model: CPUModel, ids: Sequence[int]) -> float:
    """Nats per token by which the graph's probabilities differ from those of the bare model."""
    import torch

    with torch.inference_mode(), lm.activate("bare"):
        inputs = torch.tensor([list(ids)], device=lm.device)
        start = len(lm.prefix_ids)
        positions = torch.arange(start, start + len(ids), device=lm.device)[None]
        states = lm.forward(lm.prefix_cache(1), input_ids=inputs, position_ids=positions)
        logs = lm.logits(states[0]).log_softmax(-1).cpu().numpy()
    found = model.reader.next_logs(ids)
    return float((np.exp(logs) * (logs - found)).sum(-1).mean())


def threads() -> int:
    """Threads that compute: all cores, or one where others keep the machine busy.

    A second thread on a busy machine waits for its core, and the first one for it.
    """
    cores = os.cpu_count() or 1
    given = os.environ.get("OMP_NUM_THREADS", "")
    if given.isdigit() and int(given):
        return min(int(given), cores)
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    return max(1, min(MOST_THREADS, cores - round(load)))
