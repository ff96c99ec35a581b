"""What is minimised, piece by piece: each a function of logits or scores, each switched by its
weight. Pure tensor code.

All sums run over the tokens or rows that are given; what to divide them by is the caller's matter.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, kl_div

from cmt_sdk.errors import InvalidSetting


@dataclass(frozen=True, slots=True)
class Objectives:
    """The weights of the pieces; 0 switches one off.

    answer: cross-entropy of the answers. teacher: divergence from a reader that has more before it:
    the text, or every entry. alpha: of the memory-aware logits, with which both are computed (CMT,
    arXiv 2412.07393; 0.5 in the decoding method that it comes from). states: distance from that
    reader's states on its way through the layers, for `soft`; without such a reader, as for a model
    that no adapters are shipped for, `teacher` and `states` count nothing.
    """

    answer: float = 1.0
    teacher: float = 0.0
    alpha: float = 0.0
    states: float = 0.0

    def __post_init__(self) -> None:
        for name in ("answer", "teacher", "alpha", "states"):
            if not 0.0 <= getattr(self, name) <= 10.0:
                raise InvalidSetting(f"{name}={getattr(self, name)}: choose 0 to 10")
        if self.answer + self.teacher + self.states == 0.0:
            raise InvalidSetting(
                "answer=0 and teacher=0: then there is nothing to learn from; give one a weight"
            )

    def loss(
        self, logits: Tensor, labels: Tensor, teacher: Tensor | None, without: Tensor | None
    ) -> Tensor:
        """The weighted sum over answer tokens: logits and those `without` memory [t, v], labels
        [t]; `teacher` [n, v] has the logits of the first n of them, all or fewer.
        """
        answered = (
            memory_aware(logits, without, self.alpha)
            if self.alpha and without is not None
            else logits
        )
        total = self.answer * cross_entropy(answered, labels, reduction="sum")
        if teacher is None or not self.teacher:
            return total
        return total + self.teacher * teacher_divergence(answered[: len(teacher)], teacher)


def teacher_divergence(student: Tensor, teacher: Tensor) -> Tensor:
    """Kullback-Leibler divergence of the student's next-token distributions from the teacher's,
    summed; logits [t, v].
    """
    return kl_div(
        student.log_softmax(-1), teacher.log_softmax(-1), log_target=True, reduction="sum"
    )


def state_distance(student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
    """Mean squared distance of states [t, d], by layer, from the teacher's. Each value is measured
    by the root mean square that the teacher has there: a few are a hundred times as large as the
    rest.
    """
    apart = [
        (a - b).square() / b.square().mean(0).clamp(min=1e-6)
        for a, b in zip(student, teacher, strict=True)
    ]
    return torch.stack([a.mean() for a in apart]).mean()


def memory_aware(with_memory: Tensor, without: Tensor, alpha: float) -> Tensor:
    """Logits (1 + alpha) l(y | M, q) - alpha l(y | q): what the memory adds counts more; the second
    term has no gradient.

    CMT, arXiv 2412.07393; both [t, v].
    """
    return (1 + alpha) * with_memory - alpha * without.detach()


def self_matching(questions: Tensor, passages: Tensor, own: Tensor, temperature: float) -> Tensor:
    """InfoNCE, the bounded form of CMT's self-matching: each question [n, d] against all passages
    [m, d], summed.

    own [n]: the passage of each question. Rows are unit vectors; van den Oord et al. 2018, arXiv
    1807.03748.
    """
    return cross_entropy(questions @ passages.T / temperature, own, reduction="sum")


def repulsion(passages: Tensor) -> Tensor:
    """The log of the sum of exp(-|M_i - M_j|^2) over pairs i != j of unit rows [m, d]: CMT's term
    against collapse.
    """
    distances = torch.cdist(passages, passages).square()
    apart = ~torch.eye(len(passages), dtype=torch.bool, device=passages.device)
    return (-distances[apart]).logsumexp(0)
