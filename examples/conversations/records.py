"""Replies kept in a file, a dialogue a line, so that they can be judged again. Knows no model."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from examples.conversations.judging import Heard, Round
from examples.conversations.script import Dialogue


def append(file: Path, name: str, rounds: Sequence[Round]) -> None:
    """Add a dialogue's replies to a file."""
    line = {"name": name, "rounds": [asdict(played) for played in rounds]}
    with file.open("a", encoding="utf-8") as lines:
        lines.write(json.dumps(line, ensure_ascii=False) + "\n")


def read(file: Path, talks: Iterable[Dialogue]) -> dict[str, list[Round]]:
    """The rounds of each dialogue that was played, word for word as it is now, by name."""
    if not file.exists():
        return {}
    lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    held = {line["name"]: line["rounds"] for line in lines}
    found = {talk.name: _rounds(talk, held[talk.name]) for talk in talks if talk.name in held}
    return {name: rounds for name, rounds in found.items() if rounds}


def _rounds(talk: Dialogue, held: Sequence[dict[str, Any]]) -> list[Round]:
    """What is expected is taken from the dialogue: it may have been put right since."""
    lines = [(turn.user, turn.text, turn.then) for turn in talk.turns]
    if lines != [tuple(line["turn"][key] for key in ("user", "text", "then")) for line in held]:
        return []
    turns = zip(talk.turns, held, strict=True)
    return [Round(**line | {"turn": t, "heard": _heard(line["heard"])}) for t, line in turns]


def _heard(held: dict[str, Any]) -> Heard:
    return Heard(**held | {"sources": tuple(held["sources"])})
