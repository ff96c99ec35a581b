"""The reader on a CPU: answers from memories, from text, or from neither, with onnxruntime. See
ports.Reader.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cmt_sdk.cpu.entries import Layout
from cmt_sdk.cpu.network import Adapter, Cache, Network
from cmt_sdk.errors import InvalidInput
from cmt_sdk.reading.decoding import Logits, OpenPrompt, decode, log_softmax
from cmt_sdk.reading.limits import MAX_QUESTION_TOKENS, NON_BEST_BIAS
from cmt_sdk.reading.spans import MAX_TOKENS, scored, span_rows
from cmt_sdk.text.prompt_tokens import Prompts
from cmt_sdk.types import AnswerSpan, CompressedPassage, Piece, Prompt

CHUNK = 256  # tokens of a text that are read at once: attention takes memory for their square


@dataclass(frozen=True)
class CPUReader:
    """The reader of one model and of kv memories.

    Attributes:
        prompts: The model's prompts.
        network: Its graph.
        layout: Makes caches of memories.
        adapter: Gives "bare", "reader" or "encoder"; an adapter that was not trained is the bare
            one.
    """

    prompts: Prompts
    network: Network
    layout: Layout
    adapter: Callable[[str], Adapter]

    def read(self, prompt: Prompt, max_tokens: int) -> Iterator[Piece]:
        """See ports.Reader.

        Raises:
            InvalidInput: The prompt is longer than the model's context.
        """
        began = time.perf_counter()
        if prompt.notes:
            opened, _ = self._open(prompt, max_tokens)
        else:
            to_ids = self.prompts.talk_ids if prompt.talk else self.prompts.bare_ids
            ids = to_ids(prompt.question, prompt.history)
            opened = self._opened(ids, self.layout.empty(), "bare")
        yield from decode(self.prompts, opened, max_tokens, began, prompt.copied)

    def uncompressed(self, texts: Sequence[str]) -> list[CompressedPassage]:
        """See ports.Engine.

        Raises:
            InvalidInput: Together they are longer than the model's context.
        """
        ids = [self.prompts.passage_ids(text) for text in texts]
        self._check_length(Prompt(""), sum(map(len, ids)))
        return list(map(self._uncompressed, ids))

    def _uncompressed(self, ids: list[int]) -> CompressedPassage:
        cache = self.layout.cache([[]])
        self._read_text(ids, cache)
        return self.layout.uncompressed(cache)

    def word_likelihoods(
        self, question: str, memories: Sequence[CompressedPassage]
    ) -> list[list[float]]:
        """See ports.Reader."""
        if not memories:
            return []
        before, words = self.prompts.question_span(question)
        words = words[-MAX_QUESTION_TOKENS:]
        cache = self.layout.cache([[memory] for memory in memories])
        # Each token predicts the next one, so the last one is not read.
        tokens = np.tile(np.array([*before, *words[:-1]]), (len(memories), 1))  # (rows, t)
        rows = np.arange(len(before) - 1, tokens.shape[1])
        bare = self.adapter("bare")
        found: list[list[float]] = self.network.log_probabilities(
            tokens, cache, bare, rows, words
        ).tolist()
        return found

    def answer_spans(
        self, prompt: Prompt, text: str, words: Sequence[tuple[int, int]]
    ) -> list[AnswerSpan]:
        """See ports.Reader.

        Raises:
            InvalidInput: The prompt is longer than the model's context.
        """
        opened, cache = self._open(prompt, MAX_TOKENS)
        first = opened.read(opened.ids)
        rows = span_rows(self.prompts.ids, text, words)
        if not rows:
            return []
        tokens = np.full((len(rows), max(len(row.ids) for row in rows)), self.prompts.end_id)
        for number, row in enumerate(rows):
            tokens[number, : len(row.ids)] = row.ids
        branches = cache.branched(len(rows))
        every = np.arange(tokens.shape[1])
        logits = self.network.logits(tokens, branches, self.adapter("reader"), every)
        return [
            span
            for row, predicted in zip(rows, logits, strict=True)
            for span in scored(row, first, predicted, self.prompts.stop_ids)
        ]

    def next_logs(self, ids: Sequence[int]) -> Logits:
        """The log probabilities [n, vocabulary] of the token after each of `ids`, which stand
        behind the prefix, by the bare model.
        """
        every = np.arange(len(ids))
        cache = self.layout.cache([[]])
        bare = self.adapter("bare")
        return log_softmax(self.network.logits(np.array([ids]), cache, bare, every)[0])

    def _open(self, prompt: Prompt, max_tokens: int) -> tuple[OpenPrompt, Cache]:
        """Read everything before the question; returns the cache too."""
        ids = self.prompts.question_ids(prompt.question, prompt.history)
        text = [i for passage in prompt.texts for i in self.prompts.passage_ids(passage)]
        self._check_length(prompt, len(text) + len(ids) + max_tokens)
        began = time.perf_counter()
        cache = self.layout.cache([prompt.memories], NON_BEST_BIAS)
        load_ms = 1000 * (time.perf_counter() - began)
        self._read_text(text, cache)
        return self._opened(ids, cache, "reader", len(text), load_ms), cache

    def _read_text(self, ids: list[int], cache: Cache) -> None:
        """Let the cache take the tokens of passages in, read as memories are made."""
        for start in range(0, len(ids), CHUNK):
            self._read(ids[start : start + CHUNK], cache, "encoder")

    def _opened(
        self, ids: list[int], cache: Cache, adapter: str, before: int = 0, load_ms: float = 0.0
    ) -> OpenPrompt:
        return OpenPrompt(ids, lambda more: self._read(more, cache, adapter), before, load_ms)

    def _read(self, ids: list[int], cache: Cache, adapter: str) -> Logits:
        """The logits [vocabulary] of the token after `ids`, which the cache takes in."""
        tokens: NDArray[np.int64] = np.array([ids])
        last = np.array([len(ids) - 1])
        row: Logits = self.network.logits(tokens, cache, self.adapter(adapter), last)[0, 0]
        return row

    def _check_length(self, prompt: Prompt, tokens: int) -> None:
        limit = self.layout.shape.context
        total = self.layout.prefix.length + sum(m.tokens for m in prompt.memories) + tokens
        if total > limit:
            raise InvalidInput(
                f"the question and its passages need {total} tokens, the model's context holds"
                f" {limit}; ask with a smaller k, or with budget="
            )
