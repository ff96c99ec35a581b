"""Page headers and footers of a docx file, once for each section, without page numbers.

Knows sections and the fields that number pages. Does not know what the text says.
"""

from __future__ import annotations

import re
from copy import deepcopy

from cmt_sdk.converting.docx_body import COLUMN, simplify
from cmt_sdk.converting.docx_package import (
    Element,
    Package,
    attribute,
    child,
    found,
    local,
    remove,
    run,
    unwrap,
)
from cmt_sdk.converting.docx_styles import Styles, apply_flags

PAGE = "\ue002"  # stands for the number of a page
MIN_WORDS = 4  # next to a page number: fewer are "Page 1 of 2" in some language

_PAGE_FIELD = re.compile(r"^\s*(?:PAGE|NUMPAGES|SECTIONPAGES|SECTION)\b")


def write_headers(package: Package, document: Element, styles: Styles) -> None:
    """Put the headers of each section before its text and the footers behind it."""
    body = child(document, "body")
    if body is None:
        return
    related = package.related(package.document)
    written: set[str] = set()
    first = body[0] if len(body) else None
    for end, section in _sections(body):
        following = end.getnext()
        blocks: dict[str, list[Element]] = {"headerReference": [], "footerReference": []}
        for reference in (e for e in section if local(e) in blocks):
            _, target = related.get(attribute(reference, "id") or "", ("", ""))
            for block in _blocks(package, target, styles):
                text = " ".join(t.text or "" for t in found(block, "t")).strip()
                if text and text not in written:
                    written.add(text)
                    blocks[local(reference)].append(block)
        for block in blocks["headerReference"]:
            (end if first is None else first).addprevious(block)
        footers = blocks["footerReference"]
        if local(end) == "sectPr":
            for block in footers:
                end.addprevious(block)
        else:  # the last paragraph of the section
            for block in reversed(footers):
                end.addnext(block)
        first = following


def _sections(body: Element) -> list[tuple[Element, Element]]:
    """The last element of each section, and the section's properties."""
    ends = []
    for element in body:
        properties = child(element, "pPr", "sectPr") if local(element) == "p" else None
        if local(element) == "sectPr":
            properties = element
        if properties is not None:
            ends.append((element, properties))
    return ends


def _blocks(package: Package, target: str, styles: Styles) -> list[Element]:
    """The paragraphs and tables of a header, free of what refers to other parts."""
    root = package.part(target)
    if root is None:
        return []
    root = deepcopy(root)
    for paragraph in found(root, "p"):
        _drop_page_numbers(paragraph)
    simplify(root)
    apply_flags(root, styles)
    for link in list(found(root, "hyperlink")):
        unwrap(link)
    for drawing in list(found(root, "drawing", "pict", "object", "bookmarkStart", "bookmarkEnd")):
        remove(drawing)
    return [block for block in root if local(block) in ("p", "tbl")]


def _drop_page_numbers(paragraph: Element) -> None:
    """Remove page numbers, with the few words around them."""
    if not _mark_page_fields(paragraph):
        return
    marks = list(found(paragraph, "t", "tab", "ptab"))
    text = "".join(e.text or "" if local(e) == "t" else COLUMN for e in marks)
    kept = []
    for part in text.split(COLUMN):
        rest = part.replace(PAGE, "")
        if PAGE not in part or len(rest.split()) >= MIN_WORDS or re.search(r"\d", rest):
            kept.append(rest)
    for element in [e for e in paragraph if local(e) != "pPr"]:
        paragraph.remove(element)
    paragraph.append(run(paragraph, COLUMN.join(kept).strip(COLUMN + " ")))


def _mark_page_fields(paragraph: Element) -> bool:
    """Mark each field that numbers pages; True where there was one."""
    is_marked = False
    for field in list(found(paragraph, "fldSimple")):
        if _PAGE_FIELD.match(attribute(field, "instr") or ""):
            field.addprevious(run(paragraph, PAGE))
            remove(field)
            is_marked = True
    inside: list[str] = []
    depth = 0
    for element in list(found(paragraph, "fldChar", "instrText", "t")):
        kind = attribute(element, "fldCharType") if local(element) == "fldChar" else None
        if kind == "begin":
            depth += 1
            inside = [""]
        elif kind == "end":
            depth -= 1
            inside = []
        elif local(element) == "instrText" and inside:
            inside[0] += element.text or ""
            if _PAGE_FIELD.match(inside[0]):
                element.getparent().addprevious(run(paragraph, PAGE))
                is_marked = True
        elif local(element) == "t" and depth and inside and _PAGE_FIELD.match(inside[0]):
            element.text = ""
    return is_marked
