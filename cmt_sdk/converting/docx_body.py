"""The text of a docx part in the elements that mammoth reads.

Knows text boxes, fields, moved text, formulas, symbols and check boxes. Knows no styles.
"""

from __future__ import annotations

from cmt_sdk.converting.docx_package import (
    Element,
    attribute,
    child,
    found,
    is_on,
    local,
    made,
    remove,
    run,
    unwrap,
)
from cmt_sdk.converting.maths import linear

TRANSPARENT = ("fldSimple", "smartTag", "customXml", "moveTo", "dir", "bdo")
COLUMN = "\ue001"  # stands for a tab until the text is Markdown, which collapses tabs
SYMBOL_FONTS = ("wingdings", "webdings", "symbol", "zapfdingbats")


def simplify(root: Element) -> None:
    """Rewrite a part, so that mammoth neither loses nor doubles any of its text."""
    for element in list(found(root, *TRANSPARENT)):
        if local(element) != "customXml" or element.getparent() is not None:
            unwrap(element)
    _drop_placeholders(root)
    _hoist_boxes(root)
    _write_formulas(root)
    _write_choices(root)
    for ruby in list(found(root, "ruby")):
        _write_ruby(ruby)
    for text in list(found(root, "t")):
        _spell_symbols(text)
    for mark in list(found(root, "tab", "ptab", "cr", "br")):
        if local(mark.getparent()) != "r":
            continue
        if local(mark) == "br":
            mark.attrib.clear()  # keeps the words on both sides of a page break apart
            continue
        if local(mark) == "cr":
            mark.addprevious(made(mark, "br"))
        else:
            text = made(mark, "t")
            text.text = COLUMN
            mark.addprevious(text)
        remove(mark)


def _drop_placeholders(root: Element) -> None:
    """Remove the prompts that a form shows in empty fields."""
    for control in list(found(root, "sdt")):
        properties = child(control, "sdtPr")
        if is_on(child(properties, "showingPlcHdr")) and child(properties, "checkbox") is None:
            for text in list(found(control, "t")):
                text.text = ""


def _hoist_boxes(root: Element) -> None:
    """Move the paragraphs of text boxes behind the paragraph that holds the box."""
    for choice in list(found(root, "AlternateContent")):
        kinds = {local(e) for e in choice.iter()}
        if "txbxContent" in kinds:
            branch = child(choice, "Choice")
            fallback = child(choice, "Fallback")
            if branch is not None and next(found(branch, "txbxContent"), None) is not None:
                if fallback is not None:
                    choice.remove(fallback)
            elif branch is not None:
                choice.remove(branch)
    for box in reversed(list(found(root, "txbxContent"))):
        anchor = next((a for a in box.iterancestors("{*}p") if a.tag == _paragraph_tag(box)), None)
        if anchor is None:
            continue
        for inner in reversed(list(box)):
            anchor.addnext(inner)
        remove(box)


def _paragraph_tag(box: Element) -> str:
    return str(box.tag).rpartition("}")[0] + "}p"


def _write_formulas(root: Element) -> None:
    for formula in list(found(root, "oMath")):
        text = linear(formula)
        owner = next((a for a in formula.iterancestors() if local(a) in ("p", "r")), None)
        if owner is None or not text:
            continue
        new = run(owner, f" {text} ")
        place = formula.getparent() if local(formula.getparent()) == "oMathPara" else formula
        place.addprevious(new)
        remove(formula)
    for paragraph in list(found(root, "oMathPara")):
        remove(paragraph)


def _write_choices(root: Element) -> None:
    """Write the chosen entry of a form's drop-down list, which Word keeps as its number."""
    for entries in list(found(root, "ddList")):
        number = attribute(child(entries, "result"), "val") or "0"
        texts = [attribute(e, "val") or "" for e in entries if local(e) == "listEntry"]
        owner = next((a for a in entries.iterancestors() if local(a) == "r"), None)
        if owner is not None and number.isdigit() and int(number) < len(texts):
            owner.addprevious(run(owner, texts[int(number)]))


def _write_ruby(ruby: Element) -> None:
    reading = "".join(t.text or "" for e in ruby if local(e) == "rt" for t in found(e, "t"))
    base = "".join(t.text or "" for e in ruby if local(e) == "rubyBase" for t in found(e, "t"))
    text = made(ruby, "t")
    text.text = f"{base}({reading})" if reading else base
    ruby.addprevious(text)
    remove(ruby)


def _spell_symbols(text: Element) -> None:
    """Name the letters of a symbol font, which a text holds as other letters."""
    owner = text.getparent()
    fonts = child(owner, "rPr", "rFonts")
    font = attribute(fonts, "ascii") or attribute(fonts, "hAnsi") or ""
    if not font.lower().startswith(SYMBOL_FONTS) or not text.text:
        return
    for letter in text.text:
        if letter.isspace():
            new = made(text, "t")
            new.text = letter
        else:
            new = made(text, "sym", font=font, char=f"F0{ord(letter) & 0xFF:02X}")
        text.addprevious(new)
    remove(text)
