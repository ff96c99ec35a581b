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
CONCERNS_NOTHING = "I keep nothing about that."
ASSENT = "Erase it for good? Answer yes to erase it."
# Turns that show a small model how small talk is answered: shortly, and as what it is.
EXAMPLES = [
    Turn("user", "Hello!"),
    Turn("assistant", "Hello! What can I do for you?"),
    Turn("user", "Thanks, that helped."),
    Turn("assistant", "You're welcome!"),
    Turn("user", "How are you?"),
    Turn("assistant", "I am fine, thank you. And you?"),
    Turn("user", "What is your name?"),
    Turn("assistant", "I am your assistant, I have no other name."),
    Turn("user", "What do you think about cats?"),
    Turn("assistant", "Many people love them. Do you have one?"),
    Turn("user", "Do you like music?"),
    Turn("assistant", "I like to talk about it. What do you listen to?"),
    Turn("user", "Tell me a joke."),
    Turn("assistant", "Why did the bee get married? Because it found its honey."),
    Turn("user", "ok"),
    Turn("assistant", "All right!"),
    Turn("user", "haha"),
    Turn("assistant", "Glad to make you smile!"),
    Turn("user", "Good night!"),
    Turn("assistant", "Good night, sleep well!"),
]
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


def erased(texts: Sequence[str], traces: int, *, complete: bool) -> str:
    """That these texts were erased, with what a scan of the files found left of them."""
    left = f"{traces} traces are left" if traces else "no trace is left"
    until = "" if complete else " once no other process reads them"
    return f"Erased: {', '.join(map(quoted, texts))}; {left}{until}."


def quoted(text: str) -> str:
    """A text in quotes, in one line, cut where it is long."""
    line = " ".join(text.split())
    return f"“{line}”" if len(line) <= QUOTED else f"“{line[: QUOTED - 1].rstrip()}…”"
