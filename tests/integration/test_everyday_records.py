"""The real default model reads rows with the names of their columns, and each section under its own
heading.
"""

import pytest

import cmt_sdk

pytestmark = pytest.mark.model

NAMES = [
    "Ann Abel",
    "Bob Berg",
    "Cid Cern",
    "Dan Dahl",
    "Emil Cern",
    "Fay Berg",
    "Gus Abel",
    "Hal Dahl",
    "Ida Cern",
    "Jon Berg",
]
OFFICES = (("Porto", "1190"), ("Lyon", "2217"), ("Turin", "3345"), ("Ghent", "4478"))


def answers(tmp_path, name, text, questions):
    """Whether the answer to each question, asked of a memory of this one file, holds what is
    wanted.
    """
    (tmp_path / name).write_text(text, encoding="utf-8")
    with cmt_sdk.open(tmp_path / "memory") as memory:
        memory.add(tmp_path / name)
        return [wanted in memory.model.ask(question).text for question, wanted in questions]


def test_rows_of_a_table(tmp_path):
    """Phone numbers out of a csv file: most are right (of rows cut anywhere, below one header, none
    was).
    """
    rows = [
        f"{name},{n + 4} Oak Tree Road,Port Elm,555 0{100 + n * 7},{106 + n}"
        for n, name in enumerate(NAMES)
    ]
    questions = [
        (f"What is the phone number of {NAMES[n]}?", f"555 0{100 + n * 7}") for n in (1, 3, 4, 7, 9)
    ]
    found = answers(
        tmp_path, "people.csv", "\n".join(["name,street,city,phone,price net", *rows]), questions
    )
    assert sum(found) >= 3


def test_sections_below_a_line_that_looks_like_a_fence(tmp_path):
    """Each office has its own door code (two of four were right before)."""
    sections = [
        f"# {name} office\n\n## Contact\n\nThe door code is {code}.\n" for name, code in OFFICES
    ]
    text = sections[0].replace(
        "## Contact", "```badge print``` makes a new badge.\n\n## Contact"
    ) + "\n".join(sections[1:])
    questions = [(f"What is the door code of the {name} office?", code) for name, code in OFFICES]
    assert sum(answers(tmp_path, "offices.md", text, questions)) >= 3
