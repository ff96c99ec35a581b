"""Raised and lowered letters on the line: powers, notes, units, ordinals, fractions.

Knows the text before and after them. Knows no file format.
"""

from __future__ import annotations

import re

UNITS = frozenset(
    [
        "m",
        "mm",
        "cm",
        "dm",
        "km",
        "hm",
        "μm",
        "µm",
        "nm",
        "pm",
        "in",
        "ft",
        "yd",
        "mi",
        "mil",
        "s",
        "ms",
        "min",
        "h",
        "d",
        "sec",
        "m/s",
        "km/h",
        "Hz",
        "K",
        "g",
        "kg",
        "mol",
        "cd",
        "A",
        "ha",
        "L",
        "l",
        "mi",
        "yr",
        "px",
        "pt",
        "м",
        "см",
        "мм",
        "км",
        "дм",
    ]
)
RAISED = str.maketrans("0123456789+-−–", "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁻⁻")
TRADE_MARKS = {"TM": "™", "SM": "℠", "(TM)": "™", "(R)": "®", "R": "®"}
CURRENCY = "$€£¥₹₽₺₩₴₪฿"
QUARTERS = frozenset({"00", "05", "15", "30", "45"})

_WORD = re.compile(r"[^\W\d_]+$")
_NUMBER = re.compile(r"(\d+(?:[.,]\d+)*)$")
_OPERATOR = re.compile(r"[×·*/=+^(⋅∙−-]\s*\d[\d.,]*$")
_TERM = re.compile(r"[=+−·⋅*/(^]\s*[^\W\d_]{1,3}$")
_UNIT = re.compile(r"(?:^|[\d\s/·*(\[|])([^\W\d_]+)$")
_ISOTOPE = re.compile(r"[A-Z][a-z]?(?![^\W\d_])")
_CHARGE = re.compile(r"\d*[+\-−–]+")
_FRACTION = re.compile(r"\s*[/⁄∕]\s*\d")
_WRITTEN_FRACTION = re.compile(r"\d+\s*[/⁄∕]\s*\d+")
_FORMULA_END = re.compile(r"(?:[A-Z][a-z]?\d*|\)\d*)$")
_DEGREES = re.compile(r"\s*(?:[CFK]\b|$|[.,;)])")
_MARK = re.compile(r"[^\W_]\[\w{1,3}\]$")
_LISTED = re.compile(r"\(?(\w{1,3})[.)]")


def raised(before: str, text: str, after: str, *, is_note: bool) -> str:
    """A superscript as characters of the line.

    Args:
        before: The line up to it, as rewritten so far.
        text: Its text.
        after: The line from its end on.
        is_note: True for a mark that leads to a note.

    Returns:
        The text for the line, such as `^5`, `[3]`, `²` or `rd`.
    """
    if not re.search(r"\w", text) or (not text.isascii() and text.isdigit()):
        return text
    if text[0] in "[(" and text[-1] in "])":
        return f"{text} " if after[:1].isalnum() else text
    if is_note:
        return _note(text, after)
    if text in TRADE_MARKS:
        return TRADE_MARKS[text]
    is_after_number = before[-1:].isdigit() or not before[-1:].strip()
    if is_after_number and text.isdigit() and _FRACTION.match(after):
        return f" {text}" if before[-1:].isdigit() else text
    if before[-1:].isdigit() and _WRITTEN_FRACTION.fullmatch(text):
        return _apart(f" {text}", after)
    return _unmarked(before, text, after)


def _unmarked(before: str, text: str, after: str) -> str:
    """A superscript whose meaning shows from its neighbours alone."""
    last = before[-1:]
    if last.isspace() or not last or last in "([{|":
        return _leading(text, after)
    if _CHARGE.fullmatch(text) and _FORMULA_END.search(before):
        return text.translate(RAISED)
    if last.isdigit() and text in ("o", "0", "º", "°") and _DEGREES.match(after):
        return "°"
    if text.isalpha():
        return _letters(before, text, after)
    if not last.isalnum():
        return _after_a_sign(before, text, after)
    if last.isdigit():
        return _after_a_number(before, text, after)
    return _after_a_word(before, text, after)


def lowered(before: str, text: str, after: str) -> str:
    """A subscript as characters of the line; arguments as for `raised`."""
    last = before[-1:]
    if not text or (not last.isalnum() and last != ")"):
        return f"{text} " if text[-1:].isalnum() and after[:1].isalnum() else text
    if text.isdigit() and _FORMULA_END.search(before) and not after[:1].isdigit():
        return text
    return _apart("_" + _grouped(text), after)


def _grouped(text: str) -> str:
    return text if re.fullmatch(r"[\w.,−+-]+", text) else f"({text})"


def _apart(text: str, after: str) -> str:
    return f"{text} " if after[:1].isalnum() else text


def _note(text: str, after: str) -> str:
    if listed := _LISTED.fullmatch(text):
        text = listed.group(1)
    if not text[0].isalnum() and text[0] != "[":
        return text
    return _apart(f"[{text}]", after) if text[0] != "[" else _apart(text, after)


def _leading(text: str, after: str) -> str:
    """At the beginning of a word: an isotope's number, or the mark of the note that follows."""
    if text.isdigit() and _ISOTOPE.match(after):
        return text.translate(RAISED)
    if text.isalpha() and len(text) > 2:
        return _apart(text, after)
    return f"[{text}] " if not after[:1].isspace() else f"[{text}]"


def _letters(before: str, text: str, after: str) -> str:
    """Letters: of an ordinal or an abbreviation, a power, or the mark of a note."""
    number = _NUMBER.search(before)
    word = _WORD.search(before)
    if number:
        if len(text) > 1 or (text in "oaeºª" and len(number.group(1)) <= 2):
            return _apart(text, after)
        if len(number.group(1)) <= 2:
            return _apart("^" + text, after)
        return _note(text, after)
    if word and (len(text) > 1 or (text in "oº" and word.group() in ("N", "n"))):
        return text
    if word and (len(word.group()) == 1 and text not in "ert"):
        return _apart("^" + text, after)
    if word and (text in "eoart" and len(word.group()) <= 5 and word.group().isupper()):
        return text
    return _note(text, after)


def _after_a_sign(before: str, text: str, after: str) -> str:
    last = before[-1:]
    if text.isdigit() and len(text) == 2 and re.search(r"\d[.,]$", before):
        return text  # cents, with the sign before them on the line
    if _MARK.search(before):
        return _note(text, after)
    if last in ")]" and _looks_like_maths(before):
        return _apart("^" + _grouped(text), after)
    if last in "°′″%" or _CHARGE.fullmatch(text):
        return _apart("^" + _grouped(text), after)
    return _note(text, after)


def _looks_like_maths(before: str) -> bool:
    opening = max(before.rfind("("), before.rfind("["))
    inner = before[opening + 1 : -1]
    return opening >= 0 and not re.search(r"[^\W\d_]{3,}|\s[^\W\d_]{2}\s", inner)


def _after_a_number(before: str, text: str, after: str) -> str:
    """A power of ten, cents, minutes, or the mark of a note."""
    found = _NUMBER.search(before)
    number = found.group(1) if found else before[-1:]
    if re.fullmatch(r"\d\d", text) and _is_price(before, number, after):
        return "." + text
    if text[0] in "+-−–" or _OPERATOR.search(before):
        return _apart("^" + _grouped(text), after)
    if text in QUARTERS and number.isdigit() and int(number) < 25 and number not in ("2", "10"):
        return ":" + text
    is_base = number in ("10", "100", "1000") or len(number) == 1
    if is_base or re.match(r"\s*[=×·⋅*]", after):
        return _apart("^" + _grouped(text), after) if _is_power(text) else _note(text, after)
    return _note(text, after)


def _is_power(text: str) -> bool:
    return re.fullmatch(r"[\w.+−-]+", text) is not None


def _is_price(before: str, number: str, after: str) -> bool:
    ahead = before[: len(before) - len(number)].rstrip()[-1:]
    behind = after.lstrip()[:1]
    return (ahead != "" and ahead in CURRENCY) or (behind != "" and behind in CURRENCY)


def _after_a_word(before: str, text: str, after: str) -> str:
    """A unit's power, a variable's, an ion's charge, or the mark of a note."""
    unit = _UNIT.search(before)
    if unit and unit.group(1) in UNITS and re.fullmatch(r"[+\-−–]?[1-9]", text):
        return text.translate(RAISED)
    word = _WORD.search(before)
    is_variable = word is not None and (len(word.group()) == 1 or _TERM.search(before))
    if (is_variable and _is_power(text)) or text[0] in "+-−–":
        return _apart("^" + _grouped(text), after)
    return _note(text, after)
