"""Runs the two halves of a model's graph: tokens in, states or logits out, with caches between.
Knows no prompt.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from cmt_sdk.cpu.shape import PARTS, Shape

Floats = NDArray[np.float32]
PROVIDER = "CPUExecutionProvider"


@dataclass(eq=False)
class Cache:
    """What new tokens attend to: entries, which stay, and tokens read before, which grow.

    Attributes:
        keys: By layer, [B, kv_heads, n, head_dim], rotated to their positions.
        values: By layer, the same shape.
        bias: By layer, [B, kv_heads, 1, n], added to the logits; -inf closes an entry.
        starts: By row, the position of the first token that follows the entries.
    """

    keys: Sequence[Any]
    values: Sequence[Any]
    bias: Sequence[Any]
    starts: Sequence[int]
    read: int = 0  # tokens after the entries
    past: dict[str, Any] = field(default_factory=dict)  # "past_key{l}", "past_value{l}"

    @property
    def batch(self) -> int:
        """The number of rows."""
        return len(self.starts)

    def branched(self, rows: int) -> Cache:
        """A cache of one row for this many continuations, which share its entries and tokens."""

        def joined(layer: int, entries: Sequence[Any], kind: str) -> Any:
            parts = [entries[layer].numpy(), self.past[f"{kind}{layer}"].numpy()]
            return value(np.concatenate(parts, axis=2))

        layers = range(len(self.keys))
        open_tokens = np.zeros((1, *self.bias[0].shape()[1:3], self.read), np.float32)
        return Cache(
            [joined(n, self.keys, "past_key") for n in layers],
            [joined(n, self.values, "past_value") for n in layers],
            [value(np.concatenate([b.numpy(), open_tokens], axis=3)) for b in self.bias],
            [self.starts[0] + self.read] * rows,
        )


@dataclass(frozen=True)
class Adapter:
    """Low-rank matrices by input name of the graph; of rank 0 for the bare model."""

    inputs: Mapping[str, Any]


def adapter_of(shape: Shape, tensors: Mapping[str, Floats], scale: float) -> Adapter:
    """The inputs for a LoRA adapter (arXiv 2106.09685).

    Args:
        shape: The model's sizes.
        tensors: By "layers.{l}.{module}.lora_A" and "...lora_B", [rank, in] and [out, rank]; what
            has no tensors is not changed.
        scale: Factor of the change.
    """
    inputs: dict[str, Any] = {}
    for part, modules in PARTS.items():
        width, out = shape.sizes(part)
        nothing = value(np.zeros((width, 0), np.float32)), value(np.zeros((0, out), np.float32))
        for layer in range(shape.layers):
            pairs = [
                (column, tensors[f"{name}.lora_A"], tensors[f"{name}.lora_B"])
                for column, module in zip(_columns(shape, part), modules, strict=True)
                if f"{(name := f'layers.{layer}.{module}')}.lora_A" in tensors
            ]
            down, up = _joined(pairs, out, scale) if pairs else nothing
            inputs[f"{part}_a{layer}"], inputs[f"{part}_b{layer}"] = down, up
    return Adapter(inputs)


def _joined(pairs: Sequence[tuple[int, Floats, Floats]], out: int, scale: float) -> tuple[Any, Any]:
    """The matrices of modules that are multiplied in one step as one pair, [in, rank] and
    [rank, out]; each module's [rank, in] and [outs, rank] come with its first output.
    """
    down = np.concatenate([a for _, a, _ in pairs]).T
    up = np.zeros((down.shape[1], out), np.float32)
    row = 0
    for column, a, b in pairs:
        up[row : row + len(a), column : column + len(b)] = scale * b.T
        row += len(a)
    return value(down), value(up)


def _columns(shape: Shape, part: str) -> list[int]:
    """The first output of each module of a part."""
    if part == "qkv":
        queries, keys = shape.heads * shape.head, shape.kv_heads * shape.head
        return [0, queries, queries + keys]
    return [0, shape.inner] if part == "gate_up" else [0]


def value(array: NDArray[Any]) -> Any:
    """An array as onnxruntime takes it, without a copy."""
    return ort.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(array))


class Network:
    """A model's graph in two sessions, which threads open while others go on.

    Args:
        folder: Holds first.onnx and second.onnx.
        shape: The model's sizes.
        split: The number of layers of the first half.
        embeddings: [vocabulary, width], a token's first state.
        threads: Threads that compute.
    """

    def __init__(
        self, folder: Path, shape: Shape, split: int, embeddings: Any, threads: int
    ) -> None:
        self.shape = shape
        self._split = split
        self._embeddings = embeddings
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        # the graph is written as it runs: looking for shorter ones takes time and finds none
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        # threads that wait burn the other core's time
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        self._layers = (range(split), range(split, shape.layers))
        pool = ThreadPoolExecutor(threads, "cmt-open")
        self._opening = [
            pool.submit(ort.InferenceSession, folder / name, options, providers=[PROVIDER])
            for name in ("first.onnx", "second.onnx")
        ]
        pool.shutdown(wait=False)

    @cached_property
    def _sessions(self) -> list[Any]:
        return [opening.result() for opening in self._opening]

    @cached_property
    def _inputs(self) -> list[set[str]]:
        return [{i.name for i in session.get_inputs()} for session in self._sessions]

    @cached_property
    def _outputs(self) -> list[list[str]]:
        return [[o.name for o in session.get_outputs()] for session in self._sessions]

    def logits(
        self, tokens: NDArray[np.int64], cache: Cache, adapter: Adapter, rows: NDArray[np.int64]
    ) -> Floats:
        """Read tokens [B, m], which the cache takes in; the logits [B, r, vocabulary] of `rows`."""
        logits: Floats = self._logits(tokens, cache, adapter, rows).numpy().copy()
        return logits

    def log_probabilities(
        self,
        tokens: NDArray[np.int64],
        cache: Cache,
        adapter: Adapter,
        rows: NDArray[np.int64],
        words: Sequence[int],
    ) -> Floats:
        """Read tokens [B, m], which the cache takes in; the log probabilities [B, r] of r words,
        each after one of `rows`.
        """
        found = self._logits(tokens, cache, adapter, rows)
        made = np.empty((cache.batch, len(rows)), np.float32)
        for number, logits in enumerate(found.numpy()):  # (r, vocabulary), not copied
            shifted = logits - logits.max(-1, keepdims=True)
            chosen = shifted[np.arange(len(rows)), words]
            made[number] = chosen - np.log(np.exp(shifted, out=shifted).sum(-1))
        return made

    def _logits(
        self, tokens: NDArray[np.int64], cache: Cache, adapter: Adapter, rows: NDArray[np.int64]
    ) -> Any:
        """The value of onnxruntime that holds the logits."""
        count = tokens.shape[1]
        states, _ = self._run(0, self._states(tokens), cache, adapter, count, {})
        _, found = self._run(1, states, cache, adapter, count, {"rows": value(rows)})
        cache.read += count
        return found["logits"]

    def partial(
        self, tokens: NDArray[np.int64], cache: Cache, adapter: Adapter
    ) -> dict[int, Floats]:
        """By number of layers, the states [B, m, width] of tokens after layers of the first half, 0
        for their embeddings. The cache stays as it is.
        """
        before = dict(cache.past)
        first = self._states(tokens)
        _, found = self._run(0, first, cache, adapter, tokens.shape[1], {})
        cache.past = before
        taken = {0: first} | {
            int(name.removeprefix("states")): states
            for name, states in found.items()
            if name.startswith("states")
        }
        return {layers: states.numpy().copy() for layers, states in taken.items()}

    def _states(self, tokens: NDArray[np.int64]) -> Any:
        return value(np.asarray(self._embeddings[tokens], np.float32))

    def _run(
        self,
        half: int,
        states: Any,
        cache: Cache,
        adapter: Adapter,
        count: int,
        more: Mapping[str, Any],
    ) -> tuple[Any, dict[str, Any]]:
        session = self._sessions[half]
        binding = session.io_binding()
        positions = np.arange(cache.read, cache.read + count)[None]
        starts = np.asarray(cache.starts, np.int64)[:, None]
        mask = np.zeros((count, cache.read + count), np.float32)
        mask[:, cache.read :] = np.triu(np.full((count, count), -np.inf, np.float32), 1)
        group = self.shape.heads // self.shape.kv_heads
        given = {
            "states": states,
            "positions": value(starts + positions),
            "mask": value(np.tile(mask, (1, 1, group, 1))),
            **more,
        }
        for layer in self._layers[half]:
            given[f"key{layer}"] = cache.keys[layer]
            given[f"value{layer}"] = cache.values[layer]
            given[f"bias{layer}"] = cache.bias[layer]
            for kind in ("past_key", "past_value"):
                given[f"{kind}{layer}"] = cache.past.get(f"{kind}{layer}") or self._empty(cache)
        given |= {n: v for n, v in adapter.inputs.items() if n in self._inputs[half]}
        for name, array in given.items():
            binding.bind_ortvalue_input(name, array)
        for name in self._outputs[half]:
            binding.bind_output(name, "cpu")
        session.run_with_iobinding(binding)
        found = dict(zip(self._outputs[half], binding.get_outputs(), strict=True))
        for layer in self._layers[half]:
            cache.past[f"past_key{layer}"] = found[f"new_key{layer}"]
            cache.past[f"past_value{layer}"] = found[f"new_value{layer}"]
        return found.get(f"states{self._split}"), found

    def _empty(self, cache: Cache) -> Any:
        s = self.shape
        return value(np.zeros((cache.batch, s.kv_heads, 0, s.head), np.float32))
