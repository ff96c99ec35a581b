"""Dates, times and numbers find each other in every notation, and the question is read in that of
the passages.
"""

from decimal import Decimal

import pytest

from cmt_sdk.storage.store import SQLiteStore
from cmt_sdk.text.notation import in_notation_of
from cmt_sdk.text.words.dates import dates, times
from cmt_sdk.text.words.numbers import numbers
from cmt_sdk.types import Document, Filter, Span

FOURTH_OF_MARCH = [
    "2026-03-04", "2026/03/04", "2026.03.04", "20260304", "2026-03-04T08:30:00Z", "2026_03_04.md",
    "4 March 2026", "04 March 2026", "4th March 2026", "4th of March, 2026", "4 Mar 2026", "4-Mar-2026",
    "March 4, 2026", "March 4th, 2026", "Mar. 4, 2026", "MARCH 4 2026", "March the 4th, 2026", "Wednesday, March 4, 2026",
    "04.03.2026", "4.3.2026", "4. 3. 2026", "04.03.26", "4. März 2026", "Mittwoch, 4. März 2026", "4. Maerz 2026",
    "le 4 mars 2026", "4 de marzo de 2026", "4 de março de 2026", "4 marzo 2026", "4 maart 2026", "4 marca 2026",
    "4. března 2026", "4 марта 2026 г.", "4 березня 2026", "4 Mart 2026", "den 4 mars 2026", "4. maaliskuuta 2026",
    "2026. március 4.", "4 Μαρτίου 2026", "2026年3月4日", "2026 年 3 月 4 日", "2026년 3월 4일", "4 มีนาคม 2569",
    "4 مارس 2026", "4 במרץ 2026", "4 मार्च 2026", "4 tháng 3 năm 2026",
    "2026. 3. 4.", "二〇二六年三月四日", "4 de marco de 2026",
]  # fmt: skip


def read(text: str) -> set[tuple[int | None, int, int | None]]:
    """The dates of a text as year, month and day."""
    return {(date.year, date.month, date.day) for date in dates(text)}


@pytest.mark.parametrize("text", FOURTH_OF_MARCH)
def test_a_date_in_any_notation(text):
    """All of these are the fourth of March 2026."""
    assert read(f"It is {text}, a fine day.") == {(2026, 3, 4)}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("3/4/2026", {(2026, 3, 4), (2026, 4, 3)}),
        ("25/12/2026", {(2026, 12, 25)}),
        ("12/25/2026", {(2026, 12, 25)}),
        ("4/4/26", {(2026, 4, 4)}),
        ("4 March", {(None, 3, 4)}),
        ("March 4th", {(None, 3, 4)}),
        ("am 4. März", {(None, 3, 4)}),
        ("am 04.03. um acht", {(None, 3, 4)}),
        ("3月4日", {(None, 3, 4)}),
        ("March 2026", {(2026, 3, None)}),
        ("2026-03", {(2026, 3, None)}),
        ("in marzo del 2026", {(2026, 3, None)}),
        ("2026年3月", {(2026, 3, None)}),
        ("4–6 March 2026", {(2026, 3, 4), (2026, 3, 5), (2026, 3, 6)}),
        ("March 4-5, 2026", {(2026, 3, 4), (2026, 3, 5)}),
        ("4.-5. März 2026", {(2026, 3, 4), (2026, 3, 5)}),
        ("十二月二十四日", {(None, 12, 24)}),
        ("4 listopada 2026", {(2026, 11, 4), (2026, 10, 4)}),
    ],
)
def test_a_date_that_says_less_or_is_ambiguous(text, expected):
    """What is not said is not made up; both readings of an ambiguous one are there."""
    assert read(text) == expected


@pytest.mark.parametrize(
    "text",
    ["", "no date", "31.02.9", "2026-13-40", "45/67/2026", "version 1.2.3", "192.168.4.10", "chapter 4", "you may 2 go",
     "call 555-0106", "3 marches", "20261340", "ISBN 978-3-16-148410-0", "12345678", "30 February-like days"],
)  # fmt: skip
def test_what_is_no_date(text):
    """Versions, addresses and numbers are none; nor are days that no month has."""
    assert {date for date in read(text) if date[2]} <= {(None, 5, 2)}


@pytest.mark.parametrize(
    "text",
    [
        "17:30",
        "17.30 Uhr",
        "17h30",
        "5:30 pm",
        "5.30 p.m.",
        "17時30分",
        "午後5時30分",
        "오후 5시30분",
    ],
)
def test_a_time_in_any_notation(text):
    """All of these are half past five in the afternoon."""
    assert {(time.hour, time.minute) for time in times(f"at {text} sharp")} == {(17, 30)}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1250000", "1250000"), ("1,250,000", "1250000"), ("1.250.000", "1250000"), ("1 250 000", "1250000"),
        ("1'250'000", "1250000"), ("1.250.000,00", "1250000"), ("1,250,000.00", "1250000"), ("1.25 million", "1250000"),
        ("1,25 Millionen", "1250000"), ("1,25 Mio.", "1250000"), ("€1.25M", "1250000"), ("1250k", "1250000"),
        ("1,25 миллиона", "1250000"), ("125万", "1250000"), ("1.25 millones", "1250000"), ("3.5", "3.5"),
        ("3,5", "3.5"), ("12,50,000", "1250000"),
    ],
)  # fmt: skip
def test_a_number_in_any_notation(text, value):
    """One value is among what it can be read as."""
    assert Decimal(value) in {number.value for number in numbers(f"It has {text} of them")}


@pytest.mark.parametrize(
    "text", ["007", "192.168.4.10", "1-2-3", "A1043", "5 min", "12345678901234567890"]
)
def test_what_is_no_number(text):
    """Identifiers, and powers of ten where there are none."""
    assert not {number.value for number in numbers(text)} - {Decimal(5)}


@pytest.fixture
def store(tmp_path):
    """A store of daily notes and of some with numbers."""
    opened = SQLiteStore(tmp_path / "notes")
    for text in (
        "2026-03-04 Walked to the mill.", "2026-05-04 Baked bread.", "2026-03-05 Painted the fence.",
        "2025-03-04 Planted trees.", "4 and 2026 and march past", "2026-04-03 Sold the bicycle.",
        "The grant is 1,250,000 euros.", "The prize is 1,350,000 euros.", "It has 1 and 250 and 000 in it.",
        "The train leaves at 17:40.", "The bus leaves at 6:40.",
    ):  # fmt: skip
        opened.add(Document(text), [Span(0, len(text), 9, "")])
    yield opened
    opened.close()


def first(store: SQLiteStore, question: str) -> str:
    """The text of the passage that a search by words finds best."""
    hit = store.search_text(question, 5, Filter())[0].passage_id
    return store.passages([hit])[hit][0].text


@pytest.mark.parametrize("date", [d for d in FOURTH_OF_MARCH if d != "2026_03_04.md"])
def test_a_note_of_a_day_is_found(store, date):
    """The question may write the day as it likes."""
    assert first(store, f"What did I do on {date}?") == "2026-03-04 Walked to the mill."


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        ("What did I do on March 5?", "2026-03-05 Painted the fence."),
        ("on 5th of march", "2026-03-05 Painted the fence."),
        ("Was habe ich am 5. März gemacht?", "2026-03-05 Painted the fence."),
        ("What happened in May 2026?", "2026-05-04 Baked bread."),
        ("What happened on March 4th, 2025?", "2025-03-04 Planted trees."),
        ("Which one is 1.25 million?", "The grant is 1,250,000 euros."),
        ("1250000", "The grant is 1,250,000 euros."),
        ("1.350.000,00", "The prize is 1,350,000 euros."),
        ("1 250 000", "The grant is 1,250,000 euros."),
        ("What leaves at 5:40 pm?", "The train leaves at 17:40."),
        ("Was fährt um 17.40 Uhr?", "The train leaves at 17:40."),
    ],
)
def test_parts_of_dates_times_and_numbers_are_found(store, question, expected):
    """A day of any year, a month, a large number, a time."""
    assert first(store, question) == expected


NOTES = ["2026-03-05 Painted the fence.", "2026-03-04 Walked to the mill."]


@pytest.mark.parametrize(
    ("question", "passages", "expected"),
    [
        ("What did I do on 4 March 2026?", NOTES, "What did I do on 2026-03-04?"),
        ("What did I do on March 5?", NOTES, "What did I do on 2026-03-05?"),
        ("What did I do on 04.03.2026?", NOTES, "What did I do on 2026-03-04?"),
        ("What did I do on 4/3/2026?", NOTES, "What did I do on 2026-03-04?"),
        ("What did I do on 2026-03-04?", NOTES, "What did I do on 2026-03-04?"),
        ("What did I do on 6 March 2026?", NOTES, "What did I do on 6 March 2026?"),
        ("What did I do on 4 March 2024?", NOTES, "What did I do on 4 March 2024?"),
        ("And on 4 March and March 5?", NOTES, "And on 2026-03-04 and 2026-03-05?"),
        ("Who is there on 4 March 2026?", ["On March 4 Ann comes."], "Who is there on 4 March 2026?"),
        ("Who is there on 2026-03-04?", ["Am 4. März 2026 kommt Ann."], "Who is there on 4. März 2026?"),
        ("2026年3月4日谁来？", ["4 March 2026: Ann comes."], "4 March 2026谁来？"),
        ("Who got 1.25 million euros?", ["Ann got 1,250,000 euros."], "Who got 1,250,000 euros?"),
        ("Who got 1250000?", ["Ann got €1.25M."], "Who got 1.25M?"),
        ("Who got 1250000?", ["1250000 and 1,250,000"], "Who got 1250000?"),
        ("What leaves at 5:40 pm?", ["The train leaves at 17:40."], "What leaves at 17:40?"),
        ("Who has 3 cats?", ["Ann has 3,0 cats."], "Who has 3 cats?"),
        ("Where is the key?", NOTES, "Where is the key?"),
        ("What did I do on 4 March 2026?", [], "What did I do on 4 March 2026?"),
    ],
)  # fmt: skip
def test_a_question_takes_the_notation_of_the_passages(question, passages, expected):
    """What none of them says, and what one writes in the same way, stays as it is."""
    assert in_notation_of(question, passages) == expected
