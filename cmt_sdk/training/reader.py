"""Training the reader adapter: the frozen model's own memories, as they will be stored, and the answers' cross-entropy.

The passages are compressed by the bare model (no gradient, four bits, some share kept); only the question and answer
tokens run with the adapter. So memories stay readable by every later adapter, and a step costs what its questions cost.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from cmt_sdk.neural.frozen import FrozenModel
from cmt_sdk.neural.kv import KVCompressor
from cmt_sdk.neural.reading import PRIOR, Prefix, place
from cmt_sdk.neural.rotary import Rotary
from cmt_sdk.training.bases import Bases
from cmt_sdk.training.data import Mixture
from cmt_sdk.training.packs import Pack, draw
from cmt_sdk.types import PackedMemory


@dataclass
class GradientPrefix(Prefix):
    """A prefix through which gradients flow to the new tokens: joined, not written in place."""

    def update(self, key: Tensor, value: Tensor, layer: int, *_: object) -> tuple[Tensor, Tensor]:
        """The layer's notes and the new keys and values [1, kv_heads, m, d]."""
        size = self.entries[layer]
        keys, values = self.keys[layer][:, :, :size], self.values[layer][:, :, :size]
        return torch.cat([keys.clone(), key], dim=2), torch.cat([values.clone(), value], dim=2)


def notes_of(lm: FrozenModel, rotary: Rotary, memories: Sequence[PackedMemory]) -> GradientPrefix:
    """Memories as a prefix, decoded and placed exactly as when they are read."""
    made = place(lm, rotary, memories, 0, PRIOR)
    return GradientPrefix(made.keys, made.values, made.bias, made.entries, made.position)


def answer_loss(lm: FrozenModel, notes: GradientPrefix, pack: Pack) -> tuple[Tensor, int]:
    """Summed cross-entropy of the answers, and the number of their tokens. The reader adapter must be active."""
    hidden = lm.model.base_model(
        input_ids=pack.ids,
        position_ids=pack.offsets + notes.position,
        attention_mask=pack.mask,
        past_key_values=notes,
        use_cache=True,
        notes=notes,
    ).last_hidden_state[0]
    told = pack.labels >= 0
    return cross_entropy(lm.logits(hidden[told]), pack.labels[told], reduction="sum"), int(told.sum())


@dataclass
class ReaderTask:
    """Packs of a mixture, compressed with a share drawn from `shares`, read with the adapter on.

    parameters_: the adapter's tensors. held_out: packs of validation titles, as drawn. write: saves the adapter to a folder.
    bases: with these, a share `nf4` of the examples is compressed and read by the base as NF4 makes it.
    """

    lm: FrozenModel
    rotary: Rotary
    mixture: Mixture
    held_out: Sequence[Sequence[Pack]]
    parameters_: Sequence[Tensor]
    write: Callable[[Path], None]
    shares: Mapping[float, float] = field(default_factory=lambda: {1.0: 0.45, 0.25: 0.45, 0.125: 0.1})
    bases: Bases | None = None
    nf4: float = 0.3

    def __post_init__(self) -> None:
        self._nf4_lm = replace(self.lm)  # it keeps the prompt's head as NF4 reads it

    def parameters(self) -> Sequence[Tensor]:
        """The adapter's tensors."""
        return self.parameters_

    def loss(self) -> tuple[Tensor, int, int]:
        """The next packs' loss, their answer tokens and their questions."""
        packs = draw(self.lm, self.mixture)
        keep = self.mixture.random.choices(list(self.shares), list(self.shares.values()))[0]
        nf4 = self.bases is not None and self.mixture.random.random() < self.nf4
        loss, tokens = self._loss(packs, keep, nf4=nf4)
        return loss, tokens, sum(p.questions for p in packs)

    def _loss(self, packs: Sequence[Pack], keep: float, *, nf4: bool = False) -> tuple[Tensor, int]:
        if self.bases is not None:
            self.bases.use(nf4=nf4)
        lm = self._nf4_lm if nf4 else self.lm
        contents = list(dict.fromkeys(c for pack in packs for c in pack.contents))
        memories = dict(zip(contents, KVCompressor(lm, self.rotary, keep).pack(contents), strict=True))
        losses, tokens = [], 0
        for pack in packs:
            notes = notes_of(lm, self.rotary, [memories[c] for c in pack.contents])
            with torch.autocast(lm.device.type, torch.bfloat16), lm.activate("reader"):
                loss, count = answer_loss(lm, notes, pack)
            losses.append(loss)
            tokens += count
        return torch.stack(losses).sum(), tokens

    @torch.no_grad()
    def validate(self) -> Mapping[str, float]:
        """Loss an answer token on the held-out packs: all entries kept, a quarter, and a quarter with the base in NF4."""
        figures = {}
        for keep, nf4 in [(1.0, False), (0.25, False), *([(0.25, True)] if self.bases else [])]:
            losses = [self._loss(packs, keep, nf4=nf4) for packs in self.held_out]
            name = f"held_out@{keep}{' nf4' if nf4 else ''}"
            figures[name] = float(sum(x for x, _ in losses)) / sum(n for _, n in losses)
        return figures

    def score(self, figures: Mapping[str, float]) -> float:
        """The mean of these losses."""
        return sum(figures.values()) / len(figures)

    def save(self, folder: Path) -> None:
        """Write the adapter in peft's format."""
        self.write(folder)

    def state(self) -> object:
        """The mixture's place."""
        return self.mixture.state()

    def restore(self, state: list[object]) -> None:
        """Go on from that place."""
        self.mixture.restore(state)
