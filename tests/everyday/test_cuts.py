"""Where a passage ends: never within a number, a word or a grapheme while another place is near,
and where the text says.
"""

import random
import re

import pytest
import regex
from hypothesis import given, settings
from hypothesis import strategies as st

from cmt_sdk.text.splitting import rules_for, split

WORDS = [
    "boat",
    "pier",
    "lamp",
    "rope",
    "tide",
    "wind",
    "harbour",
    "owner",
    "key",
    "door",
    "office",
    "berth",
    "engine",
    "sail",
]


def tokens(texts):
    """A token counter: parts of words, marks, line ends."""
    return [len(re.findall(r"\w{1,4}|[^\w\s]|\n", text)) for text in texts]


def cut(text, suffix=".md", budget=40):
    """The texts of the passages."""
    return [
        text[s.start : s.end] for s in split(text, tokens, budget, rules=rules_for(f"x{suffix}"))
    ]


WHOLE = {
    "thousands": [f"1,250,{n:03d}" for n in range(40)],
    "thousands-with-spaces": [f"{n} 250 000 euros" for n in range(100, 140)],
    "decimals": [f"3.{n}" for n in range(100, 160)],
    "phones": [f"+44 20 7946 0{n}" for n in range(900, 930)],
    "dates": [f"{n} March 2026" for n in range(1, 29)],
    "dates-in-german": [f"{n}. März" for n in range(1, 29)],
    "times": [f"10:{n}:05" for n in range(10, 40)],
    "addresses-of-machines": [f"192.168.4.{n}" for n in range(100, 140)],
    "books": [f"978-3-16-1484{n}-0" for n in range(10, 40)],
    "identifiers": [f"E-{n}" for n in range(1000, 1060)],
    "web": [f"https://example.org/boat/{n}" for n in range(30)],
    "no-break-spaces": [f"{n}\u00a0km" for n in range(100, 160)],
    "amounts": [f"{n} €" for n in range(100, 140)] + [f"€ {n}" for n in range(140, 160)],
}


@pytest.mark.parametrize("parts", WHOLE.values(), ids=WHOLE)
def test_what_belongs_together_is_not_torn(parts):
    """In a line without a full stop each of them stands whole in a passage."""
    found = cut(" ".join(f"then {part} it was" for part in parts), budget=60)
    assert len(found) > 2
    assert [part for part in parts if not any(part in body for body in found)] == []


GRAPHEMES = {
    "family": "👩‍👩‍👧‍👦",
    "flag": "🇵🇹",
    "combining": "e\u0301",
    "devanagari": "क्षि",
    "skin": "👍🏽",
    "hangul": "\u1112\u1161\u11ab",
}


@pytest.mark.parametrize("one", GRAPHEMES.values(), ids=GRAPHEMES)
def test_graphemes_stay_whole(one):
    """In a run without spaces."""
    found = cut(one * 200)
    assert len(found) > 2
    assert {grapheme for body in found for grapheme in regex.findall(r"\X", body)} == {one}


SENTENCES = {
    "chinese": ["船是红色的。", "它在码头！", "钥匙在哪里？", "在厨房里。"] * 4,
    "japanese": ["船は赤いです。", "彼は「行こう。」", "鍵はどこですか？"] * 5,
    "hindi": ["नाव लाल है। ", "वह घाट पर है। ", "कल हम जाएंगे। "] * 5,
    "arabic": ["أين المفتاح؟ ", "المفتاح في المطبخ. ", "القارب أحمر! "] * 5,
    "urdu": ["کشتی سرخ ہے۔ ", "چابی باورچی خانے میں ہے۔ "] * 6,
    "armenian": ["Նավը կարմիր է։ ", "Բանալին խոհանոցում է։ "] * 6,
    "german": ["Wir treffen uns am 3. März, z. B. im Hafen. ", "Bitte komm um 10.30 Uhr. "] * 5,
    "spanish": ["¿Dónde está la llave? ", "¡Está en la cocina! "] * 6,
    "french": ["« Où est la clé ? » ", "Elle est là… "] * 6,
}


@pytest.mark.parametrize("sentences", SENTENCES.values(), ids=SENTENCES)
def test_sentences_of_any_script(sentences):
    """A passage ends with one of them."""
    found = cut("".join(sentences), budget=30)
    assert len(found) > 1
    assert {body for body in found if not any(body.endswith(s.strip()) for s in sentences)} == set()


def test_paragraphs_come_before_sentences():
    """Where both are near, a passage ends with a paragraph."""
    rng = random.Random(3)
    text = "\n\n".join(" ".join(sentence(rng) for _ in range(4)) for _ in range(30))
    paragraphs = text.split("\n\n")
    found = cut(text, budget=200)
    assert [body for body in found if body.split("\n\n")[-1] not in paragraphs] == []


def test_lines_of_wrapped_prose_are_no_places():
    """A letter whose lines are as long as the page is wide is cut between its sentences."""
    text = (
        "The boat was moored at the old pier of the town of\nPort Elm, and its owner, Ann Abel, had"
        " left the key\nwith Bob Berg at the office. It was found there in the\nmorning by the"
        " harbour master, who took it home.\n"
    )
    assert cut(text, ".txt", 40)[0].endswith("at the office.")


def sentence(rng):
    """A sentence of its own."""
    return " ".join(rng.choice(WORDS) for _ in range(9)).capitalize() + f" {rng.randrange(10**4)}."


KINDS = {
    "journal": ("\n", lambda n, s: f"2026-{1 + n // 28 % 12:02d}-{1 + n % 28:02d} {s}", ".md"),
    "paragraphs": ("\n\n", lambda n, s: f"{s} {s[::-1]}", ".md"),
    "prose": (" ", lambda n, s: s, ".txt"),
    "items": ("\n", lambda n, s: f"- {s}", ".md"),
    "records": ("\n", lambda n, s: f"- day: {n}; what: {s}", ".csv"),
    "log": ("\n", lambda n, s: f"2026-03-04 10:{n // 60 % 60:02d}:{n % 60:02d} INFO {s}", ".log"),
    "cjk": (
        "",
        lambda n, s: "".join(chr(0x4E00 + (hash_of(s) >> k) % 2000) for k in range(24)) + "。",
        ".md",
    ),
}


def hash_of(text):
    """A number that the text decides."""
    return int.from_bytes(text.encode()[:16], "big")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("change", ["append", "insert", "delete", "change"])
def test_a_line_moves_few_passages(kind, change):
    """Of many: at most three for a line at the end, and for a line anywhere the text of three and a
    half on average: records are cut to smaller passages, of which more move.
    """
    separator, line, suffix = KINDS[kind]
    rng = random.Random(7)
    lines = [line(n, sentence(rng)) for n in range(1200)]
    known = set(cut(separator.join(lines), suffix, 240))
    assert len(known) > 40
    moved, size = [], 0
    for _ in range(6):
        at = len(lines) if change == "append" else rng.randrange(1, len(lines) - 1)
        new = [] if change == "delete" else [line(at, sentence(rng))]
        after = lines[:at] + new + lines[at if change in ("append", "insert") else at + 1 :]
        new_passages = [
            body for body in cut(separator.join(after), suffix, 240) if body not in known
        ]
        moved.append(len(new_passages))
        size += sum(tokens(new_passages))
    if change == "append":
        assert max(moved) <= 3
    assert size / len(moved) <= 3.5 * 240


def test_passages_are_well_filled():
    """In a long text without headings: three quarters of the budget on average."""
    rng = random.Random(5)
    found = cut(" ".join(sentence(rng) for _ in range(2000)), budget=200)
    assert sum(tokens(found)) / len(found) > 0.72 * 200


PIECES = {
    ".md": [
        "```a\n\n",
        "<!--\n\n",
        "- - ",
        "> ",
        "[a]: b\n",
        "a\n: b\n",
        "<table><tr>",
        "| a |\n|-|\n",
        "data:a/b,",
        "- a\n  - b\n",
    ],
    ".txt": ["* ", "= =\n", "- a\n", "a\n==\n", "a & b \\\\\n", "&", "| a | b |\n"],
    ".rst": ["+--+\n", "+==+\n", "=== ===\n", "a\n=\n\n", "- - "],
    ".adoc": ["----\n", "|===\n", "((("],
    ".org": ["#+begin_src\n", "* a\n"],
    ".tex": ["\\section{", "{", "\\begin{verbatim}"],
    ".csv": ['"a\n', "a,", '{"a":', "- a: b; "],
    ".yaml": ["  a:\n", "a:\n b:\n"],
    ".log": ["2026-01-01 a\n", " a\n"],
}


@pytest.mark.parametrize("suffix", PIECES)
def test_no_format_takes_quadratic_time(suffix):
    """Were one to, this test would take minutes."""
    for piece in PIECES[suffix]:
        found = split(
            "a\n" + piece * (40_000 // len(piece)),
            lambda texts: [len(t) for t in texts],
            1000,
            rules=rules_for(suffix),
        )
        assert max(span.tokens for span in found) <= 1000


@pytest.mark.parametrize("suffix", [*PIECES, ".srt", ".toml", ".wiki"])
@pytest.mark.parametrize("text", ["", "\n \n", "\n\n\nx\n", "  x", "x"])
def test_texts_of_nothing(suffix, text):
    """In every format."""
    assert cut(text, suffix) == [text.strip()][: bool(text.strip())]


LINES = [
    *[
        "# One",
        "## Two three",
        "Four",
        "====",
        "---",
        "```",
        "~~~",
        "- five six.",
        "  - seven",
        "\t- tab",
        "1. eight",
        "",
    ],
    *[
        "| 8 | 9 |",
        "|---|---|",
        ": def",
        "> # h",
        "<!--",
        "-->",
        "<table>",
        "<tr><th>a</th></tr>",
        "= A",
        "* C",
        "** D",
    ],
    *[
        "#+begin_src",
        "#+end_src",
        "[sec]",
        "a: b",
        "  c: d",
        "2026-03-04 log",
        "+--+--+",
        "+==+==+",
        "=== ===",
        "a & b \\\\",
    ],
    *[
        "|===",
        "----",
        '"q',
        'a,"b"',
        "- k: v; l: w",
        "1\u00a0km 5 €",
        "word " * 12,
        "x" * 30,
        "日本。語",
        "\u2028",
        "👩‍👩‍👧",
        "Ti\n~~",
    ],
]
COUNTERS = [lambda texts: [len(t.split()) for t in texts], lambda texts: [len(t) for t in texts]]


@settings(deadline=None)
@given(
    st.lists(st.sampled_from(LINES), max_size=20).map("\n".join),
    st.sampled_from([*PIECES, ".srt", ".toml", ".wiki"]),
    st.sampled_from(COUNTERS),
    st.integers(1, 40),
    st.sampled_from(["", "One", "A long title of many words here"]),
)
def test_nothing_is_lost_in_any_format(text, suffix, count, budget, title):
    """Passages lie in order within the budget; what lies between are headings whose words stand
    above the next passage.
    """
    end = 0
    for span in split(text, count, budget, title=title, rules=rules_for(f"x{suffix}")):
        body = text[span.start : span.end]
        assert body == body.strip() != ""
        assert span.tokens == count([body])[0] + (
            count([span.heading])[0] + 1 if span.heading else 0
        )
        assert span.tokens <= budget
        assert set(re.findall(r"\w+", text[end : span.start])) <= set(
            re.findall(r"\w+", span.heading)
        )
        end = span.end
    assert not re.search(r"\w", text[end:])
