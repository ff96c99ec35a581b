"""The terms of the training losses: functions of logits or scores, each switched by its weight.

Pure tensor code. Sums run over the given tokens or rows; the caller divides them. In comments: t
answer tokens, v the vocabulary, d values per state or vector.
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

        `states` has no part in it: the caller adds `state_distance`, which needs no logits.

        Args:
            logits: [t, v], with memory.
            labels: [t].
            teacher: [n, v], the teacher's logits of the first n tokens, or None.
            without: [t, v], logits without memory, or None.

        Returns:
            A scalar, in nats.
        """
        answered = logits
        if self.alpha and without is not None:
            answered = memory_aware(logits, without, self.alpha)  # (t, v)
        total = self.answer * cross_entropy(answered, labels, reduction="sum")
        if teacher is None or not self.teacher:
            return total
        # A teacher does not read packs without questions; they come last.
        taught = answered[: len(teacher)]  # (n, v)
        return total + self.teacher * teacher_divergence(taught, teacher)


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

    Distillation with the teacher's probabilities as targets (Hinton et al. 2015, arXiv 1503.02531).

    Args:
        student: Logits [t, v], with gradients.
        teacher: Logits [t, v].

    Returns:
        A scalar, in nats.
    """
    log_student = student.log_softmax(-1)  # (t, v)
    log_teacher = teacher.log_softmax(-1)
    return kl_div(log_student, log_teacher, log_target=True, reduction="sum")


def state_distance(student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
    """Mean squared distance of the student's states from the teacher's, over layers and tokens.

    Each value is divided by the teacher's root mean square there: a few values are a hundred times
    as large as the rest.

    Args:
        student: By layer, [t, d].
        teacher: The same shapes.

    Returns:
        A scalar without unit: 1 where the student's states are 0.
    """
    by_layer = []
    for own, target in zip(student, teacher, strict=True):
        scale = target.square().mean(0).clamp(min=1e-6)  # (d,)
        apart = (own - target).square() / scale  # (t, d)
        by_layer.append(apart.mean())
    return torch.stack(by_layer).mean()


def memory_aware(with_memory: Tensor, without: Tensor, alpha: float) -> Tensor:
    """Logits (1 + alpha) l(y | M, q) - alpha l(y | q): what the memory adds counts more (CMT, arXiv
    2412.07393; context-aware decoding, Shi et al. 2023, arXiv 2305.14739).

    Args:
        with_memory: l(y | M, q), [t, v].
        without: l(y | q), [t, v]; no gradient flows through it.
        alpha: The weight of the difference.

    Returns:
        [t, v].
    """
    return (1 + alpha) * with_memory - alpha * without.detach()


def self_matching(questions: Tensor, passages: Tensor, own: Tensor, temperature: float) -> Tensor:
    """InfoNCE, the bounded form of CMT's self-matching, summed over the questions (van den Oord et
    al. 2018, arXiv 1807.03748).

    Args:
        questions: Unit vectors [n, d].
        passages: Unit vectors [m, d], all of them candidates.
        own: [n], the index of each question's passage.
        temperature: Divides the similarities.

    Returns:
        A scalar, in nats.
    """
    similarities = questions @ passages.T  # (n, m)
    return cross_entropy(similarities / temperature, own, reduction="sum")


def repulsion(passages: Tensor) -> Tensor:
    """CMT's term against collapse: log sum exp(-|M_i - M_j|^2) over pairs of passages.

    Args:
        passages: Unit vectors [m, d], at least two.

    Returns:
        A scalar; the smaller, the further the passages are apart.
    """
    distances = torch.cdist(passages, passages).square()  # (m, m)
    is_pair = ~torch.eye(len(passages), dtype=torch.bool, device=passages.device)
    return (-distances[is_pair]).logsumexp(0)
