"""Training the adapters that make and read kv memories.

The loss is the answers' cross-entropy on memories as they will be stored, and, where entries are
left out, the divergence from the same adapters reading all of them. The encoder adapter is on for
the tokens of the passages, the reader adapter for those of question and answer. Where only the
reader learns, existing memories stay valid; learning both reads better after as many questions.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from cmt_sdk.neural.batching import batches
from cmt_sdk.neural.cache import MemoryCache
from cmt_sdk.neural.frozen import FrozenModel
from cmt_sdk.neural.methods.kv import KVMethod
from cmt_sdk.neural.methods.kvzip import top_share
from cmt_sdk.neural.quantization import KEY_GROUP, fake_quantize
from cmt_sdk.neural.rope import Rotary
from cmt_sdk.reading.limits import NON_BEST_BIAS
from cmt_sdk.training.data import Mixture
from cmt_sdk.training.losses import Objectives
from cmt_sdk.training.nf4_base import Bases
from cmt_sdk.training.packs import Pack, Rows, batched, draw, passes

AT_ONCE = 16384  # tokens of passages encoded in one pass, padding included, in every part


@dataclass(frozen=True)
class Entries:
    """A passage's memory with gradients.

    Attributes:
        keys: At position 0, after four bits, [layers, kv_heads, n, d].
        values: After four bits, the same shape.
        kept: bool [layers, kv_heads, n], True for the entries that are stored.
    """

    keys: Tensor
    values: Tensor
    kept: Tensor

    @property
    def tensors(self) -> tuple[Tensor, Tensor]:
        """The tensors through which gradients flow."""
        return self.keys, self.values

    def cut_off(self) -> Entries:
        """The same with gradients of its own, which end here."""
        keys, values = (t.detach().requires_grad_(t.requires_grad) for t in self.tensors)
        return Entries(keys, values, self.kept)

    def unpruned(self) -> Entries:
        """A copy with every entry stored."""
        return Entries(self.keys, self.values, torch.ones_like(self.kept))


def encode(
    lm: FrozenModel,
    rotary: Rotary,
    contents: Sequence[str],
    keeps: Sequence[float],
    *,
    rounding: bool = True,
) -> list[Entries]:
    """The passages' memories, by the adapter that is on.

    The scores that choose the kept entries have no gradient.

    Args:
        lm: The model.
        rotary: Its rotation.
        contents: The passages.
        keeps: Each passage's share of kept entries.
        rounding: Whether the entries go through the four bits that they are stored in.
    """
    ids = [lm.passage_ids(content) for content in contents]
    made: dict[int, Entries] = {}
    for some in batches([len(i) for i in ids], AT_ONCE):
        chosen = [ids[i] for i in some]
        shares = [keeps[i] for i in some]
        encoded = _encode(lm, rotary, chosen, shares, rounding=rounding)
        made.update(zip(some, encoded, strict=True))
    return [made[i] for i in range(len(ids))]


def _encode(
    lm: FrozenModel,
    rotary: Rotary,
    ids: Sequence[list[int]],
    keeps: Sequence[float],
    *,
    rounding: bool,
) -> list[Entries]:
    keys, values, _ = KVMethod(lm, rotary).encode(ids)  # (B, L, KV, n, d) each
    pruned = [row for row, keep in enumerate(keeps) if keep < 1.0]
    scores = _scores(lm, rotary, [ids[row] for row in pruned])
    if rounding:
        mean = _means(keys.detach(), [len(i) for i in ids])  # (B, L, KV, 1, d)
        keys = fake_quantize(keys - mean, KEY_GROUP) + mean
        values = fake_quantize(values)
    made = []
    for row, keep in enumerate(keeps):
        length = len(ids[row])
        k = keys[row, :, :, :length]
        v = values[row, :, :, :length]
        kept = torch.ones(*k.shape[:3], dtype=torch.bool, device=k.device)
        if keep < 1.0:
            kept = top_share(scores[pruned.index(row)], length, keep)
        made.append(Entries(k, v, kept))
    return made


@torch.no_grad()
def _scores(lm: FrozenModel, rotary: Rotary, ids: Sequence[list[int]]) -> Tensor:
    """Scores [b, layers, kv_heads, n] of passages, by the adapter that is on."""
    found = KVMethod(lm, rotary, 0.5).encode(ids)[2] if ids else None
    return torch.zeros(0) if found is None else found


def _means(keys: Tensor, lengths: Sequence[int]) -> Tensor:
    """Each head's mean key of the first tokens, as it is stored: [b, layers, kv_heads, 1, d].

    keys: [b, layers, kv_heads, n, d].
    """
    counts = torch.tensor(lengths, device=keys.device)[:, None, None, None, None]
    inside = torch.arange(keys.shape[3], device=keys.device)[:, None] < counts
    mean: Tensor = (keys * inside).sum(3, keepdim=True) / counts
    return mean.half().float()


def kv_cache(lm: FrozenModel, rotary: Rotary, rows: Sequence[Sequence[Entries]]) -> MemoryCache:
    """Each row's memories behind the prompt's prefix, as `neural.methods.kv` lays them out.

    Entries that are not kept, and the padding of shorter rows, are closed by a bias of -inf instead
    of being left out.
    """
    start = len(lm.prefix_ids)
    counts = [sum(m.keys.shape[2] for m in row) for row in rows]
    longest = max(counts)
    keys = torch.stack([_filled([m.keys for m in row], longest) for row in rows])
    layers = torch.arange(keys.shape[1], device=lm.device)[:, None, None]
    positions = torch.arange(start, start + longest, device=lm.device)
    keys = rotary.rotate(keys, positions, layers).to(lm.dtype)  # (B, L, KV, longest, d)
    values = torch.stack([_filled([m.values.to(lm.dtype) for m in row], longest) for row in rows])
    bias = torch.stack([_filled(_biases(row), longest, float("-inf")) for row in rows]).to(lm.dtype)
    all_keys: list[Tensor] = []
    all_values: list[Tensor] = []
    all_biases: list[Tensor] = []
    for layer, prefix in enumerate(lm.prefix_cache(len(rows)).layers):
        all_keys.append(torch.cat([prefix.keys, keys[:, layer]], dim=2))
        all_values.append(torch.cat([prefix.values, values[:, layer]], dim=2))
        before = torch.zeros(*prefix.keys.shape[:3], dtype=lm.dtype, device=lm.device)
        joined = torch.cat([before, bias[:, layer]], dim=2)  # (B, KV, prefix + longest)
        all_biases.append(joined[:, :, None])
    return MemoryCache(all_keys, all_values, all_biases, [start + n for n in counts])


def _filled(parts: Sequence[Tensor], longest: int, filler: float = 0.0) -> Tensor:
    """Parts [layers, kv_heads, n, ...] joined along n, padded to `longest`."""
    joined = torch.cat(list(parts), dim=2)
    missing = longest - joined.shape[2]
    extra = joined.new_full((*joined.shape[:2], missing, *joined.shape[3:]), filler)
    return torch.cat([joined, extra], dim=2)


def _biases(row: Sequence[Entries]) -> list[Tensor]:
    """The biases of each memory's entries [layers, kv_heads, n]."""
    biases = [NON_BEST_BIAS] * (len(row) - 1) + [0.0]
    return [
        m.keys.new_full(m.kept.shape, bias).masked_fill(~m.kept, float("-inf"))
        for m, bias in zip(row, biases, strict=True)
    ]


def answer_logits(lm: FrozenModel, cache: MemoryCache, rows: Rows) -> Tensor:
    """Logits [t, v] of the packs' answer tokens, by the adapter that is on."""
    hidden = lm.forward(cache, **cache.inputs(rows.ids, rows.offsets, rows.mask))  # (B, m, d)
    return lm.logits(hidden[rows.labels >= 0])


@dataclass
class ReaderTask:
    """Trains on packs of a mixture, whose passages are compressed to a share of their entries.

    The reader adapter reads them.

    Args:
        lm: The model with the adapters.
        rotary: Its rotary positions.
        mixture: The stream that packs are drawn from.
        held_out: Packs of validation titles, as drawn.
        learned: The adapters' tensors.
        write: Saves the adapters to a folder.
        shares: The shares of kept entries, each with its probability.
        bases: With it, the share `nf4` of the examples is compressed and read in NF4.
        nf4: That share.
        encoder: The encoder adapter learns too.
        ablate: Names of `recipe.INGREDIENTS` to leave out of training.
        objectives: The weights of the loss.
        batch: Examples computed together.
    """

    lm: FrozenModel
    rotary: Rotary
    mixture: Mixture
    held_out: Sequence[Sequence[Pack]]
    learned: Sequence[Tensor]
    write: Callable[[Path], None]
    shares: Mapping[float, float] = field(
        default_factory=lambda: {1.0: 0.3, 0.5: 0.1, 0.25: 0.4, 0.125: 0.2}
    )
    bases: Bases | None = None
    nf4: float = 0.3
    encoder: bool = False
    ablate: Collection[str] = ()
    objectives: Objectives = field(default_factory=Objectives)
    batch: int = 1

    def __post_init__(self) -> None:
        self._nf4_lm = replace(self.lm)  # it keeps the prompt's head as NF4 reads it

    def parameters(self) -> Sequence[Tensor]:
        """The adapters' tensors."""
        return self.learned

    def learn(self) -> tuple[float, int, int]:
        """The next packs' loss, answer tokens and questions; adds the gradients."""
        keeps: dict[str, float] = {}
        packs = []
        for _ in range(self.batch):
            drawn = draw(self.lm, self.mixture, self.ablate)
            keep = self._share()
            keeps = {c: keep for pack in drawn for c in pack.contents} | keeps
            packs += drawn
        nf4 = self.bases is not None and self.mixture.random.random() < self.nf4
        loss, tokens = self._read(packs, keeps, self.objectives, nf4=nf4)
        return loss, tokens, sum(p.questions for p in packs)

    def _share(self) -> float:
        keep = self.mixture.random.choices(list(self.shares), list(self.shares.values()))[0]
        return 1.0 if "pruning" in self.ablate else keep

    def _read(
        self,
        packs: Sequence[Pack],
        keeps: Mapping[str, float],
        objectives: Objectives,
        *,
        nf4: bool = False,
    ) -> tuple[float, int]:
        """The packs' summed loss and their answer tokens.

        Where gradients are on, each pass runs backward at once, so that only one pass and the
        passages are held at a time.
        """
        if self.bases is not None:
            self.bases.use(nf4=nf4)
        lm = self._nf4_lm if nf4 else self.lm
        total = 0.0
        tokens = 0
        with torch.autocast(lm.device.type, torch.bfloat16, enabled=lm.dtype == torch.bfloat16):
            made = self._memories(lm, keeps)
            memories = {c: m.cut_off() for c, m in made.items()}
            with lm.activate("reader"):
                for some in passes(packs, self.batch):
                    read = [[memories[c] for c in pack.contents] for pack in some]
                    rows = Rows.of(some, lm.device)
                    pruned = any(keeps[c] < 1.0 for pack in some for c in pack.contents)
                    loss, count = self._loss(lm, read, rows, objectives, pruned=pruned)
                    if torch.is_grad_enabled():
                        loss.backward()  # type: ignore[no-untyped-call]
                    total = total + float(loss.detach())
                    tokens = tokens + count
        if self.encoder and torch.is_grad_enabled():
            pairs = [
                (a, b.grad)
                for c, m in made.items()
                for a, b in zip(m.tensors, memories[c].tensors, strict=True)
            ]
            reached = [(a, grad) for a, grad in pairs if grad is not None]
            with lm.activate("encoder"):  # layers that compute again must find what was on before
                torch.autograd.backward([a for a, _ in reached], [grad for _, grad in reached])
        return total, tokens

    def _loss(
        self,
        lm: FrozenModel,
        read: Sequence[Sequence[Entries]],
        rows: Rows,
        objectives: Objectives,
        *,
        pruned: bool,
    ) -> tuple[Tensor, int]:
        """The summed loss of the answers, and the number of their tokens.

        The teacher reads all entries.
        """
        logits = answer_logits(lm, kv_cache(lm, self.rotary, read), rows)
        labels = rows.labels[rows.labels >= 0]
        teacher = None
        if objectives.teacher and pruned:
            unpruned = [[m.unpruned() for m in memories] for memories in read]
            with torch.no_grad():
                teacher = answer_logits(lm, kv_cache(lm, self.rotary, unpruned), rows)
        return objectives.loss(logits, labels, teacher, None), len(labels)

    def _memories(self, lm: FrozenModel, keeps: Mapping[str, float]) -> dict[str, Entries]:
        """The memories by passage, each with its share of kept entries."""
        rounding = "rounding" not in self.ablate or not torch.is_grad_enabled()
        with (
            torch.set_grad_enabled(self.encoder and torch.is_grad_enabled()),
            lm.activate("encoder"),
        ):
            made = encode(lm, self.rotary, list(keeps), list(keeps.values()), rounding=rounding)
        return dict(zip(keeps, made, strict=True))

    @torch.no_grad()
    def validate(self) -> Mapping[str, float]:
        """Loss per answer token on the held-out packs, by the share of kept entries and the base.

        The cases are all entries, a quarter, and a quarter with the base in NF4.
        """
        figures = {}
        for keep, nf4 in [(1.0, False), (0.25, False), *([(0.25, True)] if self.bases else [])]:
            losses = [
                self._judge(several, keep, nf4=nf4)
                for several in batched(self.held_out, self.batch)
            ]
            name = f"held_out@{keep}{' nf4' if nf4 else ''}"
            figures[name] = sum(x for x, _ in losses) / sum(n for _, n in losses)
        return figures

    def _judge(
        self, several: Sequence[Sequence[Pack]], keep: float, *, nf4: bool
    ) -> tuple[float, int]:
        packs = [pack for drawn in several for pack in drawn]
        return self._read(
            packs, {c: keep for pack in packs for c in pack.contents}, Objectives(), nf4=nf4
        )

    def score(self, figures: Mapping[str, float]) -> float:
        """The mean of these losses."""
        return sum(figures.values()) / len(figures)

    def save(self, folder: Path) -> None:
        """Write the adapters in peft's format, each to a folder of its name."""
        self.write(folder)

    def state(self) -> object:
        """The position of the mixture."""
        return self.mixture.state()

    def restore(self, state: list[object]) -> None:
        """Continue from that position."""
        self.mixture.restore(state)
