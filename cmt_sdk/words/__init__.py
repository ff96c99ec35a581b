"""The words of a text and of a question in the form in which an index compares them. Knows no index
and no SQL.

A text is cleaned (folding.py) and cut at white space. What stands between is taken apart:
`getUserName` is there whole and in its three parts, `E-1043` as e, 1043 and e1043. Scripts that set
no spaces between words are cut into pairs of characters. Dates and numbers are added in one
notation (dates.py, numbers.py).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache, lru_cache
from itertools import pairwise
from typing import Any, NamedTuple

from cmt_sdk.words.dates import Date, dates, times
from cmt_sdk.words.folding import clean, fold, spelt_out, without_prefixes
from cmt_sdk.words.numbers import numbers

GRAM = 4  # letters
LAST_LATIN = "\u024f"
LONG_WORD = 9  # letters of a word in Latin script that may be a compound
LONG_ELSEWHERE = GRAM + 1  # other scripts: articles and prepositions are written with the word
LONGEST_WORD = 80  # letters: what is longer is no word
MOST_PIECES = 8
LONGEST_JOINED = 40
DIGIT = re.compile("[0-9月]")
NEAR = 3  # words before and after digits that may belong to a date
TAIL = 7  # last digits of a phone number, which are the same with and without the country's code

PAIRED = r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Hangul}\p{LineBreak=Complex_Context}\u30FC]"
SIGN = r"[\p{Extended_Pictographic}\p{Regional_Indicator}]"
LETTER = rf"[\p{{L}}\p{{N}}--{PAIRED}]"
WORD = rf"{LETTER}[\p{{L}}\p{{N}}\p{{M}}--{PAIRED}]*"
UNITS = rf"(?:{PAIRED}\p{{M}}*)"


class Indexed(NamedTuple):
    """The words of a text, each column parted by spaces.

    `words` has each word as it stands there, `forms` what else it may be written as, `grams` the
    runs of four letters of the long ones, `meanings` its dates, times and numbers in one notation.
    """

    words: str
    forms: str
    grams: str
    meanings: str


@dataclass(frozen=True, slots=True)
class Asked:
    """What to look for: any of `words`, and any word that begins with one of `starts`.

    Those of `spelt` are of letters alone, and may stand within a longer word.
    """

    words: Sequence[str]
    starts: Sequence[str]
    spelt: Sequence[str]


@dataclass(frozen=True, slots=True)
class _Patterns:
    """Compiled when they are first needed: the library takes some hundredths of a second to
    load.
    """

    chunk: Any
    unit: Any
    seam: Any
    spaced: Any
    account: Any
    wrapped: Any
    broken: Any


@cache
def _patterns() -> _Patterns:
    import regex

    def made(pattern: str) -> Any:
        return regex.compile(pattern, regex.V1)

    return _Patterns(
        chunk=made(rf"(?P<word>{WORD})|(?P<pairs>{UNITS}+)|(?P<signs>{SIGN}+)"),
        unit=made(rf"{PAIRED}\p{{M}}*|{SIGN}"),
        seam=made(
            r"(?<=\p{Ll})(?=\p{Lu})|(?<=\p{Lu})(?=\p{Lu}\p{Ll}{2})|(?<=\p{N})(?=\p{L})|(?<=\p{L})(?=\p{N})"
        ),
        spaced=made(
            r"(?<![\w.,-])\+?\(?\d+\)?(?: ?\(0\))?(?:[ ./()-]{1,2}\d{2,}){1,9}(?![\d.,]*\d)"
        ),
        account=made(r"\b[A-Z]{2}\d{2}(?: [A-Z0-9]{4}){2,7}(?: [A-Z0-9]{1,4})?\b"),
        wrapped=made(rf"(?<={PAIRED})\n[ \t]*(?={PAIRED})"),
        broken=made(r"(?<=\p{L})-\n[ \t]*(?=\p{Ll})"),
    )


def indexed(text: str) -> Indexed:
    """The words of a text as an index keeps them."""
    words: list[str] = []
    forms: list[str] = []
    of_long: list[str] = []
    chunks = _lines_joined(clean(text)).split()
    for chunk in chunks:
        of_chunk = _of_text(chunk)
        words += of_chunk[0]
        forms += of_chunk[1]
        of_long += of_chunk[2]
    meanings = _in_one_notation(chunks)
    return Indexed(" ".join(words), " ".join(forms), " ".join(of_long), " ".join(meanings))


def asked(question: str) -> Asked:
    """The words of a question in every form, each once."""
    words: dict[str, None] = {}
    starts: dict[str, None] = {}
    spelt: dict[str, None] = {}
    chunks = _lines_joined(clean(question)).split()
    for chunk in chunks:
        found = _Taken(of_question=True)
        found.take_apart(chunk)
        words |= dict.fromkeys([*found.words, *found.forms])
        starts |= dict.fromkeys(found.starts)
        spelt |= dict.fromkeys(
            word for word in found.words if len(word) >= GRAM and _is_spelt(word)
        )
    words |= dict.fromkeys(_in_one_notation(chunks))
    return Asked(list(words), list(starts), list(spelt))


def _lines_joined(text: str) -> str:
    """A text whose lines end within words: after a hyphen, or between two characters of a script
    without spaces.
    """
    if "\n" not in text:
        return text
    if "-\n" in text:
        text = _patterns().broken.sub("-", text)
    return text if text.isascii() else _patterns().wrapped.sub("", text)


def _of_text(chunk: str) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    """The words of what stands between two spaces of a text, their other forms, and the grams of
    the long ones. Short chunks come again and are remembered; others would fill the memory.
    """
    return _remembered(chunk) if len(chunk) <= LONGEST_JOINED else _parts_of(chunk)


@lru_cache(1 << 16)
def _remembered(chunk: str) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    return _parts_of(chunk)


def _parts_of(chunk: str) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    found = _Taken()
    if chunk.isascii() and chunk.isalpha() and chunk[1:].islower():  # most words of most texts
        found.words = [chunk.lower()]
    else:
        found.take_apart(chunk)
    of_long = tuple(gram for word in found.words if _is_long(word) for gram in grams(word))
    return tuple(found.words), tuple(found.forms), of_long


def _is_spelt(word: str) -> bool:
    """Whether a word is of letters alone, in a script that parts its words."""
    return word.isalpha() and (word[0] <= LAST_LATIN or not _patterns().unit.match(word))


def _is_long(word: str) -> bool:
    shortest = LONG_WORD if word[0] <= LAST_LATIN else LONG_ELSEWHERE
    return shortest <= len(word) <= LONGEST_WORD and _is_spelt(word)


def grams(word: str) -> list[str]:
    """The runs of four letters of a word, in order.

    Those of a word within a longer one follow each other there.
    """
    return [word[n : n + GRAM] for n in range(len(word) - GRAM + 1)]


def heads_and_tails(word: str) -> list[str]:
    """The beginnings and ends of a long word, of which a compound may be made; none of a short
    one.
    """
    if not _is_long(word):
        return []
    cuts = range(GRAM, len(word) - GRAM + 1)
    return [part for n in cuts for part in (word[:n], word[n:])]


@dataclass
class _Taken:
    """A chunk taken apart: its words, their other forms, and of a question the beginnings that are
    looked for.
    """

    of_question: bool = False
    words: list[str] = field(default_factory=list)
    forms: list[str] = field(default_factory=list)
    starts: list[str] = field(default_factory=list)

    def take_apart(self, chunk: str) -> None:
        """Add the words of a chunk."""
        run: list[str] = []
        at = 0
        for found in _patterns().chunk.finditer(chunk):
            gap = chunk[at : found.start()]
            if run and (found["word"] is None or not _joins(gap, run[-1], found[0])):
                self._join(run)
                run = []
            if found["word"] is None:
                self._pair(found[0])
            else:
                run.append(found[0])
                self._take(found[0])
                self._sign(found[0], before=chunk[: found.start()], after=chunk[found.end() :])
            at = found.end()
        self._join(run)

    def _take(self, word: str) -> None:
        folded = fold(word)
        if not folded:  # nothing but accents
            return
        self.words.append(folded)
        if len(word) > LONGEST_WORD:
            return
        if not word.isascii() and (other := spelt_out(word)) != folded:
            self.forms.append(other)
        if not folded.isascii():
            self.forms += without_prefixes(folded)
        parts = _patterns().seam.split(word)
        if 1 < len(parts) <= MOST_PIECES:
            self.forms += filter(None, map(fold, parts))

    def _sign(self, word: str, before: str, after: str) -> None:
        """The signs that belong to a name: C++, C#, .NET."""
        if before.endswith(".") and not before[:-1].strip("([{\"'") and word[0].isalpha():
            self.forms.append(f".{fold(word)}")
        sign = "++" if after.startswith("++") else after[:1]
        if sign in ("++", "#", "+") and not after[len(sign) : len(sign) + 1].isalnum():
            self.forms.append(fold(word) + sign)

    def _join(self, pieces: Sequence[str]) -> None:
        whole = "".join(pieces)
        if 1 < len(pieces) <= MOST_PIECES and len(whole) <= LONGEST_JOINED:
            self.forms += filter(None, [fold(whole)])

    def _pair(self, run: str) -> None:
        """Pairs of characters.

        The last one stands alone too, so that a single one is found wherever it stands.
        """
        units = [unit for unit in map(fold, _patterns().unit.findall(run)) if unit]
        if not units:
            return
        self.words += [first + second for first, second in pairwise(units)]
        if 2 < len(units) <= MOST_PIECES:  # a word of Korean, or a short one between two marks
            self.forms.append("".join(units))
        if not self.of_question:
            self.words.append(units[-1])
        elif len(units) == 1:
            self.starts.append(units[0])


def _joins(gap: str, before: str, after: str) -> bool:
    """Whether two pieces with `gap` between them may be written as one word.

    Numbers have rules of their own.
    """
    if gap in (".", ",") and before[-1].isdigit() and after[0].isdigit():
        return False
    if gap in ("-", "_", ".", "/", "'", "@", "&", "·", "~", "*", "**", "__", '"', "״"):
        return not (gap == "'" and after.casefold() == "s")
    return gap in (":", ",", "") and (before[-1].isdigit() or after[0].isdigit())


def _in_one_notation(chunks: Sequence[str]) -> list[str]:
    """Words for the dates, times and numbers of a text, and for numbers with spaces within them;
    each once.
    """
    text = _near_digits(chunks)
    if not text:
        return []
    said = dates(text)
    words = [token for date in said for token in date.tokens]
    words += [time.token for time in times(text)]
    text = _without(text, said)
    words += [
        number.token for number in numbers(text) if not text[number.start : number.end].isdigit()
    ]
    words += [found[0].replace(" ", "").lower() for found in _patterns().account.finditer(text)]
    for found in _patterns().spaced.finditer(text):
        words += _dialled(found[0])
    return list(dict.fromkeys(words))


def _without(text: str, said: Sequence[Date]) -> str:
    """The text with spaces in place of its dates."""
    letters = list(text)
    for date in said:
        letters[date.start : date.end] = " " * (date.end - date.start)
    return "".join(letters)


def _near_digits(chunks: Sequence[str]) -> str:
    """The parts of a text that hold digits, each with the few words around it: the rest says no
    date and no number.
    """
    parts = []
    last = 0
    for place, chunk in enumerate(chunks):
        if DIGIT.search(chunk):
            first = max(last, place - NEAR)
            if first > last:
                parts.append("|")
            end = min(place + NEAR + 1, len(chunks))
            parts += chunks[first:end]
            last = end
    return " ".join(parts)


def _dialled(number: str) -> Iterator[str]:
    """A number of several groups as one word, as it is dialled at home, and its last digits."""
    groups = "".join(c if c.isdigit() else " " for c in number.replace("(0)", " ")).split()
    whole = "".join(groups)
    if not 5 <= len(whole) <= LONGEST_JOINED:
        return
    yield whole
    if number.startswith("+"):
        home = "".join(groups[1:])
        yield home
        yield f"0{home}"
    if len(whole) > TAIL + 1:
        yield whole[-TAIL:]
