"""Whether a text says a newer value of what an older one says: a linear probe on the frozen model's states.

The model reads the older text and, on the next line, the newer. A weight for each value of its
states after half of the layers, the mean of the tokens' and the last one's, gives a number: above 0
the newer supersedes the older. The weights are fitted by ridge regression to 800 pairs in five
languages made from templates (moved, changed, corrected, told anew; against other persons, other
things, what is added, diaries, numbered bills), and to 72 written by hand. They are shipped for the
default model; other models go without.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import numpy as np

from cmt_sdk.types import Vector

SURE = 0.2  # the number from which on a text is said to supersede another, where no question is at hand
LONGEST = 60  # tokens of a text; the pairs that the probe was fitted to are short


@dataclass(frozen=True)
class Probe:
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
def probe_of(name: str) -> Probe | None:
    """The probe for the states of the model of this name (ports.Listener); None where none is shipped."""
    place = files(__package__) / "shipped" / f"{name}.npz"
    if not place.is_file():
        return None
    with place.open("rb") as file, np.load(file, allow_pickle=False) as held:
        return Probe(held["weights"].astype(np.float32), float(held["bias"]))
