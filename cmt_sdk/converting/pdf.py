"""Pdf files to text, by PDFium: text, form fields, comments, the title. Knows no other format."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cmt_sdk.converting.pdf_flow import Placed, flow
from cmt_sdk.converting.pdf_marks import Mark, read_marks
from cmt_sdk.converting.pdf_page import Line, read_lines, turn_of
from cmt_sdk.converting.pdf_placing import place
from cmt_sdk.converting.pdf_xfa import read_values
from cmt_sdk.converting.result import Converted, damaged
from cmt_sdk.types import Metadata

_pdfium_lock = threading.Lock()  # PDFium is not thread-safe

# a title such as "Microsoft Word - lease_v3.doc"
FILE_NAME = re.compile(r"[\\/]|\.[A-Za-z][A-Za-z0-9]{1,4}\Z")
MAX_TITLE_CHARACTERS = 300
MAX_QUOTE_CHARACTERS = 200  # of the words that a comment is about


@dataclass(slots=True)
class Contents:
    """The text and marks read from a file so far."""

    pages: list[list[Placed]] = field(default_factory=list)
    comments: list[str] = field(default_factory=list)
    drawn: set[int] = field(default_factory=set)  # pages that show more than text
    pictured: set[int] = field(default_factory=set)  # those that show a picture
    damaged: set[int] = field(default_factory=set)
    unseen: int = 0  # lines wholly beyond the edge of their page


def from_pdf(data: bytes, path: Path) -> Converted:
    """The text of a pdf file's pages.

    Form fields and typed notes stand at their place on the page; comments follow the text.

    Raises:
        InvalidDocument: The file is damaged or encrypted.
    """
    from pypdfium2 import PdfDocument, PdfiumError, raw

    contents = Contents()
    try:
        with _pdfium_lock, PdfDocument(data) as pdf:
            pdf.init_forms()
            for number in range(len(pdf)):
                try:
                    _read_page(pdf, number, contents)
                except PdfiumError:
                    contents.pages.append([])
                    contents.damaged.add(number)
            if len(contents.damaged) == len(pdf):
                raise PdfiumError("none of its pages can be read")  # noqa: TRY301 - the one place that translates it
            metadata = _metadata(pdf)
            values = read_values(pdf) if pdf.get_formtype() == raw.FORMTYPE_XFA_FULL else []
            left_out = _other_parts(pdf)
    except PdfiumError as error:
        raise damaged(path, error) from error
    whole = flow(contents.pages)
    empty = {n for n, lines in enumerate(contents.pages) if not lines}
    scans = empty & contents.drawn | whole.bare & contents.pictured
    if scans:
        one = len(scans) == 1
        what = (
            "no text (a scan, perhaps): run OCR over it"
            if one
            else "no text (scans, perhaps): run OCR over them"
        )
        left_out.append(f"{_named(scans)} {'holds' if one else 'hold'} {what}")
    if contents.damaged:
        left_out.append(
            f"{_named(contents.damaged)} cannot be read: open the file and save it again"
        )
    if contents.unseen:
        left_out.append(f"lines beyond the edge of their page: {contents.unseen}")
    parts = (str(whole), "\n".join(values), "\n".join(contents.comments))
    text = "\n\n".join(part for part in parts if part)
    return Converted(text, metadata, left_out)


def _read_page(pdf: Any, number: int, contents: Contents) -> None:
    from pypdfium2 import raw

    page = pdf[number]
    text = page.get_textpage()
    turn = turn_of(page)
    lines = read_lines(text, turn)
    seen = [line for line in lines if not line.lefts or line.box.meets(turn.page)]
    contents.unseen += len(lines) - len(seen)
    marks = read_marks(page, pdf.formenv, turn)
    contents.comments += [_comment(mark, seen, number) for mark in marks if mark.is_comment]
    place(seen, [mark for mark in marks if not mark.is_comment])
    contents.pages.append([Placed.of(line) for line in seen])
    kinds = {
        raw.FPDFPageObj_GetType(raw.FPDFPage_GetObject(page.raw, i)) for i in range(_objects(page))
    }
    if kinds - {raw.FPDF_PAGEOBJ_TEXT}:
        contents.drawn.add(number)
    if raw.FPDF_PAGEOBJ_IMAGE in kinds:
        contents.pictured.add(number)
    text.close()
    page.close()


def _objects(page: Any) -> int:
    """The number of a page's objects to look at: the first thousand show what the page holds."""
    from pypdfium2 import raw

    count: int = raw.FPDFPage_CountObjects(page.raw)
    return min(1000, count)


def _comment(mark: Mark, lines: Sequence[Line], number: int) -> str:
    """A comment with its page, the words that it is about, and who wrote it."""
    quote = " ".join(filter(None, (_covered(line, mark) for line in lines)))[:MAX_QUOTE_CHARACTERS]
    quote = f"~~{quote}~~" if mark.is_struck and quote else f'"{quote}"' if quote else ""
    about = ", ".join(part for part in (f"page {number + 1}", quote) if part)
    text = " ".join(mark.text.split())
    spoken = ": ".join(part for part in (mark.name, text) if part) if text else ""
    return f"[{about}: {spoken}]" if spoken else f"[{about}]"


def _covered(line: Line, mark: Mark) -> str:
    """The characters that a comment is about; the full line for a note next to the text."""
    boxes = [box for box in mark.about if box.shares_row(line.box)]
    if mark.about:
        return "".join(
            letter
            for letter, left in zip(line.text, line.lefts, strict=True)
            if any(box.left - 1 <= left < box.right - 1 for box in boxes)
        ).strip()
    return line.text if line.box.shares_row(mark.box) else ""


def _metadata(pdf: Any) -> Metadata:
    """The title, unless it is a file name, or the name of the program that wrote the file."""
    found = pdf.get_metadata_dict()
    title = " ".join(str(found.get("Title", "")).replace("\0", "").split())
    makers = f"{found.get('Creator', '')} {found.get('Producer', '')}".casefold()
    words = re.findall(r"\w+", title.casefold())
    of_maker = [word for word in words if word in makers]
    if (
        FILE_NAME.search(title)
        or len(title) > MAX_TITLE_CHARACTERS
        or not any(w[0].isalpha() for w in words)
    ):
        return {}
    return (
        {} if of_maker and len(words) - len(of_maker) <= 1 and len(words) <= 2 else {"title": title}
    )


def _other_parts(pdf: Any) -> list[str]:
    """Parts of a file that are not read: attached files, and XFA forms."""
    from pypdfium2 import PdfiumError, raw

    parts: list[str] = []
    if count := raw.FPDFDoc_GetAttachmentCount(pdf.raw):
        names: list[str] = []
        for index in range(min(count, 10)):
            with suppress(PdfiumError):
                names.append(pdf.get_attachment(index).get_name())
        more = ", ..." if count > len(names) else ""
        parts.append(f"attached files are not read ({', '.join(names)}{more}): save and add them")
    if pdf.get_formtype() == raw.FORMTYPE_XFA_FULL:
        parts.append(
            "of its XFA form only names and values are read: print it to a pdf file, and add that"
        )
    return parts


def _named(pages: Iterable[int]) -> str:
    """Pages by their numbers: "pages 2, 4 and 7 to 9"."""
    spans: list[list[int]] = []
    for number in sorted(page + 1 for page in pages):
        if spans and spans[-1][-1] == number - 1:
            spans[-1].append(number)
        else:
            spans.append([number])
    names: list[str] = []
    for span in spans:
        names += map(str, span) if len(span) < 3 else [f"{span[0]} to {span[-1]}"]
    listed = ", ".join(names[:-1]) + " and " + names[-1] if len(names) > 1 else names[0]
    return f"page {listed}" if listed.isdigit() else f"pages {listed}"
