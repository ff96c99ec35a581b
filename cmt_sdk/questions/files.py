"""The rows of question files, ours and public ones, and the texts of the files next to them. Knows
formats, not their use.

Read as they are published: SQuAD v1.1 and v2.0 (Rajpurkar et al. 2016, 2018), StreamingQA (Liška et
al. 2022), ArchivalQA (Wang et al. 2022), and the tables of these three that the code of CaMeLS and
of MAC reads. StreamingQA and ArchivalQA name their passages by a key, because the news texts have
licences of their own: a second file holds these.
"""

from __future__ import annotations

import ast
import base64
import csv
import gzip
import hashlib
import json
import re
import zlib
from collections.abc import Callable, Iterator, Mapping, Set
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO, TypeAlias

from cmt_sdk.errors import InvalidInput

# The columns of all formats, the first that a row has. In ArchivalQA's tables by CaMeLS `text` is
# the list of all paragraphs.
CONTEXTS = ("context", "ans_paragraph", "text")
IDS = ("id", "qa_id")
KEYS = ("evidence_id", "para_id")
TEXT_KEYS = ("sorting_key", "para_id", "id")
ARCHIVED = re.compile(r"(\d{8})\t([A-Za-z0-9+/=]*)\t([A-Za-z0-9+/=]+)")
Numbered: TypeAlias = Iterator[tuple[str, dict[str, Any]]]


@dataclass(frozen=True, slots=True)
class Row:
    """A question as its file has it, unchecked; `where` is its place in words, `key` names the
    passage where it is not there.
    """

    where: str
    id: str
    title: str
    question: object
    answers: object
    context: object
    key: str
    neighbours: object = ()
    place: object = None


def read_rows(path: Path) -> Iterator[Row]:
    """The questions of a file, in file order. Raises InvalidInput.

    A question that its passage does not answer is passed over, because there is no answer to score
    by: SQuAD v2.0 marks it with `is_impossible`, or, in rows, with an empty list of texts.
    """
    for where, fields in _reader(path)(path):
        answers = fields.get("answers")
        none = isinstance(answers, dict) and answers.get("text") == []
        if fields.get("is_impossible") is not True and not none:
            yield _row(where, fields)


def read_texts(path: Path, wanted: Set[str]) -> dict[str, str]:
    """The wanted texts by their keys; the rest of the file is read past. Raises InvalidInput.

    JSON lines or a table with `sorting_key`, `para_id` or `id`, and `text`; or the documents of WMT
    News Crawl as published.
    """
    read = _table if _reader(path) is _table else _documents
    found = {}
    for where, fields in read(path):
        key = str(_first(fields, TEXT_KEYS) or "")
        if key in wanted:
            found[key] = (
                _decoded(fields["base64"], where)
                if "base64" in fields
                else str(_first(fields, CONTEXTS) or "")
            )
    return found


def read_objects(path: Path) -> Numbered:
    """The objects of a JSON-lines file, each with its place in words; blank lines are passed over.
    Raises InvalidInput.
    """
    return ((where, _object(line, where)) for where, line in _lines(path))


def _reader(path: Path) -> Callable[[Path], Numbered]:
    """By the suffix before .gz; all other kinds by the names of the columns."""
    suffix = next((s for s in reversed(path.suffixes) if s != ".gz"), "")
    return {".json": _squad, ".csv": _table}.get(suffix, read_objects)


def _row(where: str, fields: Mapping[str, Any]) -> Row:
    context, answers = _first(fields, CONTEXTS), fields.get("answers")
    return Row(
        where=where,
        id=str(_first(fields, IDS) or ""),
        title=str(fields.get("title") or "").replace("_", " "),  # as SQuAD's titles have it
        question=fields.get("question"),
        answers=answers.get("text") if isinstance(answers, dict) else answers,
        context=context,
        key="" if context is not None else str(_first(fields, KEYS) or ""),
        neighbours=fields.get("neighbours", ()),
        place=fields.get("place"),
    )


def _first(fields: Mapping[str, Any], names: tuple[str, ...]) -> object:
    return next((fields[name] for name in names if fields.get(name) is not None), None)


def _squad(path: Path) -> Numbered:
    """The questions of one object such as dev-v1.1.json; a .json file of anything else is read as
    JSON lines.
    """
    with _opened(path) as file:
        text = file.read()
    try:
        whole: Any = json.loads(text)
    except ValueError:
        whole = None
    if not isinstance(whole, dict) or "data" not in whole:
        yield from read_objects(path)
        return
    try:
        for article in whole["data"]:
            for paragraph in article["paragraphs"]:
                for asked in paragraph["qas"]:
                    passage = {"title": article["title"], "context": paragraph["context"]}
                    yield (
                        f"{path}, question {asked['id']}",
                        asked | passage | {"answers": [a["text"] for a in asked["answers"]]},
                    )
    except (KeyError, TypeError) as error:
        raise InvalidInput(f"{path}: has 'data', but not as SQuAD has it: {error!r}") from error


def _table(path: Path) -> Numbered:
    """The rows of a .csv file under their heads, counted as a spreadsheet counts them."""
    csv.field_size_limit(10_000_000)  # whole articles stand in a cell
    with _opened(path) as file:
        try:
            for number, row in enumerate(csv.DictReader(file), 2):
                where = f"{path}, row {number}"
                if None in row or None in row.values():
                    raise InvalidInput(
                        f"{where}: it has more or fewer cells than the first row; put texts with"
                        " commas in quotes"
                    )
                yield where, row | _cell(row, where)
        except csv.Error as error:
            raise InvalidInput(
                f"{path}: not a table of comma-separated values ({error})"
            ) from error


def _cell(row: Mapping[str, str], where: str) -> dict[str, object]:
    """The answers in a row: one in `answer`; in `answers` several between backslashes, or SQuAD's
    as Python prints it.
    """
    several = row.get("answers")
    if several is None:
        return {"answers": [row["answer"]]} if row.get("answer") else {}
    if not several.startswith("{"):
        return {"answers": several.split("\\") if several else None}
    try:
        return {"answers": ast.literal_eval(several)}
    except (ValueError, SyntaxError) as error:
        raise InvalidInput(
            f"{where}: 'answers' begins as {{'text': [...]}}, but does not go on so ({error})"
        ) from error


def _documents(path: Path) -> Numbered:
    """JSON lines, or the lines of news-docs.YEAR.en.filtered.gz: date, text by sentences, raw text,
    both in base64.

    The sorting key, by which StreamingQA names a document, is its date and the SHA-256 of the raw
    text's base64.
    """
    for where, line in _lines(path):
        if not (found := ARCHIVED.fullmatch(line.strip())):
            yield where, _object(line, where)
            continue
        date, sentences, raw = found.groups()
        key = f"{date}{0:012}\0\1{hashlib.sha256(raw.encode()).hexdigest()}\0\1"
        yield where, {"sorting_key": key, "base64": sentences}


def _decoded(sentences: str, where: str) -> str:
    try:
        return base64.b64decode(sentences, validate=True).decode()
    except ValueError as error:
        raise InvalidInput(f"{where}: its text is not base64 of UTF-8 ({error})") from error


def _lines(path: Path) -> Iterator[tuple[str, str]]:
    with _opened(path) as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                yield f"{path}, line {number}", line


def _object(line: str, where: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise InvalidInput(f"{where}: not JSON ({error})") from error
    if not isinstance(row, dict):
        raise InvalidInput(f"{where}: a JSON object is expected, not {repr(row)[:40]}")
    return row


@contextmanager
def _opened(path: Path) -> Iterator[TextIO]:
    """A text file, gunzipped where its name ends so. Raises InvalidInput."""
    try:
        with (gzip.open if path.suffix == ".gz" else open)(
            path, "rt", encoding="utf-8", newline=""
        ) as file:
            yield file
    except (gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise InvalidInput(f"{path}: not a gzip file, or not all of one ({error})") from error
    except UnicodeDecodeError as error:
        raise InvalidInput(f"{path}: not UTF-8 text ({error})") from error
    except OSError as error:
        raise InvalidInput(f"{path}: cannot be read ({error.strerror})") from error
