"""What the model reads of a passage: rows of tables carry the names of their columns."""

import pytest

from cmt_sdk.text.rendering import render_passage
from cmt_sdk.types import Passage

CASES = {
    "rows of a table": (
        "Prices",
        "| Season | Entry |\n| --- | ---: |\n| Summer | 7 euros |\n| Winter | 4 euros |\nBye.",
        "Prices\n- Season: Summer; Entry: 7 euros\n- Season: Winter; Entry: 4 euros\nBye.",
    ),
    "the middle of a table, its header in the heading": (
        "Prices\n| Season | Entry |",
        "| Winter | 4 euros |",
        "Prices\n- Season: Winter; Entry: 4 euros",
    ),
    "a part that begins with the delimiter row": (
        "| a | b |",
        "| - | - |\n| 1 | 2 |",
        "- a: 1; b: 2",
    ),
    "a header alone in the heading": (
        "| Season | Entry |",
        "| Winter | 4 |\nBye.",
        "- Season: Winter; Entry: 4\nBye.",
    ),
    "an empty header": ("", "|  |  |\n|--|--|\n| Rent | 950 |", "- Rent; 950"),
    "an empty cell": ("", "| a | b | c |\n|-|-|-|\n| 1 |  | 3 |", "- a: 1; c: 3"),
    "an empty row": ("", "| a | b |\n|-|-|\n|  |  |\n| 1 | 2 |", "- a: 1; b: 2"),
    "a row of more cells": ("", "| a | b |\n|-|-|\n| 1 | 2 | 3 |", "- a: 1; b: 2; 3"),
    "a pipe in a cell": ("", "| a | b |\n|-|-|\n| x \\| y | 2 |", "- a: x | y; b: 2"),
    "rows without a last pipe": ("", "| a | b\n|-|-\n| 1 | 2", "- a: 1; b: 2"),
    "org": ("", "| a | b |\n|---+---|\n| 1 | 2 |", "- a: 1; b: 2"),
    "rows without a header": (
        "",
        "| shed 0 | code 1 |\n| shed 1 | code 2 |",
        "| shed 0 | code 1 |\n| shed 1 | code 2 |",
    ),
    "two rows of values": (
        "Doors",
        "| x | 1 |\n| y | 2 |\n| z | 3 |",
        "Doors\n| x | 1 |\n| y | 2 |\n| z | 3 |",
    ),
    "bars in a sentence": ("", "|x| is small\n|y| is large", "|x| is small\n|y| is large"),
    "long names of columns": (
        "",
        "| the name of the first column | b |\n|-|-|\n| 1 | 2 |\n| 3 | 4 |\n| 5 | 6 |\n| 7 | 8 |",
        "| the name of the first column | b |\n|-|-|\n| 1 | 2 |\n| 3 | 4 |\n| 5 | 6 |\n| 7 | 8 |",
    ),
    "a quotation with pipes": ("", "He said | and went.", "He said | and went."),
    "one line with pipes": ("", "| alone | here |", "| alone | here |"),
    "a header without rows": ("", "| a | b |\n|---|---|", "| a | b |\n|---|---|"),
    "a line of verse": ("", "| one\n| two", "| one\n| two"),
    "no table": ("Boats", "The ferry leaves at ten.", "Boats\nThe ferry leaves at ten."),
    "full width": ("", "\uff2dodel \uff38\uff39\uff3a\uff19", "Model XYZ9"),
}


@pytest.mark.parametrize(("heading", "text", "read"), CASES.values(), ids=CASES)
def test_a_row_is_read_with_the_names_of_its_columns(heading, text, read):
    """Each value stands behind its column's name, in its own line; other lines stay."""
    assert render_passage(Passage(1, "a", 1, 0, 0, len(text), 1, text, heading)) == read
