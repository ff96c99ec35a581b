"""Chat messages around the notes, with a slot for them. Pure strings: no tokenizer, no model."""

from __future__ import annotations

import string
from collections.abc import Sequence

from cmt_sdk.types import Turn

SLOT = "\x00notes\x00"
UNKNOWN = "I don't know."
INSTRUCTION = (
    "Read the notes, then answer the question in a few words. If the notes do not tell, answer:"
    f" {UNKNOWN}\n\n"
)
BARE_INSTRUCTION = "Answer the question in a few words.\n\n"
PASSAGE_END = "\n\n"
REPEAT = "Repeat the notes:\n"  # the cue after which the model repeats a passage


def messages(
    question: str, history: Sequence[Turn] = (), *, notes: bool = True
) -> list[dict[str, str]]:
    """Chat messages, user and assistant in turn. The first holds the instruction and, with
    `notes`, SLOT for the notes.

    Notes are the user's data: they stand in the user's turn, never in the system's. The text before
    them is always the same, and some models have no system role: a system message goes into the
    user's next turn.
    """
    chat = [{"role": "user", "content": INSTRUCTION + SLOT if notes else BARE_INSTRUCTION}]
    gap = ""
    for turn in [*history, Turn("user", question.strip())]:
        text = f"Question: {turn.content}" if turn.role == "user" else turn.content
        role = "assistant" if turn.role == "assistant" else "user"
        if chat[-1]["role"] == role:
            chat[-1]["content"] += gap + text
        else:
            chat.append({"role": role, "content": text})
        gap = "\n\n"
    return chat


def talk(message: str, history: Sequence[Turn] = ()) -> list[dict[str, str]]:
    """Chat messages of small talk: the message as it is, without an instruction."""
    messages: list[dict[str, str]] = []
    for turn in [*history, Turn("user", message.strip())]:
        role = "assistant" if turn.role == "assistant" else "user"
        if messages and messages[-1]["role"] == role:
            messages[-1]["content"] += f"\n\n{turn.content}"
        elif messages or role == "user":
            messages.append({"role": role, "content": turn.content})
    return messages


def passage_text(content: str) -> str:
    """A passage as it stands in the prompt: its content and the gap that ends it."""
    return content.strip() + PASSAGE_END


def abstains(answer: str) -> bool:
    """True when an answer says that the notes do not tell, after whatever sign it begins with."""
    plain = answer.lstrip(string.whitespace + string.punctuation).replace("’", "'").lower()
    return plain.startswith(UNKNOWN.rstrip(".").lower())
