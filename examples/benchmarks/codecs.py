"""Bytes and loading of kv passages by codec, side by side: codecs.py FILE [--passages 20].

FILE holds questions (JSON lines); its first passages are compressed by the default model, once with
each value of the setting `codec`. Decoding is CPU time in numpy, as onnxruntime reads them, in
turn; the median of the passages. KL is the divergence, in nats an answer token, of the reader's
next tokens from those after unrounded entries, on one question a passage.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cmt_sdk.config.settings import Settings
from cmt_sdk.cpu.entries import Layout, Prefix
from cmt_sdk.cpu.shape import Shape
from cmt_sdk.cpu.tokens import read_json
from cmt_sdk.memory.local_engine import LocalEngine
from cmt_sdk.neural.methods.kv import KVMethod
from cmt_sdk.questions.dataset import QuestionedPassage, read_passages
from cmt_sdk.reading.codec import Entries
from cmt_sdk.types import CompressedPassage
from cmt_sdk.weights.registry import model_info

REPEATS = 10  # of each decoding


class Unrounded(KVMethod):
    """Reads memories whose arrays are the entries themselves."""

    def _decoded(self, memory: CompressedPassage) -> Entries:
        kept, keys, values = (memory.arrays[name] for name in ("kept", "keys", "values"))
        return Entries(kept.astype(np.uint8), keys.astype("f4"), values.astype("f4"))


@torch.inference_mode()
def unrounded(method: KVMethod, text: str) -> CompressedPassage:
    """The kept entries of a passage as they are."""
    ids = method.lm.passage_ids(text)
    with method.lm.activate("encoder"):
        keys, values, scores = method.encode([ids])
    kept = method.chosen(None if scores is None else scores[0], len(ids))
    arrays = {
        "kept": kept.flatten(0, 1).to(torch.uint8),
        "keys": keys[0, :, :, : len(ids)][kept].float(),
        "values": values[0, :, :, : len(ids)][kept].float(),
    }
    return CompressedPassage("kv", len(ids), {n: t.numpy() for n, t in arrays.items()})


@torch.inference_mode()
def answer_logs(method: KVMethod, memory: CompressedPassage, passage: QuestionedPassage) -> Tensor:
    """The log probabilities [t, vocabulary] of each token of the first question's answer."""
    lm, question = method.lm, passage.questions[0]
    before = lm.question_ids(question.text)
    after = [*lm.ids(question.answers[0]), lm.end_id]
    cache = method.cache([[memory]])
    with lm.activate("reader"):
        states = lm.forward(cache, **cache.inputs(torch.tensor([before + after])))
    return lm.logits(states[0, len(before) - 1 : -1]).log_softmax(-1)


def milliseconds(layout: Layout, memory: CompressedPassage) -> float:
    """CPU time of one decoding."""
    layout._decoded(memory)
    began = time.process_time()
    for _ in range(REPEATS):
        layout._decoded(memory)
    return 1000 * (time.process_time() - began) / REPEATS


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("--passages", type=int, default=20)
    given = parser.parse_args(arguments)
    passages = read_passages(given.file)[: given.passages]
    settings = Settings(device="cpu", compression=4, codec="auto")
    method = LocalEngine(settings)._method
    assert isinstance(method, KVMethod)
    shape = Shape.of(read_json(model_info(settings.model).path / "config.json"))
    assert shape is not None
    nothing = np.zeros((shape.layers, shape.kv_heads, 0, shape.head), np.float32)
    layout = Layout(shape, Prefix(nothing, nothing), method.codec)
    parts = method.lm, method.rotary, method.keep, method.at_least, method.gates, method.codec
    methods = {"4bit": KVMethod(*parts, encodes=False), "auto": KVMethod(*parts)}
    whole = Unrounded(*parts)
    rows: dict[str, list[tuple[int, float, Tensor]]] = {name: [] for name in methods}
    tokens = 0
    for passage in passages:
        plain = unrounded(method, passage.context)
        tokens += plain.tokens
        teacher = answer_logs(whole, plain, passage)
        for name, maker in methods.items():
            (memory,) = maker.compress([passage.context])
            logs = answer_logs(maker, memory, passage)
            divergence = (teacher.exp() * (teacher - logs)).sum(-1)
            rows[name].append((memory.nbytes, milliseconds(layout, memory), divergence))
    print(
        "| codec | bytes a token | decoding a passage, ms | KL, nats a token |\n|---|---|---|---|"
    )
    for name, found in rows.items():
        size = sum(row[0] for row in found) / tokens
        spent = statistics.median(row[1] for row in found)
        divergence = float(torch.cat([row[2] for row in found]).mean())
        print(f"| `{name}` | {size:.0f} | {spent:.1f} | {divergence:.4f} |")
    print(f"\n{len(passages)} passages of {tokens / len(passages):.0f} tokens on average")


if __name__ == "__main__":
    main()
