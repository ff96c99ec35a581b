"""How probable a question is after each of some memories: a passage that a question fits makes its words expected.

Query likelihood (Ponte & Croft 1998) by a language model (Sachan et al. 2022, arXiv 2204.07496), read from memories instead of
text. The bare model reads: what an adapter learned about answers does not count.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from cmt_sdk.neural.abreast import abreast
from cmt_sdk.neural.frozen import FrozenModel
from cmt_sdk.neural.reading import causal
from cmt_sdk.neural.rotary import Rotary
from cmt_sdk.neural.soft import soft_tokens
from cmt_sdk.types import PackedMemory

LONGEST = 96  # tokens of a question, from its end: it is read after every memory anew, and a page would take minutes


@torch.inference_mode()
def likelihoods(lm: FrozenModel, rotary: Rotary, memories: Sequence[PackedMemory], question: str) -> list[float]:
    """The log probability of the question's words after each memory, in nats, in the order given. One pass for all."""
    before, words = _span(lm, question)
    notes = abreast(lm, rotary, memories)
    ids = torch.tensor([before + words], device=lm.device).expand(len(memories), -1)
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


@torch.inference_mode()
def soft_likelihoods(lm: FrozenModel, memories: Sequence[PackedMemory], question: str) -> list[float]:
    """The same after soft memories, one by one, read with the adapter that knows soft tokens."""
    before, words = _span(lm, question)
    asked = lm.model.get_input_embeddings()(torch.tensor([before + words], device=lm.device))
    found = []
    for memory in memories:
        soft, head = soft_tokens([memory], lm), len(lm.head_ids)
        positions = torch.arange(head, head + soft.shape[1] + asked.shape[1], device=lm.device)[None]
        read = {"inputs_embeds": torch.cat([soft, asked], dim=1), "position_ids": positions}
        cache = lm.head_cache(1)
        with lm.activate("reader"):
            states = lm.states(cache, **read)[0]
        found.append(_told(lm, states[soft.shape[1] :], len(before), words))
    return found


def _span(lm: FrozenModel, question: str) -> tuple[list[int], list[int]]:
    """Token ids before a question's words, and those of its last words."""
    before, words = lm.question_span(question)
    return before, words[-LONGEST:]


def _told(lm: FrozenModel, states: Tensor, before: int, words: Sequence[int]) -> float:
    """The log probability of words, by the states [before + words, d] of what stands before each of them."""
    first = max(0, before - 1)  # where nothing stands before, the first word is taken for granted
    logits = lm.logits(states[first : before + len(words) - 1])
    expected = torch.tensor(words[-len(logits) :], device=logits.device)
    return -float(cross_entropy(logits, expected, reduction="sum"))
