"""Tables of pages and letters: a full grid with a header for data, blocks for layout."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from cmt_sdk.converting.docx import from_docx
from cmt_sdk.converting.html import from_html
from tests.everyday.docx_files import docx, p

HTML = {
    "listed: letter in a layout table": (
        (
            "<table><tr><td><h1>Berth fees</h1><p>A berth costs 20 euros.</p><ul><li>water free"
            "<li>power 3 euros</ul></td></tr></table>"
        ),
        "# Berth fees\n\nA berth costs 20 euros.\n\n* water free\n* power 3 euros",
    ),
    "header and rows": (
        "<table><tr><th>Year<th>City<tr><td>2019<td>Lisbon</table>",
        "| Year | City |\n| --- | --- |\n| 2019 | Lisbon |",
    ),
    "spans of rows and columns": (
        (
            "<table><tr><th rowspan=2>Room<th colspan=2>Price<tr><th>net<th>gross"
            "<tr><td rowspan=2>A<td>1<td>2<tr><td>3<td>4</table>"
        ),
        "| Room | Price net | Price gross |\n| --- | --- | --- |\n| A | 1 | 2 |\n| A | 3 | 4 |",
    ),
    "spans without th": (
        (
            "<table><tr><td rowspan=2>Room<td"
            " colspan=2>Price<tr><td>net<td>gross<tr><td>A<td>1<td>2</table>"
        ),
        "| Room | Price net | Price gross |\n| --- | --- | --- |\n| A | 1 | 2 |",
    ),
    "a title within the rows": (
        "<table><tr><th>Drink<th>Price<tr><td colspan=2>Hot<tr><td>Tea<td>3</table>",
        "| Drink | Price |\n| --- | --- |\n| Hot |  |\n| Tea | 3 |",
    ),
    "a span to the end": (
        "<table><tr><th>Day<th>Room<tr><td rowspan=0>Monday<td>1<tr><td>2</table>",
        "| Day | Room |\n| --- | --- |\n| Monday | 1 |\n| Monday | 2 |",
    ),
    "foot before body": (
        "<table><thead><tr><th>Item<th>Price</thead><tfoot><tr><td>Sum<td>5</tfoot><tbody><tr><td>Tea<td>5</tbody></table>",
        "| Item | Price |\n| --- | --- |\n| Tea | 5 |\n| Sum | 5 |",
    ),
    "no header": (
        "<table><tr><td>Rent<td>950<tr><td>Deposit<td>1,200</table>",
        "|  |  |\n| --- | --- |\n| Rent | 950 |\n| Deposit | 1,200 |",
    ),
    "years as header": (
        "<table><tr><td><td>2024<td>2025<tr><td>Rent<td>900<td>950</table>",
        "|  | 2024 | 2025 |\n| --- | --- | --- |\n| Rent | 900 | 950 |",
    ),
    "row headers": (
        "<table><tr><th>Name<td>Ann<tr><th>Phone<td>555 0106</table>",
        "| Name | Ann |\n| --- | --- |\n| Phone | 555 0106 |",
    ),
    "caption": (
        "<table><caption>Fees of 2026</caption><tr><th>Berth<th>Fee<tr><td>A<td>20</table>",
        "Fees of 2026\n\n| Berth | Fee |\n| --- | --- |\n| A | 20 |",
    ),
    "lines in a cell": (
        "<table><tr><th>Name<th>Address<tr><td>Ann<td>9 Oak Road<br>Port Elm</table>",
        "| Name | Address |\n| --- | --- |\n| Ann | 9 Oak Road; Port Elm |",
    ),
    "a bar in a cell": (
        "<table><tr><th>Key<th>Use<tr><td>a|b<td>pipe</table>",
        "| Key | Use |\n| --- | --- |\n| a\\|b | pipe |",
    ),
    "a table in a cell": (
        "<table><tr><th>Room<th>Fees<tr><td>A<td><table><tr><td>net<td>1<tr><td>gross<td>2</table></table>",
        "| Room | Fees |\n| --- | --- |\n| A | net, 1; gross, 2 |",
    ),
    "empty rows and columns": (
        "<table><tr><th>A<th><th>B<tr><td><td><td><tr><td>1<td><td>2</table>",
        "| A | B |\n| --- | --- |\n| 1 | 2 |",
    ),
    "presentation": (
        (
            '<table role="presentation"><tr><td><p>Dear Ann,</p></td></tr><tr><td>Yours,'
            " Bob</td></tr></table>"
        ),
        "Dear Ann,\n\nYours, Bob",
    ),
    "receipt in nested layout": (
        (
            "<table><tr><td><h2>Receipt"
            " 4711</h2><table><tr><td>Tea<td>3.00<tr><td>Cake<td>4.50</table></td></tr></table>"
        ),
        "## Receipt 4711\n\n|  |  |\n| --- | --- |\n| Tea | 3.00 |\n| Cake | 4.50 |",
    ),
    "lines of a form": (
        "<table><tr><td><h2>Lease</h2></td></tr><tr><td>Tenant</td><td>Ann Abel</td></tr></table>",
        "## Lease\n\nTenant: Ann Abel",
    ),
    "one column": (
        "<table><tr><td>One note.<tr><td>Another note.</table>",
        "One note.\n\nAnother note.",
    ),
    "a cell with a box": (
        "<table><tr><th>Task<th>Done<tr><td>Milk<td><input type=checkbox checked></table>",
        "| Task | Done |\n| --- | --- |\n| Milk | [x] |",
    ),
    "header that is broken over lines": (
        "<table><tr><th>Price<br>net<th>Room<tr><td>1<td>A</table>",
        "| Price net | Room |\n| --- | --- |\n| 1 | A |",
    ),
}


@pytest.mark.parametrize(("page", "text"), HTML.values(), ids=HTML.keys())
def test_html(page: str, text: str) -> None:
    """A table has a header and every cell of its grid; layout has neither rows nor columns."""
    assert from_html(page.encode(), Path("page.html")).text == text


def _cell(text: str, properties: str = "") -> str:
    return f"<w:tc><w:tcPr>{properties}</w:tcPr>{p(text)}</w:tc>"


def _row(*cells: str) -> str:
    return f"<w:tr>{''.join(cells)}</w:tr>"


def test_merged_cells_of_a_letter() -> None:
    """Word's merged cells become a full grid as those of a page do."""
    table = _row(
        _cell("Room", '<w:vMerge w:val="restart"/>'), _cell("Price", '<w:gridSpan w:val="2"/>')
    )
    table += _row(_cell("", "<w:vMerge/>"), _cell("net"), _cell("gross"))
    table += _row(_cell("A", '<w:vMerge w:val="restart"/>'), _cell("1"), _cell("2"))
    table += _row(_cell("", "<w:vMerge/>"), _cell("3"), _cell("4"))
    text = from_docx(docx(f"<w:tbl>{table}</w:tbl>"), Path("letter.docx")).text
    assert (
        text
        == "| Room | Price net | Price gross |\n| --- | --- | --- |\n| A | 1 | 2 |\n| A | 3 | 4 |"
    )


def test_made_up_spans() -> None:
    """Spans that claim millions of cells cost nothing."""
    page = "<table>" + "<tr><td colspan=1000 rowspan=1000>1<td>2" * 200 + "</table>"
    begun = time.monotonic()
    text = from_html(page.encode(), Path("page.html")).text
    assert "| 1 |" in text
    assert len(text) < 100_000
    assert time.monotonic() - begun < 10
