"""Print the passages that an answer was read from. Opens no memory."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import cmt_sdk
from cmt_cli.output import echo, one_line, short_source

MAX_LINE_CHARS = 160  # of the line that is shown of a passage
MAX_WHOLE_LINE_CHARS = 100  # of a longer line only the sentence is shown
# Looking at such a path can log in to a server, and an imported archive may hold any path.
REMOTE = ("\\\\", "//")
LINE = re.compile(r"\s*\n\s*")
SENTENCE = re.compile(r"\s*\n\s*|(?<=\w{4}[.!?।؟])\s+|(?<=[。！？])")  # not after "Dr." or "5."


def print_sources(answer: cmt_sdk.Answer, *, verbose: bool = False) -> None:
    """Print the confidence of an answer and the passages that hold it, each with the line.

    Superseded passages follow.

    Args:
        answer: The answer.
        verbose: Print every passage, with its position, score and reasons.
    """
    echo(f"confidence {answer.confidence:.2f}, read from {answer.reader}", dim=True)
    dates = _dates(answer.sources)
    for number, found in enumerate(answer.sources, 1):
        if verbose:
            mark = ", superseded" if found.superseded_by else ""
            echo(
                one_line(
                    f"{number}. {_name(found)}[{found.start}:{found.end}]{dates[number - 1]}{mark}"
                ),
                bold=True,
            )
            echo(
                "   " + one_line(f"match {found.rank}, score {found.score:.4f}, {found.why}"),
                dim=True,
            )
        elif _is_shown(answer, number):
            echo(one_line(_name(found) + dates[number - 1]), bold=True)
        elif found.superseded_by and not answer.abstained:
            echo(one_line(f"superseded: {_name(found)}{dates[number - 1]}"), dim=True)
        else:
            continue
        _print_line(found)
    if not verbose:
        _print_others(answer, dates)
    if note := _note(answer):
        echo(note, dim=True)


def _is_shown(answer: cmt_sdk.Answer, number: int) -> bool:
    """Return whether a line of source `number` (from 1) is shown; never if the model abstained."""
    return not answer.abstained and (number == 1 or answer.sources[number - 1].holds_answer)


def _print_others(answer: cmt_sdk.Answer, dates: Sequence[str]) -> None:
    """Print the names of the sources of which no line is shown."""
    shown = {_name(s) for number, s in enumerate(answer.sources, 1) if _is_shown(answer, number)}
    read = [
        (s, date)
        for s, date in zip(answer.sources, dates, strict=True)
        if not s.superseded_by or answer.abstained
    ]
    rest = {_name(s): date for s, date in read if _name(s) not in shown}
    if rest:
        echo(
            one_line(
                ("also read: " if shown else "looked for in: ")
                + ", ".join(name + date for name, date in rest.items())
            ),
            dim=True,
        )


def _note(answer: cmt_sdk.Answer) -> str:
    """Return a warning if the answer is not in the passage that matches the question best."""
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
    """Print the line of a passage with the answer highlighted, or the beginning of the passage.

    It is a line of the file even if the answer is only in the headings above the passage.
    """
    if found.answer_start is not None and found.answer_end is not None:
        print_line(found.text, (found.answer_start - found.start, found.answer_end - found.start))
    else:
        lines = (line for line in found.text.splitlines() if any(map(str.isalnum, line)))
        print_line(next(lines, found.text or found.heading))


def print_match(query: str, match: cmt_sdk.Match) -> None:
    """Print the line with most words of the query highlighted, or the passage's beginning."""
    passage = match.passage
    span = cmt_sdk.place_of(query, passage.text)
    print_line(passage.text if span else _with_heading(passage), span)


def _with_heading(passage: cmt_sdk.Passage) -> str:
    return f"{passage.heading}: {passage.text}" if passage.heading else passage.text


def print_line(text: str, span: tuple[int, int] | None = None) -> None:
    """Print one line of a text: the one with the characters of `span`, which are highlighted."""
    before, words, after = line_of(text, span)
    echo("   ", nl=False)
    echo(before, nl=False, dim=True)
    echo(words, nl=False, bold=True, fg="green")
    echo(after, dim=True)


def line_of(text: str, span: tuple[int, int] | None = None) -> tuple[str, str, str]:
    """Return the line of a text with the characters of `span`: before them, they, after them.

    Args:
        text: The text.
        span: Start and end in characters; None selects the beginning of the text.
    """
    if span is None:
        return one_line(text, MAX_LINE_CHARS), "", ""
    start, end = span
    first, last = _between(LINE, text, start, end)
    if last - first > MAX_WHOLE_LINE_CHARS:
        first, last = _between(SENTENCE, text, start, end)
    words = one_line(text[start:end], MAX_LINE_CHARS)
    before = _flat(text[first:start])
    after = _flat(text[end:last])
    room = MAX_LINE_CHARS - len(words)
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
    """Return start and end of the part around a span, up to the nearest bounds."""
    found = [m.span() for m in bound.finditer(text)]
    first = max((b for _, b in found if b <= start), default=0)
    return first, min((a for a, _ in found if a >= end), default=len(text))


def _flat(text: str) -> str:
    """Return a text on one line; white space at its ends becomes one space."""
    return re.sub(r"\s+", " ", text)


def _name(found: cmt_sdk.Source) -> str:
    return short_source(found.source, found.document_id)


def _dates(sources: Sequence[cmt_sdk.Source]) -> list[str]:
    return shown_days([_day(s.source, s.date, _moment(s.updated_at)) for s in sources])


def match_dates(matches: Sequence[cmt_sdk.Match]) -> list[str]:
    """Return the date of each match's document, as it is shown after the name."""
    return shown_days([_day(m.document.source, m.date, m.document.updated_at) for m in matches])


def shown_days(days: Sequence[str]) -> list[str]:
    """Return days as they are shown after names; all empty if there is only one day."""
    return [f" ({day})" if day else "" for day in days] if len(set(days)) > 1 else [""] * len(days)


def _day(source: str | None, date: str | None, updated_at: datetime | None) -> str:
    """Return the day that a document names, else that of its file, else of its last update."""
    if date:
        return date
    try:
        if source and not source.startswith(REMOTE) and Path(source).is_absolute():
            return _local_day(datetime.fromtimestamp(Path(source).stat().st_mtime, UTC))
    except (OSError, ValueError, OverflowError):  # no such file, or not a possible file name
        pass
    return _local_day(updated_at) if updated_at else ""


def _moment(iso: str | None) -> datetime | None:
    return datetime.fromisoformat(iso) if iso else None


def _local_day(moment: datetime) -> str:
    return moment.astimezone().date().isoformat()
