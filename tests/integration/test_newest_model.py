"""The real default model: what was told last answers, and what only looks alike is not hidden."""

import pytest

import cmt_sdk

pytestmark = pytest.mark.model

# What is told in order; then questions, each with the answer and a word that must not be in it.
DIALOGUES = [
    (
        [
            "I live in Bristol.",
            "My sister lives in Cardiff.",
            "I moved to Exeter in spring.",
            "I have a cat called Tux.",
        ],
        [
            ("Where do I live?", "Exeter", "Bristol"),
            ("Where does my sister live?", "Cardiff", "Exeter"),
            ("Where did I live before?", "Bristol", "Exeter"),
        ],
    ),
    (
        [
            "The review meeting is on Monday.",
            "Lunch with Omar is on Tuesday.",
            "The review meeting has been moved to Wednesday.",
            "The review meeting has been moved again, to Friday.",
        ],
        [
            ("When is the review meeting?", "Friday", "Monday"),
            ("When is the lunch with Omar?", "Tuesday", "Friday"),
        ],
    ),
    (
        [
            "My phone number is 0171 3344.",
            "My mother's number is 0160 9900.",
            "I got a new number: 0152 7788.",
        ],
        [
            ("What is my phone number?", "7788", "3344"),
            ("What was my old phone number?", "3344", "7788"),
        ],
    ),
    (
        [
            "The wifi password is maple22.",
            "The alarm code is 4410.",
            "The wifi password was changed, it is cedar88 now.",
        ],
        [("What is the wifi password?", "cedar88", "maple22")],
    ),
    (
        [
            "Ivan is the head of the lab.",
            "Petra runs the library.",
            "Since June Katja is the head of the lab.",
        ],
        [
            ("Who is the head of the lab?", "Katja", "Ivan"),
            ("Who runs the library?", "Petra", "Katja"),
        ],
    ),
]


def test_what_was_told_last_answers_and_what_was_before_can_be_asked_for(tmp_path):
    """Of ten questions at least eight are answered rightly; the older facts are sources, marked
    so.
    """
    wrong, marked = [], 0
    for number, (told, asked) in enumerate(DIALOGUES):
        with cmt_sdk.open(tmp_path / str(number)) as memory:
            for line in told:
                memory.add(line, wait=False)
            memory.compress()
            for question, expected, stale in asked:
                answer = memory.model.ask(question)
                marked += any(s.superseded_by for s in answer.sources)
                if expected not in answer.text or stale in answer.text:
                    wrong.append((question, answer.text))
    assert len(wrong) <= 2, wrong
    assert marked >= 4
