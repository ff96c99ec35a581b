"""The real default model: documents added in one process answer in another, from memory alone."""

import json
import shutil
import subprocess
import sys

import pytest

import cmt_sdk

pytestmark = pytest.mark.model

FACTS = {
    "museum.md": "The city museum moved to Lisbon in 2019. Its director is Marta Quintela.",
    "harbour.md": (
        "The harbour of Genoa opens at nine in the morning. It was built by the Doria family."
    ),
    "tea.md": "Ann likes green tea with ginger. She drinks it cold, from a blue cup.",
}


def cmt(*arguments, **options):
    """Run the installed command in a process of its own and return what it printed."""
    done = subprocess.run(
        [sys.executable, "-m", "cmt_cli.main", *arguments],
        capture_output=True,
        text=True,
        check=False,
        **options,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A memory made by another process, through the command line."""
    root = tmp_path_factory.mktemp("model")
    (root / "docs").mkdir()
    for name, text in FACTS.items():
        (root / "docs" / name).write_text(text, encoding="utf-8")
    cmt("add", "-m", str(root / "memory"), str(root / "docs"))
    return root / "memory"


@pytest.fixture(scope="module")
def memory(folder):
    with cmt_sdk.open(folder, create=False) as opened:
        yield opened


@pytest.mark.parametrize(
    ("question", "expected", "source"),
    [
        ("Where did the city museum move to?", "Lisbon", "museum.md"),
        ("Who is the director of the museum?", "Marta Quintela", "museum.md"),
        ("Who built the harbour of Genoa?", "Doria", "harbour.md"),
    ],
)
def test_a_later_process_answers_from_memory(memory, question, expected, source):
    """The memory reader never sees a passage's text: only the question's tokens are in its
    prompt.
    """
    answer = memory.model.ask(question)
    assert expected in answer.text
    assert str(answer.sources[0].source).endswith(source)
    assert answer.reader == "memory"
    assert answer.prompt_tokens < 40 < answer.memory_tokens


def test_the_command_line_answers_too(folder):
    """`cmt ask --json` gives the answer, its sources and its costs."""
    said = json.loads(cmt("ask", "-m", str(folder), "--json", "Where did the city museum move to?"))
    assert "Lisbon" in said["text"]
    assert said["sources"][0]["text"].startswith("The city museum")


def test_update_changes_the_answer_and_forget_leaves_no_trace(tmp_path):
    """The mission's promise, on the real model: replace, then forget."""
    with cmt_sdk.open(tmp_path / "m") as memory:
        document = memory.add(FACTS["museum.md"], source="museum.md")
        memory.add(FACTS["tea.md"], source="tea.md")
        memory.update(document.id, FACTS["museum.md"].replace("Lisbon", "Porto"))
        assert "Porto" in memory.model.ask("Where did the city museum move to?").text
        receipt = memory.forget(document.id)
        assert (receipt.versions, receipt.traces_found) == (2, 0)
        assert "Porto" not in memory.model.ask("Where did the city museum move to?").text
    left = b"".join(f.read_bytes() for f in (tmp_path / "m").rglob("*") if f.is_file())
    assert b"Quintela" not in left
    assert b"green tea" in left


def test_nf4_weights_answer_on_a_cpu(tmp_path):
    """The base in 4 bits through bitsandbytes, on the machine's CPU: the whole way, not only the
    loading.
    """
    with cmt_sdk.open(tmp_path / "m", precision="nf4", device="cpu") as memory:
        memory.add(FACTS["museum.md"])
        answer = memory.model.ask("Where did the city museum move to?")
        assert "Lisbon" in answer.text


def test_without_memory_the_base_model_speaks(memory):
    """reader="none" is the bare instruct model: it has never heard of Marta Quintela."""
    assert (
        "Quintela"
        not in memory.model.ask("Who is the director of the city museum?", reader="none").text
    )


def test_cold_passages_answer_at_once_and_are_compressed_behind_the_answer(folder, tmp_path):
    """By the graph, then by torch, which compressing has loaded: the same answer each time."""
    shutil.copytree(folder, tmp_path / "copy")
    question = "Where did the city museum move to?"
    with cmt_sdk.open(tmp_path / "copy", memory_budget=10**7) as memory:
        for _ in range(2):
            memory._store.evict(0)
            assert memory.stats().cold == len(FACTS)
            assert "Lisbon" in memory.ask(question).text
            assert memory.wait(120)
            assert memory.stats().cold == 0
        assert "Lisbon" in memory.ask(question).text
