"""Whether a text says a newer value of what an older one says: a linear probe on the frozen model's
states.

The model reads the older text and, on the next line, the newer, as a user's message. A weight for
each value of its states (see ports.StateReader) gives a number: above 0 the newer supersedes the
older. The weights are fitted by ridge regression to 72 pairs written by hand and to 674 as people
chat (moved, changed, corrected; against other persons, other things, what is added, diaries,
bills). They are shipped for the models with adapters of ours; others go without.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import numpy as np

from cmt_sdk.types import Vector

# The number from which on a text supersedes another, where no question is at hand. Over the
# statements of the dialogues in examples/conversations it finds 13 of 37 changes and takes none of
# 75 other pairs for one (at 0.5 it finds 19 and takes 2); over those of apart/ 10 of 17 and none of
# 41 (at 0.5 it finds 11 and takes 3).
SURE = 0.7
LONGEST = 60  # tokens of a text; the pairs that the probe was fitted to are short


@dataclass(frozen=True)
class SupersessionProbe:
    """weights: float32 [d]."""

    weights: Vector
    bias: float

    def __call__(self, states: Vector) -> Vector:
        """A number for each of n pairs, by their states [n, d]."""
        numbers: Vector = states @ self.weights + np.float32(self.bias)
        return numbers


def text_of(older: str, newer: str) -> str:
    """What the model reads of a pair."""
    return f"{older}\n{newer}"


@cache
def supersession_probe(name: str) -> SupersessionProbe | None:
    """The probe for the states of the model of this name (ports.StateReader); None where none is
    shipped.
    """
    place = files(__package__) / "shipped" / f"{name}.npz"
    if not place.is_file():
        return None
    with place.open("rb") as file, np.load(file, allow_pickle=False) as held:
        return SupersessionProbe(held["weights"].astype(np.float32), float(held["bias"]))
