"""How far each way of reading on a CPU is from the exact one, on texts: torch in the precision of
this machine, and onnxruntime with weights of 8 bits, against a graph that rounds nothing.

    python examples/benchmarks/rounding.py FILE [--texts 12] [--model NAME]

FILE is a question file of `cmt eval`; of its passages some are read, their first 110 tokens, every
second one with the reader's adapter. The exact graph takes four bytes a weight on the disk, and
stays.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cmt_sdk.config.settings import Settings
from cmt_sdk.cpu.engine import CPUModel, build, fits
from cmt_sdk.cpu.files import BITS, find_graph
from cmt_sdk.cpu.graph import EXACT
from cmt_sdk.memory.local_engine import LocalEngine
from cmt_sdk.questions.dataset import read_passages
from cmt_sdk.reading.decoding import log_softmax
from cmt_sdk.weights.registry import model_info

TOKENS = 110
ADAPTERS = ("bare", "reader")

Logs = NDArray[np.float32]
Reads = Callable[[Sequence[int], str], Logs]


def by_torch(engine: LocalEngine) -> Reads:
    """Reads token ids behind the prefix; gives log probabilities [n, vocabulary]."""
    import torch

    lm = engine._frozen

    @torch.inference_mode()
    def read(ids: Sequence[int], adapter: str) -> Logs:
        start = len(lm.prefix_ids)
        positions = torch.arange(start, start + len(ids))[None]
        with lm.activate(adapter):
            inputs = torch.tensor([list(ids)])
            states = lm.forward(lm.prefix_cache(1), input_ids=inputs, position_ids=positions)
        logs: Logs = lm.logits(states[0]).float().log_softmax(-1).numpy()
        return logs

    return read


def by_graph(engine: LocalEngine, bits: int) -> Reads:
    """The same by a graph with weights of this many bits, which is built where there is none."""
    info = model_info(engine._settings.model)
    shape = fits(info, engine._bundle)
    if shape is None:
        raise SystemExit(f"{info.name} has no graph: choose a model like Llama or Qwen")
    files = find_graph(info, bits)
    files = files or build(info, shape, engine._frozen, engine._loaded.quantization, bits)
    model = CPUModel(info, shape, files, engine._bundle)

    def read(ids: Sequence[int], adapter: str) -> Logs:
        every = np.arange(len(ids))
        cache = model._layout.cache([[]])
        tokens = np.array([list(ids)])
        logits = model._network.logits(tokens, cache, model._adapter(adapter), every)
        return log_softmax(logits[0])

    return read


def distance(exact: Sequence[Logs], other: Sequence[Logs], ids: Sequence[Sequence[int]]) -> Any:
    """Nats of divergence a token, mean change of a token's log probability, share of other first
    choices.
    """
    divergences: list[float] = []
    changes: list[float] = []
    others: list[bool] = []
    for right, found, tokens in zip(exact, other, ids, strict=True):
        divergences += list((np.exp(right) * (right - found)).sum(-1))
        steps, following = np.arange(len(tokens) - 1), list(tokens[1:])
        changes += list(np.abs(right[steps, following] - found[steps, following]))
        others += list(right.argmax(-1) != found.argmax(-1))
    return np.mean(divergences), np.mean(changes), np.mean(others)


def measured(engine: LocalEngine, texts: Sequence[str]) -> Mapping[str, Any]:
    """The distances by way of reading."""
    ids = [engine._frozen.ids(text)[:TOKENS] for text in texts]

    def logs(read: Reads) -> list[Logs]:
        return [read(row, ADAPTERS[n % len(ADAPTERS)]) for n, row in enumerate(ids)]

    exact = logs(by_graph(engine, EXACT))
    return {
        f"torch, {engine._loaded.quantization}": distance(exact, logs(by_torch(engine)), ids),
        f"onnxruntime, {BITS} bits": distance(exact, logs(by_graph(engine, BITS)), ids),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--texts", type=int, default=12)
    parser.add_argument("--model", default=Settings().model)
    given = parser.parse_args(arguments)
    texts = [passage.context for passage in read_passages(given.file)]
    chosen = texts[:: max(1, len(texts) // given.texts)][: given.texts]
    engine = LocalEngine(Settings(model=given.model, runtime="torch", device="cpu"))
    print("| | divergence, nats a token | change of a log probability | other first choice |")
    print("|---|---|---|---|")
    for name, (divergence, change, other) in measured(engine, chosen).items():
        print(f"| {name} | {divergence:.5f} | {change:.4f} | {100 * other:.1f} % |")


if __name__ == "__main__":
    main()
