"""Training CMT as published (arXiv 2412.07393): Theta, psi and pi learn, the reader stays frozen.

The loss is the memory-aware objective and self-matching in its bounded form. In training a question
sees all passages of its pack; top-k selection belongs to asking. One step:

1. Theta, the encoder adapter, makes soft tokens of all passages of the packs drawn, and of their
   questions.
2. psi gathers, for each question, what it needs of its pack's passages.
3. pi makes that a prefix of keys and values, behind which the bare model reads the question and
   its answer. Each question is a row of its own.
4. The answers' loss counts what the memory adds; self-matching pulls a question to its passage.

In comments: t answer tokens, v the vocabulary, q soft tokens of a question, w values per head.
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
from cmt_sdk.training.answers import answer_loss
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
        tensors = {f.name: getattr(self.aggregator, f.name) for f in fields(Aggregator)}
        self.aggregator = Aggregator(
            **{n: t if n == "shape" else torch.nn.Parameter(t) for n, t in tensors.items()}
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
        # The loop divides by the number of answer tokens: a mean must be multiplied by it.
        loss = total if "matching" in self.ablate else total + self.matching * tokens * matched
        if loss.requires_grad:
            loss.backward()  # type: ignore[no-untyped-call]
        return float(loss.detach()), tokens, sum(p.questions for p in packs)

    def _losses(self, packs: Sequence[Pack], objectives: Objectives) -> tuple[Tensor, Tensor, int]:
        """The answers' summed loss, the mean of self-matching, and the number of answer tokens."""
        contents = list(dict.fromkeys(c for pack in packs for c in pack.contents))
        answers = []
        questions = []  # the soft tokens of each question about a passage of its pack
        own = []  # the index of that passage in `contents`
        tokens = 0
        is_bf16 = self.lm.dtype == torch.bfloat16
        with torch.autocast(self.lm.device.type, torch.bfloat16, enabled=is_bf16):
            made = self._soft([self.lm.passage_ids(c) for c in contents])  # (m_i, d) each
            memories = dict(zip(contents, made, strict=True))
            for pack in packs:
                asked = self._soft([self.lm.ids(q) for q in pack.asked])  # (q_i, d) each
                bank = torch.cat([memories[c] for c in pack.contents])  # (m, d)
                gathered = [self.aggregator.gather(q, bank) for q in asked]  # (q_i, d) each
                states = self._read(pack, gathered)  # (t, d)
                without = self._bare(pack) if objectives.alpha else None
                labels = _labels(pack, self.lm.device)  # (t,)
                answers.append(answer_loss(self.lm, objectives, states, labels, without=without))
                tokens += len(labels)
                for question, number in zip(asked, pack.about, strict=True):
                    if number >= 0:  # of an absent passage there is no memory to match
                        questions.append(question)
                        own.append(contents.index(pack.contents[number]))
        matched = self._matched(questions, own, [memories[c] for c in contents])
        return torch.stack(answers).sum(), matched, tokens

    def _soft(self, ids: Sequence[list[int]]) -> list[Tensor]:
        """Theta: last states [windows, d] of each text's soft tokens, which pass four bits."""
        is_rounded = "rounding" not in self.ablate or not torch.is_grad_enabled()
        rounded = fake_quantize if is_rounded else Tensor.float
        with self.lm.activate("encoder"):
            made = SoftMethod(self.lm, self.ratio).encode(ids)
            return last_hidden_states(self.lm, [replace(m, rows=rounded(m.rows)) for m in made])

    def _read(self, pack: Pack, gathered: Sequence[Tensor]) -> Tensor:
        """Read a pack's questions and answers, each as a row of its own.

        Args:
            pack: The pack.
            gathered: M* of each question, [q_i, d]; empty to read without memories.

        Returns:
            States [t, d] of the answer tokens.
        """
        lm = self.lm
        rows = pack.rows(lm.device)
        cache = lm.prefix_cache(pack.questions)
        sizes = [len(g) for g in gathered] or [0] * len(rows)  # entries of each row's memories
        if gathered:
            padded = pad_sequence(list(gathered), batch_first=True)  # (rows, q, d)
            keys, values = self.aggregator.spread(padded.flatten(0, 1))  # (L, KV, rows * q, w) each
            _extend(cache, keys, values, pack.questions, lm.dtype)
        row_ids = [ids for ids, _ in rows]
        ids = pad_sequence(row_ids, batch_first=True, padding_value=lm.end_id)  # (rows, m)
        prefix_length = len(lm.prefix_ids)
        starts = torch.tensor([prefix_length + n for n in sizes], device=ids.device)  # (rows,)
        steps = torch.arange(ids.shape[1], device=ids.device)  # (m,)
        mask = _mask(prefix_length, sizes, ids.shape[1], lm.dtype)
        states = lm.forward(
            cache,
            input_ids=ids,
            position_ids=starts[:, None] + steps,  # (rows, m)
            attention_mask=mask.to(ids.device),
        )
        predicting = [states[n, : len(row)][row >= 0] for n, (_, row) in enumerate(rows)]
        return torch.cat(predicting)

    @torch.no_grad()
    def _bare(self, pack: Pack) -> Tensor:
        """The same states without memory."""
        return self._read(pack, [])

    def _matched(
        self, questions: Sequence[Tensor], own: Sequence[int], memories: Sequence[Tensor]
    ) -> Tensor:
        """Self-matching of a question's mean with its passage's mean, and passages' repulsion.

        Args:
            questions: Last states of each question's soft tokens, [q_i, d].
            own: The index of each one's passage.
            memories: Those of each passage, [m_i, d].

        Returns:
            A scalar: the mean over the questions.
        """
        passage_means = torch.stack([m.float().mean(0) for m in memories])  # (passages, d)
        passages = normalize(passage_means, dim=1)
        if not questions:
            return passages.sum() * 0.0  # 0 with a gradient, as in other steps
        question_means = torch.stack([q.float().mean(0) for q in questions])  # (questions, d)
        asked = normalize(question_means, dim=1)
        own_index = torch.tensor(own, device=passages.device)
        pulled = self_matching(asked, passages, own_index, TEMPERATURE) / len(own)
        return pulled + REPULSION * repulsion(passages) if len(passages) > 1 else pulled

    @torch.no_grad()
    def validate(self) -> Mapping[str, float]:
        """Loss per answer token on the held-out packs, in nats, with memories and without."""
        with_memories = [self._losses(packs, Objectives()) for packs in self.held_out]
        tokens = sum(n for _, _, n in with_memories)
        bare = 0.0
        is_bf16 = self.lm.dtype == torch.bfloat16
        with torch.autocast(self.lm.device.type, torch.bfloat16, enabled=is_bf16):
            for pack in (p for packs in self.held_out for p in packs):
                labels = _labels(pack, self.lm.device)
                bare += float(answer_loss(self.lm, Objectives(), self._bare(pack), labels))
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


def _labels(pack: Pack, device: torch.device) -> Tensor:
    """The answer tokens [t] of a pack's questions, one question after another."""
    return torch.cat([labels[labels >= 0] for _, labels in pack.rows(device)])


def _extend(
    cache: DynamicCache, keys: Tensor, values: Tensor, rows: int, dtype: torch.dtype
) -> None:
    """Append each row's entries to those of the prompt's prefix.

    Args:
        cache: Has the prefix's entries, for each row.
        keys: [layers, kv_heads, rows * q, w], row after row.
        values: The same shape.
        rows: Their number.
        dtype: The type that the model computes in.
    """

    def by_row(entries: Tensor) -> Tensor:
        """Entries [kv_heads, rows * q, w] as [rows, kv_heads, q, w]."""
        split = entries.reshape(entries.shape[0], rows, -1, entries.shape[2])
        return split.transpose(0, 1).to(dtype)

    for layer, (key, value) in enumerate(zip(keys, values, strict=True)):
        cache.update(by_row(key), by_row(value), layer)


def _mask(prefix_length: int, sizes: Sequence[int], length: int, dtype: torch.dtype) -> Tensor:
    """An additive mask: each token sees the prompt's prefix, its row's own memories, and causally
    its row's tokens.

    Args:
        prefix_length: Tokens of the prompt's prefix.
        sizes: Entries of each row's memories; shorter rows are padded.
        length: Tokens of a row, padding included.
        dtype: The type of the mask.

    Returns:
        [rows, 1, length, prefix_length + max(sizes) + length].
    """
    most = max(sizes)
    is_padding = torch.arange(most)[None] >= torch.tensor(sizes)[:, None]  # (rows, most)
    memories = torch.zeros(len(sizes), most).masked_fill(is_padding, float("-inf"))
    causal = torch.full((length, length), float("-inf")).triu(1)  # (length, length)
    parts = [
        torch.zeros(len(sizes), length, prefix_length),
        memories[:, None].expand(-1, length, -1),  # (rows, length, most)
        causal.expand(len(sizes), -1, -1),  # (rows, length, length)
    ]
    return torch.cat(parts, dim=2)[:, None].to(dtype)
