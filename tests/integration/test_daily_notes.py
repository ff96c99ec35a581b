"""The real default model: a day is asked for in another notation than that of the note."""

import pytest

import cmt_sdk

pytestmark = pytest.mark.model

MET = {
    "2026-03-02": "Olga",
    "2026-03-03": "Bob",
    "2026-03-04": "Carla",
    "2026-03-05": "Emma",
    "2026-05-04": "Frank",
}
ASKED = {
    "4 March 2026": "Carla",
    "March 5": "Emma",
    "03.03.2026": "Bob",
    "2 March": "Olga",
    "May 4th, 2026": "Frank",
}


def test_a_note_of_a_day_answers_in_every_notation(tmp_path):
    """Of five forms at least four are right, and the first source is the note of the day each
    time.
    """
    with cmt_sdk.open(tmp_path / "daily") as memory:
        for day, name in MET.items():
            text = (
                f"# {day}\n\nMet {name} at noon. We talked for an hour about the boat and the"
                " summer.\n"
            )
            memory.add(text, source=f"{day}.md")
        answers = {date: memory.model.ask(f"Who did I meet on {date}?") for date in ASKED}
    assert sum(name in answers[date].text for date, name in ASKED.items()) >= 4
    assert [MET[answers[date].sources[0].source.removesuffix(".md")] for date in ASKED] == list(
        ASKED.values()
    )
