"""Training the adapters that make and read memories: memories as they will be stored, and the answers' cross-entropy.

The encoder adapter is on for the tokens of the passages, the reader adapter for those of question and answer. Where only the
reader learns, memories made before stay valid; learning both reads better after as many questions.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from cmt_sdk.neural.frozen import FrozenModel
from cmt_sdk.neural.kv import KVCompressor
from cmt_sdk.neural.quantization import through
from cmt_sdk.neural.reading import PRIOR, Prefix
from cmt_sdk.neural.rotary import Rotary
from cmt_sdk.neural.scores import best
from cmt_sdk.training.bases import Bases
from cmt_sdk.training.data import Mixture
from cmt_sdk.training.packs import Pack, draw


@dataclass
class GradientPrefix(Prefix):
    """A prefix through which gradients flow: joined with the new tokens, not written in place."""

    def update(self, key: Tensor, value: Tensor, layer: int, *_: object, **__: object) -> tuple[Tensor, Tensor]:
        """The layer's notes and the new keys and values [1, kv_heads, m, d]."""
        return torch.cat([self.keys[layer], key], dim=2), torch.cat([self.values[layer], value], dim=2)


@dataclass(frozen=True)
class Entries:
    """A passage's memory with gradients: keys without positions and values [layers, kv_heads, n, d], after four bits; kept
    [layers, kv_heads, n], true for the entries that are stored.
    """

    keys: Tensor
    values: Tensor
    kept: Tensor

    @property
    def tensors(self) -> tuple[Tensor, Tensor]:
        """What gradients flow through."""
        return self.keys, self.values

    def cut_off(self) -> Entries:
        """The same with gradients of its own, which end here."""
        keys, values = (t.detach().requires_grad_(t.requires_grad) for t in self.tensors)
        return Entries(keys, values, self.kept)


def encode(lm: FrozenModel, rotary: Rotary, contents: Sequence[str], keep: float, *, rounding: bool = True) -> list[Entries]:
    """The passages' memories, by the adapter that is on; the scores that choose the kept entries have no gradient.

    rounding: whether they go through the four bits that they are stored in.
    """
    ids = [lm.passage_ids(c) for c in contents]
    keys, values, scores = KVCompressor(lm, rotary, 1.0).forward(ids)
    if keep < 1.0:
        with torch.no_grad():
            _, _, scores = KVCompressor(lm, rotary, keep).forward(ids)
    made = []
    for row, length in enumerate(map(len, ids)):
        k, v = keys[row, :, :, :length], values[row, :, :, :length]
        mean = k.detach().mean(2, keepdim=True).half().float()
        kept = torch.ones(k.shape[:3], dtype=torch.bool, device=k.device) if scores is None else best(scores[row], length, keep)
        made.append(Entries(through(k - mean) + mean, through(v), kept) if rounding else Entries(k, v, kept))
    return made


def notes_of(lm: FrozenModel, rotary: Rotary, memories: Sequence[Entries]) -> GradientPrefix:
    """Memories as a prefix, placed as `neural.reading.place` does; entries that are not kept are masked, not left out."""
    head, start = lm.head_cache(1), len(lm.head_ids)
    keys, bias = [], []
    for number, m in enumerate(memories):
        count = m.keys.shape[2]
        layers = torch.arange(len(m.keys), device=lm.device)[:, None, None]
        keys.append(rotary.turn(m.keys, torch.arange(start, start + count, device=lm.device), layers).to(lm.dtype))
        prior = 0.0 if number == len(memories) - 1 else PRIOR
        bias.append(torch.full(m.kept.shape, prior, device=lm.device).masked_fill(~m.kept, float("-inf")))
        start += count
    whole = (
        torch.cat(keys, dim=2),
        torch.cat([m.values.to(lm.dtype) for m in memories], dim=2),
        torch.cat(bias, dim=2).to(lm.dtype),
    )
    prefix = GradientPrefix([], [], [], [], start)
    for layer, entries in enumerate(head.layers):
        prefix.keys.append(torch.cat([entries.keys, whole[0][None, layer]], dim=2))
        prefix.values.append(torch.cat([entries.values, whole[1][None, layer]], dim=2))
        before = torch.zeros(*entries.keys.shape[:3], dtype=lm.dtype, device=lm.device)
        prefix.bias.append(torch.cat([before, whole[2][None, layer]], dim=2)[:, :, None])
        prefix.entries.append(prefix.keys[-1].shape[2])
    prefix.__post_init__()
    return prefix


def answer_logits(lm: FrozenModel, notes: GradientPrefix, pack: Pack) -> Tensor:
    """Logits of a pack's answer tokens [t, v], by the adapter that is on."""
    hidden = lm.states(
        notes,
        input_ids=pack.ids,
        position_ids=pack.offsets + notes.position,
        attention_mask=pack.mask,
        notes=notes,
    )[0]
    return lm.logits(hidden[pack.labels >= 0])


def answer_loss(lm: FrozenModel, notes: GradientPrefix, pack: Pack) -> tuple[Tensor, int]:
    """Summed cross-entropy of the answers, and the number of their tokens, by the adapter that is on."""
    labels = pack.labels[pack.labels >= 0]
    return cross_entropy(answer_logits(lm, notes, pack), labels, reduction="sum"), len(labels)


@dataclass
class ReaderTask:
    """Packs of a mixture, compressed with a share of entries drawn from `shares`, read with the reader adapter on.

    learned: the adapters' tensors. held_out: packs of validation titles, as drawn. write: saves the adapters to a folder.
    bases: with these, a share `nf4` of the examples is compressed and read by the base as NF4 makes it. encoder: the encoder
    adapter learns too. without: names of recipe.PIECES that are left out of what is learned from.
    """

    lm: FrozenModel
    rotary: Rotary
    mixture: Mixture
    held_out: Sequence[Sequence[Pack]]
    learned: Sequence[Tensor]
    write: Callable[[Path], None]
    shares: Mapping[float, float] = field(default_factory=lambda: {1.0: 0.45, 0.25: 0.4, 0.125: 0.15})
    bases: Bases | None = None
    nf4: float = 0.3
    encoder: bool = False
    without: Collection[str] = ()

    def __post_init__(self) -> None:
        self._nf4_lm = replace(self.lm)  # it keeps the prompt's head as NF4 reads it

    def parameters(self) -> Sequence[Tensor]:
        """The adapters' tensors."""
        return self.learned

    def learn(self) -> tuple[float, int, int]:
        """The next packs' loss, their answer tokens and their questions; gradients are added."""
        packs = draw(self.lm, self.mixture, self.without)
        keep = self.mixture.random.choices(list(self.shares), list(self.shares.values()))[0]
        keep = 1.0 if "pruning" in self.without else keep
        nf4 = self.bases is not None and self.mixture.random.random() < self.nf4
        loss, tokens = self._read(packs, keep, nf4=nf4)
        return loss, tokens, sum(p.questions for p in packs)

    def _read(self, packs: Sequence[Pack], keep: float, *, nf4: bool = False) -> tuple[float, int]:
        """The packs' summed loss and their answer tokens. Where gradients are on, each pack's are taken at once: so only one
        pack, and the passages, are held at a time.
        """
        if self.bases is not None:
            self.bases.use(nf4=nf4)
        lm = self._nf4_lm if nf4 else self.lm
        total, tokens = 0.0, 0
        with torch.autocast(lm.device.type, torch.bfloat16, enabled=lm.dtype == torch.bfloat16):
            made = self._memories(lm, list(dict.fromkeys(c for pack in packs for c in pack.contents)), keep)
            memories = {c: m.cut_off() for c, m in made.items()}
            with lm.activate("reader"):
                for pack in packs:
                    loss, count = answer_loss(lm, notes_of(lm, self.rotary, [memories[c] for c in pack.contents]), pack)
                    if torch.is_grad_enabled():
                        loss.backward()  # type: ignore[no-untyped-call]
                    total, tokens = total + float(loss.detach()), tokens + count
        if self.encoder and torch.is_grad_enabled():
            pairs = [(a, b.grad) for c, m in made.items() for a, b in zip(m.tensors, memories[c].tensors, strict=True)]
            reached = [(a, grad) for a, grad in pairs if grad is not None]
            with lm.activate("encoder"):  # layers that compute again must find what was on before
                torch.autograd.backward([a for a, _ in reached], [grad for _, grad in reached])
        return total, tokens

    def _memories(self, lm: FrozenModel, contents: Sequence[str], keep: float) -> dict[str, Entries]:
        lm.head_cache(1)  # made by the bare base
        rounding = "rounding" not in self.without or not torch.is_grad_enabled()
        with torch.set_grad_enabled(self.encoder and torch.is_grad_enabled()), lm.activate("encoder"):
            return dict(zip(contents, encode(lm, self.rotary, contents, keep, rounding=rounding), strict=True))

    @torch.no_grad()
    def validate(self) -> Mapping[str, float]:
        """Loss an answer token on the held-out packs: all entries kept, a quarter, and a quarter with the base in NF4."""
        figures = {}
        for keep, nf4 in [(1.0, False), (0.25, False), *([(0.25, True)] if self.bases else [])]:
            losses = [self._read(packs, keep, nf4=nf4) for packs in self.held_out]
            name = f"held_out@{keep}{' nf4' if nf4 else ''}"
            figures[name] = sum(x for x, _ in losses) / sum(n for _, n in losses)
        return figures

    def score(self, figures: Mapping[str, float]) -> float:
        """The mean of these losses."""
        return sum(figures.values()) / len(figures)

    def save(self, folder: Path) -> None:
        """Write the adapters in peft's format, each to a folder of its name."""
        self.write(folder)

    def state(self) -> object:
        """The mixture's place."""
        return self.mixture.state()

    def restore(self, state: list[object]) -> None:
        """Go on from that place."""
        self.mixture.restore(state)
