"""Training CMT as published (arXiv 2412.07393): Theta, psi and pi learn, the reader stays frozen.

The loss is the memory-aware objective and self-matching in its bounded form. In training a question
sees all passages of its pack; top-k selection belongs to asking.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize
from torch.nn.utils.rnn import pad_sequence
from transformers import DynamicCache

from cmt_sdk.neural.frozen import FrozenModel
from cmt_sdk.neural.methods.aggregation import Aggregator
from cmt_sdk.neural.methods.soft import SoftMethod
from cmt_sdk.neural.methods.soft_tokens import last_hidden_states
from cmt_sdk.neural.quantization import fake_quantize
from cmt_sdk.training.data import Mixture
from cmt_sdk.training.losses import Objectives, repulsion, self_matching
from cmt_sdk.training.packs import Pack, draw

TEMPERATURE = 0.05
REPULSION = 0.1  # lambda of the paper's term against memories that collapse


@dataclass
class CMTTask:
    """Trains on packs of a mixture, read after the prefix that psi and pi make of the memories.

    Args:
        lm: The model with the encoder adapter.
        mixture: The stream that packs are drawn from.
        held_out: Packs of validation titles.
        encoder: The adapter's tensors.
        aggregator: psi and pi, whose tensors learn too.
        write: Saves the adapter to a folder.
        write_tensors: Saves tensors to a file.
        objectives: The weights of the loss.
        ratio: Tokens per latent.
        matching: The weight of self-matching.
        ablate: Names of `recipe.INGREDIENTS` to leave out.
    """

    lm: FrozenModel
    mixture: Mixture
    held_out: Sequence[Sequence[Pack]]
    encoder: Sequence[Tensor]
    aggregator: Aggregator
    write: Callable[[Path], None]
    write_tensors: Callable[[Mapping[str, Tensor], Path], None]
    objectives: Objectives
    ratio: int = 8
    matching: float = 0.1
    ablate: Collection[str] = ()

    def __post_init__(self) -> None:
        made = {f.name: getattr(self.aggregator, f.name) for f in fields(Aggregator)}
        self.aggregator = Aggregator(
            **{n: t if n == "shape" else torch.nn.Parameter(t) for n, t in made.items()}
        )

    def parameters(self) -> Sequence[Tensor]:
        """The tensors of Theta, psi and pi."""
        learned = [
            getattr(self.aggregator, f.name) for f in fields(Aggregator) if f.name != "shape"
        ]
        return [*self.encoder, *learned]

    def learn(self) -> tuple[float, int, int]:
        """The next packs' loss, answer tokens and questions; adds the gradients."""
        packs = draw(self.lm, self.mixture, self.ablate)
        total, matched, tokens = self._losses(packs, self.objectives)
        loss = total if "matching" in self.ablate else total + self.matching * tokens * matched
        if loss.requires_grad:
            loss.backward()  # type: ignore[no-untyped-call]
        return float(loss.detach()), tokens, sum(p.questions for p in packs)

    def _losses(self, packs: Sequence[Pack], objectives: Objectives) -> tuple[Tensor, Tensor, int]:
        """The answers' summed loss, the mean of self-matching, and the number of answer tokens."""
        contents = list(dict.fromkeys(c for pack in packs for c in pack.contents))
        answers = []
        questions = []
        own = []
        tokens = 0
        with torch.autocast(
            self.lm.device.type, torch.bfloat16, enabled=self.lm.dtype == torch.bfloat16
        ):
            memories = dict(
                zip(contents, self._soft([self.lm.passage_ids(c) for c in contents]), strict=True)
            )
            for pack in packs:
                asked = self._soft([self.lm.ids(q) for q in pack.asked])
                bank = torch.cat([memories[c] for c in pack.contents])
                logits = self._read(pack, [self.aggregator.gather(q, bank) for q in asked])
                without = self._bare(pack) if objectives.alpha else None
                labels = torch.cat([row[row >= 0] for _, row in pack.rows(self.lm.device)])
                answers.append(objectives.loss(logits, labels, None, without))
                tokens += len(labels)
                known = [
                    (q, contents.index(pack.contents[n]))
                    for q, n in zip(asked, pack.about, strict=True)
                    if n >= 0
                ]
                questions += [q for q, _ in known]
                own += [n for _, n in known]
        return (
            torch.stack(answers).sum(),
            self._matched(questions, own, [memories[c] for c in contents]),
            tokens,
        )

    def _soft(self, ids: Sequence[list[int]]) -> list[Tensor]:
        """Theta: soft tokens [windows, d] of each text; they pass through four bits."""
        rounded = (
            fake_quantize
            if "rounding" not in self.ablate or not torch.is_grad_enabled()
            else Tensor.float
        )
        with self.lm.activate("encoder"):
            made = SoftMethod(self.lm, self.ratio).encode(ids)
            return last_hidden_states(self.lm, [replace(m, rows=rounded(m.rows)) for m in made])

    def _read(self, pack: Pack, gathered: Sequence[Tensor]) -> Tensor:
        """Logits [t, v] of the answer tokens; each question is a row, after its prefix."""
        rows = pack.rows(self.lm.device)
        cache = self.lm.prefix_cache(pack.questions)
        sizes = [len(g) for g in gathered]
        if gathered:
            keys, values = self.aggregator.spread(
                pad_sequence(list(gathered), batch_first=True).flatten(0, 1)
            )
            _extend(cache, keys, values, pack.questions, self.lm.dtype)
        head = len(self.lm.prefix_ids)
        most = max(sizes, default=0)
        ids = pad_sequence([row for row, _ in rows], batch_first=True, padding_value=self.lm.end_id)
        starts = torch.tensor([head + n for n in sizes or [0] * len(rows)], device=ids.device)
        states = self.lm.forward(
            cache,
            input_ids=ids,
            position_ids=starts[:, None] + torch.arange(ids.shape[1], device=ids.device),
            attention_mask=_mask(
                head, sizes or [0] * len(rows), most, ids.shape[1], self.lm.dtype
            ).to(ids.device),
        )
        return self.lm.logits(
            torch.cat([states[n, : len(row)][row >= 0] for n, (_, row) in enumerate(rows)])
        )

    @torch.no_grad()
    def _bare(self, pack: Pack) -> Tensor:
        """The same logits without memory."""
        return self._read(pack, [])

    def _matched(
        self, questions: Sequence[Tensor], own: Sequence[int], memories: Sequence[Tensor]
    ) -> Tensor:
        """Self-matching of a question's mean with its passage's mean, and passages' repulsion."""
        keys = normalize(torch.stack([m.float().mean(0) for m in memories]), dim=1)
        if not questions:
            return keys.sum() * 0.0
        asked = normalize(torch.stack([q.float().mean(0) for q in questions]), dim=1)
        pulled = self_matching(
            asked, keys, torch.tensor(own, device=keys.device), TEMPERATURE
        ) / len(own)
        return pulled + REPULSION * repulsion(keys) if len(keys) > 1 else pulled

    @torch.no_grad()
    def validate(self) -> Mapping[str, float]:
        """Loss per answer token on the held-out packs, with memories and without."""
        with_memories = [self._losses(packs, Objectives()) for packs in self.held_out]
        tokens = sum(n for _, _, n in with_memories)
        bare = 0.0
        with torch.autocast(
            self.lm.device.type, torch.bfloat16, enabled=self.lm.dtype == torch.bfloat16
        ):
            for pack in (p for packs in self.held_out for p in packs):
                labels = torch.cat([row[row >= 0] for _, row in pack.rows(self.lm.device)])
                bare += float(Objectives().loss(self._bare(pack), labels, None, None))
        return {
            "held_out": float(sum(x for x, _, _ in with_memories)) / tokens,
            "held_out bare": bare / tokens,
        }

    def score(self, figures: Mapping[str, float]) -> float:
        """The loss with memories."""
        return figures["held_out"]

    def save(self, folder: Path) -> None:
        """Write the encoder in peft's format, and psi and pi."""
        self.write(folder)
        self.write_tensors(self.aggregator.tensors(), folder / "aggregate.safetensors")

    def state(self) -> object:
        """The position of the mixture."""
        return self.mixture.state()

    def restore(self, state: list[Any]) -> None:
        """Continue from that position."""
        self.mixture.restore(state)


def _extend(
    cache: DynamicCache, keys: Tensor, values: Tensor, rows: int, dtype: torch.dtype
) -> None:
    """Append prefixes [layers, kv_heads, rows * q, w] to the cached prompt prefix, one per row."""
    for layer, (key, value) in enumerate(zip(keys, values, strict=True)):
        made = [
            t.reshape(t.shape[0], rows, -1, t.shape[2]).transpose(0, 1).to(dtype)
            for t in (key, value)
        ]
        cache.update(made[0], made[1], layer)


def _mask(head: int, sizes: Sequence[int], most: int, length: int, dtype: torch.dtype) -> Tensor:
    """An additive mask [rows, 1, length, head + most + length].

    Each token sees the prompt's prefix, its row's own memories, and causally its row's tokens.
    """
    closed = torch.arange(most)[None] >= torch.tensor(sizes)[:, None]
    prefix = torch.zeros(len(sizes), most).masked_fill(closed, float("-inf"))
    causal = torch.full((length, length), float("-inf")).triu(1)
    parts = [
        torch.zeros(len(sizes), length, head),
        prefix[:, None].expand(-1, length, -1),
        causal.expand(len(sizes), -1, -1),
    ]
    return torch.cat(parts, dim=2)[:, None].to(dtype)
