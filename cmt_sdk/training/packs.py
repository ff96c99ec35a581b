"""Packs: several passages and many questions about them in one sequence, so that each passage is
encoded once.

Every question sees all passages of its pack and no other question. Knows tokens; knows no model
call.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import pad

from cmt_sdk.neural.frozen import FrozenModel
from cmt_sdk.neural.methods.kvzip import REPEAT
from cmt_sdk.prompting import UNKNOWN
from cmt_sdk.questions import Question, QuestionedPassage
from cmt_sdk.training.data import Mixture

# fixed lengths of a pack's question part: every new shape costs kernel set-up on a CPU
LENGTHS = (128, 256, 384)
LONGEST_ANSWER = 48
PER_PASSAGE = 8
PASSAGES = 5
# Numbers of distractors, drawn evenly: none for a memory that fits, else the rest of a search.
DISTRACTORS = (0, 0, 2, 3, 4)
BEST_LAST = 0.8  # the share of packs whose passage is last, as a search would place it


@dataclass(frozen=True, slots=True)
class Pack:
    """Passages with questions about them. The tensors are on the CPU: moving many small tensors to
    a GPU is slow.

    Attributes:
        contents: The passages.
        ids: Questions and answers, [1, m].
        offsets: Position of each token after the memories, [1, m].
        mask: Additive, [1, 1, m, m]; a question does not see another one.
        labels: Next tokens of the answers, -100 elsewhere, [m].
        asked: The questions in their order.
        about: For each question the number of its passage in `contents`, or -1.
    """

    contents: Sequence[str]
    ids: Tensor
    offsets: Tensor
    mask: Tensor
    labels: Tensor
    asked: Sequence[str]
    about: Sequence[int]

    @property
    def questions(self) -> int:
        """The number of questions."""
        return len(self.asked)

    def rows(self, device: torch.device) -> list[tuple[Tensor, Tensor]]:
        """Each question alone, on a device: its ids [n], question and answer, and its labels
        [n].
        """
        ids, labels = self.ids[0].to(device), self.labels.to(device)
        starts = (self.offsets[0] == 0).nonzero().flatten().tolist()
        ends = [*starts[1:], len(self.labels)]
        return [(ids[a:b], labels[a:b]) for a, b in zip(starts, ends, strict=True)][
            : self.questions
        ]


@dataclass(frozen=True, slots=True)
class Rows:
    """Packs stacked, one per row, padded to the longest: ids, offsets and labels [b, m], mask [b,
    1, m, m].
    """

    ids: Tensor
    offsets: Tensor
    mask: Tensor
    labels: Tensor

    @property
    def supervised(self) -> Tensor:
        """Mask [b, m]: True for the tokens of questions and answers up to the last one that
        predicts a label, False for padding.
        """
        return (self.labels >= 0).flip(1).cumsum(1).flip(1) > 0

    @classmethod
    def of(cls, packs: Sequence[Pack], device: torch.device) -> Rows:
        """Stack packs. Padding attends to the memories only, and is never a label."""
        longest = max(p.ids.shape[1] for p in packs)
        short = [longest - p.ids.shape[1] for p in packs]
        ids = torch.cat([pad(p.ids, (0, n)) for p, n in zip(packs, short, strict=True)])
        offsets = torch.cat([pad(p.offsets, (0, n)) for p, n in zip(packs, short, strict=True)])
        mask = torch.cat(
            [
                pad(p.mask, (0, n, 0, n), value=float("-inf"))
                for p, n in zip(packs, short, strict=True)
            ]
        )
        labels = torch.stack(
            [pad(p.labels, (0, n), value=-100) for p, n in zip(packs, short, strict=True)]
        )
        return cls(ids.to(device), offsets.to(device), mask.to(device), labels.to(device))


def passes(packs: Sequence[Pack], batch: int) -> list[list[Pack]]:
    """Group packs into forward passes of `batch` packs."""
    return [list(packs[i : i + batch]) for i in range(0, len(packs), batch)]


def batched(drawn: Sequence[Sequence[Pack]], size: int) -> list[Sequence[Sequence[Pack]]]:
    """Examples as drawn, `size` at a time."""
    return [drawn[i : i + size] for i in range(0, len(drawn), size)]


@dataclass(frozen=True, slots=True)
class Item:
    """A question with its answer, and the number of its passage in the pack, or -1."""

    question: str
    answer: str
    about: int = -1


def draw(lm: FrozenModel, mixture: Mixture, without: Collection[str] = ()) -> list[Pack]:
    """The packs of the next few passages of one file, over which a step encodes each passage once.

    A pack asks about one or two of them. It holds none of the others, or some as distractors; it
    may ask about a passage that it lacks, and the answer is then that the notes do not say. In most
    packs the passage asked about is last, where the reader expects the best result of a search.
    `without` may name "distractors" and "absent".
    """
    rng = mixture.random
    while True:
        name = mixture.name()
        passages = [mixture.take(name) for _ in range(PASSAGES)]
        contents = [content(p, with_title=rng.random() < 0.3) for p in passages]
        packs, start = [], 0
        while start < PASSAGES:
            end = min(PASSAGES, start + rng.randint(1, 2))
            asked, others = range(start, end), [*range(start), *range(end, PASSAGES)]
            count = 0 if "distractors" in without else rng.choice(DISTRACTORS)
            distractors = rng.sample(others, min(len(others), count))
            items = [
                Item(q.text, rng.choice(q.answers), i)
                for i in asked
                for q in _some(passages[i], rng)
            ]
            absent = [i for i in others if i not in distractors]
            if absent and "absent" not in without and rng.random() < 0.5:
                items += [
                    Item(q.text, UNKNOWN)
                    for q in _some(passages[rng.choice(absent)], rng)[: max(1, len(items) // 6)]
                ]
            rng.shuffle(items)
            shown = [*distractors, *asked]
            if rng.random() > BEST_LAST:
                rng.shuffle(shown)
            packs.append(
                build(
                    lm,
                    [contents[i] for i in shown],
                    [replace(i, about=_place(shown, i.about)) for i in items],
                )
            )
            start = end
        if made := [p for p in packs if p is not None]:
            return made


def repetition(lm: FrozenModel, content: str) -> Pack:
    """A pack that asks for the words of one passage, as many as fit; no question counts in it.

    Hundreds of tokens to learn from where a question has five: so an encoder learns to keep words
    (ICAE, arXiv 2307.06945).
    """
    asked = lm.question_ids(REPEAT)
    words = lm.passage_ids(content)[: LENGTHS[-1] - len(asked)]
    return _laid_out(lm, [content], [(asked, words)], [])


def _place(shown: Sequence[int], number: int) -> int:
    return shown.index(number) if number in shown else -1


def _some(passage: QuestionedPassage, rng: random.Random) -> list[Question]:
    return rng.sample(passage.questions, min(PER_PASSAGE, len(passage.questions)))


def content(passage: QuestionedPassage, *, with_title: bool) -> str:
    """A passage as the splitter would give it: under its title as a heading, or bare."""
    return (
        f"{passage.title}\n{passage.context}" if with_title and passage.title else passage.context
    )


def build(lm: FrozenModel, contents: Sequence[str], items: Sequence[Item]) -> Pack | None:
    """Pack questions with their answers, as many as fit; None when none does."""
    end = [lm.end_id]
    rows: list[tuple[list[int], list[int]]] = []
    packed: list[Item] = []
    total = 0
    for item in items:
        asked = lm.question_ids(item.question)
        answer = lm.ids(item.answer.strip()) + end
        if len(answer) > LONGEST_ANSWER:
            continue
        total += len(asked) + len(answer)
        if total > LENGTHS[-1]:
            break
        rows.append((asked, answer))
        packed.append(item)
    return _laid_out(lm, contents, rows, packed) if rows else None


def _laid_out(
    lm: FrozenModel,
    contents: Sequence[str],
    rows: Sequence[tuple[list[int], list[int]]],
    items: Sequence[Item],
) -> Pack:
    """Questions and answers one after another, up to the next of the fixed lengths."""
    ids: list[int] = []
    offsets: list[int] = []
    owner: list[int] = []
    labels: list[int] = []
    for number, (asked, answer) in enumerate(rows):
        count = len(asked) + len(answer)
        ids += asked + answer
        offsets += range(count)
        owner += [number] * count
        labels += [-100] * (len(asked) - 1) + answer + [-100]
    length = next(n for n in LENGTHS if n >= len(ids))
    rest = length - len(ids)
    owners = torch.tensor(owner + [-1] * rest)
    steps = torch.arange(length)
    seen = (steps[:, None] >= steps[None]) & (owners[:, None] == owners[None])
    mask = torch.zeros(length, length).masked_fill_(~seen, float("-inf"))
    return Pack(
        contents=contents,
        ids=torch.tensor([ids + [lm.end_id] * rest]),
        offsets=torch.tensor([offsets + [0] * rest]),
        mask=mask[None, None].to(lm.dtype),
        labels=torch.tensor(labels + [-100] * rest),
        asked=[item.question for item in items],
        about=[item.about for item in items],
    )
