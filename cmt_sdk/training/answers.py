"""The answers of packs: their states, and their loss, with the logits of a few tokens at a time.

Knows no task.
"""

from __future__ import annotations

from torch import Tensor

from cmt_sdk.neural.cache import MemoryCache
from cmt_sdk.neural.frozen import FrozenModel
from cmt_sdk.training.losses import Objectives, loss_of_states
from cmt_sdk.training.packs import Rows

LOGITS_AT_ONCE = 2**24  # numbers, 64 MiB in fp32; a loss takes some six times as much


def answer_states(lm: FrozenModel, cache: MemoryCache, rows: Rows) -> Tensor:
    """Last hidden states of the packs' answer tokens, by the adapter that is on.

    Args:
        lm: The model.
        cache: The memories of each pack.
        rows: The packs.

    Returns:
        [t, d], pack after pack, in the order of their labels.
    """
    hidden = lm.forward(cache, **cache.inputs(rows.ids, rows.offsets, rows.mask))  # (B, m, d)
    return hidden[rows.labels >= 0]


def answer_loss(
    lm: FrozenModel,
    objectives: Objectives,
    states: Tensor,
    labels: Tensor,
    teacher: Tensor | None = None,
    without: Tensor | None = None,
) -> Tensor:
    """The summed loss of answer tokens, `LOGITS_AT_ONCE` numbers at a time.

    Args:
        lm: The model, whose output layer is frozen.
        objectives: The weights.
        states: The tokens' states [t, d].
        labels: [t].
        teacher: The teacher's states [n, d] of the first n, or None.
        without: States without memory [t, d], or None.
    """
    at_once = max(1, LOGITS_AT_ONCE // lm.model.config.get_text_config().vocab_size)
    return loss_of_states(objectives, lm.logits, states, labels, teacher, without, at_once)
