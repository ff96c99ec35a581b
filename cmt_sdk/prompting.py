"""What is said to the model around the notes, as messages with a slot. Pure strings: knows no tokenizer and no model."""

from __future__ import annotations

from collections.abc import Sequence

from cmt_sdk.types import Turn

SLOT = "\x00notes\x00"
UNKNOWN = "I don't know."
INSTRUCTION = f"Read the notes, then answer the question in a few words. If the notes do not tell, answer: {UNKNOWN}\n\n"
BARE_INSTRUCTION = "Answer the question in a few words.\n\n"
PASSAGE_END = "\n\n"


def messages(question: str, history: Sequence[Turn] = (), *, notes: bool = True) -> list[dict[str, str]]:
    """Chat messages whose first user turn holds the instruction and, with `notes`, SLOT where the notes belong.

    Notes are data that the user brings: they stand in the user's turn, never in the system's.
    """
    opening = INSTRUCTION + SLOT if notes else BARE_INSTRUCTION
    turns = [*history, Turn("user", question.strip())]
    said = []
    for turn in turns:
        text = f"Question: {turn.content}" if turn.role == "user" else turn.content
        if turn.role == "user" and opening:
            text, opening = opening + text, ""
        said.append({"role": turn.role, "content": text})
    return said


def passage_text(content: str) -> str:
    """A passage as it stands in the prompt: its content and the gap that ends it."""
    return content.strip() + PASSAGE_END


def abstains(answer: str) -> bool:
    """True when an answer says that the notes do not tell."""
    return answer.strip().rstrip(".").lower().startswith(UNKNOWN.rstrip(".").lower())


def search_query(question: str, history: Sequence[Turn] = ()) -> str:
    """What is looked for: the question, after the one before it where there is one ("and when?" needs it)."""
    before = [turn.content for turn in history if turn.role == "user"]
    return f"{before[-1]} {question}" if before else question
