"""The baselines of examples/benchmarks, measured by `cmt eval` on a tiny model; the press is a
stand-in for one of kvpress.
"""

import argparse
import json
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
from click.testing import CliRunner

import cmt_sdk
from cmt_cli.eval import eval_command
from cmt_sdk.testing.tiny import save_tiny
from examples.benchmarks import baselines

ROWS = [
    {
        "id": "1",
        "title": "A",
        "context": "The museum is in Lisbon.",
        "question": "Where is the museum?",
        "answers": ["Lisbon"],
    },
    {
        "id": "2",
        "title": "A",
        "context": "The tower is in Genoa.",
        "question": "Where is the tower?",
        "answers": ["Genoa"],
    },
]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A tiny model's folder; its tokens are bytes."""
    return save_tiny(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def report_of(model, tmp_path):
    """Evaluates what `opener` opens, and returns the report with the answers."""

    def evaluated(opener, protocol="gold"):
        file, out, rows = (
            tmp_path / "questions.jsonl",
            tmp_path / "report.json",
            tmp_path / "rows.jsonl",
        )
        file.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
        options = [
            file,
            "--protocol",
            protocol,
            "--reader",
            "text",
            "--max-tokens",
            4,
            "--json",
            out,
            "--rows",
            rows,
        ]
        settings = [f"model={model}", "adapter=none", "device=cpu", "precision=fp32"]
        arguments = [*map(str, options), *(word for pair in settings for word in ("--set", pair))]
        done = CliRunner().invoke(eval_command, arguments, obj=opener, catch_exceptions=False)
        assert done.exit_code == 0, done.output
        answers = [
            json.loads(line)["replies"]["text"]["text"] for line in rows.read_text().splitlines()
        ]
        return SimpleNamespace(answers=answers, **json.loads(out.read_text()))

    return evaluated


def opener_of(baseline, ratio=4.0, tokens=None):
    """What opens the memory of a baseline."""
    chosen = argparse.Namespace(baseline=baseline, ratio=ratio, tokens=tokens)
    return lambda folder, **rest: baselines.subject(chosen, folder, **rest)


@pytest.mark.parametrize(
    ("size", "left"), [({"ratio": 4.0}, 6 + 6), ({"tokens": 5}, 5 + 5), ({"tokens": 99}, 24 + 22)]
)
def test_truncation_leaves_the_first_tokens(report_of, size, left):
    """A quarter of 24 and 22 bytes; a number of them; no more than there are. Passages are still
    told apart.
    """
    report = report_of(opener_of("truncation", **size))
    assert report.storage["tokens"] == left
    assert report.readers["text"]["found"] == 100.0


def test_bm25_finds_by_words_and_compresses_nothing(report_of):
    """Each passage is the first for the question that names what is in it."""
    report = report_of(opener_of("bm25"), "stream")
    assert (report.storage["pending"], report.storage["memory_bytes"]) == (2, 0)
    assert report.retrieval["text"]["recall@1"] == 100.0
    assert report.retrieval["vector"]["recall@10"] == 0.0
    assert report.readers["text"]["found"] == 100.0


def test_a_press_is_asked_to_drop_its_share_of_the_passage_alone(report_of, monkeypatch):
    """The head is kept, three quarters of the passage go; one that drops nothing changes no
    answer.
    """
    seen = []

    class Press:
        def __init__(self, compression_ratio, n_sink):
            self.dropped, self.head = compression_ratio, n_sink

        @contextmanager
        def __call__(self, model):
            seen.append((self.dropped, self.head, model.config._attn_implementation))
            yield

    monkeypatch.setattr(baselines, "kvpress", SimpleNamespace(KVzipPress=Press))
    report = report_of(opener_of("kvzip"))
    assert report.answers == report_of(cmt_sdk.open).answers
    shares = [
        dropped * (head + text) for (dropped, head, _), text in zip(seen[1:], (26, 24), strict=True)
    ]
    # a gap of two bytes ends a passage; the first question is asked twice
    assert shares == pytest.approx([19.5, 18])
    assert {name for *_, name in seen} == {"sdpa"}
