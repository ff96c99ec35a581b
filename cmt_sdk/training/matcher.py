"""Training the match head: questions pulled to their passages, the passages of a batch apart.

Self-matching in its bounded form, InfoNCE over the batch (van den Oord et al. 2018). The model is
frozen and bare, so its states are computed once and kept. Batches can then be large, and the
negatives hard: a batch has passages that full-text search would mistake for a question's own.
"""

from __future__ import annotations

import re
import sqlite3
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from random import Random
from typing import Any

import torch
from torch import Tensor

from cmt_sdk.neural.batching import batches, padded
from cmt_sdk.neural.embedding import MatchHead, unit_states
from cmt_sdk.neural.frozen import FrozenModel
from cmt_sdk.questions.dataset import QuestionedPassage
from cmt_sdk.training.losses import self_matching

TEMPERATURE = 0.05
DIMENSION = 256  # of a vector
LEARNED = tuple(f.name for f in fields(MatchHead) if f.name != "layers")
MAX_PASSAGE_TOKENS = 320  # of a passage in training
COMMON = 0.05  # the share of passages beyond which a word is common


class Neighbours:
    """In-memory full-text search for the other passages that fit a question's words.

    A question that has rarer words is searched without the words of very many passages: these take
    most of the time, and discriminate little.
    """

    def __init__(self, contexts: Sequence[str]) -> None:
        counts = Counter(word for context in contexts for word in set(_words(context)))
        self._common = {
            word for word, count in counts.items() if count > max(100, COMMON * len(contexts))
        }
        self._db = sqlite3.connect(":memory:")
        self._db.execute("CREATE VIRTUAL TABLE words USING fts5(body, tokenize='porter unicode61')")
        self._db.executemany("INSERT INTO words(rowid, body) VALUES (?, ?)", enumerate(contexts))

    def of(self, question: str, count: int) -> list[int]:
        """Indexes of the passages that share most words with a question, best first."""
        words = _words(question)
        asked = " OR ".join(f'"{w}"' for w in [w for w in words if w not in self._common] or words)
        found = self._db.execute(
            "SELECT rowid FROM words WHERE words MATCH ? ORDER BY bm25(words) LIMIT ?",
            (asked or '""', count),
        )
        return [row for (row,) in found]


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


@dataclass(frozen=True)
class States:
    """The frozen model's states of many texts, end to end.

    ids: tokens [t]. states: half [t, layers, d]. starts: the index of each text's first token.
    """

    ids: Tensor
    states: Tensor
    starts: Sequence[int]

    @classmethod
    def of(cls, lm: FrozenModel, texts: Sequence[str], layers: Sequence[int]) -> States:
        """Compute them, batched by length."""
        ids = [lm.ids(t)[:MAX_PASSAGE_TOKENS] for t in texts]
        found: dict[int, Tensor] = {}
        for batch in batches([len(i) for i in ids]):
            tokens = padded([ids[i] for i in batch], lm.device, lm.end_id)
            with torch.inference_mode():
                states = unit_states(lm, tokens, layers)
            states = states.half().cpu()
            found.update({i: states[row, : len(ids[i])].clone() for row, i in enumerate(batch)})
        starts = [0]
        for i in ids:
            starts.append(starts[-1] + len(i))
        return cls(
            torch.tensor([x for i in ids for x in i]),
            torch.cat([found[i] for i in range(len(ids))]),
            starts,
        )

    def vectors(self, head: MatchHead, numbers: Sequence[int]) -> Tensor:
        """The head's vectors [n, dimension] of some texts, with gradients where they are on."""
        device = head.bias.device
        longest = max(self.starts[n + 1] - self.starts[n] for n in numbers)
        rows = torch.tensor([self.starts[n] for n in numbers])[:, None] + torch.arange(longest)
        inside = rows < torch.tensor([self.starts[n + 1] for n in numbers])[:, None]
        rows = rows.clamp(max=len(self.ids) - 1)
        return head(
            self.ids[rows].to(device), self.states[rows].to(device).float(), inside.to(device)
        )


@dataclass(frozen=True)
class MatchData:
    """Passages and their questions as states.

    `owner[q]` is question q's passage; `near[q]` are the passages that its words also fit.
    """

    passages: States
    questions: States
    owner: Sequence[int]
    near: Sequence[Sequence[int]]

    @classmethod
    def of(
        cls,
        lm: FrozenModel,
        found: Sequence[QuestionedPassage],
        layers: Sequence[int],
        most: int = 4,
        *,
        negatives: bool = True,
    ) -> MatchData:
        """States of passages and of up to `most` questions each.

        Args:
            lm: The bare model.
            found: The passages with their questions.
            layers: The indexes of the states to keep.
            most: Questions per passage.
            negatives: Search hard negatives for each question.
        """
        asked = [(q.text, n) for n, p in enumerate(found) for q in p.questions[:most]]
        neighbours = Neighbours([p.context for p in found])
        near = [
            [n for n in neighbours.of(text, 6) if n != own] if negatives else []
            for text, own in asked
        ]
        passages = States.of(lm, [p.context for p in found], layers)
        return cls(
            passages,
            States.of(lm, [text for text, _ in asked], layers),
            [n for _, n in asked],
            near,
        )


def first_head(
    lm: FrozenModel, data: MatchData, layers: Sequence[int], dimension: int
) -> MatchHead:
    """The head that training starts from.

    Rare tokens weigh more, and the averages are whitened and projected on their main directions.
    """
    vocabulary = lm.model.get_input_embeddings().weight.shape[0]
    spread = torch.ones(vocabulary)
    for start, end in zip(data.passages.starts, data.passages.starts[1:], strict=False):
        spread[torch.unique(data.passages.ids[start:end])] += 1
    width = data.passages.states.shape[1] * data.passages.states.shape[2]
    count = len(data.passages.starts) - 1
    head = MatchHead(
        torch.tensor(layers),
        (torch.tensor(float(count)) / spread).log() * 0.5,
        torch.zeros(width // len(layers)),
        torch.eye(width),
        torch.zeros(width),
    )
    numbers = list(range(0, count, max(1, count // 2000)))
    pooled = torch.cat(
        [data.passages.vectors(head, numbers[i : i + 64]) for i in range(0, len(numbers), 64)]
    )
    mean = pooled.mean(0)
    _, scale, directions = torch.linalg.svd(pooled - mean, full_matrices=False)
    projection = directions[:dimension] / (scale[:dimension, None] / len(pooled) ** 0.5 + 1e-3)
    projection /= projection.norm(dim=1).mean()
    return MatchHead(head.layers, head.tokens, head.attend, projection, -(projection @ mean))


def learnable(head: MatchHead) -> MatchHead:
    """The head with copies of its tensors that learn; the layers that it pools stay."""
    return MatchHead(
        layers=head.layers, **{n: torch.nn.Parameter(getattr(head, n).clone()) for n in LEARNED}
    )


def stored(head: MatchHead) -> dict[str, Tensor]:
    """The head's tensors under their names in the file."""
    return {
        "layers": head.layers.cpu(),
        **{n: getattr(head, n).detach().half().cpu().contiguous() for n in LEARNED},
    }


def recalls(questions: Tensor, passages: Tensor, own: Sequence[int]) -> dict[str, float]:
    """The shares of questions [n, d] whose own passage is among the best of all passages [m, d].

    The ranking is by vector alone.
    """
    scores = questions @ passages.T
    reached = scores.gather(1, torch.tensor(own, device=scores.device)[:, None])
    rank = (scores > reached).sum(1)
    return {f"recall@{k}": float((rank < k).float().mean()) for k in (1, 5, 10)}


def missed(figures: Mapping[str, float]) -> float:
    """The share of questions whose passage is not first, plus half of those not among five."""
    return 1.5 - figures["recall@1"] - 0.5 * figures["recall@5"]


@dataclass
class MatcherTask:
    """Trains the head's tensors on kept states.

    `held_out` is never trained on; its passages are all candidates for each other.
    """

    head: MatchHead
    data: MatchData
    held_out: MatchData
    write: Callable[[Mapping[str, Tensor], Path], None]
    random: Random
    size: int = 192

    def __post_init__(self) -> None:
        self.head = learnable(self.head)

    def parameters(self) -> Sequence[Tensor]:
        """The trained tensors."""
        return [getattr(self.head, n) for n in LEARNED]

    def learn(self) -> tuple[float, int, int]:
        """InfoNCE of a batch of questions, each with its passage and a hard negative."""
        asked = self.random.sample(
            range(len(self.data.owner)), min(self.size, len(self.data.owner))
        )
        hard = [self.random.choice(self.data.near[q]) for q in asked if self.data.near[q]]
        numbers = sorted({self.data.owner[q] for q in asked} | set(hard))
        place = {n: i for i, n in enumerate(numbers)}
        questions = self.data.questions.vectors(self.head, asked)
        passages = self.data.passages.vectors(self.head, numbers)
        own = torch.tensor([place[self.data.owner[q]] for q in asked], device=passages.device)
        loss = self_matching(questions, passages, own, TEMPERATURE) / len(asked)
        loss.backward()  # type: ignore[no-untyped-call]
        return float(loss.detach()), 1, len(asked)

    @torch.no_grad()
    def validate(self) -> Mapping[str, float]:
        """Recall of the held-out questions' own passages by vector, among all held-out passages."""
        data = self.held_out
        keys = torch.cat(
            [data.passages.vectors(self.head, [n]) for n in range(len(data.passages.starts) - 1)]
        )
        asked = torch.cat([data.questions.vectors(self.head, [q]) for q in range(len(data.owner))])
        return recalls(asked, keys, data.owner)

    def score(self, figures: Mapping[str, float]) -> float:
        """The figure that `missed` computes; lower is better."""
        return missed(figures)

    def save(self, folder: Path) -> None:
        """Write the head as one safetensors file."""
        self.write(stored(self.head), folder / "match.safetensors")

    def state(self) -> Any:
        """The state of the random draws."""
        version, numbers, gauss = self.random.getstate()
        return [version, list(numbers), gauss]

    def restore(self, state: list[Any]) -> None:
        """Continue from that state."""
        self.random.setstate((state[0], tuple(state[1]), state[2]))
