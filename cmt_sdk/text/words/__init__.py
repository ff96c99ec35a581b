"""The words of a text and of a question in the form that the index compares.

A text is cleaned (folding.py) and split at white space; each chunk is then taken apart:
`getUserName` yields itself and its three parts, `E-1043` yields e, 1043 and e1043. Scripts without
spaces between words yield pairs of characters. Dates and numbers are added in one notation
(dates.py, numbers.py). Knows no index and no SQL.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache, lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

from cmt_sdk.text.words.folding import clean, fold, spelt_out, without_prefixes

if TYPE_CHECKING:
    from cmt_sdk.text.words.dates import Date

GRAM = 4  # letters
LAST_LATIN = "\u024f"
LONG_WORD = 9  # letters of a word in Latin script that may be a compound
LONG_ELSEWHERE = GRAM + 1  # other scripts: articles and prepositions are written with the word
MAX_WORD_LETTERS = 80  # a longer run is no word
MAX_PIECES = 8  # of a chunk that is also indexed as one word
MAX_JOINED_LETTERS = 40  # of that word
DIGIT = re.compile("[0-9月]")
NEAR = 3  # words before and after digits that may belong to a date
TAIL = 7  # last digits of a phone number, which are the same with and without the country's code

PAIRED = r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Hangul}\p{LineBreak=Complex_Context}\u30FC]"
SIGN = r"[\p{Extended_Pictographic}\p{Regional_Indicator}]"
LETTER = rf"[\p{{L}}\p{{N}}--{PAIRED}]"
WORD = rf"{LETTER}[\p{{L}}\p{{N}}\p{{M}}--{PAIRED}]*"
UNITS = rf"(?:{PAIRED}\p{{M}}*)"


class Indexed(NamedTuple):
    """The words of a text, each column separated by spaces.

    `words` has each word as written, `forms` its other spellings, `grams` the runs of four letters
    of the long words, `meanings` the dates, times and numbers in one notation.
    """

    words: str
    forms: str
    grams: str
    meanings: str


@dataclass(frozen=True, slots=True)
class Asked:
    """The search terms of a question: `words`, and the beginnings of words, `starts`.

    Those of `spelt` have letters alone, and may stand within a longer word.
    """

    words: Sequence[str]
    starts: Sequence[str]
    spelt: Sequence[str]


@dataclass(frozen=True, slots=True)
class _Patterns:
    """Regular expressions, compiled on first use: the library takes some 0.02 s to load."""

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
    """The words of a text as an index keeps them.

    Args:
        text: The text of a passage.
    """
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
    """The words of a question in every form, each once.

    Args:
        question: The question.
    """
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
    """A text with words joined that a line end divides.

    The line ends after a hyphen, or between two characters of a script without spaces.
    """
    if "\n" not in text:
        return text
    if "-\n" in text:
        text = _patterns().broken.sub("-", text)
    return text if text.isascii() else _patterns().wrapped.sub("", text)


def _of_text(chunk: str) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    """A chunk's words, their other forms, and the grams of the long words.

    Short chunks recur, and are cached; others would fill the memory.
    """
    return _remembered(chunk) if len(chunk) <= MAX_JOINED_LETTERS else _parts_of(chunk)


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
    return shortest <= len(word) <= MAX_WORD_LETTERS and _is_spelt(word)


def grams(word: str) -> list[str]:
    """The runs of four letters of a word, in order.

    In a longer word that contains it they follow each other too.
    """
    return [word[n : n + GRAM] for n in range(len(word) - GRAM + 1)]


def heads_and_tails(word: str) -> list[str]:
    """The beginnings and ends of a long word that may form a compound; empty for a short word."""
    if not _is_long(word):
        return []
    cuts = range(GRAM, len(word) - GRAM + 1)
    return [part for n in cuts for part in (word[:n], word[n:])]


@dataclass
class _Taken:
    """The words of a chunk, their other forms, and for a question the beginnings to search."""

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
        if len(word) > MAX_WORD_LETTERS:
            return
        if not word.isascii() and (other := spelt_out(word)) != folded:
            self.forms.append(other)
        if not folded.isascii():
            self.forms += without_prefixes(folded)
        parts = _patterns().seam.split(word)
        if 1 < len(parts) <= MAX_PIECES:
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
        if 1 < len(pieces) <= MAX_PIECES and len(whole) <= MAX_JOINED_LETTERS:
            self.forms += filter(None, [fold(whole)])

    def _pair(self, run: str) -> None:
        """Pairs of characters.

        The last one stands alone too, so that a single one is found wherever it stands.
        """
        units = [unit for unit in map(fold, _patterns().unit.findall(run)) if unit]
        if not units:
            return
        self.words += [first + second for first, second in pairwise(units)]
        if 2 < len(units) <= MAX_PIECES:  # a word of Korean, or a short one between two marks
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
    """Words for the dates, times and numbers of a text, and numbers with spaces, each once."""
    text = _near_digits(chunks)
    if not text:
        return []
    from cmt_sdk.text.words.dates import dates, times  # their patterns take 0.01 s to compile
    from cmt_sdk.text.words.numbers import numbers

    found_dates = dates(text)
    words = [token for date in found_dates for token in date.tokens]
    words += [time.token for time in times(text)]
    text = _without(text, found_dates)
    words += [
        number.token for number in numbers(text) if not text[number.start : number.end].isdigit()
    ]
    words += [found[0].replace(" ", "").lower() for found in _patterns().account.finditer(text)]
    for found in _patterns().spaced.finditer(text):
        words += _dialled(found[0])
    return list(dict.fromkeys(words))


def _without(text: str, found: Sequence[Date]) -> str:
    """The text with spaces in place of its dates."""
    letters = list(text)
    for date in found:
        letters[date.start : date.end] = " " * (date.end - date.start)
    return "".join(letters)


def _near_digits(chunks: Sequence[str]) -> str:
    """The parts of a text with digits, each with the few words around it.

    The rest has no date and no number.
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
    if not 5 <= len(whole) <= MAX_JOINED_LETTERS:
        return
    yield whole
    if number.startswith("+"):
        home = "".join(groups[1:])
        yield home
        yield f"0{home}"
    if len(whole) > TAIL + 1:
        yield whole[-TAIL:]
