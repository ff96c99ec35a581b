"""What is superseded is shown as such, with its date, in the terminal."""

import cmt_sdk
from cmt_cli.source_display import print_sources


def source(number, text, *, day, by=None, holds=False):
    """A source of this rank, named after its day."""
    told = {"date": day, "superseded_by": by, "holds_answer": holds}
    return cmt_sdk.Source(
        f"d{number}", number, f"{day}.md", 0, len(text), text, 1.0, "", rank=number, **told
    )


SOURCES = [
    source(1, "I live in Berlin now.", day="2026-11-29", holds=True),
    source(2, "I live in Paris.", day="2026-03-01", by="d1"),
]


def shown(capsys, **options):
    """What is printed of an answer with these sources."""
    costs = {"prompt_tokens": 1, "memory_tokens": 1, "answer_tokens": 1, "milliseconds": {}}
    answer = cmt_sdk.Answer("Berlin", SOURCES, "memory", abstained=False, confidence=0.9, **costs)
    print_sources(answer, **options)
    said = capsys.readouterr()
    return said.out + said.err


def test_an_older_value_follows_the_answer_with_its_date(capsys):
    """Its line is shown, and it is not among those that were read."""
    lines = shown(capsys)
    assert "superseded: 2026-03-01.md (2026-03-01)" in lines
    assert "I live in Paris." in lines
    assert "also read" not in lines


def test_every_detail_marks_it(capsys):
    """Behind its name."""
    assert "2. 2026-03-01.md[0:16] (2026-03-01), superseded" in shown(capsys, verbose=True)
