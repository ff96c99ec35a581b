"""`cmt eval` from file to figures, over a real store and a fake language model."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from cmt_cli.eval import eval_command
from cmt_sdk.errors import InvalidInput, InvalidSetting
from cmt_sdk.testing.fakes import open_fake

ROWS = [
    {
        "id": "1",
        "title": "A",
        "context": "Lisbon museum.",
        "question": "Which museum?",
        "answers": ["Lisbon museum"],
    },
    {
        "id": "2",
        "title": "A",
        "context": "Lisbon museum.",
        "question": "Why Lisbon?",
        "answers": ["art"],
    },
    {
        "id": "3",
        "title": "B",
        "context": "Green tea.",
        "question": "Which tea?",
        "answers": ["green tea", "tea"],
    },
]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Two passages and three questions."""
    path = tmp_path / "questions.jsonl.gz"
    path.write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in ROWS).encode()))
    return path


def cmt_eval(*args: object) -> Result:
    """Run the command over a fake language model; what is no exit of click's own is raised."""
    return CliRunner().invoke(
        eval_command, list(map(str, args)), obj=open_fake, catch_exceptions=False
    )


def report_of(file: Path, *args: object) -> Any:
    """The JSON report of a run."""
    out = file.with_name("report.json")
    assert cmt_eval(file, "--json", out, *args).exit_code == 0
    return json.loads(out.read_text())


def test_writes_figures_with_all_that_made_them(file: Path) -> None:
    """Two of three answers are right: the fake reader says the sentence that shares most words."""
    report = report_of(file, "--reader", "memory", "--reader", "none", "--k", 1)
    assert report["readers"]["memory"]["exact"]["mean"] == pytest.approx(200 / 3)
    assert report["readers"]["memory"]["paper_f1"]["mean"] == pytest.approx(
        100 * (1 + 0 + 2 / 3) / 3
    )
    assert report["readers"]["none"]["exact"]["mean"] == 0.0
    assert report["retrieval"]["fused"] == {
        "recall@1": 100.0,
        "recall@5": 100.0,
        "recall@10": 100.0,
    }
    assert (report["protocol"], report["file"], report["questions_asked"]) == (
        "stream",
        "questions.jsonl.gz",
        3,
    )
    assert (report["storage"]["passages"], report["storage"]["pending"]) == (2, 0)
    assert report["fingerprint"]["model"] == "fake"
    assert report["plan"]["k"] == 1
    assert len(report["file_sha256"]) == 64
    assert report["machine"]["cores"] >= 1


def test_all_passages_can_be_read_for_every_question(file: Path) -> None:
    """As MAC does it, which chooses none; any other word is refused."""
    report = report_of(file, "--reader", "memory", "--k", "all")
    assert report["readers"]["memory"]["found"] == 100.0
    assert cmt_eval(file, "--k", "some").exit_code == 2


def test_keeps_every_answer_beside_the_report(file: Path) -> None:
    """One line a question, with replies by reader; --rows names another place."""
    report_of(file, "--reader", "text")
    beside = [
        json.loads(line) for line in file.with_name("report.rows.jsonl").read_text().splitlines()
    ]
    assert [(row["id"], row["replies"]["text"]["text"]) for row in beside] == [
        ("1", "Lisbon museum."),
        ("2", "Lisbon museum."),
        ("3", "Green tea."),
    ]
    cmt_eval(file, "--rows", file.with_name("mine.jsonl"), "--reader", "text")
    assert len(file.with_name("mine.jsonl").read_text().splitlines()) == 3


def test_shows_tables_and_what_they_mean(file: Path) -> None:
    """Figures, retrieval, storage and notes."""
    shown = cmt_eval(file, "--limit", 2, "--reader", "memory").output
    for part in (
        "paper F1",
        "first token ms",
        "recall@5",
        "2 passages",
        "2 of 3 questions were drawn with seed 0",
    ):
        assert part in " ".join(shown.split())


def test_gold_has_no_retrieval(file: Path) -> None:
    """Each question sees its own passage."""
    report = report_of(file, "--protocol", "gold", "--reader", "memory")
    assert report["retrieval"] == {}
    assert report["readers"]["memory"]["found"] == 100.0


def test_a_kept_memory_is_used_again(file: Path, tmp_path: Path) -> None:
    """The figures of the second run are those of the first."""
    first = report_of(file, "--memory", tmp_path / "kept", "--reader", "memory")
    second = report_of(file, "--memory", tmp_path / "kept", "--reader", "memory")
    assert first["storage"] == second["storage"] | {"file_bytes": first["storage"]["file_bytes"]}
    assert first["readers"]["memory"]["f1"] == second["readers"]["memory"]["f1"]


def test_a_kept_memory_is_not_mixed_with_other_settings(file: Path, tmp_path: Path) -> None:
    """Passages that were cut otherwise, or other documents, are refused."""
    cmt_eval(file, "--memory", tmp_path / "kept", "--set", "passage_tokens=64")
    assert cmt_eval(file, "--memory", tmp_path / "kept").exit_code == 0
    with pytest.raises(InvalidSetting, match="were split with 64"):
        cmt_eval(file, "--memory", tmp_path / "kept", "--set", "passage_tokens=128")
    with open_fake(tmp_path / "kept") as memory:
        memory.add("Something else.")
    with pytest.raises(InvalidInput, match="other documents"):
        cmt_eval(file, "--memory", tmp_path / "kept")


def test_settings_pass_through(file: Path) -> None:
    """By their own options or by --set, in their own types."""
    report = report_of(
        file,
        "--compression",
        2,
        "--set",
        "passage_tokens=32",
        "--set",
        "device=cpu",
        "--reader",
        "none",
    )
    assert {n: report["settings"][n] for n in ("compression", "passage_tokens", "device")} == {
        "compression": 2,
        "passage_tokens": 32,
        "device": "cpu",
    }


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--set", "colour=red"], "'colour': choose one of"),
        (["--set", "passage_tokens=many"], "passage_tokens='many': choose a whole number"),
        (["--reader", "mind"], "'mind' is not one of"),
        (["--protocol", "batch"], "'batch' is not one of"),
        (["--json", "no/such/folder/out.json"], "there is no folder"),
    ],
)
def test_a_wrong_option_is_named_before_anything_runs(
    file: Path, args: list[str], message: str
) -> None:
    """Click's own exit code for misuse."""
    result = cmt_eval(file, *args)
    assert result.exit_code == 2
    assert message in " ".join(result.output.split())


def test_keep_out_of_range_is_refused(file: Path) -> None:
    """Zero is a value, not an option left out."""
    with pytest.raises(InvalidSetting, match=r"compression=0\.0"):
        cmt_eval(file, "--compression", 0)


def test_help_has_an_example() -> None:
    """It stands on lines of its own."""
    assert "Example:\n    cmt eval questions.jsonl.gz" in cmt_eval("--help").output


def test_growth_takes_irrelevant_texts_from_other_files(file: Path, tmp_path: Path) -> None:
    """Plain text comes in stage by stage; the curve is in the report and on the terminal."""
    other = tmp_path / "other.jsonl"
    other.write_text(
        "".join(json.dumps({"title": "", "text": f"Nothing of note {n}."}) + "\n" for n in range(6))
    )
    options = (
        "--protocol",
        "growth",
        "--passages",
        2,
        "--stages",
        2,
        "--irrelevant",
        other,
        "--reader",
        "memory",
    )
    report = report_of(file, *options)
    assert [point["documents"] for point in report["curve"]] == [2, 5, 8]
    assert "memory F1" in cmt_eval(file, *options).output


def test_growth_without_enough_to_grow_by_is_refused(file: Path) -> None:
    """Both passages are asked about: nothing is left to come in."""
    with pytest.raises(InvalidInput, match="0 more documents are too few for 4 stages"):
        cmt_eval(file, "--protocol", "growth", "--passages", 2)


def test_abstention_is_reported(file: Path) -> None:
    """AUROC and the shares of right decisions, by reader."""
    report = report_of(file, "--protocol", "abstain", "--reader", "memory")
    assert set(report["abstention"]["memory"]) == {
        "auroc",
        "threshold",
        "accuracy",
        "answered",
        "withheld",
    }
    assert "withheld %" in cmt_eval(file, "--protocol", "abstain", "--reader", "memory").output


def test_a_report_in_a_folder_and_one_elsewhere(file: Path, tmp_path: Path) -> None:
    """Both are asked for, both are written, and the answers stand beside the one that was named."""
    folder = tmp_path / "reports"
    report = report_of(file, "--protocol", "gold", "--reader", "memory", "--report", folder)
    assert json.loads((folder / "gold-1.json").read_text()) == report
    assert (folder / "index.html").is_file()
    assert [p.name for p in tmp_path.rglob("*.rows.jsonl")] == ["report.rows.jsonl"]


def test_reports_gather_in_a_folder_with_a_page(file: Path, tmp_path: Path) -> None:
    """A second run takes the next name, and the page tells of both."""
    folder = tmp_path / "reports"
    for _ in range(2):
        assert (
            cmt_eval(file, "--protocol", "gold", "--reader", "memory", "--report", folder).exit_code
            == 0
        )
    assert sorted(path.name for path in folder.iterdir()) == [
        "gold-1.json", "gold-1.rows.jsonl", "gold-2.json", "gold-2.rows.jsonl", "index.html",
    ]  # fmt: skip
    page = (folder / "index.html").read_text(encoding="utf-8")
    assert "<summary>gold-1</summary>" in page
    assert "<summary>gold-2</summary>" in page
