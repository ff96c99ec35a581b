"""Form fields and annotations of a page of a pdf file. Knows no text of the page.

PDFium keeps both apart from the text. A `Mark` belongs into the text at its place; a comment is
about a place, and stands by itself.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from cmt_sdk.converting.pdf_page import Box, Turn

UNSEEN = 1 << 1 | 1 << 5  # the flags Hidden and NoView
PASSWORD = 1 << 13  # the flag of a text field with a secret value


@dataclass(frozen=True, slots=True)
class Mark:
    """A form field or an annotation.

    `name` is that of the field, or of the comment's author. `about` is the place of the words that
    a comment is about.
    """

    text: str
    box: Box
    name: str = ""
    is_box: bool = False
    is_comment: bool = False
    is_struck: bool = False
    about: tuple[Box, ...] = ()


def read_marks(page: Any, form: Any, turn: Turn) -> list[Mark]:
    """The form fields and annotations of a page that hold text.

    Args:
        page: A PdfPage.
        form: The PdfFormEnv of the file, or None.
        turn: The rotation in which the page is shown.
    """
    from pypdfium2 import raw

    marks: list[Mark] = []
    for index in range(raw.FPDFPage_GetAnnotCount(page.raw)):
        annotation = raw.FPDFPage_GetAnnot(page.raw, index)
        if not annotation:
            continue
        try:
            if raw.FPDFAnnot_GetFlags(annotation) & UNSEEN:
                continue
            is_field = raw.FPDFAnnot_GetSubtype(annotation) == raw.FPDF_ANNOT_WIDGET
            mark = _field(annotation, form, turn) if is_field else _note(annotation, turn)
        finally:
            raw.FPDFPage_CloseAnnot(annotation)
        if mark is not None:
            marks.append(mark)
    return marks


def _field(annotation: Any, form: Any, turn: Turn) -> Mark | None:
    """A form field with a value, or a tick box; None for an empty field."""
    from pypdfium2 import raw

    if form is None:
        return None
    kind = raw.FPDFAnnot_GetFormFieldType(form.raw, annotation)
    name = _text(raw.FPDFAnnot_GetFormFieldAlternateName, form.raw, annotation)
    name = name or _text(raw.FPDFAnnot_GetFormFieldName, form.raw, annotation)
    box = _box(annotation, turn)
    if kind in (raw.FPDF_FORMFIELD_CHECKBOX, raw.FPDF_FORMFIELD_RADIOBUTTON):
        ticked = raw.FPDFAnnot_IsChecked(form.raw, annotation)
        return Mark("[x]" if ticked else "[ ]", box, name, is_box=True)
    if kind == raw.FPDF_FORMFIELD_TEXTFIELD:
        if raw.FPDFAnnot_GetFormFieldFlags(form.raw, annotation) & PASSWORD:
            return None
        value = _text(raw.FPDFAnnot_GetFormFieldValue, form.raw, annotation)
    elif kind in (raw.FPDF_FORMFIELD_COMBOBOX, raw.FPDF_FORMFIELD_LISTBOX):
        value = ", ".join(_chosen(annotation, form))
        value = value or _text(raw.FPDFAnnot_GetFormFieldValue, form.raw, annotation)
    else:
        return None
    return Mark(value, box, name) if value else None


def _chosen(annotation: Any, form: Any) -> Iterator[str]:
    """The options of a list that are chosen, as a reader sees them."""
    from pypdfium2 import raw

    for index in range(raw.FPDFAnnot_GetOptionCount(form.raw, annotation)):
        if raw.FPDFAnnot_IsOptionSelected(form.raw, annotation, index):
            yield _text(raw.FPDFAnnot_GetOptionLabel, form.raw, annotation, index)


def _note(annotation: Any, turn: Turn) -> Mark | None:
    """A text typed onto the page, a comment, or struck-out words."""
    from pypdfium2 import raw

    kind = raw.FPDFAnnot_GetSubtype(annotation)
    if kind in (raw.FPDF_ANNOT_LINK, raw.FPDF_ANNOT_POPUP):
        return None
    contents = _text(raw.FPDFAnnot_GetStringValue, annotation, b"Contents")
    box = _box(annotation, turn)
    if kind == raw.FPDF_ANNOT_FREETEXT:
        return Mark(contents, box) if contents else None
    is_struck = kind == raw.FPDF_ANNOT_STRIKEOUT
    if not contents and not is_struck:
        return None
    author = _text(raw.FPDFAnnot_GetStringValue, annotation, b"T")
    about = tuple(_quads(annotation, turn))
    return Mark(contents, box, author, is_comment=True, is_struck=is_struck, about=about)


def _quads(annotation: Any, turn: Turn) -> Iterator[Box]:
    from pypdfium2 import raw

    points = raw.FS_QUADPOINTSF()
    for index in range(raw.FPDFAnnot_CountAttachmentPoints(annotation)):
        if raw.FPDFAnnot_GetAttachmentPoints(annotation, index, ctypes.byref(points)):
            xs = (points.x1, points.x2, points.x3, points.x4)
            ys = (points.y1, points.y2, points.y3, points.y4)
            yield turn.box(min(xs), min(ys), max(xs), max(ys))


def _box(annotation: Any, turn: Turn) -> Box:
    from pypdfium2 import raw

    box = raw.FS_RECTF()
    raw.FPDFAnnot_GetRect(annotation, ctypes.byref(box))
    return turn.box(
        min(box.left, box.right),
        min(box.bottom, box.top),
        max(box.left, box.right),
        max(box.bottom, box.top),
    )


def _text(call: Callable[..., int], *arguments: Any) -> str:
    """The text that a function of PDFium writes as UTF-16 into a buffer."""
    from pypdfium2 import raw

    size = call(*arguments, None, 0)
    if size <= 2:  # the end mark alone
        return ""
    buffer = ctypes.create_string_buffer(size)
    call(*arguments, ctypes.cast(buffer, ctypes.POINTER(raw.FPDF_WCHAR)), size)
    text = buffer.raw[:size].decode("utf-16-le", "replace").split("\0", 1)[0]
    return text.replace("\r\n", "\n").replace("\r", "\n").strip()
