"""Which days the words of a statement mean: "yesterday", "last week", "am Montag", 昨天.

dateparser finds them, by the data of the Unicode CLDR, in the language that py3langid recognises.
Where it reads a date from a duration, a price or a name, the date does not move along with the day
of the statement, or turns around with the preference for past or future: such dates are left out,
and a few right ones with them. Words that dateparser does not know mean no day. Knows no model.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from cmt_sdk.understanding.utterances import read_utterances

LONGEST = 1_000  # characters of a statement that are searched
SHORTEST = 4  # letters of Latin script: shorter ones are abbreviations, and words of other meaning
# To here the day of the statement is moved: on a day of the same name in another year and month.
AWAY = dt.timedelta(weeks=1_471)
MONTHS_DIFFER = 3  # days by which months and years of different length move a date
WEEK = dt.timedelta(days=7)


@dataclass(frozen=True, slots=True)
class Day:
    """What some words of a statement mean.

    Attributes:
        words: The words.
        first: The first day meant.
        last: The last one; the same for a single day.
        next: For the name of a weekday, which can mean the last or the next one: the next one.
    """

    words: str
    first: dt.date
    last: dt.date
    next: dt.date | None = None

    def __str__(self) -> str:
        span = f"{self.first}" if self.first == self.last else f"{self.first} to {self.last}"
        return f"{self.words}: {span}" + (f" or {self.next}" if self.next else "")


def days_meant(text: str, stated: dt.date) -> list[Day]:
    """The days that words of a statement mean, seen from the day on which it was stated."""
    text = text[:LONGEST]
    language = _identifier().classify(text)[0]
    noon = dt.datetime.combine(stated, dt.time(12))
    past = _found(text, language, noon, "past")
    if not past:
        return []
    future = _found(text, language, noon, "future")
    moved = _found(text, language, noon + AWAY, "past")
    days = []
    for words, day in past.items():
        other, far = future.get(words), moved.get(words)
        if other is None or far is None or day.date() == stated or _is_short(words):
            continue
        if abs((far - day - AWAY).days) > MONTHS_DIFFER:
            continue
        if other == day:
            days.append(Day(words, *_span(words, language, noon, day.date())))
        elif other - day == WEEK:
            days.append(Day(words, day.date(), day.date(), other.date()))
    return days


@cache
def _identifier() -> Any:
    """Recognises the languages that the package understands."""
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    made = LanguageIdentifier.from_model_file(MODEL_FILE)
    made.set_languages(sorted({utterance.language for utterance in read_utterances()}))
    return made


def _found(text: str, language: str, noon: dt.datetime, prefer: str) -> dict[str, dt.datetime]:
    """The words that are read as dates, seen from a day at noon."""
    from dateparser.search import search_dates

    try:
        found = search_dates(text, languages=[language], settings=_settings(noon, prefer))
    except (ValueError, OverflowError):  # a year that is none
        return {}
    return dict(found or ())


def _span(words: str, language: str, noon: dt.datetime, day: dt.date) -> tuple[dt.date, dt.date]:
    """The first and the last day of the week, month or year that is meant; else the day twice."""
    from dateparser.date import DateDataParser

    parser = DateDataParser(languages=[language], settings=_settings(noon, "past"))
    read = parser.get_date_data(words)
    period = read.period
    if read.date_obj is not None:  # of "the day before yesterday" the search reads the last word
        day = read.date_obj.date()
    if period == "week":
        first = day - dt.timedelta(days=day.weekday())
        return first, first + dt.timedelta(days=6)
    if period == "month":
        first = day.replace(day=1)
        return first, (first + dt.timedelta(days=31)).replace(day=1) - dt.timedelta(days=1)
    if period == "year":
        return day.replace(month=1, day=1), day.replace(month=12, day=31)
    return day, day


def _settings(noon: dt.datetime, prefer: str) -> dict[str, Any]:
    return {"RELATIVE_BASE": noon, "PREFER_DATES_FROM": prefer}


def _is_short(words: Sequence[str]) -> bool:
    return "".join(words).isascii() and sum(map(str.isalpha, words)) < SHORTEST
