"""Copying: which token goes on with an answer that stands word for word in some texts. Knows no
model; the texts are looked up for output alone, and none of their tokens is read.

With a margin the model may leave the texts: where a token of its own is likelier by more than that,
it is taken, and the answer goes on freely. So a name that a small model would garble ("C Cardiff")
is spelt as the text spells it, and an answer in the model's own words stays possible.

The texts are the automaton: the state of an answer is the set of places in them where it may go on,
and a token is allowed where its bytes stand at one of these. An answer begins at a word, with the
token with which the word begins at the beginning of a text or after a space: with any "S", a model
that would say SHA-1 would go on with some word in S. Nothing is built for a question but flags for
each byte. The likeliest tokens are looked at first; where the text has none of them, the tokens at
the places are looked up.
"""

from __future__ import annotations

import math
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
        margin: By how many nats another token must be likelier for the answer to leave the texts;
            infinite: it never does.
    """

    def __init__(self, prompts: Prompts, texts: Sequence[str], margin: float = math.inf) -> None:
        self._prompts = prompts
        self._margin = margin
        self._is_free = False  # True once the answer has left the texts
        self._stops = prompts.stop_ids
        parts = [*map(_flagged, texts), *map(_whole, REPLIES)]
        self._bytes = GAP.join(data for data, _ in parts)
        # (bytes,) each: an answer may begin here, it may end before, a word goes on
        self._begins, self._ends, self._inner = np.concatenate([f for _, f in parts], axis=1)
        self._firsts: dict[bytes, set[bytes]] = {}
        self._places: list[int] | None = None  # None before the first token

    def next(self, logits: NDArray[np.float32]) -> int:
        """Go on with the likeliest token that is allowed, and return it. It ends the answer where
        no other one is, or leaves the texts where the margin is finite.

        Args:
            logits: [vocabulary].
        """
        best = int(logits.argmax())
        token = best if self._is_free else self._first_allowed([best])
        if token is None:
            least = logits[best] - self._margin
            likely = [t for t in _likeliest(logits) if logits[t] >= least]
            if self._places is None and self._margin < math.inf:
                # "C" for "Card" of Cardiff: the word that it begins, before a likelier other one
                likely.sort(key=lambda t: not self._word(t).startswith(self._word(best)))
            token = self._first_allowed(likely)
        if token is None and self._margin < math.inf:
            self._is_free, token = True, best
        if token is None:
            found = {*self._tokens(), *self._stops}
            token = self._first_allowed(sorted(found, key=lambda t: -logits[t]))
        return max(self._stops, key=lambda t: logits[t]) if token is None else token

    def _word(self, token: int) -> bytes:
        """The bytes of a token, without the space before a word."""
        return self._prompts.piece(token).removeprefix(b" ")

    def _first_allowed(self, tokens: Sequence[int]) -> int | None:
        """Go on with the first of these tokens that is allowed; None without one."""
        may_end = self._places is not None and bool(self._ends[self._places].any())
        for token in tokens:
            if token in self._stops:
                if may_end:
                    return token
            elif places := self._after(self._prompts.piece(token)):
                self._places = places
                return token
        return None

    def _tokens(self) -> Iterator[int]:
        """The tokens whose bytes stand at the places."""
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
            bare = piece.removeprefix(b" ")  # some tokenizers write one before every word
            # in the other case too, as in the middle of a sentence and at its beginning
            forms = {bare, bare[:1].swapcase() + bare[1:]}
            return [place for form in forms for place in self._begun(form, bare)]
        size = len(piece)
        return [at + size for at in self._places if self._bytes.startswith(piece, at)]

    def _begun(self, form: bytes, bare: bytes) -> Iterator[int]:
        """The places after the bytes `form` where they begin a word that a tokenizer begins with
        the bytes `bare`; all beginnings for no bytes.
        """
        if not form:
            yield from np.flatnonzero(self._begins).tolist()
            return
        at = self._bytes.find(form)
        while at >= 0:
            if self._begins[at] and self._is_first(bare, at + len(form)):
                yield at + len(form)
            at = self._bytes.find(form, at + 1)

    def _is_first(self, bare: bytes, after: int) -> bool:
        """Whether a tokenizer begins the word with these bytes, with which it begins before a
        place.
        """
        if not self._inner[after]:
            return True
        end = after + int(self._inner[after:].argmin())
        word = bare + self._bytes[after:end]
        if word not in self._firsts:
            texts = (word.decode(), f" {word.decode()}")
            self._firsts[word] = {_first_piece(self._prompts, text) for text in texts}
        return bare in self._firsts[word]


def _first_piece(prompts: Prompts, text: str) -> bytes:
    """The first bytes that a tokenizer gives a text, without the space before it."""
    pieces = [prompts.piece(token).removeprefix(b" ") for token in prompts.ids(text)[:2]]
    return next(filter(None, pieces), b"")


def _likeliest(logits: NDArray[np.float32]) -> list[int]:
    """The likeliest tokens, in order; logits [vocabulary]."""
    few = np.argpartition(-logits, min(LIKELIEST, len(logits) - 1))[:LIKELIEST]
    ordered: list[int] = few[np.argsort(-logits[few])].tolist()
    return ordered


def _whole(reply: str) -> tuple[bytes, Flags]:
    """A reply that is given as a whole: its n bytes, and flags as of `_flagged`."""
    data = reply.encode()
    places = np.arange(len(data) + 1)
    is_inner = (places > 0) & (places < len(data))
    return data, np.stack([places == 0, places == len(data), is_inner])


def _flagged(text: str) -> tuple[bytes, Flags]:
    """The n bytes of a text and flags [3, n + 1] of each, and of the text's end: whether an answer
    may begin here, whether it may end before, and whether a word goes on over the place.
    """
    begins, ends, inner = np.zeros((3, len(text) + 1), bool)
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
    ends[1:] = ~inner[1:] & _closes(text)
    if text.isascii():
        return text.encode(), np.stack([begins, ends, inner])
    sizes = [len(char.encode()) for char in text]
    places = np.append(0, np.cumsum(sizes))
    flags = np.zeros((3, places[-1] + 1), bool)
    flags[2] = True  # within a character
    flags[:, places] = begins, ends, inner
    return text.encode(), flags


def _closes(text: str) -> Flags:
    """Of each character, whether an answer may end after it: a letter or digit, or a sign that
    belongs to what is before it.
    """
    alone = np.array([not char.isspace() and char not in ",;:" for char in text], bool)
    letters = np.array([char.isalnum() for char in text], bool)
    closes: Flags = letters | (alone & ~np.append(letters[1:], False))
    return closes
