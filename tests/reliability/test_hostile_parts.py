"""Office files and books whose parts are other than they are called: sizes are those that unpack,
and pieces count as often as they are shown.
"""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from cmt_sdk.converting import read_document
from cmt_sdk.converting import zips as rooms
from cmt_sdk.errors import InvalidDocument
from tests.everyday.office_files import PIXEL, epub, odf, zipped

TYPES = (
    '<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types">'
    '<Default Extension="rels"'
    ' ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
    '<Override PartName="/{main}" '
    'ContentType="application/vnd.openxmlformats-officedocument.wordprocessingml.document.main+xml"/>'
    "</Types>"
)
RELATIONS = (
    '<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships">{comment}'
    '<Relationship Id="r1" Target="{main}" '
    'Type="http://schemas.openxmlformats.org/officeDocument/2006/relationships/officeDocument"/></Relationships>'
)
BODY = (
    '<w:document xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"><w:body>'
    "{paragraphs}</w:body></w:document>"
)
PARAGRAPH = "<w:p><w:r><w:t>The ferry leaves at nine.</w:t></w:r></w:p>"
HUGE = 34_000_000


def docx(
    main: str = "word/document.xml",
    comment: str = "",
    paragraphs: str = PARAGRAPH,
    **more: str | bytes,
) -> bytes:
    return zipped(
        {
            "[Content_Types].xml": TYPES.format(main=main),
            "_rels/.rels": RELATIONS.format(main=main, comment=comment),
        }
        | {main: BODY.format(paragraphs=paragraphs)}
        | {name.replace("__", "/"): data for name, data in more.items()}
    )


def filler(size: int = HUGE) -> str:
    return "<!--" + "x" * size + "-->"


HOSTILE = {
    "a main part called .bin": ("a.docx", lambda: docx("word/document.bin", paragraphs=PARAGRAPH * (HUGE // len(PARAGRAPH)))),
    "a main part called .png": ("a.docx", lambda: docx("word/document.png", paragraphs=PARAGRAPH * (HUGE // len(PARAGRAPH)))),
    "a main part without a suffix": ("a.docx", lambda: docx("word/document", paragraphs=filler())),
    "a comment in the relations": ("a.docx", lambda: docx(comment=filler())),
    "a part that nothing refers to": ("a.docx", lambda: docx(word__extra=filler())),
    "spaces before the XML": ("a.docx", lambda: docx(word__extra=" " * HUGE + "<a/>")),
    "XML in UTF-16": ("a.docx", lambda: docx(word__extra=("<a>" + "x" * (HUGE // 2)).encode("utf-16"))),
    "pictures beyond the file": ("a.docx", lambda: docx(**{f"word__{n}": PIXEL + b"\0" * 40_000_000 for n in range(4)})),
    "a style in odt": ("a.odt", lambda: odf("<text:p>A.</text:p>" + filler())),
    "a page of a book called .png": ("a.epub", lambda: epub({"one.png": "<p>A.</p>" + filler()}, "A")),
    "a page of a book that begins as a picture": ("a.epub", lambda: epub_of_pictures()),
}  # fmt: skip


def epub_of_pictures() -> bytes:
    """Html parsers read over the marks of a picture."""
    names = {f"{n}.xhtml": "" for n in range(3)}
    book = epub(names, "A")
    from io import BytesIO

    with zipfile.ZipFile(BytesIO(book)) as old:
        parts = {name: old.read(name) for name in old.namelist()}
    return zipped(
        parts
        | {
            f"OEBPS/text/{n}": b"GIF89a<p>A.</p>" + b"<!--" + b"x" * 20_000_000 + b"-->"
            for n in names
        }
    )


@pytest.mark.parametrize(("name", "make"), HOSTILE.values(), ids=HOSTILE.keys())
def test_what_unpacks_counts_whatever_it_is_called(tmp_path: Path, name: str, make) -> None:  # type: ignore[no-untyped-def]
    """Refused by the size that was found."""
    (tmp_path / name).write_bytes(make())
    with pytest.raises(InvalidDocument, match=r"unpacks? to (more than )?[\d,]+ bytes"):
        read_document(tmp_path / name)


def test_a_text_in_a_part_of_another_name_is_read(tmp_path: Path) -> None:
    """The relations name it; it is read as any other."""
    for main in ("word/document.bin", "word/document", "word/main.png"):
        (tmp_path / "a.docx").write_bytes(docx(main))
        assert read_document(tmp_path / "a.docx").text == "The ferry leaves at nine."


def test_pictures_of_usual_size_do_not_count_as_text(tmp_path: Path) -> None:
    """Whatever they are called: they begin as pictures do."""
    (tmp_path / "a.docx").write_bytes(
        docx(
            word__media__1=PIXEL + bytes(range(256)) * 1000, word__media__x=b"GIF89a" + b"\1" * 5000
        )
    )
    assert read_document(tmp_path / "a.docx").text == "The ferry leaves at nine."


def test_a_page_counts_once(tmp_path: Path) -> None:
    """A spine that names it a thousand times."""
    book = epub({"one.xhtml": "<p>The ferry leaves.</p>"}, "A")
    from io import BytesIO

    with zipfile.ZipFile(BytesIO(book)) as old:
        parts = {name: old.read(name) for name in old.namelist()}
    parts["OEBPS/book.opf"] = parts["OEBPS/book.opf"].replace(
        b"</spine>", b'<itemref idref="i0"/>' * 1000 + b"</spine>"
    )
    (tmp_path / "a.epub").write_bytes(zipped(parts))
    assert read_document(tmp_path / "a.epub").text.count("The ferry leaves.") == 1


def test_a_text_that_many_cells_show_counts_each_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Repeated cells of an OpenDocument sheet."""
    monkeypatch.setattr(rooms, "MAX_TEXT_BYTES", 200_000)
    row = (
        '<table:table-row table:number-rows-repeated="100"><table:table-cell'
        ' table:number-columns-repeated="100"><text:p>'
    )
    cells = (
        "<table:table"
        f' table:name="a">{row}{"x" * 1000}</text:p></table:table-cell></table:table-row></table:table>'
    )
    (tmp_path / "a.ods").write_bytes(odf(cells, "spreadsheet"))
    with pytest.raises(InvalidDocument, match="its text has more than 200,000 characters"):
        read_document(tmp_path / "a.ods")
