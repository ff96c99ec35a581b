"""What came before a question, as exchanges that a search can use. Pure strings: knows no model and
no store.

A question that can be understood alone is found by itself. One that is short of its subject ("And
when?") is searched together with each earlier exchange, because any of them may name the subject.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from cmt_sdk.prompting import abstains
from cmt_sdk.scopes import clean_text
from cmt_sdk.types import Turn

EXCHANGES = 12  # the latest ones, which are looked at
SAID, REPLY = 300, 150  # characters of an exchange that are searched and read
RULES = 1_200  # characters of a system prompt that are read
TURN, TURNS = 1_000, 12  # characters of a turn, and turns, that a model without notes reads
MESSAGE, MESSAGE_TOKENS = 4_000, 1_000  # characters and tokens of a message that are read
QUERY = 1_000  # characters of a message that are searched
GAP = " … "


@dataclass(frozen=True, slots=True)
class Exchange:
    """What the user said and what was replied, each cut to what is searched and read.

    A reply that says that nothing is known names no subject: it is left out, and the exchange is
    `unanswered`.
    """

    said: str
    reply: str = ""
    unanswered: bool = False

    @property
    def turns(self) -> list[Turn]:
        """The exchange as messages."""
        pairs = (("user", self.said), ("assistant", self.reply))
        return [Turn(role, text) for role, text in pairs if text]

    def query(self, question: str) -> str:
        """The question after what was said before it."""
        return " ".join(filter(None, (self.said, self.reply, question)))


def shortened(text: str, most: int) -> str:
    """A text of at most `most` characters: its middle is left out, and more of its end is kept."""
    text = text.strip()
    if len(text) <= most:
        return text
    start = most // 3
    return f"{text[:start].rstrip()}{GAP}{text[len(text) - (most - start - len(GAP)) :].lstrip()}"


def sound(text: str, most: int) -> str:
    """What is kept of a message before the question: cut, and without what no text may hold."""
    return clean_text(shortened(text, most))


def exchanges(history: Sequence[Turn]) -> list[Exchange]:
    """The latest exchanges of a conversation, latest first. Messages of one role in a row are
    one.
    """
    found: list[tuple[str, str]] = []
    said, reply = "", ""
    for turn in reversed(history):
        if turn.role == "assistant" and said:
            found.append((said, reply))
            said, reply = "", turn.content
        elif turn.role == "assistant" and len(reply) < REPLY:
            reply = f"{turn.content}\n{reply}"
        elif turn.role == "user" and len(said) < SAID:
            said = f"{turn.content}\n{said}"
        if len(found) == EXCHANGES:
            break
    cut = [(sound(s, SAID), sound(r, REPLY)) for s, r in [*found, (said, reply)]]
    made = [Exchange(s, "", unanswered=True) if abstains(r) else Exchange(s, r) for s, r in cut]
    return [e for e in made if e.said or e.reply][:EXCHANGES]


def rules(history: Sequence[Turn]) -> list[Turn]:
    """The system's messages as one."""
    said = sound("\n\n".join(turn.content for turn in history if turn.role == "system"), RULES)
    return [Turn("system", said)] if said else []


def recent(history: Sequence[Turn]) -> list[Turn]:
    """The system's messages and the latest turns, for a model that reads no notes."""
    said = [turn for turn in history if turn.role != "system" and turn.content.strip()]
    return [*rules(history), *(replace(t, content=sound(t.content, TURN)) for t in said[-TURNS:])]


def told(history: Sequence[Turn]) -> list[str]:
    """What a conversation tells, as passages to answer from: the system's words, then each
    exchange, latest last.

    An unanswered question tells nothing, and would be found as the answer to itself.
    """
    said = [
        " ".join(turn.content for turn in e.turns)
        for e in reversed(exchanges(history))
        if not e.unanswered
    ]
    return [turn.content for turn in rules(history)] + said
