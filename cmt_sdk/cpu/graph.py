"""The ONNX graph of a Llama-shaped decoder, in two halves, with quantised weights.

Both halves take the states of new tokens, the entries of a memory cache as plain inputs, and an
adapter's low-rank matrices as plain inputs: one set of weights serves the bare model and every
adapter. The first half alone embeds texts. Knows no session and no prompt.

Rounding. A product's input is rounded to 8 bits too, with one scale for BLOCK values, so that one
large value takes the precision of its neighbours. A Hadamard matrix turns each block before, and
the weights with it, which changes no product and spreads a large value over its block (QuaRot,
arXiv 2404.00456). On passages of SQuAD the default model's divergence from its exact graph falls
from 0.0040 to 0.0018 nats a token (examples/benchmarks/rounding.py), for 3 % more time.

Inputs, by layer l of a half; B prompts, m new tokens, n cached entries, p tokens read before; C is
B, or 1 where all prompts share the entries:

    states       [B, m, width], positions int64 [B, m]
    mask         [1, 1, group * m, p + m], m rows for each query head of a group
    key{l}       [C, kv_heads, n, head_dim], rotated; value{l} the same
    bias{l}      [C, kv_heads, 1, n], added to the logits of the cached entries
    past_key{l}  [B, kv_heads, p, head_dim], past_value{l}
    {part}_a{l}  [in, rank], {part}_b{l} [rank, out] for each part of PARTS; rank may be 0

Outputs: the states after the layers that `outputs` names; new_key{l} and new_value{l}, the past
ones joined with those of the new tokens; of the second half also logits [B, r, vocabulary] of the
tokens that `rows` int64 [r] names.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from cmt_sdk.cpu.shape import PARTS, Shape
from cmt_sdk.reading.codes import hadamard

BLOCK = 32  # neighbouring weights of a row that share one scale
EXACT = 32  # bits of a weight that is not rounded, for tests
MICROSOFT = "com.microsoft"
# The kernel rounds activations to 8 bits by block (MatMulNBits' accuracy_level 4).
INT8_ACTIVATIONS = 4

Array = NDArray[Any]
Weights = Callable[[str], Array | None]


@dataclass
class _Builder:
    """Collects the nodes, weights and ports of a graph."""

    shape: Shape
    bits: int

    def __post_init__(self) -> None:
        self.nodes: list[Any] = []
        self.inits: list[Any] = []
        self.inputs: list[Any] = []
        self.outputs: list[Any] = []
        self._constants: dict[tuple[Any, ...], str] = {}
        self.read = ""  # p + m, int64 [1]

    def node(self, kind: str, inputs: Sequence[str], count: int = 1, **attributes: Any) -> Any:
        """Add a node; returns the name of its output, or the names of `count` outputs."""
        names = [f"{kind}_{len(self.nodes)}_{n}" for n in range(count)]
        self.nodes.append(helper.make_node(kind, list(inputs), names, **attributes))
        return names[0] if count == 1 else names

    def constant(self, values: Any, dtype: Any = np.int64) -> str:
        """A small constant, made once."""
        array = np.asarray(values, dtype)
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._constants:
            self._constants[key] = self.weight(f"constant_{len(self._constants)}", array)
        return self._constants[key]

    def weight(self, name: str, array: Array) -> str:
        """A stored tensor."""
        self.inits.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def input(self, name: str, dims: Sequence[int | str], kind: int = TensorProto.FLOAT) -> str:
        """An input of the graph."""
        self.inputs.append(helper.make_tensor_value_info(name, kind, list(dims)))
        return name

    def output(
        self, name: str, kind: str, inputs: Sequence[str], dims: Sequence[int | str], **kw: Any
    ) -> str:
        """An output of the graph, from a node that is added."""
        self.nodes.append(helper.make_node(kind, list(inputs), [name], **kw))
        self.outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, list(dims)))
        return name

    def linear(self, x: str, name: str, matrix: Array, bias: Array | None = None) -> str:
        """The product of x [..., in] and a matrix [out, in], rounded to fewer than 32 bits."""
        out, width = matrix.shape
        if self.bits == EXACT:
            exact = self.weight(name, matrix.T.astype(np.float32))
            return self._plus(self.node("MatMul", [x, exact]), name, bias)
        x, matrix = self._spread(x), spread(matrix)
        codes, scales = quantized(matrix, self.bits)
        inputs = [x, self.weight(f"{name}_codes", codes), self.weight(f"{name}_scales", scales)]
        y = self.node(
            "MatMulNBits",
            inputs,
            domain=MICROSOFT,
            K=width,
            N=out,
            bits=self.bits,
            block_size=BLOCK,
            accuracy_level=INT8_ACTIVATIONS,
        )
        return self._plus(y, name, bias)

    def _spread(self, x: str) -> str:
        """X [B, m, in], each block turned as `spread` turns those of a matrix."""
        if "hadamard" not in {i.name for i in self.inits}:
            self.weight("hadamard", hadamard(BLOCK))
        blocks = self.node("Reshape", [x, self.constant([0, 0, -1, BLOCK])])
        turned = self.node("MatMul", [blocks, "hadamard"])
        return str(self.node("Reshape", [turned, self.constant([0, 0, -1])]))

    def _plus(self, y: str, name: str, bias: Array | None) -> str:
        if bias is None:
            return y
        return str(self.node("Add", [y, self.weight(f"{name}_bias", bias.astype(np.float32))]))

    def adapted(self, x: str, y: str, layer: int, part: str) -> str:
        """The sum of y and what the adapter that is on adds for the input x."""
        width, out = self.shape.sizes(part)
        a = self.input(f"{part}_a{layer}", [width, f"{part}_rank"])
        b = self.input(f"{part}_b{layer}", [f"{part}_rank", out])
        low = self.node("MatMul", [x, a])
        return str(self.node("Add", [y, self.node("MatMul", [low, b])]))

    def norm(self, x: str, name: str, gain: Array) -> str:
        """Root-mean-square normalisation of the last axis."""
        weight = self.weight(name, gain.astype(np.float32))
        return str(
            self.node("SimplifiedLayerNormalization", [x, weight], axis=-1, epsilon=self.shape.eps)
        )


def spread(matrix: Array) -> NDArray[np.float32]:
    """A matrix [out, in], each block of a row turned by a Hadamard matrix."""
    blocks = matrix.astype(np.float32).reshape(len(matrix), -1, BLOCK)
    turned: NDArray[np.float32] = (blocks @ hadamard(BLOCK)).reshape(matrix.shape)
    return turned


def quantized(matrix: Array, bits: int) -> tuple[Array, Array]:
    """The codes and scales of a matrix [out, in] as MatMulNBits stores them.

    A block of BLOCK weights w is stored as its scale s and codes round(w / s) + 2 ** (bits - 1).

    Returns:
        Codes uint8 [out, in / BLOCK, BLOCK * bits / 8], and scales float32 [out, in / BLOCK].
    """
    out, width = matrix.shape
    middle = 1 << (bits - 1)
    blocks = matrix.reshape(out, width // BLOCK, BLOCK).astype(np.float32)
    peaks = np.abs(blocks).max(-1, keepdims=True)
    scales = np.maximum(peaks / (middle - 1), 1e-12)
    codes = np.clip(np.rint(blocks / scales) + middle, 0, 2 * middle - 1).astype(np.uint8)
    if bits == 4:
        codes = codes[..., 0::2] | (codes[..., 1::2] << 4)
    return codes, scales[..., 0]


def write_half(
    path: Path,
    shape: Shape,
    layers: range,
    weights: Weights,
    *,
    states: Sequence[int] = (),
    bits: int = 8,
) -> None:
    """Write the graph of the layers `layers`, with the output layer where they are the last.

    Args:
        path: An .onnx file; its weights go into a file next to it.
        shape: The model's sizes.
        layers: Numbers of the layers.
        weights: Gives a tensor of the model by its name in the checkpoint; None where it has none.
        states: Numbers of layers after which the states are an output.
        bits: 8 or 4, of a weight; 32 rounds nothing.
    """
    g = _Builder(shape, bits)
    x = g.input("states", ["batch", "new", shape.width])
    g.input("positions", ["batch", "new"], TensorProto.INT64)
    mask = g.input("mask", [1, 1, "rows_of_group", "read"])
    g.read = g.node("Shape", [mask], start=3, end=4)
    for layer in layers:
        x = _block(g, x, layer, weights)
        if layer + 1 in states:
            g.output(f"states{layer + 1}", "Identity", [x], ["batch", "new", shape.width])
    if layers.stop == shape.layers:
        _output_layer(g, x, weights)
    onnx.save_model(
        helper.make_model(
            helper.make_graph(g.nodes, "half", g.inputs, g.outputs, g.inits),
            opset_imports=[helper.make_opsetid("", 18), helper.make_opsetid(MICROSOFT, 1)],
            ir_version=9,
        ),
        path,
        save_as_external_data=True,
        location=f"{path.name}.data",
        size_threshold=1024,
    )


def _output_layer(g: _Builder, x: str, weights: Weights) -> None:
    """The logits of the tokens that `rows` names."""
    rows = g.input("rows", ["rows"], TensorProto.INT64)
    chosen = g.node("Gather", [x, rows], axis=1)
    normed = g.norm(chosen, "norm", _needed(weights, "model.norm.weight"))
    head = weights("lm_head.weight")
    if head is None:
        head = _needed(weights, "model.embed_tokens.weight")
    logits = g.linear(normed, "head", head)
    g.output("logits", "Identity", [logits], ["batch", "rows", len(head)])


def _needed(weights: Weights, name: str) -> Array:
    array = weights(name)
    assert array is not None, name  # noqa: S101 - `Shape.of` has checked the checkpoint
    return array


def _block(g: _Builder, x: str, layer: int, weights: Weights) -> str:
    """One layer: states [B, m, width] to states."""
    s = g.shape

    def get(name: str) -> Array | None:
        return weights(f"model.layers.{layer}.{name}")

    def matrix(names: Sequence[str]) -> Array:
        return np.concatenate([_needed(get, f"{name}.weight") for name in names])

    def bias(names: Sequence[str]) -> Array | None:
        found = [get(f"{name}.bias") for name in names]
        return None if found[0] is None else np.concatenate([b for b in found if b is not None])

    def linear(h: str, part: str) -> str:
        names = PARTS[part]
        y = g.linear(h, f"{part}{layer}", matrix(names), bias(names))
        return g.adapted(h, y, layer, part)

    h = g.norm(x, f"norm_in{layer}", _needed(get, "input_layernorm.weight"))
    sizes = g.constant([s.heads * s.head, s.kv_heads * s.head, s.kv_heads * s.head])
    query, key, value = g.node("Split", [linear(h, "qkv"), sizes], 3, axis=-1)
    query, key = _by_head(g, query, s.heads), _by_head(g, key, s.kv_heads)
    value = _by_head(g, value, s.kv_heads)
    for name in ("q_norm", "k_norm"):
        gain = get(f"self_attn.{name}.weight")
        if gain is not None and name == "q_norm":
            query = g.norm(query, f"{name}{layer}", gain)
        elif gain is not None:
            key = g.norm(key, f"{name}{layer}", gain)
    query, key = _rotated(g, query, s.heads), _rotated(g, key, s.kv_heads)
    x = g.node("Add", [x, linear(_attended(g, query, key, value, layer), "out")])
    h = g.norm(x, f"norm_mlp{layer}", _needed(get, "post_attention_layernorm.weight"))
    gate, up = g.node("Split", [linear(h, "gate_up"), g.constant([s.inner, s.inner])], 2, axis=-1)
    active = g.node("QuickGelu", [gate], domain=MICROSOFT, alpha=1.0)  # with 1 it is SiLU
    return str(g.node("Add", [x, linear(g.node("Mul", [active, up]), "down")]))


def _by_head(g: _Builder, x: str, heads: int) -> str:
    """[B, m, heads * d] to [B, heads, m, d]."""
    split = g.node("Reshape", [x, g.constant([0, 0, heads, g.shape.head])])
    return str(g.node("Transpose", [split], perm=[0, 2, 1, 3]))


def _rotated(g: _Builder, x: str, heads: int) -> str:
    """Rotate the two halves of each head [B, heads, m, d] to the tokens' positions."""
    if "cos" not in {i.name for i in g.inits}:
        cos, sin = g.shape.rotation()
        g.weight("cos", cos)
        g.weight("sin", sin)
    inputs = [x, "positions", "cos", "sin"]
    return str(g.node("RotaryEmbedding", inputs, domain=MICROSOFT, num_heads=heads))


def _attended(g: _Builder, query: str, key: str, value: str, layer: int) -> str:
    """Attention over cached entries, tokens read before, and the new ones.

    The query heads of a group become rows of their key-value head, so no key is copied; cached
    entries and tokens are scored apart, so that the cache is never copied either.

    Returns:
        [B, m, heads * d].
    """
    s = g.shape
    cached_key = g.input(f"key{layer}", ["cached", s.kv_heads, f"entries{layer}", s.head])
    cached_value = g.input(f"value{layer}", ["cached", s.kv_heads, f"entries{layer}", s.head])
    bias = g.input(f"bias{layer}", ["cached", s.kv_heads, 1, f"entries{layer}"])
    dims: list[int | str] = ["batch", s.kv_heads, "past", s.head]
    read: list[int | str] = ["batch", s.kv_heads, "read", s.head]
    past_key, past_value = (g.input(f"past_{kind}{layer}", dims) for kind in ("key", "value"))
    keys = g.output(f"new_key{layer}", "Concat", [past_key, key], read, axis=2)
    values = g.output(f"new_value{layer}", "Concat", [past_value, value], read, axis=2)

    rows = g.node("Reshape", [query, g.constant([0, s.kv_heads, -1, s.head])])  # (B, KV, gm, d)
    of_cache = g.node("Add", [_products(g, rows, cached_key), bias])  # (B, KV, gm, n)
    of_tokens = g.node("Add", [_products(g, rows, keys), "mask"])  # (B, KV, gm, p + m)
    shares = g.node("Softmax", [g.node("Concat", [of_cache, of_tokens], axis=-1)], axis=-1)
    entries = g.node("Shape", [cached_key], start=2, end=3)
    sizes = g.node("Concat", [entries, g.read], axis=0)
    on_cache, on_tokens = g.node("Split", [shares, sizes], 2, axis=-1)
    attended = g.node(
        "Add",
        [g.node("MatMul", [on_cache, cached_value]), g.node("MatMul", [on_tokens, values])],
    )
    by_head = g.node("Reshape", [attended, g.constant([0, s.heads, -1, s.head])])
    turned = g.node("Transpose", [by_head], perm=[0, 2, 1, 3])
    return str(g.node("Reshape", [turned, g.constant([0, 0, s.heads * s.head])]))


def _products(g: _Builder, rows: str, keys: str) -> str:
    """The logits of attention [..., r, n]: rows [..., r, d] times keys [..., n, d]."""
    scale = g.shape.head**-0.5
    return str(g.node("FusedMatMul", [rows, keys], domain=MICROSOFT, transB=1, alpha=scale))
