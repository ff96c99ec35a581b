"""Nothing of a letter is lost without a word: headers, boxes, fields, numbers; the rest is
named.
"""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from cmt_sdk.converting import read_document
from cmt_sdk.converting.docx import from_docx
from cmt_sdk.converting.result import Converted
from cmt_sdk.errors import InvalidDocument
from tests.everyday.docx_files import docx, field, p, r, style


def section(*references: str) -> str:
    """The properties of a section that refers to these headers and footers."""
    inner = "".join(
        f'<w:{name.rstrip("0123456789")}Reference w:type="default" r:id="{name}"/>'
        for name in references
    )
    return f"<w:sectPr>{inner}</w:sectPr>"


def box(text: str) -> str:
    """A text box as Word writes it: once as drawing, once for older programs."""
    content = f"<w:txbxContent>{p(text)}</w:txbxContent>"
    return (
        '<w:r><mc:AlternateContent><mc:Choice Requires="wps"><w:drawing><wp:anchor><wps:txbx>'
        f"{content}</wps:txbx></wp:anchor></w:drawing></mc:Choice><mc:Fallback><w:pict><v:textbox>"
        f"{content}</v:textbox></w:pict></mc:Fallback></mc:AlternateContent></w:r>"
    )


def picture(side: int) -> str:
    """A picture that is as wide as high."""
    return (
        f'<w:r><w:drawing><wp:inline><wp:extent cx="{side}" cy="{side}"/><a:graphic><a:graphicData>'
        "<pic:pic/></a:graphicData></a:graphic></wp:inline></w:drawing></w:r>"
    )


def level(number: int, form: str, pattern: str) -> str:
    """A level of a numbering definition."""
    return (
        f'<w:lvl w:ilvl="{number}"><w:start w:val="1"/><w:numFmt w:val="{form}"/><w:lvlText'
        f' w:val="{pattern}"/></w:lvl>'
    )


def numbered(text: str, number: int = 0, style: str = "") -> str:
    """A paragraph of the list of NUMBERING."""
    properties = f'<w:numPr><w:ilvl w:val="{number}"/><w:numId w:val="1"/></w:numPr>'
    return p(text, style=style, properties=properties)


def numbering(*levels: str) -> str:
    """Numbering definitions with one list."""
    return (
        f'<w:abstractNum w:abstractNumId="0">{"".join(levels)}</w:abstractNum>'
        '<w:num w:numId="1"><w:abstractNumId w:val="0"/></w:num>'
    )


def converted(body: str, **parts: str) -> Converted:
    """What is read from a letter with this body and these parts."""
    return from_docx(docx(body, parts), Path("letter.docx"))


PAGE_NUMBER = p("Page ", field("PAGE", "1"), " of ", field("NUMPAGES \\* MERGEFORMAT", "2"))


def test_header_and_footer() -> None:
    """Listed: the date above and the account below are read once, the page number is not."""
    body = p("Dear Ann,") + section("header1", "footer1")
    header = p("Oslo, 3 March 2026") + p("Invoice 4711")
    text = converted(body, header1=header, footer1=p("IBAN NO12") + PAGE_NUMBER).text
    assert text == "Oslo, 3 March 2026\n\nInvoice 4711\n\nDear Ann,\n\nIBAN NO12"


def test_page_numbers_beside_text() -> None:
    """The rest of their line stays."""
    tab = "<w:r><w:tab/></w:r>"
    simple = '<w:fldSimple w:instr=" PAGE "><w:r><w:t>1</w:t></w:r></w:fldSimple>'
    header = p("Kestrel lease", tab, "Seite ", simple) + p("- ", field("PAGE", "1"), " -")
    assert converted(p("Text") + section("header1"), header1=header).text == "Kestrel lease\n\nText"


def test_headers_of_sections() -> None:
    """Each header stands before the text of its section, and none twice."""
    inner = section("header1")
    body = (
        p("One") + f"<w:p><w:pPr>{inner}</w:pPr>{r('Two')}</w:p>" + p("Three") + section("header2")
    )
    text = converted(body, header1=p("To Ann"), header2=p("To Ann") + p("To Bob")).text
    assert text == "To Ann\n\nOne\n\nTwo\n\nTo Bob\n\nThree"


def test_a_table_and_a_link_in_a_header() -> None:
    """A header may refer to parts of its own, which the document does not have."""
    link = '<w:hyperlink r:id="rId7">' + r("www.tarn.example") + "</w:hyperlink>"
    cell = f"<w:tc>{p(link)}</w:tc>"
    header = f"<w:tbl><w:tr><w:tc>{p('Tarn Lines')}</w:tc>{cell}</w:tr></w:tbl>"
    text = converted(p("Text") + section("header1"), header1=header).text
    assert "Tarn Lines" in text
    assert "www.tarn.example" in text


CASES = {
    "text box": (p("Before ", box("Deadline: 3 May"), "after"), "Before after\n\nDeadline: 3 May"),
    "hidden text": (p("The code is ", r("4711", "<w:vanish/>"), "secret"), "The code is secret"),
    "field with its result": (p("Due ", field("DATE", "3 March 2026")), "Due 3 March 2026"),
    "simple field": (
        p("Total ", '<w:fldSimple w:instr="SUM"><w:r><w:t>950</w:t></w:r></w:fldSimple>'),
        "Total 950",
    ),
    "filled control": (
        p(f"<w:sdt><w:sdtContent>{r('Ann Abel')}</w:sdtContent></w:sdt>", " signs"),
        "Ann Abel signs",
    ),
    "empty control": (
        p(
            "Name: ",
            f"<w:sdt><w:sdtPr><w:showingPlcHdr/></w:sdtPr><w:sdtContent>{r('Click here')}</w:sdtContent></w:sdt>",
        ),
        "Name:",
    ),
    "chosen entry": (
        p(
            "Room ",
            '<w:r><w:fldChar w:fldCharType="begin"><w:ffData><w:ddList><w:result'
            ' w:val="1"/><w:listEntry w:val="A"/><w:listEntry'
            ' w:val="B"/></w:ddList></w:ffData></w:fldChar></w:r><w:r><w:instrText>FORMDROPDOWN</w:instrText></w:r><w:r><w:fldChar'
            ' w:fldCharType="end"/></w:r>',
        ),
        "Room B",
    ),
    "smart tag": (p(f'<w:smartTag w:element="city">{r("Oslo")}</w:smartTag>'), "Oslo"),
    "custom xml": (f'<w:customXml w:element="x">{p("Oslo")}</w:customXml>', "Oslo"),
    "right to left": (p(f'<w:bdo w:val="rtl">{r("שלום")}</w:bdo>'), "שלום"),
    "symbol": (p('<w:r><w:sym w:font="Symbol" w:char="F061"/></w:r>', " = 5"), "α = 5"),
    "page break": (p("12", '<w:r><w:br w:type="page"/></w:r>', "34"), "12  \n34"),
}


@pytest.mark.parametrize(("body", "text"), CASES.values(), ids=CASES.keys())
def test_parts_of_a_text(body: str, text: str) -> None:
    """What Word shows is read, once; what it hides is not."""
    assert converted(body).text == text


NUMBERED = {
    "paragraph signs": (
        numbering(level(0, "decimal", "§ %1")),
        numbered("Rent") + p("950 euros") + numbered("Deposit"),
        "- § 1 Rent\n\n950 euros\n\n- § 2 Deposit",
    ),
    "letters within numbers": (
        numbering(level(0, "decimal", "%1."), level(1, "lowerLetter", "%2)")),
        numbered("Keys") + numbered("gate", 1) + numbered("shed", 1),
        "1. Keys\n   - a) gate\n   - b) shed",
    ),
    "numbers that go on": (
        numbering(level(0, "decimal", "%1.")),
        numbered("One") + p("Between") + numbered("Two"),
        "1. One\n\nBetween\n\n2. Two",
    ),
    "roman": (
        numbering(level(0, "upperRoman", "%1.")),
        numbered("One") + numbered("Two"),
        "- I. One\n- II. Two",
    ),
    "headings": (
        numbering(level(0, "decimal", "%1"), level(1, "decimal", "%1.%2")),
        numbered("Rent", 0, "H1") + numbered("Due day", 1, "H2") + p("The third."),
        "# 1 Rent\n\n## 1.1 Due day\n\nThe third.",
    ),
    "bullets": (
        numbering(level(0, "bullet", "•")),
        numbered("One") + numbered("Two"),
        "* One\n* Two",
    ),
}


@pytest.mark.parametrize(("numbers", "body", "text"), NUMBERED.values(), ids=NUMBERED.keys())
def test_numbers(numbers: str, body: str, text: str) -> None:
    """Numbers that a letter shows and others refer to are a part of its text."""
    styles = style("H1", "heading 1") + style("H2", "heading 2")
    assert converted(body, numbering=numbers, styles=styles).text == text


LEFT_OUT = {
    "comments": (p("a", '<w:r><w:commentReference w:id="0"/></w:r>'), ["1 comment was not read"]),
    "pictures": (p("a", picture(3_000_000), picture(3_000_000)), ["2 pictures were not read"]),
    "a logo": (p("a", picture(300_000)), []),
    "a chart": (
        p("a", "<w:r><w:drawing><wp:inline><a:chart/></wp:inline></w:drawing></w:r>"),
        ["1 chart was not read"],
    ),
    "an object": (
        p("a", "<w:r><w:object><o:OLEObject/></w:object></w:r>"),
        ["1 embedded object was not read"],
    ),
    "another document": (p("a") + '<w:altChunk r:id="x"/>', ["1 embedded document was not read"]),
    "a symbol": (
        p("a", '<w:r><w:sym w:font="My Font" w:char="F0A1"/></w:r>'),
        ["1 symbol was not read"],
    ),
    "nothing": (p("a"), []),
}


@pytest.mark.parametrize(("body", "phrases"), LEFT_OUT.values(), ids=LEFT_OUT.keys())
def test_left_out(body: str, phrases: list[str]) -> None:
    """What cannot be read as text is counted and named."""
    comment = f'<w:comment w:id="0" w:initials="A">{p("Really?")}</w:comment>'
    assert list(converted(body, comments=comment).left_out) == phrases


def test_a_warning_for_a_file(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The user reads it once."""
    (tmp_path / "a.docx").write_bytes(docx(p("a", picture(3_000_000))))
    with caplog.at_level(logging.WARNING):
        read_document(tmp_path / "a.docx")
    assert caplog.messages == [f"{tmp_path / 'a.docx'}: 1 picture was not read"]


def test_pictures_alone(tmp_path: Path) -> None:
    """A letter of pictures is not told that it is a scan; it hears what it holds."""
    (tmp_path / "a.docx").write_bytes(docx(p(picture(3_000_000))))
    with pytest.raises(InvalidDocument, match=r"a\.docx holds no text, only 1 picture: add the"):
        read_document(tmp_path / "a.docx")
