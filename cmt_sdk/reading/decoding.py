"""Greedy decoding: logits become pieces of an answer, with its confidence and its costs. Knows no
model.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from cmt_sdk.reading.copying import Copying
from cmt_sdk.text.prompt_messages import UNKNOWN
from cmt_sdk.text.prompt_tokens import Prompts
from cmt_sdk.types import CopiedTexts, Piece, Usage

Logits: TypeAlias = NDArray[np.float32]


@dataclass(frozen=True)
class OpenPrompt:
    """A prompt whose notes are read, and whose question is not yet.

    Attributes:
        ids: Token ids of the question.
        read: Reads tokens; returns the logits [vocabulary] of the token after them.
        tokens_before: Tokens that the model processed before the question, for the usage.
        load_ms: Time that laying out the memories took.
    """

    ids: list[int]
    read: Callable[[list[int]], Logits]
    tokens_before: int = 0
    load_ms: float = 0.0


def decode(
    prompts: Prompts,
    prompt: OpenPrompt,
    max_tokens: int,
    began: float,
    copied: CopiedTexts | None = None,
) -> Iterator[Piece]:
    """Read the question and write the answer, greedily.

    Args:
        prompts: The model's prompts; give the tokenizer and the tokens that end an answer.
        prompt: The prompt before its question.
        max_tokens: The most tokens of the answer.
        began: The time.perf_counter() at which reading the prompt began.
        copied: What the answer is copied from; None for a free answer.

    Yields:
        The answer in pieces; the last piece carries the usage.
    """
    text = DecodedText(prompts.tokenizer)
    confidence = Confidence(prompts.ids(UNKNOWN)[0])
    path = Copying(prompts, copied.texts, copied.margin) if copied else None
    ids = prompt.ids
    first = decoded = time.perf_counter()
    for step in range(max_tokens):
        logits = prompt.read(ids)
        token = int(logits.argmax()) if path is None else path.next(logits)
        confidence.add(logits, token)
        decoded = time.perf_counter()
        if step == 0:
            first = decoded
        if token in prompts.stop_ids:
            break
        ids = [token]
        if piece := text.add(token):
            yield Piece(piece)
    if piece := text.rest():  # an answer may end in the middle of a character
        yield Piece(piece)
    yield Piece(
        "",
        Usage(
            prompt.tokens_before + len(prompt.ids),
            text.count,
            confidence.value,
            prompt.load_ms,
            1000 * (first - began) - prompt.load_ms,
            1000 * (decoded - first),
        ),
    )


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

    def add(self, logits: Logits, token: int) -> None:
        """Count a chosen token; logits [vocabulary]."""
        logs = log_softmax(logits)
        if not self._logs:  # only the first token decides between an answer and "I don't know."
            self._known = 1.0 - math.exp(logs[self._unknown])
        self._logs.append(float(logs[token]))

    @property
    def value(self) -> float:
        """In [0, 1]."""
        mean_log = sum(self._logs) / max(1, len(self._logs))
        return self._known * math.exp(mean_log)


def log_softmax(logits: Logits) -> Logits:
    """Log probabilities of logits [..., vocabulary]."""
    shifted = logits - logits.max(-1, keepdims=True)
    logs: Logits = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    return logs


class DecodedText:
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
