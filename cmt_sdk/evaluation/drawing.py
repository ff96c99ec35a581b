"""Which questions are asked, of which passages: a seeded draw, and passages without the answers.
Knows no memory.
"""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass

from cmt_sdk.errors import InvalidInput
from cmt_sdk.evaluation.metrics import normalize
from cmt_sdk.questions.dataset import Question, QuestionedPassage

PREFIX = "passage-"


@dataclass(frozen=True, slots=True)
class Item:
    """A question, the name of its passage, and that of a passage without the answer."""

    question: Question
    source: str
    other: str = ""


def source_of(context: str) -> str:
    """The name under which a passage is remembered.

    It is the same in every run, so that a memory can be used again.
    """
    return PREFIX + hashlib.sha256(context.encode()).hexdigest()[:16]


def draw(
    bank: Sequence[QuestionedPassage], limit: int | None, seed: int, *, with_other: bool
) -> list[Item]:
    """The questions of a seeded draw, in the order of the file.

    Args:
        bank: The passages with their questions.
        limit: The number of questions; None for all.
        seed: Draws them.
        with_other: Whether each gets a passage without its answer.

    Raises:
        InvalidInput: Every other passage holds an answer to a question.
    """
    items = []
    for number, passage in enumerate(bank):
        own = source_of(passage.context)
        for question in passage.questions:
            other = ""
            if with_other:
                other = source_of(_passage_without(bank, number, question).context)
            items.append(Item(question, own, other))
    chosen = list(range(len(items)))
    random.Random(seed).shuffle(chosen)  # noqa: S311 - a reproducible draw, no secret
    return [items[i] for i in sorted(chosen[:limit])]


def _passage_without(
    bank: Sequence[QuestionedPassage], number: int, question: Question
) -> QuestionedPassage:
    """The next passage that lacks all accepted answers' words, of the same title if there is one.

    Args:
        bank: All passages.
        number: The index of the question's own.
        question: The question.

    Raises:
        InvalidInput: Every other passage holds an answer.
    """
    # SQuAD accepts "." once, of which nothing is left.
    patterns = [_pattern(words) for answer in question.answers if (words := normalize(answer))]
    following = [*bank[number + 1 :], *bank[:number]]
    without = [
        p
        for p in following
        if not any(h.search(f"{p.context.lower()}\n{normalize(p.context)}") for h in patterns)
    ]
    if not without:
        raise InvalidInput(
            f"every other passage holds an answer to {question.text!r}: give more passages for"
            " abstention"
        )
    return next((p for p in without if p.title == bank[number].title), without[0])


def _pattern(words: str) -> re.Pattern[str]:
    """A pattern that finds words as complete ones, also in quotes or before "'s".

    Words of a script that may be written without spaces count anywhere.
    """
    return re.compile(rf"(?<!\w){re.escape(words)}(?!\w)" if words.isascii() else re.escape(words))
