"""Greedy reading: a prompt with memories, text or nothing before the question becomes an answer.
Pure tensor code.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from cmt_sdk.errors import InvalidInput
from cmt_sdk.neural.answer_spans import span_likelihoods
from cmt_sdk.neural.cache import MemoryCache
from cmt_sdk.neural.frozen import FrozenModel
from cmt_sdk.neural.methods.base import CompressionMethod
from cmt_sdk.neural.scoring import question_likelihoods
from cmt_sdk.reading.decoding import Logits, OpenPrompt, decode
from cmt_sdk.reading.limits import NON_BEST_BIAS
from cmt_sdk.reading.spans import MAX_TOKENS
from cmt_sdk.types import AnswerSpan, CompressedPassage, Piece, Prompt


@dataclass
class Reading:
    """The state of a prompt before its question is read.

    Attributes:
        adapter: The adapter that is on while question and answer are read.
        ids: Token ids of the question.
        position: Of the question's first token.
        cache: MemoryCache, or transformers' cache for text and bare prompts.
        tokens_before: Tokens that the model processed before the question, for the usage.
        load_ms: Time that laying out the memories took.
    """

    adapter: str
    ids: list[int]
    position: int
    cache: Any
    tokens_before: int = 0
    load_ms: float = 0.0


@dataclass(frozen=True)
class TorchReader:
    """The port Reader for one model and one compression method, by torch.

    Attributes:
        lm: The frozen model.
        method: Lays the memories of a prompt out.
    """

    lm: FrozenModel
    method: CompressionMethod

    def read(self, prompt: Prompt, max_tokens: int) -> Iterator[Piece]:
        """Read a prompt and write the answer, greedily.

        Args:
            prompt: The question, and what to read before it.
            max_tokens: The most tokens of the answer.

        Yields:
            The answer in pieces; the last piece carries the usage.

        Raises:
            InvalidInput: The prompt is longer than the model's context.
        """
        began = time.perf_counter()
        if prompt.notes:
            reading = self._read_notes(prompt, max_tokens)
        else:
            to_ids = self.lm.talk_ids if prompt.talk else self.lm.bare_ids
            reading = Reading("bare", to_ids(prompt.question, prompt.history), 0, DynamicCache())
        opened = self.open_prompt(reading)
        yield from decode(self.lm, opened, max_tokens, began, prompt.copied)

    def uncompressed(self, texts: Sequence[str]) -> list[CompressedPassage]:
        """See ports.Engine.

        Raises:
            InvalidInput: Together they are longer than the model's context.
        """
        tokens = sum(len(self.lm.passage_ids(text)) for text in texts)
        self._check_length(Prompt(""), tokens, in_window=True)
        return self.method.uncompressed(texts)

    def word_likelihoods(
        self, question: str, memories: Sequence[CompressedPassage]
    ) -> list[list[float]]:
        """The log probability of each token of the question after each memory alone, in nats.

        Returns:
            One list per memory, all of one length.
        """
        return question_likelihoods(self.method, memories, question)

    def answer_spans(
        self, prompt: Prompt, text: str, words: Sequence[tuple[int, int]]
    ) -> list[AnswerSpan]:
        """The spans of a text, a few words each, as answers to a prompt with notes.

        Args:
            prompt: The question, and what to read before it.
            text: The text that holds the answer.
            words: The first character of each word of the text, and the one after its last.

        Returns:
            Each span with its log probability as the complete answer.

        Raises:
            InvalidInput: The prompt is longer than the model's context, or than the window of some
                layers.
        """
        reading = self._read_notes(prompt, MAX_TOKENS, branches=True)
        position = reading.position + len(reading.ids)
        with torch.inference_mode(), self.lm.activate(reading.adapter):
            logits = self._next_logits(reading, reading.ids, reading.position)
            return span_likelihoods(self.lm, reading.cache, position, logits, text, words)

    def _next_logits(self, reading: Reading, ids: list[int], position: int) -> Tensor:
        """The logits [vocabulary] of the token after `ids`, which the cache takes in."""
        if isinstance(reading.cache, MemoryCache):  # it knows its positions
            inputs = reading.cache.inputs(torch.tensor([ids], device=self.lm.device))
        else:
            inputs = self._inputs(ids, position)
        states = self.lm.forward(reading.cache, **inputs)  # (1, m, d)
        return self.lm.logits(states[0, -1:])[0]

    def _read_notes(self, prompt: Prompt, max_tokens: int, *, branches: bool = False) -> Reading:
        """Read everything before the question: text, or the memories' entries.

        Args:
            prompt: The question, and what to read before it.
            max_tokens: The most tokens of the answer.
            branches: Whether a text's cache becomes a MemoryCache after the question.
        """
        ids = self.lm.question_ids(prompt.question, prompt.history)
        text = [i for passage in prompt.texts for i in self.lm.passage_ids(passage)]
        room = len(ids) + max_tokens
        self._check_length(prompt, len(text) + room, in_window=branches or not text)
        if text:
            return self._read_text(text, ids)
        began = time.perf_counter()
        memories = self.method.cache(
            [prompt.memories], question=prompt.question, room=room, bias=NON_BEST_BIAS
        )
        load_ms = 1000 * (time.perf_counter() - began)
        return Reading(
            self.method.adapter, ids, memories.starts[0], memories, memories.tokens_read, load_ms
        )

    def _read_text(self, text: list[int], ids: list[int]) -> Reading:
        """Read the passages' tokens as memories are made, with the encoder on.

        Args:
            text: Token ids of the passages.
            ids: Token ids of the question.
        """
        cache = self.lm.prefix_cache(1)
        start = len(self.lm.prefix_ids)
        with torch.inference_mode(), self.lm.activate("encoder"):
            self.lm.forward(cache, **self._inputs(text, start))
        return Reading("reader", ids, start + len(text), cache, tokens_before=len(text))

    def _check_length(self, prompt: Prompt, tokens: int, *, in_window: bool) -> None:
        """Raise InvalidInput where prefix, memories and `tokens` more exceed a limit.

        Args:
            prompt: Its memories are counted.
            tokens: Further tokens: text, question and answer.
            in_window: Whether they must fit into the smallest window: a MemoryCache is read by all
                layers alike.
        """
        limits = [(self.lm.context, "context")]
        if in_window:
            limits.append((self.lm.window, "window"))
        positions = self.method.positions(prompt.memories)
        total = len(self.lm.prefix_ids) + positions + tokens
        known = [(limit, name) for limit, name in limits if limit is not None]
        limit, name = min(known, default=(None, ""))
        if limit is not None and total > limit:
            raise InvalidInput(
                f"the question and its passages need {total} tokens, the model's {name} holds"
                f" {limit}; ask with a smaller k, or with budget="
            )

    def _inputs(self, ids: list[int], position: int) -> dict[str, Any]:
        """Arguments of a forward pass over `ids` from a position on, without memories."""
        positions = torch.arange(position, position + len(ids), device=self.lm.device)[None]
        return {"input_ids": torch.tensor([ids], device=self.lm.device), "position_ids": positions}

    def open_prompt(self, reading: Reading) -> OpenPrompt:
        """A prompt whose notes are read, for greedy decoding."""
        position = reading.position

        def read(ids: list[int]) -> Logits:
            nonlocal position
            # Switched at every step: between two pieces the caller may use the model, and must find
            # the bare base.
            with torch.inference_mode(), self.lm.activate(reading.adapter):
                logits = self._next_logits(reading, ids, position)  # (vocabulary,)
            position += len(ids)
            return logits.cpu().numpy()

        return OpenPrompt(reading.ids, read, reading.tokens_before, reading.load_ms)
