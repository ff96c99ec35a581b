"""What a dialogue file says. Knows no model and no judge.

A file is YAML with a `title` and the `talk`:

    title: A new flat
    talk:
    - statement: we got the keys!! its chestnut street 14
    - later                                  # the memory is closed and opened in a new process
    - asked back: whats my address again
      wants: [chestnut street 14]
    - as: ben                                # from here on another user speaks
    - other user: where does ann live
      never: [chestnut]
    - forget: delete my address please
      then: yes                              # the user's answer to the question that comes back
      gone: [chestnut]

Every turn has one kind, whose value is what the user says. The kinds are in `KINDS`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

FOLDER = Path(__file__).parent / "dialogues"
FIRST = "ann"  # the speaker where a dialogue names none
LATER = "later"
KINDS = {
    "statement": "tells something; an acknowledgement fits",
    "small talk": "greets, thanks, asks for a joke or an opinion",
    "asked back": "asks for a fact that was stated once",
    "newest": "asks for a fact that was stated, then changed",
    "before": "asks for the value that no longer holds",
    "never stated": "asks for a fact that no user stated",
    "follow-up": "asks with words left out",
    "other user": "asks for a fact of another user",
    "remember": "asks to remember something",
    "forget": "asks to forget something; `then` answers the question that comes back",
    "not kept": "is no fact: a bare question, ok, a prompt of a front end",
}
NEEDS = {  # the lists without which a turn cannot be judged; one of them is enough
    "asked back": ("wants",),
    "newest": ("wants",),
    "before": ("wants",),
    "follow-up": ("wants",),
    "other user": ("never",),
    "remember": ("keeps",),
    "forget": ("gone", "stays"),
}
LISTS = ("wants", "never", "replaces", "keeps", "gone", "stays")


@dataclass(frozen=True, slots=True)
class UserTurn:
    """One turn of a user, and what is expected of it.

    `wants`: the reply holds one of them. `never`: it holds none. `replaces`: values that the turn
    makes untrue. After the turn, `keeps` stand in the user's documents, `gone` in none, `stays` in
    some.
    """

    user: str
    kind: str
    text: str
    then: str = ""
    wants: tuple[str, ...] = ()
    never: tuple[str, ...] = ()
    replaces: tuple[str, ...] = ()
    keeps: tuple[str, ...] = ()
    gone: tuple[str, ...] = ()
    stays: tuple[str, ...] = ()

    @property
    def values(self) -> tuple[str, ...]:
        """All values that the turn names."""
        return self.wants + self.never + self.replaces + self.keeps + self.gone + self.stays


@dataclass(frozen=True, slots=True)
class Dialogue:
    """The turns of one file; None stands for a new process."""

    name: str
    title: str
    talk: tuple[UserTurn | None, ...]

    @property
    def turns(self) -> list[UserTurn]:
        """What users say, without the new processes."""
        return [turn for turn in self.talk if turn is not None]


def dialogues(folder: Path = FOLDER) -> list[Dialogue]:
    """The dialogues of a folder, by name."""
    return [dialogue(path) for path in sorted(folder.glob("*.yaml"))]


def dialogue(path: Path) -> Dialogue:
    """The dialogue of a file. Raises ValueError, with the turn, for one that cannot be played."""
    held = yaml.safe_load(path.read_text(encoding="utf-8"))
    return Dialogue(path.stem, held["title"], tuple(_turns(path.stem, held["talk"])))


def _turns(name: str, talk: Sequence[Any]) -> Iterator[UserTurn | None]:
    user = FIRST
    for number, entry in enumerate(talk, 1):
        if entry == LATER:
            yield None
        elif set(entry) == {"as"}:
            user = entry["as"]
        else:
            yield _turn(f"{name}, entry {number}", user, dict(entry))


def _turn(where: str, user: str, entry: dict[str, Any]) -> UserTurn:
    kinds = [kind for kind in KINDS if kind in entry]
    if len(kinds) != 1:
        raise ValueError(f"{where}: a turn has one of the kinds {', '.join(KINDS)}, not {kinds}")
    kind, text = kinds[0], str(entry.pop(kinds[0]))
    lists = {key: _texts(where, key, entry.pop(key)) for key in LISTS if key in entry}
    then = str(entry.pop("then", ""))
    if entry:
        raise ValueError(f"{where}: unknown keys {', '.join(entry)}")
    if not text.strip() or (kind in NEEDS and not any(lists.get(key) for key in NEEDS[kind])):
        raise ValueError(f"{where}: {kind!r} needs words, and one of {NEEDS.get(kind, ())}")
    if (kind == "forget") != bool(then):
        raise ValueError(f"{where}: `then` belongs to 'forget', which needs it")
    return UserTurn(user, kind, text.strip(), then, **lists)


def _texts(where: str, key: str, value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(v, str) and v for v in value):
        raise ValueError(f"{where}: {key} is a list of texts, not {value!r}; quote numbers")
    return tuple(value)
