"""Copying: which token goes on with an answer that stands word for word in some texts. Knows no
model; the texts are looked up for output alone, and none of their tokens is read.

The texts are the automaton: the state of an answer is the set of places in them where it may go on,
and a token is allowed where its bytes stand at one of these. So every way to split a word into
tokens is allowed, and nothing is built for a question but two flags a byte. The likeliest tokens
are looked at first; where the text has none of them, the tokens at the places are looked up.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from cmt_sdk.text.prompt_messages import UNKNOWN
from cmt_sdk.text.prompt_tokens import Prompts
from cmt_sdk.text.provenance import is_unspaced

Flags = NDArray[np.bool_]
# Answers that no text needs to hold: that it does not tell, and what questions for a yes ask for.
REPLIES = (UNKNOWN, "Yes", "No", "Yes.", "No.")
LIKELIEST = 64  # tokens that are looked at first
WORD = re.compile(r"\w+(?:[.,]\d+)*")  # 1,234 and 5.2 are whole
CHUNK = re.compile(r"\S*\w\S*")  # between two spaces: "$5" and "#3" begin an answer too
GAP = b"\xff"  # between two texts: no byte of any text


class Copying:
    """An answer that is copied, token by token.

    Args:
        prompts: Give the bytes of a token, and the tokens that end an answer.
        texts: The texts that it is copied from; `REPLIES` are possible too.
    """

    def __init__(self, prompts: Prompts, texts: Sequence[str]) -> None:
        self._prompts = prompts
        self._stops = prompts.stop_ids
        parts = [*map(_flagged, texts), *map(_whole, REPLIES)]
        self._bytes = GAP.join(data for data, _, _ in parts)
        between = np.zeros(1, bool)  # the end of a text may end an answer, the gap begins none
        self._begins = np.concatenate([np.append(begins, between) for _, begins, _ in parts])
        self._ends = np.concatenate([ends for _, _, ends in parts])
        self._places: list[int] | None = None  # None before the first token

    def next(self, logits: NDArray[np.float32]) -> int:
        """Go on with the likeliest token that is allowed, and return it. It ends the answer where
        no other one is.

        Args:
            logits: [vocabulary].
        """
        may_end = self._places is not None and bool(self._ends[self._places].any())
        for token in _likeliest(logits):
            if token in self._stops:
                if may_end:
                    return token
            elif places := self._after(self._prompts.piece(token)):
                self._places = places
                return token
        stops = self._stops if may_end else ()
        token = max([*self._tokens(), *stops], key=lambda t: logits[t], default=-1)
        if token < 0 or token in self._stops:
            return max(self._stops, key=lambda t: logits[t])
        self._places = self._after(self._prompts.piece(token))
        return token

    def _tokens(self) -> Iterator[int]:
        """The tokens that are allowed, found from the places."""
        places = np.flatnonzero(self._begins).tolist() if self._places is None else self._places
        known = self._prompts.tokens_by_piece
        longest = max(map(len, known))
        for at in places:
            for size in range(1, longest + 1):
                piece = self._bytes[at : at + size]
                if piece.endswith(GAP):
                    break
                yield from known.get(piece, ())
                if self._places is None:
                    yield from known.get(b" " + piece, ())

    def _after(self, piece: bytes) -> list[int]:
        """The places after these bytes, of those where the answer may go on."""
        if not piece or GAP in piece:
            return []
        if self._places is None:
            return [place for form in _forms(piece) for place in self._begun(form)]
        size = len(piece)
        return [at + size for at in self._places if self._bytes.startswith(piece, at)]

    def _begun(self, form: bytes) -> Iterator[int]:
        """The places after these bytes where they begin a word; all beginnings for no bytes."""
        if not form:
            yield from np.flatnonzero(self._begins).tolist()
            return
        at = self._bytes.find(form)
        while at >= 0:
            if self._begins[at]:
                yield at + len(form)
            at = self._bytes.find(form, at + 1)


def _likeliest(logits: NDArray[np.float32]) -> list[int]:
    """The likeliest tokens, in order; logits [vocabulary]."""
    few = np.argpartition(-logits, min(LIKELIEST, len(logits) - 1))[:LIKELIEST]
    ordered: list[int] = few[np.argsort(-logits[few])].tolist()
    return ordered


def _forms(piece: bytes) -> set[bytes]:
    """How the first bytes of an answer may stand in a text: without the space that some tokenizers
    write before a word, and with a first letter in the other case, as in the middle of a sentence.
    """
    bare = piece.removeprefix(b" ")
    return {bare, bare[:1].swapcase() + bare[1:]}


def _whole(reply: str) -> tuple[bytes, Flags, Flags]:
    """A reply that is given as a whole: its bytes [n], and the flags of `_flagged`."""
    data = reply.encode()
    places = np.arange(len(data) + 1)
    return data, places[:-1] == 0, places == len(data)


def _flagged(text: str) -> tuple[bytes, Flags, Flags]:
    """The n bytes of a text, whether an answer may begin at each one [n], and whether it may end
    before each one and at the text's end [n + 1].
    """
    begins = np.zeros(len(text) + 1, bool)
    inner = np.zeros(len(text) + 1, bool)  # a word goes on over the beginning of the character
    begins[[found.start() for found in CHUNK.finditer(text)]] = True
    for found in WORD.finditer(text):
        start, end = found.span()
        begins[start] = True
        inner[start + 1 : end] = True
        if not found[0].isascii():
            for at in range(start, end):
                if is_unspaced(text[at]):  # a word of its own
                    begins[at] = True
                    inner[at : at + 2] = False
    ends = ~inner
    ends[1:] &= _closes(text)
    ends[0] = False
    data = text.encode()
    sizes = (
        np.array([len(char.encode()) for char in text], np.int64) if len(data) > len(text) else 1
    )
    places = np.append(0, (np.zeros(len(text), np.int64) + sizes).cumsum())
    spread = np.zeros((2, len(data) + 1), bool)
    spread[:, places] = begins, ends
    return data, spread[0, :-1], spread[1]


def _closes(text: str) -> Flags:
    """Of each character, whether an answer may end after it: a letter or digit, or a sign that
    belongs to what is before it.
    """
    alone = np.array([not char.isspace() and char not in ",;:" for char in text], bool)
    letters = np.array([char.isalnum() for char in text], bool)
    closes: Flags = letters | (alone & ~np.append(letters[1:], False))
    return closes
