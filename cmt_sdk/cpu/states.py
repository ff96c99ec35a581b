"""Embeddings of questions, and states of messages, from the first half of a model's graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cmt_sdk.cpu.entries import Layout
from cmt_sdk.cpu.network import Adapter, Network
from cmt_sdk.reading.limits import MAX_EMBEDDED_TOKENS, MAX_HEARD_TOKENS, heard_layers
from cmt_sdk.text.prompt_tokens import Prompts
from cmt_sdk.types import Vector

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class FirstHalf:
    """Runs texts behind the prompt's prefix through the first layers."""

    network: Network
    layout: Layout

    def states(self, ids: Sequence[int], adapter: Adapter) -> dict[int, Floats]:
        """By number of layers, the states [t, width] of a text's tokens."""
        tokens = np.array([ids])
        found = self.network.partial(tokens, self.layout.cache([[]]), adapter)
        return {layers: states[0] for layers, states in found.items()}


@dataclass(frozen=True)
class QuestionEmbedder:
    """Embeds questions as `neural.embedding.Matcher` embeds passages: read that for the steps.

    Attributes:
        prompts: The model's prompts.
        first: The first half of its graph.
        adapter: The matcher's, or the bare one.
        head: Weights of pooling and projection by name, as in match.safetensors; empty for the
            mean state after half of the layers.
    """

    prompts: Prompts
    first: FirstHalf
    adapter: Adapter
    head: Mapping[str, NDArray[np.generic]]

    def query(self, question: str) -> Vector:
        """The question's embedding [dimension], of length 1."""
        ids = self.prompts.ids(question)[:MAX_EMBEDDED_TOKENS]
        found = self.first.states(ids, self.adapter)
        if not self.head:
            layers = self.first.layout.shape.layers // 2
            mean = _unit(found[layers]).mean(0)
            return np.asarray(_unit(mean), np.float32)
        taken = [int(n) for n in self.head["layers"]]
        states = np.stack([_unit(found[n]) for n in taken], axis=1)  # (t, l, width)
        weights = {n: np.asarray(w, np.float32) for n, w in self.head.items() if n != "layers"}
        logits = weights["tokens"][list(ids)] + states[:, -1] @ weights["attend"]  # (t,)
        shares = np.exp(logits - logits.max())
        pooled = (states * (shares / shares.sum())[:, None, None]).sum(0).reshape(-1)
        return np.asarray(_unit(weights["projection"] @ pooled + weights["bias"]), np.float32)


@dataclass(frozen=True)
class CPUStateReader:
    """Mean and last state of a message, as `neural.state_reader.StateReader` takes them.

    Attributes:
        prompts: The model's prompts.
        first: The first half of its graph.
        bare: The bare adapter.
        name: Of the model; a probe that is fitted to its states is kept under it.
    """

    prompts: Prompts
    first: FirstHalf
    bare: Adapter
    name: str

    def states(self, texts: Sequence[str]) -> Vector:
        """States float32 [n, 4 * width] of n texts."""
        return np.stack([self._states(text) for text in texts])

    def _states(self, text: str) -> Floats:
        found = self.first.states(self.prompts.heard_ids(text, MAX_HEARD_TOKENS), self.bare)
        pooled: list[Floats] = []
        for layer in heard_layers(self.first.layout.shape.layers):
            pooled += [_unit(found[layer]).mean(0), found[layer][-1]]
        return np.concatenate(pooled)


def _unit(rows: Floats) -> Floats:
    """Rows [..., width] at length 1."""
    lengths = np.linalg.norm(rows, axis=-1, keepdims=True)
    unit: Floats = rows / np.maximum(lengths, 1e-12)
    return unit
