"""Baselines through the harness of `cmt eval`: baselines.py FILE BASELINE [--ratio R | --tokens N]
[options of cmt eval].

    truncation           the text reader, which is left the first n/R tokens of a document's n, or
    the first N bm25                 the text reader, which finds by words alone; no memories are
    made kvzip                the text reader, which is left one R-th of the passages' KV entries by
    KVzip (arXiv 2505.23416) expected-attention   the same by Expected Attention (arXiv 2510.00636)

The table is that of `cmt eval`, and its column "text" is the baseline. Two more baselines are
readers of `cmt eval` itself: `--reader none`, and `--reader text --set adapter=none`, the base
model with the text. That setting works here too.

The presses are NVIDIA's (kvpress). They get our prompt and our adapters; what stands before the
notes is kept whole, and R counts the entries of the notes alone, as it does in our memories (keep =
1/R). `first token ms` holds the press's own work.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

try:  # before all else: it patches the attention functions that it finds, and must not find ours
    import kvpress
except ImportError:
    kvpress = None

import numpy as np
import torch
from tokenizers import Tokenizer
from transformers import DynamicCache

import cmt_sdk
from cmt_cli.main import main as cmt
from cmt_sdk.memory import Memory
from cmt_sdk.memory.assembly import Parts, assemble
from cmt_sdk.memory.local_engine import LocalEngine
from cmt_sdk.neural.attention import NAME
from cmt_sdk.neural.reader import Reading, TorchReader
from cmt_sdk.retrieval.retriever import Retriever
from cmt_sdk.types import Document, Filter, Match, Piece, Progress, Prompt, SearchMode, Vector

PRESSES = {"kvzip": "KVzipPress", "expected-attention": "ExpectedAttentionPress"}
MISSING = (
    "kvpress is not installed. It needs transformers<5.3: from this repository's root, in an"
    " environment of its own, `pip install . kvpress`"
)


class Shortened(Memory):
    """A memory that remembers the beginning of each document, under the document's own name."""

    def __init__(self, parts: Parts, shorten: Callable[[str], str]) -> None:
        super().__init__(parts)
        self._shorten = shorten

    def add_many(self, documents: Sequence[Document], **options: Any) -> Progress:
        """As Memory's. The ids keep apart those that begin alike."""
        return super().add_many(
            [replace(d, text=self._shorten(d.text), id=d.source) for d in documents], **options
        )


def shortener(model: str, left: Callable[[int], int]) -> Callable[[str], str]:
    """What cuts a text of n tokens after `left(n)`."""
    tokenizer = Tokenizer.from_file(str(cmt_sdk.model_info(model).path / "tokenizer.json"))

    def shorten(text: str) -> str:
        ends = [end for _, end in tokenizer.encode(text, add_special_tokens=False).offsets]
        return text[: ends[min(len(ends), max(1, left(len(ends)))) - 1]]

    return shorten


class ByWords(Retriever):
    """Finding by BM25. Any other search finds nothing, so that its recall is 0 in the table."""

    def embed_question(self, _question: str) -> Vector:
        """No vector: words are looked up as they are."""
        return np.zeros(0, np.float32)

    def search(
        self,
        query: str,
        k: int,
        chosen: Filter,
        mode: SearchMode = "text",
        vector: Vector | None = None,
    ) -> list[Match]:
        """As Retriever's, where it is asked for words or for no mode."""
        return super().search(query, k, chosen, mode, vector) if mode == "text" else []


class Uncompressed(Memory):
    """A memory that keeps text and finds it by words."""

    @cached_property
    def _retriever(self) -> ByWords:
        parts = self._parts
        return ByWords(
            parts.store,
            parts.index,
            parts.engine,
            parts.passage_encoder,
            parts.settings.rerank_depth,
        )

    def add_many(self, documents: Sequence[Document], **options: Any) -> Progress:
        """As Memory's, but nothing is compressed."""
        return super().add_many(documents, compress=False, **options)

    def reencode(self, _on_progress: Callable[[Progress], None]) -> int:
        """Nothing is encoded, so nothing again."""
        return 0


@dataclass(frozen=True)
class Pressed(TorchReader):
    """The text reader, which reads the entries that a press has left. press: its class. ratio: one
    in so many is left.
    """

    press: Any = None
    ratio: float = 1.0

    def read(self, prompt: Prompt, max_tokens: int) -> Iterator[Piece]:
        """As TorchReader's, with the attention that kvpress has patched: KVzip's entries are hidden
        there, not dropped.
        """
        self.lm.model.set_attn_implementation("sdpa")
        try:
            yield from super().read(prompt, max_tokens)
        finally:
            self.lm.model.set_attn_implementation(NAME)

    def _read_text(self, text: list[int], ids: list[int]) -> Reading:
        """Read prefix and passages in one pass, as presses need it, and let the press take its
        share of the passages.
        """
        prefix = self.lm.prefix_ids
        count = len(prefix) + len(text)
        cache = DynamicCache()
        press = self.press(
            compression_ratio=(1 - 1 / self.ratio) * len(text) / count, n_sink=len(prefix)
        )
        with torch.inference_mode(), self.lm.activate("encoder"), press(self.lm.model):
            self.lm.forward(cache, **self._inputs(prefix + text, 0))
        return Reading("reader", ids, count, cache, tokens_before=len(text))


class PressedEngine(LocalEngine):
    """The language model of this machine, whose text is read through a press."""

    def __init__(self, settings: cmt_sdk.Settings, press: Any, ratio: float) -> None:
        super().__init__(settings)
        self._press, self._ratio = press, ratio

    @cached_property
    def reader(self) -> Pressed:
        """The reader over the same frozen model."""
        plain = super().reader
        return Pressed(plain.lm, plain.method, self._press, self._ratio)


def subject(
    options: argparse.Namespace, folder: Path, *, create: bool = False, **settings: Any
) -> Memory:
    """The memory that is measured, in place of the one that `cmt_sdk.open` makes."""
    if options.baseline == "bm25":
        return Uncompressed(assemble(folder, settings | {"rerank": 0}, create=create))
    if options.baseline == "truncation":
        parts = assemble(folder, settings, create=create)
        left = (
            (lambda _: options.tokens) if options.tokens else (lambda n: round(n / options.ratio))
        )
        return Shortened(parts, shortener(parts.settings.model, left))
    with cmt_sdk.open(folder, create=create, **settings) as plain:
        engine = PressedEngine(
            plain.settings, getattr(kvpress, PRESSES[options.baseline]), options.ratio
        )
    return Memory(assemble(folder, settings, create=create, engine=engine))


def asked() -> tuple[argparse.Namespace, list[str]]:
    """This script's own options, and those of `cmt eval`."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("file")
    parser.add_argument("baseline", choices=("truncation", "bm25", *PRESSES))
    size = parser.add_mutually_exclusive_group()
    size.add_argument(
        "--ratio",
        type=float,
        default=4.0,
        help="one token or entry in so many is left, at least 1 (4)",
    )
    size.add_argument(
        "--tokens", type=int, help="truncation: so many tokens of a document are left"
    )
    options, rest = parser.parse_known_args()
    if options.ratio < 1 or (options.tokens is not None and options.tokens < 1):
        parser.error(f"--ratio {options.ratio:g}, --tokens {options.tokens}: choose at least 1")
    if options.tokens and options.baseline != "truncation":
        parser.error(
            f"--tokens: {options.baseline} has no fixed number; choose --ratio, or truncation"
        )
    if options.baseline in PRESSES and kvpress is None:
        parser.error(MISSING)
    return options, rest


def main() -> None:
    """Say what is measured, and let `cmt eval` measure it."""
    own, others = asked()
    # KVzip says at every question that it takes its time
    logging.getLogger("kvpress").setLevel(logging.ERROR)
    size = (
        ""
        if own.baseline == "bm25"
        else f", {own.tokens} tokens"
        if own.tokens
        else f", one in {own.ratio:g} left"
    )
    print(f'the column "text" is: {own.baseline}{size}', flush=True)
    arguments = ["eval", own.file, "--reader", "text", *others]
    cmt.main(arguments, prog_name="cmt", obj=lambda folder, **rest: subject(own, folder, **rest))


if __name__ == "__main__":
    main()
