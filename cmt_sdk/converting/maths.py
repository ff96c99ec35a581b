"""Formulas as a line of text: `1/2`, `x^2`, `√(a + b)`, `[1, 0; 0, 1]`.

Knows MathML and the maths of Office Open XML. Does not know where in a file formulas stand.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping
from typing import Any

SIGNS = "∑∏∐∫∬∭∮√∛∜∂∇∞¬|‖∀∃"  # mathematical symbols that stand before their operand
INVISIBLE = str.maketrans("", "", "\u2061\u2062\u2063\u2064\u200b")
ROOTS = {"2": "√", "3": "∛", "4": "∜"}
FENCED = re.compile(r"[(\[{|‖⌊⌈].*[)\]}|‖⌋⌉]", re.DOTALL)

_ATOM = re.compile(r"\d[\d.,]*%?|[^\W\d_]+[′']*|.", re.DOTALL)
_LEXEMES = re.compile(r"\d[\d.,]*|[^\W\d_]+|\s+|.", re.DOTALL)
_OPEN_END = re.compile(r"[\^_/][\w.]+$")  # an exponent, index or denominator without brackets
_FENCED_MATRIX = re.compile(r"[(\[|]\s*(\[[^\[\]]*;[^\[\]]*\])\s*[)\]|]")


def linear(formula: Any) -> str:
    """A MathML or Office formula, an element of lxml, as a line of text."""
    return _FENCED_MATRIX.sub(r"\1", " ".join(_row(formula).split()))


def _name(element: Any) -> str:
    return element.tag.rpartition("}")[2] if isinstance(element.tag, str) else ""


def _row(element: Any) -> str:
    """The children of an element one after the other; numbers and names never run together."""
    line = ""
    for child in element:
        for part in _lexemes(child) if _name(child) == "r" else [_one(child)]:
            line = _joined(line, part)
    return line


def _lexemes(run: Any) -> list[str]:
    """The signs, names and numbers of a run of Office maths, which holds several in one."""
    texts = [child.text or "" for child in run if _name(child) == "t"]
    return _LEXEMES.findall("".join(texts).translate(INVISIBLE))


def _joined(line: str, part: str) -> str:
    if not part:
        return line
    if _is_relation(part):
        if not line.strip() or _is_relation(line.rstrip()[-1]) or line[-1] in "([{|,":
            return line + part
        return f"{line.rstrip()} {part} "
    if line and line[-1].isalnum() and part[0].isalnum() and _would_fuse(line, part):
        return f"{line} {part}"
    return line + part


def _is_relation(part: str) -> bool:
    """True for a sign between two terms, such as = or +."""
    if part in ("⋅", "·", "-"):
        return True
    return len(part) == 1 and part not in SIGNS and unicodedata.category(part) == "Sm"


def _would_fuse(line: str, part: str) -> bool:
    """True for two numbers, and where one of the two is a name of several letters."""
    if line[-1].isdigit() and part[0].isdigit():
        return True
    if _OPEN_END.search(line):
        return True
    last = re.split(r"[\W\d_]", line)[-1]
    first = re.split(r"[\W\d_]", part)[0]
    return max(len(last), len(first)) > 1 or (line[-1].isalpha() and part[0].isdigit())


def _one(element: Any) -> str:
    rule = RULES.get(_name(element))
    return rule(element) if rule else _row(element)


def _grouped(text: str) -> str:
    """In brackets, unless it is one name, one number or in brackets already."""
    text = " ".join(text.split())
    if _ATOM.fullmatch(text) or not text:
        return text
    if FENCED.fullmatch(text) and _is_one_group(text):
        return text
    return f"({text})"


def _is_one_group(text: str) -> bool:
    depth = 0
    for place, letter in enumerate(text):
        depth += (letter in "([{") - (letter in ")]}")
        if depth == 0 and place < len(text) - 1:
            return False
    return True


def _parts(element: Any, count: int) -> list[str]:
    found = [_one(child) for child in element if isinstance(child.tag, str)]
    return (found + [""] * count)[:count]


def _fraction(upper: str, lower: str) -> str:
    return f"{_grouped(upper)}/{_grouped(lower)}"


def _scripts(base: str, lower: str, upper: str) -> str:
    text = _grouped(base)
    if lower.strip():
        text += "_" + _grouped(lower)
    if upper.strip():
        text += "^" + _grouped(upper)
    return text


def _root(inner: str, degree: str) -> str:
    inner = " ".join(inner.split())
    sign = ROOTS.get(degree.strip() or "2")
    return f"{sign}({inner})" if sign else f"({inner})^(1/{degree.strip()})"


def _matrix(rows: list[list[str]]) -> str:
    return "[" + "; ".join(", ".join(" ".join(c.split()) for c in row) for row in rows) + "]"


# MathML


def _token(element: Any) -> str:
    text = "".join(element.itertext()).translate(INVISIBLE).strip()
    return " " + text + " " if _name(element) == "mtext" and text.isalpha() else text


def _ml_fraction(element: Any) -> str:
    upper, lower = _parts(element, 2)
    thickness = element.get("linethickness", "")
    if thickness in ("0", "0px", "0pt"):
        return f"({upper} over {lower})"
    return _fraction(upper, lower)


def _ml_over(element: Any) -> str:
    base, over = _parts(element, 2)
    if over.strip() in ("¯", "‾", "_", "^", "ˆ", "~", "˜", "→", "⃗", "˙", "¨", "."):
        return f"{_grouped(base)}{over.strip()}"
    return _scripts(base, "", over)


def _ml_under(element: Any) -> str:
    base, under = _parts(element, 2)
    return _scripts(base, under, "")


def _ml_both(element: Any) -> str:
    base, lower, upper = _parts(element, 3)
    return _scripts(base, lower, upper)


def _ml_root(element: Any) -> str:
    inner, degree = _parts(element, 2)
    return _root(inner, degree)


def _ml_table(element: Any) -> str:
    rows = [row for row in element if _name(row) in ("mtr", "mlabeledtr")]
    cells = [[_row(cell) for cell in row if _name(cell) == "mtd"] for row in rows]
    if all(len(row) == 1 for row in cells):
        return "; ".join(row[0] for row in cells)
    return _matrix(cells)


def _ml_fenced(element: Any) -> str:
    separator = (element.get("separators", ",") or " ").strip()[:1]
    inner = f"{separator} ".join(_one(child) for child in element)
    return f"{element.get('open', '(')}{inner}{element.get('close', ')')}"


def _ml_semantics(element: Any) -> str:
    for child in element:
        if not _name(child).startswith("annotation"):
            return _one(child)
    return ""


def _ml_multi(element: Any) -> str:
    children = list(element)
    if not children:
        return ""
    base = _one(children[0])
    after: list[str] = []
    before: list[str] = []
    scripts = after
    for child in children[1:]:
        if _name(child) == "mprescripts":
            scripts = before
        else:
            scripts.append(_one(child))
    lead = "".join(f"^{_grouped(t)} " for t in before[1::2] if t.strip())
    return lead + _scripts(base, "".join(after[0::2]), "".join(after[1::2]))


# Office Open XML


def _om_part(element: Any, name: str) -> str:
    for child in element:
        if _name(child) == name:
            return _row(child)
    return ""


def _om_property(element: Any, name: str, default: str) -> str:
    for child in element.iter():
        if _name(child) == name:
            values = [v for key, v in child.attrib.items() if key.rpartition("}")[2] == "val"]
            return str(values[0]) if values else ""
        if _name(child) == "e":
            break
    return default


def _om_nary(element: Any) -> str:
    sign = _om_property(element, "chr", "∫")
    lower = _om_part(element, "sub")
    upper = _om_part(element, "sup")
    return f"{_scripts(sign, lower, upper)} {_grouped(_om_part(element, 'e'))}"


def _om_delimited(element: Any) -> str:
    opening = _om_property(element, "begChr", "(")
    closing = _om_property(element, "endChr", ")")
    separator = _om_property(element, "sepChr", "|")
    parts = [_row(child) for child in element if _name(child) == "e"]
    inner = separator.join(parts)
    if inner.startswith("[") and inner.endswith("]") and opening in "([":
        return inner
    return f"{opening}{inner}{closing}"


def _om_matrix(element: Any) -> str:
    rows = [row for row in element if _name(row) == "mr"]
    return _matrix([[_row(cell) for cell in row if _name(cell) == "e"] for row in rows])


def _om_accent(element: Any) -> str:
    return _grouped(_om_part(element, "e")) + _om_property(element, "chr", "^")


def _nothing(_: Any) -> str:
    return ""


RULES: Mapping[str, Callable[[Any], str]] = {
    **dict.fromkeys(("mi", "mn", "mo", "mtext", "ms"), _token),
    "mfrac": _ml_fraction,
    "msup": lambda e: _scripts(_parts(e, 2)[0], "", _parts(e, 2)[1]),
    "msub": _ml_under,
    "munder": _ml_under,
    "mover": _ml_over,
    "msubsup": _ml_both,
    "munderover": _ml_both,
    "mmultiscripts": _ml_multi,
    "msqrt": lambda e: _root(_row(e), ""),
    "mroot": _ml_root,
    "mtable": _ml_table,
    "mfenced": _ml_fenced,
    "semantics": _ml_semantics,
    **dict.fromkeys(("annotation", "annotation-xml", "mphantom", "none"), _nothing),
    "f": lambda e: _fraction(_om_part(e, "num"), _om_part(e, "den")),
    "sSup": lambda e: _scripts(_om_part(e, "e"), "", _om_part(e, "sup")),
    "sSub": lambda e: _scripts(_om_part(e, "e"), _om_part(e, "sub"), ""),
    "sSubSup": lambda e: _scripts(_om_part(e, "e"), _om_part(e, "sub"), _om_part(e, "sup")),
    "limLow": lambda e: _scripts(_om_part(e, "e"), _om_part(e, "lim"), ""),
    "limUpp": lambda e: _scripts(_om_part(e, "e"), "", _om_part(e, "lim")),
    "rad": lambda e: _root(_om_part(e, "e"), _om_part(e, "deg")),
    "func": lambda e: f"{_om_part(e, 'fName')} {_grouped(_om_part(e, 'e'))}",
    "nary": _om_nary,
    "d": _om_delimited,
    "m": _om_matrix,
    "acc": _om_accent,
    "bar": lambda e: _grouped(_om_part(e, "e")) + "¯",
    "eqArr": lambda e: "; ".join(_row(c) for c in e if _name(c) == "e"),
    **dict.fromkeys(("fPr", "dPr", "naryPr", "radPr", "ctrlPr", "rPr"), _nothing),
}
