"""The page of evaluations: everything measured is on it, nothing comes from outside, and what is
hostile stays text.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from cmt_sdk import plotting
from cmt_sdk.errors import InvalidInput, MissingExtra
from cmt_sdk.evaluation.page import write_page
from cmt_sdk.plotting import training_curve

STORAGE = {"passages": 10, "text_bytes": 7000, "bytes_per_passage": 270_000.0}
MACHINE = {"cores": 2, "load_before": [0.1, 0.2, 0.3]}


def figures(f1: float, ms: float) -> dict[str, Any]:
    """One reader's figures."""
    interval = {"mean": f1, "low": f1 - 4, "high": f1 + 4}
    metrics = dict.fromkeys(("exact", "f1", "paper_exact", "paper_f1"), interval)
    return {**metrics, "prompt_tokens": 20.0, "first_token_ms": ms}


def report(protocol: str = "gold", **more: Any) -> dict[str, Any]:
    """A report such as `cmt eval` writes."""
    settings = {"compressor": "kv", "compression": 4}
    said = {
        "file": "q.jsonl",
        "file_sha256": "ab" * 32,
        "questions_asked": 3,
        "plan": {"seed": 5},
        "settings": settings,
    }
    made = {
        "machine": MACHINE,
        "versions": {"torch": "2.13"},
        "fingerprint": {"model": "m"},
        "command": ["cmt", "eval"],
        "seconds": 4.2,
    }
    readers = {
        "memory": figures(61.5, 190.0),
        "text": figures(62.5, 540.0),
        "none": figures(5.0, 90.0),
    }
    rest = {
        "schema": 2,
        "protocol": protocol,
        "storage": STORAGE,
        "retrieval": {},
        "readers": readers,
    }
    return {**said, **made, **rest, "command": ["cmt", "eval"], "notes": ["a note"], **more}


def page_of(folder: Path, **files: Any) -> str:
    """The page of a folder with these files."""
    for name, content in files.items():
        path = folder / name.replace("__", ".")
        path.write_text(
            content if isinstance(content, str) else json.dumps(content), encoding="utf-8"
        )
    return write_page(folder).read_text(encoding="utf-8")


def test_a_run_is_there_with_its_costs_and_its_command(tmp_path: Path) -> None:
    """Scores with intervals, bytes of what is read, and what made them; both frontiers are drawn
    without the empty reader.
    """
    page = page_of(tmp_path, small__json=report())
    assert "61.5 ± 4.0" in page
    assert "270,000" in page
    assert "cmt eval" in page
    assert "seed 5" in page
    assert page.count("<svg") == 2
    assert "memory, kv 0.25" in page


def test_nothing_is_fetched(tmp_path: Path) -> None:
    """No script, and no address but the names of XML's own vocabularies."""
    page = page_of(tmp_path, small__json=report())
    assert "<script" not in page
    addresses = set(re.findall(r"https?://[^\"'\s<]+", page))
    assert all("w3.org" in a or "purl.org" in a or "creativecommons.org" in a for a in addresses)


def test_finding_abstention_and_growth_have_their_sections(tmp_path: Path) -> None:
    """Each where a report tells of it."""
    recalls = {"recall@1": 86.7, "recall@5": 95.2}
    point = {
        "exact": {"memory": 50.0},
        "f1": {"memory": 60.0},
        "relative": {"memory": 99.0},
        "retrieval": {},
    }
    points = [{"documents": 2, **point}, {"documents": 4, **point}]
    silent = {
        "memory": {
            "auroc": 0.81,
            "threshold": 0.6,
            "accuracy": 70.0,
            "answered": 80.0,
            "withheld": 60.0,
        }
    }
    page = page_of(
        tmp_path, a__json=report("stream", retrieval={"fused": recalls}), b__json=report("growth", curve=points),
        c__json=report("abstain", abstention=silent),
    )  # fmt: skip
    assert "86.7" in page
    assert "60.0 (99 %)" in page
    assert "0.81" in page


def test_hostile_names_and_answers_stay_text(tmp_path: Path) -> None:
    """A question that is a script is shown as its characters."""
    evil = "<script>alert(1)</script>"
    row = {
        "question": evil,
        "answers": [evil],
        "replies": {"memory": {"f1": 0.0, "text": evil, "confidence": 0.5}},
    }
    page = page_of(
        tmp_path, small__json=report(file=evil), small__rows__jsonl=json.dumps(row) + "\n"
    )
    assert evil not in page
    assert "&lt;script&gt;alert(1)" in page


def test_training_is_drawn_from_its_log(tmp_path: Path) -> None:
    """The loss, and each held-out figure under its name."""
    log = [
        {"step": 0, "questions": 0, "held_out@1.0": 0.9},
        {"step": 1, "questions": 30, "loss": 1.2},
    ]
    log += [
        {"step": 2, "questions": 60, "loss": 1.0},
        {"step": 2, "questions": 60, "held_out@1.0": 0.8},
        {"end": True},
    ]
    page = page_of(
        tmp_path,
        small__json=report(),
        reader__log__jsonl="".join(json.dumps(line) + "\n" for line in log),
    )
    assert "Training: reader" in page
    assert "held_out@1.0" in page


def test_the_same_log_gives_the_same_picture() -> None:
    """No date and no random name in it."""
    log = [{"questions": n, "loss": 1 / (n + 1)} for n in range(50)]
    assert training_curve(log) == training_curve(log)


def test_a_folder_without_reports_is_told(tmp_path: Path) -> None:
    """Other JSON is passed over; broken JSON is named."""
    with pytest.raises(InvalidInput, match="there is no report in it; `cmt eval FILE --report"):
        page_of(tmp_path, other__json={"a": 1})
    with pytest.raises(InvalidInput, match=r"broken\.json: not JSON"):
        page_of(tmp_path, broken__json="{")


def test_a_missing_plotting_library_is_an_install_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """The extra that brings it is named."""
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingExtra, match=r"pip install 'cmt-sdk\[eval\]'"):
        plotting.lines({"a": [(0.0, 1.0)]}, "x", "y")
