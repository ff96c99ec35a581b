"""Texts to passages: where they are cut, what they keep, how large they are."""

import re
from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cmt_sdk.text.splitting import split


def words(texts):
    """A token counter: words."""
    return [len(text.split()) for text in texts]


def letters(texts):
    """A token counter: characters."""
    return [len(text) for text in texts]


def passages(text, budget, count_tokens=words):
    """The texts of the passages."""
    return [text[s.start : s.end] for s in split(text, count_tokens, budget)]


def under_headings(text, budget=20):
    """The passages with the heading each stands under."""
    return [(s.heading, text[s.start : s.end]) for s in split(text, words, budget)]


def test_a_short_text_is_one_passage():
    """With its place, without the white space around it."""
    (span,) = split("\n It moved. It is open.\n\n", words, 20)
    assert (span.start, span.end, span.tokens, span.heading) == (2, 23, 5, "")


@pytest.mark.parametrize("text", ["", " \n\t\r\n "])
def test_nothing_to_cut(text):
    """Of nothing there are no passages."""
    assert split(text, words, 20) == []


def test_cut_between_sentences():
    """And into parts of about even length, not one full and a rest."""
    text = "One two three. Four five six! Seven eight nine? Ten eleven twelve."
    assert passages(text, 9) == [
        "One two three. Four five six!",
        "Seven eight nine? Ten eleven twelve.",
    ]


def test_sentences_end_behind_quotes_and_brackets():
    """The closing mark belongs to its sentence."""
    text = 'He said "go on." She went (at last!) Then… they left.'
    assert passages(text, 4) == ['He said "go on."', "She went (at last!)", "Then… they left."]


@pytest.mark.parametrize(
    "sentence",
    [
        "Dr. Smith met Prof. Jones at St. Mary today.",
        "J. R. Tolkien wrote of the U.S. Navy here.",
        "Use oils, e.g. olive oil, i.e. approx. two spoons.",
        "On Sept. 3 version 2.5.1 of example.org came out.",
    ],
)
def test_abbreviations_end_no_sentence(sentence):
    """Nor do the points in numbers and addresses: the only cut is the one between the two
    sentences.
    """
    assert passages(f"{sentence} And more follows.", 9) == [sentence, "And more follows."]


def test_an_abbreviation_is_a_word():
    """A word that ends like one still ends its sentence."""
    assert passages("They paid in cash at a disco. It was no casino. Good.", 8) == [
        "They paid in cash at a disco.",
        "It was no casino. Good.",
    ]


def test_list_items_stay_whole():
    """Each is a place to cut, bulleted or numbered; a line that goes on belongs to its item."""
    text = (
        "Bring this to us:\n- a red cup\n  with lid\n* two blue bowls too\n1. three plates\n2) four"
    )
    assert passages(text, 6) == [
        "Bring this to us:",
        "- a red cup\n  with lid",
        "* two blue bowls too",
        "1. three plates\n2) four",
    ]


def test_table_rows_stay_whole():
    """A table is cut between its rows."""
    text = "| Year | City |\n| --- | --- |\n| 2019 | Lisbon |\n| 2021 | Porto |"
    assert passages(text, 10) == [
        "| Year | City |\n| --- | --- |",
        "| 2019 | Lisbon |\n| 2021 | Porto |",
    ]


def test_code_stays_whole():
    """In a block of code there are no headings, lists, paragraphs or sentences."""
    code = "```python\n# No heading. At all.\n\n- x\n```"
    assert under_headings(f"Before it.\n{code}\nBehind it.", 9) == [
        ("", "Before it."),
        ("", code),
        ("", "Behind it."),
    ]


def test_code_that_never_ends():
    """It goes to the end of the text, and is cut like a long sentence."""
    assert passages("~~~\n# a b\n\n# c d e f\n", 5) == ["~~~\n# a b", "# c d e f"]


def test_cjk_needs_no_spaces():
    """Its full stops end sentences, the closing bracket included."""
    text = "彼は「行こう。」と言った。今日は晴れですか？はい！"
    assert passages(text, 9, letters) == [
        "彼は「行こう。」",
        "と言った。",
        "今日は晴れですか？",
        "はい！",
    ]


def test_headings_are_not_part_of_passages():
    """They stand beside them, as the path to the section."""
    text = (
        "Intro.\n\n# Museum\nIt moved.\n\n## Shop ##\nIt sells C#.\n\n### About C#\nIt is a"
        " language.\n\n# Zoo\nIt closed."
    )
    assert under_headings(text, 40) == [
        ("", "Intro."),
        ("Museum", "It moved."),
        ("Museum > Shop", "It sells C#."),
        ("Museum > Shop > About C#", "It is a language."),
        ("Zoo", "It closed."),
    ]


def test_underlined_headings():
    """Like those with hashes; below a longer paragraph a line of dashes is none."""
    text = "Museum\n======\nIt moved.\n\nShop\n---\nIt is open.\nIt sells books.\n---\n\nEnd."
    assert under_headings(text) == [
        ("Museum", "It moved."),
        ("Museum > Shop", "It is open.\nIt sells books.\n---\n\nEnd."),
    ]


def test_no_headings():
    """Hashes without a space or without a title, and dashes on their own."""
    text = "#tag\n\n#  \n\n---\n\n####### seven"
    assert under_headings(text) == [("", text)]


def test_a_heading_without_text_is_text():
    """It is a passage of its own, under the headings above it; one right above a deeper one is
    among that one's headings.
    """
    assert under_headings("# Museum\n## Shop\n## Garden\nRoses.\n# End", 14) == [
        ("Museum", "## Shop"),
        ("Museum > Garden", "Roses."),
        ("", "# End"),
    ]


def test_long_paths_keep_their_top():
    """At most a quarter of the budget is heading: the top stays, a heading that finds no room is
    text.
    """
    text = "# One two three\nUpper text.\n## Four five\nLower text."
    assert under_headings(text, 12) == [
        ("One two three", "Upper text."),
        ("One two three", "## Four five\nLower text."),
    ]


def test_a_heading_too_long_for_one_is_text():
    """What it says is not lost: the first passage begins with it."""
    text = "# The museum of the sea moved\nIn 2019."
    assert under_headings(text, 12) == [("", text)]
    text = "The museum of the sea moved\n---\nIn 2019."
    assert under_headings(text, 12) == [("", text)]


def test_the_heading_counts():
    """A passage's size is that of its text and its heading with a token between them."""
    text = "# Museum\n" + "One two three. " * 8
    assert [(s.heading, s.tokens) for s in split(text, words, 14)] == [
        ("Museum", 14),
        ("Museum", 14),
    ]


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_line_ends(newline):
    """Lines from another system are the same lines."""
    text = "# Museum #\n\nOne two.\nThree.\n\nShop\n----\n- four\n- five\n".replace("\n", newline)
    assert [(s.heading, text[s.start : s.end].split()) for s in split(text, words, 20)] == [
        ("Museum", ["One", "two.", "Three."]),
        ("Museum > Shop", ["-", "four", "-", "five"]),
    ]


def test_a_long_sentence_is_cut_between_words():
    """Where its two last parts are about even."""
    assert passages("aa bb cc dd ee", 3) == ["aa bb cc", "dd ee"]


def test_an_enormous_word_is_cut_anywhere():
    """There is no better place, and nothing of it is lost."""
    found = passages("Begin. " + "x" * 100_000 + " end.", 1000, letters)
    assert "".join("".join(found).split()) == "Begin." + "x" * 100_000 + "end."
    assert max(map(len, found)) <= 1000


def test_parts_that_count_more_together():
    """A tokenizer may need more tokens for a whole than for its parts: the passage is halved until
    it fits.
    """

    def spaced(texts):
        return [len(text.split()) + text.count(". ") for text in texts]

    assert passages("One two. Three four. Five six. Seven.", 7, spaced) == [
        "One two. Three four.",
        "Five six. Seven.",
    ]


@pytest.mark.parametrize(
    "piece",
    [
        "It moved in 2019. ",
        "x",
        ".",
        "A. ",
        "日本語です。",
        "- a b\n",
        "| a | b |\n",
        "# H\n",
        "---\n",
        " \n",
        '"',
        "```\n",
        "a\n---\n",
    ],
)
def test_no_pattern_takes_quadratic_time(piece):
    """Were one to, this test would take minutes."""
    text = "a\nb\n# Begin" + " " * 3000 + "it\n" + piece * (100_000 // len(piece)) + "end"
    assert passages(text, 4000, letters)[-1].endswith("end")


def test_a_megabyte_of_text():
    """All of it is there, in passages that are nearly full."""
    text = "It moved to Lisbon in 2019. " * 36_000
    spans = split(text, words, 120)
    assert " ".join(text[s.start : s.end] for s in spans) == text.strip()
    assert {s.tokens for s in spans[:-1]} == {120}


blocks = [
    "# One",
    "## Two three",
    "#",
    "# #",
    "Four",
    "====",
    "---",
    "```",
    "~~~",
    "- five six.",
    "1. seven",
    "| 8 | 9 |",
    "",
    "  ",
]
runs = [
    "Dr. Ten.",
    "Eleven twelve. Thirteen!",
    "日本。語",
    "word " * 12,
    "x" * 30,
    "    indented",
    "\r",
    "\u2028",
    "\x85 a",
    "fin.\u3000",
]
markdown = st.lists(st.sampled_from(blocks + runs) | st.text(max_size=12), max_size=25).map(
    "\n".join
)
counters = st.sampled_from([words, letters])


@settings(deadline=None)
@given(markdown, counters, st.integers(1, 40))
def test_passages_lie_in_order_within_the_budget(text, count_tokens, budget):
    """They never overlap, have no white space around them, and say their size."""
    spans = split(text, count_tokens, budget)
    assert all(a.end <= b.start for a, b in pairwise(spans))
    for span in spans:
        body = text[span.start : span.end]
        heading = count_tokens([span.heading])[0] + 1 if span.heading else 0
        assert body
        assert body == body.strip()
        assert span.tokens == count_tokens([body])[0] + heading
        assert span.tokens <= budget


@settings(deadline=None)
@given(markdown, counters, st.integers(1, 40))
@example("# One\n## Two three\n#", words, 16)
def test_nothing_is_lost(text, count_tokens, budget):
    """What lies in no passage is white space, or headings that the next passage stands under."""
    spans = split(text, count_tokens, budget)
    ends = [0, *(s.end for s in spans)]
    for end, span in zip(ends, spans, strict=False):
        # without underlines
        between = re.sub(r"(?m)^(.*\S.*)\n\s*(-+|=+)\s*$", r"\1", text[end : span.start])
        lines = [line.strip() for line in between.split("\n")]
        titles = [re.sub(r"^#+[ \t]+|[ \t]#+$", "", line).strip() for line in lines if line]
        assert [t for t in titles if t not in span.heading.split(" > ")] == []
    assert not text[ends[-1] :].strip()


@settings(deadline=None)
@given(
    st.lists(
        st.sampled_from(["Alpha.", "Beta gamma.", "Delta epsilon zeta."]), min_size=1, max_size=9
    ),
    st.integers(8, 40),
)
def test_no_passage_crosses_a_heading(paragraphs, budget):
    """However much room there is: each passage is of one section, unless the document is short."""
    sections = [
        *paragraphs,
        "Every word of this makes the document longer than half a passage. " * 8,
    ]
    text = "".join(f"# N{n}\n\n{p}\n\n" for n, p in enumerate(sections))
    found = under_headings(text, budget)[: len(paragraphs)]
    assert found == [(f"N{n}", p) for n, p in enumerate(paragraphs)]


def test_a_short_document_is_one_passage():
    """The reader sees its sections together; the heading is what stands above all of them."""
    text = "# Pond\n\n## Offer\n\n2,300 euros.\n\n## Liner\n\nOf 1 mm."
    assert under_headings(text, 100) == [("Pond", text.removeprefix("# Pond\n\n"))]
    assert under_headings(text, 12) == [
        ("Pond > Offer", "2,300 euros."),
        ("Pond > Liner", "Of 1 mm."),
    ]


def test_a_short_document_without_a_common_heading_keeps_all_lines():
    """Front matter and sections of the first level."""
    text = "---\ntags: [pond]\n---\n# Offer\n\n2,300 euros.\n\n# Liner\n\nOf 1 mm."
    assert under_headings(text, 100) == [("", text)]


def test_like_sections_of_a_short_document_stay_apart():
    """The reader takes the value of the neighbour otherwise."""
    text = "# Porto\n## Code\n22.\n# Lyon\n## Code\n31."
    assert under_headings(text, 100) == [("Porto > Code", "22."), ("Lyon > Code", "31.")]


def test_a_short_document_whose_heading_stands_twice():
    """It is the heading of both sections, and no line is lost that says more."""
    ((heading, body),) = under_headings("# A\n## B\nOne.\n# A\n## C\nTwo.", 100)
    assert (heading, body.split()) == ("A", ["##", "B", "One.", "#", "A", "##", "C", "Two."])
