"""Packs: several passages and many questions about them in one sequence.

So a step encodes each passage once. Every question sees all passages of its pack and no other
question. Knows tokens; calls no model.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import pad

from cmt_sdk.neural.frozen import FrozenModel
from cmt_sdk.questions.dataset import Question, QuestionedPassage
from cmt_sdk.text.prompt_messages import REPEAT, UNKNOWN
from cmt_sdk.training.data import Mixture

# fixed lengths of a pack's question part: every new shape costs kernel set-up on a CPU
LENGTHS = (64, 128, 192, 256, 384)
MAX_ANSWER_TOKENS = 48
PER_PASSAGE = 8
PASSAGES = 5
# Numbers of distractors, drawn evenly: none for a memory that fits, else the rest of a search.
DISTRACTORS = (0, 0, 2, 3, 4)
BEST_LAST = 0.8  # the share of packs whose passage is last, as a search would place it


@dataclass(frozen=True, slots=True)
class Pack:
    """Passages with questions and answers about them, as one sequence of m tokens, on the CPU.

    A GPU would take long to get many small tensors one by one.

    Args:
        contents: The passages.
        ids: [1, m], questions and answers.
        offsets: [1, m], positions after the memories.
        mask: [1, 1, m, m], additive; it keeps questions apart.
        labels: [m], the next token of answers, -100 elsewhere.
        asked: The questions, in order; none in a pack that repeats a passage.
        about: For each question the index of its passage in `contents`, or -1.
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
        """Each question alone on a device: ids [n] of question and answer, and labels [n]."""
        ids = self.ids[0].to(device)  # (m,)
        labels = self.labels.to(device)  # (m,)
        # Offsets begin again with each question; so does each token of padding, at the end.
        starts = (self.offsets[0] == 0).nonzero().flatten().tolist()
        ends = [*starts[1:], len(self.labels)]
        rows = [(ids[a:b], labels[a:b]) for a, b in zip(starts, ends, strict=True)]
        return rows[: self.questions]


@dataclass(frozen=True, slots=True)
class Rows:
    """Packs as rows of a batch, padded to the longest.

    Attributes:
        ids: [b, m].
        offsets: [b, m].
        mask: [b, 1, m, m].
        labels: [b, m].
    """

    ids: Tensor
    offsets: Tensor
    mask: Tensor
    labels: Tensor

    @property
    def supervised(self) -> Tensor:
        """True [b, m] up to each row's last token that predicts an answer; False after it."""
        # Counted from the end: the labels at a token and after it.
        remaining = (self.labels >= 0).flip(1).cumsum(1).flip(1)  # (b, m)
        return remaining > 0

    @classmethod
    def of(cls, packs: Sequence[Pack], device: torch.device) -> Rows:
        """Pad the packs. A padding token sees no token of the pack, and is never a label.

        Args:
            packs: At least one pack.
            device: Where the rows are computed.
        """
        longest = max(p.ids.shape[1] for p in packs)
        missing = [longest - p.ids.shape[1] for p in packs]
        pairs = list(zip(packs, missing, strict=True))
        ids = torch.cat([pad(p.ids, (0, n)) for p, n in pairs])  # (b, m)
        offsets = torch.cat([pad(p.offsets, (0, n)) for p, n in pairs])  # (b, m)
        masks = [pad(p.mask, (0, n, 0, n), value=float("-inf")) for p, n in pairs]
        mask = torch.cat(masks)  # (b, 1, m, m)
        labels = torch.stack([pad(p.labels, (0, n), value=-100) for p, n in pairs])  # (b, m)
        return cls(ids.to(device), offsets.to(device), mask.to(device), labels.to(device))


def passes(packs: Sequence[Pack], batch: int) -> list[list[Pack]]:
    """Group packs into forward passes of `batch` packs, the last one of fewer."""
    return [list(packs[i : i + batch]) for i in range(0, len(packs), batch)]


def batched(drawn: Sequence[Sequence[Pack]], size: int) -> list[Sequence[Sequence[Pack]]]:
    """Group drawn examples by `size`."""
    return [drawn[i : i + size] for i in range(0, len(drawn), size)]


@dataclass(frozen=True, slots=True)
class Item:
    """A question with its answer, and the index of its passage in the pack, or -1."""

    question: str
    answer: str
    about: int = -1


def draw(lm: FrozenModel, mixture: Mixture, ablate: Collection[str] = ()) -> list[Pack]:
    """The packs of the next few passages of one file, so that a step encodes each passage once.

    A pack asks about one or two of the passages. It holds none of the others, or some as
    distractors. It may ask about a passage that it lacks; the answer is then that the notes do not
    say. The passage asked about mostly stands last, where the reader places the best match. Where
    the file names its neighbours, the pack holds exactly these, in the order of time if known.

    Args:
        lm: Its tokenizer and chat format lay the packs out.
        mixture: The stream to draw from.
        ablate: May name "distractors" and "absent".

    Returns:
        At least one pack: passages whose questions do not fit are passed over.
    """
    rng = mixture.random
    while True:
        name = mixture.name()
        passages = [mixture.take(name) for _ in range(PASSAGES)]
        if any(p.neighbours for p in passages):
            packs = [_among_its_own(lm, p, rng) for p in passages]
        else:
            packs = _among_neighbours(lm, passages, rng, ablate)
        if made := [p for p in packs if p is not None]:
            return made


def _among_neighbours(
    lm: FrozenModel,
    passages: Sequence[QuestionedPassage],
    rng: random.Random,
    ablate: Collection[str],
) -> list[Pack | None]:
    """Packs that ask about one or two of the passages, with some of the others as distractors."""
    contents = [content(p, with_title=rng.random() < 0.3) for p in passages]
    packs = []
    start = 0
    while start < PASSAGES:
        end = min(PASSAGES, start + rng.randint(1, 2))
        packs.append(_draw_pack(lm, passages, contents, range(start, end), rng, ablate))
        start = end
    return packs


def _draw_pack(
    lm: FrozenModel,
    passages: Sequence[QuestionedPassage],
    contents: Sequence[str],
    asked: range,
    rng: random.Random,
    ablate: Collection[str],
) -> Pack | None:
    """A pack about some of the passages drawn together; None where no question fits.

    Args:
        lm: Its tokenizer and chat format lay the pack out.
        passages: All of them.
        contents: Their texts.
        asked: The indexes of those asked about.
        rng: Draws the rest.
        ablate: As in `draw`.
    """
    others = [*range(asked.start), *range(asked.stop, len(passages))]
    count = 0 if "distractors" in ablate else rng.choice(DISTRACTORS)
    distractors = rng.sample(others, min(len(others), count))
    items = [Item(q.text, rng.choice(q.answers), i) for i in asked for q in _some(passages[i], rng)]
    absent = [i for i in others if i not in distractors]
    if absent and "absent" not in ablate and rng.random() < 0.5:
        few = max(1, len(items) // 6)
        unanswerable = _some(passages[rng.choice(absent)], rng)[:few]
        items += [Item(q.text, UNKNOWN) for q in unanswerable]
    rng.shuffle(items)
    shown = [*distractors, *asked]
    if rng.random() > BEST_LAST:
        rng.shuffle(shown)
    # Until here `about` counts the passages drawn together, from here those of the pack.
    placed = [replace(item, about=_place(shown, item.about)) for item in items]
    return build(lm, [contents[i] for i in shown], placed)


def _among_its_own(lm: FrozenModel, passage: QuestionedPassage, rng: random.Random) -> Pack | None:
    """A pack that asks about one passage among those that its file names, in its order if any."""
    shown = [*rng.sample(passage.neighbours, len(passage.neighbours)), passage.context]
    if passage.place is not None:
        shown = [*passage.neighbours]
        shown.insert(passage.place, passage.context)
    elif rng.random() > BEST_LAST:
        rng.shuffle(shown)
    about = shown.index(passage.context)
    items = [Item(q.text, rng.choice(q.answers), about) for q in _some(passage, rng)]
    return build(lm, shown, items)


def repetition(lm: FrozenModel, content: str) -> Pack:
    """A pack that asks for the words of one passage, as many as fit; it counts no question.

    It has hundreds of tokens to learn from where a question has five, so an encoder learns to keep
    words (the autoencoding task of ICAE, Ge et al. 2023, arXiv 2307.06945, section 2).
    """
    asked = lm.question_ids(REPEAT)
    words = lm.passage_ids(content)[: LENGTHS[-1] - len(asked)]
    return _laid_out(lm, [content], [(asked, words)], [])


def _place(shown: Sequence[int], number: int) -> int:
    """The index of a passage in a pack, -1 where it is absent."""
    return shown.index(number) if number in shown else -1


def _some(passage: QuestionedPassage, rng: random.Random) -> list[Question]:
    """At most PER_PASSAGE of a passage's questions, drawn."""
    return rng.sample(passage.questions, min(PER_PASSAGE, len(passage.questions)))


def content(passage: QuestionedPassage, *, with_title: bool) -> str:
    """A passage as the splitter makes it: under its title as a heading, or bare."""
    return (
        f"{passage.title}\n{passage.context}" if with_title and passage.title else passage.context
    )


def build(lm: FrozenModel, contents: Sequence[str], items: Sequence[Item]) -> Pack | None:
    """Pack questions with their answers, as many as fit; None where none fits.

    Args:
        lm: Its tokenizer and chat format lay the pack out.
        contents: The passages of the pack.
        items: The questions; those with long answers are left out.
    """
    end = [lm.end_id]
    rows: list[tuple[list[int], list[int]]] = []
    packed: list[Item] = []
    total = 0
    for item in items:
        asked = lm.question_ids(item.question)
        answer = lm.ids(item.answer.strip()) + end
        if len(answer) > MAX_ANSWER_TOKENS:
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
    """Questions and answers one after another, padded to the next of the fixed lengths.

    Args:
        lm: Gives padding, and the type of the mask.
        contents: The passages of the pack.
        rows: Token ids of each question and its answer.
        items: The same questions and answers as text.
    """
    ids: list[int] = []
    offsets: list[int] = []
    owner: list[int] = []  # of each token, the number of its question
    labels: list[int] = []
    for number, (asked, answer) in enumerate(rows):
        count = len(asked) + len(answer)
        ids += asked + answer
        offsets += range(count)  # each question is read as if it were the only one
        owner += [number] * count
        # A token's label is the next token: the question's last one predicts the answer's first.
        labels += [-100] * (len(asked) - 1) + answer + [-100]
    length = next(n for n in LENGTHS if n >= len(ids))
    rest = length - len(ids)
    owners = torch.tensor(owner + [-1] * rest)  # (m,)
    steps = torch.arange(length)  # (m,)
    is_before = steps[:, None] >= steps[None]  # (m, m)
    is_same_question = owners[:, None] == owners[None]
    seen = is_before & is_same_question
    mask = torch.zeros(length, length).masked_fill_(~seen, float("-inf"))  # (m, m)
    return Pack(
        contents=contents,
        ids=torch.tensor([ids + [lm.end_id] * rest]),
        offsets=torch.tensor([offsets + [0] * rest]),
        mask=mask[None, None].to(lm.dtype),
        labels=torch.tensor(labels + [-100] * rest),
        asked=[item.question for item in items],
        about=[item.about for item in items],
    )
