"""Question files: JSON lines, gzipped or not, or the public SQuAD v1.1 JSON. Knows the format, not its use."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cmt_sdk.errors import InvalidInput


@dataclass(frozen=True, slots=True)
class Question:
    """One question and its accepted answers."""

    text: str
    answers: tuple[str, ...]
    id: str = ""


@dataclass(frozen=True, slots=True)
class QuestionedPassage:
    """A passage, its title, and the questions that it answers."""

    title: str
    context: str
    questions: tuple[Question, ...]


def read_lines(path: Path) -> Iterator[dict[str, object]]:
    """The objects of a JSON-lines file (.gz: gzipped). InvalidInput names the file and the line."""
    return (row for _, row in _numbered(path))


def read_passages(path: Path) -> list[QuestionedPassage]:
    """The passages of a question file, in file order, each with all of its questions.

    A line is {"id", "title", "context", "question", "answers": [...]}; id and title may be missing. A .json file is
    read as SQuAD v1.1. Raises InvalidInput.
    """
    found: dict[str, tuple[str, list[Question]]] = {}
    for where, row in _squad(path) if path.suffix == ".json" else _numbered(path):
        context, text, answers = _checked(row, where)
        question = Question(text, answers, str(row.get("id") or ""))
        found.setdefault(context, (str(row.get("title") or ""), []))[1].append(question)
    if not found:
        raise InvalidInput(f"{path}: there is no question in it")
    return [QuestionedPassage(title.replace("_", " "), c, tuple(qs)) for c, (title, qs) in found.items()]


def _checked(row: Mapping[str, object], where: str) -> tuple[str, str, tuple[str, ...]]:
    """The context, the question and the answers of one row."""
    context, question, answers = (row.get(name) for name in ("context", "question", "answers"))
    for name, value in (("context", context), ("question", question)):
        if not isinstance(value, str) or not value.strip():
            raise InvalidInput(f"{where}: {name!r} is {_short(value)}; it must be a text")
    if not isinstance(answers, list) or not answers or not all(isinstance(a, str) for a in answers):
        raise InvalidInput(f"{where}: 'answers' is {_short(answers)}; it must be a list with at least one text")
    return str(context), str(question), tuple(answers)


def _short(value: object) -> str:
    return "missing" if value is None else repr(value)[:40]


def _numbered(path: Path) -> Iterator[tuple[str, dict[str, object]]]:
    """The objects of a JSON-lines file, each with its place in words; blank lines are passed over."""
    with _readable(path), (gzip.open if path.suffix == ".gz" else open)(path, "rt", encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                where = f"{path}, line {number}"
                yield where, _object(line, where)


def _object(line: str, where: str) -> dict[str, object]:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise InvalidInput(f"{where}: not JSON ({error})") from error
    if not isinstance(row, dict):
        raise InvalidInput(f"{where}: a JSON object is expected, not {_short(row)}")
    return row


def _squad(path: Path) -> Iterator[tuple[str, dict[str, object]]]:
    """The questions of a file such as dev-v1.1.json as rows of our own format."""
    with _readable(path):
        whole: Any = _object(path.read_text(encoding="utf-8"), str(path))
    try:
        for article in whole["data"]:
            for paragraph in article["paragraphs"]:
                for asked in paragraph["qas"]:
                    row = {"id": asked["id"], "title": article["title"], "context": paragraph["context"]}
                    row |= {"question": asked["question"], "answers": [a["text"] for a in asked["answers"]]}
                    yield f"{path}, question {asked['id']}", row
    except (KeyError, TypeError) as error:
        raise InvalidInput(f"{path}: not SQuAD v1.1 JSON: {error!r}") from error


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except (gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise InvalidInput(f"{path}: not a gzip file, or not all of one ({error})") from error
    except UnicodeDecodeError as error:
        raise InvalidInput(f"{path}: not UTF-8 text ({error})") from error
    except OSError as error:
        raise InvalidInput(f"{path}: cannot be read ({error.strerror})") from error
