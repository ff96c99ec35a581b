"""Write cmt_sdk/text/words/names.py from the Unicode CLDR; needs `pip install babel`, and `ruff format`
after it.

The names are a file of the package, and no library at run time: an index made today must be read
tomorrow with the same ones.
"""

import re
import textwrap
import unicodedata
from collections import defaultdict
from pathlib import Path

from babel import Locale, __version__

LANGUAGES = """
    af ar az be bg bn bs ca cs cy da de el en es et eu fa fi fil fr ga gl gu he hi hr hu hy id is it
    ja ka kk km kn ko ky lo lt lv mk ml mn mr ms my nb ne nl nn pa pl pt pt_PT ro ru si sk sl sq sr
    sr_Latn sv sw ta te th tr uk ur uz vi zh zh_Hant zu
"""
TARGET = Path(__file__).parents[2] / "cmt_sdk" / "words" / "names.py"


def folded(name: str) -> str:
    """A name in the form in which a text is looked through: lower case, composed, without a full
    stop.
    """
    return (
        unicodedata.normalize("NFKC", name)
        .casefold()
        .replace(".", "")
        .replace("\u200c", "")
        .strip()
    )


def months() -> dict[str, list[int]]:
    """The months that a name stands for in some language; names of one word alone."""
    found = defaultdict(set)
    for code in LANGUAGES.split():
        named = Locale.parse(code).months
        for context in ("format", "stand-alone"):
            for width in ("wide", "abbreviated"):
                for number, name in named[context].get(width, {}).items():
                    name = folded(name)
                    if len(name) > 2 and not re.search(r"[\s\d]", name):
                        found[name].add(number)
    return {name: sorted(numbers) for name, numbers in found.items()}


def scales() -> dict[str, list[int]]:
    """The powers of ten that a word after a number stands for, from a thousand on, in some
    language.

    Of words in Latin letters only long ones, or those that several languages share: "min" is a
    minute almost everywhere.
    """
    found, known = defaultdict(set), defaultdict(set)
    for code in LANGUAGES.split():
        for width in ("long", "short"):
            for by_plural in Locale.parse(code).compact_decimal_formats[width].values():
                for size, pattern in by_plural.items():
                    shown = (
                        re.sub(r"[¤\u200e\u200f]", "", str(pattern.pattern))
                        .replace("'", "")
                        .split(";")[0]
                    )
                    word = folded(re.sub(r"[0\s]", "", shown))
                    if len(size) > 3 and "0" in shown and re.fullmatch(r"[^\W\d_]+", word):
                        found[word].add(len(size) - shown.count("0"))
                        known[word].add(code[:2])
    return {
        w: sorted(p)
        for w, p in found.items()
        if not w.isascii() or len(w) > 3 or (len(w) > 2 and len(known[w]) > 1)
    }


def written(name: str, note: str, values: dict[str, list[int]]) -> str:
    """A constant: a dict of strings by numbers, one string a meaning."""
    by_numbers = defaultdict(list)
    for word, numbers in values.items():
        by_numbers[tuple(numbers)].append(word)
    lines = [f"# {note}", f"{name}: dict[tuple[int, ...], str] = {{"]
    for numbers, words in sorted(by_numbers.items()):
        text = textwrap.wrap(
            " ".join(sorted(words)), 84, break_long_words=False, break_on_hyphens=False
        )
        lines.append(f"    {numbers}: (")
        lines += [f'        "{part} "' for part in text]
        lines.append("    ),")
    return "\n".join([*lines, "}"])


if __name__ == "__main__":
    head = f'''"""Names of months and of powers of ten in many languages, from the Unicode CLDR (by Babel {__version__}).

Made by tests/everyday/calendar_names.py; not to be changed by hand: what is indexed with these names is found with the same.
"""

from __future__ import annotations
'''
    body = [written("MONTHS", "Month numbers, and the words for them.", months())]
    body.append(written("SCALES", "Powers of ten, and the words for them.", scales()))
    TARGET.write_text(head + "\n" + "\n\n".join(body) + "\n", encoding="utf-8")
