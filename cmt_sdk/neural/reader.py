"""Greedy reading: a prompt with memories, text or nothing before the question becomes an answer.
Pure tensor code.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from cmt_sdk.errors import InvalidInput
from cmt_sdk.neural.answer_spans import MAX_TOKENS, span_likelihoods
from cmt_sdk.neural.cache import MemoryCache
from cmt_sdk.neural.frozen import FrozenModel
from cmt_sdk.neural.methods.base import NON_BEST_BIAS, CompressionMethod
from cmt_sdk.neural.scoring import question_likelihoods
from cmt_sdk.text.prompting import UNKNOWN
from cmt_sdk.types import AnswerSpan, CompressedPassage, Piece, Prompt, Usage


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
        yield from self.decode(reading, max_tokens, began)

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
        text = [i for passage in prompt.passages for i in self.lm.passage_ids(passage)]
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

    def decode(self, reading: Reading, max_tokens: int, began: float) -> Iterator[Piece]:
        """Read the question and write the answer, greedily.

        Args:
            reading: The prompt before its question.
            max_tokens: The most tokens of the answer.
            began: The time.perf_counter() at which reading the prompt began.

        Yields:
            The answer in pieces; the last piece carries the usage.
        """
        text = _DecodedText(self.lm.tokenizer)
        confidence = Confidence(self.lm.ids(UNKNOWN)[0])
        ids = reading.ids
        position = reading.position
        first = decoded = time.perf_counter()
        for step in range(max_tokens):
            # Switched at every step: between two pieces the caller may use the model, and must find
            # the bare base.
            with torch.inference_mode(), self.lm.activate(reading.adapter):
                logits = self._next_logits(reading, ids, position)  # (vocabulary,)
                token = int(logits.argmax())
                confidence.add(logits, token)
            position += len(ids)  # the question's tokens in the first step, then one at a time
            decoded = time.perf_counter()
            if step == 0:
                first = decoded
            if token in self.lm.stop_ids:
                break
            ids = [token]
            if piece := text.add(token):
                yield Piece(piece)
        if piece := text.rest():  # an answer may end in the middle of a character
            yield Piece(piece)
        prompt_tokens = reading.tokens_before + len(reading.ids)
        prefill_ms = 1000 * (first - began) - reading.load_ms
        decode_ms = 1000 * (decoded - first)
        usage = Usage(
            prompt_tokens, text.count, confidence.value, reading.load_ms, prefill_ms, decode_ms
        )
        yield Piece("", usage)


class Confidence:
    """The probability that the reader knows the answer at all, times the geometric mean of the
    probabilities of the tokens that it chose.

    Args:
        unknown: The first token of the answer "I don't know."
    """

    def __init__(self, unknown: int) -> None:
        self._unknown = unknown
        self._known = 1.0
        self._logs: list[float] = []

    def add(self, logits: Tensor, token: int) -> None:
        """Count a chosen token; logits [vocabulary]."""
        logs = logits.log_softmax(-1)
        if not self._logs:  # only the first token decides between an answer and "I don't know."
            self._known = 1.0 - float(logs[self._unknown].exp())
        self._logs.append(float(logs[token]))

    @property
    def value(self) -> float:
        """In [0, 1]."""
        mean_log = sum(self._logs) / max(1, len(self._logs))
        return self._known * math.exp(mean_log)


class _DecodedText:
    """Tokens to text, piece by piece: a character of several tokens comes once it is complete."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._ids: list[int] = []
        self._shown = 0  # characters that were returned

    @property
    def count(self) -> int:
        """The number of tokens."""
        return len(self._ids)

    def add(self, token: int) -> str:
        """Take a token; return the characters that are complete now, "" for none."""
        self._ids.append(token)
        # All tokens again: how a token is written depends on those before it.
        text = self._tokenizer.decode(self._ids, skip_special_tokens=True)
        # U+FFFD stands for bytes that are no character yet.
        return "" if text.endswith("\ufffd") else self._unshown(text)

    def rest(self) -> str:
        """The characters that `add` has not returned."""
        return self._unshown(self._tokenizer.decode(self._ids, skip_special_tokens=True))

    def _unshown(self, text: str) -> str:
        new = text[self._shown :]
        self._shown = len(text)
        return str(new)
