"""Greedy reading: a prompt, with memories, text or nothing before the question, becomes an answer.
Pure tensor code.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from cmt_sdk.errors import InvalidInput
from cmt_sdk.neural.aggregation import Aggregation
from cmt_sdk.neural.frozen import FrozenModel
from cmt_sdk.neural.likelihood import likelihoods, soft_likelihoods
from cmt_sdk.neural.reading import PRIOR, causal, place
from cmt_sdk.neural.rotary import Rotary
from cmt_sdk.neural.soft import notes_of as soft_notes_of
from cmt_sdk.neural.soft import unpacked
from cmt_sdk.prompting import UNKNOWN
from cmt_sdk.types import PackedMemory, Piece, Prompt, Usage


@dataclass
class _Start:
    """A cache, the prompt ids still to be read, and what the model calls have in common."""

    notes: bool
    ids: list[int]
    position: int
    cache: Any
    extra: dict[str, Any]
    tokens_before: int
    load_ms: float


@dataclass(frozen=True)
class Generator:
    """The reader. The "reader" adapter is on exactly while the question and answer of a prompt with
    notes are read.
    """

    lm: FrozenModel
    rotary: Rotary | None
    aggregation: Aggregation | None = None

    def read(self, prompt: Prompt, max_tokens: int) -> Iterator[Piece]:
        """The answer in pieces; the last piece carries the usage. Raises InvalidInput for a prompt
        over the context.
        """
        began = time.perf_counter()
        start = self._start(prompt, max_tokens)
        yield from self._decode(start, max_tokens, began)

    def word_likelihoods(
        self, question: str, memories: Sequence[PackedMemory]
    ) -> list[list[float]]:
        """How much each memory makes the model expect the question: the log probability of each of
        its tokens, in nats.

        A row for each memory, all of one length.
        """
        if not memories:
            return []
        if self.rotary is None:
            return soft_likelihoods(self.lm, memories, question)
        return likelihoods(self.lm, self.rotary, memories, question)

    def _start(self, prompt: Prompt, max_tokens: int) -> _Start:
        if not prompt.notes:
            made = self.lm.talk_ids if prompt.talk else self.lm.bare_ids
            ids = made(prompt.question, prompt.history)
            return _Start(False, ids, 0, DynamicCache(), {}, 0, 0.0)
        ids = self.lm.question_ids(prompt.question, prompt.history)
        if prompt.memories and self.aggregation:
            return self._start_aggregated(prompt, ids, self.aggregation)
        self._check_length(prompt, len(ids) + max_tokens)
        if prompt.passages:
            return self._start_text(prompt, ids)
        if prompt.memories and prompt.memories[0].kind == "soft":
            return self._start_soft(prompt, ids, len(ids) + max_tokens)
        began = time.perf_counter()
        prefix = place(self.lm, self.rotary, prompt.memories, len(ids) + max_tokens, PRIOR)  # type: ignore[arg-type]
        load = 1000 * (time.perf_counter() - began)
        return _Start(True, ids, prefix.position, prefix, {"notes": prefix}, 0, load)

    def _start_text(self, prompt: Prompt, ids: list[int]) -> _Start:
        """Read the passages' text as memories are made, with the encoder on; the reader is on from
        the question on.
        """
        text = [i for passage in prompt.passages for i in self.lm.passage_ids(passage)]
        cache, head = self.lm.head_cache(1), len(self.lm.head_ids)
        with torch.inference_mode(), self.lm.activate("encoder"):
            self.lm.states(cache, **self._inputs(text, head))
        return _Start(True, ids, head + len(text), cache, {}, len(text), 0.0)

    def _start_soft(self, prompt: Prompt, ids: list[int], room: int) -> _Start:
        """Read soft tokens with the encoder on, from the layer on that they come from; then as
        other notes are read.
        """
        began = time.perf_counter()
        softs = unpacked(prompt.memories, self.lm)
        load = 1000 * (time.perf_counter() - began)
        with torch.inference_mode(), self.lm.activate("encoder"):
            prefix = soft_notes_of(self.lm, [softs], PRIOR).prefix(room)
        return _Start(
            True,
            ids,
            prefix.position,
            prefix,
            {"notes": prefix},
            sum(len(s.ends) for s in softs),
            load,
        )

    def _start_aggregated(self, prompt: Prompt, ids: list[int], aggregation: Aggregation) -> _Start:
        """Read the question, by the bare model, after the prefix that all memories become
        together.
        """
        began = time.perf_counter()
        cache, head = self.lm.head_cache(1), len(self.lm.head_ids)
        keys, values = aggregation.prefix(
            self.lm, unpacked(prompt.memories, self.lm), prompt.question
        )
        for layer in range(len(keys)):
            cache.update(
                keys[layer][None].to(self.lm.dtype), values[layer][None].to(self.lm.dtype), layer
            )
        load = 1000 * (time.perf_counter() - began)
        return _Start(False, ids, head + keys.shape[2], cache, {}, keys.shape[2], load)

    def _check_length(self, prompt: Prompt, room: int) -> None:
        limits = [(self.lm.context, "context")]
        if prompt.memories:
            limits.append((self.lm.window, "window"))
        limit, what = min(((n, what) for n, what in limits if n is not None), default=(None, ""))
        notes = sum(m.tokens for m in prompt.memories) + sum(
            len(self.lm.passage_ids(p)) for p in prompt.passages
        )
        total = len(self.lm.head_ids) + notes + room
        if limit is not None and total > limit:
            raise InvalidInput(
                f"the question and its passages need {total} tokens, the model's {what} holds"
                f" {limit}; ask with a smaller k, or with budget="
            )

    def _inputs(self, ids: list[int], position: int) -> dict[str, Any]:
        positions = torch.arange(position, position + len(ids), device=self.lm.device)[None]
        return {"input_ids": torch.tensor([ids], device=self.lm.device), "position_ids": positions}

    def _decode(self, start: _Start, max_tokens: int, began: float) -> Iterator[Piece]:
        text = _Text(self.lm.tokenizer)
        ids, position, cache, sureness = (
            start.ids,
            start.position,
            start.cache,
            _Sureness(self.lm.ids(UNKNOWN)[0]),
        )
        first = decoded = time.perf_counter()
        for step in range(max_tokens):
            # switched at every step: between two pieces the model is the bare base again, for
            # whoever else uses it
            adapter = self.lm.activate("reader") if start.notes else nullcontext()
            with torch.inference_mode(), adapter:
                inputs = self._inputs(ids, position) | start.extra
                if "notes" in inputs:
                    inputs["attention_mask"] = causal(len(ids), inputs["notes"].bias[0])
                states = self.lm.states(cache, **inputs)
                logits = self.lm.logits(states[0, -1:])[0]
                token = int(logits.argmax())
                sureness.add(logits, token)
            position += len(ids)
            decoded = time.perf_counter()
            if step == 0:
                first = decoded
            if token in self.lm.stop_ids:
                break
            ids = [token]
            if piece := text.add(token):
                yield Piece(piece)
        if piece := text.rest():
            yield Piece(piece)
        prompt_tokens = start.tokens_before + len(start.ids)
        prefill = 1000 * (first - began) - start.load_ms
        yield Piece(
            "",
            Usage(
                prompt_tokens,
                text.count,
                sureness.confidence,
                start.load_ms,
                prefill,
                1000 * (decoded - first),
            ),
        )


class _Sureness:
    """How sure the reader was: that it knows at all, and, as a geometric mean, of each token that
    it chose.
    """

    def __init__(self, unknown: int) -> None:
        self._unknown = unknown
        self._known = 1.0
        self._logs: list[float] = []

    def add(self, logits: Tensor, token: int) -> None:
        logs = logits.log_softmax(-1)
        if not self._logs:  # as the words for not knowing begin
            self._known = 1.0 - float(logs[self._unknown].exp())
        self._logs.append(float(logs[token]))

    @property
    def confidence(self) -> float:
        return self._known * math.exp(sum(self._logs) / max(1, len(self._logs)))


class _Text:
    """Tokens to text, piece by piece: a character of several tokens comes when it is whole."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._ids: list[int] = []
        self._shown = 0

    @property
    def count(self) -> int:
        return len(self._ids)

    def add(self, token: int) -> str:
        self._ids.append(token)
        text = self._tokenizer.decode(self._ids, skip_special_tokens=True)
        return "" if text.endswith("\ufffd") else self._new(text)

    def rest(self) -> str:
        return self._new(self._tokenizer.decode(self._ids, skip_special_tokens=True))

    def _new(self, text: str) -> str:
        new, self._shown = text[self._shown :], len(text)
        return str(new)
