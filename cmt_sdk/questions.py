"""Question files: our own JSON lines, and SQuAD, StreamingQA and ArchivalQA as they are published. Knows formats, not their use.

StreamingQA (Liška et al. 2022) and ArchivalQA (Wang et al. 2022) name their passages by a key, because the news texts have
licences of their own: these come from a second file. The tables that the code of CaMeLS and MAC makes hold them already.
"""

from __future__ import annotations

import csv
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


def read_passages(path: Path, documents: Path | None = None) -> list[QuestionedPassage]:
    """The passages of a question file, in file order, each with all of its questions.

    A line is {"id", "title", "context", "question", "answers": [...]}; id and title may be missing. A .json file is SQuAD, a
    .csv file a table with such columns. Rows that name their passage by a key (`evidence_id` in StreamingQA, `para_id` in
    ArchivalQA) find it in `documents`: JSON lines with that key as `sorting_key`, `para_id` or `id`, and the `text`.
    Raises InvalidInput.
    """
    rows = list(_rows(path))
    texts = _texts(documents, {key for _, row in rows if (key := _key(row))}) if documents else {}
    found: dict[str, tuple[str, list[Question]]] = {}
    for where, row in rows:
        context, text, answers = _checked(_named_as_ours(row, texts, where, documents), where)
        question = Question(text, answers, str(row.get("id") or row.get("qa_id") or ""))
        found.setdefault(context, (str(row.get("title") or ""), []))[1].append(question)
    if not found:
        raise InvalidInput(f"{path}: there is no question in it")
    return [QuestionedPassage(title.replace("_", " "), c, tuple(qs)) for c, (title, qs) in found.items()]


def _rows(path: Path) -> Iterator[tuple[str, dict[str, object]]]:
    """The rows of a file, by its suffix, each with its place in words."""
    suffixes = [s for s in path.suffixes if s != ".gz"]
    if suffixes[-1:] == [".json"]:
        return _squad(path)
    return _table(path) if suffixes[-1:] == [".csv"] else _numbered(path)


def _key(row: Mapping[str, object]) -> str:
    """The key of the passage that a row is about, where it has one instead of the passage."""
    return "" if _context(row) else str(row.get("evidence_id") or row.get("para_id") or "")


def _context(row: Mapping[str, object]) -> object:
    """The passage in a row: ours and SQuAD's `context`, or `ans_paragraph` and `text` of the tables made by CaMeLS."""
    return row.get("context") or row.get("ans_paragraph") or row.get("text")


def _named_as_ours(row: Mapping[str, object], texts: Mapping[str, str], where: str, documents: Path | None) -> dict[str, object]:
    """A row with `context` and `answers`. Raises InvalidInput where its passage is not there."""
    context, key = _context(row), _key(row)
    if key and key not in texts:
        remedy = f"it is not in {documents}" if documents else "name the file of texts too (`cmt eval FILE --documents TEXTS`)"
        raise InvalidInput(f"{where}: its passage has the key {key!r}: {remedy}")
    return {**row, "context": texts[key] if key else context}


def _texts(path: Path, wanted: set[str]) -> dict[str, str]:
    """The wanted texts of a file of documents, by their keys; the rest is read past."""
    found = {}
    for row in read_lines(path):
        key = str(row.get("sorting_key") or row.get("para_id") or row.get("id") or "")
        if key in wanted:
            found[key] = str(row.get("text") or "")
    return found


def _table(path: Path) -> Iterator[tuple[str, dict[str, object]]]:
    """The rows of a .csv file under their heads; several answers stand in one cell with a backslash between them."""
    with _readable(path), (gzip.open if path.suffix == ".gz" else open)(path, "rt", encoding="utf-8", newline="") as lines:
        csv.field_size_limit(10_000_000)  # whole articles stand in a cell
        table = csv.DictReader(lines)
        for number, row in enumerate(table, 2):
            cell = row.get("answers") or row.get("answer")
            yield f"{path}, row {number}", {**row, "answers": cell.split("\\") if cell else None}


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
    """The questions of a file such as dev-v1.1.json as rows of our own format; unanswerable ones of v2.0 are passed over."""
    with _readable(path):
        whole: Any = _object(path.read_text(encoding="utf-8"), str(path))
    try:
        for article in whole["data"]:
            for paragraph in article["paragraphs"]:
                for asked in paragraph["qas"]:
                    if asked.get("is_impossible"):  # SQuAD v2.0: its passage does not tell, so it has no answer to score by
                        continue
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
