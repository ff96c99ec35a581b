"""Plain text to questions that it answers itself: gaps to fill, and continuations.

For users without questions: a compressor adapts to their own texts by predicting parts of them.
Knows no torch and no model.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from cmt_sdk.converting import read_documents
from cmt_sdk.errors import InvalidInput
from cmt_sdk.questions.dataset import Question, QuestionedPassage, read_lines
from cmt_sdk.text.splitting import Rules, rules_for, split

PASSAGE_TOKENS = 180
GAPS = 4
CONTINUATIONS = 2
AROUND = 9  # words shown on each side of a gap, and before a continuation
ANSWER = 4  # words in a gap, at most
FOLLOWING = 12  # words of a continuation
MIN_WORDS = 20  # of a passage that gets questions
# names and numbers: people ask for these
NAME = re.compile(r"\b[A-Z][\w'-]+(?: [A-Z][\w'-]+)*|\b\d[\d.,:%]*")

Count = Callable[[Sequence[str]], list[int]]


def read_texts(path: Path, count_tokens: Count, seed: int = 0) -> list[QuestionedPassage]:
    """Passages of all readable files of a folder, or of one file, each with questions made of it.

    Args:
        path: A file or a folder. JSON lines (.jsonl, .jsonl.gz) are {"title", "text"}, title
            optional.
        count_tokens: Counts the tokens of texts.
        seed: Draws the questions.

    Raises:
        InvalidInput: No passage has `MIN_WORDS` words.
    """
    rng = random.Random(seed)  # noqa: S311 - a reproducible draw, no secret
    found = [
        p
        for title, text, source in _documents(path)
        for p in questioned(title, text, count_tokens, rng, rules_for(source))
    ]
    if not found:
        raise InvalidInput(
            f"{path}: there is no passage of at least {MIN_WORDS} words in it to learn from"
        )
    return found


def _documents(path: Path) -> Iterator[tuple[str, str, str]]:
    """Title, text and source of each document; a row of JSON lines has no source of its own."""
    if ".jsonl" in path.suffixes:
        yield from (
            (str(row.get("title") or ""), str(row.get("text") or ""), "")
            for row in read_lines(path)
        )
    else:
        yield from (
            (Path(d.source or "").stem, d.text, d.source or "") for d in read_documents([path])
        )


def questioned(
    title: str, text: str, count_tokens: Count, rng: random.Random, rules: Rules | None = None
) -> Iterator[QuestionedPassage]:
    """The passages of one text, split by the rules of its format, with gaps and continuations.

    Args:
        title: The title of the text.
        text: The text.
        count_tokens: Counts the tokens of texts.
        rng: Draws the questions.
        rules: How the text is split; Markdown's if left out.

    Yields:
        Each passage of at least `MIN_WORDS` words.
    """
    for span in split(text, count_tokens, PASSAGE_TOKENS, rules=rules or rules_for(None)):
        context = text[span.start : span.end]
        words = context.split()
        if len(words) >= MIN_WORDS:
            asked = [*_gaps(words, rng), *_continuations(words, rng)]
            yield QuestionedPassage(title, context, tuple(asked))


def _gaps(words: Sequence[str], rng: random.Random) -> Iterator[Question]:
    """Sentences with a gap: first names and numbers, then random words."""
    for start, end in _gap_spans(words, rng):
        before = words[max(0, start - AROUND) : start]
        after = words[end : end + AROUND]
        text = " ".join([*before, "____", *after])
        yield Question(f'Which words are missing? "{text}"', (_bare(" ".join(words[start:end])),))


def _gap_spans(words: Sequence[str], rng: random.Random) -> list[tuple[int, int]]:
    """The first word of each gap, and the one after its last: GAPS gaps, names first."""
    # Never the first word: a capital does not make it a name.
    names = [i for i in range(1, len(words)) if NAME.match(words[i])]
    drawn = rng.sample(names, min(GAPS, len(names)))
    rest = [i for i in range(1, len(words)) if i not in drawn]
    drawn += rng.sample(rest, max(0, min(GAPS - len(drawn), len(rest))))
    spans = []
    for start in drawn:
        length = 1 if start in names else rng.randint(1, ANSWER)
        spans.append((start, min(len(words), start + length)))
    return spans


def _continuations(words: Sequence[str], rng: random.Random) -> Iterator[Question]:
    """A few words of the passage, with the question how it continues."""
    for start in rng.sample(range(len(words) - 2 * AROUND), CONTINUATIONS):
        middle = start + AROUND  # the answer begins here
        text = " ".join(words[start:middle])
        yield Question(
            f'How do the notes go on after "{text}"?',
            (" ".join(words[middle : middle + FOLLOWING]),),
        )


def _bare(text: str) -> str:
    """The text without the punctuation around it."""
    return text.strip(".,;:!?()[]\"'“”‘’") or text
