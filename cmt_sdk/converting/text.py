"""Bytes of text files to text, and the check that every text passes. Knows no other format.

`decode` accepts only certain encodings: UTF-8, or the one that a byte-order mark names. `from_text`
also reads files that are damaged in a few places or in an older encoding, and reports it.
"""

from __future__ import annotations

import codecs
import re
import unicodedata
from collections import Counter
from itertools import pairwise
from pathlib import Path

from cmt_sdk.converting.result import Converted
from cmt_sdk.errors import EmptyDocument, InvalidDocument

MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)  # UTF-32 before UTF-16, whose mark it begins with
REPLACED = "\ufffd"
SAMPLE = 200_000  # bytes from which an encoding is guessed
FEW_UNREADABLE = 3  # characters that a text may have
UNREADABLE_SHARE = 0.01  # of a longer text
NULS = re.compile("\0+")
CONTROLS = re.compile(r"[\x01-\x07\x0e-\x19\x7f]")  # control characters that no text uses
# no text in UTF-8 or in windows-1252 is likely to use
NO_LETTER = re.compile(rb"[\x81\x8d\x8f\x90\x9d\xc0\xc1\xf5-\xff]")
STRANGE = ("Cc", "Cn", "Co", "Cs")  # categories of characters that no text in UTF-16 holds
# the most frequent characters that are not letters
PLAIN = frozenset(" \n\r\t\u3000\u3001\u3002\uff0c\uff1a\uff01\uff1f")
# such as the degree, and white space
USED_SIGNS = frozenset("\u00b0\u00a9\u00ae\u2122\u00b1\u00d7\u00f7\u2116\n\r\t\f\x1a\x1b")
# characters that do not touch a letter with an accent
NO_NEIGHBOURS = frozenset("0123456789[]\\^_`{|}~@#$%&*<>=+")
ODD_SHARE = 10  # a text has at most one odd place in this number of letters beyond ASCII
MIN_LETTERS = 3  # from which an encoding is guessed
NOT_GUESSED = ["mac_roman", "cp850"]  # older encodings that browsers never meet
PYTHON_NAMES = {
    "shift_jis": "cp932",
    "euc-kr": "cp949",
    "gbk": "gb18030",
    "big5": "big5hkscs",
    "iso-8859-8-i": "iso8859-8",
}  # WHATWG's name of an encoding to the codec that reads all of it


def check_text(text: str, limit: float, what: str) -> str:
    """Check a text that is to be remembered.

    Args:
        text: The text.
        limit: The most UTF-8 bytes.
        what: Names the text in errors.

    Returns:
        The text, unchanged.

    Raises:
        EmptyDocument: The text is empty or only white space.
        InvalidDocument: The text holds NUL characters or lone surrogates, or exceeds the limit.
    """
    if not text.strip():
        raise EmptyDocument(f"{what} is empty or only white space: there is nothing to remember")
    if "\0" in text:
        raise InvalidDocument(f"{what} holds NUL characters: that is binary data, not text")
    try:
        size = len(text.encode())
    except UnicodeEncodeError as error:
        raise InvalidDocument(
            f"{what} holds a lone surrogate (U+{ord(text[error.start]):04X} at {error.start}):"
            " decode it again, for example with errors='replace'"
        ) from error
    if size > limit:
        raise InvalidDocument(
            f"{what} has {size:,} bytes, the limit is {limit:,}: split it, or open the memory with"
            f" max_document_bytes={size} (`cmt config set max_document_bytes {size}`)"
        )
    return text


def decode(data: bytes, path: Path) -> str:
    """Text in UTF-8, or in the encoding of its byte-order mark, with line ends as in Python.

    Args:
        data: The bytes of the file.
        path: Names the file in errors.

    Raises:
        InvalidDocument: The bytes are of another encoding.
    """
    encoding = _marked(data) or "utf-8"
    try:
        text = data.decode(encoding).removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise InvalidDocument(
            f"{path} is not {encoding.upper()} text ({error.reason} at byte {error.start}): if it"
            " is text in another encoding, convert it (iconv -f ENCODING -t UTF-8 FILE > NEW), or"
            " save it as UTF-8"
        ) from error
    return _lines(text)


def from_text(data: bytes, path: Path) -> Converted:
    """The text of a file. Its notes name the guessed encoding and the replaced characters.

    Raises:
        InvalidDocument: The file is binary.
    """
    encoding = _marked(data) or _unmarked(data)
    notes: list[str] = []
    try:
        text = (
            decode(data, path)
            if encoding is None
            else _lines(data.decode(encoding).removeprefix("\ufeff"))
        )
    except (InvalidDocument, UnicodeDecodeError):
        text, note = _damaged(data, encoding) or _guessed(data, path, encoding)
        notes.append(note)
    text, blocks = NULS.subn(REPLACED, text)
    if blocks + len(CONTROLS.findall(text)) > _allowed(text) or (
        blocks and not text.replace(REPLACED, "").strip()
    ):
        raise InvalidDocument(
            f"{path} holds NUL or control characters: that is binary data, not text"
        )
    if blocks:
        notes.append(f"NUL characters in {_places(blocks)} replaced by U+FFFD")
    return Converted(text, left_out=notes)


def _lines(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _allowed(text: str) -> int:
    """The number of unreadable characters that a text may have."""
    return max(min(FEW_UNREADABLE, len(text) // 10), int(UNREADABLE_SHARE * len(text)))


def _places(count: int) -> str:
    return "1 place" if count == 1 else f"{count:,} places"


def _marked(data: bytes) -> str | None:
    """The encoding that a byte-order mark names."""
    return next((encoding for mark, encoding in MARKS if data.startswith(mark)), None)


def _unmarked(data: bytes) -> str | None:
    """An encoding recognised without a mark.

    UTF-16 shows by its control bytes, ISO-2022-JP by its escapes.
    """
    sample = data[: SAMPLE // 2 * 2]
    if re.search(rb"\x1b\$[@B]", sample):
        return "iso2022_jp"
    if len(data) % 2 or not re.search(rb"[\0-\x06]", sample):
        return None
    for encoding in ("utf-16-le", "utf-16-be"):
        text = sample.decode(encoding, "replace")
        plain = sum(letter in PLAIN for letter in text)
        strange = any(unicodedata.category(x) in STRANGE and x not in PLAIN for x in set(text))
        if not strange and REPLACED not in text and "\0" not in text and plain > 0.02 * len(text):
            return encoding
    return None


def _damaged(data: bytes, encoding: str | None) -> tuple[str, str] | None:
    """A text with a few bytes that belong to no character, and the note on it.

    None where they are too many, or are of another encoding.
    """
    text = data.decode(encoding or "utf-8", "replace").removeprefix("\ufeff")
    own = data.count(REPLACED.encode()) if encoding in (None, "utf-8") else 0
    bad = text.count(REPLACED) - own
    if encoding in (None, "utf-8"):
        others = sum(len(run) for run in re.findall(r"[^\x00-\x7f\ufffd]+", text))
        beyond = NO_LETTER.sub(b"", data)
        if 3 * bad > others and not _is_text(beyond):
            return None
    if bad > _allowed(text) or not text.replace(REPLACED, "").strip():
        return None
    return _lines(text), f"bytes that are no text in {_places(bad)} replaced by U+FFFD"


def _is_text(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def _guessed(data: bytes, path: Path, named: str | None) -> tuple[str, str]:
    """The text in the encoding that its bytes look most like, and the note on it.

    Raises:
        InvalidDocument: No encoding stands out.
    """
    encoding = None if named else _guess(data)
    try:
        text = data.decode(encoding) if encoding else None
    except UnicodeDecodeError:
        text = None
    if text is None:
        decode(data, path)
        raise InvalidDocument(
            f"{path} is not UTF-8 text: convert it (iconv -f ENCODING -t UTF-8 FILE > NEW)"
        )
    note = (
        f"not UTF-8 text: read as {encoding}, which is a guess; where letters are wrong, convert"
        " the file (iconv -f ENCODING -t UTF-8 FILE > NEW)"
    )
    return _lines(text), note


def _guess(data: bytes) -> str | None:
    """The name of an encoding that reads all of the data as text; None where none stands out."""
    try:
        from chardetng_py import EncodingDetector
    except ImportError:
        return None
    detector = EncodingDetector()
    detector.feed(data[:SAMPLE], last=len(data) <= SAMPLE)
    found, stands_out = detector.guess_assess(tld=None, allow_utf8=False)
    name = PYTHON_NAMES.get(found.lower(), found.lower())
    names = [name, *NOT_GUESSED] if stands_out else NOT_GUESSED
    if b"\r" in data and b"\n" not in data:
        names = ["mac_roman", *names]  # no other system ended lines so
    return next((name for name in names if _looks_written(data, name)), None)


def _looks_written(data: bytes, encoding: str) -> bool:
    """True where an encoding makes words.

    Then signs, digits and capitals hardly stand at places where texts have none.
    """
    try:
        text = data.decode(encoding)
    except (LookupError, UnicodeDecodeError):
        return False
    text = text[:SAMPLE]
    foreign = sum(letter > "\x7f" for letter in text)
    odd = sum(count for letter, count in Counter(text).items() if _is_sign(letter))
    odd += sum(_is_odd(*pair) for pair in pairwise(text) if max(pair) > "\x7f")
    return ODD_SHARE * odd <= foreign and sum(map(str.isalpha, text)) >= MIN_LETTERS


def _is_sign(letter: str) -> bool:
    """True for controls, and for signs beyond ASCII that are neither letters nor punctuation."""
    category = unicodedata.category(letter)
    is_sign = category[0] == "C" or (letter > "\x7f" and category in ("Sk", "Sm", "So"))
    return is_sign and letter not in USED_SIGNS


def _is_odd(before: str, after: str) -> bool:
    """True for "bU" in a word, and for an accented letter at a digit or a sign."""
    if before.islower() and after.isupper():
        return True
    return (before in NO_NEIGHBOURS and _is_cased(after)) or (
        after in NO_NEIGHBOURS and _is_cased(before)
    )


def _is_cased(letter: str) -> bool:
    return letter.islower() or letter.isupper()
