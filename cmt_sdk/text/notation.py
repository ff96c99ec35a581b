"""A question in the notation of the passages that answer it. Pure: knows dates and numbers, no
store and no model.

A small model does not see that 4 March 2026 is 2026-03-04: it answers that the notes do not tell.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from cmt_sdk.text.words.dates import Date, dates, times
from cmt_sdk.text.words.numbers import numbers

MOST = 20  # places of a question that are looked at
SMALLEST = 1000  # numbers below are written in one way, but for decimals


class _Place(NamedTuple):
    """A date, time or number in a text; two places with one meaning have equal values."""

    start: int
    end: int
    value: object


def in_notation_of(question: str, passages: Sequence[str]) -> str:
    """The question with its dates, times and numbers written as the passages write them, which come
    best first.

    A value that no passage states stays as it is, and so does one that some passage writes in the
    same way. A date without a year becomes that of the first passage which has that day.
    """
    if not any(c.isnumeric() for c in question):
        return question
    for read in (_dates, _times, _numbers):
        question = _rewritten(question, passages, read)
    return question


def _rewritten(
    question: str, passages: Sequence[str], read: Callable[[str], Iterator[_Place]]
) -> str:
    asked = list(read(question))[:MOST]
    if not asked:
        return question
    written = [passage.casefold() for passage in passages]
    stated = [(passage, found) for passage in passages for found in read(passage)]
    end = len(question)
    for place in sorted(asked, reverse=True, key=lambda found: found.start):
        words = question[place.start : place.end]
        if place.end > end or any(words.casefold() in passage for passage in written):
            continue
        same = next((p[s.start : s.end] for p, s in stated if _is_same(place.value, s.value)), None)
        if same is not None:
            question = question[: place.start] + same + question[place.end :]
            end = place.start
    return question


def _is_same(asked: object, stated: object) -> bool:
    """Whether a passage says what is asked for: of a date at least as much."""
    if isinstance(asked, Date) and isinstance(stated, Date):
        return asked.means(stated) and (asked.year is None or stated.year is not None)
    return asked == stated


def _dates(text: str) -> Iterator[_Place]:
    return (_Place(date.start, date.end, date) for date in dates(text))


def _times(text: str) -> Iterator[_Place]:
    return (_Place(time.start, time.end, (time.hour, time.minute)) for time in times(text))


def _numbers(text: str) -> Iterator[_Place]:
    """Large numbers and decimals, outside dates."""
    in_dates = {place for day in dates(text) for place in range(day.start, day.end)}
    for number in numbers(text):
        is_plain = number.value < SMALLEST and text[number.start : number.end].isdigit()
        if not is_plain and number.start not in in_dates:
            yield _Place(number.start, number.end, number.value)
