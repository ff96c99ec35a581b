"""Training the embeddings: the match head, and an adapter of the layers below its last state.

The loss is self-matching in its bounded form, InfoNCE over all passages of a batch. A batch is
larger than the activations that fit into memory, so one step uses gradient caching (Gao et al.
2021, arXiv 2101.06983, section 3):

1. Draw passages, some of one title together, and some that the words of a question also fit.
2. Compute the vectors of all texts without gradients, chunk by chunk.
3. Compute the loss, and its gradient with respect to each vector.
4. Compute each chunk again with gradients, and run backward from the gradients of its vectors.
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
    """Passages and questions that are learned from together.

    Attributes:
        passages: Texts, all different; hard negatives among them have no questions.
        questions: Questions about them.
        own: The index of each question's passage.
    """

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
        """One of the nearest passages other than the question's own; empty where there is none.

        Args:
            name: The file.
            question: The question.
            own: The text of its passage.
            rng: Draws one.
        """
        passages = self._files[name]
        if name not in self._indexed:
            self._indexed[name] = Neighbours([p.context for p in passages])
        found = [passages[n].context for n in self._indexed[name].of(question, NEAREST + 1)]
        others = [text for text in found if text != own]
        return [rng.choice(others)] if others else []


def draw(mixture: Mixture, size: int, negatives: Negatives | None) -> Batch:
    """About `size` passages with questions, up to two questions of each, and hard negatives.

    Args:
        mixture: The stream to draw from.
        size: Passages that are drawn with their questions, in runs of NEIGHBOURS.
        negatives: Finds passages that also fit; None to leave them out.
    """
    rng = mixture.random
    place: dict[str, int] = {}  # by text, the passage's index in the batch
    asked: dict[str, list[str]] = {}  # by text, the passage's questions
    for _ in range(max(1, size // NEIGHBOURS)):
        name = mixture.name()
        for passage in [mixture.take(name) for _ in range(NEIGHBOURS)]:
            if passage.context in asked:  # a copy would be a wrong negative
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
    """n texts that run in one pass.

    Attributes:
        numbers: The number of each text.
        tokens: Ids [n, t].
        inside: bool [n, t], True for the texts' own tokens.
    """

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
            made = torch.cat([self.vectors(c) for c in chunks])  # (texts, dimension)
        made.requires_grad_()
        passages, questions = _in_order(made, chunks, len(batch.passages))
        own = torch.tensor(batch.own, device=made.device)  # (questions,)
        loss = self_matching(questions, passages, own, TEMPERATURE)
        (gradients,) = torch.autograd.grad(loss, made)  # (texts, dimension)
        by_chunk = torch.split(gradients, [len(c.numbers) for c in chunks])
        for chunk, gradient in zip(chunks, by_chunk, strict=True):
            self.vectors(chunk).backward(gradient)  # type: ignore[no-untyped-call]
        return float(loss.detach()), len(batch.own), len(batch.own)

    def chunks(
        self, passages: Sequence[str], questions: Sequence[str], longest: int = MAX_PASSAGE_TOKENS
    ) -> list[Chunk]:
        """Texts in chunks of similar length, numbered: passages first, then questions.

        Args:
            passages: The passages.
            questions: The questions.
            longest: Tokens of a passage; later ones are left out.
        """
        # FrozenModel.ids of all texts in one call: the tokenizer then works on them in parallel.
        encoded = self.lm.tokenizer([*passages, *questions], add_special_tokens=False)["input_ids"]
        limits = [longest] * len(passages) + [MAX_QUESTION_TOKENS] * len(questions)
        ids = [i[:limit] for i, limit in zip(encoded, limits, strict=True)]
        return [
            Chunk(some, *padded_with_mask([ids[i] for i in some], self.lm.device, self.lm.end_id))
            for some in batches([len(i) for i in ids], self.tokens)
        ]

    def vectors(self, chunk: Chunk) -> Tensor:
        """Vectors [n, dimension] of a chunk's texts, with gradients where they are on.

        The head computes in fp32, outside of autocast.
        """
        lm = self.lm
        is_bf16 = lm.dtype == torch.bfloat16
        with lm.activate(NAME), torch.autocast(lm.device.type, torch.bfloat16, enabled=is_bf16):
            states = unit_states(lm, chunk.tokens, self._layers)  # (n, t, l, d)
        return self.head(chunk.tokens, states, chunk.inside)

    @torch.no_grad()
    def validate(self) -> Mapping[str, float]:
        """Recall of the held-out questions' own passages by vector, among all held-out passages.

        Passages are as long as in serving.
        """
        asked = [
            (q.text, n) for n, p in enumerate(self.held_out) for q in p.questions[:PER_HELD_OUT]
        ]
        contexts = [p.context for p in self.held_out]
        chunks = self.chunks(contexts, [text for text, _ in asked], SERVED)
        made = torch.cat([self.vectors(c) for c in chunks])  # (texts, dimension)
        passages, questions = _in_order(made, chunks, len(self.held_out))
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


def _in_order(made: Tensor, chunks: Sequence[Chunk], passages: int) -> tuple[Tensor, Tensor]:
    """Vectors in the order of the chunks as those of the passages and of the questions, in order.

    Args:
        made: [n, dimension].
        chunks: The chunks that they were computed in.
        passages: Number of passages; texts with higher numbers are questions.
    """
    numbers = torch.tensor([number for c in chunks for number in c.numbers])  # (n,)
    place = numbers.argsort().to(made.device)  # (n,) where each text's vector is
    return made[place[:passages]], made[place[passages:]]
