"""What `cmt ask` and `cmt search` show of where an answer is from."""

from __future__ import annotations

import contextlib
import io
import os

import pytest
from click.testing import CliRunner

import cmt_sdk
from cmt_cli.main import main
from cmt_cli.source_display import line_of, print_sources
from cmt_sdk.testing.fakes import open_fake

CAKE = "# Apple cake\n\nSlice five apples.\nBake the apple cake for 45 minutes.\nLet it cool."
BREAD = "# Sourdough\n\nRest it overnight. Bake the sourdough bread for 20 minutes."


@pytest.fixture
def kitchen(cmt):
    """Two recipes of different days, without headings as sources."""
    cmt("add", "--text", CAKE, "--source", "cake.md", "--meta", "date=2024-05-01")
    cmt("add", "--text", BREAD, "--source", "bread.md", "--meta", "date=2023-02-11")
    return cmt


def test_the_document_comes_with_its_date_and_the_line_that_matters(kitchen):
    """Ranks, cosines and nats are left out; what does not hold the answer is a name."""
    answer, sure, name, line, others = kitchen(
        "ask", "How long do I bake the apple cake?"
    ).stdout.splitlines()
    assert (answer, sure) == (
        "Bake the apple cake for 45 minutes.",
        "confidence 1.00, read from memory",
    )
    assert (name, line) == ("cake.md (2024-05-01)", "   Bake the apple cake for 45 minutes.")
    assert others == "also read: bread.md (2023-02-11)"


def test_a_terminal_highlights_the_words_of_the_answer(kitchen):
    """In bold green; the rest of the line is dim."""
    asked = ["ask", "How long do I bake the apple cake?"]
    shown = CliRunner().invoke(main, asked, obj=open_fake, color=True).stdout
    assert "\x1b[32m\x1b[1mBake the apple cake for 45 minutes.\x1b[0m\x1b[2m\x1b[0m" in shown


def test_one_day_is_not_shown(cmt):
    """Dates help only where they differ."""
    for text, source in ((CAKE, "cake.md"), (BREAD, "bread.md")):
        cmt("add", "--text", text, "--source", source)
    assert "cake.md\n" in cmt("ask", "How long do I bake the apple cake?").stdout


def test_files_have_the_day_of_their_last_change(cmt, tmp_path):
    """Of two versions of a document people see which is newer."""
    for name, year, text in (
        ("old", 2023, "The parking permit costs 40 euros."),
        ("new", 2026, "The parking permit costs 65 euros."),
    ):
        (tmp_path / f"{name}.md").write_text(text)
        os.utime(tmp_path / f"{name}.md", (0, (year - 1970) * 365.25 * 86400 + 10 * 86400))
    cmt("add", tmp_path / "old.md", tmp_path / "new.md")
    shown = cmt("ask", "How much does the parking permit cost?").stdout
    assert "old.md (2023-01-1" in shown
    assert "new.md (2026-01-1" in shown


def test_where_the_memory_does_not_tell_there_are_names_alone(kitchen):
    """No line: none of them holds an answer."""
    shown = kitchen("ask", "Xylophone quartz?").stdout.splitlines()
    assert shown[0] == "I don't know."
    assert shown[2].startswith("looked for in: ")
    assert len(shown) == 3


def test_verbose_shows_every_passage_with_its_reasons(kitchen):
    """In the order of the scores."""
    lines = kitchen("ask", "-v", "How long do I bake the apple cake?").stdout.splitlines()
    assert lines[2].startswith("1. cake.md[")
    assert lines[3].startswith("   match 1, score 1.0000, meaning #1 (cosine")
    assert [line for line in lines if line.startswith("2. bread.md[")]


def test_search_has_names_and_lines_and_reasons_with_verbose(kitchen):
    """The best first, with their days."""
    first, _, second, _ = kitchen("search", "-k", "2", "apple cake").stdout.splitlines()
    assert (first, second) == ("1. cake.md (2024-05-01)", "2. bread.md (2023-02-11)")
    assert "words #1 (BM25" in kitchen("search", "--verbose", "apple cake").stdout


def test_json_is_complete(kitchen):
    """With the place of the answer's words, in characters of the document."""
    answer = kitchen.json("ask", "How long do I bake the apple cake?")
    source = answer["sources"][0]
    words = "Bake the apple cake for 45 minutes."
    assert CAKE[source["answer_start"] : source["answer_end"]] == words
    (span,) = answer["spans"]
    assert (span["document_id"], span["source"]) == (source["document_id"], source["source"])
    assert (CAKE[span["start"] : span["end"]], span["text"]) == (words, words)
    assert (source["rank"], source["holds_answer"], source["date"]) == (1, True, "2024-05-01")
    assert source["updated_at"][:2] == "20"


def shown(text, words=""):
    """The line of a text with these words."""
    at = text.find(words)
    return line_of(text, (at, at + len(words)) if words else None)


@pytest.mark.parametrize(
    ("text", "words", "expected"),
    [
        ("One. Two is here.\nThree.", "here", ("One. Two is ", "here", ".")),
        (
            f"{'Long as it seems. ' * 9}Two is here. Three is {'not ' * 9}.",
            "here",
            ("Two is ", "here", "."),
        ),
        (
            f"{'Long as it seems. ' * 9}Ask Dr. Weiss on 5. July. {'Then more. ' * 9}",
            "Weiss",
            ("Ask Dr. ", "Weiss", " on 5. July."),
        ),
        ("- flour 250 g\n- butter 120 g\n- plums", "120 g", ("- butter ", "120 g", "")),
        (
            "这是一。" * 40 + "密码在蓝色文件夹里。再见。",
            "蓝色文件夹",
            ("密码在", "蓝色文件夹", "里。"),
        ),
        ("Ends in Mai.", "Mai", ("Ends in ", "Mai", ".")),
        (
            "Born on\n4 March\nin Bonn. Then more.",
            "4 March\nin Bonn",
            ("", "4 March in Bonn", ". Then more."),
        ),
        ("It costs 3.50 today. Yes.", "3.50", ("It costs ", "3.50", " today. Yes.")),
    ],
    ids=[
        "short line",
        "sentence",
        "abbreviation",
        "list item",
        "Chinese",
        "end",
        "over lines",
        "number",
    ],
)
def test_the_line_is_the_sentence_in_which_the_answer_stands(text, words, expected):
    """In three parts, of which the second is highlighted."""
    assert shown(text, words) == expected


def test_a_long_line_is_cut_on_both_sides_of_the_answer():
    """The words of the answer are always whole; the line has 160 characters at the most."""
    before, words, after = shown("a " * 300 + "THIS" + " b" * 300, "THIS")
    assert words == "THIS"
    assert before[0] == "…"
    assert after[-1] == "…"
    assert len(before + words + after) <= 160


def test_without_a_place_the_line_is_the_beginning():
    """On one line, cut at its end."""
    assert shown("It is closed\non Mondays.") == ("It is closed on Mondays.", "", "")
    assert len(shown("word " * 100)[0]) == 160


def test_an_answer_that_is_a_heading_shows_what_stands_below(kitchen):
    """The heading as a passage has it, a path or another name, is no line of the file."""
    kitchen("add", "--text", "# Momo the rabbit\n\nThree years old.", "--source", "momo.md")
    source = cmt_sdk.Source(
        "d", 1, "momo.md", 19, 35, "Three years old.", 1.0, "", heading="Momo", holds_answer=True
    )
    answer = cmt_sdk.Answer("Momo", [source], "memory", False, 1.0, 1, 1, 1, {})
    with contextlib.redirect_stdout(io.StringIO()) as said:
        print_sources(answer)
    assert said.getvalue().splitlines()[1:] == ["momo.md", "   Three years old."]


def test_search_shows_the_line_that_holds_the_words(kitchen):
    """Wherever in the passage it stands."""
    lines = kitchen("search", "--mode", "text", "cool").stdout.splitlines()
    assert lines == ["1. cake.md", "   Let it cool."]


def test_the_date_of_the_front_matter_stands_behind_the_name(cmt, tmp_path):
    """Which of two notes is newer is told by the days that they name themselves."""
    for name, day in (("boiler", "2025-10-14"), ("heater", "2026-01-19")):
        (tmp_path / f"{name}.md").write_text(
            f"---\ndate: {day}\n---\nThe {name} was serviced by Kessel.\n"
        )
    cmt("add", tmp_path / "boiler.md", tmp_path / "heater.md")
    shown = cmt("ask", "Who serviced the boiler?").stdout
    assert "2025-10-14" in shown
    assert "2026-01-19" in shown
