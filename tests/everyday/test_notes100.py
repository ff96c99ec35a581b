"""The trial set of short notes, and the training data made for it."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace

from cmt_sdk.text.prompt_messages import UNKNOWN
from examples.everyday.ask import holds
from examples.notes100 import make_training
from examples.notes100.ask import ANSWERED, UNANSWERED, Reply, compared, read, table

CHAT = ["I like long walks."]


def test_there_are_300_questions_about_100_notes() -> None:
    """Each expected value stands in a note, and what no note answers expects none."""
    notes, asked = read()
    assert (len(notes), len(asked), len({a.question for a in asked})) == (100, 300, 300)
    for one in asked:
        assert one.kind in (UNANSWERED if not one.expected else ANSWERED), one
        if one.expected:
            assert any(holds(note.text, one.expected) for note in notes), one


def test_what_changed_is_asked_both_ways() -> None:
    """Each pair of notes has days, and a question for the newer and the older value."""
    notes, asked = read()
    assert sum("date" in note.metadata for note in notes) == 18
    counts = Counter(a.kind for a in asked)
    assert counts["newest"] >= 10
    assert counts["before"] >= 10


def test_an_answer_counts_by_whole_words_and_abstaining_by_its_sentence() -> None:
    """The table counts by kind, and two runs are compared question by question."""
    right = Reply("code", "Which code?", "4417", "it is 4417", 0.9, 1)
    wrong = replace(right, answer="44171")
    silent = Reply("near", "Which colour?", "", "I don't know.", 0.1, None)
    assert [t.is_right for t in (right, wrong, silent)] == [True, False, True]
    assert "| code | 1 | 1 | 100.0% |" in table([right, silent])
    assert "AUROC of answered against unanswered: 1.000" in table([right, silent])
    assert compared([right, silent], [wrong, silent]) == "code: 1 won, 0 lost"


def made(count: int = 300) -> list[dict[str, object]]:
    """Rows of so many notebooks."""
    rng, blocks = random.Random(3), make_training.blocks()
    rows: list[dict[str, object]] = []
    for number in range(count):
        notes = make_training.notebook(blocks, rng, CHAT)
        rows += make_training.rows_of_notebook(str(number), notes, rng, blocks)
    return rows


def test_an_answer_is_copied_from_its_note_and_stands_in_no_other() -> None:
    """A fifth to a third of the questions is answered by none."""
    rows = made()
    unknown = [r for r in rows if r["answers"] == [UNKNOWN]]
    assert 0.2 < len(unknown) / len(rows) < 0.34
    for row in rows:
        (answer,) = row["answers"]  # type: ignore[misc]
        if answer != UNKNOWN:
            assert answer in row["context"], row  # type: ignore[operator]
            assert answer.lower() not in str(row["question"]).lower(), row


def test_nothing_of_the_trial_set_is_trained_on() -> None:
    """No note of it is a form of the templates, and its names and codes are found."""
    trial = make_training.of_the_trial()
    notes, _ = read()
    assert trial.search("my locker at the choir: 1685")
    assert not trial.search("on Friday 3 May")
    texts = {str(row["context"]) for row in made()}
    assert not texts & {note.text for note in notes}


def test_every_form_of_a_question_can_be_filled_and_used() -> None:
    """Slots have values, and each question of a block comes in some note."""
    rng = random.Random(1)
    for block in make_training.blocks():
        seen: set[str] = set()
        values = make_training.drawn(block, rng, set())
        for forms, asked in ((block.notes, block.asked), (block.older, block.before)):
            for form in forms:
                for one in asked:
                    note = make_training.noted(form, [one], block, values, rng)
                    seen |= {one.answer + one.questions[0] for _ in note.asked}
        missing = {
            f.questions[0]
            for f in (*block.asked, *block.before)
            if f.answer + f.questions[0] not in seen and len(f.questions) > 1
        }
        assert not missing, (block.notes[0], missing)
