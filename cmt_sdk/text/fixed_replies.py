"""Replies that no model writes: receipts for notes and erasures, in a conversation. Pure strings.

They quote the user's own words, so that a reply names the note in any language.
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
QUOTED = 160  # characters of a message that a reply repeats
LISTED = 10  # texts that a reply lists


def noted(note: str, replaced: Sequence[str] = ()) -> str:
    """The receipt for a note, with the notes that it replaces."""
    receipt = f"Noted: {quoted(note)}"
    return f"{receipt} Before: {', '.join(map(quoted, replaced))}" if replaced else receipt


def confirmation(texts: Sequence[str]) -> str:
    """The question whether to erase these texts."""
    lines = [f"- {quoted(text)}" for text in texts]
    return "\n".join([*lines, ASSENT])


def erased(count: int, traces: int, *, complete: bool) -> str:
    """The receipt for erased texts: their number and the traces that a scan of the files found.

    It does not quote them: a client may keep its replies.
    """
    left = f"{traces} traces are left" if traces else "no trace is left"
    until = "" if complete else " once no other process reads them"
    return f"{ERASED} {count} {'text' if count == 1 else 'texts'}; {left}{until}."


def without_erased(turns: Sequence[Turn]) -> list[Turn]:
    """The turns without those that hold an erased text or the question whether to erase it.

    A client that sends its whole conversation sends erased texts too.
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
            n for n, turn in enumerate(before) if any(name in _line(turn.content) for name in named)
        }
        gone |= {n + 1 for n in gone if before[n].role == "user"}
        kept = [turn for n, turn in enumerate(before) if n not in gone] + kept[-2:]
    return kept


def quoted(text: str) -> str:
    """A text in quotes, in one line, cut where it is long."""
    line = _line(text)
    return f"“{line}”" if len(line) <= QUOTED else f"“{line[: QUOTED - 1].rstrip()}…”"


def _line(text: str) -> str:
    return " ".join(text.split())
