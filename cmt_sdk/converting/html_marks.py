"""Typography as characters: `10^5`, `2019[3]`, `[x]`, `~~done~~`, 漢字(かんじ).

Knows elements and styles that raise, lower, strike out, tick or annotate. Knows no Markdown.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import pairwise

from cmt_sdk.converting.html_lines import Line, lines
from cmt_sdk.converting.html_tree import Element, Place, drop, kinds, replace, texts, words
from cmt_sdk.converting.maths import linear
from cmt_sdk.converting.scripts import lowered, raised

Style = Mapping[str, str]

AROUND = 80  # characters before and after a raised letter that decide its meaning
STRUCK = frozenset({"s", "strike", "del"})
FRAMES = frozenset({"span", "div", "mjx-container"})
FORMULAS = frozenset(["katex", "katex-display", "mathjax", "mathjax_display", "mwe-math-element"])
CHECKLISTS = frozenset({"checklist", "todo-list", "to-do-list", "task-list", "todo"})
NOTES = frozenset({"footnote", "footnote-ref", "fn", "reference", "noteref", "endnote"})
BACK_LINKS = frozenset({"↑", "↩", "↩︎", "⤴", "^"})
TICKED = re.compile("[☑☒🗹🗷🗵⌧]")
UNTICKED = re.compile("[☐🗆🞎🞏❏❐❑❒]")

_VULGAR = re.compile(r"(?<=\d)(?=[¼-¾⅐-⅞↉])")
SLASHES = ("⁄", "∕")
_SLASH = re.compile("[⁄∕]")  # of fractions
_BOX_GAP = re.compile(r"(\[[x ]\])(?=\w)")


def write_formulas(root: Element) -> None:
    """Put every formula into the text, in whatever way a page shows it."""
    for formula in list(root.iter("math")):
        shown = _shown_formula(formula)
        if formula.getroottree().getroot() is root:
            replace(shown, _apart(shown, linear(formula) or formula.get("alttext") or ""))
    for script in list(root.iter("script")):
        if (script.get("type") or "").startswith("math/tex"):
            previous = script.getprevious()
            while previous is not None and any("mathjax" in k.lower() for k in kinds(previous)):
                drop(previous)
                previous = script.getprevious()
            script.tag = "span"
    for image in list(root.iter("img")):
        name = image.get("alt") or ""
        if _is_formula_image(image) or (name and len(name) <= 4 and not re.search(r"\w", name)):
            replace(image, name)
        else:
            drop(image)


def _shown_formula(formula: Element) -> Element:
    """The outermost element that shows nothing but this formula."""
    shown = formula
    for ancestor in formula.iterancestors():
        names = {kind.lower() for kind in kinds(ancestor)}
        if ancestor.tag in FRAMES and (names & FORMULAS or ancestor.tag == "mjx-container"):
            shown = ancestor
    return shown


def _is_formula_image(image: Element) -> bool:
    names = " ".join(kinds(image))
    return bool(image.get("alt")) and ("math" in names or names in ("tex", "latex"))


def _apart(element: Element, text: str) -> str:
    """The text, with spaces where it would run into a neighbour."""
    previous = element.getprevious()
    before = previous.tail or "" if previous is not None else element.getparent().text or ""
    after = element.tail or ""
    lead = " " if before[-1:].isalnum() or not before else ""
    return lead + text + (" " if after[:1].isalnum() or not after else "")


def write_marks(root: Element, styles: Mapping[Element, Style]) -> None:
    """Put the meaning of typography into the text, and remove its elements."""
    _write_ruby(root)
    _write_boxes(root)
    for link in list(root.iter("a")):
        if (link.get("href") or "").startswith("#") and words(link) in BACK_LINKS:
            drop(link)
    _write_scripts(root, styles)
    _part_fractions(root)
    for place in list(texts(root)):
        place.write(_plain_signs(place.text))
    _write_struck(root, styles)


def _plain_signs(text: str) -> str:
    if text.isascii():
        return text
    text = text.replace("\u2011", "-")  # a hyphen that does not break is a hyphen
    text = UNTICKED.sub("[ ]", TICKED.sub("[x]", text))
    text = _BOX_GAP.sub(r"\1 ", text)
    return _SLASH.sub("/", _VULGAR.sub(" ", text))


def _part_fractions(root: Element) -> None:
    """Separate a whole number from a fraction that stands in elements of its own."""
    for line in list(lines(root, lambda _: False)):
        places = [place for place, _, _ in line.places if place.text.strip()]
        for before, place, behind in zip(places, places[1:], places[2:], strict=False):
            is_part = place.text.isdigit() and behind.text.lstrip()[:1] in SLASHES
            if is_part and before.text[-1:].isdigit():
                place.write(f" {place.text}")


def _write_ruby(root: Element) -> None:
    for ruby in list(root.iter("ruby")):
        for reading in list(ruby.iter("rt")):
            following = reading.getnext()
            if following is not None and following.tag == "rt" and not (reading.tail or "").strip():
                following.text = words(reading) + words(following)
                drop(reading)
            elif text := words(reading):
                replace(reading, f"({text})")


def _write_boxes(root: Element) -> None:
    for box in list(root.iter("input", "en-todo")):
        if box.tag == "en-todo" or box.get("type", "").lower() in ("checkbox", "radio"):
            checked = box.get("checked")
            _write_box(box, checked is not None and checked.lower() != "false")
            drop(box)
    for element in list(root.iter()):
        checked = _checked(element)
        if checked is not None:
            _write_box(element, checked)
    _join_boxes(root)


def _join_boxes(root: Element) -> None:
    """Put a box that has its own line before the text of its item."""
    found = list(lines(root, lambda _: False))
    for line, following in pairwise(line for line in found if line.text.strip()):
        if line.text.strip() not in ("[x]", "[ ]") or _item(line) is None:
            continue
        if _item(line) is _item(following):
            target = next(place for place, _, _ in following.places if place.text.strip())
            target.write(f"{line.text.strip()} {target.text.lstrip()}")
            for place, _, _ in line.places:
                place.write("")


def _item(line: Line) -> Element | None:
    """The item of a list, or the cell, that a line stands in."""
    place = line.places[0][0]
    around = [] if place.is_tail else [place.element]
    around += place.element.iterancestors()
    return next((e for e in around if e.tag in ("li", "td")), None)


def _checked(element: Element) -> bool | None:
    """The state of an element that serves as a check box; None for other elements."""
    if element.get("role") in ("checkbox", "radio", "menuitemcheckbox", "switch"):
        return bool(element.get("aria-checked") == "true")
    tags = [tag.strip() for tag in (element.get("data-tag") or "").split(",")]
    for tag in tags:
        if tag.startswith("to-do"):
            return bool(tag.endswith(":completed"))
    state = element.get("data-checked") or element.get("data-list")
    if element.tag in ("li", "ul") and state in ("true", "false", "checked", "unchecked"):
        return state in ("true", "checked") if element.find(".//input") is None else None
    names = kinds(element)
    is_listed = element.tag == "li" and kinds(element.getparent()) & CHECKLISTS
    if is_listed and names & {"checked", "unchecked", "done", "completed"}:
        return bool(names & {"checked", "done", "completed"})
    if "checkbox" in names and names & {"checkbox-on", "checkbox-off"}:
        return "checkbox-on" in names
    style = element.get("style") or ""
    if element.tag == "li" and "--en-checked" in style:
        return bool(re.search(r"--en-checked:\s*true", style))
    return None


def _write_box(element: Element, is_checked: bool) -> None:
    """Write a box before an element's text, once."""
    sign = "[x] " if is_checked else "[ ] "
    if element.tag in ("input", "en-todo"):
        element.tail = sign + (element.tail or "").lstrip()
    elif not (text := words(element)).startswith(("[x]", "[ ]", "☐", "☑", "☒")):
        if not text:
            element.tag = "span"  # a picture of a box, with its text behind it
        element.text = sign + (element.text or "")


def _write_scripts(root: Element, styles: Mapping[Element, Style]) -> None:
    def is_script(element: Element) -> bool:
        return _script(element, styles) is not None

    for line in list(lines(root, is_script)):
        before = ""
        begun = 0
        whole = line.text
        begins = {begin for _, begin, _ in line.marks}
        for element, begin, end in line.marks:
            if element.getparent() is None:
                continue
            before = (before + whole[begun:begin])[-AROUND:]
            after = "" if end in begins else whole[end : end + AROUND]
            text = " ".join(whole[begin:end].split())
            if _script(element, styles) == "sub":
                written = lowered(before, text, after)
            else:
                written = raised(before, text, after, is_note=_is_note(element))
            replace(element, written)
            before += written
            begun = end


def _script(element: Element, styles: Mapping[Element, Style]) -> str | None:
    """How an element is moved off the line, sup or sub; None for one on the line."""
    if element.tag in ("sup", "sub"):
        return str(element.tag)
    align = styles.get(element, {}).get("vertical-align")
    if align in ("super", "sub") and element.find(".//sup") is None:
        return "sup" if align == "super" else "sub"
    return None


def _is_note(element: Element) -> bool:
    """True for a mark that leads to a note."""
    for each in element.iter():
        role = (each.get("role") or "") + (each.get("{http://www.idpf.org/2007/ops}type") or "")
        if "noteref" in role or kinds(each) & NOTES:
            return True
        if each.tag == "a" and "#" in (each.get("href") or ""):
            return True
    parent = element.getparent()
    return parent is not None and parent.tag == "a" and "#" in (parent.get("href") or "")


def _write_struck(root: Element, styles: Mapping[Element, Style]) -> None:
    def is_struck(element: Element) -> bool:
        if element.tag in STRUCK:
            return True
        style = styles.get(element, {})
        lined = style.get("text-decoration", "") + style.get("text-decoration-line", "")
        return "line-through" in lined

    for line in list(lines(root, is_struck)):
        struck = [place for place, _, marked in line.places if marked]
        if not struck:
            continue
        rest = "".join(place.text for place, _, marked in line.places if not marked)
        if re.search(r"\w", rest.replace("[x]", "").replace("[ ]", "")):
            _leave_out(line)
        else:
            _mark_struck([place for place in struck if place.text.strip()])


def _leave_out(line: Line) -> None:
    """Remove the struck-out parts of a line; numbers on both sides stay apart."""
    before = ""
    was_struck = False
    for place, _, is_struck in line.places:
        text = place.text
        if is_struck:
            has_space = text[:1].isspace() or text[-1:].isspace()
            place.write(" " if has_space and not before[-1:].isspace() else "")
        elif before[-1:].isspace():
            place.write(text.lstrip(" "))
        elif was_struck and before[-1:].isdigit() and text[:1].isdigit():
            place.write(f" {text}")
        before = place.text or before
        was_struck = is_struck


def _mark_struck(struck: list[Place]) -> None:
    """Put marks around a fully struck-out line, such as a finished item of a list."""
    if not struck:
        return
    first = struck[0]
    last = struck[-1]
    text = first.text.lstrip()
    first.write(first.text[: len(first.text) - len(text)] + "~~" + text)
    text = last.text.rstrip()
    last.write(text + "~~" + last.text[len(text) :])
