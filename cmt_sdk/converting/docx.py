"""Docx files to Markdown, by mammoth. Knows html as the step between."""

from __future__ import annotations

import io
import re
import zipfile
import zlib
from collections import Counter
from pathlib import Path
from xml.parsers.expat import ExpatError

from cmt_sdk.converting.docx_body import COLUMN, simplify
from cmt_sdk.converting.docx_headers import write_headers
from cmt_sdk.converting.docx_numbers import Numbers
from cmt_sdk.converting.docx_package import (
    Element,
    Package,
    attribute,
    child,
    found,
    local,
    remove,
    run,
)
from cmt_sdk.converting.docx_styles import HEADING, LAST_LEVEL, Styles, apply_flags, mark_headings
from cmt_sdk.converting.html import to_markdown
from cmt_sdk.converting.html_shape import LABEL_END, LABEL_START
from cmt_sdk.converting.result import Converted, damaged
from cmt_sdk.errors import InvalidDocument

# The errors that zipfile, zlib, lxml, expat and mammoth raise; found by changing bytes at random.
BROKEN_DOCX = (
    zipfile.BadZipFile,
    zlib.error,
    ExpatError,
    EOFError,
    OSError,
    RuntimeError,
    SyntaxError,
    AttributeError,
    LookupError,
    TypeError,
    ValueError,
)
STYLE_MAP = "\n".join(f"p.{HEADING}{n} => h{n}:fresh" for n in range(1, LAST_LEVEL + 1))
LARGE_PICTURE = 1_800_000  # English metric units, 5 cm: larger ones may hold text
NOT_READ = {
    "pic": "picture",
    "imagedata": "picture",
    "chart": "chart",
    "relIds": "diagram",
    "OLEObject": "embedded object",
    "altChunk": "embedded document",
    "commentReference": "comment",
}
SHOWN_ELSEWHERE = frozenset({"Fallback"})  # elements that repeat another one in a second form

_SAYS_NOTHING = re.compile(r"^Microsoft Word\b|\.(?:docx?|dotx?|dotm|rtf|odt)$", re.IGNORECASE)
_UNKNOWN_SYMBOL = re.compile("w:sym element with an unsupported character")


def from_docx(data: bytes, path: Path) -> Converted:
    """The text of a docx file as Markdown, its title, and the parts that were left out.

    Raises:
        InvalidDocument: The file is damaged, or holds pictures alone.
    """
    try:
        return _converted(data, path)
    except InvalidDocument:
        raise
    except BROKEN_DOCX as error:
        raise damaged(path, error) from error


def _converted(data: bytes, path: Path) -> Converted:
    from mammoth import convert_to_html

    package = Package(data)
    document = package.part(package.document)
    if document is None:
        raise zipfile.BadZipFile(f"it has no part {package.document}")
    left_out = _left_out(document)
    title = _prepare(package, document)
    result = convert_to_html(
        io.BytesIO(package.packed()),
        style_map=STYLE_MAP,
        convert_image=lambda _: [],
    )
    symbols = sum(1 for m in result.messages if _UNKNOWN_SYMBOL.search(m.message))
    left_out.update({"symbol": symbols} if symbols else {})
    text = to_markdown(result.value).replace(COLUMN, "\t")
    phrases = [_phrase(count, name) for name, count in left_out.items()]
    if not text.strip() and left_out:
        held = " and ".join(_count(c, n) for n, c in left_out.items())
        raise InvalidDocument(
            f"{path} holds no text, only {held}: add the text that it should hold"
        )
    title = title or _named(package)
    return Converted(text, {"title": title} if title else {}, phrases)


def _prepare(package: Package, document: Element) -> str | None:
    """Rewrite the text of a package for mammoth; return its title, if it has one."""
    styles = Styles(package.kind("styles"))
    numbers = Numbers(package.kind("numbering"), styles)
    for kind in ("footnotes", "endnotes"):
        if (notes := package.kind(kind)) is not None:
            simplify(notes)
            apply_flags(notes, styles)
    simplify(document)
    apply_flags(document, styles)
    _write_numbers(document, numbers, styles)
    write_headers(package, document, styles)
    return mark_headings(document, styles)


def _write_numbers(document: Element, numbers: Numbers, styles: Styles) -> None:
    """Write the number of each paragraph before its text, marked where it is a list's."""
    for paragraph in list(found(document, "p")):
        label = numbers.label(paragraph)
        if not label or next(found(paragraph, "t"), None) is None:
            continue
        properties = child(paragraph, "pPr")
        text = f"{LABEL_START}{label}{LABEL_END}"
        if styles.heading_level(paragraph) is not None:
            text = label + " "
            if (own := child(properties, "numPr")) is not None:
                remove(own)
        place = 0 if properties is None else paragraph.index(properties) + 1
        paragraph.insert(place, run(paragraph, text))


def _left_out(document: Element) -> Counter[str]:
    """The parts of a document that are not text, by kind, with their number."""
    counts: Counter[str] = Counter()
    for element in document.iter():
        name = NOT_READ.get(local(element))
        if name is None or (name == "picture" and not _is_large(element)):
            continue
        if not {local(ancestor) for ancestor in element.iterancestors()} & SHOWN_ELSEWHERE:
            counts[name] += 1
    return counts


def _is_large(picture: Element) -> bool:
    """True for a picture that may hold text; unknown sizes count as large."""
    frame = next((a for a in picture.iterancestors() if local(a) in ("inline", "anchor")), None)
    extent = child(frame, "extent")
    sides = [attribute(extent, side) or "" for side in ("cx", "cy")]
    return not all(side.isdigit() for side in sides) or min(map(int, sides)) >= LARGE_PICTURE


def _count(count: int, name: str) -> str:
    return f"{count} {name}{'s' if count > 1 else ''}"


def _phrase(count: int, name: str) -> str:
    return f"{_count(count, name)} {'were' if count > 1 else 'was'} not read"


def _named(package: Package) -> str | None:
    """The title in a file's properties, unless Word or a template wrote it."""
    core = package.part("docProps/core.xml")
    titles = [] if core is None else [(e.text or "").strip() for e in found(core, "title")]
    app = package.part("docProps/app.xml")
    template = "" if app is None else "".join(e.text or "" for e in found(app, "Template"))
    for title in titles:
        if _SAYS_NOTHING.search(title) or not re.search(r"\w", title):
            continue
        if title.lower() != template.rpartition(".")[0].lower():
            return " ".join(title.split())
    return None
