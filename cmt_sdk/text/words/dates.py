"""Dates and times of day in a text, whatever their notation.

Knows the names of months, no index and no model.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache

from cmt_sdk.text.words.folding import fold, spelt_out
from cmt_sdk.text.words.names import MONTHS

CENTURY = 70  # a year of two digits below it is of this century
BUDDHIST = 543  # years before the common era began
MAX_SPAN = 14  # days
DAYS = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)

NUMERIC = re.compile(
    r"(?<![\d.,/-])(?:"
    r"(?P<year>\d{4})(?P<by>[-/._])\s?(?P<month>\d{1,2})(?P=by)\s?(?P<day>\d{1,2})(?!\d)"
    r"|(?P<compact>(?:19|20)\d{6})(?!\d|[.,]\d)"
    r"|(?P<first>\d{1,2})(?P<sep>[-/.])\s?(?P<second>\d{1,2})(?P=sep)\s?(?P<last>\d{4}|\d{2})(?![\d:]|[./-]\d)"
    r"|(?P<of_day>\d{1,2})\.\s?(?P<of_month>\d{1,2})\.(?!\d)"
    r"|(?P<in_year>(?:19|20)\d\d)-(?P<in_month>0[1-9]|1[0-2])(?![\d-])"
    r")"
)
COUNT = r"(?:\d{1,2}|[一二三四五六七八九十]{1,3})"
IDEOGRAPHIC = re.compile(
    rf"(?:(?P<year>\d{{4}}|[〇零一二三四五六七八九]{{4}})\s?[年년]\s?)?"
    rf"(?P<month>{COUNT})\s?[月월](?:\s?(?P<day>{COUNT})\s?[日일号號])?"
)
VIETNAMESE = re.compile(
    r"(?<!\d)(?P<day>\d{1,2})\s+th[áa]ng\s+(?P<month>\d{1,2})(?!\d)(?:,?\s+(?:n[ăa]m\s+)?(?P<year>\d{4}))?",
    re.IGNORECASE,
)
NAME = r"[^\W\d_][\w'’\u0300-\u036f\u0900-\u0dff\u0e00-\u0eff\u1780-\u17ff]{2,}"
LINK = r"(?:[^\W\d_]{1,3}(?:\s+|['’]))?"  # "of", "de", "d'"
ORDINAL = r"(?:st|nd|rd|th|er|re|ra|ro|[eoaº°ª]|\.)?"
DAY_FIRST = re.compile(
    r"(?<![\w.,:/-])(?:(?P<from>\d{1,2})\.?\s?[-–]\s?)?"
    rf"(?P<day>\d{{1,2}}){ORDINAL}(?:-?(?:го|е|й))?[\s-]*{LINK}(?P<name>{NAME})\.?"
    rf"(?:,?[\s-]+{LINK}(?P<year>\d{{4}})(?!:?\d))?"
)
MONTH_FIRST = re.compile(
    rf"(?:(?<!\d)(?P<before>\d{{4}})\.?[\s-]+)?(?<!\w)(?P<name>{NAME})\.?[\s-]+{LINK}(?:"
    r"(?:(?P<from>\d{1,2})\s?[-–]\s?)?"
    rf"(?P<day>\d{{1,2}}){ORDINAL}(?![\w:]|[.,]\d)(?:,?\s+(?P<year>\d{{4}})(?!:?\d))?"
    r"|(?P<alone>(?:19|20)\d\d)(?!\d))"
)
TIME = re.compile(
    r"(?<![\d.,:])(?P<hour>\d{1,2})"
    r"(?:(?P<sep>[:.hH时時点點시])\s?(?P<minute>\d{2})(?!\d)(?::\d{2})?)?\s?"
    r"(?P<unit>[AaPp]\.?\s?[Mm]\b|Uhr|uhr|h\b|o'clock|時|时|点|點|시)?"
)
HALVES = ("午前", "上午", "오전", "午後", "下午", "오후")
AFTERNOON = HALVES[3:]


@dataclass(frozen=True, slots=True)
class Date:
    """A date, or a part of one, and its place in the text."""

    start: int
    end: int
    year: int | None
    month: int
    day: int | None

    def means(self, other: Date) -> bool:
        """True where both are equal in all parts that both have."""
        if self.month != other.month or self.day != other.day:
            return False
        return None in (self.year, other.year) or self.year == other.year

    @property
    def tokens(self) -> list[str]:
        """Index words: the day, the day of any year, the month."""
        found = []
        if self.day is not None:
            found.append(f"d{self.month:02}{self.day:02}")
        if self.year is not None:
            found.append(f"d{self.year}{self.month:02}")
        if self.year is not None and self.day is not None:
            found.append(f"d{self.year}{self.month:02}{self.day:02}")
        return found


@dataclass(frozen=True, slots=True)
class Time:
    """A time of day and its place in the text."""

    start: int
    end: int
    hour: int
    minute: int

    @property
    def token(self) -> str:
        """Its index word."""
        return f"t{self.hour:02}{self.minute:02}"


@cache
def month_names() -> dict[str, tuple[int, ...]]:
    """The numbers of months by name, also by the name without accents.

    A name that differs between languages has all its numbers.
    """
    found: dict[str, tuple[int, ...]] = {}
    for numbers, names in MONTHS.items():
        for name in names.split():
            found.setdefault(fold(name), numbers)
            found.setdefault(spelt_out(name), numbers)
            found[name] = numbers
    return found


def dates(text: str) -> list[Date]:
    """The dates in a text, in order.

    A date that can be read in two ways (3/4/2026) occurs twice.
    """
    if not any(c.isnumeric() for c in text):
        return []
    found: list[Date] = []
    spans: set[tuple[int, int]] = set()
    taken = bytearray(len(text))
    for read in (_numeric, _numbered, _day_first, _month_first):
        for date in list(read(text)):
            within_another = (
                all(taken[date.start : date.end]) and (date.start, date.end) not in spans
            )
            if not within_another:
                found.append(date)
        for date in found:
            spans.add((date.start, date.end))
            taken[date.start : date.end] = b"\1" * (date.end - date.start)
    return sorted(found, key=lambda d: d.start)


def _numeric(text: str) -> Iterator[Date]:
    for m in NUMERIC.finditer(text):
        if m["year"]:
            yield from _date(m, int(m["year"]), int(m["month"]), int(m["day"]))
        elif m["compact"]:
            digits = m["compact"]
            yield from _date(m, int(digits[:4]), int(digits[4:6]), int(digits[6:]))
        elif m["first"]:
            yield from _of_three(m)
        elif m["of_day"]:
            yield from _date(m, None, int(m["of_month"]), int(m["of_day"]))
        else:
            yield from _date(m, int(m["in_year"]), int(m["in_month"]), None)


def _of_three(m: re.Match[str]) -> Iterator[Date]:
    """Day, month and year; with a stroke between them, also month, day and year."""
    year = int(m["last"])
    if len(m["last"]) == 2:
        year += 2000 if year < CENTURY else 1900
    first = int(m["first"])
    second = int(m["second"])
    yield from _date(m, year, second, first)
    if m["sep"] != "." and first != second:
        yield from _date(m, year, first, second)


def _numbered(text: str) -> Iterator[Date]:
    """Dates whose months are numbers, and have a word after or before them."""
    if text.isascii():
        return
    for m in (*IDEOGRAPHIC.finditer(text), *VIETNAMESE.finditer(text)):
        year = m["year"]
        day = m["day"]
        if year or day:
            yield from _date(m, _count(year), _count(m["month"]) or 0, _count(day))


def _count(digits: str | None) -> int | None:
    """A number in digits, or in the characters of China and Japan: up to 99, or digit by digit."""
    if not digits or digits.isdigit():
        return int(digits) if digits else None
    values = ["〇一二三四五六七八九".find(c) for c in digits.replace("零", "〇")]
    if "十" not in digits:
        return int("".join(map(str, values)))
    tens, _, ones = digits.partition("十")
    return (_count(tens) or 1) * 10 + (_count(ones) or 0)


def _day_first(text: str) -> Iterator[Date]:
    return _named(text, DAY_FIRST)


def _month_first(text: str) -> Iterator[Date]:
    return _named(text, MONTH_FIRST)


def _named(text: str, pattern: re.Pattern[str]) -> Iterator[Date]:
    """Dates with the name of a month."""
    at = 0
    while m := pattern.search(text, at):
        months = _months(m["name"])
        at = m.end() if months else m.start("name") + 1
        fields = m.groupdict()
        written = fields["year"] or fields.get("before") or fields.get("alone")
        year = int(written) if written else None
        if year and year > 2400:
            year -= BUDDHIST
        for month in months if year or m["day"] else ():
            for day in _days(m):
                yield from _date(m, year, month, day)


def _days(m: re.Match[str]) -> Sequence[int | None]:
    """The day, or all days from the first to the last ("4-6 March"); none for a month alone."""
    if not m["day"]:
        return [None]
    last = int(m["day"])
    first = int(m["from"]) if m["from"] else last
    return range(first, last + 1) if 0 < last - first < MAX_SPAN else [last]


def _months(name: str) -> tuple[int, ...]:
    """The months of a name. Hebrew writes its preposition "in" with the name."""
    name = unicodedata.normalize("NFKC", name).casefold().replace("’", "'")
    names = month_names()
    return names.get(name) or names.get(fold(name.removeprefix("ב").removeprefix("d'"))) or ()


def _date(m: re.Match[str], year: int | None, month: int, day: int | None) -> Iterator[Date]:
    is_one = (
        1 <= month <= 12
        and (day is None or 1 <= day <= DAYS[month - 1])
        and (year is None or 1 <= year <= 2400)
    )
    if is_one:
        end = m.start() + len(m[0].rstrip())
        yield Date(m.start(), end, year, month, day)


def times(text: str) -> list[Time]:
    """The times of day in a text, in order."""
    found = []
    for m in TIME.finditer(text):
        before = text[max(0, m.start() - 3) : m.start()].rstrip()
        half = before[-2:] if before[-2:] in HALVES else ""
        time = _time(m, half, text.rindex(half, 0, m.start()) if half else m.start())
        if time is not None:
            found.append(time)
    return found


def _time(m: re.Match[str], half: str, start: int) -> Time | None:
    """A time. Hours and minutes with a full stop between them are one only with a unit."""
    unit = (m["unit"] or "").lower().replace(".", "").replace(" ", "")
    sure = m["sep"] == ":" or unit or half or (m["sep"] and m["sep"] not in ".:")
    hour = int(m["hour"])
    minute = int(m["minute"] or 0)
    if not sure or hour > 24 or minute > 59 or (unit in ("am", "pm") and hour > 12):
        return None
    if unit in ("am", "pm"):
        hour = hour % 12 + 12 * (unit == "pm")
    elif half in AFTERNOON and hour < 12:
        hour += 12
    return Time(start, m.start() + len(m[0].rstrip()), hour % 24, minute)
