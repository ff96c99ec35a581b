"""The real default model tells notes apart by what only their files' names and front matter say."""

from pathlib import Path

import pytest

import cmt_sdk

pytestmark = pytest.mark.model

ROUTER = "Address: {}\n\nOwner: {}\n\nThe admin password is kept in the {} folder.\n"
NOTES = {
    "Kestrel router.md": ROUTER.format("10.0.0.7", "Ann Abel", "blue"),
    "Falcon router.md": ROUTER.format("10.0.0.9", "Bob Berg", "green"),
    "Osprey router.md": ROUTER.format("10.0.0.12", "Cleo Cern", "yellow"),
    "a.md": "---\ntitle: Kestrel lease\n---\n\n## Rent\n\nThe rent is 950 euros a month.\n",
    "b.md": "---\ntitle: Falcon lease\n---\n\n## Rent\n\nThe rent is 1100 euros a month.\n",
}
QUESTIONS = {
    "What is the address of the Kestrel router?": "10.0.0.7",
    "Who owns the Falcon router?": "Bob Berg",
    "How much is the rent in the Kestrel lease?": "950",
    "How much is the rent in the Falcon lease?": "1100",
}


def test_notes_that_say_the_same_are_told_apart_by_their_names(tmp_path: Path) -> None:
    """At least three of four answers are those of the note that is asked about."""
    for name, text in NOTES.items():
        (tmp_path / "Notes").mkdir(exist_ok=True)
        (tmp_path / "Notes" / name).write_text(text)
    with cmt_sdk.open(tmp_path / "memory") as memory:
        memory.add_many(cmt_sdk.read_documents([tmp_path / "Notes"]))
        said = {question: memory.model.ask(question).text for question in QUESTIONS}
    right = [question for question, fact in QUESTIONS.items() if fact in said[question]]
    assert len(right) >= 3, said
