"""Fits the gates that score KV entries in one pass: least squares, no gradients.

The model reads passages as KVzip does, each twice. For each layer and head a weight is then solved
for that makes the logarithm of the scores of the layer's states (neural.methods.gates). Some
hundred passages are enough; that takes minutes on a CPU.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from cmt_sdk.neural.frozen import FrozenModel
from cmt_sdk.neural.methods.gates import Gates, scaled, wanted
from cmt_sdk.neural.methods.kvzip import RepeatScores, top_share
from cmt_sdk.text.prompt_messages import REPEAT

PASSAGES = 300  # more change little: 60 find 88 % of the entries that are kept, 300 find 89 %
FEWEST_TOKENS = 40  # shorter passages keep all entries
MOST_TOKENS = 512
KEPT = 0.25  # the share that `recall` is counted for
RIDGE = 100.0  # against weights that only fit these passages; of some 50,000 tokens


@dataclass(frozen=True)
class FittedGates:
    """Gates with the figures of their fit.

    Attributes:
        gates: The gates.
        passages: Passages that they were fitted to.
        recall: Of the quarter of entries that a second reading keeps, the share that the gates keep
            too, on held-out passages.
    """

    gates: Gates
    passages: int
    recall: float


class _Sums:
    """What least squares needs of the tokens seen, on the CPU."""

    def __init__(self, layers: int, width: int, heads: int) -> None:
        self.products = torch.zeros(layers, width + 1, width + 1, dtype=torch.float64)
        self.targets = torch.zeros(layers, width + 1, heads, dtype=torch.float64)

    def add(self, states: Sequence[Tensor], scores: Tensor) -> None:
        """Add a passage: by layer its states [n, d], and its scores [layers, kv_heads, n]."""
        for layer, state in enumerate(states):
            x = torch.nn.functional.pad(scaled(state), (0, 1), value=1.0)  # (n, d + 1)
            self.products[layer] += (x.T @ x).cpu()
            self.targets[layer] += (x.T @ wanted(scores[layer]).T).cpu()

    def solved(self) -> Gates:
        """The gates of all that was added."""
        size = self.products.shape[1]
        ridge = RIDGE * torch.eye(size, dtype=torch.float64)
        ridge[-1, -1] = 0.0  # the bias is free
        weights = torch.linalg.solve(self.products + ridge, self.targets).float()
        return Gates(weights[:, :-1].contiguous(), weights[:, -1].contiguous())


def fit_gates(
    lm: FrozenModel,
    learned: Sequence[str],
    judged: Sequence[str],
    *,
    minutes: float = float("inf"),
    on_passage: Callable[[int], None] = lambda _: None,
) -> FittedGates:
    """Fit gates for a model, with the adapter "encoder" where it has one.

    Args:
        lm: The model.
        learned: Passages to learn from; those with too few or too many tokens are left out.
        judged: Held-out passages.
        minutes: No further passage is read after this time.
        on_passage: Called with the number of passages read.

    Raises:
        InvalidInput: No passage has a fitting length.
    """
    layers, heads, _ = lm.kv_shape
    sums = _Sums(layers, lm.model.get_input_embeddings().weight.shape[1], heads)
    began, read = time.monotonic(), 0
    for ids in _fitting(lm, learned):
        sums.add(*_read_twice(lm, ids))
        read += 1
        on_passage(read)
        if time.monotonic() - began > 60 * minutes:
            break
    gates = sums.solved()
    found = [_recall(lm, gates, ids) for ids in _fitting(lm, judged)]
    return FittedGates(gates, read, sum(found) / max(1, len(found)))


def _fitting(lm: FrozenModel, passages: Sequence[str]) -> list[list[int]]:
    ids = [lm.passage_ids(p) for p in passages]
    return [i for i in ids if FEWEST_TOKENS <= len(i) <= MOST_TOKENS]


@torch.inference_mode()
def _read_twice(lm: FrozenModel, ids: Sequence[int]) -> tuple[list[Tensor], Tensor]:
    """What each layer gets of a passage's tokens, [n, d] each, and KVzip's scores of its entries
    [layers, kv_heads, n].
    """
    count, start, cue = len(ids), len(lm.prefix_ids), lm.ids(REPEAT)
    watch = RepeatScores(start, torch.tensor([count], device=lm.device), len(cue))
    tokens = torch.tensor([[*ids, *cue, *ids]], device=lm.device)
    positions = torch.arange(start, start + tokens.shape[1], device=lm.device)[None]
    with lm.activate("encoder"):
        states = lm.forward_with_states(
            lm.prefix_cache(1), input_ids=tokens, position_ids=positions, watch=watch
        )
    return [state[0, :count] for state in states], watch.result()[0]


def _recall(lm: FrozenModel, gates: Gates, ids: Sequence[int]) -> float:
    states, scores = _read_twice(lm, ids)
    lengths = torch.tensor([len(ids)], device=lm.device)
    predicted = gates.to(lm.device).scores([s[None] for s in states], lengths)[0]
    kept = top_share(scores, len(ids), KEPT)
    both = kept & top_share(predicted, len(ids), KEPT)
    return float(both.sum() / kept.sum())
