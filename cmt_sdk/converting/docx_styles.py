"""The styles of a docx file: headings, the title, hidden and struck-out text.

Knows chains of styles in any language. Changes the paragraphs and runs that it is given.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from cmt_sdk.converting.docx_package import (
    Element,
    attribute,
    child,
    found,
    is_on,
    local,
    made,
    remove,
)

HEADING = "PlainHeading"  # the name of our styles for headings, with the level after it
LAST_LEVEL = 6  # of Markdown
BODY_LEVEL = 9  # the outline level of text that is no heading
FLAGS = ("strike", "dstrike", "vanish", "vertAlign")


class Styles:
    """The styles of a docx file by their ids."""

    def __init__(self, root: Element | None) -> None:
        styles = [] if root is None else [s for s in root if local(s) == "style"]
        self._styles: Mapping[str, Element] = {attribute(s, "styleId") or "": s for s in styles}
        self._default = next(
            (s for s in styles if attribute(s, "default") == "1" and _kind(s) == "paragraph"), None
        )

    def chain(self, style_id: str | None) -> Iterator[Element]:
        """A style and the styles that it is based on."""
        seen: set[str] = set()
        while style_id and style_id not in seen:
            seen.add(style_id)
            if (style := self._styles.get(style_id)) is None:
                return
            yield style
            style_id = attribute(child(style, "basedOn"), "val")

    def heading_level(self, paragraph: Element) -> int | None:
        """The level of a heading from 1 on, 0 for the document's title; None for other text."""
        properties = child(paragraph, "pPr")
        style_id = attribute(child(properties, "pStyle"), "val")
        outline = attribute(child(properties, "outlineLvl"), "val")
        if outline is None:
            for style in self.chain(style_id):
                name = (attribute(child(style, "name"), "val") or "").lower()
                if name == "title":
                    return 0
                if name.startswith("heading ") and name[8:].isdigit():
                    return int(name[8:])
                outline = attribute(child(style, "pPr", "outlineLvl"), "val")
                if outline is not None:
                    break
        if outline is None or not outline.isdigit() or int(outline) >= BODY_LEVEL:
            return None
        return int(outline) + 1

    def numbering(self, paragraph: Element) -> Element | None:
        """The numbering properties of a paragraph, its own or those of its style."""
        properties = child(paragraph, "pPr")
        if (own := child(properties, "numPr")) is not None:
            return own
        for style in self.chain(attribute(child(properties, "pStyle"), "val")):
            if (inherited := child(style, "pPr", "numPr")) is not None:
                return inherited
        return None

    def flags(self, run: Element) -> Mapping[str, Element]:
        """The properties of a run that change what is read, its own before those of styles."""
        properties = child(run, "rPr")
        sources = [properties]
        chain = self.chain(attribute(child(properties, "rStyle"), "val"))
        sources += [child(style, "rPr") for style in chain]
        paragraph = next(run.iterancestors("{*}p"), None)
        style_id = attribute(child(paragraph, "pPr", "pStyle"), "val")
        sources += [child(style, "rPr") for style in self.chain(style_id)]
        flags: dict[str, Element] = {}
        for source in sources:
            for flag in FLAGS:
                if flag not in flags and (value := child(source, flag)) is not None:
                    flags[flag] = value
        return flags


def _kind(style: Element) -> str | None:
    return attribute(style, "type")


def mark_headings(root: Element, styles: Styles) -> str | None:
    """Give headings our own styles, and return the text of the title, if there is one."""
    title: list[str] = []
    for paragraph in found(root, "p"):
        if not str(paragraph.tag).rpartition("}")[0].endswith("main"):
            continue  # a paragraph of a drawing
        level = styles.heading_level(paragraph)
        text = "".join(t.text or "" for t in found(paragraph, "t")).strip()
        if level is None or not text:
            continue
        if level == 0:
            title.append(text)
        properties = child(paragraph, "pPr")
        if properties is None:
            properties = made(paragraph, "pPr")
            paragraph.insert(0, properties)
        if (style := child(properties, "pStyle")) is not None:
            remove(style)
        name = f"{HEADING}{min(max(level, 1), LAST_LEVEL)}"
        properties.insert(0, made(paragraph, "pStyle", val=name))
    return title[0] if title else None


def apply_flags(root: Element, styles: Styles) -> None:
    """Remove hidden runs, and write a style's struck-out and raised text into its runs."""
    for run in list(found(root, "r")):
        if not str(run.tag).rpartition("}")[0].endswith("main"):
            continue
        flags = styles.flags(run)
        if is_on(flags.get("vanish")):
            remove(run)
            continue
        struck = is_on(flags.get("strike")) or is_on(flags.get("dstrike"))
        added = [made(run, "strike")] if struck else []
        if "vertAlign" in flags:
            value = attribute(flags["vertAlign"], "val") or "baseline"
            added.append(made(run, "vertAlign", val=value))
        for new in added:
            _set(run, new)


def _set(run: Element, value: Element) -> None:
    """Give a run this property in the place of an older one."""
    properties = child(run, "rPr")
    if properties is None:
        properties = made(run, "rPr")
        run.insert(0, properties)
    if (old := child(properties, local(value))) is not None:
        remove(old)
    properties.append(value)
