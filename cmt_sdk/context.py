"""What came before a question, as exchanges that a search can use. Pure strings: knows no model and no store.

A question that can be understood alone is found by itself. One that is short of its subject ("And
when?") is searched together with each earlier exchange, because any of them may name the subject.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cmt_sdk.prompting import abstains
from cmt_sdk.types import Turn

EXCHANGES = 12  # the latest ones, which are looked at
SAID, REPLY = 300, 150  # characters of an exchange that are searched and read
RULES = 2_000  # characters of a system prompt that are read
MESSAGE = 4_000  # characters of a message that are read
QUERY = 1_000  # characters of a message that are searched
GAP = " … "


@dataclass(frozen=True, slots=True)
class Exchange:
    """What the user said and what was replied, each cut to what is searched and read.

    A reply that says that nothing is known names no subject: it is left out.
    """

    said: str
    reply: str = ""

    @property
    def turns(self) -> list[Turn]:
        """The exchange as messages."""
        pairs = (("user", self.said), ("assistant", self.reply))
        return [Turn(role, text) for role, text in pairs if text]

    def query(self, question: str) -> str:
        """The question after what was said before it."""
        return " ".join(filter(None, (self.said, self.reply, question)))


def shortened(text: str, most: int) -> str:
    """A text of at most `most` characters: its middle is left out, and of the end more stays."""
    text = text.strip()
    if len(text) <= most:
        return text
    start = most // 3
    return f"{text[:start].rstrip()}{GAP}{text[len(text) - (most - start - len(GAP)) :].lstrip()}"


def exchanges(history: Sequence[Turn]) -> list[Exchange]:
    """The latest exchanges of a conversation, latest first. Messages of one role in a row are one."""
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
    cut = [(shortened(s, SAID), shortened(r, REPLY)) for s, r in [*found, (said, reply)]]
    made = [Exchange(s, "" if abstains(r) else r) for s, r in cut]
    return [e for e in made if e.said or e.reply][:EXCHANGES]


def rules(history: Sequence[Turn]) -> list[Turn]:
    """The system's messages, as one that is cut where it is long."""
    said = "\n\n".join(turn.content for turn in history if turn.role == "system")
    return [Turn("system", shortened(said, RULES))] if said.strip() else []
