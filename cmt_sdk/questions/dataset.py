"""Passages and the questions about them, from files. Knows what a question must have;
`files` knows the formats.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from cmt_sdk.errors import InvalidInput
from cmt_sdk.questions.files import Row, read_objects, read_rows, read_texts

TEXTS = (
    "StreamingQA's are documents of WMT News Crawl, news-docs.YEAR.en.filtered.gz, several put"
    " into one by `cat`; ArchivalQA's are paragraphs of the New York Times Annotated Corpus, as"
    ' lines {"para_id", "text"}'
)


@dataclass(frozen=True, slots=True)
class Question:
    """One question and its accepted answers."""

    text: str
    answers: tuple[str, ...]
    id: str = ""


@dataclass(frozen=True, slots=True)
class QuestionedPassage:
    """A passage, its title, and the questions that it answers.

    `neighbours` are the passages that are read together with it, where its file says so; the
    questions are about all of them, and this passage fits best. They stand in any order, or, where
    `place` is not None, in the order in which they were stated: `place` of them before it.
    """

    title: str
    context: str
    questions: tuple[Question, ...]
    neighbours: tuple[str, ...] = ()
    place: int | None = None


def read_lines(path: Path) -> Iterator[dict[str, object]]:
    """The objects of a JSON-lines file (.gz: gzipped). InvalidInput names the file and the line."""
    return (row for _, row in read_objects(path))


def read_passages(path: Path, documents: Path | None = None) -> list[QuestionedPassage]:
    """The passages of a question file in the order of their first questions, each with all of its
    questions.

    Our own lines are {"id", "title", "context", "neighbours": [...], "place": 2, "question",
    "answers": [...]}; id, title, neighbours and place may be missing, and neighbours and place
    count in the first line of a passage.
    Public files are read as `files` describes; those that name their passages by keys need
    the file of texts, `documents`. Raises InvalidInput.
    """
    rows = list(read_rows(path))
    texts = _texts(path, rows, documents)
    found: dict[str, tuple[Row, list[Question]]] = {}
    for row in rows:
        context = _text("context", texts[row.key] if row.key else row.context, row.where)
        question = Question(_text("question", row.question, row.where), _answers(row), row.id)
        found.setdefault(context, (row, []))[1].append(question)
    if not found:
        raise InvalidInput(f"{path}: there is no question in it")
    return [
        QuestionedPassage(row.title, context, tuple(questions), _neighbours(row), _place(row))
        for context, (row, questions) in found.items()
    ]


def _texts(path: Path, rows: Sequence[Row], documents: Path | None) -> dict[str, str]:
    """The passages that rows name by keys. Raises InvalidInput where one is not there."""
    wanted: dict[str, str] = {}
    for row in rows:
        if row.key:
            wanted.setdefault(row.key, row.where)
    if not wanted:
        return {}
    if documents is None:
        key, where = next(iter(wanted.items()))
        raise InvalidInput(
            f"{where}: it has no passage, only the key {key!r}; name the file of texts too "
            f"(`cmt eval {path.name} --documents TEXTS`): {TEXTS}"
        )
    texts = read_texts(documents, wanted.keys())
    missing = [key for key in wanted if key not in texts]
    if missing:
        raise InvalidInput(
            f"{documents}: lacks {len(missing)} of the {len(wanted)} passages that {path} asks"
            f" about, such as {missing[0]!r} ({wanted[missing[0]]}); add them, or leave their"
            f" questions out: {TEXTS}"
        )
    return texts


def _text(name: str, value: object, where: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise InvalidInput(f"{where}: {name!r} is {_short(value)}; it must be a text")
    return value


def _neighbours(row: Row) -> tuple[str, ...]:
    """The passages that are read together with a row's own."""
    if not isinstance(row.neighbours, list | tuple):
        raise InvalidInput(
            f"{row.where}: 'neighbours' is {_short(row.neighbours)}; it must be a list"
        )
    return tuple(_text("neighbours", text, row.where) for text in row.neighbours)


def _place(row: Row) -> int | None:
    """How many of the neighbours were stated before a row's passage; None: unknown."""
    place, last = row.place, len(_neighbours(row))
    if place is None or (type(place) is int and 0 <= place <= last):
        return place
    raise InvalidInput(
        f"{row.where}: 'place' is {_short(place)}; it must be a number from 0 to {last}, that of"
        " the neighbours before the passage"
    )


def _answers(row: Row) -> tuple[str, ...]:
    answers = row.answers
    if not isinstance(answers, list) or not answers or not all(isinstance(a, str) for a in answers):
        raise InvalidInput(
            f"{row.where}: 'answers' is {_short(answers)}; it must be a list with at least one text"
        )
    return tuple(answers)


def _short(value: object) -> str:
    return "missing" if value is None else repr(value)[:40]
