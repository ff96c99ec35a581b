"""Earlier turns of a conversation, as exchanges that a search can use. No model, no store.

A question that can be understood alone is found by itself. One that is short of its subject ("And
when?") is searched together with each earlier exchange, because any of them may name the subject.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from cmt_sdk.text.characters import clean_text
from cmt_sdk.text.prompt_messages import abstains
from cmt_sdk.types import Turn

EXCHANGES = 12  # the latest ones, which are looked at
MESSAGE_CHARACTERS = 300  # of an exchange's message that are searched and read
REPLY_CHARACTERS = 150
SYSTEM_CHARACTERS = 1_200  # characters of a system prompt that are read
TURN, TURNS = 1_000, 12  # characters of a turn, and turns, that a model without notes reads
MESSAGE, MESSAGE_TOKENS = 4_000, 1_000  # characters and tokens of a message that are read
QUERY = 1_000  # characters of a message that are searched
GAP = " … "


@dataclass(frozen=True, slots=True)
class Exchange:
    """A user's message and the reply, each shortened to what is searched and read.

    A reply that says that nothing is known names no subject: it is left out, and the exchange is
    `unanswered`.
    """

    message: str
    reply: str = ""
    unanswered: bool = False

    @property
    def turns(self) -> list[Turn]:
        """The exchange as messages."""
        pairs = (("user", self.message), ("assistant", self.reply))
        return [Turn(role, text) for role, text in pairs if text]

    def query(self, question: str) -> str:
        """The question after this exchange, as one query."""
        return " ".join(filter(None, (self.message, self.reply, question)))


def shortened(text: str, most: int) -> str:
    """A text of at most `most` characters: its middle is left out, and more of its end is kept."""
    text = text.strip()
    if len(text) <= most:
        return text
    start = most // 3
    return f"{text[:start].rstrip()}{GAP}{text[len(text) - (most - start - len(GAP)) :].lstrip()}"


def sound(text: str, most: int) -> str:
    """An earlier message, shortened to `most` characters, without NUL and lone surrogates."""
    return clean_text(shortened(text, most))


def exchanges(history: Sequence[Turn]) -> list[Exchange]:
    """The latest exchanges of a conversation, latest first. Messages of one role in a row are
    one.
    """
    found: list[tuple[str, str]] = []
    message, reply = "", ""
    for turn in reversed(history):
        if turn.role == "assistant" and message:
            found.append((message, reply))
            message, reply = "", turn.content
        elif turn.role == "assistant" and len(reply) < REPLY_CHARACTERS:
            reply = f"{turn.content}\n{reply}"
        elif turn.role == "user" and len(message) < MESSAGE_CHARACTERS:
            message = f"{turn.content}\n{message}"
        if len(found) == EXCHANGES:
            break
    cut = [
        (sound(s, MESSAGE_CHARACTERS), sound(r, REPLY_CHARACTERS))
        for s, r in [*found, (message, reply)]
    ]
    made = [Exchange(s, "", unanswered=True) if abstains(r) else Exchange(s, r) for s, r in cut]
    return [e for e in made if e.message or e.reply][:EXCHANGES]


def system_turns(history: Sequence[Turn], most: int = SYSTEM_CHARACTERS) -> list[Turn]:
    """The system's messages as one, of at most `most` characters."""
    text = sound("\n\n".join(turn.content for turn in history if turn.role == "system"), most)
    return [Turn("system", text)] if text else []


def recent_turns(history: Sequence[Turn], most: int = SYSTEM_CHARACTERS) -> list[Turn]:
    """The system's messages, of at most `most` characters, and the latest turns, as messages."""
    turns = [turn for turn in history if turn.role != "system" and turn.content.strip()]
    return [
        *system_turns(history, most),
        *(replace(t, content=sound(t.content, TURN)) for t in turns[-TURNS:]),
    ]


def as_passages(history: Sequence[Turn]) -> list[str]:
    """A conversation as passages to answer from: the system's words, then each
    exchange, latest last.

    An unanswered question states nothing, and would be found as the answer to itself.
    """
    spoken = [
        " ".join(turn.content for turn in e.turns)
        for e in reversed(exchanges(history))
        if not e.unanswered
    ]
    return [turn.content for turn in system_turns(history)] + spoken
