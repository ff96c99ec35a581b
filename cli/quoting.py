"""What is shown of the passages that an answer was read from. Knows no memory and no command."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import cmt_sdk
from cmt_cli.output import one_line, place, say

WIDTH = 160  # characters of a line that is shown of a passage
SHORT = 100  # up to so many, a line of the text is shown whole; of a longer one, a sentence
# to look at such a file can log in to a server, and an archive may hold any name
REMOTE = ("\\\\", "//")
LINE = re.compile(r"\s*\n\s*")
SENTENCE = re.compile(r"\s*\n\s*|(?<=\w{4}[.!?।؟])\s+|(?<=[。！？])")  # "Dr." and "5." end none


def print_sources(answer: cmt_sdk.Answer, *, verbose: bool = False) -> None:
    """How sure the answer is, and the passages that hold it, each with the line in which it stands;
    then those that they supersede.

    `verbose`: every passage, with its characters, score and reasons.
    """
    say(f"confidence {answer.confidence:.2f}, read from {answer.reader}", dim=True)
    dates = _dates(answer.sources)
    for number, found in enumerate(answer.sources, 1):
        if verbose:
            mark = ", superseded" if found.superseded_by else ""
            say(
                one_line(
                    f"{number}. {_name(found)}[{found.start}:{found.end}]{dates[number - 1]}{mark}"
                ),
                bold=True,
            )
            say(
                "   " + one_line(f"match {found.rank}, score {found.score:.4f}, {found.why}"),
                dim=True,
            )
        elif _is_shown(answer, number):
            say(one_line(_name(found) + dates[number - 1]), bold=True)
        elif found.superseded_by and not answer.abstained:
            say(one_line(f"superseded: {_name(found)}{dates[number - 1]}"), dim=True)
        else:
            continue
        _print_line(found)
    if not verbose:
        _print_others(answer, dates)
    if note := _note(answer):
        say(note, dim=True)


def _is_shown(answer: cmt_sdk.Answer, number: int) -> bool:
    """Whether a line is shown of the source of this number, from 1: where the memory tells nothing,
    of none.
    """
    return not answer.abstained and (number == 1 or answer.sources[number - 1].holds_answer)


def _print_others(answer: cmt_sdk.Answer, dates: Sequence[str]) -> None:
    """The names of the sources of which no line is shown."""
    shown = {_name(s) for number, s in enumerate(answer.sources, 1) if _is_shown(answer, number)}
    read = [
        (s, date)
        for s, date in zip(answer.sources, dates, strict=True)
        if not s.superseded_by or answer.abstained
    ]
    rest = {_name(s): date for s, date in read if _name(s) not in shown}
    if rest:
        say(
            one_line(
                ("also read: " if shown else "looked for in: ")
                + ", ".join(name + date for name, date in rest.items())
            ),
            dim=True,
        )


def _note(answer: cmt_sdk.Answer) -> str:
    """A warning about an answer that does not stand in the passage which fits the question best."""
    if answer.abstained or not answer.sources:
        return ""
    first = answer.sources[0]
    if not first.holds_answer:
        return "the words of the answer stand in none of the passages that were read"
    if first.rank == 1:
        return ""
    best = next(s for s in answer.sources if s.rank == 1)
    return one_line(f"the passage that fits the question best is another one: {_name(best)}")


def _print_line(found: cmt_sdk.Source) -> None:
    """The line of a passage in which the answer stands, with its words highlighted; else how the
    passage begins.

    That is a line of the file, also where the answer stands only in the headings above it.
    """
    if found.answer_start is not None and found.answer_end is not None:
        print_line(found.text, (found.answer_start - found.start, found.answer_end - found.start))
    else:
        lines = (line for line in found.text.splitlines() if any(map(str.isalnum, line)))
        print_line(next(lines, found.text or found.heading))


def print_match(query: str, match: cmt_sdk.Match) -> None:
    """The line of a passage in which most words of the query stand, these highlighted; else how the
    passage begins.
    """
    p = match.passage
    place = cmt_sdk.place_of(query, p.text)
    print_line(p.text if place else _under(p.heading, p.text), place)


def _under(heading: str, text: str) -> str:
    return f"{heading}: {text}" if heading else text


def print_line(text: str, place: tuple[int, int] | None = None) -> None:
    """One line of a text: the one with the characters of `place`, which are highlighted."""
    before, words, after = line_of(text, place)
    say("   ", nl=False)
    say(before, nl=False, dim=True)
    say(words, nl=False, bold=True, fg="green")
    say(after, dim=True)


def line_of(text: str, place: tuple[int, int] | None = None) -> tuple[str, str, str]:
    """One line of a text: what stands before the characters of `place`, these, and what stands
    after them.
    """
    if place is None:
        return one_line(text, WIDTH), "", ""
    start, end = place
    first, last = _between(LINE, text, start, end)
    if last - first > SHORT:
        first, last = _between(SENTENCE, text, start, end)
    words = one_line(text[start:end], WIDTH)
    before, after = _flat(text[first:start]), _flat(text[end:last])
    room = WIDTH - len(words)
    if len(before) + len(after) > room:
        kept = max(room // 2, room - len(after))
        before = before if len(before) <= kept else "…" + before[len(before) - kept + 1 :]
        after = (
            after
            if len(before) + len(after) <= room
            else after[: max(0, room - len(before) - 1)] + "…"
        )
    return before, words, after


def _between(bound: re.Pattern[str], text: str, start: int, end: int) -> tuple[int, int]:
    """The part of a text around `start` to `end` that lies between two bounds."""
    found = [m.span() for m in bound.finditer(text)]
    first = max((b for _, b in found if b <= start), default=0)
    return first, min((a for a, _ in found if a >= end), default=len(text))


def _flat(text: str) -> str:
    """A text on one line, with the white space at its ends as one space."""
    return re.sub(r"\s+", " ", text)


def _name(found: cmt_sdk.Source) -> str:
    return place(found.source, found.document_id)


def _dates(sources: Sequence[cmt_sdk.Source]) -> list[str]:
    return shown_days([_day(s.source, s.date, _moment(s.updated_at)) for s in sources])


def match_dates(matches: Sequence[cmt_sdk.Match]) -> list[str]:
    """The date of each match's document, as it is shown behind its name."""
    return shown_days([_day(m.document.source, m.date, m.document.updated_at) for m in matches])


def shown_days(days: Sequence[str]) -> list[str]:
    """Days as they are shown behind names; nothing where all are one."""
    return [f" ({day})" if day else "" for day in days] if len(set(days)) > 1 else [""] * len(days)


def _day(source: str | None, date: str | None, updated_at: datetime | None) -> str:
    """The day that a document names, else that of its file, else that on which the memory took its
    text.
    """
    if date:
        return date
    try:
        if source and not source.startswith(REMOTE) and Path(source).is_absolute():
            return _local_day(datetime.fromtimestamp(Path(source).stat().st_mtime, UTC))
    except (OSError, ValueError, OverflowError):  # no such file, or no name that a file can have
        pass
    return _local_day(updated_at) if updated_at else ""


def _moment(iso: str | None) -> datetime | None:
    return datetime.fromisoformat(iso) if iso else None


def _local_day(moment: datetime) -> str:
    return moment.astimezone().date().isoformat()
