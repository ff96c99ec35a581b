"""How probable a question is after each of some memories: a passage that a question fits makes its
words expected.

Query likelihood (Ponte & Croft 1998) by a language model (Sachan et al. 2022, arXiv 2204.07496),
read from memories instead of text. The bare model reads the question: what an adapter learned about
answers does not count.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from cmt_sdk.neural.abreast import Abreast, abreast
from cmt_sdk.neural.frozen import FrozenModel
from cmt_sdk.neural.reading import causal
from cmt_sdk.neural.rotary import Rotary
from cmt_sdk.neural.soft import notes_of, unpacked
from cmt_sdk.types import PackedMemory

# tokens of a question, from its end: it is read after every memory anew, and a page would take
# minutes
LONGEST = 96


@torch.inference_mode()
def likelihoods(
    lm: FrozenModel, rotary: Rotary, memories: Sequence[PackedMemory], question: str
) -> list[list[float]]:
    """The log probabilities of the question's tokens after each memory, in nats, in the order
    given. One pass for all.
    """
    return _likelihoods(lm, abreast(lm, rotary, memories), question)


@torch.inference_mode()
def soft_likelihoods(
    lm: FrozenModel, memories: Sequence[PackedMemory], question: str
) -> list[list[float]]:
    """The same after soft memories."""
    with lm.activate("encoder"):
        notes = notes_of(lm, [[soft] for soft in unpacked(memories, lm)])
    return _likelihoods(lm, notes.abreast(), question)


def _likelihoods(lm: FrozenModel, notes: Abreast, question: str) -> list[list[float]]:
    before, words = _span(lm, question)
    rows = len(notes.starts)
    ids = torch.tensor([before + words], device=lm.device).expand(rows, -1)
    steps = torch.arange(ids.shape[1], device=lm.device)
    starts = torch.tensor(notes.starts, device=lm.device)
    states = lm.states(
        notes,
        input_ids=ids,
        position_ids=starts[:, None] + steps,
        attention_mask=causal(len(steps), notes.bias[0]),
        notes=notes,
    )
    return [_told(lm, row, len(before), words) for row in states]


def _span(lm: FrozenModel, question: str) -> tuple[list[int], list[int]]:
    """Token ids before a question's words, and those of its last words."""
    before, words = lm.question_span(question)
    return before, words[-LONGEST:]


def _told(lm: FrozenModel, states: Tensor, before: int, words: Sequence[int]) -> list[float]:
    """The log probability of each word, by the states [before + words, d] of what stands before
    each of them.
    """
    first = max(0, before - 1)  # where nothing stands before, the first word is taken for granted
    logits = lm.logits(states[first : before + len(words) - 1])
    expected = torch.tensor(words[-len(logits) :], device=logits.device)
    told: list[float] = (-cross_entropy(logits, expected, reduction="none")).tolist()
    return told
