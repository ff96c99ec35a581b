"""From replies to figures: means with intervals, recall, abstention, and a growth curve. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median

from cmt_sdk.answering.answerer import CONFIDENT
from cmt_sdk.evaluation.harness import MODES, Asked, Reply, Stage
from cmt_sdk.evaluation.metrics import Interval, auroc, bootstrap, recall_at

DEPTHS = (1, 5, 10)


@dataclass(frozen=True, slots=True)
class Figures:
    """The figures of one reader over all questions.

    Attributes:
        exact: Exact match, in percent.
        f1: Token F1, in percent.
        paper_exact: The paper's exact match, in percent.
        paper_f1: The paper's F1, in percent.
        abstained: Questions without an answer, in percent.
        found: Questions whose own passage was read, in percent.
        wrote: By reader, the answers that came from it, in percent; "auto" has two.
        confidence_auroc: In [0, 1], how well the confidence separates exact answers from others;
            None where all are alike.
        prompt_tokens: The mean per question; failed ones are left out, here and below.
        memory_tokens: The mean per question.
        answer_tokens: The mean per question.
        first_token_ms: The median time to the first token.
        milliseconds: The median time by stage.
        errors: Questions that failed; they score 0.
    """

    exact: Interval
    f1: Interval
    paper_exact: Interval
    paper_f1: Interval
    abstained: float
    found: float
    wrote: Mapping[str, float]
    confidence_auroc: float | None
    prompt_tokens: float
    memory_tokens: float
    answer_tokens: float
    first_token_ms: float
    milliseconds: Mapping[str, float]
    errors: int


@dataclass(frozen=True, slots=True)
class Abstention:
    """One reader on as many questions with their own passage as with one that lacks the answer.

    Attributes:
        auroc: In [0, 1], how well the confidence separates the two; None without both kinds.
        threshold: The confidence from which an answer counts.
        accuracy: The mean of `answered` and `withheld`, in percent.
        answered: Questions with their own passage that were answered, in percent.
        withheld: Others that were not, in percent.
    """

    auroc: float | None
    threshold: float
    accuracy: float
    answered: float
    withheld: float


@dataclass(frozen=True, slots=True)
class Point:
    """The scores of a memory of a size, in percent.

    Attributes:
        documents: The documents in the memory.
        exact: By reader, exact match.
        f1: By reader, token F1.
        relative: By reader, F1 as a share of that at the first point.
        retrieval: By search mode and depth, recall.
    """

    documents: int
    exact: Mapping[str, float]
    f1: Mapping[str, float]
    relative: Mapping[str, float]
    retrieval: Mapping[str, Mapping[str, float]]


def figures(replies: Sequence[Reply], seed: int) -> Figures:
    """The figures of one reader.

    Args:
        replies: Its replies.
        seed: Draws the bootstrap.
    """
    answered = [r for r in replies if not r.error] or [Reply()]

    def percent(metric: Callable[[Reply], float]) -> Interval:
        return bootstrap([100 * metric(r) for r in replies], seed)

    def mean(value: Callable[[Reply], float]) -> float:
        return fmean(value(r) for r in answered)

    def median_ms(stage: str) -> float:
        return median(r.milliseconds[stage] for r in answered if stage in r.milliseconds)

    writers = sorted({r.wrote for r in answered})
    stages = dict.fromkeys(s for r in answered for s in r.milliseconds)
    return Figures(
        exact=percent(lambda r: r.exact),
        f1=percent(lambda r: r.f1),
        paper_exact=percent(lambda r: r.paper_exact),
        paper_f1=percent(lambda r: r.paper_f1),
        abstained=100 * fmean(r.abstained for r in replies),
        found=100 * fmean(r.found for r in replies),
        wrote={name: 100 * fmean(r.wrote == name for r in replies) for name in writers if name},
        confidence_auroc=auroc([r.confidence for r in answered], [r.exact == 1 for r in answered]),
        prompt_tokens=mean(lambda r: r.prompt_tokens),
        memory_tokens=mean(lambda r: r.memory_tokens),
        answer_tokens=mean(lambda r: r.answer_tokens),
        first_token_ms=median(r.first_token_ms for r in answered),
        milliseconds={name: median_ms(name) for name in stages},
        errors=sum(bool(r.error) for r in replies),
    )


def retrieval(asked: Sequence[Asked]) -> dict[str, dict[str, float]]:
    """Recall in percent by search mode: {"fused": {"recall@1": ...}, ...}."""
    return {
        mode: {f"recall@{k}": 100 * recall_at(k, [a.ranks[mode] for a in asked]) for k in DEPTHS}
        for mode in MODES
    }


def abstention(asked: Sequence[Asked], reader: str) -> Abstention:
    """How well a reader knows that a passage lacks the answer.

    It answers where it is at least as confident as "auto" requires.

    Args:
        asked: Questions with replies from their own and from another passage.
        reader: The reader.
    """
    present = [a.replies[reader] for a in asked]
    absent = [a.absent[reader] for a in asked]

    def answers(reply: Reply) -> bool:
        return not reply.abstained and reply.confidence >= CONFIDENT

    answered = 100 * fmean(map(answers, present))
    withheld = 100 * fmean(not answers(r) for r in absent)
    known = [True] * len(present) + [False] * len(absent)
    return Abstention(
        auroc=auroc([r.confidence for r in (*present, *absent)], known),
        threshold=CONFIDENT,
        accuracy=(answered + withheld) / 2,
        answered=answered,
        withheld=withheld,
    )


def curve(stages: Sequence[Stage], readers: Sequence[str]) -> list[Point]:
    """The scores at every stage of a growing memory."""
    points: list[Point] = []
    for stage in stages:
        exact, f1 = (
            {r: 100 * fmean(getattr(a.replies[r], m) for a in stage.asked) for r in readers}
            for m in ("exact", "f1")
        )
        before = points[0].f1 if points else f1
        relative = {r: 100 * f1[r] / before[r] if before[r] else 100.0 for r in readers}
        points.append(Point(stage.documents, exact, f1, relative, retrieval(stage.asked)))
    return points
