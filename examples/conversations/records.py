"""Replies kept in a file, a dialogue a line, so that they can be judged again. Knows no model."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

from examples.conversations.judging import Heard, Round
from examples.conversations.script import Dialogue


def append(file: Path, name: str, rounds: Sequence[Round]) -> None:
    """Add a dialogue's replies to a file; one that ends in .gz is compressed."""
    line = {"name": name, "rounds": [asdict(played) for played in rounds]}
    with _opener(file)(file, "at", encoding="utf-8") as lines:
        lines.write(json.dumps(line, ensure_ascii=False) + "\n")


def read(file: Path, talks: Iterable[Dialogue]) -> dict[str, list[Round]]:
    """The rounds of each dialogue that was played, word for word as it is now, by name."""
    if not file.exists():
        return {}
    with _opener(file)(file, "rt", encoding="utf-8") as lines:
        held = {line["name"]: line["rounds"] for line in map(json.loads, lines)}
    found = {talk.name: _rounds(talk, held[talk.name]) for talk in talks if talk.name in held}
    return {name: rounds for name, rounds in found.items() if rounds}


def _opener(file: Path) -> Callable[..., IO[str]]:
    return gzip.open if file.suffix == ".gz" else open


def _rounds(talk: Dialogue, held: Sequence[dict[str, Any]]) -> list[Round]:
    """What is expected is taken from the dialogue: it may have been put right since."""
    lines = [(turn.user, turn.text, turn.then) for turn in talk.turns]
    if lines != [tuple(line["turn"][key] for key in ("user", "text", "then")) for line in held]:
        return []
    turns = zip(talk.turns, held, strict=True)
    return [Round(**line | {"turn": t, "heard": _heard(line["heard"])}) for t, line in turns]


def _heard(held: dict[str, Any]) -> Heard:
    return Heard(**held | {"sources": tuple(held["sources"])})
