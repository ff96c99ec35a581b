"""Days that the words of a statement mean: kept with it, in nine languages."""

import datetime as dt
import warnings
from pathlib import Path

import pytest

from cmt_sdk.testing.fakes import open_fake
from cmt_sdk.types import DAYS
from cmt_sdk.understanding.days import days_meant
from cmt_sdk.understanding.utterances import read_utterances

STATED = dt.date(2026, 3, 11)  # a Wednesday
CASES = [
    line.split("\t")
    for line in (Path(__file__).parent / "cases" / "relative_days.tsv")
    .read_text(encoding="utf-8")
    .splitlines()
]
# dateparser reads no number words in Spanish, and no article before "semaine"; of "three weeks ago"
# it says the week.
MISSED = {
    "I quit smoking three weeks ago.",
    "Nous avons déménagé la semaine dernière.",
    "Hace dos días se rompió la caldera.",
}


@pytest.mark.parametrize(("language", "text", "meant"), CASES, ids=[c[1][:30] for c in CASES])
def test_the_days_that_words_mean(language, text, meant):
    """A day, or the first and last of a week, month or year; none where no day is meant."""
    first, _, last = meant.partition("..")
    wanted = [(first, last or first)] if meant else []
    found = [(str(day.first), str(day.last)) for day in days_meant(text, STATED)]
    assert (found == wanted) == (text not in MISSED), found


def test_statements_that_name_no_day_have_none():
    """Of the shipped statements only those that name a day, a week or a year."""
    told = [u.text for u in read_utterances() if "tells" in u.labels and len(u.text) < 200]
    found = {text: days for text in told if (days := days_meant(text, STATED))}
    assert len(told) > 400
    assert len(found) < 60
    numbers = [text for text in found if "years old" in text or "a month" in text or ":45" in text]
    assert numbers == []


def test_all_words_of_a_day_are_read():
    """Not only the last of them."""
    (day,) = days_meant("My sister arrived the day before yesterday.", STATED)
    assert str(day) == "the day before yesterday: 2026-03-09"


def test_a_weekday_can_be_the_last_or_the_next_one():
    """Its tense decides, which is not read here: both are kept."""
    (day,) = days_meant("I lost my keys on Monday.", STATED)
    assert (str(day.first), str(day.next)) == ("2026-03-09", "2026-03-16")
    assert str(day) == "on Monday: 2026-03-09 or 2026-03-16"


@pytest.mark.parametrize(
    "text", ["", " ", "x" * 30_000, "99999999999 years ago", "\u202e", "0 ago"]
)
def test_no_text_fails(text):
    """Whatever it holds."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert days_meant(text, STATED) == []


def test_a_statement_keeps_its_days(tmp_path):
    """In its metadata; a statement that names none has none."""
    with open_fake(tmp_path / "notes") as memory:
        chat = memory.chat(remember=True)
        chat.say("I saw the dentist yesterday.")
        chat.say("I live in Porto.")
        first, second = memory.documents()
    yesterday = dt.datetime.now().astimezone().date() - dt.timedelta(days=1)
    assert first.text == "I saw the dentist yesterday."
    assert first.metadata == {"role": "user", DAYS: f"yesterday: {yesterday}"}
    assert second.metadata == {"role": "user"}
