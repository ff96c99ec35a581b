"""Asks the questions of a file of anything that can add, ask and search.

gold: a question sees its own passage alone. stream: all passages are in one memory, and a question
must find its own. abstain: as gold, and once more with another passage, which lacks the answer.
growth: the questions of the first passages, as in stream, repeated while more documents come in.
Every reader gets the same questions, one after another, so that a busy machine slows all of them
alike. Knows the protocols; knows no model and no figures.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol, TypeAlias, get_args

from cmt_sdk.errors import InvalidInput, InvalidSetting
from cmt_sdk.evaluation.drawing import Item, draw, source_of
from cmt_sdk.evaluation.metrics import exact_match, f1, paper_exact_match, paper_f1
from cmt_sdk.questions.dataset import QuestionedPassage
from cmt_sdk.types import Answer, Document, Match, Progress, ReaderKind, SearchMode, Stats

ProtocolKind: TypeAlias = Literal["gold", "stream", "abstain", "growth"]
OnStage: TypeAlias = Callable[[str, int, int], None]

MODES: tuple[SearchMode, ...] = get_args(SearchMode)
MAX_RANK = 10  # passages on which retrieval is judged
ALL_PASSAGES = 50  # passages to ask for in the gold protocol: all those of one document
# passages whose questions are asked while the memory grows, as in CMT's table of retention
FIRST_PASSAGES = 200


class Asks(Protocol):
    """A model that answers questions."""

    def ask(
        self, question: str, *, reader: ReaderKind, k: int, max_tokens: int, source: str | None
    ) -> Answer:
        """Answer a question; see `MemoryModel.ask`."""


class Subject(Protocol):
    """The thing to measure: a Memory, or anything that behaves like one."""

    @property
    def model(self) -> Asks:
        """The model that answers."""

    def add_many(
        self, documents: Sequence[Document], *, on_progress: Callable[[Progress], None]
    ) -> Progress:
        """Add documents, and compress them."""

    def reencode(self, on_progress: Callable[[Progress], None]) -> int:
        """Encode passages again that were encoded with other settings."""

    def search(self, query: str, k: int, *, mode: SearchMode) -> Sequence[Match]:
        """The k best passages."""

    def count(self, *, source: str | None = None) -> int:
        """The number of documents, or of those of a source (with wildcards)."""

    def stats(self) -> Stats:
        """The memory in numbers."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The questions to ask, and how.

    Args:
        protocol: "gold", "stream", "abstain" or "growth".
        readers: The readers to measure.
        k: Passages per question.
        passages: Use only this many passages of the file, from the first on.
        limit: Draw this many questions.
        stages: How often the questions are repeated while the memory grows.
        seed: Draws the questions.
        max_tokens: The longest answer.

    Raises:
        InvalidSetting: A value is out of bounds.
    """

    protocol: ProtocolKind = "stream"
    readers: Sequence[ReaderKind] = ("memory", "text", "none")
    k: int = 5
    passages: int | None = None
    limit: int | None = None
    stages: int = 4
    seed: int = 0
    max_tokens: int = 32

    def __post_init__(self) -> None:
        for name, value, allowed in (
            ("protocol", [self.protocol], get_args(ProtocolKind)),
            ("reader", self.readers, get_args(ReaderKind)),
        ):
            for one in value:
                if one not in allowed:
                    raise InvalidSetting(f"{name}={one!r}: choose one of {', '.join(allowed)}")
        for name in ("k", "passages", "limit", "stages", "max_tokens"):
            number = getattr(self, name)
            if number is not None and number < 1:
                raise InvalidSetting(f"{name}={number}: choose at least 1")


@dataclass(frozen=True, slots=True)
class Reply:
    """One reader's answer to one question, its cost and its quality.

    Attributes:
        text: The answer.
        wrote: The reader that it came from.
        sources: The names of the passages that were read.
        found: Whether the question's own passage was among them.
        abstained: Whether it says that the memory does not hold the answer.
        confidence: In [0, 1].
        prompt_tokens: Tokens that the model read.
        memory_tokens: Tokens that it read from memory instead.
        answer_tokens: Tokens of the answer.
        first_token_ms: Milliseconds of all stages but decode.
        milliseconds: By stage.
        exact: Exact match, in [0, 1]; so are the other three metrics.
        f1: Token F1.
        paper_exact: The paper's exact match.
        paper_f1: The paper's F1.
        error: Why the question failed, and all else is empty; "" where it did not.
    """

    text: str = ""
    wrote: str = ""
    sources: Sequence[str | None] = ()
    found: bool = False
    abstained: bool = False
    confidence: float = 0.0
    prompt_tokens: int = 0
    memory_tokens: int = 0
    answer_tokens: int = 0
    first_token_ms: float = 0.0
    milliseconds: Mapping[str, float] = field(default_factory=dict)
    exact: float = 0.0
    f1: float = 0.0
    paper_exact: float = 0.0
    paper_f1: float = 0.0
    error: str = ""


@dataclass(frozen=True, slots=True)
class Asked:
    """One question with all replies.

    Attributes:
        id: The question's, in its file.
        question: The question.
        answers: The accepted answers.
        source: The name of its passage.
        ranks: By search mode, the rank of its passage, from 1; None beyond the first ten.
        replies: By reader.
        absent: By reader, replies from another passage alone, where the protocol has them.
    """

    id: str
    question: str
    answers: Sequence[str]
    source: str
    ranks: Mapping[str, int | None]
    replies: Mapping[str, Reply]
    absent: Mapping[str, Reply] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Stage:
    """A memory of `documents` documents, and the questions asked of it."""

    documents: int
    asked: Sequence[Asked]


def run(
    subject: Subject,
    passages: Sequence[QuestionedPassage],
    plan: Plan,
    on_stage: OnStage = lambda *_: None,
) -> list[Asked]:
    """Fill the memory, then ask.

    Args:
        subject: The memory to measure.
        passages: The passages with their questions.
        plan: The questions to ask.
        on_stage: Called as on_stage(stage, done, total) in the stages "encode", "add" and "ask".

    Returns:
        The questions with all replies.

    Raises:
        InvalidInput: The memory holds other documents, which the protocol excludes.
    """
    bank = passages[: plan.passages]
    items = _drawn(bank, plan)
    wanted = {name for item in items for name in (item.source, item.other)}
    needed = (
        bank if plan.protocol == "stream" else [p for p in bank if source_of(p.context) in wanted]
    )
    _fill(subject, [_document(p) for p in needed], on_stage)
    _check(subject, needed, 0 if plan.protocol == "stream" else None)
    return _ask_all(subject, items, plan, on_stage)


def grow(
    subject: Subject,
    passages: Sequence[QuestionedPassage],
    later: Sequence[Document],
    plan: Plan,
    on_stage: OnStage = lambda *_: None,
) -> list[Stage]:
    """Ask the questions of the first passages while the memory grows.

    The first stage has these passages alone; each later stage adds a part of `later`. The memory
    must be empty, or as an earlier call left it at its first stage.

    Args:
        subject: The memory to measure.
        passages: The passages with their questions.
        later: The documents to add.
        plan: The questions to ask.
        on_stage: As in `run`.

    Returns:
        The replies of each stage.

    Raises:
        InvalidInput: The memory holds other documents.
    """
    bank = passages[: plan.passages or FIRST_PASSAGES]
    items = _drawn(bank, plan)
    stages = []
    _fill(subject, [_document(p) for p in bank], on_stage)
    _check(subject, bank, 0)
    for part in range(plan.stages + 1):
        start, end = (len(later) * max(0, n) // plan.stages for n in (part - 1, part))
        if part:
            _fill(subject, later[start:end], on_stage)
        stages.append(Stage(subject.count(), _ask_all(subject, items, plan, on_stage)))
    return stages


def _ask_all(subject: Subject, items: Sequence[Item], plan: Plan, on_stage: OnStage) -> list[Asked]:
    for reader in plan.readers:
        # the first question pays for loading the model
        _reply(subject, items[0], reader, plan, items[0].source)
    asked = []
    for item in items:
        asked.append(_ask(subject, item, plan))
        on_stage("ask", len(asked), len(items))
    return asked


def _drawn(bank: Sequence[QuestionedPassage], plan: Plan) -> list[Item]:
    return draw(bank, plan.limit, plan.seed, with_other=plan.protocol == "abstain")


def _document(passage: QuestionedPassage) -> Document:
    return Document(
        passage.context, source=source_of(passage.context), metadata={"article": passage.title}
    )  # no title: measured as published, by the passage alone


def _fill(subject: Subject, documents: Sequence[Document], on_stage: OnStage) -> None:
    """Bring documents in, and encode those again that an earlier run encoded otherwise."""
    subject.reencode(lambda p: on_stage("encode", p.compressed, 0))
    subject.add_many(
        documents, on_progress=lambda p: on_stage("add", p.added + p.unchanged, len(documents))
    )


def _check(subject: Subject, passages: Sequence[QuestionedPassage], most: int | None) -> None:
    """Check that every passage is there once, with at most `most` other documents.

    Raises:
        InvalidInput: It is not so.
    """
    missing = sum(subject.count(source=source_of(p.context)) != 1 for p in passages)
    others = subject.count() - len(passages)
    if missing or (most is not None and others > most):
        raise InvalidInput(
            f"the memory lacks {missing} of the {len(passages)} passages under their names and"
            f" holds {others} other documents, which would be found too; evaluate in an empty"
            " folder"
        )


def _ask(subject: Subject, item: Item, plan: Plan) -> Asked:
    """Ask one question of every reader, and search for its passage where there are others."""
    ranks = _ranks(subject, item) if plan.protocol in ("stream", "growth") else {}
    replies: dict[str, Reply] = {
        reader: _reply(subject, item, reader, plan, item.source) for reader in plan.readers
    }
    absent: dict[str, Reply] = {}
    if item.other:
        absent = {
            reader: _reply(subject, item, reader, plan, item.other) for reader in plan.readers
        }
    q = item.question
    return Asked(q.id, q.text, q.answers, item.source, ranks, replies, absent)


def _ranks(subject: Subject, item: Item) -> dict[str, int | None]:
    """By search mode, the rank of the question's passage."""

    def rank(mode: SearchMode) -> int | None:
        matches = subject.search(item.question.text, MAX_RANK, mode=mode)
        return next((n for n, m in enumerate(matches, 1) if m.document.source == item.source), None)

    return {mode: rank(mode) for mode in MODES}


def _reply(subject: Subject, item: Item, reader: ReaderKind, plan: Plan, source: str) -> Reply:
    """A reader's reply, from the document `source` alone where the protocol asks for that."""
    is_alone = plan.protocol in ("gold", "abstain")
    try:
        answer = subject.model.ask(
            item.question.text,
            reader=reader,
            k=ALL_PASSAGES if is_alone else plan.k,
            max_tokens=plan.max_tokens,
            source=source if is_alone else None,
        )
    except InvalidInput as error:
        # such as more passages than the context holds: that question fails, the run continues
        return Reply(error=str(error))
    return _scored(answer, item)


def _scored(answer: Answer, item: Item) -> Reply:
    """An answer with its metrics: SQuAD's on the first line, the paper's on the whole."""
    first_line = answer.text.strip().partition("\n")[0]
    references = item.question.answers
    sources = [s.source for s in answer.sources]
    return Reply(
        text=answer.text,
        wrote=answer.reader,
        sources=sources,
        found=item.source in sources,
        abstained=answer.abstained,
        confidence=answer.confidence,
        prompt_tokens=answer.prompt_tokens,
        memory_tokens=answer.memory_tokens,
        answer_tokens=answer.answer_tokens,
        first_token_ms=sum(ms for stage, ms in answer.milliseconds.items() if stage != "decode"),
        milliseconds=dict(answer.milliseconds),
        exact=exact_match(first_line, references),
        f1=f1(first_line, references),
        paper_exact=paper_exact_match(answer.text, references),
        paper_f1=paper_f1(answer.text, references),
    )
