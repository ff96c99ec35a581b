"""Question files: what is read, and how a bad file is named."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from cmt_sdk.errors import InvalidInput
from cmt_sdk.questions.dataset import Question, QuestionedPassage, read_lines, read_passages

ROW = {
    "id": "q1",
    "title": "Old_Museums",
    "context": "It moved.",
    "question": "Did it?",
    "answers": ["yes", "it did"],
}


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
            (
                Question("Did it?", ("yes", "it did"), "q1"),
                Question("When?", ("yes", "it did"), "q2"),
            ),
        ),
        QuestionedPassage("", "It stayed.", (Question("Where?", ("here",)),)),
    ]


def test_a_passage_has_the_neighbours_of_its_first_line(tmp_path: Path) -> None:
    """Another passage has none."""
    first = ROW | {"neighbours": ["It stayed.", "It burned."]}
    (tmp_path / "a.jsonl").write_bytes(lines_of(first, ROW, ROW | {"context": "It grew."}))
    assert [p.neighbours for p in read_passages(tmp_path / "a.jsonl")] == [
        ("It stayed.", "It burned."),
        (),
    ]


def test_a_passage_may_have_a_place_among_its_neighbours(tmp_path: Path) -> None:
    """It counts those before it; without one, their order tells nothing."""
    first = ROW | {"neighbours": ["It stayed.", "It burned."]}
    second = first | {"context": "It grew.", "place": 2}
    (tmp_path / "a.jsonl").write_bytes(lines_of(first, second))
    assert [p.place for p in read_passages(tmp_path / "a.jsonl")] == [None, 2]


@pytest.mark.parametrize("place", [3, -1, True, "1"])
def test_refuses_what_is_no_place(tmp_path: Path, place: object) -> None:
    """The message says which numbers there are."""
    row = ROW | {"neighbours": ["It stayed.", "It burned."], "place": place}
    (tmp_path / "a.jsonl").write_bytes(lines_of(row))
    assert "it must be a number from 0 to 2" in complaint(tmp_path / "a.jsonl")


@pytest.mark.parametrize("neighbours", ["It stayed.", [1], [""], {"a": "b"}])
def test_refuses_what_is_no_neighbour(tmp_path: Path, neighbours: object) -> None:
    """The message names the line and the field."""
    (tmp_path / "a.jsonl").write_bytes(
        lines_of(ROW, ROW | {"context": "2", "neighbours": neighbours})
    )
    assert "line 2: 'neighbours' is" in complaint(tmp_path / "a.jsonl")


def test_reads_lines_of_any_objects(tmp_path: Path) -> None:
    """Text sets have other fields."""
    (tmp_path / "a.jsonl").write_bytes(lines_of({"id": "t1", "text": "Plain."}))
    assert list(read_lines(tmp_path / "a.jsonl")) == [{"id": "t1", "text": "Plain."}]


def test_reads_the_public_squad_format(tmp_path: Path) -> None:
    """A .json file is SQuAD v1.1 as it is published."""
    asked = {"id": "5", "question": "Did it?", "answers": [{"text": "yes", "answer_start": 0}]}
    article = {"title": "Old_Museums", "paragraphs": [{"context": "It moved.", "qas": [asked]}]}
    (tmp_path / "dev.json").write_text(json.dumps({"version": "1.1", "data": [article]}))
    expected = [
        QuestionedPassage("Old Museums", "It moved.", (Question("Did it?", ("yes",), "5"),))
    ]
    assert read_passages(tmp_path / "dev.json") == expected


@pytest.mark.parametrize(
    "content",
    [b"{}", b'{"data": 1}', b'{"data": [1]}', b'{"data": [{"paragraphs": [{}]}]}', b"[]", b"{"],
)
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
        (
            ROW | {"answers": []},
            "line 2: 'answers' is []; it must be a list with at least one text",
        ),
        (ROW | {"answers": "yes"}, "line 2: 'answers' is 'yes'"),
        (ROW | {"answers": [{"text": "yes"}]}, "line 2: 'answers' is"),
    ],
)
def test_a_bad_row_is_named_by_line_and_field(
    tmp_path: Path, row: dict[str, Any], message: str
) -> None:
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


def written(path, *rows):
    """Rows as JSON lines, gzipped where the name says so."""
    text = "".join(json.dumps(row) + "\n" for row in rows)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


STREAMING = {
    "qa_id": "eval-7", "question": "Who opened the bridge?", "answers": ["the mayor", "mayor Lopes", "Lopes"],
    "answers_additional": ["Ana Lopes"], "question_ts": 1609459200, "evidence_ts": 1609372800, "evidence_id": "2020-12_ab3f",
    "recent_or_past": "recent", "written_or_generated": "written", "toxicity_insult": 0.01,
}  # fmt: skip


def test_streamingqa_finds_its_passages_in_the_documents(tmp_path):
    """The evidence key names a document by its sorting key; documents that nobody asks about are
    passed over.
    """
    questions = written(
        tmp_path / "streaminqa_eval.jsonl.gz",
        STREAMING,
        {**STREAMING, "qa_id": "eval-8", "question": "When?"},
    )
    documents = written(
        tmp_path / "wmt.jsonl.gz",
        {"sorting_key": "2019-01_ff", "publication_ts": 1, "text": "Something else."},
        {
            "sorting_key": "2020-12_ab3f",
            "publication_ts": 2,
            "text": "The mayor, Ana Lopes, opened the bridge.",
        },
    )
    (passage,) = read_passages(questions, documents)
    assert passage.context == "The mayor, Ana Lopes, opened the bridge."
    assert [q.id for q in passage.questions] == ["eval-7", "eval-8"]
    assert passage.questions[0].answers == ("the mayor", "mayor Lopes", "Lopes")


def test_the_documents_of_streamingqa_are_read_as_wmt_publishes_them(tmp_path):
    """Date, sentences and raw text, tabs between them; the key is the date and the hash of the raw
    text.
    """
    sentences = base64.b64encode(b"Ana Lopes opened the bridge.\nIt rained.").decode()
    raw = base64.b64encode(b"<p>Ana Lopes opened the bridge. It rained.").decode()
    archive = tmp_path / "news-docs.2020.en.filtered.gz"
    archive.write_bytes(
        gzip.compress(f"20201231\t{sentences}\t{raw}\n20201231\t{raw}\t{sentences}\n".encode())
    )
    key = f"20201231000000000000\0\1{hashlib.sha256(raw.encode()).hexdigest()}\0\1"
    questions = written(tmp_path / "eval.jsonl", {**STREAMING, "evidence_id": key})
    (passage,) = read_passages(questions, archive)
    assert passage.context == "Ana Lopes opened the bridge.\nIt rained."


def test_answers_as_python_prints_squad_s(tmp_path):
    """A cell of a table made from SQuAD; a row without a text in it has no answer."""
    table = tmp_path / "squad.csv"
    cells = [
        "\"{'text': ['Rome', 'in Rome'], 'answer_start': [3, 0]}\"",
        "\"{'text': [], 'answer_start': []}\"",
    ]
    table.write_text(
        "id,context,question,answers\n"
        + "".join(f"{n},In Rome.,Where?,{c}\n" for n, c in enumerate(cells))
    )
    (passage,) = read_passages(table)
    assert [q.answers for q in passage.questions] == [("Rome", "in Rome")]
    table.write_text("context,question,answers\nIn Rome.,Where?,{'text': [\n")
    with pytest.raises(InvalidInput, match=r"row 2: 'answers' begins as"):
        read_passages(table)


def test_a_table_with_a_loose_comma_names_the_row(tmp_path):
    """A text with a comma that nobody quoted would shift the cells after it."""
    table = tmp_path / "loose.csv"
    table.write_text("context,question,answers\nIn Rome, I think.,Where?,Rome\n")
    with pytest.raises(InvalidInput, match=r"row 2: it has more or fewer cells"):
        read_passages(table)


def test_a_json_file_may_hold_lines(tmp_path):
    """Only an object with `data` is SQuAD."""
    (tmp_path / "q.json").write_bytes(lines_of(ROW))
    assert read_passages(tmp_path / "q.json")[0].context == "It moved."


def test_a_passage_that_is_only_named_has_to_be_somewhere(tmp_path):
    """Without the documents, or with the wrong ones, the key and the remedy are told."""
    questions = written(tmp_path / "streaminqa_eval.jsonl", STREAMING)
    with pytest.raises(
        InvalidInput,
        match=r"line 1: it has no passage, only the key '2020-12_ab3f'; name the file of texts",
    ):
        read_passages(questions)
    other = written(tmp_path / "other.jsonl", {"id": "x", "text": "y"})
    with pytest.raises(
        InvalidInput, match=r"other\.jsonl: lacks 1 of the 1 passages .*'2020-12_ab3f' \(.*line 1\)"
    ):
        read_passages(questions, other)


def test_archivalqa_is_a_table_whose_paragraphs_have_keys(tmp_path):
    """One answer a row; the paragraph comes from the documents, or stands in the table that CaMeLS
    makes.
    """
    head = "id,question,answer,org_answer,answer_start,para_id,trans_que,trans_ans,source"
    row = (
        'val_4,"When was the pipeline sold, and to whom?","May 26,'
        ' 1988",today,103,148748_0,0,1,rand'
    )
    plain = tmp_path / "ArchivalQA_val.csv"
    plain.write_text(f"{head}\n{row}\n", encoding="utf-8")
    documents = written(
        tmp_path / "paragraphs.jsonl", {"para_id": "148748_0", "text": "It was sold today."}
    )
    (passage,) = read_passages(plain, documents)
    assert (passage.context, passage.questions[0].answers, passage.questions[0].id) == (
        "It was sold today.", ("May 26, 1988",), "val_4",
    )  # fmt: skip
    paired = tmp_path / "test.csv"
    paired.write_text(
        f"{head},ans_paragraph,ans_text\n{row},It was sold today.,All of it.\n", encoding="utf-8"
    )
    assert read_passages(paired)[0].context == "It was sold today."


def test_the_tables_of_camels_hold_texts_and_answers_in_cells(tmp_path):
    """Several answers have backslashes between them."""
    table = tmp_path / "streamingqa_test.csv"
    table.write_text(
        "text,question,answers\nThe bridge is open.,What is open?,the bridge\\bridge\n",
        encoding="utf-8",
    )
    (passage,) = read_passages(table)
    assert passage.context == "The bridge is open."
    assert passage.questions[0].answers == ("the bridge", "bridge")


def test_a_table_without_answers_names_the_row(tmp_path):
    """Rows are counted as a spreadsheet counts them."""
    table = tmp_path / "bad.csv"
    table.write_text("context,question\nA,B\n", encoding="utf-8")
    with pytest.raises(InvalidInput, match=r"bad\.csv, row 2: 'answers' is missing"):
        read_passages(table)


def test_squad_2_questions_without_an_answer_are_passed_over(tmp_path):
    """What cannot be answered cannot be scored against an answer."""
    qas = [
        {
            "id": "1",
            "question": "Where?",
            "answers": [{"text": "Rome", "answer_start": 0}],
            "is_impossible": False,
        },
        {"id": "2", "question": "Why?", "answers": [], "is_impossible": True},
    ]
    data = {
        "version": "v2.0",
        "data": [{"title": "Rome", "paragraphs": [{"context": "Rome.", "qas": qas}]}],
    }
    (tmp_path / "dev-v2.0.json").write_text(json.dumps(data), encoding="utf-8")
    (passage,) = read_passages(tmp_path / "dev-v2.0.json")
    assert [q.id for q in passage.questions] == ["1"]


def test_the_paper_s_bank_is_the_first_passages_in_file_order(tmp_path):
    """Unique contexts as they first appear, each with every question about it, wherever that stands
    in the file.
    """
    rows = [
        {"context": c, "question": f"{c} {n}?", "answers": ["a"]}
        for n, c in enumerate(["b", "a", "b", "c", "a"])
    ]
    found = read_passages(written(tmp_path / "q.jsonl", *rows))
    assert [(p.context, len(p.questions)) for p in found[:2]] == [("b", 2), ("a", 2)]
