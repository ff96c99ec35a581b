"""Training the embeddings: the match head, and an adapter of the layers below its last state.

The loss is self-matching in its bounded form, InfoNCE over all passages of a batch. A batch is
larger than the activations that fit into memory, so gradient caching (Gao et al. 2021, arXiv
2101.06983) computes all vectors without gradients, then each chunk again with the gradients of its
vectors. The draw takes passages of one title together, and adds some that the words of a question
also fit.
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
from cmt_sdk.neural.embedding import MatchHead, unit_states
from cmt_sdk.neural.frozen import FrozenModel
from cmt_sdk.questions.dataset import QuestionedPassage
from cmt_sdk.reading.limits import MAX_EMBEDDED_TOKENS as SERVED
from cmt_sdk.training.data import NEIGHBOURS, Mixture
from cmt_sdk.training.losses import self_matching
from cmt_sdk.training.matcher import LEARNED, Neighbours, learnable, missed, recalls, stored

NAME = "matcher"  # the adapter's name
TEMPERATURE = 0.03
MAX_PASSAGE_TOKENS = 256  # of a passage in training
MAX_QUESTION_TOKENS = 64  # of a question in training
PER_PASSAGE = 2  # questions of a passage in training
PER_HELD_OUT = 4  # questions of a held-out passage
SEARCHED = 1 / 3  # the share of questions for which a passage is searched that their words also fit
NEAREST = 5


@dataclass(frozen=True, slots=True)
class Batch:
    """Passages, all different, their questions, and the index of each question's passage."""

    passages: Sequence[str]
    questions: Sequence[str]
    own: Sequence[int]


class Negatives:
    """Passages of the same file that the words of a question also fit.

    Each file is indexed on first use.
    """

    def __init__(self, files: Mapping[str, Sequence[QuestionedPassage]]) -> None:
        self._files = files
        self._indexed: dict[str, Neighbours] = {}

    def near(self, name: str, question: str, own: str, rng: Random) -> list[str]:
        """One of the nearest passages other than the question's own; empty where there is none."""
        passages = self._files[name]
        if name not in self._indexed:
            self._indexed[name] = Neighbours([p.context for p in passages])
        found = [passages[n].context for n in self._indexed[name].of(question, NEAREST + 1)]
        others = [text for text in found if text != own]
        return [rng.choice(others)] if others else []


def draw(mixture: Mixture, size: int, negatives: Negatives | None) -> Batch:
    """About `size` passages with questions, up to two questions of each, and hard negatives."""
    rng = mixture.random
    place: dict[str, int] = {}
    asked: dict[str, list[str]] = {}
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
    """Texts that run in one pass: indexes, tokens [n, t], and a mask [n, t] of real tokens."""

    numbers: Sequence[int]
    tokens: Tensor
    inside: Tensor


@dataclass
class EmbeddingTask:
    """Pulls each question to its own passage, against all passages of a batch.

    Args:
        lm: The model with the adapter "matcher".
        head: The match head whose tensors training starts from.
        adapter: The adapter's tensors.
        mixture: The stream that batches are drawn from.
        files: The passages of the mixture's files, each with questions.
        held_out: Passages to validate on, all of them candidates for each other.
        write: Saves the adapter to a folder.
        write_tensors: Saves tensors to a file.
        size: Passages per batch.
        tokens: The most tokens whose activations are held for gradients.
        ablate: Names of `recipe.INGREDIENTS` to leave out.
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
    ablate: Collection[str] = ()

    def __post_init__(self) -> None:
        self.head = learnable(self.head)
        self._layers = self.head.layers.tolist()
        self._negatives = None if "negatives" in self.ablate else Negatives(self.files)

    def parameters(self) -> Sequence[Tensor]:
        """The adapter's tensors, and the head's."""
        return [*self.adapter, *(getattr(self.head, n) for n in LEARNED)]

    def learn(self) -> tuple[float, int, int]:
        """Add the gradients of the next batch.

        Returns:
            InfoNCE summed over the questions, and twice the number of these.
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
        self, passages: Sequence[str], questions: Sequence[str], longest: int = MAX_PASSAGE_TOKENS
    ) -> list[Chunk]:
        """Passages of up to `longest` tokens, then questions, in chunks of similar length.

        They are numbered in this order: passages first.
        """
        # FrozenModel.ids of all texts in one call
        encoded = self.lm.tokenizer([*passages, *questions], add_special_tokens=False)["input_ids"]
        limits = [longest] * len(passages) + [MAX_QUESTION_TOKENS] * len(questions)
        ids = [i[:limit] for i, limit in zip(encoded, limits, strict=True)]
        return [
            Chunk(some, *padded_with_mask([ids[i] for i in some], self.lm.device, self.lm.end_id))
            for some in batches([len(i) for i in ids], self.tokens)
        ]

    def vectors(self, chunk: Chunk) -> Tensor:
        """Vectors [n, dimension] of a chunk's texts, with gradients where they are on.

        The head computes in fp32.
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
        """Recall of the held-out questions' own passages by vector, among all held-out passages.

        Passages are as long as in serving.
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
        """The figure that `missed` computes; lower is better."""
        return missed(figures)

    def save(self, folder: Path) -> None:
        """Write the adapter in peft's format, and the head as one safetensors file."""
        self.write(folder)
        self.write_tensors(stored(self.head), folder / "match.safetensors")

    def state(self) -> object:
        """The position of the mixture."""
        return self.mixture.state()

    def restore(self, state: list[Any]) -> None:
        """Continue from that position."""
        self.mixture.restore(state)


def _parted(made: Tensor, chunks: Sequence[Chunk], passages: int) -> tuple[Tensor, Tensor]:
    """Split vectors in the order of the chunks into passages and questions, each in order."""
    place = torch.tensor([number for c in chunks for number in c.numbers]).argsort().to(made.device)
    return made[place[:passages]], made[place[passages:]]
