"""What the model reads of a passage: rows of tables carry the names of their columns."""

import pytest

from cmt_sdk.rendering import render

CASES = {
    "rows of a table": (
        "Prices\n| Season | Entry |\n| --- | ---: |\n| Summer | 7 euros |\n| Winter | 4 euros |\nBye.",
        "Prices\n- Season: Summer; Entry: 7 euros\n- Season: Winter; Entry: 4 euros\nBye.",
    ),
    "the middle of a table, its header in the heading": (
        "Prices\n| Season | Entry |\n| Winter | 4 euros |",
        "Prices\n- Season: Winter; Entry: 4 euros",
    ),
    "an empty header": ("|  |  |\n|--|--|\n| Rent | 950 |", "- Rent; 950"),
    "an empty cell": ("| a | b | c |\n|-|-|-|\n| 1 |  | 3 |", "- a: 1; c: 3"),
    "a row of more cells": ("| a | b |\n|-|-|\n| 1 | 2 | 3 |", "- a: 1; b: 2; 3"),
    "a pipe in a cell": ("| a | b |\n|-|-|\n| x \\| y | 2 |", "- a: x | y; b: 2"),
    "rows without a last pipe": ("| a | b\n|-|-\n| 1 | 2", "- a: 1; b: 2"),
    "a quotation with pipes": ("He said | and went.", "He said | and went."),
    "one line with pipes": ("| alone | here |", "| alone | here |"),
    "a header alone": ("| a | b |\n|---|---|", "| a | b |\n|---|---|"),
    "a line of verse": ("| one\n| two", "| one\n| two"),
    "no table": ("The ferry leaves at ten.", "The ferry leaves at ten."),
    "full width": ("Ｍodel ＸＹＺ９", "Model XYZ9"),
}


@pytest.mark.parametrize(("content", "read"), CASES.values(), ids=CASES)
def test_a_row_is_read_with_the_names_of_its_columns(content, read):
    """Each value stands behind its column's name, in its own line; other lines stay."""
    assert render(content) == read
