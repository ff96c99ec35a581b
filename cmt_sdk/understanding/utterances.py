"""The labelled messages that an IntentProbe is fitted to: `utterances.tsv`, in the package.

A line holds the labels, one letter each, the language and the text, in which a backslash and n
stand for a line break.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from cmt_sdk.text.provenance import words_of

# The letters of the file, in the order of a probe's columns.
LABELS = {
    "a": "asks",
    "t": "tells",
    "r": "remembers",
    "f": "forgets",
    "c": "chats",
    "w": "general",
    "y": "agrees",
    "m": "machine",
}


@dataclass(frozen=True, slots=True)
class Utterance:
    """A message with the names of its labels and its language, as a code of ISO 639-1."""

    text: str
    labels: frozenset[str]
    language: str


@cache
def read_utterances() -> Sequence[Utterance]:
    """All shipped messages, in the order of the file."""
    lines = (files(__package__) / "utterances.tsv").read_text(encoding="utf-8").splitlines()
    found = []
    for line in lines:
        letters, language, text = line.split("\t", 2)
        labels = frozenset(LABELS[letter] for letter in letters)
        found.append(Utterance(text.replace("\\n", "\n"), labels, language))
    return found


@cache
def common_words() -> frozenset[str]:
    """The forms (`provenance.Word`) of the words that several shipped messages share: they name
    nothing in particular.
    """
    counts: Counter[str] = Counter()
    for utterance in read_utterances():
        counts.update({word.form for word in words_of(utterance.text)})
    return frozenset(form for form, count in counts.items() if count > 1)
