"""Training the encoder adapter and the matching head: questions pulled to their passages, the passages of a batch apart.

Self-matching in its bounded form, InfoNCE over the batch (van den Oord et al. 2018). A batch is made of clusters:
a passage and those that full-text search would mistake for it, so that the negatives are hard.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from cmt_sdk.neural.matching import Matcher
from cmt_sdk.questions import QuestionedPassage
from cmt_sdk.training.data import Mixture
from cmt_sdk.training.packs import content

TEMPERATURE = 0.05


class Neighbours:
    """Full-text search over training passages, in memory: whom does a question's wording also fit?"""

    def __init__(self, passages: Sequence[QuestionedPassage]) -> None:
        self._passages = passages
        self._db = sqlite3.connect(":memory:")
        self._db.execute("CREATE VIRTUAL TABLE words USING fts5(body, tokenize='porter unicode61')")
        rows = ((n, p.context) for n, p in enumerate(passages))
        self._db.executemany("INSERT INTO words(rowid, body) VALUES (?, ?)", rows)

    def of(self, question: str, count: int) -> list[QuestionedPassage]:
        """The passages that share most words with a question, best first."""
        words = " OR ".join(f'"{w}"' for w in re.findall(r"\w+", question))
        found = self._db.execute(
            "SELECT rowid FROM words WHERE words MATCH ? ORDER BY bm25(words) LIMIT ?", (words or '""', count)
        )
        return [self._passages[row] for (row,) in found]


@dataclass(frozen=True, slots=True)
class Batch:
    """Passages, questions, and for each question the number of its passage."""

    contents: list[str]
    questions: list[str]
    owner: list[int]


def draw_batch(mixture: Mixture, neighbours: dict[str, Neighbours], clusters: int, size: int, asked: int = 2) -> Batch:
    """`clusters` clusters of up to `size` passages, each passage with up to `asked` questions."""
    rng = mixture.random
    chosen: dict[str, QuestionedPassage] = {}
    for _ in range(clusters):
        name = mixture.name()
        seed = mixture.take(name)
        near = neighbours[name].of(rng.choice(seed.questions).text, size)
        for passage in [seed, *near][:size]:
            chosen.setdefault(passage.context, passage)
    batch = Batch([], [], [])
    for number, passage in enumerate(chosen.values()):
        batch.contents.append(content(passage, with_title=rng.random() < 0.3))
        for question in rng.sample(passage.questions, min(asked, len(passage.questions))):
            batch.questions.append(question.text)
            batch.owner.append(number)
    return batch


def matching_loss(matcher: Matcher, batch: Batch) -> tuple[Tensor, float]:
    """InfoNCE of questions against the batch's passages, and the share of questions whose own passage came first."""
    ids = matcher.lm.ids
    keys = matcher.forward([matcher.lm.ids(c) for c in batch.contents])
    queries = matcher.forward([ids(q) for q in batch.questions])
    owner = torch.tensor(batch.owner, device=keys.device)
    scores = queries @ keys.T / TEMPERATURE
    return cross_entropy(scores, owner), float((scores.argmax(1) == owner).float().mean())


@dataclass
class MatcherTask:
    """Clusters of a mixture; the encoder adapter and the projection are trained.

    held_out: passages of validation titles, all of them candidates for each of their questions.
    """

    matcher: Matcher
    mixture: Mixture
    neighbours: dict[str, Neighbours]
    held_out: Sequence[QuestionedPassage]
    parameters_: Sequence[Tensor]
    write: Callable[[Path], None]
    clusters: int = 6
    size: int = 5

    def parameters(self) -> Sequence[Tensor]:
        """The adapter's tensors and the projection."""
        return self.parameters_

    def loss(self) -> tuple[Tensor, int, int]:
        """The next batch's mean loss and its questions."""
        batch = draw_batch(self.mixture, self.neighbours, self.clusters, self.size)
        with torch.autocast(self.matcher.lm.device.type, torch.bfloat16):
            loss, _ = matching_loss(self.matcher, batch)
        return loss, 1, len(batch.questions)

    def validate(self) -> Mapping[str, float]:
        """Recall of the held-out questions' own passages among all held-out passages, by vector alone."""
        keys = torch.from_numpy(self.matcher.vectors([p.context for p in self.held_out]))
        asked = [(q.text, n) for n, p in enumerate(self.held_out) for q in p.questions[:2]]
        owner = torch.tensor([n for _, n in asked])
        scores = torch.from_numpy(self.matcher.vectors([text for text, _ in asked])) @ keys.T
        rank = (scores > scores.gather(1, owner[:, None])).sum(1)
        return {f"recall@{k}": float((rank < k).float().mean()) for k in (1, 5, 10)}

    def save(self, folder: Path) -> None:
        """Write the adapter in peft's format and the projection beside it."""
        self.write(folder)

    def state(self) -> object:
        """The mixture's place."""
        return self.mixture.state()

    def restore(self, state: list[object]) -> None:
        """Go on from that place."""
        self.mixture.restore(state)
