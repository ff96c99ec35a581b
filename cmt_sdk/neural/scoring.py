"""Log probabilities of tokens after memories: how well a question fits a memory, and how much of a
passage its memory gives back. Pure tensor code, knows no storage and no method.

Question likelihood. A passage that a question fits makes its words expected: query likelihood
(Ponte & Croft 1998) by a language model (Sachan et al. 2022, arXiv 2204.07496), from memories
instead of text. The bare model reads the question: what an adapter learned about answers does not
count.

Fidelity. The model, without the reader's adapter, repeats the passage twice: after the memory as it
is stored, and after the passage's complete cache in the model's own precision. Of each reading the
geometric mean of the probabilities of the passage's tokens is taken; fidelity is the first divided
by the second, at most 1.

Why not the first alone: with nothing lost it is 0.75 to 0.94, as a text is easy or hard to repeat,
and that hides the memory. Measured with the default model on 80 passages of SQuAD (v1.1, the end of
its dev set), three questions each, every passage at four of six shares kept. Of two different
passages at 0.5 and 0.25 the one at 0.5 has the larger ratio 74 times in 100, the larger mean 59
times; at 0.25 and 0.125 it is 88 and 77. Medians of the ratio: 0.99, 0.99, 0.97, 0.91, 0.58, 0.22
at shares of 1, 0.5, 0.25, 0.125, 0.06, 0.03. The lower the fidelity, the more F1 is gained by
reading the text instead (rank correlation -0.58 over all shares); among memories of one share it
hardly predicts which one answers better (below 0.3).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from cmt_sdk.neural.batching import batches, padded
from cmt_sdk.neural.cache import MemoryCache
from cmt_sdk.neural.frozen import FrozenModel
from cmt_sdk.neural.methods.base import CompressionMethod
from cmt_sdk.reading.limits import MAX_QUESTION_TOKENS
from cmt_sdk.text.prompt_messages import REPEAT
from cmt_sdk.types import CompressedPassage


@torch.inference_mode()
def question_likelihoods(
    method: CompressionMethod, memories: Sequence[CompressedPassage], question: str
) -> list[list[float]]:
    """The log probabilities of the question's last tokens after each memory alone, in nats.

    One forward pass for all memories, one row per memory.

    Args:
        method: Lays the memories out.
        memories: The memories.
        question: The question, not empty.

    Returns:
        One list per memory, in the order given, all of one length.
    """
    if not memories:
        return []
    lm = method.lm
    cache = method.cache([[memory] for memory in memories])
    before, words = lm.question_span(question)
    words = words[-MAX_QUESTION_TOKENS:]
    tokens = torch.tensor([before + words], device=lm.device).expand(len(memories), -1)  # (B, t)
    predicted = _predictions(lm, cache, tokens, len(before), [words] * len(memories))
    return [(-cross_entropy(*pair, reduction="none")).tolist() for pair in predicted]


def _predictions(
    lm: FrozenModel, cache: MemoryCache, tokens: Tensor, skipped: int, rows: Sequence[list[int]]
) -> Iterator[tuple[Tensor, Tensor]]:
    """Read tokens after memories; yield by row the logits [n, vocabulary] before its scored tokens,
    and their ids [n].

    Args:
        lm: The model.
        cache: One row of memories per row of tokens.
        tokens: Ids [rows, t]: unscored tokens, the scored ones, and padding.
        skipped: Unscored tokens at the beginning. With 0 the first scored token has no state before
            it in this pass, and is left out.
        rows: The scored tokens of each row.
    """
    states = lm.forward(cache, **cache.inputs(tokens))  # (rows, t, d)
    first = max(0, skipped - 1)  # the state before a token predicts it
    for state, scored in zip(states, rows, strict=True):
        end = skipped + len(scored) - 1
        logits = lm.logits(state[first:end])  # (n, vocabulary)
        yield logits, torch.tensor(scored[-len(logits) :], device=logits.device)  # (n,)


@dataclass(frozen=True)
class FidelityMeter:
    """Reads memories again. On a CPU adding takes 2.2 times as long with it: three passes over a
    passage more.
    """

    method: CompressionMethod

    @torch.inference_mode()
    def measure(
        self, contents: Sequence[str], memories: Sequence[CompressedPassage]
    ) -> list[float | None]:
        """Measure one fidelity per passage.

        Args:
            contents: The passages.
            memories: The memory of each.

        Returns:
            In the order given, fidelities in [0, 1]; None where layers with a window cannot see
            back to the passage's beginning.
        """
        lm = self.method.lm
        ids = [lm.passage_ids(content) for content in contents]
        found: list[float | None] = [None] * len(ids)
        fitting = [i for i in range(len(ids)) if self._fits_window(len(ids[i]))]
        for batch in batches([len(ids[i]) for i in fitting]):
            chosen = [fitting[i] for i in batch]
            rows = [ids[i] for i in chosen]
            stored = self._repeated(rows, self.method.cache([[memories[i]] for i in chosen]))
            complete = self._repeated(rows, _complete_cache(lm, rows))
            for i, log_stored, log_complete in zip(chosen, stored, complete, strict=True):
                found[i] = math.exp(min(0.0, log_stored - log_complete))
        return found

    def _fits_window(self, tokens: int) -> bool:
        """Whether a repetition sees back to the first token of its passage, in all layers."""
        lm = self.method.lm
        needed = len(lm.prefix_ids) + 2 * tokens + len(lm.ids(REPEAT))
        return lm.window is None or needed < lm.window

    def _repeated(self, rows: Sequence[list[int]], cache: MemoryCache) -> list[float]:
        """The mean log probability of each row's tokens, in nats, when a model that reads the row's
        memory repeats them after the cue.
        """
        lm = self.method.lm
        cue = lm.ids(REPEAT)
        tokens = padded([cue + row for row in rows], lm.device, lm.end_id)  # (B, t)
        predicted = _predictions(lm, cache, tokens, len(cue), rows)
        return [-float(cross_entropy(*pair)) for pair in predicted]


def _complete_cache(lm: FrozenModel, rows: Sequence[list[int]]) -> MemoryCache:
    """The complete caches of passages, made as memories are, without pruning and rounding: what
    `MemoryCache.bias` closes is padding alone.
    """
    tokens = padded(rows, lm.device, lm.end_id)  # (B, m)
    start = len(lm.prefix_ids)
    entries = start + tokens.shape[1]
    cache = lm.prefix_cache(len(rows))
    positions = torch.arange(start, entries, device=lm.device)[None]  # (1, m)
    with lm.activate("encoder"):
        lm.forward(cache, input_ids=tokens, position_ids=positions)
    keys = [layer.keys for layer in cache.layers]  # (B, KV, entries, d)
    values = [layer.values for layer in cache.layers]
    ends = torch.tensor([start + len(row) for row in rows], device=lm.device)
    is_padding = torch.arange(entries, device=lm.device)[None] >= ends[:, None]  # (B, entries)
    zeros = torch.zeros(is_padding.shape, dtype=keys[0].dtype, device=lm.device)
    bias = zeros.masked_fill(is_padding, -math.inf)[:, None, None]  # (B, 1, 1, entries)
    shared = bias.expand(-1, keys[0].shape[1], -1, -1)  # (B, KV, 1, entries), the same for layers
    return MemoryCache(keys, values, [shared] * len(keys), ends.tolist())
