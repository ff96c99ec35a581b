"""The terms of the training losses: functions of logits or scores, each switched by its weight.

Pure tensor code. Sums run over the given tokens or rows; the caller divides them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, kl_div

from cmt_sdk.errors import InvalidSetting


@dataclass(frozen=True, slots=True)
class Objectives:
    """The weights of the loss terms; 0 switches a term off.

    Args:
        answer: Cross-entropy of the answers.
        teacher: Divergence from a reader that sees more: the text, or every entry of the memories.
        alpha: Weight of the memory-aware logits, from which both are computed (CMT, arXiv
            2412.07393; 0.5 in the decoding method that it comes from).
        states: Distance from that reader's hidden states, for `soft`.

    Without a teacher, as for a model that has no shipped adapters, `teacher` and `states` count
    nothing.

    Raises:
        InvalidSetting: A weight is out of bounds, or nothing is left to learn from.
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
                "answer=0 and teacher=0: there is nothing to learn from; give one of them a weight"
            )

    def loss(
        self, logits: Tensor, labels: Tensor, teacher: Tensor | None, without: Tensor | None
    ) -> Tensor:
        """The weighted sum over answer tokens.

        Args:
            logits: [t, v], with memory.
            labels: [t].
            teacher: [n, v], the teacher's logits of the first n tokens, or None.
            without: [t, v], logits without memory, or None.
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


def loss_of_states(
    objectives: Objectives,
    head: Callable[[Tensor], Tensor],
    states: Tensor,
    labels: Tensor,
    teacher: Tensor | None,
    without: Tensor | None,
    at_once: int,
) -> Tensor:
    """`Objectives.loss` of hidden states, with the logits of `at_once` tokens at a time.

    Loss and gradient are sums over tokens, so they are those of all logits at once. A chunk's
    gradient is computed with its loss, and its logits are freed before the next chunk.

    Args:
        objectives: The weights.
        head: Logits [n, v] of states [n, d].
        states: [t, d], with memory.
        labels: [t].
        teacher: [n, d], the teacher's states of the first n tokens, or None.
        without: [t, d], states without memory, or None.
        at_once: Tokens of a chunk.
    """

    def chunk_loss(some: Tensor, place: slice) -> Tensor:
        with torch.no_grad():
            taught = teacher[place] if teacher is not None else states[:0]
            taught_logits = head(taught) if len(taught) else None
            bare = head(without[place]) if without is not None else None
        return objectives.loss(head(some), labels[place], taught_logits, bare)

    loss: Tensor = _Chunked.apply(states, chunk_loss, at_once)  # type: ignore[no-untyped-call]
    return loss


class _Chunked(torch.autograd.Function):
    """The sum of a function of some rows at a time, whose gradient is computed with it."""

    @staticmethod
    def forward(
        ctx: Any, rows: Tensor, function: Callable[[Tensor, slice], Tensor], at_once: int
    ) -> Tensor:
        learns = ctx.needs_input_grad[0]
        total = torch.zeros((), device=rows.device)
        gradient = torch.empty_like(rows if learns else rows[:0])
        for start in range(0, len(rows), at_once):
            place = slice(start, start + at_once)
            leaf = rows[place].detach().requires_grad_(learns)
            with torch.set_grad_enabled(learns):
                loss = function(leaf, place)
            if learns:
                (gradient[place],) = torch.autograd.grad(loss, leaf)
            total += loss.detach()
        ctx.save_for_backward(gradient)
        return total

    @staticmethod
    def backward(ctx: Any, scale: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = ctx.saved_tensors
        return gradient * scale, None, None


def teacher_divergence(student: Tensor, teacher: Tensor) -> Tensor:
    """Kullback-Leibler divergence of the student's next tokens from the teacher's, summed.

    Both are logits [t, v].
    """
    return kl_div(
        student.log_softmax(-1), teacher.log_softmax(-1), log_target=True, reduction="sum"
    )


def state_distance(student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
    """Mean squared distance of states [t, d], by layer, from the teacher's.

    Each value is divided by the teacher's root mean square there: a few values are a hundred times
    as large as the rest.
    """
    apart = [
        (a - b).square() / b.square().mean(0).clamp(min=1e-6)
        for a, b in zip(student, teacher, strict=True)
    ]
    return torch.stack([a.mean() for a in apart]).mean()


def memory_aware(with_memory: Tensor, without: Tensor, alpha: float) -> Tensor:
    """Logits (1 + alpha) l(y | M, q) - alpha l(y | q): what the memory adds counts more.

    The second term has no gradient. Both are [t, v]. CMT, arXiv 2412.07393.
    """
    return (1 + alpha) * with_memory - alpha * without.detach()


def self_matching(questions: Tensor, passages: Tensor, own: Tensor, temperature: float) -> Tensor:
    """InfoNCE, the bounded form of CMT's self-matching, summed over the questions.

    Args:
        questions: Unit vectors [n, d].
        passages: Unit vectors [m, d], all of them candidates.
        own: [n], the index of each question's passage.
        temperature: Divides the similarities.

    van den Oord et al. 2018, arXiv 1807.03748.
    """
    return cross_entropy(questions @ passages.T / temperature, own, reduction="sum")


def repulsion(passages: Tensor) -> Tensor:
    """CMT's term against collapse: log sum exp(-|M_i - M_j|^2) over pairs of unit rows [m, d]."""
    distances = torch.cdist(passages, passages).square()
    apart = ~torch.eye(len(passages), dtype=torch.bool, device=passages.device)
    return (-distances[apart]).logsumexp(0)
