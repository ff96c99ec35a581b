"""Ask thirty questions about forty everyday notes: python examples/everyday/ask.py [READER].

The notes are of ten kinds (a vault with front matter and daily notes, csv and json, a pdf form,
letters as docx, saved web pages, a log, recipes, bills, lists, other languages). An answer counts
as right when it holds the expected words as a whole: "18682" does not hold "1868".
"""

from __future__ import annotations

import re
import sys
import tempfile
from pathlib import Path

import cmt_sdk

HERE = Path(__file__).parent


def holds(text: str, expected: str) -> bool:
    """Whether one of the forms in `expected` (`a|b`) stands in `text`, not within a longer word."""
    forms = "|".join(re.escape(form) for form in expected.lower().split("|"))
    before_and_after = r"(?<![a-z0-9])({})(?![a-z0-9])"  # an ideograph may follow an ideograph
    return re.search(before_and_after.format(forms), text.lower()) is not None


def main(reader: str = "memory") -> int:
    """Add the notes to a new memory, ask, and print one line per question; return the number
    right.
    """
    lines = (HERE / "questions.tsv").read_text(encoding="utf-8").splitlines()
    right = 0
    with tempfile.TemporaryDirectory() as folder, cmt_sdk.open(folder) as memory:
        memory.add_many(cmt_sdk.read_documents([HERE / "notes"]))
        for line in lines:
            question, expected = line.split("\t")
            answer = memory.model.ask(question, reader=reader)
            is_right = holds(answer.text, expected)
            right += is_right
            ranks = [n for n, s in enumerate(answer.sources, 1) if holds(s.text, expected)]
            first = Path(answer.sources[0].source or "").name if answer.sources else "nothing"
            print(f"{'right' if is_right else 'WRONG'}  {question}")
            print(f"       {answer.text!r} ({answer.confidence:.2f}) from {first}", end="")
            print(
                "" if is_right else f"; expected {expected!r}, in passages {ranks or 'not found'}"
            )
    print(f"{right} of {len(lines)} right")
    return right


if __name__ == "__main__":
    main(*sys.argv[1:])
