"""Training what makes embeddings: an adapter of the layers below the last pooled state learns
together with the matching head.

Self-matching in its bounded form, InfoNCE over all passages of a batch. A batch is larger than what
can be held for its gradients: gradient caching (Gao et al. 2021, arXiv 2101.06983) makes all
vectors without them, then each chunk again, with the gradients that its vectors are known to have.
Passages of one title are drawn together, and some that a question's words also fit.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import torch
from torch import Tensor

from cmt_sdk.neural.batching import batches, padded_with_mask
from cmt_sdk.neural.embedding import MAX_TOKENS as SERVED
from cmt_sdk.neural.embedding import MatchHead, unit_states
from cmt_sdk.neural.frozen import FrozenModel
from cmt_sdk.questions import QuestionedPassage
from cmt_sdk.training.data import NEIGHBOURS, Mixture
from cmt_sdk.training.losses import self_matching
from cmt_sdk.training.matcher import LEARNED, Neighbours, learnable, missed, recalls, stored

NAME = "matcher"  # of the adapter
TEMPERATURE = 0.03
LONGEST, LONGEST_QUESTION = 256, 64  # tokens that are trained on
PER_PASSAGE, PER_HELD_OUT = 2, 4  # questions
SEARCHED = 1 / 3  # the share of questions for which a passage is searched that their words also fit
NEAREST = 5


@dataclass(frozen=True, slots=True)
class Batch:
    """Passages, all of them different, questions, and the number of each one's passage."""

    passages: Sequence[str]
    questions: Sequence[str]
    own: Sequence[int]


class Negatives:
    """Passages of the same file that the words of a question also fit; a file is indexed when it is
    first drawn.
    """

    def __init__(self, files: Mapping[str, Sequence[QuestionedPassage]]) -> None:
        self._files = files
        self._indexed: dict[str, Neighbours] = {}

    def near(self, name: str, question: str, own: str, rng: Random) -> list[str]:
        """One of the nearest that is not the question's own passage, where there is any."""
        passages = self._files[name]
        if name not in self._indexed:
            self._indexed[name] = Neighbours([p.context for p in passages])
        found = [passages[n].context for n in self._indexed[name].of(question, NEAREST + 1)]
        others = [text for text in found if text != own]
        return [rng.choice(others)] if others else []


def draw(mixture: Mixture, size: int, negatives: Negatives | None) -> Batch:
    """About `size` passages that have questions, up to two questions of each, and the passages that
    some could be taken for.
    """
    rng, place, asked = mixture.random, dict[str, int](), dict[str, list[str]]()
    for _ in range(max(1, size // NEIGHBOURS)):
        name = mixture.name()
        for passage in [mixture.take(name) for _ in range(NEIGHBOURS)]:
            if passage.context in asked:
                continue
            place.setdefault(passage.context, len(place))
            some = rng.sample(passage.questions, min(PER_PASSAGE, len(passage.questions)))
            asked[passage.context] = [q.text for q in some]
            for question in some:
                if negatives and rng.random() < SEARCHED:
                    for near in negatives.near(name, question.text, passage.context, rng):
                        place.setdefault(near, len(place))
    pairs = [
        (question, place[context]) for context, questions in asked.items() for question in questions
    ]
    return Batch(list(place), [question for question, _ in pairs], [own for _, own in pairs])


@dataclass(frozen=True, slots=True)
class Chunk:
    """Texts that run at once: their numbers, tokens [n, t], and which of these are theirs, bool [n,
    t].
    """

    numbers: Sequence[int]
    tokens: Tensor
    inside: Tensor


@dataclass
class EmbeddingTask:
    """Questions near their own passages, over all the passages of a batch.

    lm: with the adapter "matcher", whose tensors are `adapter`. head: where its tensors start.
    files: what `mixture` draws from, passages with questions only. held_out: all candidates for
    each other. write: saves the adapter to a folder; write_tensors: tensors to a file. size:
    passages a batch. tokens: the most that are held for gradients. without: names of recipe.PIECES.
    """

    lm: FrozenModel
    head: MatchHead
    adapter: Sequence[Tensor]
    mixture: Mixture
    files: Mapping[str, Sequence[QuestionedPassage]]
    held_out: Sequence[QuestionedPassage]
    write: Callable[[Path], None]
    write_tensors: Callable[[Mapping[str, Tensor], Path], None]
    size: int = 160
    tokens: int = 16384
    without: Collection[str] = ()

    def __post_init__(self) -> None:
        self.head = learnable(self.head)
        self._layers = self.head.layers.tolist()
        self._negatives = None if "negatives" in self.without else Negatives(self.files)

    def parameters(self) -> Sequence[Tensor]:
        """The adapter's tensors, and the head's."""
        return [*self.adapter, *(getattr(self.head, n) for n in LEARNED)]

    def learn(self) -> tuple[float, int, int]:
        """InfoNCE of the next batch, summed over its questions, and how many these are; gradients
        are added.
        """
        batch = draw(self.mixture, self.size, self._negatives)
        chunks = self.chunks(batch.passages, batch.questions)
        with torch.no_grad():
            made = torch.cat([self.vectors(c) for c in chunks])
        made.requires_grad_()
        passages, questions = _parted(made, chunks, len(batch.passages))
        loss = self_matching(
            questions, passages, torch.tensor(batch.own, device=made.device), TEMPERATURE
        )
        (gradients,) = torch.autograd.grad(loss, made)
        for chunk, gradient in zip(
            chunks, torch.split(gradients, [len(c.numbers) for c in chunks]), strict=True
        ):
            self.vectors(chunk).backward(gradient)  # type: ignore[no-untyped-call]
        return float(loss.detach()), len(batch.own), len(batch.own)

    def chunks(
        self, passages: Sequence[str], questions: Sequence[str], longest: int = LONGEST
    ) -> list[Chunk]:
        """Passages of up to `longest` tokens, and then questions, numbered in this order, in chunks
        of similar length.
        """
        # FrozenModel.ids of all texts in one call
        encoded = self.lm.tokenizer([*passages, *questions], add_special_tokens=False)["input_ids"]
        limits = [longest] * len(passages) + [LONGEST_QUESTION] * len(questions)
        ids = [i[:limit] for i, limit in zip(encoded, limits, strict=True)]
        return [
            Chunk(some, *padded_with_mask([ids[i] for i in some], self.lm.device, self.lm.end_id))
            for some in batches([len(i) for i in ids], self.tokens)
        ]

    def vectors(self, chunk: Chunk) -> Tensor:
        """Vectors [n, dimension] of a chunk's texts, with gradients where they are on; the head
        computes in fp32.
        """
        lm = self.lm
        with (
            lm.activate(NAME),
            torch.autocast(lm.device.type, torch.bfloat16, enabled=lm.dtype == torch.bfloat16),
        ):
            states = unit_states(lm, chunk.tokens, self._layers)
        return self.head(chunk.tokens, states, chunk.inside)

    @torch.no_grad()
    def validate(self) -> Mapping[str, float]:
        """Recall of the held-out questions' own passages, as long as in serving, among all of
        these, by vector alone.
        """
        asked = [
            (q.text, n) for n, p in enumerate(self.held_out) for q in p.questions[:PER_HELD_OUT]
        ]
        chunks = self.chunks(
            [p.context for p in self.held_out], [text for text, _ in asked], SERVED
        )
        passages, questions = _parted(
            torch.cat([self.vectors(c) for c in chunks]), chunks, len(self.held_out)
        )
        return recalls(questions, passages, [own for _, own in asked])

    def score(self, figures: Mapping[str, float]) -> float:
        """As `missed` counts."""
        return missed(figures)

    def save(self, folder: Path) -> None:
        """Write the adapter in peft's format, and the head as one safetensors file."""
        self.write(folder)
        self.write_tensors(stored(self.head), folder / "match.safetensors")

    def state(self) -> object:
        """The mixture's place."""
        return self.mixture.state()

    def restore(self, state: list[Any]) -> None:
        """Go on from that place."""
        self.mixture.restore(state)


def _parted(made: Tensor, chunks: Sequence[Chunk], passages: int) -> tuple[Tensor, Tensor]:
    """Vectors in the order of the chunks as those of the passages and those of the questions, each
    in their own order.
    """
    place = torch.tensor([number for c in chunks for number in c.numbers]).argsort().to(made.device)
    return made[place[:passages]], made[place[passages:]]
