"""Training the match head: questions pulled to their passages, the passages of a batch apart.

Self-matching in its bounded form, InfoNCE over the batch (van den Oord et al. 2018, arXiv
1807.03748). The model is frozen and bare, so its states are computed once and kept. Batches can
then be large, and the negatives hard: a batch has passages that full-text search would mistake for
a question's own.
"""

from __future__ import annotations

import re
import sqlite3
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
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
        rare = [word for word in words if word not in self._common]
        asked = " OR ".join(f'"{word}"' for word in rare or words)
        found = self._db.execute(
            "SELECT rowid FROM words WHERE words MATCH ? ORDER BY bm25(words) LIMIT ?",
            (asked or '""', count),
        )
        return [row for (row,) in found]


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


@dataclass(frozen=True)
class States:
    """The frozen model's states of many texts, end to end, on the CPU.

    Attributes:
        ids: int64 [t], the tokens of all texts.
        states: fp16 [t, layers, d], of length 1.
        starts: The index of each text's first token, and t at the end.
    """

    ids: Tensor
    states: Tensor
    starts: Sequence[int]

    @classmethod
    def of(cls, lm: FrozenModel, texts: Sequence[str], layers: Sequence[int]) -> States:
        """Compute the states of texts, batched by length.

        Args:
            lm: The bare model.
            texts: At least one text.
            layers: Numbers of layers after which states are taken.
        """
        ids = [lm.ids(t)[:MAX_PASSAGE_TOKENS] for t in texts]
        found: dict[int, Tensor] = {}
        for batch in batches([len(i) for i in ids]):
            tokens = padded([ids[i] for i in batch], lm.device, lm.end_id)  # (n, t)
            with torch.inference_mode():
                states = unit_states(lm, tokens, layers)
            states = states.half().cpu()  # (n, t, layers, d)
            # Clones: a view would hold the padding of all rows in memory.
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
        """The head's vectors [n, dimension] of some texts, with gradients where they are on.

        Args:
            head: The head.
            numbers: Which texts, at least one.
        """
        device = head.bias.device
        longest = max(self.starts[n + 1] - self.starts[n] for n in numbers)
        starts = torch.tensor([self.starts[n] for n in numbers])[:, None]  # (n, 1)
        ends = torch.tensor([self.starts[n + 1] for n in numbers])[:, None]
        index = starts + torch.arange(longest)  # (n, longest) into all tokens
        inside = index < ends  # beyond a text's end are tokens of the next one
        index = index.clamp(max=len(self.ids) - 1)
        ids = self.ids[index].to(device)  # (n, longest)
        states = self.states[index].to(device).float()  # (n, longest, layers, d)
        return head(ids, states, inside.to(device))


@dataclass(frozen=True)
class MatchData:
    """Passages and their questions as states.

    Attributes:
        passages: The passages.
        questions: The questions.
        owner: The index of each question's passage.
        near: For each question the indexes of passages that its words also fit.
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
            layers: Numbers of layers after which states are kept.
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

    1. The log weight of a token is half its inverse document frequency: rare tokens weigh more.
    2. The passages are pooled by these weights, without a projection.
    3. The averages are centred, projected on their main directions, and whitened: each direction
       then discriminates alike.

    Args:
        lm: The model.
        data: Passages to compute it from; some 2,000 of them are used for the directions.
        layers: Numbers of layers after which the states were taken.
        dimension: Values of an embedding; fewer passages make fewer.
    """
    vocabulary = lm.model.get_input_embeddings().weight.shape[0]
    spread = torch.ones(vocabulary)  # of each token, the passages that have it, and one
    for start, end in zip(data.passages.starts, data.passages.starts[1:], strict=False):
        spread[torch.unique(data.passages.ids[start:end])] += 1
    width = data.passages.states.shape[1] * data.passages.states.shape[2]  # layers * d
    count = len(data.passages.starts) - 1
    unprojected = MatchHead(
        layers=torch.tensor(layers),
        tokens=(torch.tensor(float(count)) / spread).log() * 0.5,
        attend=torch.zeros(width // len(layers)),
        projection=torch.eye(width),
        bias=torch.zeros(width),
    )
    numbers = list(range(0, count, max(1, count // 2000)))
    some = [numbers[i : i + 64] for i in range(0, len(numbers), 64)]
    pooled = torch.cat([data.passages.vectors(unprojected, n) for n in some])  # (passages, width)
    mean = pooled.mean(0)  # (width,)
    _, scale, directions = torch.linalg.svd(pooled - mean, full_matrices=False)
    # The deviation along each direction; the constant bounds what tiny ones are multiplied by.
    deviation = scale[:dimension, None] / len(pooled) ** 0.5 + 1e-3  # (dimension, 1)
    projection = directions[:dimension] / deviation  # (dimension, width)
    projection /= projection.norm(dim=1).mean()
    return replace(unprojected, projection=projection, bias=-(projection @ mean))


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
    """The shares of questions whose own passage is among the best of all passages, by vector alone.

    Args:
        questions: Unit vectors [n, d].
        passages: Unit vectors [m, d].
        own: The index of each question's passage.

    Returns:
        recall@1, recall@5 and recall@10, in [0, 1].
    """
    scores = questions @ passages.T  # (n, m)
    own_index = torch.tensor(own, device=scores.device)[:, None]  # (n, 1)
    reached = scores.gather(1, own_index)  # (n, 1)
    rank = (scores > reached).sum(1)  # (n,) passages that fit better
    return {f"recall@{k}": float((rank < k).float().mean()) for k in (1, 5, 10)}


def missed(figures: Mapping[str, float]) -> float:
    """The share of questions whose passage is not first, plus half of those not among five."""
    return 1.5 - figures["recall@1"] - 0.5 * figures["recall@5"]


@dataclass
class MatcherTask:
    """Trains the head's tensors on kept states.

    Args:
        head: The head that training starts from.
        data: The passages and questions to learn from.
        held_out: Those to validate on, all of them candidates for each other.
        write: Saves tensors to a file.
        random: Draws the batches.
        size: Questions per batch.
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
        place = {n: i for i, n in enumerate(numbers)}  # by passage, its row in the batch
        questions = self.data.questions.vectors(self.head, asked)  # (questions, dimension)
        passages = self.data.passages.vectors(self.head, numbers)  # (passages, dimension)
        own = torch.tensor([place[self.data.owner[q]] for q in asked], device=passages.device)
        loss = self_matching(questions, passages, own, TEMPERATURE) / len(asked)
        loss.backward()  # type: ignore[no-untyped-call]
        return float(loss.detach()), 1, len(asked)

    @torch.no_grad()
    def validate(self) -> Mapping[str, float]:
        """Recall of the held-out questions' own passages by vector, among all held-out passages."""
        data = self.held_out
        count = len(data.passages.starts) - 1
        passages = torch.cat([data.passages.vectors(self.head, [n]) for n in range(count)])
        asked = torch.cat([data.questions.vectors(self.head, [q]) for q in range(len(data.owner))])
        return recalls(asked, passages, data.owner)

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
