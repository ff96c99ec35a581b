"""What the memory itself says in a conversation. Pure strings.

The user's own words stand in quotes, so that a reply says what was kept whatever the language.
"""

from __future__ import annotations

from collections.abc import Sequence

from cmt_sdk.types import Turn

HEARD = "I see."
UNCHANGED = "Nothing is kept or erased in this conversation."
NOTED = "Noted."
STAYS = "Nothing was erased."
CONCERNS_NOTHING = "I found nothing about that: nothing was erased."
ERASED = "Erased:"
ASSENT = "Erase it for good? Answer yes to erase it."
QUOTED = 160  # characters of what was said that a reply repeats
LISTED = 10  # texts that a reply lists


def noted(told: str, replaced: Sequence[str] = ()) -> str:
    """That something was kept, and what it takes the place of."""
    said = f"Noted: {quoted(told)}"
    return f"{said} Before: {', '.join(map(quoted, replaced))}" if replaced else said


def confirmation(texts: Sequence[str]) -> str:
    """The question whether these texts are to be erased."""
    lines = [f"- {quoted(text)}" for text in texts]
    return "\n".join([*lines, ASSENT])


def erased(count: int, traces: int, *, complete: bool) -> str:
    """That so many texts were erased, with what a scan of the files found left of them.

    It does not repeat them: a reply may stay where a conversation is kept.
    """
    left = f"{traces} traces are left" if traces else "no trace is left"
    until = "" if complete else " once no other process reads them"
    return f"{ERASED} {count} {'text' if count == 1 else 'texts'}; {left}{until}."


def without_erased(turns: Sequence[Turn]) -> list[Turn]:
    """The turns, less those that hold what was erased in them, and the question whether to.

    A client that sends its conversation along sends what was erased too.
    """
    kept: list[Turn] = []
    for turn in turns:
        kept.append(turn)
        if turn.role != "assistant" or not turn.content.startswith(ERASED) or len(kept) < 4:
            continue
        question = kept[-3].content
        if ASSENT not in question:
            continue
        named = [line[3:-1].rstrip("…") for line in question.splitlines() if line.startswith("- “")]
        before = kept[:-4]  # the request, the question, the yes and this turn follow
        gone = {
            n for n, said in enumerate(before) if any(name in _line(said.content) for name in named)
        }
        gone |= {n + 1 for n in gone if before[n].role == "user"}
        kept = [said for n, said in enumerate(before) if n not in gone] + kept[-2:]
    return kept


def quoted(text: str) -> str:
    """A text in quotes, in one line, cut where it is long."""
    line = _line(text)
    return f"“{line}”" if len(line) <= QUOTED else f"“{line[: QUOTED - 1].rstrip()}…”"


def _line(text: str) -> str:
    return " ".join(text.split())
