"""Question files: what is read, and how a bad file is named."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from cmt_sdk.errors import InvalidInput
from cmt_sdk.questions import Question, QuestionedPassage, read_lines, read_passages

ROW = {"id": "q1", "title": "Old_Museums", "context": "It moved.", "question": "Did it?", "answers": ["yes", "it did"]}


def lines_of(*rows: dict[str, Any]) -> bytes:
    """Rows as JSON lines."""
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def complaint(path: Path) -> str:
    """The message with which a file is refused."""
    with pytest.raises(InvalidInput) as raised:
        read_passages(path)
    return str(raised.value)


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz"])
def test_groups_questions_by_passage_in_file_order(tmp_path: Path, name: str) -> None:
    """Gzipped or not; blank lines and unknown fields do no harm; id and title may be missing."""
    other = {"context": "It stayed.", "question": "Where?", "answers": ["here"], "split": "dev"}
    data = lines_of(ROW, other) + b"\n" + lines_of(ROW | {"id": "q2", "question": "When?"})
    (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith("gz") else data)
    assert read_passages(tmp_path / name) == [
        QuestionedPassage(
            "Old Museums",
            "It moved.",
            (Question("Did it?", ("yes", "it did"), "q1"), Question("When?", ("yes", "it did"), "q2")),
        ),
        QuestionedPassage("", "It stayed.", (Question("Where?", ("here",)),)),
    ]


def test_reads_lines_of_any_objects(tmp_path: Path) -> None:
    """Text sets have other fields."""
    (tmp_path / "a.jsonl").write_bytes(lines_of({"id": "t1", "text": "Plain."}))
    assert list(read_lines(tmp_path / "a.jsonl")) == [{"id": "t1", "text": "Plain."}]


def test_reads_the_public_squad_format(tmp_path: Path) -> None:
    """A .json file is SQuAD v1.1 as it is published."""
    asked = {"id": "5", "question": "Did it?", "answers": [{"text": "yes", "answer_start": 0}]}
    article = {"title": "Old_Museums", "paragraphs": [{"context": "It moved.", "qas": [asked]}]}
    (tmp_path / "dev.json").write_text(json.dumps({"version": "1.1", "data": [article]}))
    expected = [QuestionedPassage("Old Museums", "It moved.", (Question("Did it?", ("yes",), "5"),))]
    assert read_passages(tmp_path / "dev.json") == expected


@pytest.mark.parametrize("content", [b"{}", b'{"data": 1}', b'{"data": [1]}', b'{"data": [{"paragraphs": [{}]}]}', b"[]", b"{"])
def test_another_json_file_is_refused(tmp_path: Path, content: bytes) -> None:
    """The file is named."""
    (tmp_path / "dev.json").write_bytes(content)
    assert "dev.json" in complaint(tmp_path / "dev.json")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({k: v for k, v in ROW.items() if k != "answers"}, "line 2: 'answers' is missing"),
        ({k: v for k, v in ROW.items() if k != "context"}, "line 2: 'context' is missing"),
        (ROW | {"question": "  "}, "line 2: 'question' is '  '; it must be a text"),
        (ROW | {"question": 7}, "line 2: 'question' is 7; it must be a text"),
        (ROW | {"answers": []}, "line 2: 'answers' is []; it must be a list with at least one text"),
        (ROW | {"answers": "yes"}, "line 2: 'answers' is 'yes'"),
        (ROW | {"answers": [{"text": "yes"}]}, "line 2: 'answers' is"),
    ],
)
def test_a_bad_row_is_named_by_line_and_field(tmp_path: Path, row: dict[str, Any], message: str) -> None:
    """The second line is the bad one."""
    (tmp_path / "a.jsonl").write_bytes(lines_of(ROW, row))
    assert message in complaint(tmp_path / "a.jsonl")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", b"", "there is no question in it"),
        ("a.jsonl", b"\n\n", "there is no question in it"),
        ("a.jsonl", b"what?\n", "line 1: not JSON"),
        ("a.jsonl", b"[1]\n", "line 1: a JSON object is expected"),
        ("a.jsonl", b"\xff\xfe{}\n", "not UTF-8"),
        ("a.jsonl.gz", lines_of(ROW), "not a gzip file"),
        ("a.jsonl.gz", gzip.compress(lines_of(ROW) * 50)[:-12], "not all of one"),
        ("a.jsonl.gz", b"", "there is no question in it"),
    ],
)
def test_a_bad_file_is_named(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    """Empty, broken, cut off, or something else."""
    (tmp_path / name).write_bytes(content)
    assert message in complaint(tmp_path / name)


def test_what_cannot_be_opened_is_named(tmp_path: Path) -> None:
    """A missing file and a folder."""
    assert "nowhere.jsonl" in complaint(tmp_path / "nowhere.jsonl")
    assert "cannot be read" in complaint(tmp_path)
