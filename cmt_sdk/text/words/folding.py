"""One spelling for equal-looking text: characters of a text, and letters of a word.

Knows Unicode, no index.
"""

from __future__ import annotations

import html.entities
import re
import unicodedata
from functools import lru_cache

ANSI = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b[ -/]*[0-~]"
)
# The same where the escape character is lost or written out; only colours and bold.
SHOWN = re.compile(
    r"(?:\u241b|\^\[|\\(?:x1[bB]|0?33|e|u001[bB]))?\[(?:0|1|[34][0-7]|9[0-7]|10[0-7])(?:;[0-9]{1,3}){0,4}m"
)
ENTITY = re.compile(r"&(?:#[0-9]{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});")
APART = ("<super>", "<sub>", "<fraction>", "<circle>", "<square>")  # 2019³ is not 20193
APOSTROPHES = "\u2018\u2019\u201b\u02bc\u02bb\u02b9\u2032\uff07\u00b4\u05f3"
HYPHENS = "\u2010\u2011\u2012\u2013\u2212\ufe63\uff0d\u05be"
JOINER = "\u200c"  # between the parts of a Persian word, which others write together or apart
# Default ignorable, and of no format class.
IGNORED = "\u034f\u115f\u1160\u17b4\u17b5\u180b\u180c\u180d\u180f\u3164\uffa0"
JOINERS = "\u200c\u200d"  # of Persian, of Indian scripts and of emoji
SHAPES = ("<wide>", "<narrow>", "<font>")
TATWEEL = "\u0640"
# Letters that NFKD does not decompose, and that one language or keyboard writes as another.
LETTERS = {
    "ٱ": "ا",
    "ى": "ي",
    "ی": "ي",
    "ک": "ك",
    "ة": "ه",
    "ı": "i",
    "ə": "e",
    "þ": "th",
    "ŋ": "n",
    "ð": "d",
}
SPELT = {"ä": "ae", "ö": "oe", "ü": "ue", "å": "aa", "ø": "oe", "æ": "ae"}
KATAKANA = {code: code - 0x60 for code in range(0x30A1, 0x30F7)}  # to hiragana
PREFIXES = 3
SHORTEST_STEM = 3  # letters
SHORT = 40  # letters of a word that is likely to recur
LATIN = re.compile(r"LATIN SMALL (?:LETTER|LIGATURE) ([A-Z]{1,2})(?: WITH .*)?")


class _Legible(dict[int, str]):
    """The text that a model reads for a character, computed on first use."""

    def __missing__(self, code: int) -> str:
        character = chr(code)
        if unicodedata.category(character) == "Cf":
            stands = character if character in JOINERS else ""
        elif (
            unicodedata.decomposition(character).startswith(SHAPES)
            or "\ufb00" <= character <= "\ufb06"
        ):
            stands = unicodedata.normalize("NFKC", character)
        else:
            stands = character
        self[code] = stands
        return stands


LEGIBLE = _Legible()


def legible(text: str) -> str:
    """The text as a model reads it: composed, in plain letters, as people see it.

    A small model reads decomposed, full-width and ligature letters, and letters with invisible ones
    between them, as other words. Signs with a meaning of their own stay: superscripts, dashes and
    quotation marks.

    Args:
        text: Any text.
    """
    plain = _shown(text)
    if not plain.isascii():
        plain = unicodedata.normalize("NFC", plain.translate(LEGIBLE))
    return plain if plain.strip() else text


class _Characters(dict[int, str]):
    """A table for `str.translate` from characters to clean text, computed on first use."""

    def __missing__(self, code: int) -> str:
        character = chr(code)
        self[code] = stands = _clean(character)
        return stands


def _clean(character: str) -> str:
    if character in APOSTROPHES:
        return "'"
    if character in HYPHENS or character == JOINER:
        return "-"
    kind = unicodedata.category(character)
    if kind in ("Cf", "Me") or character in IGNORED or character == TATWEEL:
        return ""
    if kind == "Mn" and (
        "\ufe00" <= character <= "\ufe0f" or "\U000e0100" <= character <= "\U000e01ef"
    ):
        return ""  # a variation selector
    if kind == "Nd":
        return str(unicodedata.decimal(character))
    if unicodedata.decomposition(character).startswith(APART):
        return f" {unicodedata.normalize('NFKC', character)} "
    return character


CHARACTERS = _Characters({n: chr(n) for n in range(0x80)})


def clean(text: str) -> str:
    """The text in NFKC, with the case and accents of its letters.

    Entities of HTML become their characters. Format characters, colours of a terminal and variation
    selectors go. All apostrophes, hyphens and digits become one apostrophe, one hyphen and 0 to 9;
    a superscript is separated from its neighbours.
    """
    text = _shown(text)
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text.translate(CHARACTERS))
    return text


def _shown(text: str) -> str:
    """The text as a terminal or a browser shows it: without colours, entities as characters."""
    if "\x1b" in text or "\x9b" in text:
        text = ANSI.sub("", text)
    if "m" in text and "[" in text:
        text = SHOWN.sub("", text)
    return ENTITY.sub(_character, text) if "&" in text else text


def _character(entity: re.Match[str]) -> str:
    """The character of an entity; an unknown entity stays."""
    name = entity[0][1:]
    if not name.startswith("#"):
        return html.entities.html5.get(name, entity[0])
    code = int(name[2:-1], 16) if name[1] in "xX" else int(name[1:-1])
    is_text = 0x20 <= code <= 0x10FFFF and not 0xD800 <= code <= 0xDFFF
    return chr(code) if is_text else " "


def fold(word: str) -> str:
    """A word of a clean text without case, accents and vowel points.

    Two spellings of the word share this form.
    """
    if word.isascii():
        return word.lower()
    return _remembered(word) if len(word) <= SHORT else _folded(word)


@lru_cache(1 << 14)
def _remembered(word: str) -> str:
    return _folded(word)


def _folded(word: str) -> str:
    apart = unicodedata.normalize("NFD", word.casefold().translate(KATAKANA))
    letters = "".join(_base(c) for c in apart if not _is_accent(c))
    return unicodedata.normalize("NFC", letters)


def spelt_out(word: str) -> str:
    """The word as a keyboard without its letters writes it (Schluessel), folded as by `fold`."""
    letters = unicodedata.normalize("NFC", word.casefold())
    return fold("".join(SPELT.get(c, c) for c in letters))


def without_prefixes(word: str) -> list[str]:
    """The forms of a word of a right-to-left script without its first letters.

    Hebrew and Arabic write "the", "and" and "in" together with the word that follows.
    """
    if unicodedata.bidirectional(word[0]) not in ("R", "AL"):
        return []
    return [word[n:] for n in range(1, PREFIXES + 1) if len(word) - n >= SHORTEST_STEM]


def _is_accent(character: str) -> bool:
    """True for accents above and below, strokes, and Hebrew or Arabic points, by combining class.

    Signs that spell a syllable (Indic, Thai, kana) have other classes, and stay.
    """
    place = unicodedata.combining(character)
    return place == 1 or 10 <= place <= 36 or 200 <= place <= 240


@lru_cache(1 << 12)
def _base(character: str) -> str:
    """The letter under a stroke or hook that Unicode does not take apart: l of ł, o of ø."""
    if character.isascii():
        return character
    if character in LETTERS:
        return LETTERS[character]
    named = LATIN.fullmatch(unicodedata.name(character, ""))
    return named[1].lower() if named else character
