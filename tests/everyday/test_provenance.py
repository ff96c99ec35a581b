"""Where an answer is from: the passage, and the characters in it, in which its words stand."""

from __future__ import annotations

import pytest

from cmt_sdk.text.provenance import first_of, trace_answer, words_of

CAKE = ("Apple cake", "Slice 5 apples. Bake at 180 degrees for 45 minutes.")
BREAD = ("Sourdough", "Rest it overnight. Bake at 230 degrees for 20 minutes, then 25 more.")
LAMP = ("", "The lamp of the lighthouse was lit in 1861 by Oskar Lind.")
RABBIT = ("Momo", "A rabbit of three years. The vet is Dr. Acar.")
LONG = (
    "School begins on 3 September, in the gym, for new pupils, for those who come from other"
    " schools, for all who move up. "
)
SCHOOL = ("", LONG + "Parents' evening of class 5: 3 September.")
CASES = {
    "the words of another passage than the best": (
        "How long do I bake the apple cake?",
        "20 minutes",
        [CAKE, BREAD],
        1,
        "20 minutes",
    ),
    "the words of the best one": (
        "How long do I bake the apple cake?",
        "45 minutes",
        [CAKE, BREAD],
        0,
        "45 minutes",
    ),
    "case and full stop": ("Who lit the lamp?", "oskar lind.", [BREAD, LAMP], 1, "Oskar Lind"),
    "a sentence that repeats the question": (
        "Who lit the lamp of the lighthouse?",
        "The lamp of the lighthouse was lit by Oskar Lind.",
        [("", "The lamp of the lighthouse is bright. It was sold."), LAMP],
        1,
        "lamp of the lighthouse was lit in 1861 by Oskar Lind",
    ),
    "an answer in another order": (
        "When and by whom was it lit?",
        "Oskar Lind, 1861",
        [CAKE, LAMP],
        1,
        "1861 by Oskar Lind",
    ),
    "one digit, near the question's words": (
        "How many keys does the shed have?",
        "2",
        [
            ("", "Route 2 leads to the lake and to the school."),
            ("", "The shed has 2 keys. Row 2 is empty."),
        ],
        1,
        "2",
    ),
    "one letter": (
        "In which class is Jon?",
        "b",
        [("", "Plan b is to wait."), ("", "Jon is in class b.")],
        1,
        "b",
    ),
    "the same words in two passages: the better match": (
        "When was it lit?",
        "1861",
        [LAMP, ("", "In 1861 it snowed.")],
        0,
        "1861",
    ),
    "thousands with and without a separator": (
        "What did it cost?",
        "2310 euros",
        [CAKE, ("", "It cost 2,310 euros.")],
        1,
        "2,310 euros",
    ),
    "a part of a number is another number": (
        "What did it cost?",
        "310",
        [("", "It cost 2,310 euros."), ("", "Room 310.")],
        1,
        "310",
    ),
    "decomposed accents": (
        "Where?",
        "Caf\u00e9 M\u00fcller",
        [CAKE, ("", "We met at Cafe\u0301 Mu\u0308ller.")],
        1,
        "Cafe\u0301 Mu\u0308ller",
    ),
    "full-width digits": (
        "Which room?",
        "房间 207",
        [CAKE, ("", "乔恩在房间２０７上课。")],
        1,
        "房间２０７",
    ),
    "a script without spaces": (
        "打印机在哪里？",
        "蓝色文件夹",
        [CAKE, ("", "密码在蓝色文件夹里。")],
        1,
        "蓝色文件夹",
    ),
    "an ending more": (
        "When does Maja swim?",
        "Tuesday",
        [CAKE, ("", "Maja swims on Tuesdays.")],
        1,
        "Tuesdays",
    ),
    "the occurrence near the question's words": (
        "When is the parents' evening of class 5?",
        "3 September",
        [SCHOOL],
        0,
        "3 September",
    ),
}


@pytest.mark.parametrize(
    ("question", "answer", "passages", "expected", "words"), CASES.values(), ids=CASES.keys()
)
def test_the_passage_that_an_answer_is_from(question, answer, passages, expected, words):
    """It is the one in which the answer's words stand together, and the trace gives their
    characters.
    """
    found = trace_answer(question, answer, passages)
    first = first_of(found)
    assert first == expected
    trace = found[first]
    assert passages[first][1][trace.start : trace.end] == words


def test_the_last_of_two_occurrences_is_chosen_by_what_stands_around_it():
    """The first "3 September" is far from the question's words."""
    question, answer, passages, *_ = CASES["the occurrence near the question's words"]
    (trace,) = trace_answer(question, answer, passages)
    assert trace.start == passages[0][1].rindex("3 September")


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("Is the lamp lit?", "Yes"),
        ("Who sold the boat?", "Wilhelmina Vance"),
        ("What?", "..."),
        ("What?", ""),
    ],
    ids=["yes", "invented", "no words", "empty"],
)
def test_an_answer_whose_words_stand_nowhere_is_from_no_passage(question, answer):
    """No passage comes first, and none has a place for it."""
    found = trace_answer(question, answer, [CAKE, BREAD, LAMP])
    assert first_of(found) is None
    assert [(t.holds, t.start, t.end) for t in found] == [(False, None, None)] * 3


def test_an_answer_that_stands_in_the_heading_alone_has_no_characters():
    """The heading is no part of the passage's text: the passage holds the answer, without a
    place.
    """
    found = trace_answer("What is the rabbit called?", "Momo", [LAMP, RABBIT])
    assert first_of(found) == 1
    assert (found[1].holds, found[1].start, found[1].end) == (True, None, None)


def test_an_answer_of_several_passages_comes_from_the_one_that_holds_most():
    """Both hold a part; each part has its place."""
    passages = [("", "Ann drinks tea."), ("", "Bob drinks black coffee from Peru.")]
    found = trace_answer("What do they drink?", "tea and black coffee from Peru", passages)
    assert first_of(found) == 1
    assert passages[1][1][found[1].start : found[1].end] == "black coffee from Peru"


@pytest.mark.parametrize(
    ("text", "forms"),
    [
        ("Straße, STRASSE", ["strasse", "strasse"]),
        ("1,250,000 or 1.5 or 9:40", ["1250000", "or", "1", "5", "or", "9", "40"]),
        ("GX-20931", ["gx", "20931"]),
        ("so\u00adft wo\u200brds", ["soft", "words"]),
        ("iPhone用の箱", ["iphone", "用", "の", "箱"]),
        ("ﬁne", ["fine"]),
        ("2019³ H₂O ½", ["2019", "3", "h", "2", "o", "1", "2"]),
        ("٢٠٢٦ और २६", ["2026", "और", "26"]),
    ],
    ids=[
        "sharp s",
        "numbers",
        "identifier",
        "invisible characters",
        "two scripts",
        "ligature",
        "superscripts",
        "other digits",
    ],
)
def test_words_are_compared_in_one_form(text, forms):
    """Case, accents, compatibility and invisible characters do not count."""
    assert [word.form for word in words_of(text)] == forms
