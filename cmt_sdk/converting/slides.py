"""PowerPoint presentations to Markdown, by python-pptx. Knows no other format."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from cmt_sdk.converting.result import Converted, damaged
from cmt_sdk.converting.zips import opened

DEEPEST = 50  # groups within groups


def from_slides(data: bytes, path: Path) -> Converted:
    """The slides under their titles, with tables and speaker's notes.

    Raises:
        InvalidDocument: The file is damaged.
    """
    from pptx import Presentation
    from pptx.exc import PythonPptxError

    with opened(data, path):
        try:
            show = Presentation(io.BytesIO(data))
            # each once, however often it is referred to
            slides = {slide.part: slide for slide in show.slides}
            found = ["\n\n".join(_slide(slide)) for slide in slides.values()]
            title = " ".join((show.core_properties.title or "").split())
        except PythonPptxError as error:
            raise damaged(path, error) from error
    texts = [text for text in found if text]
    empty = [str(number) for number, text in enumerate(found, 1) if not text]
    left_out = [f"slides without text (pictures, perhaps): {', '.join(empty)}"] if empty else []
    is_title = title and title.casefold() != "powerpoint presentation"
    return Converted("\n\n".join(texts), {"title": title} if is_title else {}, left_out)


def _slide(slide: Any) -> Iterator[str]:
    heading = slide.shapes.title
    if heading is not None and heading.has_text_frame and heading.text_frame.text.strip():
        yield f"## {' '.join(heading.text_frame.text.split())}"
    others = (
        shape for shape in slide.shapes if heading is None or shape.shape_id != heading.shape_id
    )
    yield from _shapes(others, 0)
    if slide.has_notes_slide:
        frame = slide.notes_slide.notes_text_frame
        if frame is not None and frame.text.strip():
            yield frame.text.strip()


def _shapes(shapes: Iterable[Any], depth: int) -> Iterator[str]:
    """The texts of shapes, those in groups too."""
    if depth > DEEPEST:
        raise RecursionError(f"its groups are nested more than {DEEPEST} deep")
    for shape in shapes:
        if hasattr(shape, "shapes"):
            yield from _shapes(shape.shapes, depth + 1)
        elif getattr(shape, "has_table", False):
            yield _table(shape.table)
        elif shape.has_text_frame:
            lines = [
                _line(paragraph)
                for paragraph in shape.text_frame.paragraphs
                if paragraph.text.strip()
            ]
            if lines:
                yield "\n".join(lines)


def _line(paragraph: Any) -> str:
    """A paragraph; one of a deeper level is an item of a list."""
    text = " ".join(paragraph.text.split())
    return f"{'  ' * (paragraph.level - 1)}- {text}" if paragraph.level else text


def _table(table: Any) -> str:
    rows = [
        [" ".join(cell.text.split()).replace("|", "\\|") for cell in row.cells]
        for row in table.rows
    ]
    lines = [f"| {' | '.join(row)} |" for row in rows]
    if lines:
        lines.insert(1, f"| {' | '.join('---' for _ in rows[0])} |")
    return "\n".join(lines)
