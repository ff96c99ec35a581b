"""Small talk by example: the shipped exchanges, those nearest to a message first.

A model of 135 million parameters greets a person in the evening with "Good morning, sleep well!".
So its states, with hashed characters, tell which exchange a message is like. `chat` gives the reply
that a person wrote for it where the two are near, else shows the model the nearest exchanges.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from functools import cache
from importlib.resources import files

import numpy as np

from cmt_sdk.config.settings import models_dir
from cmt_sdk.ports import StateReader
from cmt_sdk.types import Vector
from cmt_sdk.understanding.fitted import FOLDER, keep
from cmt_sdk.understanding.probe import IntentProbe


@cache
def read_exchanges() -> Sequence[tuple[str, str]]:
    """The shipped exchanges: a message and a fitting reply, with a tabulator between them in the
    file.
    """
    text = (files(__package__) / "small_talk.tsv").read_text(encoding="utf-8")
    pairs = [line.split("\t") for line in text.splitlines()]
    return [(message, reply) for message, reply in pairs]


def nearest(
    text: str, state_reader: StateReader, probe: IntentProbe
) -> list[tuple[float, str, str]]:
    """The exchanges, each after the cosine of its message to a text; nearest first."""
    exchanges = read_exchanges()
    known = probe.places([message for message, _ in exchanges], _states(state_reader))
    found = known @ probe.places([text], state_reader.states([text]))[0]
    return [(float(found[n]), *exchanges[n]) for n in np.argsort(-found)]


_read: dict[str, Vector] = {}


def _states(state_reader: StateReader) -> Vector:
    """The states of the shipped messages [n, d]; computed once on a machine, in a second or two."""
    messages = [message for message, _ in read_exchanges()]
    digest = hashlib.sha256("\n".join(messages).encode()).hexdigest()[:12]
    name = f"{state_reader.name}-talk-{digest}.npy"
    if name not in _read:
        place = models_dir() / FOLDER / name
        try:
            _read[name] = np.load(io.BytesIO(place.read_bytes()), allow_pickle=False).astype(
                np.float32
            )
        except (OSError, ValueError):  # not there, or damaged: computed again
            _read[name] = state_reader.states(messages)
            held = io.BytesIO()
            np.save(held, _read[name].astype(np.float16))
            keep(place, held.getvalue())
    return _read[name]
